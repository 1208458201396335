"""Batches of normalised images from TFDS, files and the demo's digits.

The order of the training examples and their augmentation are functions of
the seed, the epoch and the position alone: `load(..., first_step=k)` yields
what the uninterrupted data set yields from step `k` on, bit for bit.

Small images are decoded once and kept in memory, where a batch is one
gather.  Photographs stay encoded until they are needed.
"""

import dataclasses
import secrets

import tensorflow as tf

from skipnet_tf import input_service
from skipnet_tf import photographs
from skipnet_tf.files import expect
from skipnet_tf.photographs import corrupt_images
from skipnet_tf.sources import DatasetInfo
from skipnet_tf.sources import open_split
from skipnet_tf.sources import preprocessing_of

# The order of the examples and their augmentation draw from different seeds.
_ORDER = 0
_AUGMENTATION = 1

_ON_CORRUPT = {
    "skip": photographs.skip_corrupt,
    "fail": photographs.refuse_corrupt,
}

__all__ = [
    "DatasetInfo",
    "corrupt_images",
    "describe",
    "load",
    "preprocessing_of",
]


def describe(
    name: str,
    split: str,
    data_dir: str | None = None,
    download: bool = False,
    image_size: int | None = None,
) -> DatasetInfo:
    """Counts and names what a split holds, without reading its images.

    Args:
        name: String, see `load`.
        split: String, see `load`.
        data_dir: String, see `load`. Defaults to `None`.
        download: Boolean, see `load`. Defaults to `False`.
        image_size: Int, see `load`. Defaults to `None`.

    Returns:
        A `DatasetInfo`.

    Raises:
        ValueError: If there is no such data set or split.
    """
    recipe = preprocessing_of(name, image_size)
    return open_split(recipe, split, data_dir, download, (0, 1)).info


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
    image_size: int | None = None,
    normalization: str | None = None,
    corrupt: str = "skip",
    service: str | None = None,
) -> tf.data.Dataset:
    """Makes the batches of one split.

    Args:
        name: String: `"digits"` (scikit-learn's), `"image_folder"` (the tree
            `data_dir/split/class/file`), `"tfrecords"` (the files
            `data_dir/split-*` in the classic ImageNet layout, with an index
            that `trainers/index_tfrecords.py` writes) or a TFDS builder with
            the features "image" and "label", such as `"cifar10"` or
            `"imagenet2012"`.
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
        data_dir: String, folder of prepared TFDS data sets, root of the
            image folder or folder of the TFRecord files. Defaults to the
            environment's `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        download: Boolean, whether to download what is missing. Defaults to
            `False`: the network is not used.
        shard: Pair of ints `(index, count)`, the part of the examples to
            read.  In training, all shards have the same number of steps, and
            augment differently. Defaults to `(0, 1)`, all.
        threads: Int, threads that prepare batches. Defaults to
            `tf.data.AUTOTUNE`.
        image_size: Positive int, height and width of the network input in
            pixels.  Photographs alone can be given another than their data
            set's. Defaults to `None`, 224 for photographs.
        normalization: String, the data set whose mean and standard deviation
            are used, such as `"imagenet2012"` for weights that were trained
            so. Defaults to `None`, its own.
        corrupt: String, what happens to photographs that cannot be decoded:
            `"skip"` puts the one before it in its place in training, leaves
            it out at evaluation, and names it in `corrupt_images`; `"fail"`
            is an error that names it. Defaults to `"skip"`.
        service: String, address of the dispatcher of a tf.data service,
            `"grpc://host:port"`, whose workers prepare the training batches
            of photographs.  Each image then comes about once per epoch, in
            an order that is no function of the seed; corrupt ones are named
            in the workers' logs.  The workers do not remember what they
            prepared: from `first_step` on, a new order of all images begins.
            Defaults to `None`: this process does.

    Returns:
        A finite `tf.data.Dataset` of `(images, labels)`: float32
        `(batch, height, width, 3)`, normalised, and int32 `(batch,)`.

    Raises:
        ValueError: If an argument has no sense, or there is no such data.
    """
    _check(batch_size, training, seed, epochs, shard, corrupt)
    recipe = preprocessing_of(name, image_size, normalization)
    if service is not None:
        _check_service(service, recipe, training)
    source = open_split(recipe, split, data_dir, download, shard)
    steps = _count_steps(source, batch_size, training, shard[1])
    expect(
        0 <= first_step <= epochs * steps,
        f"`first_step` expected an int from 0 to {epochs * steps} steps",
        first_step,
    )
    number = secrets.randbelow(2**31) if seed is None else seed
    augmentation = _augmentation_seed(number, shard)
    if recipe.augmentation == "resized_crop":
        on_corrupt = _handler(corrupt, service)
        to_batches = _photographs(
            source, recipe, augmentation, threads, on_corrupt
        )
    else:
        source, to_batches = _in_memory(source, recipe, augmentation, threads)
    skipped, left = first_step * batch_size, epochs * steps - first_step
    if service is not None:
        examples = _endless(source, _order_seed(number, first_step))
    elif training:
        per_epoch = steps * batch_size
        examples = _shuffled(source, number, per_epoch, epochs, skipped)
    else:
        examples = source.examples(None).skip(skipped)
    batches = to_batches(examples, batch_size, training, first_step)
    if service is not None:
        batches = input_service.distribute(batches, service, left)
    # Last, on this host: pixels are a quarter of what floats are.
    return (
        batches.map(
            lambda images, labels: (recipe.normalise(images), labels),
            num_parallel_calls=threads,
        )
        .apply(tf.data.experimental.assert_cardinality(left))
        .with_options(_options(seed, threads))
        .prefetch(2)
    )


def _augmentation_seed(number, shard):
    seed = tf.constant([number, _AUGMENTATION])
    return seed if shard[1] == 1 else tf.random.fold_in(seed, shard[0])


def _order_seed(number, place):
    seed = tf.random.fold_in(tf.constant([number, _ORDER]), place)
    return tf.random.stateless_uniform((), seed, 1, 2**62, tf.int64)


def _handler(corrupt, service):
    """What happens to corrupt images; Python stays in this process."""
    if corrupt == "skip" and service is not None:
        return photographs.print_corrupt
    return _ON_CORRUPT[corrupt]


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


def _check(batch_size, training, seed, epochs, shard, corrupt):
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
    expect(
        corrupt in _ON_CORRUPT,
        f"`corrupt` expected one of {sorted(_ON_CORRUPT)}",
        corrupt,
    )


def _check_service(service, recipe, training):
    expect(
        training and recipe.augmentation == "resized_crop",
        "`service` expected None unless training with photographs; small "
        "images are in memory",
        service,
    )
    input_service.check(service)


def _count_steps(source, batch_size, training, shards):
    if not training:
        return -(-source.size // batch_size)
    # Of shards that differ by one example, the larger ones leave one out.
    num_examples = source.info.num_examples // shards
    expect(
        batch_size <= num_examples,
        f"`batch_size` expected at most the number of examples, {num_examples}",
        batch_size,
    )
    return num_examples // batch_size


def _shuffled(source, number, per_epoch, epochs, first_example):
    first_epoch, skipped = divmod(first_example, per_epoch)

    @tf.autograph.experimental.do_not_convert
    def one_epoch(epoch):
        # Inside this graph only: otherwise `shuffle` would combine its seed
        # with the global one, and the order would depend on both.
        tf.random.set_seed(1)
        seed = _order_seed(number, epoch)
        examples = source.examples(seed).shuffle(
            source.buffer, seed=seed, reshuffle_each_iteration=False
        )
        skip = tf.where(epoch == first_epoch, skipped, 0)
        return examples.take(per_epoch).skip(tf.cast(skip, tf.int64))

    return tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch)


def _endless(source, seed):
    # Workers batch what they are dealt and drop the rest: epochs of a fixed
    # number of batches would lack some.
    return (
        source.examples(seed)
        .shuffle(source.buffer, seed=seed, reshuffle_each_iteration=True)
        .repeat()
    )


def _photographs(source, recipe, seed, threads, on_corrupt):
    def to_batches(examples, batch_size, training, first_step):
        def augmented(decode):
            return lambda encoded, position: decode(
                encoded, tf.random.fold_in(seed, position)
            )

        if training:
            fast = augmented(recipe.decode_training_jpeg)
            decode = augmented(recipe.decode_training)
        else:
            fast = decode = lambda encoded, position: recipe.decode(encoded)

        def read(position, example):
            image, label, name = example
            return position, (source.read(image), label, name)

        return photographs.to_batches(
            examples.enumerate(first_step * batch_size).map(
                read, num_parallel_calls=threads
            ),
            fast,
            decode,
            num_classes=source.info.num_classes,
            batch_size=batch_size,
            training=training,
            threads=threads,
            on_corrupt=on_corrupt,
        )

    return to_batches


def _in_memory(source, recipe, seed, threads):
    def decode(image, label, name):
        if image.dtype == tf.string:
            image = recipe.decode(source.read(image))
        return image, label

    count = source.size
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
            return batch, tf.gather(labels, position)

        positions = positions.batch(batch_size, drop_remainder=training)
        return positions.enumerate(first_step).map(
            gather, num_parallel_calls=threads
        )

    positions = tf.data.Dataset.range(count)
    source = dataclasses.replace(
        source, examples=lambda seed: positions, buffer=count
    )
    return source, to_batches
