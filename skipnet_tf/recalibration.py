"""Statistics of batch normalisation, estimated anew for a policy.

Training moves the statistics on as it goes, under decisions that are sampled
and change from step to step. What inference needs are those of the images
that run a block when the trained policy decides; no weight has to change for
them.
"""

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from skipnet_tf import policy
from skipnet_tf.layers import MOMENTUM
from skipnet_tf.layers import BatchNormalization
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet


def recalibrate(
    model: ResNet | SkipNet,
    dataset: tf.data.Dataset,
    batches: int | None = None,
    actions: Sequence[int] | None = None,
) -> None:
    """Estimates the statistics of every batch normalisation anew.

    They become the plain mean of the statistics of the batches. Decisions are
    those of inference, so that the statistics of a block come from the images
    that run it; where no image does, they stay as they are. The projection
    of a shortcut is computed for all images, and so are gates. Within a
    batch, what a layer reads is normalised by the batch's own statistics, as
    in training. Weights that are trained do not change.

    Args:
        model: A `SkipNet` or dense `ResNet`.
        dataset: `tf.data.Dataset` of normalised float32 images `(batch,
            height, width, channels)` and labels, which are not read.
        batches: Optional positive int, how many of its batches to take.
            Defaults to `None`, all.
        actions: Optional sequence of `gates` ints, decisions to impose on
            every image, 1 runs a block, 0 skips it. Defaults to `None`, the
            stage's policy of inference.

    Raises:
        ValueError: If `batches` is not positive, `dataset` has fewer, or
            `actions` are not one for each gate; the statistics are then what
            they were.

    Reference:
        - [Izmailov et al., 2018](https://arxiv.org/abs/1803.05407), Sec. 3.2,
          for averaged weights.
    """
    _check(model, dataset, batches, actions)
    layers = _normalisations(model)
    before = _read(layers)
    try:
        found = _averages(model, dataset, batches, actions, layers, before)
    except BaseException:
        _assign(layers, before)
        raise
    _assign(layers, found)


@contextlib.contextmanager
def recalibrated(
    model: ResNet | SkipNet,
    dataset: tf.data.Dataset,
    batches: int | None = None,
    actions: Sequence[int] | None = None,
) -> Iterator[None]:
    """`recalibrate` for a while: afterwards `model` is as it was before."""
    layers = _normalisations(model)
    before = _read(layers)
    recalibrate(model, dataset, batches, actions)
    try:
        yield
    finally:
        _assign(layers, before)


def _averages(model, dataset, batches, actions, layers, before):
    """Pairs of arrays, mean and variance, for each layer."""
    run = _forward(model, dataset, actions)
    sums = [[np.zeros(w.shape) for w in pair] for pair in before]
    counts = np.zeros(len(layers), int)
    nothing = [[np.zeros_like(w) for w in pair] for pair in before]
    taken = 0
    for images, *_ in dataset.take(-1 if batches is None else batches):
        # From zero, a layer holds a fixed share of the batch's statistics
        # afterwards, or still zeros if no image came to it.
        _assign(layers, nothing)
        run(images)
        for index, pair in enumerate(_read(layers)):
            counts[index] += any(w.any() for w in pair)
            for total, w in zip(sums[index], pair):
                total += w / (1.0 - MOMENTUM)
        taken += 1
    if taken < (batches or 1):
        raise ValueError(_too_few(batches or 1, taken))
    return [
        [total / count for total in pair] if count else old
        for pair, count, old in zip(sums, counts, before)
    ]


def _forward(model, dataset, actions):
    """A function of images that leaves the batch's statistics in layers."""

    @tf.function(autograph=False, input_signature=dataset.element_spec[:1])
    def run(images):
        if not isinstance(model, SkipNet):
            model(images, training=True)
            return
        if actions is None:
            decide = model.stage.inference_policy(model.threshold, images)
        else:
            row = tf.constant([actions], tf.float32)
            decide = policy.Forced(tf.repeat(row, tf.shape(images)[0], axis=0))
        model.route_with(images, decide, training=True)

    with _collecting(model):
        return run.get_concrete_function()


@contextlib.contextmanager
def _collecting(model):
    """What is read while a function is traced: all rows that run count."""
    frozen = [layer for layer in _normalisations(model) if not layer.trainable]
    gated = isinstance(model, SkipNet)
    execution = model.training_execution if gated else None
    try:
        for layer in frozen:
            layer.trainable = True
        if gated:
            model.training_execution = "conditional"
        yield
    finally:
        for layer in frozen:
            layer.trainable = False
        if gated:
            model.training_execution = execution


def _normalisations(model):
    return [
        layer
        for layer in model._flatten_layers()  # Keras's own walk, each once
        if isinstance(layer, BatchNormalization)
    ]


def _read(layers):
    return [
        (layer.moving_mean.numpy(), layer.moving_variance.numpy())
        for layer in layers
    ]


def _assign(layers, values):
    for layer, (mean, variance) in zip(layers, values):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)


def _check(model, dataset, batches, actions):
    if batches is not None and not (isinstance(batches, int) and batches > 0):
        raise ValueError(
            "`batches` must be a positive int or None, all. "
            f"Received: batches={batches!r}"
        )
    # Below zero: infinite, or known only at its end.
    size = int(dataset.cardinality())
    if 0 <= size < (batches or 1):
        raise ValueError(_too_few(batches or 1, size))
    if actions is None:
        return
    gates = len(model.gates) if isinstance(model, SkipNet) else 0
    if len(actions) != gates or not set(actions) <= {0, 1}:
        raise ValueError(
            f"`actions` must be {gates} zeros and ones, one for each gate. "
            f"Received: actions={actions}"
        )


def _too_few(expected, received):
    return (
        f"`dataset` must hold {expected} or more batches. Received: {received}"
    )
