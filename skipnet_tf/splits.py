"""The images of a run: its splits, and each process's part of them."""

import dataclasses
import functools

import tensorflow as tf

from skipnet_tf import data

_EVALUATION_BATCH = 500
_MOST_REPLICAS = 64


@dataclasses.dataclass(frozen=True)
class Data:
    """The splits of a run.

    Args:
        name: String, a data set that `skipnet_tf.data.load` knows.
        train_split: String in TFDS's notation.
        validation_split: String; what models are compared on.
        test_split: String, evaluated once at the end, or `""` for never.
        batch_size: Positive int, images per step over all replicas.
        data_dir: Optional string. Defaults to `None`, TFDS's own default.
        download: Bool. Defaults to `False`.
        seed: Int, of initial weights, order and augmentation. Defaults to
            `0`.
        image_size: Optional int, side of a photograph in pixels. Defaults to
            `None`, that of the data set.
        normalization: Optional string, the data set whose mean and deviation
            are used. Defaults to `None`, its own.
        service: Optional string, address of a tf.data service that prepares
            the training batches. Defaults to `None`.
        corrupt: `"skip"` or `"fail"`, what happens to photographs that
            cannot be decoded. Defaults to `"skip"`.
    """

    name: str
    train_split: str
    validation_split: str
    test_split: str
    batch_size: int
    data_dir: str | None = None
    download: bool = False
    seed: int = 0
    image_size: int | None = None
    normalization: str | None = None
    service: str | None = None
    corrupt: str = "skip"

    @functools.cached_property
    def infos(self) -> dict[str, data.DatasetInfo]:
        """What each split holds; an image folder is listed once only."""
        splits = {self.train_split, self.validation_split, self.test_split}
        return {
            split: data.describe(
                self.name, split, self.data_dir, self.download, self.image_size
            )
            for split in splits - {""}
        }

    def describe(self) -> data.DatasetInfo:
        """Checks that all splits are there and describes the first."""
        return self.infos[self.train_split]

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training images."""
        steps = self.describe().num_examples // self.batch_size
        if steps == 0:
            raise ValueError(
                "`batch_size` must not exceed the number of training images. "
                f"Received: batch_size={self.batch_size}"
            )
        return steps

    def training(
        self, epochs: int, first_step: int, shard: tuple[int, int] = (0, 1)
    ) -> tf.data.Dataset:
        """Training batches from global step `first_step` on.

        Args:
            epochs: Positive int.
            first_step: Int.
            shard: Pair of ints `(index, count)` of a process; its batches
                are smaller than `batch_size` by `count`. Defaults to
                `(0, 1)`.
        """
        return self._load(
            self.train_split,
            batch_size=self.batch_size // shard[1],
            training=True,
            seed=self.seed,
            epochs=epochs,
            first_step=first_step,
            shard=shard,
            service=self.service,
        )

    def evaluation(
        self, split: str, shard: tuple[int, int] = (0, 1)
    ) -> tf.data.Dataset:
        """Batches of `split` in order, nothing left out."""
        images = self.infos[split].num_examples
        batch = evaluation_batch(images, shard[1])
        return self._load(split, batch_size=batch, shard=shard)

    def _load(self, split, **arguments):
        return data.load(
            self.name,
            split,
            data_dir=self.data_dir,
            image_size=self.image_size,
            normalization=self.normalization,
            corrupt=self.corrupt,
            **arguments,
        )


def evaluation_batch(images: int, processes: int = 1) -> int:
    """Images per batch whose last batch leaves no replica without images.

    Args:
        images: Positive int, images of a split.
        processes: Positive int, among which they are divided; all of them
            get the same number of batches. Defaults to `1`.
    """
    shares = {images // processes, -(-images // processes)}

    def is_fair(batch):
        rests = {share % batch for share in shares}
        batches = {-(-share // batch) for share in shares}
        return len(batches) == 1 and rests <= {0, *range(_MOST_REPLICAS, batch)}

    most = min(_EVALUATION_BATCH, max(shares))
    return next(filter(is_fair, range(most, 0, -1)), most)
