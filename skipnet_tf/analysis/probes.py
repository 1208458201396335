"""Experiments on a trained network: thresholds, scales, other paths, time.

Each returns plain arrays or rows; none changes the network.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from skipnet_tf import evaluation
from skipnet_tf.preprocessing import Preprocessing
from skipnet_tf.skipnet import SkipNet

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_ROUNDS = 9  # measurements of each image's time


def at_thresholds(
    model: SkipNet, dataset: tf.data.Dataset
) -> dict[str, np.ndarray]:
    """Trades accuracy for compute by moving the threshold of inference.

    Args:
        model: A `SkipNet`.
        dataset: Batches of normalised images and labels.

    Returns:
        Dict of arrays `(thresholds, images)`, a row for each of `THRESHOLDS`:
        boolean `correct`, and int64 `macs`, multiply-adds, gates included.
    """

    # The threshold is an input: one graph serves all of them.
    @tf.function(
        autograph=False,
        input_signature=[*dataset.element_spec, tf.TensorSpec(())],
    )
    def run(images, labels, threshold):
        policy = model.stage.inference_policy(threshold, images)
        routed = model.route_with(images, policy)
        predictions = tf.argmax(routed["logits"], axis=1, output_type=tf.int32)
        return {
            "correct": predictions == tf.cast(labels, tf.int32),
            "macs": routed["macs"],
        }

    run = run.get_concrete_function()
    found = {"correct": [], "macs": []}
    for images, labels in dataset:
        rows = [run(images, labels, tf.constant(t)) for t in THRESHOLDS]
        for name, batches in found.items():
            batches.append(np.stack([row[name] for row in rows]))
    return {
        name: np.concatenate(batches, axis=1) for name, batches in found.items()
    }


def at_scales(
    model: SkipNet, pixels: np.ndarray, normalise: Callable
) -> dict[float, np.ndarray]:
    """Blocks executed for images of other sizes (Fig. 8).

    Args:
        model: A `SkipNet`.
        pixels: uint8 array `(images, height, width, 3)`.
        normalise: Function of pixels, such as `Preprocessing.normalise`.

    Returns:
        Dict from each of `SCALES` to an int array `(images,)`.
    """
    found = {}
    for scale in SCALES:
        size = [max(1, round(scale * side)) for side in pixels.shape[1:3]]
        resized = tf.image.resize(pixels, size, antialias=True)
        executed = [
            evaluation.route(model, normalise(batch))["gates"].numpy()
            for batch in tf.split(resized, _pieces(len(pixels)))
        ]
        found[scale] = 1 + np.concatenate(executed).sum(axis=1).astype(int)
    return found


def _pieces(count, most=32):
    full, rest = divmod(count, most)
    return [most] * full + ([rest] if rest else [])


def imposed(
    model: SkipNet, dataset: tf.data.Dataset, gates: np.ndarray
) -> np.ndarray:
    """Predictions with other decisions than the network's own.

    Args:
        model: A `SkipNet`.
        dataset: Batches of normalised images and labels.
        gates: Float array `(policies, images, gates)`, 1 executed, 0 skipped.

    Returns:
        Int array `(policies, images)`, in the order of the data set.
    """

    @tf.function(
        autograph=False,
        input_signature=[
            dataset.element_spec[0],
            tf.TensorSpec([None, gates.shape[2]]),
        ],
    )
    def predict(images, actions):
        logits = evaluation.route(model, images, actions=actions)["logits"]
        return tf.argmax(logits, axis=1)

    predict = predict.get_concrete_function()
    gates = gates.astype("float32")
    found, first = [], 0
    for images, _ in dataset:
        of_batch = gates[:, first : first + len(images)]
        found.append([predict(images, tf.constant(a)) for a in of_batch])
        first += len(images)
    return np.concatenate(found, axis=1)


def milliseconds(model: SkipNet, images: np.ndarray) -> np.ndarray:
    """Time that each image takes alone, as a batch of one.

    Args:
        model: A `SkipNet`.
        images: Normalised float array `(images, height, width, channels)`.

    Returns:
        Float array `(images,)`, the median of nine rounds over all images,
        so that a busy moment of the machine does not meet one image alone.
    """
    run = tf.function(
        lambda image: evaluation.route(model, image)["logits"],
        autograph=False,
        input_signature=[tf.TensorSpec((1, *images.shape[1:]))],
    ).get_concrete_function()
    singles = [tf.constant(image[None]) for image in images]
    rounds = [[_time(run, image) for image in singles]]  # first: warm-up
    for _ in range(_ROUNDS):
        rounds.append([_time(run, image) for image in singles])
    return 1e3 * np.median(rounds[1:], axis=0)


def _time(run, image):
    start = time.perf_counter()
    run(image).numpy()
    return time.perf_counter() - start


def pick(dataset: tf.data.Dataset, indices: Sequence[int]) -> np.ndarray:
    """Images of a data set by their position.

    Args:
        dataset: Batches of images and labels.
        indices: Sequence of ints.

    Returns:
        Array `(indices, height, width, channels)`.
    """
    # One pass that keeps nothing else: photographs would fill the memory.
    found, first = {}, 0
    for images, _ in dataset:
        for index in set(range(first, first + len(images))) & set(indices):
            found[index] = images[index - first].numpy()
        first += len(images)
    return np.stack([found[index] for index in indices])


def pixels(images: np.ndarray, recipe: Preprocessing) -> np.ndarray:
    """Turns normalised images `(batch, height, width, 3)` back into uint8."""
    values = np.asarray(images) * np.array(recipe.std) + np.array(recipe.mean)
    return np.round(255 * values).clip(0, 255).astype(np.uint8)
