"""Accuracy and compute of a trained network on a data set (Sec. 4.1)."""

import dataclasses

import numpy as np
import tensorflow as tf

from skipnet_tf import flops
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet


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
    def distinct_paths(self) -> int:
        """How many different routes the images take."""
        return len(np.unique(self.gates, axis=0))


def collect(model: ResNet | SkipNet, dataset: tf.data.Dataset) -> Routes:
    """Runs a network over a data set under its inference policy.

    Args:
        model: A `SkipNet`, or a dense `ResNet` (no gates, constant cost).
        dataset: Batches of normalised images and int labels.

    Returns:
        `Routes`, in the order of the data set.
    """

    @tf.function(reduce_retracing=True)
    def run(images):
        routed = _route(model, images)
        softmax = tf.nn.softmax(routed.pop("logits"))
        return {
            "predictions": tf.argmax(softmax, axis=1),
            "confidence": tf.reduce_max(softmax, axis=1),
            **routed,
        }

    batches = []
    for images, labels in dataset:
        batches.append({"labels": labels, **run(images)})
    names = [field.name for field in dataclasses.fields(Routes)]
    return Routes(
        **{
            name: np.concatenate([batch[name].numpy() for batch in batches])
            for name in names
        }
    )


def _route(model, images):
    if isinstance(model, SkipNet):
        routed = model.route(images)
        wanted = ("logits", "gates", "probabilities", "macs")
        return {name: routed[name] for name in wanted}
    rows = tf.shape(images)[0]
    shape = tf.shape(images, tf.int64)
    fixed, blocks, _ = model.multiply_adds(shape[1], shape[2])
    return {
        "logits": model(images),
        "gates": tf.zeros([rows, 0]),
        "probabilities": tf.zeros([rows, 0]),
        "macs": tf.fill([rows], fixed + sum(blocks)),
    }


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
        String with a line for each row below a header.
    """
    header = (
        "stage",
        "accuracy",
        "blocks executed",
        "multiply-adds per image",
        "of dense",
        "paths",
    )
    lines = [header] + [
        (
            name,
            f"{100 * values['accuracy']:.2f} %",
            f"{100 * values['executed_blocks']:.1f} %",
            f"{values['macs']:.3e} MACs",
            f"{100 * values['macs_fraction']:.1f} %",
            str(values["distinct_paths"]),
        )
        for name, values in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths))
        )
        for line in lines
    )
