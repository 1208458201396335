"""Batches of photographs, some of which may not be images at all.

A file that cannot be decoded must not end a training of days, and must not
move the examples after it to other steps.  A row of a training batch that
cannot be decoded repeats the row before it, a function of the batch alone.
"""

import logging
import threading
from collections.abc import Callable
from collections.abc import Iterable

import tensorflow as tf

from skipnet_tf import image_ops

# Begin what is said of a batch; names and labels stand behind.
_CORRUPT = "these images cannot be decoded:"
_NOTHING = "no image of a batch can be decoded:"
_LABELS = "labels expected from"
SENTENCES = (_CORRUPT, _NOTHING, _LABELS)

_MOST_NAMES = 10


class CorruptImages:
    """Names of the images that could not be decoded, each warned of once."""

    def __init__(self):
        self._names = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """In the order in which they were found."""
        return list(self._names)

    def add(self, names: Iterable[bytes]) -> None:
        """Warns of those that are new.

        Args:
            names: Byte strings.
        """
        for name in (encoded.decode(errors="replace") for encoded in names):
            with self._lock:
                known = name in self._names
                self._names[name] = None
            if not known:
                logging.getLogger(__name__).warning(
                    "This image cannot be decoded and is skipped: %s", name
                )

    def summary(self) -> str:
        """One line, such as `"2 corrupt images skipped: a.jpg, b.jpg"`.

        Returns:
            A string, empty if there were none.
        """
        if not self._names:
            return ""
        names = self.names
        more = ", ..." if len(names) > _MOST_NAMES else ""
        plural = "" if len(names) == 1 else "s"
        listed = ", ".join(names[:_MOST_NAMES])
        return f"{len(names)} corrupt image{plural} skipped: {listed}{more}"


# Of this process. Batches are made by threads that outlive `load`, which can
# therefore not return it.
corrupt_images = CorruptImages()


def to_batches(
    examples: tf.data.Dataset,
    decode_fast: Callable,
    decode: Callable,
    *,
    num_classes: int,
    batch_size: int,
    training: bool,
    threads: int,
    on_corrupt: Callable,
) -> tf.data.Dataset:
    """Joins photographs to batches and decodes those, several at a time.

    Args:
        examples: Data set of `(position, (encoded, label, name))`.
        decode_fast: Function of an encoded image and its position that
            returns a uint8 tensor `(size, size, 3)`; it may fail.
        decode: Function like it, for images with which `decode_fast` fails.
        num_classes: Int; labels outside are an error.
        batch_size: Int.
        training: Boolean.  If true, a photograph that cannot be decoded is
            replaced by the nearest one before it in its batch, where the
            last one stands before the first one; if false, it is removed.
        threads: Int, batches that are made at a time, and images of each.
        on_corrupt: Function of a string tensor, the names of the photographs
            of a batch that cannot be decoded.  It returns an operation.

    Returns:
        Data set of `(images, labels)`: uint8 `(batch, size, size, 3)` and
        int32 `(batch,)`.
    """

    def decode_batch(positions, batch):
        encoded, labels, names = batch
        rows, images = _decodable(decode_fast, encoded, positions, threads)
        rows, images = tf.cond(
            tf.size(rows) == tf.size(encoded),
            lambda: (rows, images),
            lambda: _complete(
                rows, images, decode, encoded, positions, threads
            ),
        )
        return rows, images, labels, names

    def mend(rows, images, labels, names):
        check = _check_labels(labels, names, num_classes)

        def mended():
            count = tf.size(labels, tf.int64)
            corrupt = tf.gather(names, _others(rows, count))
            some = image_ops.require(
                tf.size(rows) > 0,
                _NOTHING,
                corrupt,
            )
            with tf.control_dependencies([some, on_corrupt(corrupt)]):
                places = _places(rows, count, training)
            chosen = tf.gather(rows, places)
            return tf.gather(images, places), tf.gather(labels, chosen)

        with tf.control_dependencies([check]):
            whole = tf.size(rows) == tf.size(labels)
        images, labels = tf.cond(whole, lambda: (images, labels), mended)
        size = batch_size if training else None
        shape = images.shape[1:]
        return tf.ensure_shape(images, (size, *shape)), tf.ensure_shape(
            labels, (size,)
        )

    batches = examples.batch(batch_size, drop_remainder=training)
    return batches.map(decode_batch, num_parallel_calls=threads).map(mend)


def skip_corrupt(names: tf.Tensor) -> tf.Operation:
    """Adds to `corrupt_images`.

    Args:
        names: String tensor `(n,)`.

    Returns:
        An operation.
    """
    return tf.numpy_function(corrupt_images.add, [names], [])


def print_corrupt(names: tf.Tensor) -> tf.Operation:
    """Prints in the log of a worker of a tf.data service.

    Python does not travel to other processes.

    Args:
        names: String tensor `(n,)`.

    Returns:
        An operation.
    """
    return tf.print("These images cannot be decoded and are skipped:", names)


def refuse_corrupt(names: tf.Tensor) -> tf.Operation:
    """Fails.

    Args:
        names: String tensor `(n,)`.

    Returns:
        An operation.

    Raises:
        tf.errors.InvalidArgumentError: When it runs.
    """
    return image_ops.require(tf.constant(False), _CORRUPT, names)


def _decodable(decode, encoded, positions, threads):
    """Returns the rows that can be decoded, and their images."""
    count = tf.size(encoded, tf.int64)
    # A data set is the one thing in TensorFlow that can ignore an error. One
    # for the whole batch: making it takes as long as decoding an image.
    decoded = (
        tf.data.Dataset.from_tensor_slices(
            (tf.range(count), encoded, positions)
        )
        .map(
            lambda row, *image: (row, decode(*image)),
            num_parallel_calls=threads,
            deterministic=True,
        )
        .ignore_errors()
    )
    shape = decoded.element_spec[1].shape
    nothing = tf.data.Dataset.from_tensors(
        (tf.zeros((0,), tf.int64), tf.zeros((0, *shape), tf.uint8))
    )
    batches = decoded.batch(count).concatenate(nothing).take(1)
    return batches.get_single_element()


def _complete(rows, images, decode, encoded, positions, threads):
    """Adds the other rows that `decode` can decode, in order."""
    others = _others(rows, tf.size(encoded, tf.int64))
    found, more = _decodable(
        decode,
        tf.gather(encoded, others),
        tf.gather(positions, others),
        threads,
    )
    rows = tf.concat([rows, tf.gather(others, found)], axis=0)
    order = tf.argsort(rows)
    images = tf.concat([images, more], axis=0)
    return tf.gather(rows, order), tf.gather(images, order)


def _others(rows, count):
    """Which of `count` rows are not in `rows`."""
    hits = tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, count)
    return tf.where(hits == 0)[:, 0]


def _places(rows, count, training):
    """Which of the decoded images make up the batch."""
    if not training:
        return tf.range(tf.size(rows))
    before = tf.searchsorted(rows, tf.range(count), side="right") - 1
    return tf.math.floormod(before, tf.size(rows))


def _check_labels(labels, names, num_classes):
    known = (labels >= 0) & (labels < num_classes)
    return image_ops.require(
        tf.reduce_all(known),
        f"{_LABELS} 0 to {num_classes - 1}, the first label "
        "subtracted; received, and where:",
        tf.boolean_mask(labels, ~known),
        tf.boolean_mask(names, ~known),
    )
