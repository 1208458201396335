"""Ten tiny photographs, in folders and in TFRecord files."""

import numpy as np
import tensorflow as tf

from skipnet_tf import data
from skipnet_tf import files
from skipnet_tf import preprocessing

SIZE = 16
RECIPE = preprocessing.IMAGENET


def jpeg(level):
    """A JPEG of one grey level."""
    return tf.io.encode_jpeg(np.full((20, 24, 3), level, np.uint8)).numpy()


def _png(level):
    return tf.io.encode_png(np.full((20, 24, 3), level, np.uint8)).numpy()


# Of the ten; image 7 is a PNG with the wrong suffix, which is fine.
CORRUPT = (3, 5, 6)


def photograph(number):
    """The file of image 0 to 9, corrupt or not."""
    if number == 7:
        return _png(10 * number)
    corrupt = {3: jpeg(30)[:200], 5: b"Not found", 6: b""}
    return corrupt.get(number, jpeg(10 * number))


def numbers_of(images):
    """The number of each image, from its level."""
    pixels = images[:, 4, 4, 0] * RECIPE.std[0] + RECIPE.mean[0]
    return np.round(pixels * 25.5).astype(int).tolist()


def load(folder, **changed):
    """Loads the split `train` of an image folder, or as told otherwise."""
    arguments = {"batch_size": 5, "image_size": SIZE, **changed}
    name = arguments.pop("name", "image_folder")
    return data.load(name, "train", data_dir=str(folder), **arguments)


def write_folder(root, encoded, split="train"):
    """Writes ten photographs, `encoded(number)`, as cats and dogs in turn."""
    for number in range(10):
        parent = root / split / ("cat" if number % 2 else "dog")
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{number}.jpg").write_bytes(encoded(number))
    return root


def write_records(root, encoded, labels=range(1, 11), files_of=(4, 3, 3)):
    """Writes ten photographs, `encoded(number)`, as TFRecord files."""
    numbers = iter(range(10))
    for index, count in enumerate(files_of):
        path = root / f"train-{index:05}-of-{len(files_of):05}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in (next(numbers) for _ in range(count)):
                writer.write(_example(encoded(number), labels[number]))
    names = [f"class {number}" for number in range(10)]
    files.write_index(str(root), files.index_records(str(root), names))
    return root


def _example(encoded, label):
    feature = {
        "image/encoded": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[encoded])
        ),
        "image/class/label": tf.train.Feature(
            int64_list=tf.train.Int64List(value=[label])
        ),
    }
    features = tf.train.Features(feature=feature)
    return tf.train.Example(features=features).SerializeToString()
