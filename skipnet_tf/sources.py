"""Where examples come from: TFDS, files and the demo's digits."""

import dataclasses
import functools
import importlib.util
import operator
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from skipnet_tf import digits
from skipnet_tf import files
from skipnet_tf import preprocessing
from skipnet_tf import slices
from skipnet_tf.files import expect

# Undecoded photographs among which the next one is drawn: 1.8 GB of ImageNet,
# whose files are drawn, too.
_SHUFFLE_BUFFER = 16_384


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
    # `info` describes the whole split, `size` counts this shard's examples.
    # `examples(seed)` returns one pass as a data set of `(image, label,
    # name)`, `seed` an int64 scalar or `None` for the fixed order; `read`
    # turns a string image into the bytes of a file; `buffer` examples are
    # shuffled.
    info: DatasetInfo
    size: int
    examples: Callable
    read: Callable
    buffer: int


def preprocessing_of(
    name: str, image_size: int | None = None, normalization: str | None = None
) -> preprocessing.Preprocessing:
    """Returns the preprocessing of any data set that `load` knows.

    Args:
        name: String.  A data set that is not in the paper is treated like
            ImageNet, with as many classes as it has.
        image_size: Positive int, height and width of the network input in
            pixels.  Photographs can have any; small images are not resized.
            Defaults to `None`, the data set's own.
        normalization: String, the data set whose mean and standard deviation
            are used. Defaults to `None`, its own.

    Returns:
        A `Preprocessing`.

    Raises:
        ValueError: If small images are given another size, or
            `normalization` is no data set of the paper.
    """
    try:
        recipe = preprocessing.get(name)
    except ValueError:
        recipe = dataclasses.replace(
            preprocessing.IMAGENET, name=name, num_classes=None
        )
    if image_size is not None:
        photographs = recipe.augmentation == "resized_crop"
        expect(
            image_size >= 1 if photographs else image_size == recipe.size,
            "`image_size` expected a positive int"
            if photographs
            else f"`image_size` of {name!r} expected {recipe.size} or None",
            image_size,
        )
        recipe = dataclasses.replace(recipe, size=image_size)
    if normalization is not None:
        try:
            other = preprocessing.get(normalization)
        except ValueError as error:
            raise ValueError(f"`normalization`: {error}") from None
        recipe = dataclasses.replace(recipe, mean=other.mean, std=other.std)
    return recipe


def open_split(recipe, split, data_dir, download, shard):
    if recipe.name == "digits":
        return _open_digits(recipe, split, shard)
    if recipe.name == "image_folder":
        return _open_folder(recipe, split, data_dir, shard)
    if recipe.name == "tfrecords":
        return _open_records(recipe, split, data_dir, shard)
    return _open_tfds(recipe, split, data_dir, download, shard)


def _info(recipe, split, num_examples, class_names):
    expect(
        recipe.num_classes in (None, len(class_names)),
        f"`name` expected a data set of {recipe.num_classes} classes",
        f"{recipe.name} with {len(class_names)} classes",
    )
    return DatasetInfo(
        name=recipe.name,
        split=str(split),
        num_examples=num_examples,
        num_classes=len(class_names),
        class_names=tuple(class_names),
        image_shape=(recipe.size, recipe.size, 3),
    )


def _open_digits(recipe, split, shard):
    images, labels, class_names = digits.read()
    chosen = slices.select(split, digits.stratify(labels))
    own = slices.strided(chosen, shard, split)
    with tf.device("CPU:0"):
        examples = tf.data.Dataset.from_tensor_slices(
            (images[own], labels[own], tf.strings.as_string(own))
        )
    return Source(
        info=_info(recipe, split, len(chosen), class_names),
        size=len(own),
        examples=lambda seed: examples,
        read=tf.identity,
        buffer=len(own),
    )


def _open_folder(recipe, split, data_dir, shard):
    root = os.path.expanduser(data_dir or "")
    expect(
        data_dir and tf.io.gfile.isdir(root),
        "`data_dir` expected the root of an image folder, "
        "data_dir/split/class/file",
        data_dir,
    )
    members, names = files.list_folder(root)
    chosen = slices.select(split, members)
    own = slices.strided(chosen, shard, split)
    paths = [path for path, _ in own]
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[label] for _, label in own], np.int32)
    return Source(
        info=_info(recipe, split, len(chosen), names),
        size=len(own),
        examples=lambda seed: tf.data.Dataset.from_tensor_slices(
            (paths, labels, paths)
        ),
        read=tf.io.read_file,
        # Paths are small: all of them are shuffled.
        buffer=len(own),
    )


def _open_records(recipe, split, data_dir, shard):
    root = os.path.expanduser(data_dir or "")
    expect(
        data_dir and tf.io.gfile.isdir(root),
        "`data_dir` expected a folder of TFRecord files",
        data_dir,
    )
    index = files.read_index(root)
    held = {
        name: [
            (os.path.join(root, file), 0, count)
            for file, count in sorted(counts.items())
        ]
        for name, counts in index.splits.items()
    }
    sizes = {name: slices.total(pieces) for name, pieces in held.items()}
    whole = [
        part
        for name, first, count in slices.resolve(split, slices.splits_of(sizes))
        for part in files.cut(held[name], first, first + count)
    ]
    parts = slices.share(whole, shard, split)
    size = slices.total(parts)
    return Source(
        info=_info(recipe, split, slices.total(whole), index.class_names),
        size=size,
        examples=lambda seed: files.read_records(
            parts, index.first_label, seed
        ),
        read=tf.identity,
        buffer=min(_SHUFFLE_BUFFER, size),
    )


def _open_tfds(recipe, split, data_dir, download, shard):
    import tensorflow_datasets as tfds

    builder = _builder(recipe.name, data_dir, download)
    features = dict(builder.info.features or {})
    expect(
        isinstance(features.get("image"), tfds.features.Image)
        and isinstance(features.get("label"), tfds.features.ClassLabel),
        "`name` expected a data set with the features 'image' and 'label'",
        f"{recipe.name} with {sorted(features)}",
    )
    whole = slices.resolve(split, builder.info.splits)
    own = slices.share(whole, shard, split)
    part, size = _instruction(builder, own, split), slices.total(own)

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
                # A worker of a tf.data service reads some of the files.
                assert_cardinality=False,
                add_tfds_id=True,
            ),
        )
        return records.map(
            lambda example: (
                example["image"],
                tf.cast(example["label"], tf.int32),
                example["tfds_id"],
            )
        )

    return Source(
        info=_info(recipe, split, slices.total(whole), features["label"].names),
        size=size,
        examples=examples,
        read=tf.identity,
        buffer=min(_SHUFFLE_BUFFER, size),
    )


def _instruction(builder, pieces, split):
    import tensorflow_datasets as tfds

    part = functools.reduce(
        operator.add,
        (
            tfds.core.ReadInstruction(name, first, first + count)
            for name, first, count in pieces
        ),
    )
    for instruction in builder.info.splits[part].file_instructions:
        path = os.fspath(instruction.filename)
        expect(
            tf.io.gfile.exists(path),
            f"`split` expected prepared files, but {path} does not exist",
            split,
        )
    return part


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
