"""Batches of normalised images from TFDS, image folders and the demo's digits.

The order of the training examples and their augmentation are functions of
the seed, the epoch and the position alone: `load(..., first_step=k)` yields
what the uninterrupted data set yields from step `k` on, bit for bit.

Small images are decoded once and kept in memory, where a batch is one
gather.  Photographs stay encoded until they are needed.
"""

import dataclasses
import secrets

import tensorflow as tf

from skipnet_tf.sources import DatasetInfo
from skipnet_tf.sources import expect
from skipnet_tf.sources import open_split
from skipnet_tf.sources import preprocessing_of

# The order of the examples and their augmentation draw from different seeds.
_ORDER = 0
_AUGMENTATION = 1


def describe(
    name: str, split: str, data_dir: str | None = None, download: bool = False
) -> DatasetInfo:
    """Counts and names what a split holds, without reading its images.

    Args:
        name: String, see `load`.
        split: String, see `load`.
        data_dir: String, see `load`. Defaults to `None`.
        download: Boolean, see `load`. Defaults to `False`.

    Returns:
        A `DatasetInfo`.

    Raises:
        ValueError: If there is no such data set or split.
    """
    return open_split(name, split, data_dir, download, (0, 1)).info


def load(
    name: str,
    split: str,
    *,
    batch_size: int,
    training: bool = False,
    seed: int | None = 0,
    epochs: int = 1,
    first_step: int = 0,
    data_dir: str | None = None,
    download: bool = False,
    shard: tuple[int, int] = (0, 1),
    threads: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Makes the batches of one split.

    Args:
        name: String: `"digits"` (scikit-learn's), `"image_folder"` (the tree
            `data_dir/split/class/file`) or a TFDS builder with the features
            "image" and "label", such as `"cifar10"` or `"imagenet2012"`.
        split: String in TFDS's notation, such as `"train[:90%]"`.
        batch_size: Int, images per batch.
        training: Boolean.  If true, examples are shuffled and augmented, and
            those that do not fill a batch at the end of an epoch are left
            out; if false, they come in order. Defaults to `False`.
        seed: Int from 0 to 2**31 - 1, or `None` for an order that differs
            each time. Defaults to `0`.
        epochs: Int, passes over the examples; 1 unless training. Defaults
            to `1`.
        first_step: Int, batches left out at the beginning, counted over all
            epochs. Defaults to `0`.
        data_dir: String, folder of prepared TFDS data sets or root of the
            image folder. Defaults to the environment's `TFDS_DATA_DIR` or
            `~/tensorflow_datasets`.
        download: Boolean, whether to download what is missing. Defaults to
            `False`: the network is not used.
        shard: Pair of ints `(index, count)`, the part of the examples to
            read. Defaults to `(0, 1)`, all.
        threads: Int, threads that prepare batches. Defaults to
            `tf.data.AUTOTUNE`.

    Returns:
        A finite `tf.data.Dataset` of `(images, labels)`: float32
        `(batch, height, width, 3)`, normalised, and int32 `(batch,)`.

    Raises:
        ValueError: If an argument has no sense, or there is no such data.
    """
    _check(batch_size, training, seed, epochs, shard)
    recipe = preprocessing_of(name)
    source = open_split(name, split, data_dir, download, shard)
    steps = _count_steps(source.info, batch_size, training)
    expect(
        0 <= first_step <= epochs * steps,
        f"`first_step` expected an int from 0 to {epochs * steps} steps",
        first_step,
    )
    number = secrets.randbelow(2**31) if seed is None else seed
    augmentation = tf.constant([number, _AUGMENTATION])
    if recipe.augmentation == "resized_crop":
        to_batches = _photographs(source, recipe, augmentation, threads)
    else:
        source, to_batches = _in_memory(source, recipe, augmentation, threads)
    if training:
        order = tf.constant([number, _ORDER])
        examples = _shuffled(
            source, order, steps * batch_size, epochs, first_step * batch_size
        )
    else:
        examples = source.examples(None).skip(first_step * batch_size)
    batches = to_batches(examples, batch_size, training, first_step)
    length = tf.data.experimental.assert_cardinality(
        epochs * steps - first_step
    )
    return (
        batches.apply(length).with_options(_options(seed, threads)).prefetch(2)
    )


def _options(seed, threads):
    options = tf.data.Options()
    options.deterministic = seed is not None
    # By file, some of the workers of a strategy could find nothing to read.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    if threads > 0:
        options.threading.private_threadpool_size = threads
    return options


def _check(batch_size, training, seed, epochs, shard):
    expect(batch_size >= 1, "`batch_size` expected a positive int", batch_size)
    expect(
        epochs == 1 or (training and epochs > 1),
        "`epochs` expected a positive int, 1 unless training",
        epochs,
    )
    expect(
        seed is None or 0 <= seed < 2**31,
        "`seed` expected an int from 0 to 2**31 - 1, or None",
        seed,
    )
    expect(
        0 <= shard[0] < shard[1],
        "`shard` expected (index, count) with 0 <= index < count",
        shard,
    )


def _count_steps(info, batch_size, training):
    if not training:
        return -(-info.num_examples // batch_size)
    expect(
        batch_size <= info.num_examples,
        "`batch_size` expected at most the number of examples, "
        f"{info.num_examples}",
        batch_size,
    )
    return info.num_examples // batch_size


def _shuffled(source, seed, per_epoch, epochs, first_example):
    first_epoch, skipped = divmod(first_example, per_epoch)

    @tf.autograph.experimental.do_not_convert
    def one_epoch(epoch):
        # Inside this graph only: otherwise `shuffle` would combine its seed
        # with the global one, and the order would depend on both.
        tf.random.set_seed(1)
        number = tf.random.stateless_uniform(
            (), tf.random.fold_in(seed, epoch), 1, 2**62, tf.int64
        )
        examples = source.examples(number).shuffle(
            source.buffer, seed=number, reshuffle_each_iteration=False
        )
        skip = tf.where(epoch == first_epoch, skipped, 0)
        return examples.take(per_epoch).skip(tf.cast(skip, tf.int64))

    return tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch)


def _photographs(source, recipe, seed, threads):
    def to_batches(examples, batch_size, training, first_step):
        def decode(position, example):
            encoded = source.read(example[0])
            if not training:
                return recipe.decode(encoded), example[1]
            own_seed = tf.random.fold_in(seed, position)
            return recipe.decode_training(encoded, own_seed), example[1]

        return (
            examples.enumerate(first_step * batch_size)
            .map(decode, num_parallel_calls=threads)
            .batch(batch_size, drop_remainder=training)
            .map(lambda images, labels: (recipe.normalise(images), labels))
        )

    return to_batches


def _in_memory(source, recipe, seed, threads):
    def decode(image, label):
        if image.dtype == tf.string:
            image = recipe.decode(source.read(image))
        return image, label

    count = source.info.num_examples
    examples = source.examples(None).map(decode, num_parallel_calls=threads)
    images, labels = examples.batch(count).get_single_element()
    expect(
        tf.reduce_all((labels >= 0) & (labels < source.info.num_classes)),
        f"`name` expected labels from 0 to {source.info.num_classes - 1}",
        sorted(set(labels.numpy().tolist())),
    )

    def to_batches(positions, batch_size, training, first_step):
        def gather(step, position):
            batch = tf.gather(images, position)
            if training:
                batch = recipe.augment(batch, tf.random.fold_in(seed, step))
            return recipe.normalise(batch), tf.gather(labels, position)

        positions = positions.batch(batch_size, drop_remainder=training)
        return positions.enumerate(first_step).map(
            gather, num_parallel_calls=threads
        )

    positions = tf.data.Dataset.range(count)
    source = dataclasses.replace(
        source, examples=lambda seed: positions, buffer=count
    )
    return source, to_batches
