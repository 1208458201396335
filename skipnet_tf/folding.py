"""Trained layers as few operations on constants, for inference alone.

Batch normalisation is folded into the convolution before it. Sums that fold
are made in float64.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from skipnet_tf import layers

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
        kernel = array(convolution.kernel) * scale
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
        return cls(array(dense.kernel), array(dense.bias))

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        product = tf.matmul(inputs, tf.constant(self.kernel, tf.float32))
        return tf.nn.bias_add(product, tf.constant(self.bias, tf.float32))

    def multiply_adds(self) -> np.ndarray:
        """Multiply-adds of one image."""
        return multiply_adds(constant=self.kernel.size)


def array(weight: keras.Variable) -> np.ndarray:
    """The value of a weight in float64."""
    return keras.ops.convert_to_numpy(weight).astype("float64")
