"""The steps of a stage, by Keras's `fit` or by a loop with the same callbacks.

Keras 3.15 cannot fit under MultiWorkerMirroredStrategy. The loop here runs
the model's own `train_step` and `test_step` over each worker's part of the
data; what callbacks see and when is as in `fit`.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator

import keras
import tensorflow as tf

from skipnet_tf import distribution
from skipnet_tf.classifier import plain_errors


@dataclasses.dataclass(frozen=True)
class Segment:
    """Epochs `epoch` to `last_epoch` (exclusive) of `steps` steps each."""

    first_step: int
    epoch: int
    last_epoch: int
    steps: int


def segments(first: int, total: int, per_epoch: int) -> Iterator[Segment]:
    """Cuts what is left of a stage into runs of equally long epochs.

    The rest of an interrupted epoch and a last epoch that is cut short have
    fewer steps than the others.

    Args:
        first: Int, steps done already.
        total: Int, steps of the stage.
        per_epoch: Int, steps of a whole epoch.

    Yields:
        `Segment`s in order.
    """
    while first < total:
        epoch, offset = divmod(first, per_epoch)
        whole = 0 if offset else (total - first) // per_epoch
        if whole:
            yield Segment(first, epoch, epoch + whole, per_epoch)
            first += whole * per_epoch
        else:
            steps = min(per_epoch - offset, total - first)
            yield Segment(first, epoch, epoch + 1, steps)
            first += steps


def executed_together(steps: int, most: int) -> int:
    """The largest divisor of an epoch's `steps` up to `most`.

    Keras would run the last group of an epoch over its end.
    """
    return next(n for n in range(most, 0, -1) if steps % n == 0)


@dataclasses.dataclass(frozen=True)
class Feed:
    """What a stage reads.

    Args:
        training: Function of the first step that returns this process's
            training batches from there on.
        validation: Function without arguments that returns this process's
            validation batches, as many as every other's.
    """

    training: Callable[[int], tf.data.Dataset]
    validation: Callable[[], tf.data.Dataset]


def fit(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    feed: Feed,
    parts: list[Segment],
    callbacks: list[keras.callbacks.Callback],
    together: int = 1,
) -> None:
    """Trains a compiled model.

    Args:
        model: Compiled network, made under `strategy`.
        strategy: Where it trains.
        feed: The data.
        parts: What is left of the stage, see `segments`.
        callbacks: What runs between the steps.
        together: Positive int, most training steps without a callback
            between them; 1 for each of several workers. Defaults to `1`.

    Raises:
        WorkerLost: If another worker is gone.
    """
    if distribution.workers(strategy)[1] > 1:
        with plain_errors():
            _Loop(model, strategy, feed, callbacks).run(parts)
        return
    for part in parts:
        steps = executed_together(part.steps, together)
        if steps != model.steps_per_execution:
            model.steps_per_execution = steps
            # Made for another number of steps.
            model.train_function = model.test_function = None
        model.fit(
            feed.training(part.first_step),
            validation_data=feed.validation(),
            initial_epoch=part.epoch,
            epochs=part.last_epoch,
            steps_per_epoch=part.steps,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )


def validate(
    model: keras.Model, strategy: tf.distribute.Strategy, feed: Feed
) -> dict[str, float]:
    """What an epoch of `fit` would log of its validation.

    Args:
        model: Compiled network, made under `strategy`.
        strategy: Where it trains.
        feed: The data.

    Returns:
        Dict from names of metrics, without `val_`, to numbers.

    Raises:
        WorkerLost: If another worker is gone.
    """
    if distribution.workers(strategy)[1] == 1:
        return model.evaluate(feed.validation(), verbose=0, return_dict=True)
    with plain_errors():
        loop = _Loop(model, strategy, feed, [])
        result = loop.validate(keras.callbacks.CallbackList([], model=model))
    return {name: float(value) for name, value in result.items()}


def cut(dataset: tf.data.Dataset, pieces: int) -> tf.data.Dataset:
    """Cuts every batch into one piece for each replica of this process.

    Args:
        dataset: Batches of images and labels, of at least `pieces ** 2`
            images each.
        pieces: Positive int.

    Returns:
        A data set with `pieces` times as many, smaller batches.
    """
    if pieces == 1:
        return dataset

    def one_batch(images, labels):
        examples = tf.data.Dataset.from_tensor_slices((images, labels))
        return examples.batch(-(-tf.shape(labels, tf.int64)[0] // pieces))

    return dataset.flat_map(one_batch)


class _Loop:
    def __init__(self, model, strategy, feed, callbacks):
        self.model = model
        self.strategy = strategy
        self.feed = feed
        self.callbacks = callbacks
        self.validation = feed.validation()

        @tf.function
        def train(batches):
            return self._first(
                strategy.run(model.train_step, args=(next(batches),))
            )

        @tf.function
        def test(batches):
            strategy.run(model.test_step, args=(next(batches),))

        self.train = train
        self.test = test

    def run(self, parts):
        for part in parts:
            callbacks = keras.callbacks.CallbackList(
                self.callbacks,
                model=self.model,
                epochs=part.last_epoch,
                steps=part.steps,
            )
            batches = self._batches(self.feed.training(part.first_step))
            callbacks.on_train_begin()
            for epoch in range(part.epoch, part.last_epoch):
                self._epoch(epoch, part.steps, batches, callbacks)
            callbacks.on_train_end()

    def _epoch(self, epoch, steps, batches, callbacks):
        self.model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        for step in range(steps):
            callbacks.on_train_batch_begin(step)
            callbacks.on_train_batch_end(step, self.train(batches))
        logs = dict(self.model.get_metrics_result())
        for name, value in self.validate(callbacks).items():
            logs[f"val_{name}"] = value
        callbacks.on_epoch_end(
            epoch, {name: float(value) for name, value in logs.items()}
        )

    def validate(self, callbacks):
        batches = self._batches(self.validation)
        self.model.reset_metrics()
        callbacks.on_test_begin()
        for _ in range(int(self.validation.cardinality())):
            self.test(batches)
        result = self.model.get_metrics_result()
        callbacks.on_test_end(result)
        return result

    def _batches(self, dataset):
        count = distribution.workers(self.strategy)[1]
        pieces = self.strategy.num_replicas_in_sync // count
        # Without an end: TensorFlow would ask all workers before each batch
        # whether anyone has one left.
        dataset = cut(dataset, pieces).repeat()
        return iter(
            self.strategy.distribute_datasets_from_function(lambda _: dataset)
        )

    def _first(self, logs):
        local = self.strategy.experimental_local_results
        return {name: local(value)[0] for name, value in logs.items()}
