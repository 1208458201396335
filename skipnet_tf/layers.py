"""Layers as the published networks have them."""

import contextlib
import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from skipnet_tf import flops

MOMENTUM = 0.9
EPSILON = 1e-5

# Log-odds of running a block at the start under `init="open"`, p = 0.88: low
# enough for samples to explore and for the sigmoid to pass a gradient.
OPEN_LOGIT = 2.0


@contextlib.contextmanager
def dtype_policy(policy: keras.dtype_policies.DTypePolicy) -> Iterator[None]:
    """Makes `policy` the one that layers are built with."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def layer_config(layer: keras.layers.Layer) -> dict:
    """The constructor arguments that all layers here share.

    Keras's own `get_config` adds `trainable`, which they do not take.
    """
    return {
        "name": layer.name,
        "dtype": keras.saving.serialize_keras_object(layer.dtype_policy),
    }


@keras.saving.register_keras_serializable(package="skipnet_tf")
class Convolution(keras.layers.Conv2D):
    """Convolution without bias that pads half its kernel on every side.

    Keras's `"same"` pads a stride of 2 on one side only; the published
    networks pad both, which shifts what every later pixel sees.

    Args:
        filters: Positive int, number of output channels.
        kernel_size: Positive odd int, in pixels.
        strides: Positive int, in pixels. Defaults to `1`.
        name: Optional string.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`.

    Returns:
        Float tensor `(batch, (height - 1) // strides + 1,
        (width - 1) // strides + 1, filters)`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        name: str | None = None,
        dtype=None,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding="same" if strides == 1 else "valid",
            use_bias=False,
            # Published: normal, variance 2 / (kernel^2 * filters).
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
            name=name,
            dtype=dtype,
        )

    def build(self, input_shape):
        # Without sizes: Keras would check them as if nothing were padded.
        super().build((None, None, None, input_shape[-1]))

    def compute_output_shape(self, input_shape):
        sizes = [
            size if size is None else flops.strided(size, self.strides[0])
            for size in input_shape[1:3]
        ]
        return (input_shape[0], *sizes, self.filters)

    def call(self, inputs):
        margin = self.kernel_size[0] // 2
        if self.padding == "valid" and margin:
            edge = [margin, margin]
            inputs = tf.pad(inputs, [[0, 0], edge, edge, [0, 0]])
        return super().call(inputs)

    def multiply_adds(self, height, width):
        """Multiply-adds for one input map of `height * width` pixels."""
        stride = self.strides[0]
        return flops.convolution(
            flops.strided(height, stride),
            flops.strided(width, stride),
            self.kernel_size[0],
            self.kernel.shape[2],
            self.filters,
        )

    def get_config(self):
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size[0],
            "strides": self.strides[0],
            **layer_config(self),
        }


@keras.saving.register_keras_serializable(package="skipnet_tf")
class BatchNormalization(keras.layers.Layer):
    """Batch normalisation in one fused kernel, synchronised over replicas.

    Momentum 0.9 and epsilon 1e-5; the moving variance is the unbiased
    estimate, as in the published networks. Under a `tf.distribute` strategy
    with several replicas the statistics are those of the global batch.

    Args:
        name: Optional string.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`.
        training: Whether batch statistics are used, and the moving ones
            updated; never where `trainable` is `False`, as in Keras.
            Defaults to `False`.

    Returns:
        Tensor of the shape and dtype of `inputs`.
    """

    def __init__(self, name: str | None = None, dtype=None):
        super().__init__(name=name, dtype=dtype)

    def get_config(self):
        return layer_config(self)

    def build(self, input_shape):
        def weight(name, initializer, trainable):
            return self.add_weight(
                name=name,
                shape=(input_shape[-1],),
                dtype="float32",
                initializer=initializer,
                trainable=trainable,
                autocast=False,
            )

        self.gamma = weight("gamma", "ones", True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, inputs, training=False):
        if not (training and self.trainable):
            return self._fused(inputs, self.moving_mean, self.moving_variance)[
                0
            ]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1 and tf.distribute.in_cross_replica_context() is False:
            outputs, mean, variance = self._synchronised(inputs, replicas)
        else:
            outputs, mean, variance = self._fused(inputs)
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            value = tf.convert_to_tensor(moving)
            moving.assign(value + (1.0 - MOMENTUM) * (batch - value))
        return outputs

    def scale_and_offset(self) -> tuple[np.ndarray, np.ndarray]:
        """What inference multiplies by and adds, float64 `(channels,)`."""
        gamma, beta, mean, variance = (
            keras.ops.convert_to_numpy(weight).astype("float64")
            for weight in (
                self.gamma,
                self.beta,
                self.moving_mean,
                self.moving_variance,
            )
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        return scale, beta - mean * scale

    def _fused(self, inputs, mean=None, variance=None):
        training = mean is None
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=tf.zeros([0]) if training else mean,
            variance=tf.zeros([0]) if training else variance,
            epsilon=EPSILON,
            is_training=training,
        )
        return outputs.y, outputs.batch_mean, outputs.batch_variance

    def _synchronised(self, inputs, replicas):
        # Two passes: E[x^2] - E[x]^2 would lose the digits that make one
        # replica and several agree.
        values = tf.cast(inputs, tf.float32)
        context = tf.distribute.get_replica_context()

        def global_mean(tensor):
            local = tf.reduce_mean(tensor, axis=(0, 1, 2))
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, local)
            return total / replicas

        mean = global_mean(values)
        variance = global_mean(tf.math.square(values - mean))
        outputs = tf.nn.batch_normalization(
            values, mean, variance, self.beta, self.gamma, EPSILON
        )
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        count *= replicas
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)
        return tf.cast(outputs, inputs.dtype), mean, unbiased


def decision_layer(inputs: int, outputs: int, init: str) -> keras.layers.Dense:
    """The last layer of a gate.

    Args:
        inputs: Int, width of what it reads.
        outputs: Int, 1 for the log-odds of running the block or 2 for the
            logits of skipping and running it.
        init: `"open"`, every image starts with every block, or
            `"published"`.

    Returns:
        A dense layer in float32.
    """
    if init == "open":
        share = OPEN_LOGIT / outputs
        bias = [share] if outputs == 1 else [-share, share]
        # Zeros: whatever the features, however large before normalisation has
        # its statistics, every image starts with every block.
        kernel, bias = "zeros", keras.initializers.Constant(bias)
    else:
        kernel, bias = normal(math.sqrt(2 / (inputs * outputs))), "zeros"
    # float32 whatever the policy: log-probabilities lose digits in half.
    return keras.layers.Dense(
        outputs,
        kernel_initializer=kernel,
        bias_initializer=bias,
        dtype="float32",
        name="decision",
    )


def normal(stddev: float) -> keras.initializers.Initializer:
    """Normal initialisation around 0."""
    return keras.initializers.RandomNormal(stddev=stddev)


def uniform(fan_in: int) -> keras.initializers.Initializer:
    """PyTorch's default for biases and LSTMs, within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return keras.initializers.RandomUniform(-bound, bound)
