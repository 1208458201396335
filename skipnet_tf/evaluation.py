"""Accuracy and compute of a trained network on a data set (Sec. 4.1)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from skipnet_tf import flops
from skipnet_tf.classifier import plain_errors
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet

_FEW = 250  # images whose maps after every block fit into memory


@dataclasses.dataclass(frozen=True)
class Routes:
    """What a network did with every image of a data set.

    Attributes:
        labels: Int array `(images,)`.
        predictions: Int array `(images,)`.
        confidence: Float array `(images,)`, softmax of the prediction.
        gates: Float array `(images, gates)`, 1 executed, 0 skipped.
        probabilities: Float array `(images, gates)`, of executing.
        macs: Int64 array `(images,)`, multiply-adds, gates included.
    """

    labels: np.ndarray
    predictions: np.ndarray
    confidence: np.ndarray
    gates: np.ndarray
    probabilities: np.ndarray
    macs: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return float(np.mean(self.labels == self.predictions))

    @property
    def executed_blocks(self) -> float:
        """Mean share of blocks executed, block 0 included, as published."""
        return float(flops.block_ratio(self.gates).mean())

    @property
    def mean_macs(self) -> float:
        """Multiply-adds per image, gates included."""
        return float(self.macs.mean())

    @property
    def open_rates(self) -> np.ndarray:
        """Share of images that run each gated block, `(gates,)`."""
        return self.gates.mean(axis=0)

    @property
    def blocks(self) -> np.ndarray:
        """Blocks executed for each image, block 0 included, `(images,)`."""
        return 1 + self.gates.sum(axis=1).astype(int)

    @property
    def distinct_paths(self) -> int:
        """How many different routes the images take."""
        return len(np.unique(self.gates, axis=0))


def collect(model: ResNet | SkipNet, dataset: tf.data.Dataset) -> Routes:
    """Runs a network over a data set under its inference policy.

    Args:
        model: A `SkipNet`, or a dense `ResNet` (no gates, constant cost).
        dataset: Finite `tf.data.Dataset` of normalised float32 images
            `(batch, height, width, channels)` and int labels `(batch,)`.

    Returns:
        `Routes`, in the order of the data set.

    Raises:
        ValueError: If `dataset` holds anything else, or nothing.
    """
    check_dataset(dataset)

    @tf.function(autograph=False, input_signature=dataset.element_spec[:1])
    def run(images):
        routed = route(model, images)
        softmax = tf.nn.softmax(routed.pop("logits"))
        return {
            "predictions": tf.argmax(softmax, axis=1),
            "confidence": tf.reduce_max(softmax, axis=1),
            **routed,
        }

    # Called as a concrete function, or TensorFlow would warn about tracing
    # once for each network.
    run = run.get_concrete_function()
    batches = []
    with plain_errors():
        for images, labels in dataset:
            batches.append({"labels": labels, **run(images)})
    if not batches:
        raise ValueError(
            "`dataset` must hold at least one image. Received: an empty one"
        )
    names = [field.name for field in dataclasses.fields(Routes)]
    return Routes(
        **{
            name: np.concatenate([batch[name].numpy() for batch in batches])
            for name in names
        }
    )


def some_images(dataset: tf.data.Dataset, images: int) -> tf.data.Dataset:
    """The first images of a data set, in batches of a moderate size.

    Args:
        dataset: Batches of images and labels, as large as they like.
        images: Positive int, how many to take at most.

    Returns:
        Batches of 250 images and labels at most.

    Raises:
        ValueError: If `images` is not positive, or `dataset` holds other
            things.
    """
    check_dataset(dataset)
    if not isinstance(images, int) or images < 1:
        raise ValueError(
            f"`images` must be a positive int. Received: images={images!r}"
        )
    return dataset.unbatch().take(images).batch(min(images, _FEW))


def route(model: ResNet | SkipNet, images: tf.Tensor, actions=None) -> dict:
    """`SkipNet.route` at inference; a dense network has zero gates.

    Args:
        model: A `SkipNet` or `ResNet`.
        images: Normalised float tensor `(batch, height, width, channels)`.
        actions: Optional decisions to impose, see `SkipNet.route`. Defaults
            to `None`.

    Returns:
        Dict of `logits` `(batch, classes)`, `gates` and `probabilities`
        `(batch, gates)`, and `macs` int64 `(batch,)`, multiply-adds.
    """
    if isinstance(model, SkipNet):
        routed = model.route(images, training=False, actions=actions)
        wanted = ("logits", "gates", "probabilities", "macs")
        return {name: routed[name] for name in wanted}
    shape = tf.shape(images, tf.int64)
    fixed, blocks, _ = model.multiply_adds(shape[1], shape[2])
    return {
        "logits": model(images, training=False),
        "gates": tf.zeros([shape[0], 0]),
        "probabilities": tf.zeros([shape[0], 0]),
        "macs": tf.fill(shape[:1], fixed + sum(blocks)),
    }


def check_dataset(dataset: tf.data.Dataset) -> None:
    """Raises `ValueError` unless it holds batches of images and labels."""
    spec = getattr(dataset, "element_spec", None)
    ranks = None
    if isinstance(spec, tuple) and len(spec) == 2:
        ranks = [part.shape.rank for part in spec]
    # One-hot labels would broadcast against predictions without a word.
    if ranks != [4, 1]:
        raise ValueError(
            "`dataset` must be a batched tf.data.Dataset of (images, labels) "
            "with shapes (batch, height, width, channels) and (batch,). "
            f"Received: {spec or dataset!r}"
        )


def summary(routes: Routes, dense_macs: int) -> dict:
    """Numbers of a result table.

    Args:
        routes: What `collect` returned.
        dense_macs: Int, multiply-adds of the network without gates.

    Returns:
        Dict of plain numbers: `images`, `accuracy` and `executed_blocks`
        (fractions), `macs` (multiply-adds per image, gates included),
        `macs_fraction` (of the dense network), `distinct_paths`.
    """
    return {
        "images": len(routes.labels),
        "accuracy": routes.accuracy,
        "executed_blocks": routes.executed_blocks,
        "macs": routes.mean_macs,
        "macs_fraction": routes.mean_macs / dense_macs,
        "distinct_paths": routes.distinct_paths,
    }


def table(rows: list[tuple[str, dict]]) -> str:
    """An aligned plain-text table.

    Args:
        rows: List of `(name, summary)`.

    Returns:
        String with a line for each row below a header. Multiply-adds
        include those of the gates and are compared to the same network
        without gates; blocks count block 0, as in the published code.
    """
    header = (
        "stage",
        "accuracy",
        "blocks executed",
        "multiply-adds per image",
        "of dense",
        "distinct paths",
    )
    lines = [header] + [
        (
            name,
            f"{100 * values['accuracy']:.2f} %",
            f"{100 * values['executed_blocks']:.1f} %",
            f"{values['macs']:.2e} MACs",
            f"{100 * values['macs_fraction']:.1f} %",
            str(values["distinct_paths"]),
        )
        for name, values in rows
    ]
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first one to the left, numbers to the right.

    Args:
        lines: Sequence of lines of as many cells, the header first.

    Returns:
        String with a line for each.
    """
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
        )
        for line in lines
    )
