"""What the tests share: a tiny network, and every public layer once."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

import skipnet_tf
from skipnet_tf import blocks
from skipnet_tf import confidence
from skipnet_tf import gates
from skipnet_tf import layers

GATES = ("rnn", "ff1", "ff2", "pool", "confidence")


def images(*shape, seed=0):
    """Float32 noise, each image at a level and contrast of its own."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=shape)
    rows = (shape[0],) + (1,) * (len(shape) - 1)
    level, contrast = random.uniform(-2, 2, rows), random.uniform(0.2, 3, rows)
    return (noise * contrast + level).astype("float32")


def labels(count, classes=3, seed=0):
    """Class numbers `(count,)`."""
    return np.random.default_rng(seed).integers(0, classes, count)


def pixels(count, size=8, seed=0):
    """uint8 noise, each image at a brightness of its own."""
    values = 127 + 60 * images(count, size, size, 3, seed=seed)
    return values.clip(0, 255).astype("uint8")


def skipnet(gate="rnn", **arguments):
    """Four blocks, three gates, three classes; the third block projects."""
    arguments = {
        "blocks": (2, 2),
        "filters": (4, 8),
        "num_classes": 3,
        "gate": gate,
        **arguments,
    }
    return skipnet_tf.SkipNet(**arguments)


def divide_opinions(model, pixels):
    """Sets the gates so that each runs for some images and not for others.

    The decision layer of every gate is redrawn and its bias moved until the
    median logit of these images is 0. A gate that is a bias alone takes turns
    in running and skipping.
    """
    random = np.random.default_rng(0)
    for index, gate in enumerate(model.gates):
        *kernels, bias = gate.last_weights()
        if not kernels:
            bias.assign([1.0 - 2.0 * (index % 2)])
            continue
        if model.gate == "rnn":
            embedding = gate.embedding
            shape = embedding.kernel.shape
            embedding.kernel.assign(random.normal(size=shape) * 2)
            if index:  # one decision layer for all of them
                continue
        for kernel in kernels:
            kernel.assign(random.normal(size=kernel.shape) * 3)
        bias.assign(np.zeros(bias.shape))
        logits = model.route(pixels)["gate_logits"].numpy()
        own = logits if model.gate == "rnn" else logits[:, index]
        # Of two logits the last one is that of running the block.
        moved = np.zeros(bias.shape)
        moved[-1] = -np.median(own)
        bias.assign(moved)
    return model


def trained(model, pixels):
    """Gives a new network what training would: weights and opinions.

    Every number is redrawn, those of batch normalisation so that they change
    what passes. Gates of a SkipNet divide the images, see `divide_opinions`.
    """
    random = np.random.default_rng(6)
    ranges = {"gamma": (0.5, 1.5), "moving_variance": (0.5, 2.0)}
    for weight in model.weights:
        shape = weight.shape
        if "kernel" in weight.name:
            deviation = np.sqrt(2 / np.prod(shape[:-1]))
            weight.assign(random.normal(scale=deviation, size=shape))
        else:
            low, high = ranges.get(weight.name, (-0.5, 0.5))
            weight.assign(random.uniform(low, high, shape))
    if isinstance(model, skipnet_tf.SkipNet):
        divide_opinions(model, pixels)
    return model


@dataclasses.dataclass(frozen=True)
class Case:
    """A public layer, made afresh by `make`, and inputs for it.

    Attributes:
        make: Callable that returns the layer.
        inputs: Callable that returns the positional inputs of a call.
        training: Bool, whether `call` has an argument `training`.
    """

    make: Callable
    inputs: Callable
    training: bool = True


def _maps(channels=4):
    return (images(5, 6, 7, channels),)


_DECISIONS = np.array([1, 0, 1, 1, 0], "float32")
_STATE = (images(5, 3, seed=2), images(5, 3, seed=3))

LAYERS = {
    "convolution": Case(
        lambda: layers.Convolution(6, 3, strides=2, name="conv"),
        _maps,
        training=False,
    ),
    "convolution_stride_1": Case(
        lambda: layers.Convolution(6, 1, name="conv"), _maps, training=False
    ),
    "batch_normalization": Case(
        lambda: layers.BatchNormalization(name="norm"), _maps
    ),
    "basic_block": Case(
        lambda: blocks.BasicBlock(8, strides=2, name="block"), _maps
    ),
    "bottleneck_block": Case(
        lambda: blocks.BottleneckBlock(1, strides=1, name="block"), _maps
    ),
    "gated_block": Case(
        lambda: blocks.GatedBlock(
            blocks.BasicBlock(8, strides=2, name="block"), name="gated"
        ),
        lambda: (*_maps(), _DECISIONS),
    ),
    "gated_bottleneck_block": Case(
        lambda: blocks.GatedBlock(
            blocks.BottleneckBlock(1, name="block"), name="gated"
        ),
        lambda: (*_maps(), _DECISIONS),
    ),
    "feed_forward_gate_1": Case(
        lambda: gates.FeedForwardGateI(init="published", name="gate"), _maps
    ),
    "feed_forward_gate_2": Case(
        lambda: gates.FeedForwardGateII(init="published", name="gate"), _maps
    ),
    "pooled_gate": Case(
        lambda: gates.PooledGate(units=3, init="published", name="gate"), _maps
    ),
    "confidence_gate": Case(
        lambda: confidence.ConfidenceGate(
            # It learns from what the network says alone.
            keras.layers.Dense(3, dtype="float32", trainable=False),
            init="published",
            name="gate",
        ),
        _maps,
    ),
    "constant_gate": Case(
        lambda: confidence.ConfidenceGate(name="gate"), _maps
    ),
    "recurrence": Case(
        lambda: gates.Recurrence(units=3, init="published", name="shared"),
        lambda: (_STATE[0], _STATE),
        training=False,
    ),
    "recurrent_gate": Case(
        lambda: gates.RecurrentGate(units=3, init="published", name="gate"),
        lambda: (*_maps(), _STATE),
    ),
}


@functools.cache
def two_replicas():
    """One strategy for the whole process.

    A second one would number its collective operations from the start again,
    and TensorFlow would take them for those of the first.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def slow(*values):
    """A row of `parametrize` for a larger one of a family of networks."""
    return pytest.param(*values, marks=pytest.mark.slow)
