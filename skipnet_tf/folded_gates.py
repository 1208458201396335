"""Trained gates as few operations on constants, for inference alone.

The embedding of a recurrent gate is folded into the input weights of its LSTM
cell, which then is one operation; the two logits of a feed-forward gate into
their difference, the log-odds of running the block. A gate says whether it
`reads_means`, and leaves its `bias` to whoever compares its logits.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from skipnet_tf import confidence
from skipnet_tf import gates
from skipnet_tf import ops
from skipnet_tf.folding import Convolution
from skipnet_tf.folding import Dense
from skipnet_tf.folding import array
from skipnet_tf.folding import multiply_adds


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
        inputs, recurrent = array(cell.kernel), array(cell.recurrent_kernel)
        embedding = array(gate.embedding.kernel) @ inputs
        weights = np.concatenate([embedding, recurrent])
        offset = array(gate.embedding.bias) @ inputs + array(cell.bias)
        # Keras has input, forget, cell, output; the op input, cell, forget.
        order = np.arange(4 * gate.units).reshape(4, -1)[[0, 2, 1, 3]].ravel()
        self._weights, self._offset = weights[:, order], offset[order]
        self._decision = array(decision.kernel)
        self.bias = array(decision.bias)[0]

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


class ConfidenceGate:
    """The gate that asks the classifier, or a bias alone.

    Args:
        gate: The trained `skipnet_tf.confidence.ConfidenceGate`.
        classify: Function of means, the logits of classes.

    Call arguments:
        features: Maps, and their means over space, `(batch, channels)`.
        state: Ignored.

    Returns:
        `(logits, state)`: float32 `(batch, 1)` without `bias`, and `state`.
    """

    def __init__(self, gate: confidence.ConfidenceGate, classify: Callable):
        self.reads_means = gate.classifier is not None
        self._cost = gate.multiply_adds(1, 1)
        self.bias = array(gate.bias)[0]
        if self.reads_means:
            self._classify = classify
            self._slope = array(gate.slope)

    def initial_state(self, batch: tf.Tensor) -> tuple:
        """Nothing is carried from block to block."""
        return ()

    def __call__(self, features, state):
        if not self.reads_means:
            return tf.zeros([tf.shape(features[0])[0], 1]), state
        doubts = confidence.doubt(self._classify(features[1]))
        return tf.constant(self._slope, tf.float32) * doubts[:, None], state

    def multiply_adds(self, halvings: int) -> np.ndarray:
        """Multiply-adds, the same for every size of the map."""
        return multiply_adds(constant=self._cost)


_FOLDED = {
    gates.RecurrentGate: RecurrentGate,
    gates.PooledGate: PooledGate,
    gates.FeedForwardGateI: FeedForwardGate,
    gates.FeedForwardGateII: FeedForwardGate,
}


def fold_gate(
    gate: keras.layers.Layer, classify: Callable
) -> RecurrentGate | PooledGate | FeedForwardGate | ConfidenceGate:
    """The folded form of a trained gate.

    Args:
        gate: The trained gate.
        classify: Function of the spatial means of the last maps that gives
            the logits of classes, for gates that ask.

    Returns:
        The gate for inference.
    """
    if isinstance(gate, confidence.ConfidenceGate):
        return ConfidenceGate(gate, classify)
    return _FOLDED[type(gate)](gate)


def _log_odds(decision):
    # A softmax over (skip, run) is a sigmoid of their difference.
    kernel, bias = array(decision.kernel), array(decision.bias)
    return kernel[:, 1:] - kernel[:, :1], bias[1] - bias[0]
