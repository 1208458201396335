"""The dense residual networks that SkipNets are made from (Sec. 4)."""

import keras
import tensorflow as tf

from skipnet_tf import flops
from skipnet_tf import ops
from skipnet_tf.blocks import BasicBlock
from skipnet_tf.blocks import BottleneckBlock
from skipnet_tf.classifier import Classifier
from skipnet_tf.layers import BatchNormalization
from skipnet_tf.layers import Convolution
from skipnet_tf.layers import dtype_policy
from skipnet_tf.layers import layer_config
from skipnet_tf.layers import normal


@keras.saving.register_keras_serializable(package="skipnet_tf")
class ResNet(Classifier):
    """Residual network of He et al. as the published SkipNet code has it.

    Post-activation blocks, projection shortcuts ("option B") where the shape
    changes, the stride of a bottleneck on its 3x3 convolution unless told
    otherwise.

    Args:
        blocks: Tuple of positive ints, blocks in each group.
        filters: Tuple of positive ints, channels of each group.
        bottleneck: Bool, `BottleneckBlock` instead of `BasicBlock`. Defaults
            to `False`.
        stem: `"cifar"` (3x3) or `"imagenet"` (7x7 with stride 2 and
            max-pooling). Defaults to `"cifar"`.
        num_classes: Positive int. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`; height and width may
            be `None`, and images of other sizes are welcome all the same.
            Defaults to `(None, None, 3)`.
        stride_on: `"3x3"` or, in bottleneck blocks, `"1x1"`: the convolution
            that takes the stride of a block. Defaults to `"3x3"`.
        name: Optional string.
        dtype: Optional dtype policy, such as `"mixed_bfloat16"`. Defaults to
            `None`, the global one.

    Call arguments:
        images: Normalised float tensor `(batch, height, width, channels)`.
        training: Whether batch statistics are used. Defaults to `False`.

    Returns:
        Float32 logits `(batch, num_classes)`.

    Raises:
        ValueError: If an argument is not as described.
    """

    def __init__(
        self,
        blocks,
        filters,
        bottleneck=False,
        stem="cifar",
        num_classes=10,
        input_shape=(None, None, 3),
        stride_on="3x3",
        name=None,
        dtype=None,
    ):
        check_network(blocks, filters, stem, num_classes, input_shape)
        super().__init__(name=name, dtype=dtype)
        self.arguments = {
            "blocks": list(blocks),
            "filters": list(filters),
            "bottleneck": bottleneck,
            "stem": stem,
            "num_classes": num_classes,
            "input_shape": list(input_shape),
            "stride_on": stride_on,
        }
        self.num_classes = num_classes
        self.channels = input_shape[-1]
        self.large_stem = stem == "imagenet"
        with dtype_policy(self.dtype_policy):
            self._make_layers(BottleneckBlock if bottleneck else BasicBlock)
            self.build((None, *input_shape))

    def _make_layers(self, kind):
        filters = self.arguments["filters"]
        self.stem_conv = Convolution(
            filters[0],
            7 if self.large_stem else 3,
            2 if self.large_stem else 1,
            name="stem_conv",
        )
        self.stem_norm = BatchNormalization(name="stem_norm")
        self.blocks = [
            kind(
                filters[group],
                strides=2 if group and not block else 1,
                stride_on=self.arguments["stride_on"],
                name=f"group{group + 1}_block{block}",
            )
            for group, count in enumerate(self.arguments["blocks"])
            for block in range(count)
        ]
        inputs = filters[-1] * kind.expansion
        self.classifier = keras.layers.Dense(
            self.num_classes,
            # Published: normal, variance 2 / (inputs * outputs).
            kernel_initializer=normal((2 / (inputs * self.num_classes)) ** 0.5),
            dtype="float32",
            name="classifier",
        )

    def build(self, input_shape):
        if self.built:
            return
        self.stem_conv.build((None, None, None, self.channels))
        channels = self.stem_conv.filters
        self.stem_norm.build((None, None, None, channels))
        for block in self.blocks:
            block.build((None, None, None, channels))
            channels = block.filters * block.expansion
        self.classifier.build((None, channels))
        self.built = True

    def call(self, images, training=False):
        x = self.stem(images, training)
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(x)

    def stem(self, images, training=False):
        """Everything before block 0."""
        images = tf.convert_to_tensor(images)
        self._check_images(images)
        x = self.stem_norm(self.stem_conv(images), training=training)
        x = tf.nn.relu(x)
        if self.large_stem:
            # Zeros cannot win against what a ReLU returns.
            x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
            x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        return x

    def stem_size(self, height, width):
        """Height and width in pixels of what the stem returns."""
        if self.large_stem:  # a strided convolution and a strided pooling
            height = flops.strided(flops.strided(height, 2), 2)
            width = flops.strided(flops.strided(width, 2), 2)
        return height, width

    def head(self, features):
        """Spatial mean and classifier, in float32."""
        return self.classifier(ops.spatial_mean(features))

    def multiply_adds(self, height, width):
        """`(fixed, blocks, gates)` for images of `height * width` pixels.

        Args:
            height: Int or int64 scalar tensor, in pixels.
            width: Int or int64 scalar tensor, in pixels.

        Returns:
            Multiply-adds that every image pays, a list for the blocks after
            block 0, and an empty list: there are no gates.
        """
        fixed = self.stem_conv.multiply_adds(height, width)
        height, width = self.stem_size(height, width)
        fixed += self.classifier.kernel.shape[0] * self.num_classes
        costs = []
        for block in self.blocks:
            cost, projection = block.multiply_adds(height, width)
            costs.append(cost)
            fixed += projection
            height, width = block.output_size(height, width)
        return fixed + costs[0], costs[1:], []

    def _check_images(self, images):
        if images.shape.rank != 4 or images.shape[-1] != self.channels:
            raise ValueError(
                "`images` must have shape (batch, height, width, "
                f"{self.channels}). Received: images of shape {images.shape}"
            )

    def get_config(self):
        # Not the config of keras.Model: the constructor rebuilds the graph.
        return {**self.arguments, **layer_config(self)}

    @classmethod
    def from_config(cls, config):
        """A network with the constructor arguments in `config`."""
        dtype = keras.saving.deserialize_keras_object(config.get("dtype"))
        return cls(**{**config, "dtype": dtype})


def check_network(blocks, filters, stem, num_classes, input_shape) -> None:
    """Raises `ValueError` unless the arguments describe a `ResNet`."""
    positive = all(isinstance(n, int) and n > 0 for n in (*blocks, *filters))
    if not positive or len(blocks) != len(filters) or sum(blocks) < 2:
        raise ValueError(
            "`blocks` and `filters` must hold one positive int for each "
            "group, two blocks or more in all. "
            f"Received: blocks={tuple(blocks)}, filters={tuple(filters)}"
        )
    if stem not in ("cifar", "imagenet"):
        raise ValueError(
            f'`stem` must be "cifar" or "imagenet". Received: stem={stem!r}'
        )
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(
            "`num_classes` must be a positive int. "
            f"Received: num_classes={num_classes}"
        )
    if len(input_shape) != 3 or not isinstance(input_shape[-1], int):
        raise ValueError(
            "`input_shape` must be (height, width, channels) with the number "
            f"of channels known. Received: input_shape={tuple(input_shape)}"
        )
