"""What gates share (Wang et al., 2018, Sec. 3.1): one form for every kind.

`logits, state = gate(features, state)`: a network runs gates without asking
which kind they are. In front of a block, `tapped(gate, features, ...)` does.
"""

import keras
import tensorflow as tf

from skipnet_tf import ops
from skipnet_tf.layers import layer_config

INITS = ("open", "published")


def tapped(gate, features, state, training):
    """`(features, logits, state)` of a gate in front of a block.

    A gate that reads means alone says so by a method `decide(means, state)`,
    and is spared gradients of the size of maps, see `ops.tap`. What comes
    after the gate is to read the features returned.
    """
    if not hasattr(gate, "decide"):
        return features, *gate(features, state, training=training)
    features, means = ops.tap(features)
    return features, *gate.decide(means, state)


def check_init(init: str) -> str:
    """`init`, or `ValueError` if it is unknown."""
    if init not in INITS:
        raise ValueError(
            f"`init` must be one of {INITS}. Received: init={init!r}"
        )
    return init


def check_units(units: int) -> int:
    """`units`, or `ValueError` if it is no positive int."""
    if not isinstance(units, int) or units < 1:
        raise ValueError(
            f"`units` must be a positive int. Received: units={units}"
        )
    return units


def log_odds(two_logits: tf.Tensor) -> tf.Tensor:
    """Of running: `(batch,)` from logits `(batch, 2)` of skipping and it."""
    # A softmax over (skip, run) is a sigmoid of their difference.
    return two_logits[:, 1] - two_logits[:, 0]


class FeedForwardGate(keras.layers.Layer):
    """What the gates without memory share.

    Args:
        init: `"open"` (every block runs at the start) or `"published"`.
            Defaults to `"open"`.
        name: Optional string.

    Raises:
        ValueError: If `init` is unknown.
    """

    def __init__(self, init="open", name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.init = check_init(init)

    def initial_state(self, batch_size):
        """Feed-forward gates carry nothing from block to block."""
        return None

    def last_weights(self):
        """What the logit is proportional to: of the last dense layer."""
        return self.decision.weights

    def get_config(self):
        return {**layer_config(self), "init": self.init}
