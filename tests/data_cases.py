"""Tiny prepared data sets and image folders."""

import os

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info

from skipnet_tf import preprocessing


def write(root, name, features, splits, version="1.0.0", per_file=8):
    """Writes a prepared TFDS data set of several files."""
    folder = os.path.join(root, name, version)
    os.makedirs(folder)
    identity = dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(version),
        data_dir=folder,
        module_name="tests",
    )
    writer = tfds.core.SequentialWriter(
        ds_info=tfds.core.DatasetInfo(
            builder=identity, features=tfds.features.FeaturesDict(features)
        ),
        max_examples_per_shard=per_file,
    )
    writer.initialize_splits(list(splits))
    writer.add_examples(splits)
    writer.close_all()


def features(size, num_classes):
    """What is in a data set for classification."""
    return {
        "image": tfds.features.Image(shape=(size, size, 3)),
        "label": tfds.features.ClassLabel(num_classes=num_classes),
    }


def plain(size, numbers, num_classes=10):
    """Images of one grey level, which is their number."""
    return [
        {
            "image": np.full((size, size, 3), number, np.uint8),
            "label": number % num_classes,
        }
        for number in numbers
    ]


def write_prepared(root):
    """Writes a tiny CIFAR-10, SVHN and a data set of photographs."""
    ten = features(32, 10)
    splits = {"train": plain(32, range(30)), "test": plain(32, range(7))}
    write(root, "cifar10", ten, splits)
    splits = {"train": plain(32, range(9)), "extra": plain(32, range(9, 20))}
    write(root, "svhn_cropped", ten, splits)
    generator = np.random.default_rng(0)
    photographs = [
        {
            "image": generator.integers(0, 256, (40, 40, 3), dtype=np.uint8),
            "label": number % 4,
        }
        for number in range(30)
    ]
    write(root, "flowers", features(40, 4), {"train": photographs})


def levels_of(recipe, images):
    """The grey level of every image of one grey level."""
    pixels = images[:, 4, 4, 0] * recipe.std[0] + recipe.mean[0]
    return np.round(pixels * 255).astype(int).tolist()


def numbers_of(dataset, recipe=preprocessing.SVHN):
    """The number of every image of a data set of such images."""
    levels = []
    for images, _ in dataset.as_numpy_iterator():
        levels += levels_of(recipe, images)
    return levels
