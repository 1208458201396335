"""Image folders and TFRecord files, wherever TensorFlow can read.

TFRecord files hold one `tf.Example` per image with the features of the
classic ImageNet layout, "image/encoded" and "image/class/label".  How many
examples each file has stands in one index beside them: nobody can tell from a
TFRecord file without walking through it.
"""

import dataclasses
import functools
import json
import os
import random
import re
import struct

import tensorflow as tf

INDEX = "index.json"

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_RECORD_FILE = re.compile(r"(\w+)-(\d+)-of-(\d+)")
# As TFDS reads its own: files that take turns, and how many records each.
_FILES_AT_ONCE = 16
_RECORDS_IN_TURN = 16
_BUFFER_BYTES = 8 << 20


def expect(correct, expected, received):
    if not correct:
        raise ValueError(f"{expected}. Received: {received!r}")


# A run opens its splits many times, and a listing of ImageNet takes minutes.
@functools.lru_cache(maxsize=1)
def list_folder(
    root: str,
) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """Lists the images of a tree `root/split/class/file`.

    The last root is remembered as it was when it was first listed;
    `list_folder.cache_clear()` forgets it.

    Args:
        root: String.

    Returns:
        Dict from split to pairs of path and class, shuffled in a fixed way,
        and the sorted names of the classes.

    Raises:
        ValueError: If the splits do not have the same classes.
    """
    members, classes = {}, {}
    for split in _folders(root):
        names = _folders(os.path.join(root, split))
        found = [
            (os.path.join(root, split, name, file), name)
            for name in names
            for file in sorted(
                tf.io.gfile.listdir(os.path.join(root, split, name))
            )
            if file.lower().endswith(_IMAGE_SUFFIXES)
        ]
        # A folder without images may be anything, and is no split.
        if found:
            # Slices of a split sorted by class would lack classes.
            random.Random(0).shuffle(found)
            members[split], classes[split] = found, names
    expect(
        members, "`data_dir` expected images, data_dir/split/class/file", root
    )
    first, *others = classes
    for split in others:
        differing = sorted(set(classes[first]) ^ set(classes[split]))
        expect(
            not differing,
            f"`data_dir` expected the same class folders in {first!r} and "
            f"{split!r}; these are in one of them only: {differing[:5]}",
            root,
        )
    return members, classes[first]


def _folders(parent):
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(parent))
    return sorted(
        name
        for name in names
        if not name.startswith(".")
        and tf.io.gfile.isdir(os.path.join(parent, name))
    )


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """What the TFRecord files of a folder hold.

    Args:
        splits: Dict from split to a dict from file name to its number of
            examples.
        class_names: List of strings.
        first_label: Int, the label of the first class; 1 in the classic
            layout.
    """

    splits: dict[str, dict[str, int]]
    class_names: list[str]
    first_label: int


def index_records(
    folder: str, class_names: list[str], first_label: int = 1
) -> RecordIndex:
    """Counts the examples of the files `folder/<split>-<number>-of-<count>`.

    Args:
        folder: String.
        class_names: List of strings, one per class, by label.
        first_label: Int. Defaults to `1`.

    Returns:
        A `RecordIndex`.

    Raises:
        ValueError: If there is no such file, one is missing, or one is not
            a whole TFRecord file.
    """
    splits = {}
    for name in sorted(tf.io.gfile.listdir(folder)):
        match = _RECORD_FILE.fullmatch(name)
        if match:
            splits.setdefault((match[1], int(match[3])), []).append(name)
    expect(
        splits, "`data_dir` expected files such as train-00000-of-01024", folder
    )
    for (split, count), names in splits.items():
        expect(
            len(names) == count,
            f"`data_dir` expected {count} files of {split!r}",
            len(names),
        )
    return RecordIndex(
        splits={
            split: {
                name: _count_records(os.path.join(folder, name))
                for name in names
            }
            for (split, _), names in splits.items()
        },
        class_names=class_names,
        first_label=first_label,
    )


def _count_records(path):
    # Only headers are read: 8 bytes of length and 4 of its checksum before
    # the record, 4 after it. A GFile would read what lies between them, too.
    size, position, count = tf.io.gfile.stat(path).length, 0, 0
    local = os.path.exists(path)
    with (
        open(path, "rb", buffering=0)
        if local
        else tf.io.gfile.GFile(path, "rb")
    ) as file:
        while position + 16 <= size:
            file.seek(position)
            (length,) = struct.unpack("<Q", file.read(8))
            position += 16 + length
            count += 1
    expect(position == size, "`data_dir` expected whole TFRecord files", path)
    return count


def write_index(folder: str, index: RecordIndex) -> None:
    """Writes the index beside the files, whole or not at all.

    Args:
        folder: String.
        index: A `RecordIndex`.
    """
    content = {
        "splits": {
            split: {"files": files} for split, files in index.splits.items()
        },
        "class_names": index.class_names,
        "first_label": index.first_label,
    }
    path = os.path.join(folder, INDEX)
    with tf.io.gfile.GFile(f"{path}.tmp", "w") as file:
        json.dump(content, file, indent=1)
    tf.io.gfile.rename(f"{path}.tmp", path, overwrite=True)


def read_index(folder: str) -> RecordIndex:
    """Reads the index of a folder and checks that its files are there.

    Args:
        folder: String.

    Returns:
        A `RecordIndex`.

    Raises:
        ValueError: If there is no index, or it names a file that is missing.
    """
    path = os.path.join(folder, INDEX)
    expect(
        tf.io.gfile.exists(path),
        f"`data_dir` expected TFRecord files with an {INDEX}. Write it: "
        "python trainers/index_tfrecords.py --data_dir=... "
        "--class_names=labels.txt",
        folder,
    )
    with tf.io.gfile.GFile(path) as file:
        content = json.load(file)
    splits = {
        split: found["files"] for split, found in content["splits"].items()
    }
    missing = set().union(*splits.values()) - set(tf.io.gfile.listdir(folder))
    expect(
        not missing,
        f"`data_dir` expected the files of {INDEX}, but these are missing: "
        f"{sorted(missing)[:3]}",
        folder,
    )
    return RecordIndex(splits, content["class_names"], content["first_label"])


def cut(
    pieces: list[tuple[str, int, int]], first: int, end: int
) -> list[tuple[str, int, int]]:
    """Finds the examples `first` to `end` (exclusive) of several pieces.

    Args:
        pieces: List of path or other name, number of the first example in it
            and number of examples; one after the other.
        first: Int.
        end: Int.

    Returns:
        List of the same form.
    """
    parts, start = [], 0
    for name, skipped, count in pieces:
        low, high = max(first - start, 0), min(end - start, count)
        if low < high:
            parts.append((name, skipped + low, high - low))
        start += count
    return parts


def read_records(
    parts: list[tuple[str, int, int]], first_label: int, seed: tf.Tensor | None
) -> tf.data.Dataset:
    """Reads parts of TFRecord files.

    Args:
        parts: List of path, number of the first record and number of
            records, see `cut`.
        first_label: Int, the label of the first class.
        seed: int64 scalar, of the order of the files, which then take turns;
            or `None` for one after the other.

    Returns:
        A data set of `(encoded, label, name)`: an image file, an int32 from
        0 on and a string that says where it was read.
    """
    paths, first, counts = zip(*parts)
    files = tf.data.Dataset.from_tensor_slices(
        (
            list(paths),
            tf.constant(first, tf.int64),
            tf.constant(counts, tf.int64),
        )
    )
    if seed is not None:
        files = files.shuffle(
            len(parts), seed=seed, reshuffle_each_iteration=False
        )

    def read(path, first, count):
        records = tf.data.TFRecordDataset(path, buffer_size=_BUFFER_BYTES)
        return (
            records.enumerate()
            .skip(first)
            .take(count)
            .map(lambda number, record: parse(path, number, record))
        )

    def parse(path, number, record):
        example = tf.io.parse_single_example(
            record,
            {
                "image/encoded": tf.io.FixedLenFeature((), tf.string),
                "image/class/label": tf.io.FixedLenFeature((), tf.int64),
            },
        )
        label = tf.cast(example["image/class/label"] - first_label, tf.int32)
        name = tf.strings.join(
            [path, ", record ", tf.strings.as_string(number)]
        )
        return example["image/encoded"], label, name

    return files.interleave(
        read,
        cycle_length=1 if seed is None else _FILES_AT_ONCE,
        block_length=_RECORDS_IN_TURN,
        num_parallel_calls=tf.data.AUTOTUNE,
    )
