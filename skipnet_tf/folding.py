"""Trained layers as few operations on constants, for inference alone.

Batch normalisation is folded into the convolution before it; the embedding of
a recurrent gate into the input weights of its LSTM cell, which then is one
operation; the two logits of a feed-forward gate into their difference, the
log-odds of running the block. Sums that fold are made in float64.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from skipnet_tf import gates
from skipnet_tf import layers
from skipnet_tf import ops

# Multiply-adds are linear in the areas of the maps. Here they are a vector:
# a constant, then the factors of the areas of the image, of the image halved
# once, twice, ...
_HALVINGS = 8


def areas(images: tf.Tensor, length: int) -> tf.Tensor:
    """What vectors of multiply-adds are to be multiplied with.

    Args:
        images: Tensor `(batch, height, width, channels)`.
        length: Int, of the vectors.

    Returns:
        Int64 `(length,)`: 1 and areas in pixels.
    """
    size = tf.shape(images, tf.int64)[1:3]
    found = [tf.constant(1, tf.int64)]
    while len(found) < length:
        found.append(tf.reduce_prod(size))
        size = (size + 1) // 2
    return tf.stack(found)


def multiply_adds(
    per_pixel: int = 0, halvings: int = 0, constant: int = 0
) -> np.ndarray:
    """A vector of multiply-adds, to be multiplied with `areas`."""
    vector = np.zeros(2 + _HALVINGS, np.int64)
    vector[0] = constant
    vector[1 + halvings] = per_pixel
    return vector


def shared(function: Callable) -> Callable:
    """A function whose constants are in the file once, whoever calls it.

    It is traced at its first call, for every batch and image size.

    Args:
        function: Callable of nested float tensors.

    Returns:
        Callable of the same arguments.
    """
    traced = None

    def any_size(tensor):
        sizes = [None] * (tensor.shape.rank - 1)
        return tf.TensorSpec([*sizes, tensor.shape[-1]], tensor.dtype)

    def call(*arguments):
        nonlocal traced
        if traced is None:
            signature = tf.nest.map_structure(any_size, arguments)
            traced = tf.function(function, signature, autograph=False)
        return traced(*arguments)

    return call


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution with its batch normalisation folded in.

    Attributes:
        kernel: Float array `(height, width, channels, filters)`.
        bias: Float array `(filters,)`.
        strides: Int, 1 or 2, in pixels.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: int

    @classmethod
    def fold(
        cls, convolution: layers.Convolution, norm: layers.BatchNormalization
    ) -> "Convolution":
        """Folds `norm` into `convolution`."""
        scale, offset = norm.scale_and_offset()
        kernel = _array(convolution.kernel) * scale
        return cls(kernel, offset, convolution.strides[0])

    def __call__(self, maps: tf.Tensor) -> tf.Tensor:
        padding = "SAME"
        margin = self.kernel.shape[0] // 2
        if self.strides > 1 and margin:  # as published, on both sides
            edge = [margin, margin]
            maps = tf.pad(maps, [[0, 0], edge, edge, [0, 0]])
            padding = "VALID"
        kernel = tf.constant(self.kernel, maps.dtype)
        maps = tf.nn.conv2d(maps, kernel, self.strides, padding)
        return tf.nn.bias_add(maps, tf.constant(self.bias, maps.dtype))

    def multiply_adds(self, halvings: int) -> np.ndarray:
        """Multiply-adds on a map of the image halved so many times."""
        halvings += self.strides - 1
        return multiply_adds(int(np.prod(self.kernel.shape)), halvings)


@dataclasses.dataclass(frozen=True)
class Dense:
    """A product and a bias, in float32.

    Attributes:
        kernel: Float array `(inputs, outputs)`.
        bias: Float array `(outputs,)`.
    """

    kernel: np.ndarray
    bias: np.ndarray

    @classmethod
    def fold(cls, dense: keras.layers.Dense) -> "Dense":
        """The constants of a trained layer."""
        return cls(_array(dense.kernel), _array(dense.bias))

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        product = tf.matmul(inputs, tf.constant(self.kernel, tf.float32))
        return tf.nn.bias_add(product, tf.constant(self.bias, tf.float32))

    def multiply_adds(self) -> np.ndarray:
        """Multiply-adds of one image."""
        return multiply_adds(constant=self.kernel.size)


class RecurrentGate:
    """RNNGate (Fig. 3c): a fused LSTM cell on the spatial mean, one product.

    Args:
        gate: The trained `skipnet_tf.gates.RecurrentGate`.

    Call arguments:
        features: Maps, and their means over space, `(batch, channels)`.
        state: Pair of float32 `(batch, units)`.

    Returns:
        `(logits, state)`: float32 `(batch, 1)` without `bias`; new state.
    """

    reads_means = True

    def __init__(self, gate: gates.RecurrentGate):
        cell, decision = gate.recurrence.cell, gate.recurrence.decision
        self._units = gate.units
        self._cost = gate.multiply_adds(1, 1)
        inputs, recurrent = _array(cell.kernel), _array(cell.recurrent_kernel)
        embedding = _array(gate.embedding.kernel) @ inputs
        weights = np.concatenate([embedding, recurrent])
        offset = _array(gate.embedding.bias) @ inputs + _array(cell.bias)
        # Keras has input, forget, cell, output; the op input, cell, forget.
        order = np.arange(4 * gate.units).reshape(4, -1)[[0, 2, 1, 3]].ravel()
        self._weights, self._offset = weights[:, order], offset[order]
        self._decision = _array(decision.kernel)
        self.bias = _array(decision.bias)[0]

    def initial_state(self, batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Zeros, `(hidden, cell)`."""
        zeros = tf.zeros([batch, self._units])
        return zeros, zeros

    def __call__(self, features, state):
        hidden, cell = state
        unused = tf.zeros([self._units])  # peepholes
        step = tf.raw_ops.LSTMBlockCell(
            x=features[1],
            cs_prev=cell,
            h_prev=hidden,
            w=tf.constant(self._weights, tf.float32),
            wci=unused,
            wcf=unused,
            wco=unused,
            b=tf.constant(self._offset, tf.float32),
            forget_bias=0.0,
            cell_clip=-1.0,
        )
        logits = tf.matmul(step.h, tf.constant(self._decision, tf.float32))
        return logits, (step.h, step.cs)

    def multiply_adds(self, halvings: int) -> np.ndarray:
        """Multiply-adds as trained: the embedding before it was folded."""
        return multiply_adds(constant=self._cost)


class PooledGate:
    """The gate without convolution: two products on the spatial mean.

    Args:
        gate: The trained `skipnet_tf.gates.PooledGate`.

    Call arguments:
        features: Maps, and their means over space, `(batch, channels)`.
        state: Ignored.

    Returns:
        `(logits, state)`: float32 `(batch, 1)` without `bias`, and `state`.
    """

    reads_means = True

    def __init__(self, gate: gates.PooledGate):
        self._cost = gate.multiply_adds(1, 1)
        self._hidden = Dense.fold(gate.hidden)
        self._decision, self.bias = _log_odds(gate.decision)

    def initial_state(self, batch: tf.Tensor) -> tuple:
        """Feed-forward gates have none."""
        return ()

    def __call__(self, features, state):
        hidden = tf.nn.relu(self._hidden(features[1]))
        return tf.matmul(hidden, tf.constant(self._decision, tf.float32)), state

    def multiply_adds(self, halvings: int) -> np.ndarray:
        """Multiply-adds, the same for every size of the map."""
        return multiply_adds(constant=self._cost)


class FeedForwardGate:
    """FFGate-I and -II (Fig. 3a, 3b): convolutions, mean, one product.

    Always in float32: the map is converted where the network is bfloat16.

    Args:
        gate: The trained gate.

    Call arguments:
        features: Maps `(batch, height, width, channels)` alone.
        state: Ignored.

    Returns:
        `(logits, state)`: float32 `(batch, 1)` without `bias`, and `state`.
    """

    reads_means = False

    def __init__(self, gate: gates.FeedForwardGateI | gates.FeedForwardGateII):
        self._pools = isinstance(gate, gates.FeedForwardGateI)
        pairs = [(gate.conv1, gate.norm1)]
        if self._pools:
            pairs.append((gate.conv2, gate.norm2))
        self._convolutions = [Convolution.fold(*pair) for pair in pairs]
        self._decision, self.bias = _log_odds(gate.decision)

    def initial_state(self, batch: tf.Tensor) -> tuple:
        """Feed-forward gates have none."""
        return ()

    def __call__(self, features, state):
        maps = tf.cast(features[0], tf.float32)
        if self._pools:
            maps = tf.nn.max_pool2d(maps, 2, 2, "SAME")
        for convolution in self._convolutions:
            maps = tf.nn.relu(convolution(maps))
        decision = tf.constant(self._decision, tf.float32)
        return tf.matmul(ops.spatial_mean(maps), decision), state

    def multiply_adds(self, halvings: int) -> np.ndarray:
        """Multiply-adds on a map of the image halved so many times."""
        # Two logits, as trained, before they were folded into one.
        total = multiply_adds(constant=2 * len(self._decision))
        halvings += self._pools
        for convolution in self._convolutions:
            total += convolution.multiply_adds(halvings)
            halvings += convolution.strides - 1
        return total


_FOLDED = {
    gates.RecurrentGate: RecurrentGate,
    gates.PooledGate: PooledGate,
    gates.FeedForwardGateI: FeedForwardGate,
    gates.FeedForwardGateII: FeedForwardGate,
}


def fold_gate(
    gate: keras.layers.Layer,
) -> RecurrentGate | PooledGate | FeedForwardGate:
    """The folded form of a trained gate."""
    return _FOLDED[type(gate)](gate)


def _log_odds(decision):
    # A softmax over (skip, run) is a sigmoid of their difference.
    kernel, bias = _array(decision.kernel), _array(decision.bias)
    return kernel[:, 1:] - kernel[:, :1], bias[1] - bias[0]


def _array(weight):
    return keras.ops.convert_to_numpy(weight).astype("float64")
