"""TFRecord files and image folders: what they hold, and their mistakes."""

import json

import numpy as np
import pytest
import tensorflow as tf
from photograph_cases import SIZE
from photograph_cases import jpeg
from photograph_cases import load
from photograph_cases import numbers_of
from photograph_cases import write_folder
from photograph_cases import write_records

from skipnet_tf import data
from skipnet_tf import files
from skipnet_tf import preprocessing


def test_training_and_evaluation_do_what_the_preprocessing_says(sound):
    recipe = data.preprocessing_of("tfrecords", SIZE, "cifar10")
    ((images, _),) = load(
        sound, name="tfrecords", batch_size=10, normalization="cifar10"
    )
    expected = [recipe.decode(jpeg(10 * number)) for number in range(10)]
    expected = recipe.normalise(tf.stack(expected))
    np.testing.assert_array_equal(images, expected)
    # 50 / 255, the mean and deviation of CIFAR-10's red.
    red = (50 / 255 - 0.4914) / 0.2023
    np.testing.assert_allclose(images[5, ..., 0], red, atol=0.03)


def test_records_are_described_by_their_index(sound):
    info = data.describe("tfrecords", "train[:90%]", str(sound), image_size=9)
    assert (info.num_examples, info.num_classes) == (9, 10)
    assert info.class_names[0] == "class 0"
    assert info.image_shape == (9, 9, 3)
    written = json.loads((sound / "index.json").read_text())
    counts = written["splits"]["train"]["files"]
    assert list(counts.values()) == [4, 3, 3]
    assert not list(sound.glob("*.tmp"))


def test_slices_of_records_hold_what_they_say(sound):
    dataset = data.load(
        "tfrecords",
        "train[2:5]+train[90%:]+train[:1]",
        batch_size=10,
        data_dir=str(sound),
        image_size=SIZE,
    )
    ((images, labels),) = dataset.as_numpy_iterator()
    assert numbers_of(images) == labels.tolist() == [2, 3, 4, 9, 0]


def test_sums_of_slices_of_records_are_cut_as_one(sound):
    # 5 and 3 examples, which cut one by one give 3 + 2 and 2 + 1.
    parts = [
        data.load(
            "tfrecords",
            "train[5:]+train[:3]",
            batch_size=8,
            shard=(index, 2),
            data_dir=str(sound),
            image_size=SIZE,
        )
        for index in range(2)
    ]
    found = [
        [n for _, labels in part for n in labels.numpy()] for part in parts
    ]
    assert found == [[5, 6, 7, 8], [9, 0, 1, 2]]


def test_epochs_of_records_are_whole_and_differ(sound):
    dataset = load(sound, name="tfrecords", training=True, epochs=2)
    numbers = [n for _, labels in dataset for n in labels.numpy()]
    assert sorted(numbers[:10]) == sorted(numbers[10:]) == list(range(10))
    # Equal by chance once in 10! times.
    assert numbers[:10] != numbers[10:]


def test_labels_outside_the_classes_are_an_error_that_says_where(tmp_path):
    labels = [*range(1, 10), 11]
    write_records(tmp_path, lambda number: jpeg(10), labels)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"0 to 9.*\[10\].*record 2"
    ):
        list(load(tmp_path, name="tfrecords"))


def test_records_without_an_index_name_the_command(tmp_path, sound):
    with pytest.raises(ValueError, match="index_tfrecords.py"):
        load(tmp_path, name="tfrecords")
    (tmp_path / "index.json").write_text((sound / "index.json").read_text())
    with pytest.raises(ValueError, match="missing:.*train-00000-of-00003"):
        load(tmp_path, name="tfrecords")
    with pytest.raises(ValueError, match="`data_dir`.*Received: None"):
        data.describe("tfrecords", "train")


def test_indexing_refuses_what_is_not_whole(tmp_path):
    with pytest.raises(ValueError, match="train-00000-of-01024"):
        files.index_records(str(tmp_path), ["a"])
    path = tmp_path / "train-00000-of-00002"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"record")
    with pytest.raises(ValueError, match="2 files of 'train'. Received: 1"):
        files.index_records(str(tmp_path), ["a"])
    path.rename(tmp_path / "train-00000-of-00001")
    (tmp_path / "train-00000-of-00001").write_bytes(b"0123456789abcdefghij")
    with pytest.raises(ValueError, match="whole TFRecord files"):
        files.index_records(str(tmp_path), ["a"])


def test_folders_of_splits_must_have_the_same_classes(tmp_path):
    write_folder(tmp_path, lambda number: jpeg(0))
    write_folder(tmp_path, lambda number: jpeg(0), split="val")
    # Neither hidden folders nor those without images are splits.
    (tmp_path / "train" / ".thumbnails").mkdir()
    (tmp_path / "devkit" / "data").mkdir(parents=True)
    info = data.describe("image_folder", "train+val", str(tmp_path))
    assert (info.num_examples, info.class_names) == (20, ("cat", "dog"))
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "cats")
    files.list_folder.cache_clear()
    with pytest.raises(ValueError, match=r"'train' and 'val'.*'cat', 'cats'"):
        data.describe("image_folder", "val", str(tmp_path))


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    write_folder(tmp_path, lambda number: jpeg(0))
    listed, listdir = [], tf.io.gfile.listdir

    def counted(path):
        listed.append(path)
        return listdir(path)

    monkeypatch.setattr(tf.io.gfile, "listdir", counted)
    for split in ("train", "train[:50%]"):
        data.describe("image_folder", split, str(tmp_path))
    assert len(load(tmp_path)) == 2
    # The root, the split and two classes.
    assert len(listed) == len(set(listed)) == 4


def test_sizes_and_normalizations_without_sense_are_refused(folder):
    with pytest.raises(ValueError, match="`image_size`.*32 or None.*: 64"):
        data.preprocessing_of("cifar10", image_size=64)
    with pytest.raises(ValueError, match="`image_size`.*positive.*: 0"):
        load(folder, image_size=0)
    with pytest.raises(ValueError, match="`normalization`.*'mnist'"):
        load(folder, normalization="mnist")
    small = data.preprocessing_of("cifar10", 32, "imagenet2012")
    assert small.mean == preprocessing.IMAGENET.mean
    assert (small.size, small.augmentation) == (32, "crop_flip")


def test_training_shards_have_equal_steps_and_augment_differently(sound):
    parts, seen = [], []
    for index in (0, 2):
        dataset = load(
            sound,
            name="tfrecords",
            batch_size=1,
            training=True,
            shard=(index, 3),
        )
        parts.append(len(dataset))
        seen += [labels.item() for _, labels in dataset.as_numpy_iterator()]
    # 10 // 3; the first shard holds 4 and leaves one out.
    assert parts == [3, 3]
    assert len(set(seen)) == 6
    digits = dict(batch_size=1, training=True, epochs=40)
    first, second = (
        data.load("digits", "train[:2]", shard=(index, 2), **digits)
        for index in range(2)
    )
    # Where the image of one stands in its window, by its bounding box.
    assert _boxes(first) != _boxes(second)


def _boxes(dataset):
    return [
        tuple(np.argwhere(images[0, ..., 0] > 0).min(axis=0))
        for images, _ in dataset.as_numpy_iterator()
    ]
