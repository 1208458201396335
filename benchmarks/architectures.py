"""The networks that are trained: shapes only, for every library to build."""

import dataclasses
from collections.abc import Iterator

import numpy as np

# Keras's names of the precisions.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A ResNet as `skipnet_tf` has it.

    Attributes:
        blocks: Tuple of ints, blocks in each group.
        filters: Tuple of ints, channels of each group.
        bottleneck: Bool, three convolutions in a block instead of two.
        stem: `"cifar"` or `"imagenet"`.
        classes: Int.
        size: Int, height and width of the images in pixels.
        batch: Int, images in a step unless asked for others.
    """

    blocks: tuple[int, ...]
    filters: tuple[int, ...]
    bottleneck: bool
    stem: str
    classes: int
    size: int
    batch: int

    def every_block(self) -> Iterator[tuple[int, int]]:
        """`(filters, strides)` of one block after the other."""
        for group, count in enumerate(self.blocks):
            for block in range(count):
                yield self.filters[group], 2 if group and not block else 1

    def convolutions(
        self, filters: int, strides: int
    ) -> list[tuple[int, int, int]]:
        """`(filters, kernel, strides)` of the convolutions in a block."""
        if self.bottleneck:
            return [
                (filters, 1, 1),
                (filters, 3, strides),
                (4 * filters, 1, 1),
            ]
        return [(filters, 3, strides), (filters, 3, 1)]

    def random_batch(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Images, float32 `(batch, size, size, 3)`, and int32 labels."""
        random = np.random.default_rng(0)
        shape = (batch, self.size, self.size, 3)
        images = random.standard_normal(shape, "float32")
        return images, random.integers(0, self.classes, batch, "int32")


def cifar(depth: int) -> Architecture:
    """The ResNet of `6n + 2` layers for images of 32x32 pixels."""
    blocks = ((depth - 2) // 6,) * 3
    return Architecture(blocks, (16, 32, 64), False, "cifar", 10, 32, 128)


NETWORKS = {
    "resnet38": cifar(38),
    "resnet110": cifar(110),
    "resnet50": Architecture(
        (3, 4, 6, 3), (64, 128, 256, 512), True, "imagenet", 1000, 224, 16
    ),
}
