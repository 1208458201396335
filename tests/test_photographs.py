"""Corrupt files, TFRecords and tf.data services."""

import json
import logging
import socket
import threading

import numpy as np
import pytest
import tensorflow as tf

from skipnet_tf import data
from skipnet_tf import files
from skipnet_tf import input_service
from skipnet_tf import photographs
from skipnet_tf import preprocessing

_SIZE = 16
_RECIPE = preprocessing.IMAGENET


def _jpeg(level):
    return tf.io.encode_jpeg(np.full((20, 24, 3), level, np.uint8)).numpy()


def _png(level):
    return tf.io.encode_png(np.full((20, 24, 3), level, np.uint8)).numpy()


# What stands in a file instead of image 3, 5 and 6 of the ten; image 7 is a
# PNG with the wrong suffix, which is fine.
_CORRUPT = {3: _jpeg(30)[:200], 5: b"Not found", 6: b""}


def _encoded(number):
    if number == 7:
        return _png(10 * number)
    return _CORRUPT.get(number, _jpeg(10 * number))


def _numbers(images):
    """The number of each image, from its level."""
    pixels = images[:, 4, 4, 0] * _RECIPE.std[0] + _RECIPE.mean[0]
    return np.round(pixels * 25.5).astype(int).tolist()


def _load(folder, **changed):
    arguments = {"batch_size": 5, "image_size": _SIZE, **changed}
    name = arguments.pop("name", "image_folder")
    return data.load(name, "train", data_dir=str(folder), **arguments)


def _write_folder(root, encoded, split="train"):
    for number in range(10):
        parent = root / split / ("cat" if number % 2 else "dog")
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{number}.jpg").write_bytes(encoded(number))
    return root


def _write_records(root, encoded, labels=range(1, 11), files_of=(4, 3, 3)):
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten photographs of which three cannot be decoded."""
    return _write_folder(tmp_path_factory.mktemp("folder"), _encoded)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The same ten, in three files, each in a class of its own."""
    return _write_records(tmp_path_factory.mktemp("records"), _encoded)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Ten photographs in three files, nothing wrong with them."""
    root = tmp_path_factory.mktemp("sound")
    return _write_records(root, lambda number: _jpeg(10 * number))


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
    dataset = _load(root, name=name)
    with caplog.at_level(logging.WARNING):
        batches = [
            (_numbers(images), labels.tolist())
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
    list(_load(records, name="tfrecords"))
    # Files of 4, 3 and 3: image 3 ends the first, 5 and 6 the second.
    ends = ["00000-of-00003, record 3"]
    ends += [f"00001-of-00003, record {number}" for number in (1, 2)]
    assert sorted(name[-24:] for name in found.names) == sorted(ends)


def test_training_repeats_the_row_before_a_corrupt_one(records, sound, found):
    dataset = _load(records, name="tfrecords", training=True, epochs=3)
    assert len(dataset) == 6
    sequence = []
    for images, labels in dataset.as_numpy_iterator():
        assert images.shape == (5, _SIZE, _SIZE, 3)
        assert labels.tolist() == _numbers(images)
        sequence += labels.tolist()
    for epoch in range(3):
        part = sequence[10 * epoch :][:10]
        assert set(part) == {0, 1, 2, 4, 7, 8, 9}
    assert len(found.names) == 3
    # What stood where, from the order of ten sound images.
    dataset = _load(sound, name="tfrecords", training=True, epochs=3)
    for _, labels in dataset.as_numpy_iterator():
        for row, number in enumerate(labels):
            while number in _CORRUPT:
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
    whole = list(_load(root, **arguments).as_numpy_iterator())
    rest = _load(root, first_step=1, **arguments)
    rest = list(rest.as_numpy_iterator())
    assert len(rest) == 3
    for (images, labels), (others, other_labels) in zip(rest, whole[1:]):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)


def test_corrupt_images_fail_by_name_on_request(folder, found):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"cannot be decoded.*[356].jpg"
    ):
        list(_load(folder, corrupt="fail"))
    assert found.names == [] and found.summary() == ""
    with pytest.raises(ValueError, match="`corrupt`.*Received: 'ignore'"):
        _load(folder, corrupt="ignore")


def test_a_batch_without_any_image_is_an_error(tmp_path, found):
    _write_folder(tmp_path, lambda number: b"text")
    with pytest.raises(tf.errors.InvalidArgumentError, match="no image"):
        list(_load(tmp_path, training=True))


def test_a_file_that_vanished_is_no_corrupt_one(tmp_path, found):
    _write_folder(tmp_path, lambda number: _jpeg(10 * number))
    dataset = _load(tmp_path)
    (tmp_path / "train" / "cat" / "3.jpg").unlink()
    with pytest.raises(tf.errors.NotFoundError):
        list(dataset)
    assert found.names == []


def test_long_summaries_end_in_dots():
    found = photographs.CorruptImages()
    found.add([f"{number}.jpg".encode() for number in range(12)])
    assert found.summary().startswith("12 corrupt images skipped: 0.jpg, 1")
    assert found.summary().endswith(", 9.jpg, ...")


def test_training_and_evaluation_do_what_the_preprocessing_says(sound):
    recipe = data.preprocessing_of("tfrecords", _SIZE, "cifar10")
    ((images, _),) = _load(
        sound, name="tfrecords", batch_size=10, normalization="cifar10"
    )
    expected = [recipe.decode(_jpeg(10 * number)) for number in range(10)]
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
        image_size=_SIZE,
    )
    ((images, labels),) = dataset.as_numpy_iterator()
    assert _numbers(images) == labels.tolist() == [2, 3, 4, 9, 0]


def test_sums_of_slices_of_records_are_cut_as_one(sound):
    # 5 and 3 examples, which cut one by one give 3 + 2 and 2 + 1.
    parts = [
        data.load(
            "tfrecords",
            "train[5:]+train[:3]",
            batch_size=8,
            shard=(index, 2),
            data_dir=str(sound),
            image_size=_SIZE,
        )
        for index in range(2)
    ]
    found = [
        [n for _, labels in part for n in labels.numpy()] for part in parts
    ]
    assert found == [[5, 6, 7, 8], [9, 0, 1, 2]]


def test_epochs_of_records_are_whole_and_differ(sound):
    dataset = _load(sound, name="tfrecords", training=True, epochs=2)
    numbers = [n for _, labels in dataset for n in labels.numpy()]
    assert sorted(numbers[:10]) == sorted(numbers[10:]) == list(range(10))
    # Equal by chance once in 10! times.
    assert numbers[:10] != numbers[10:]


def test_labels_outside_the_classes_are_an_error_that_says_where(tmp_path):
    labels = [*range(1, 10), 11]
    _write_records(tmp_path, lambda number: _jpeg(10), labels)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"0 to 9.*\[10\].*record 2"
    ):
        list(_load(tmp_path, name="tfrecords"))


def test_records_without_an_index_name_the_command(tmp_path, sound):
    with pytest.raises(ValueError, match="index_tfrecords.py"):
        _load(tmp_path, name="tfrecords")
    (tmp_path / "index.json").write_text((sound / "index.json").read_text())
    with pytest.raises(ValueError, match="missing:.*train-00000-of-00003"):
        _load(tmp_path, name="tfrecords")
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
    _write_folder(tmp_path, lambda number: _jpeg(0))
    _write_folder(tmp_path, lambda number: _jpeg(0), split="val")
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
    _write_folder(tmp_path, lambda number: _jpeg(0))
    listed, listdir = [], tf.io.gfile.listdir

    def counted(path):
        listed.append(path)
        return listdir(path)

    monkeypatch.setattr(tf.io.gfile, "listdir", counted)
    for split in ("train", "train[:50%]"):
        data.describe("image_folder", split, str(tmp_path))
    assert len(_load(tmp_path)) == 2
    # The root, the split and two classes.
    assert len(listed) == len(set(listed)) == 4


def test_sizes_and_normalizations_without_sense_are_refused(folder):
    with pytest.raises(ValueError, match="`image_size`.*32 or None.*: 64"):
        data.preprocessing_of("cifar10", image_size=64)
    with pytest.raises(ValueError, match="`image_size`.*positive.*: 0"):
        _load(folder, image_size=0)
    with pytest.raises(ValueError, match="`normalization`.*'mnist'"):
        _load(folder, normalization="mnist")
    small = data.preprocessing_of("cifar10", 32, "imagenet2012")
    assert small.mean == preprocessing.IMAGENET.mean
    assert (small.size, small.augmentation) == (32, "crop_flip")


def test_training_shards_have_equal_steps_and_augment_differently(sound):
    parts, seen = [], []
    for index in (0, 2):
        dataset = _load(
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


def test_services_that_do_not_answer_are_one_sentence(folder):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        address = f"grpc://localhost:{taken.getsockname()[1]}"
    for service in (address, "grpc://localhost", "nonsense"):
        with pytest.raises(ValueError, match="`service`.*grpc://host:port"):
            _load(folder, training=True, service=service)
    for arguments in ({"training": False}, {"name": "digits"}):
        arguments = {"training": True, "service": address, **arguments}
        name = arguments.pop("name", "image_folder")
        with pytest.raises(ValueError, match="`service` expected None unless"):
            data.load(name, "train", batch_size=1, **arguments)


def test_servers_that_speak_no_grpc_are_refused(monkeypatch):
    monkeypatch.setattr(input_service, "_SECONDS_TO_ANSWER", 0.1)
    with socket.create_server(("localhost", 0)) as silent:
        address = f"grpc://localhost:{silent.getsockname()[1]}"
        with pytest.raises(ValueError, match=r"`service`.*\(timed out\)"):
            input_service.check(address)
    with socket.create_server(("localhost", 0)) as other:
        address = f"grpc://localhost:{other.getsockname()[1]}"

        def answer():
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ValueError, match="does not speak gRPC"):
            input_service.check(address)
        thread.join()


def test_dispatchers_are_known_by_their_answer():
    dispatcher = tf.data.experimental.service.DispatchServer()
    input_service.check(dispatcher.target)
    dispatcher._stop()


def test_a_resumed_service_begins_another_order(sound, monkeypatch):
    def here(batches, service, count):
        return batches.take(count)

    monkeypatch.setattr(input_service, "distribute", here)
    monkeypatch.setattr(input_service, "check", lambda service: None)

    def order(first_step):
        dataset = _load(
            sound,
            name="tfrecords",
            training=True,
            epochs=2,
            first_step=first_step,
            service="grpc://localhost:1",
        )
        assert len(dataset) == 4 - first_step
        return [n for _, labels in dataset for n in labels.numpy()][:10]

    orders = [order(first_step) for first_step in (0, 2)]
    assert all(sorted(found) == list(range(10)) for found in orders)
    # Equal by chance once in 10! times.
    assert orders[0] != orders[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image_folder", "tfrecords"])
def test_a_service_delivers_every_image_about_once_an_epoch(
    name, folder, sound
):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target
    workers = [
        service.WorkerServer(
            service.WorkerConfig(dispatcher_address=address.split("://")[1])
        )
        for _ in range(2)
    ]
    dataset = _load(
        folder if name == "image_folder" else sound,
        name=name,
        training=True,
        epochs=6,
        first_step=2,
        service=address,
    )
    assert len(dataset) == 10
    numbers = [n for images, _ in dataset for n in _numbers(images.numpy())]
    assert len(numbers) == 50
    counts = np.bincount(numbers, minlength=10)
    expected = [0, 1, 2, 4, 7, 8, 9] if name == "image_folder" else range(10)
    # 5 epochs; corrupt images repeat others.
    assert all(2 <= counts[number] for number in expected)
    assert sum(counts[number] for number in expected) == 50
    for server in (*workers, dispatcher):
        server._stop()
