"""Where examples come from: TFDS, image folders and the demo's digits."""

import dataclasses
import importlib.util
import os
import random
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from skipnet_tf import preprocessing

# Undecoded photographs among which the next one is drawn: 1.8 GB of ImageNet,
# whose files are drawn, too.
_SHUFFLE_BUFFER = 16_384

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What one split holds.

    Args:
        name: String, the data set.
        split: String, the split, in TFDS's notation.
        num_examples: Int, examples in the split.
        num_classes: Int, classes in the data set.
        class_names: Tuple of strings, one name per class.
        image_shape: Tuple `(height, width, 3)` of what `load` yields.
    """

    name: str
    split: str
    num_examples: int
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Source:
    # `examples(seed)` returns one pass as a data set of `(image, label)`,
    # `seed` an int64 scalar or `None` for the fixed order; `read` turns a
    # string image into the bytes of a file; `buffer` examples are shuffled.
    info: DatasetInfo
    examples: Callable
    read: Callable
    buffer: int


def preprocessing_of(name: str) -> preprocessing.Preprocessing:
    """Returns the preprocessing of any data set that `load` knows.

    Args:
        name: String.  A data set that is not in the paper is treated like
            ImageNet, with as many classes as it has.

    Returns:
        A `Preprocessing`.
    """
    try:
        return preprocessing.get(name)
    except ValueError:
        return dataclasses.replace(
            preprocessing.IMAGENET, name=name, num_classes=None
        )


def expect(correct, expected, received):
    if not correct:
        raise ValueError(f"{expected}. Received: {received!r}")


def open_split(name, split, data_dir, download, shard):
    if name == "digits":
        return _open_digits(split, shard)
    if name == "image_folder":
        return _open_folder(split, data_dir, shard)
    return _open_records(name, split, data_dir, download, shard)


def _info(name, split, num_examples, class_names):
    recipe = preprocessing_of(name)
    expect(
        recipe.num_classes in (None, len(class_names)),
        f"`name` expected a data set of {recipe.num_classes} classes",
        f"{name} with {len(class_names)} classes",
    )
    return DatasetInfo(
        name=name,
        split=str(split),
        num_examples=num_examples,
        num_classes=len(class_names),
        class_names=tuple(class_names),
        image_shape=(recipe.size, recipe.size, 3),
    )


def _select(split, members, shard):
    """Returns what the split holds of `members`, a dict from split to list."""
    import tensorflow_datasets as tfds

    sizes = {
        name: tfds.core.SplitInfo(
            name=name,
            shard_lengths=[len(of_split)],
            num_bytes=0,
            filename_template=None,
        )
        for name, of_split in members.items()
    }
    try:
        instruction = tfds.core.ReadInstruction.from_spec(split)
        slices = instruction.to_absolute(tfds.core.SplitDict(sizes.values()))
    except ValueError as error:
        raise _no_such_split(split, members, error) from error
    selected = [
        member
        for part in slices
        for member in members[part.splitname][part.from_ : part.to]
    ]
    expect(selected, "`split` expected a slice that is not empty", split)
    # Strided, so that every shard gets every class.
    return selected[shard[0] :: shard[1]]


def _no_such_split(split, known, error):
    return ValueError(
        f"`split` expected one of {sorted(known)}, or slices and sums of "
        f"them ({error}). Received: split={split!r}"
    )


def _open_digits(split, shard):
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "name='digits' needs scikit-learn: pip install skipnet_tf[demo]"
        )
    from sklearn import datasets

    digits = datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(images[..., None], 3, axis=-1)
    members = _stratify(digits.target)
    chosen = _select(split, members, shard)
    with tf.device("CPU:0"):
        pixels = tf.constant(images[chosen])
        labels = tf.constant(digits.target[chosen], tf.int32)
    names = [str(name) for name in digits.target_names]
    return Source(
        info=_info("digits", split, len(chosen), names),
        examples=lambda seed: tf.data.Dataset.from_tensor_slices(
            (pixels, labels)
        ),
        read=tf.identity,
        buffer=len(chosen),
    )


def _stratify(labels):
    """Splits indices into "train" and "test" (20 %), classes taking turns.

    Every slice of such a split holds about as much of each class.  Scikit-
    learn's order, by writer, is shuffled away first, always in the same way.
    """
    shuffled = np.random.RandomState(0).permutation(len(labels))
    rank = np.zeros(len(labels), np.int64)
    # In parts of the class: the larger classes would be alone at the end.
    progress = np.zeros(len(labels))
    for label in np.unique(labels):
        of_label = shuffled[labels[shuffled] == label]
        rank[of_label] = np.arange(len(of_label))
        progress[of_label] = rank[of_label] / len(of_label)
    indices = np.lexsort((labels, progress))
    test = rank[indices] % 5 == 4
    return {"train": indices[~test].tolist(), "test": indices[test].tolist()}


def _open_folder(split, data_dir, shard):
    root = os.path.expanduser(data_dir or "")
    expect(
        data_dir and tf.io.gfile.isdir(root),
        "`data_dir` expected the root of an image folder, "
        "data_dir/split/class/file",
        data_dir,
    )
    members = {}
    for name in _folders(root):
        members[name] = [
            (os.path.join(root, name, label, file), label)
            for label in _folders(os.path.join(root, name))
            for file in sorted(
                tf.io.gfile.listdir(os.path.join(root, name, label))
            )
            if file.lower().endswith(_IMAGE_SUFFIXES)
        ]
        # Slices of a split sorted by class would lack classes.
        random.Random(0).shuffle(members[name])
    names = sorted({label for split in members.values() for _, label in split})
    chosen = _select(split, members, shard)
    paths = [path for path, _ in chosen]
    labels = np.array([names.index(label) for _, label in chosen], np.int32)
    return Source(
        info=_info("image_folder", split, len(chosen), names),
        examples=lambda seed: tf.data.Dataset.from_tensor_slices(
            (paths, labels)
        ),
        read=tf.io.read_file,
        # Paths are small: all of them are shuffled.
        buffer=len(chosen),
    )


def _folders(parent):
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(parent))
    return sorted(
        name for name in names if tf.io.gfile.isdir(os.path.join(parent, name))
    )


def _open_records(name, split, data_dir, download, shard):
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir, download)
    features = dict(builder.info.features or {})
    expect(
        isinstance(features.get("image"), tfds.features.Image)
        and isinstance(features.get("label"), tfds.features.ClassLabel),
        "`name` expected a data set with the features 'image' and 'label'",
        f"{name} with {sorted(features)}",
    )
    part, num_examples = _find_part(builder, split, shard)

    def examples(seed):
        records = builder.as_dataset(
            split=part,
            shuffle_files=seed is not None,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(
                try_autocache=False,
                skip_prefetch=True,
                shuffle_seed=seed,
                shuffle_reshuffle_each_iteration=False,
                # A data set that TFDS keeps in order may be shuffled here.
                enable_ordering_guard=False,
            ),
        )
        return records.map(
            lambda example: (
                example["image"],
                tf.cast(example["label"], tf.int32),
            )
        )

    return Source(
        info=_info(name, split, num_examples, features["label"].names),
        examples=examples,
        read=tf.identity,
        buffer=min(_SHUFFLE_BUFFER, num_examples),
    )


def _find_part(builder, split, shard):
    import tensorflow_datasets as tfds

    try:
        part = tfds.core.ReadInstruction.from_spec(split)
        if shard[1] > 1:
            part = tfds.even_splits(part, shard[1])[shard[0]]
        found = builder.info.splits[part]
    except (KeyError, ValueError) as error:
        raise _no_such_split(split, builder.info.splits, error) from error
    expect(
        found.num_examples, "`split` expected a slice that is not empty", split
    )
    for instruction in found.file_instructions:
        path = os.fspath(instruction.filename)
        expect(
            tf.io.gfile.exists(path),
            f"`split` expected prepared files, but {path} does not exist",
            split,
        )
    return part, found.num_examples


def _builder(name, data_dir, download):
    import tensorflow_datasets as tfds

    root = os.path.expanduser(
        data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    )
    # Read from the folder, not by name: TFDS then asks no server about it.
    pattern = os.path.join(root, name, "*", "dataset_info.json")
    folders = [os.path.dirname(path) for path in tf.io.gfile.glob(pattern)]
    if folders:
        newest = max(folders, key=_version)
        return tfds.builder_from_directory(newest)
    if not download:
        raise ValueError(
            f"`data_dir` expected prepared data, {pattern}, and it is not "
            "there. Give the folder that holds it (--data_dir), or allow to "
            f"download and prepare it (--download). Received: data_dir={root!r}"
        )
    if importlib.util.find_spec("importlib_resources") is None:
        raise ImportError(
            "To prepare data sets, tensorflow-datasets needs a package that "
            "it does not install: pip install importlib_resources"
        )
    builder = tfds.builder(name, data_dir=root)
    builder.download_and_prepare()
    return builder


def _version(folder):
    # By number: 3.10.0 is newer than 3.9.0.
    parts = os.path.basename(folder).split(".")
    return [int(part) if part.isdigit() else -1 for part in parts]
