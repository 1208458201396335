"""Gates (Wang et al., 2018, Sec. 3.1, Fig. 3): features to logits.

All have the form of `gate_form`; only `RecurrentGate` has a state.
"""

import math

import keras
import tensorflow as tf

from skipnet_tf import flops
from skipnet_tf import ops
from skipnet_tf.gate_form import FeedForwardGate
from skipnet_tf.gate_form import check_init
from skipnet_tf.gate_form import check_units
from skipnet_tf.gate_form import log_odds
from skipnet_tf.layers import BatchNormalization
from skipnet_tf.layers import Convolution
from skipnet_tf.layers import decision_layer
from skipnet_tf.layers import layer_config
from skipnet_tf.layers import normal
from skipnet_tf.layers import uniform


@keras.saving.register_keras_serializable(package="skipnet_tf")
class FeedForwardGateI(FeedForwardGate):
    """FFGate-I (Sec. 3.1, Fig. 3a): two convolutions, about 16 % of a block.

    Max-pooling halves the map, two 3x3 convolutions (the second with stride
    2) with batch normalisation follow, then the spatial mean and a dense
    layer. Pooling keeps an odd last row, and maps of one pixel.

    Args:
        init: `"open"` (every block runs at the start) or `"published"`.
            Defaults to `"open"`.
        name: Optional string.

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`.
        state: Ignored. Defaults to `None`.
        training: Whether batch statistics are used. Defaults to `False`.

    Returns:
        `(logits, state)`: float32 logits `(batch,)`, positive where the block
        should run, and `state` as it came.

    Raises:
        ValueError: If `init` is unknown.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        maps = (None, None, None, channels)
        self.conv1 = Convolution(channels, 3, name="conv1")
        self.conv2 = Convolution(channels, 3, strides=2, name="conv2")
        self.norm1 = BatchNormalization(name="norm1")
        self.norm2 = BatchNormalization(name="norm2")
        for layer in (self.conv1, self.norm1, self.conv2, self.norm2):
            layer.build(maps)
        self.decision = decision_layer(channels, 2, self.init)
        self.decision.build((None, channels))

    def call(self, features, state=None, training=False):
        x = tf.nn.max_pool2d(features, 2, 2, "SAME")
        x = tf.nn.relu(self.norm1(self.conv1(x), training=training))
        x = tf.nn.relu(self.norm2(self.conv2(x), training=training))
        return log_odds(self.decision(ops.spatial_mean(x))), state

    def multiply_adds(self, height, width):
        """Multiply-adds on a feature map of `height * width` pixels."""
        height, width = flops.strided(height, 2), flops.strided(width, 2)
        return (
            self.conv1.multiply_adds(height, width)
            + self.conv2.multiply_adds(height, width)
            + self.conv1.filters * 2
        )


@keras.saving.register_keras_serializable(package="skipnet_tf")
class FeedForwardGateII(FeedForwardGate):
    """FFGate-II (Sec. 3.1, Fig. 3b): one strided convolution, 12.5 %.

    A 3x3 convolution with stride 2 and batch normalisation, the spatial mean
    and a dense layer; the paper's choice past 100 layers.

    Args:
        init: `"open"` (every block runs at the start) or `"published"`.
            Defaults to `"open"`.
        name: Optional string.

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`.
        state: Ignored. Defaults to `None`.
        training: Whether batch statistics are used. Defaults to `False`.

    Returns:
        `(logits, state)`: float32 logits `(batch,)`, positive where the block
        should run, and `state` as it came.

    Raises:
        ValueError: If `init` is unknown.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        self.conv1 = Convolution(channels, 3, strides=2, name="conv1")
        self.norm1 = BatchNormalization(name="norm1")
        for layer in (self.conv1, self.norm1):
            layer.build((None, None, None, channels))
        self.decision = decision_layer(channels, 2, self.init)
        self.decision.build((None, channels))

    def call(self, features, state=None, training=False):
        x = tf.nn.relu(self.norm1(self.conv1(features), training=training))
        return log_odds(self.decision(ops.spatial_mean(x))), state

    def multiply_adds(self, height, width):
        """Multiply-adds on a feature map of `height * width` pixels."""
        convolution = self.conv1.multiply_adds(height, width)
        return convolution + self.conv1.filters * 2


@keras.saving.register_keras_serializable(package="skipnet_tf")
class PooledGate(FeedForwardGate):
    """Feed-forward gate without convolution (Sec. 3.1).

    Spatial mean, a dense layer with ReLU and a dense layer to two logits: as
    cheap as a recurrent gate, and less accurate according to the paper.

    Args:
        units: Positive int, width of the hidden layer. Defaults to `10`, the
            width of the recurrent gate.
        init: `"open"` (every block runs at the start) or `"published"`.
            Defaults to `"open"`.
        name: Optional string.

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`.
        state: Ignored. Defaults to `None`.
        training: Ignored. Defaults to `False`.

    Returns:
        `(logits, state)`: float32 logits `(batch,)`, positive where the block
        should run, and `state` as it came.

    Raises:
        ValueError: If `units` is not positive or `init` is unknown.
    """

    def __init__(self, units=10, init="open", name=None, dtype=None):
        super().__init__(init=init, name=name, dtype=dtype)
        self.units = check_units(units)
        self.hidden = keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer="he_normal",
            dtype="float32",
            name="hidden",
        )
        self.decision = decision_layer(units, 2, init)

    def build(self, input_shape):
        self.hidden.build((None, input_shape[-1]))
        self.decision.build((None, self.units))

    def call(self, features, state=None, training=False):
        return self.decide(ops.spatial_mean(features), state)

    def decide(self, means, state=None):
        """`call` on spatial means, float32 `(batch, channels)`."""
        return log_odds(self.decision(self.hidden(means))), state

    @property
    def projection(self) -> keras.layers.Dense:
        """What reads the spatial means, `(channels, units)`."""
        return self.hidden

    def multiply_adds(self, height, width):
        """Multiply-adds; the same for every size of the feature map."""
        return self.hidden.kernel.shape[0] * self.units + self.units * 2

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="skipnet_tf")
class Recurrence(keras.layers.Layer):
    """The part of RNNGate that all blocks share: LSTM cell and decision.

    Args:
        units: Positive int, size of the LSTM. Defaults to `10`.
        init: `"open"` or `"published"`. Defaults to `"open"`.
        name: Optional string.

    Call arguments:
        embedding: Float32 tensor `(batch, units)`.
        state: Pair of float32 tensors `(batch, units)`.

    Returns:
        `(logits, state)`: float32 `(batch,)`, and the new state.
    """

    def __init__(self, units=10, init="open", name=None, dtype="float32"):
        super().__init__(name=name, dtype=dtype)
        self.units = check_units(units)
        self.init = check_init(init)
        self.cell = keras.layers.LSTMCell(
            units,
            kernel_initializer=uniform(units),
            recurrent_initializer=uniform(units),
            unit_forget_bias=False,
            dtype="float32",
            name="lstm",
        )
        self.decision = decision_layer(units, 1, init)

    def build(self, input_shape=None):
        self.cell.build((None, self.units))
        self.decision.build((None, self.units))

    def call(self, embedding, state):
        hidden, state = self.cell(embedding, state)
        return self.decision(hidden)[:, 0], tuple(state)

    def get_config(self):
        return {
            **layer_config(self),
            "units": self.units,
            "init": self.init,
        }


@keras.saving.register_keras_serializable(package="skipnet_tf")
class RecurrentGate(keras.layers.Layer):
    """RNNGate (Sec. 3.1, Fig. 3c): one LSTM shared by every gated block.

    The feature map is averaged over space, projected to `units` numbers by a
    layer of this gate's own, and fed to the shared LSTM, whose state travels
    from block to block, so that a decision can depend on those before it.

    Args:
        units: Positive int, size of projection and LSTM. Defaults to `10`,
            as in the paper.
        init: `"open"` (every block runs at the start) or `"published"`.
            Defaults to `"open"`.
        recurrence: Optional `Recurrence` shared with the other gates of a
            network. Defaults to `None`, one of its own.
        name: Optional string.

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`.
        state: Pair of float32 tensors `(batch, units)` from the gate before.
            Defaults to `None`, zeros.
        training: Ignored. Defaults to `False`.

    Returns:
        `(logits, state)`: float32 logits `(batch,)`, positive where the block
        should run, and the new state.

    Raises:
        ValueError: If `units` is not positive or `init` is unknown.
    """

    def __init__(
        self,
        units=10,
        init="open",
        recurrence=None,
        name=None,
        dtype="float32",
    ):
        # No autocast: features stay in half precision up to their mean.
        super().__init__(name=name, dtype=dtype, autocast=False)
        self.units = check_units(units)
        self.init = check_init(init)
        self.recurrence = recurrence or Recurrence(units, init)

    def build(self, input_shape):
        channels = input_shape[-1]
        self.embedding = keras.layers.Dense(
            self.units,
            kernel_initializer=normal(math.sqrt(2 / self.units)),
            bias_initializer=uniform(channels),
            dtype="float32",
            name="embedding",
        )
        self.embedding.build((None, channels))
        if not self.recurrence.built:
            self.recurrence.build()

    def call(self, features, state=None, training=False):
        return self.decide(ops.spatial_mean(features), state)

    def decide(self, means, state=None):
        """`call` on spatial means, float32 `(batch, channels)`."""
        if state is None:
            state = self.initial_state(tf.shape(means)[0])
        return self.recurrence(self.embedding(means), state)

    @property
    def projection(self) -> keras.layers.Dense:
        """What reads the spatial means, `(channels, units)`."""
        return self.embedding

    def initial_state(self, batch_size):
        """Zeros, `(hidden, cell)`, each `(batch_size, units)`."""
        zeros = tf.zeros([batch_size, self.units], tf.float32)
        return zeros, zeros

    def last_weights(self):
        """What the logit is proportional to, shared with other gates."""
        return self.recurrence.decision.weights

    def multiply_adds(self, height, width):
        """Multiply-adds; the same for every size of the feature map."""
        embedding = self.embedding.kernel.shape[0] * self.units
        return embedding + flops.lstm_step(self.units, self.units) + self.units

    def get_config(self):
        return {
            **layer_config(self),
            "units": self.units,
            "init": self.init,
            "recurrence": keras.saving.serialize_keras_object(self.recurrence),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["recurrence"] = keras.saving.deserialize_keras_object(
            config["recurrence"]
        )
        return cls(**config)
