"""Multiply-adds (MACs) of networks, blocks and gates (Sec. 4.1).

One multiply-add is one operation. Convolutions and dense products count
(those of the gates too); normalisation, pooling and activations do not.
Sizes may be Python ints or int64 tensors, so that a network can count the
work of images whose size is known only when they arrive.
"""

import dataclasses
from typing import Any

import numpy as np

Size = Any  # int or scalar int64 tensor


@dataclasses.dataclass(frozen=True)
class Count:
    """Multiply-adds of one network at one image size.

    Attributes:
        blocks: Int64 array `(gates,)`, cost of each gated block.
        gates: Int64 array `(gates,)`, cost of each gate.
        fixed: Int, what every image pays: stem, block 0, down-sampling
            projections and classifier.
    """

    blocks: np.ndarray
    gates: np.ndarray
    fixed: int

    @property
    def dense(self) -> int:
        """The same network without gates, every block executed."""
        return self.fixed + int(self.blocks.sum())

    @property
    def total(self) -> int:
        """All gates open, gates included."""
        return self.dense + int(self.gates.sum())


def count(model: Any, input_shape: tuple[int, ...]) -> Count:
    """Counts the multiply-adds of a ResNet or SkipNet.

    Args:
        model: A `ResNet` or `SkipNet`.
        input_shape: Tuple `(height, width, channels)`, in pixels.

    Returns:
        A `Count`, in multiply-adds per image.

    Raises:
        ValueError: If `input_shape` is not three positive ints.
    """
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            "`input_shape` must be (height, width, channels), positive ints. "
            f"Received: input_shape={input_shape}"
        )
    fixed, blocks, gates = model.multiply_adds(shape[0], shape[1])
    return Count(
        blocks=np.array(blocks, np.int64),
        gates=np.array(gates, np.int64),
        fixed=int(fixed),
    )


def block_ratio(gates: np.ndarray) -> np.ndarray:
    """Share of executed blocks, the published "computation percentage".

    The published code counts blocks only: block 0, which always runs, is one
    of them, gates and everything outside the blocks are free.

    Args:
        gates: Array `(batch, gates)`, 1 executed, 0 skipped.

    Returns:
        Array `(batch,)`, a fraction in (0, 1].
    """
    gates = np.asarray(gates)
    return (gates.sum(axis=1) + 1) / (gates.shape[1] + 1)


def strided(size: Size, stride: int) -> Size:
    """Size after a convolution or pooling that pads by half its kernel."""
    return (size - 1) // stride + 1


def convolution(
    height: Size, width: Size, kernel: int, channels: int, filters: int
) -> Size:
    """Multiply-adds of a convolution with an output of `height * width`."""
    return height * width * (kernel * kernel * channels * filters)


def lstm_step(inputs: int, units: int) -> int:
    """Multiply-adds of one step of an LSTM cell: four gates, two products."""
    return 4 * units * (inputs + units)
