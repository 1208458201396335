"""What input pipelines refuse, and where they look."""

import pytest
import tensorflow_datasets as tfds
from data_cases import features
from data_cases import plain
from data_cases import write
from data_cases import write_prepared

from skipnet_tf import data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a tiny CIFAR-10, SVHN and a data set of photographs."""
    root = str(tmp_path_factory.mktemp("prepared"))
    write_prepared(root)
    return root


def test_the_newest_version_is_read(tmp_path):
    for version, count in (("1.9.0", 3), ("1.10.0", 5)):
        splits = {"train": plain(32, range(count))}
        ten = features(32, 10)
        write(str(tmp_path), "cifar10", ten, splits, version)
    info = data.describe("cifar10", "train", data_dir=str(tmp_path))
    assert info.num_examples == 5


def test_data_dir_defaults_to_the_environment(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", prepared)
    assert data.describe("cifar10", "test").num_examples == 7


def test_missing_data_are_an_error_that_names_the_remedies(tmp_path):
    with pytest.raises(ValueError) as error:
        data.load("cifar10", "train", batch_size=1, data_dir=str(tmp_path))
    for word in ("`data_dir`", str(tmp_path), "--data_dir", "--download"):
        assert word in str(error.value)
    with pytest.raises(ValueError, match="`data_dir`.*Received: None"):
        data.describe("image_folder", "train")


@pytest.mark.parametrize("split", ["validation", "train[:9000]", "train["])
def test_unknown_splits_are_an_error_that_lists_the_others(split, prepared):
    for name in ("cifar10", "digits"):
        with pytest.raises(ValueError) as error:
            data.describe(name, split, data_dir=prepared)
        assert "['test', 'train']" in str(error.value)
        assert f"Received: split={split!r}" in str(error.value)


def test_empty_slices_are_an_error(prepared):
    for name in ("cifar10", "digits"):
        with pytest.raises(ValueError, match="`split`.*not empty"):
            data.describe(name, "train[:0]", data_dir=prepared)


def test_a_split_whose_files_are_missing_is_one_clear_error(tmp_path):
    splits = {"train": plain(32, [0]), "test": plain(32, [1])}
    write(str(tmp_path), "cifar10", features(32, 10), splits)
    (path,) = tmp_path.glob("cifar10/*/cifar10-test*")
    path.unlink()
    assert data.describe("cifar10", "train", str(tmp_path)).num_examples == 1
    with pytest.raises(ValueError, match="does not exist. Received: 'test'"):
        data.describe("cifar10", "test", str(tmp_path))


def test_data_sets_without_images_or_labels_are_refused(tmp_path):
    text = {"text": tfds.features.Text()}
    write(str(tmp_path), "words", text, {"train": [{"text": "a"}]})
    with pytest.raises(ValueError, match=r"Received: \"words with \['text'\]"):
        data.describe("words", "train", str(tmp_path))


def test_another_number_of_classes_than_the_papers_is_refused(tmp_path):
    splits = {"train": plain(32, range(3))}
    write(str(tmp_path), "cifar100", features(32, 10), splits)
    with pytest.raises(ValueError, match="100 classes.*with 10 classes"):
        data.describe("cifar100", "train", str(tmp_path))


def test_labels_outside_the_classes_are_refused(tmp_path):
    examples = plain(32, range(3))
    examples[1]["label"] = -1
    write(str(tmp_path), "cifar10", features(32, 10), {"train": examples})
    with pytest.raises(ValueError, match=r"from 0 to 9. Received: \[-1, 0, 2"):
        data.load("cifar10", "train", batch_size=1, data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"batch_size": 0}, "`batch_size`.*Received: 0"),
        ({"batch_size": 101}, "`batch_size`.*100. Received: 101"),
        ({"epochs": 0}, "`epochs`.*Received: 0"),
        ({"epochs": 2, "training": False}, "`epochs`.*Received: 2"),
        ({"seed": -1}, "`seed`.*Received: -1"),
        ({"first_step": 11}, "`first_step`.* 10 steps. Received: 11"),
        ({"shard": (2, 2)}, r"`shard`.*Received: \(2, 2\)"),
    ],
)
def test_arguments_without_sense_are_refused(changed, message):
    arguments = {"batch_size": 10, "training": True, **changed}
    with pytest.raises(ValueError, match=message):
        data.load("digits", "train[:100]", **arguments)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"skipnet_tf\[demo\]"):
        data.describe("digits", "train")
    with pytest.raises(ImportError, match="importlib_resources"):
        data.describe("cifar10", "train", str(tmp_path), download=True)
