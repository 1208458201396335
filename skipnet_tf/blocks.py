"""Residual blocks and their gated execution (Sec. 3.1, Eq. 1).

`y = G(x) * F(x) + (1 - G(x)) * x`, where F is the whole block with its own
residual sum and ReLU. A down-sampling block has a projection on its shortcut;
skipped, it passes the projection on, which is computed once for both uses.
"""

import keras
import tensorflow as tf

from skipnet_tf import flops
from skipnet_tf import ops
from skipnet_tf.layers import BatchNormalization
from skipnet_tf.layers import Convolution
from skipnet_tf.layers import layer_config


class _ResidualBlock(keras.layers.Layer):
    """Shortcut, residual sum and ReLU; a subclass gives the kernels.

    Args:
        filters: Positive int, width of the inner convolutions.
        strides: Positive int, in pixels. Defaults to `1`.
        stride_on: String, the first convolution with this kernel takes the
            stride. Defaults to `"3x3"`.
        name: Optional string.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`.
        training: Whether batch statistics are used. Defaults to `False`.

    Returns:
        Float tensor `(batch, height / strides, width / strides,
        filters * expansion)`, sizes rounded up.

    Raises:
        ValueError: If `stride_on` is the kernel of none of the convolutions.
    """

    expansion = 1
    kernels = ()  # of every convolution

    def __init__(
        self, filters, strides=1, stride_on="3x3", name=None, dtype=None
    ):
        if stride_on not in self.kernels:
            raise ValueError(
                f"`stride_on` must be one of {sorted(set(self.kernels))}, a "
                f"kernel of a {type(self).__name__}. "
                f"Received: stride_on={stride_on!r}"
            )
        super().__init__(name=name, dtype=dtype)
        self.filters = filters
        self.strides = strides
        self.stride_on = stride_on
        strided = self.kernels.index(stride_on)
        last = len(self.kernels) - 1
        self.convolutions = []
        self.norms = []
        for index, kernel in enumerate(self.kernels):
            width = filters * (self.expansion if index == last else 1)
            stride = strides if index == strided else 1
            self.convolutions.append(
                Convolution(
                    width, int(kernel[0]), stride, name=f"conv{index + 1}"
                )
            )
            self.norms.append(BatchNormalization(name=f"norm{index + 1}"))
        self.projection = None
        self.projection_norm = None

    def build(self, input_shape):
        width = self.filters * self.expansion
        channels = input_shape[-1]
        if self.strides != 1 or channels != width:
            self.projection = Convolution(
                width, 1, self.strides, name="projection"
            )
            self.projection_norm = BatchNormalization(name="projection_norm")
            self.projection.build((None, None, None, channels))
            self.projection_norm.build((None, None, None, width))
        for convolution, norm in zip(self.convolutions, self.norms):
            convolution.build((None, None, None, channels))
            channels = convolution.filters
            norm.build((None, None, None, channels))

    def call(self, inputs, training=False):
        shortcut = self.shortcut(inputs, training)
        return self.transform(inputs, shortcut, training)

    def shortcut(self, inputs, training=False):
        """What a skipped block passes on: its input, or its projection."""
        if self.projection is None:
            return inputs
        return self.projection_norm(self.projection(inputs), training=training)

    def transform(self, inputs, shortcut, training=False):
        """F(x) of Eq. 1, given the shortcut of the same inputs."""
        x = inputs
        for convolution, norm in zip(self.convolutions, self.norms):
            if x is not inputs:
                x = tf.nn.relu(x)
            x = norm(convolution(x), training=training)
        return tf.nn.relu(x + shortcut)

    def output_size(self, height, width):
        """Height and width in pixels of this block's output."""
        return (
            flops.strided(height, self.strides),
            flops.strided(width, self.strides),
        )

    def multiply_adds(self, height, width):
        """`(block, projection)` for an input map of `height * width`."""
        fixed = 0
        if self.projection is not None:
            fixed = self.projection.multiply_adds(height, width)
        block = 0
        for convolution in self.convolutions:
            block += convolution.multiply_adds(height, width)
            height = flops.strided(height, convolution.strides[0])
            width = flops.strided(width, convolution.strides[0])
        return block, fixed

    def get_config(self):
        return {
            **layer_config(self),
            "filters": self.filters,
            "strides": self.strides,
            "stride_on": self.stride_on,
        }


@keras.saving.register_keras_serializable(package="skipnet_tf")
class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions (He et al., 2016; ResNet-18, -34 and CIFAR).

    Args:
        filters: Positive int, number of channels.
        strides: Positive int, in pixels. Defaults to `1`.
        stride_on: `"3x3"`, the first. Defaults to `"3x3"`.
        name: Optional string.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`.
        training: Whether batch statistics are used. Defaults to `False`.

    Returns:
        Float tensor `(batch, height / strides, width / strides, filters)`.

    Raises:
        ValueError: If `stride_on` is not `"3x3"`.
    """

    kernels = ("3x3", "3x3")


@keras.saving.register_keras_serializable(package="skipnet_tf")
class BottleneckBlock(_ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (ResNet-50 and up).

    The published networks and torchvision's stride on the 3x3 convolution;
    He et al. and `keras.applications` on the first 1x1, which is cheaper.

    Args:
        filters: Positive int, inner channels; the output has four times as
            many.
        strides: Positive int, in pixels. Defaults to `1`.
        stride_on: `"3x3"` or `"1x1"`, the convolution that takes the stride.
            Defaults to `"3x3"`.
        name: Optional string.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`.
        training: Whether batch statistics are used. Defaults to `False`.

    Returns:
        Float tensor `(batch, height / strides, width / strides,
        4 * filters)`.

    Raises:
        ValueError: If `stride_on` is unknown.
    """

    expansion = 4
    kernels = ("1x1", "3x3", "1x1")


@keras.saving.register_keras_serializable(package="skipnet_tf")
class GatedBlock(keras.layers.Layer):
    """A block that runs for the images that ask for it (Eq. 1).

    `"masked"` computes every row and mixes; `"conditional"` gathers the rows
    that run, computes those and puts them back, all inside a `tf.cond`, so
    that a skipped block costs nothing, for one image or within a batch.
    Both use the same weights and, at inference, give the same numbers.

    In training, `"masked"` differentiates Eq. 1 through both terms, decisions
    included, and takes batch statistics of all rows. `"conditional"` has
    neither forward nor backward for rows that are skipped: decisions get no
    gradient, and batch statistics are those of the rows that run, which is
    what inference sees; without any such row they stay as they are. The
    projection of a shortcut is computed, and its statistics taken, for all.

    Args:
        block: A `BasicBlock` or `BottleneckBlock`.
        name: Optional string.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`.
        decisions: Float tensor `(batch,)`, 1 runs the block, 0 skips it;
            `"masked"` accepts anything between.
        training: Whether batch statistics are used. Defaults to `False`.
        execution: `"conditional"` or `"masked"`. Defaults to `None`,
            `"masked"` in training and `"conditional"` at inference.

    Returns:
        Float tensor, what `block` returns.

    Raises:
        ValueError: If `execution` is unknown.

    Reference:
        - [Wang et al., 2018](https://arxiv.org/abs/1711.09485), Eq. 1
    """

    def __init__(self, block, name=None, dtype=None):
        # No autocast: soft decisions keep their digits until they mix.
        super().__init__(name=name, dtype=dtype, autocast=False)
        self.block = block

    def build(self, input_shape):
        if not self.block.built:
            self.block.build(input_shape)

    def call(self, inputs, decisions, training=False, execution=None):
        if execution is None:
            execution = "masked" if training else "conditional"
        ops.check_execution(execution)
        inputs = tf.cast(inputs, self.block.compute_dtype)
        shortcut = self.block.shortcut(inputs, training)
        if execution == "masked":
            outputs = self.block.transform(inputs, shortcut, training)
            return ops.mix(outputs, shortcut, decisions)
        return self._selected(inputs, shortcut, decisions, training)

    def _selected(self, inputs, shortcut, decisions, training):
        runs = decisions >= 0.5

        def run():
            rows = ops.Rows(runs)
            kept, rest = rows.split(shortcut)
            chosen = kept
            if shortcut is not inputs:
                chosen, _ = rows.split(inputs)
            outputs = self.block.transform(chosen, kept, training)
            return rows.merge(rest, outputs)

        outputs = tf.cond(tf.reduce_any(runs), run, lambda: shortcut)
        return tf.ensure_shape(outputs, shortcut.shape)

    def get_config(self):
        return {
            **layer_config(self),
            "block": keras.saving.serialize_keras_object(self.block),
        }

    @classmethod
    def from_config(cls, config):
        block = keras.saving.deserialize_keras_object(config["block"])
        return cls(**{**config, "block": block})
