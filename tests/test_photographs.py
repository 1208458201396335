"""Corrupt files among photographs."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from photograph_cases import CORRUPT
from photograph_cases import SIZE
from photograph_cases import jpeg
from photograph_cases import load
from photograph_cases import numbers_of
from photograph_cases import photograph
from photograph_cases import write_folder
from photograph_cases import write_records

from skipnet_tf import photographs


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The same ten, in three files, each in a class of its own."""
    return write_records(tmp_path_factory.mktemp("records"), photograph)


@pytest.fixture
def found(monkeypatch):
    """The corrupt images of this test alone."""
    found = photographs.CorruptImages()
    monkeypatch.setattr(photographs, "corrupt_images", found)
    return found


@pytest.mark.parametrize("name", ["image_folder", "tfrecords"])
def test_evaluation_leaves_out_what_it_cannot_decode(
    name, folder, records, found, caplog
):
    root = folder if name == "image_folder" else records
    dataset = load(root, name=name)
    with caplog.at_level(logging.WARNING):
        batches = [
            (numbers_of(images), labels.tolist())
            for _ in range(2)
            for images, labels in dataset.as_numpy_iterator()
        ]
    numbers = sum((numbers for numbers, _ in batches), [])
    labels = sum((labels for _, labels in batches), [])
    assert sorted(numbers[:7]) == [0, 1, 2, 4, 7, 8, 9]
    assert len(batches) == 2 * len(dataset) == 4
    # Cats, class 0, are odd in the folder.
    expected = [1 - n % 2 for n in numbers]
    assert labels == (expected if name == "image_folder" else numbers)
    # Once each, although they were met twice.
    assert len(caplog.records) == len(found.names) == 3
    for name_ in found.names:
        assert str(root) in name_ and name_ in caplog.text
    assert found.summary().startswith("3 corrupt images skipped: ")


def test_records_are_named_by_file_and_number(records, found):
    list(load(records, name="tfrecords"))
    # Files of 4, 3 and 3: image 3 ends the first, 5 and 6 the second.
    ends = ["00000-of-00003, record 3"]
    ends += [f"00001-of-00003, record {number}" for number in (1, 2)]
    assert sorted(name[-24:] for name in found.names) == sorted(ends)


def test_training_repeats_the_row_before_a_corrupt_one(records, sound, found):
    dataset = load(records, name="tfrecords", training=True, epochs=3)
    assert len(dataset) == 6
    sequence = []
    for images, labels in dataset.as_numpy_iterator():
        assert images.shape == (5, SIZE, SIZE, 3)
        assert labels.tolist() == numbers_of(images)
        sequence += labels.tolist()
    for epoch in range(3):
        part = sequence[10 * epoch :][:10]
        assert set(part) == {0, 1, 2, 4, 7, 8, 9}
    assert len(found.names) == 3
    # What stood where, from the order of ten sound images.
    dataset = load(sound, name="tfrecords", training=True, epochs=3)
    for _, labels in dataset.as_numpy_iterator():
        for row, number in enumerate(labels):
            while number in CORRUPT:
                row = (row - 1) % 5
                number = labels[row]
            assert sequence.pop(0) == number


@pytest.mark.parametrize(
    "rows, training, expected",
    [
        # Rows 1, 2 and 4 of six remain: 0 takes the last one, cyclically.
        ([1, 2, 4], True, [4, 1, 2, 2, 4, 4]),
        ([0, 1, 2, 3, 4], True, [0, 1, 2, 3, 4, 4]),
        ([3], True, [3] * 6),
        ([1, 2, 4], False, [1, 2, 4]),
    ],
)
def test_places_of_corrupt_rows(rows, training, expected):
    rows = tf.constant(rows, tf.int64)
    count = tf.constant(6, tf.int64)
    places = photographs._places(rows, count, training)
    np.testing.assert_array_equal(tf.gather(rows, places), expected)


@pytest.mark.parametrize("name", ["image_folder", "tfrecords"])
def test_resuming_with_corrupt_files_is_exact(name, folder, records, found):
    root = folder if name == "image_folder" else records
    # Two batches of four an epoch: two examples of ten are left out.
    arguments = dict(name=name, batch_size=4, training=True, epochs=2, seed=4)
    whole = list(load(root, **arguments).as_numpy_iterator())
    rest = load(root, first_step=1, **arguments)
    rest = list(rest.as_numpy_iterator())
    assert len(rest) == 3
    for (images, labels), (others, other_labels) in zip(rest, whole[1:]):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)


def test_corrupt_images_fail_by_name_on_request(folder, found):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"cannot be decoded.*[356].jpg"
    ):
        list(load(folder, corrupt="fail"))
    assert found.names == [] and found.summary() == ""
    with pytest.raises(ValueError, match="`corrupt`.*Received: 'ignore'"):
        load(folder, corrupt="ignore")


def test_a_batch_without_any_image_is_an_error(tmp_path, found):
    write_folder(tmp_path, lambda number: b"text")
    with pytest.raises(tf.errors.InvalidArgumentError, match="no image"):
        list(load(tmp_path, training=True))


def test_a_file_that_vanished_is_no_corrupt_one(tmp_path, found):
    write_folder(tmp_path, lambda number: jpeg(10 * number))
    dataset = load(tmp_path)
    (tmp_path / "train" / "cat" / "3.jpg").unlink()
    with pytest.raises(tf.errors.NotFoundError):
        list(dataset)
    assert found.names == []


def test_long_summaries_end_in_dots():
    found = photographs.CorruptImages()
    found.add([f"{number}.jpg".encode() for number in range(12)])
    assert found.summary().startswith("12 corrupt images skipped: 0.jpg, 1")
    assert found.summary().endswith(", 9.jpg, ...")
