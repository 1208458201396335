"""What every run shares: set-up, stages, resuming, results (Algorithm 1).

A run lives in one work directory:

    flags.txt  result.json
    base/ sp/ hrl/ ...       one folder for each stage, holding
        settings.json        its flags
        checkpoints/         to resume from, removed when the stage is done
        log.csv              one row an epoch
        tensorboard/         scalars and the picture of skip rates
        model.keras          network, optimizer and stage at the end
        result.json          accuracy and compute
"""

import dataclasses
import importlib.util
import json
import math
import os
import shutil
from collections.abc import Callable
from collections.abc import Iterator

import keras
import tensorflow as tf

from skipnet_tf import callbacks
from skipnet_tf import checkpoints
from skipnet_tf import data
from skipnet_tf import evaluation
from skipnet_tf import flops
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet

_EVALUATION_BATCH = 500
_MOST_REPLICAS = 64


@dataclasses.dataclass(frozen=True)
class Data:
    """The splits of a run.

    Args:
        name: String, a data set that `skipnet_tf.data.load` knows.
        train_split: String in TFDS's notation.
        validation_split: String; what models are compared on.
        test_split: String, evaluated once at the end, or `""` for never.
        batch_size: Positive int, images per step over all replicas.
        data_dir: Optional string. Defaults to `None`, TFDS's own default.
        download: Bool. Defaults to `False`.
        seed: Int, of initial weights, order and augmentation. Defaults to
            `0`.
    """

    name: str
    train_split: str
    validation_split: str
    test_split: str
    batch_size: int
    data_dir: str | None = None
    download: bool = False
    seed: int = 0

    def describe(self) -> data.DatasetInfo:
        """Checks that all splits are there and describes the first."""
        for split in (self.validation_split, self.test_split):
            if split:
                self._describe(split)
        return self._describe(self.train_split)

    def _describe(self, split):
        return data.describe(self.name, split, self.data_dir, self.download)

    def training(self, epochs: int, first_step: int) -> tf.data.Dataset:
        """Training batches from global step `first_step` on."""
        return data.load(
            self.name,
            self.train_split,
            batch_size=self.batch_size,
            training=True,
            seed=self.seed,
            epochs=epochs,
            first_step=first_step,
            data_dir=self.data_dir,
        )

    def evaluation(self, split: str) -> tf.data.Dataset:
        """Batches of `split` in order, nothing left out."""
        return data.load(
            self.name,
            split,
            batch_size=evaluation_batch(self._describe(split).num_examples),
            data_dir=self.data_dir,
        )


def evaluation_batch(images: int) -> int:
    """Images per batch whose last batch leaves no replica without images."""
    return next(
        batch
        for batch in range(_EVALUATION_BATCH, 0, -1)
        if images % batch == 0 or images % batch >= _MOST_REPLICAS
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """One stage of a run.

    Args:
        name: String, the stage and its folder.
        steps: Positive int, training steps.
        make: Function without arguments that returns the compiled model with
            the weights to start from; called inside the strategy's scope.
    """

    name: str
    steps: int
    make: Callable[[], keras.Model]


def set_up(
    workdir: str,
    deterministic: bool = False,
    mixed_precision: str = "float32",
) -> None:
    """Makes the work directory and sets what holds for the whole process.

    Args:
        workdir: String, the folder that receives everything.
        deterministic: Bool, equal runs give equal bits, at some cost in
            speed. Defaults to `False`.
        mixed_precision: `"float32"`, `"mixed_bfloat16"` or
            `"mixed_float16"`. Defaults to `"float32"`.

    Raises:
        ValueError: If `workdir` cannot be written.
    """
    try:
        os.makedirs(workdir, exist_ok=True)
        probe = os.path.join(workdir, ".writable")
        with open(probe, "w") as file:
            file.write("yes")
        os.remove(probe)
    except OSError as error:
        raise ValueError(
            "`workdir` must be a folder that can be written. "
            f"Received: workdir={workdir} ({error.strerror})"
        ) from error
    keras.mixed_precision.set_global_policy(mixed_precision)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def make_strategy(distribution: str) -> tf.distribute.Strategy:
    """The strategy under which models are made and trained.

    Args:
        distribution: `"none"` or `"mirrored"` (all local GPUs, or the CPU).

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: If `distribution` is unknown.
    """
    if distribution == "none":
        return tf.distribute.get_strategy()
    if distribution == "mirrored":
        return tf.distribute.MirroredStrategy()
    raise ValueError(
        '`distribution` must be "none" or "mirrored". '
        f"Received: distribution={distribution!r}"
    )


def run_stage(
    plan: Plan,
    splits: Data,
    workdir: str,
    strategy: tf.distribute.Strategy,
    checkpoint_steps: int = 0,
    steps_per_execution: int = 1,
) -> dict:
    """Trains one stage, or resumes it, or reads what it gave.

    Args:
        plan: The stage.
        splits: The data.
        workdir: String, the run's folder.
        strategy: Where to train.
        checkpoint_steps: Int, steps between checkpoints inside an epoch, 0
            for one at the end of each epoch only. Defaults to `0`.
        steps_per_execution: Positive int, most training steps that run
            without a callback between them. Defaults to `1`.

    Returns:
        Dict with a summary for `"validation"` and, if there is one,
        `"test"`, see `skipnet_tf.evaluation.summary`.

    Raises:
        ValueError: If the batch is larger than the data, or the disk too
            small for the checkpoints.
        TrainingDiverged: If the loss is not a number any more.
    """
    folder = os.path.join(workdir, plan.name)
    finished = os.path.join(folder, "result.json")
    if os.path.exists(finished):
        with open(finished) as file:
            return json.load(file)
    os.makedirs(folder, exist_ok=True)
    if splits.batch_size % strategy.num_replicas_in_sync:
        raise ValueError(
            "`batch_size` must be a multiple of the number of replicas, "
            f"{strategy.num_replicas_in_sync}. "
            f"Received: batch_size={splits.batch_size}"
        )
    # Here, not once per run: initial weights must not depend on which stages
    # were built before in the same process.
    keras.utils.set_random_seed(splits.seed)
    with strategy.scope():
        model = plan.make()
    checkpoints.check_disk(model, folder)
    _train(plan, model, splits, folder, checkpoint_steps, steps_per_execution)
    model.save(os.path.join(folder, "model.keras"))
    result = {
        name: evaluate(model, splits, split)
        for name, split in (
            ("validation", splits.validation_split),
            ("test", splits.test_split),
        )
        if split
    }
    write_json(finished, result)
    shutil.rmtree(os.path.join(folder, "checkpoints"), ignore_errors=True)
    return result


def _train(plan, model, splits, folder, checkpoint_steps, together):
    per_epoch = splits.describe().num_examples // splits.batch_size
    if per_epoch == 0:
        raise ValueError(
            "`batch_size` must not exceed the number of training images. "
            f"Received: batch_size={splits.batch_size}"
        )
    counter = callbacks.Steps()
    manager = checkpoints.manager(
        model, counter.variable, os.path.join(folder, "checkpoints")
    )
    if manager.latest_checkpoint:
        manager.checkpoint.restore(
            manager.latest_checkpoint
        ).assert_existing_objects_matched()
    first = counter.done
    if first:
        print(f"{plan.name}: resuming at step {first} of {plan.steps}")
    epochs = math.ceil(plan.steps / per_epoch)
    shared = [
        counter,
        callbacks.CsvLog(os.path.join(folder, "log.csv"), counter),
        callbacks.Progress(plan.name, plan.steps, epochs, counter),
        callbacks.Checkpoints(manager, counter, checkpoint_steps),
    ]
    if importlib.util.find_spec("tensorboard"):  # tf.summary lives there
        shared.append(
            callbacks.TensorBoardLog(os.path.join(folder, "tensorboard"))
        )
    for segment in segments(first, plan.steps, per_epoch):
        steps = executed_together(segment.steps, together)
        if steps != model.steps_per_execution:
            model.steps_per_execution = steps
            model.train_function = None  # made for another number of steps
        model.fit(
            splits.training(epochs, segment.first_step),
            validation_data=splits.evaluation(splits.validation_split),
            initial_epoch=segment.epoch,
            epochs=segment.last_epoch,
            steps_per_epoch=segment.steps,
            shuffle=False,
            verbose=0,
            callbacks=shared,
        )


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


def evaluate(model: ResNet | SkipNet, splits: Data, split: str) -> dict:
    """Accuracy and compute of the thresholded policy on a split."""
    info = splits.describe()
    count = flops.count(model, tuple(info.image_shape))
    routes = evaluation.collect(model, splits.evaluation(split))
    return evaluation.summary(routes, count.dense)


def write_json(path: str, value: dict) -> None:
    """Writes a JSON file in one step: a reader never sees half of it."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    os.replace(path + ".tmp", path)
