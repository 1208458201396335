"""Order, splits, shards and resuming of the input pipelines."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from data_cases import levels_of
from data_cases import numbers_of
from data_cases import write_prepared

from skipnet_tf import data
from skipnet_tf import preprocessing

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a tiny CIFAR-10, SVHN and a data set of photographs."""
    root = str(tmp_path_factory.mktemp("prepared"))
    write_prepared(root)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image folder: 12 cats and 12 dogs, each of its own grey level."""
    root = tmp_path_factory.mktemp("folder")
    for index in range(24):
        parent = root / "train" / ("cat" if index % 2 else "dog")
        parent.mkdir(parents=True, exist_ok=True)
        image = np.full((20, 30, 3), 10 * index, np.uint8)
        path = parent / f"{index}.JPEG"
        path.write_bytes(tf.io.encode_jpeg(image).numpy())
    return str(root)


def _assert_equal(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second) > 0
    for (images, labels), (other_images, other_labels) in zip(first, second):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_descriptions_count_examples_and_name_classes(prepared):
    info = data.describe("cifar10", "train[:90%]", data_dir=prepared)
    # 90 % of 30.
    assert info.num_examples == 27
    assert info.num_classes == len(info.class_names) == 10
    assert info.image_shape == (32, 32, 3)
    info = data.describe("svhn_cropped", "train+extra", data_dir=prepared)
    assert (info.split, info.num_examples) == ("train+extra", 20)


def test_digits_are_split_by_class_and_so_are_their_slices():
    labels = {}
    for split in ("train", "test", "train[:90%]", "train[90%:]"):
        batches = data.load("digits", split, batch_size=2000)
        ((_, labels[split]),) = batches.as_numpy_iterator()
    sizes = {split: len(found) for split, found in labels.items()}
    assert sizes["train"] + sizes["test"] == 1797
    assert sizes["train[:90%]"] + sizes["train[90%:]"] == sizes["train"]
    assert 0.19 < sizes["test"] / 1797 < 0.21
    for found in labels.values():
        counts = np.bincount(found, minlength=10)
        # A tenth of each, within 15 %.
        np.testing.assert_allclose(counts, len(found) / 10, rtol=0.15)


def test_digits_of_train_and_test_are_all_of_scikit_learn():
    from sklearn import datasets

    images = []
    for split in ("train", "test"):
        batches = data.load("digits", split, batch_size=2000)
        ((pixels, _),) = batches.as_numpy_iterator()
        images.append(pixels)
    pixels = np.round(datasets.load_digits().images * (255 / 16))
    pixels = np.repeat(pixels[..., None], 3, axis=-1)
    expected = preprocessing.DIGITS.normalise(pixels).numpy()
    found = np.concatenate(images)
    assert collections.Counter(x.tobytes() for x in found) == (
        collections.Counter(x.tobytes() for x in expected)
    )


def test_evaluation_keeps_the_order_and_the_last_partial_batch(prepared):
    dataset = data.load("cifar10", "test", batch_size=4, data_dir=prepared)
    sizes = [len(labels) for _, labels in dataset]
    assert sizes == [4, 3]
    assert len(dataset) == 2
    assert numbers_of(dataset, preprocessing.CIFAR10) == list(range(7))
    (images, labels), _ = dataset
    assert (images.dtype, labels.dtype) == (tf.float32, tf.int32)


def test_sums_and_slices_of_splits_hold_what_they_say(prepared):
    dataset = data.load(
        "svhn_cropped", "train[3:]+extra[:2]", batch_size=3, data_dir=prepared
    )
    assert sorted(numbers_of(dataset)) == [3, 4, 5, 6, 7, 8, 9, 10]


def test_an_epoch_visits_every_example_once_in_its_own_order(prepared):
    dataset = data.load(
        "svhn_cropped",
        "train+extra",
        batch_size=5,
        training=True,
        epochs=3,
        data_dir=prepared,
    )
    numbers = numbers_of(dataset)
    assert len(dataset) == 3 * 4
    epochs = [numbers[:20], numbers[20:40], numbers[40:]]
    for epoch in epochs:
        assert sorted(epoch) == list(range(20))
    assert epochs[0] != epochs[1] != epochs[2] != list(range(20))


def test_an_epoch_of_photographs_visits_every_example_once(folder):
    dataset = data.load(
        "image_folder",
        "train",
        batch_size=8,
        training=True,
        epochs=2,
        data_dir=folder,
    )
    numbers = numbers_of(dataset, preprocessing.IMAGENET)
    tens = [10 * index for index in range(24)]
    np.testing.assert_allclose(sorted(numbers[:24]), tens, atol=2)
    np.testing.assert_allclose(sorted(numbers[24:]), tens, atol=2)
    assert numbers[:24] != numbers[24:]


@pytest.mark.parametrize("first_step", [1, 4, 6, 9])
def test_digits_resume_bit_for_bit_at_any_step(first_step):
    # 100 examples, 3 batches of 32 per epoch: within and at epoch borders.
    arguments = dict(batch_size=32, training=True, seed=3, epochs=4)
    whole = data.load("digits", "train[:100]", **arguments)
    rest = data.load(
        "digits", "train[:100]", first_step=first_step, **arguments
    )
    assert len(rest) == 12 - first_step
    _assert_equal(rest, whole.skip(first_step))


@pytest.mark.parametrize("name", ["flowers", "image_folder"])
def test_photographs_resume_bit_for_bit_at_any_step(name, prepared, folder):
    # 7 or 6 batches of 4 per epoch; the global seed must have no part in it.
    arguments = dict(
        batch_size=4,
        training=True,
        seed=5,
        epochs=2,
        data_dir=prepared if name == "flowers" else folder,
    )
    whole = list(data.load(name, "train", **arguments))
    tf.random.set_seed(123)
    rest = list(data.load(name, "train", first_step=5, **arguments))
    later = list(data.load(name, "train", first_step=8, **arguments))
    _assert_equal(rest, whole[5:])
    _assert_equal(later, whole[8:])


def test_the_last_step_leaves_nothing():
    dataset = data.load(
        "digits", "train[:64]", batch_size=32, training=True, first_step=2
    )
    assert list(dataset) == []


def test_seeds_decide_the_order_and_none_draws_a_new_one(prepared):
    def order(seed):
        return numbers_of(
            data.load(
                "svhn_cropped",
                "train+extra",
                batch_size=20,
                training=True,
                seed=seed,
                data_dir=prepared,
            )
        )

    assert order(1) == order(1)
    assert order(1) != order(2)
    # Equal by chance once in 20! times.
    assert order(None) != order(None)


def test_each_epoch_augments_the_same_image_differently():
    dataset = data.load(
        "digits", "train[:1]", batch_size=1, training=True, epochs=30
    )
    # 9 windows, drawn 30 times: fewer than 4 differ once in 1e9 times.
    assert len({images.numpy().tobytes() for images, _ in dataset}) >= 4


@pytest.mark.parametrize("name", ["digits", "svhn_cropped", "image_folder"])
def test_shards_are_disjoint_and_together_whole(name, prepared, folder):
    data_dir = folder if name == "image_folder" else prepared
    parts = []
    for index in range(3):
        dataset = data.load(
            name, "train", batch_size=7, shard=(index, 3), data_dir=data_dir
        )
        parts.append(
            [x.tobytes() for x, _ in dataset.unbatch().as_numpy_iterator()]
        )
    whole = data.load(name, "train", batch_size=7, data_dir=data_dir)
    whole = [x.tobytes() for x, _ in whole.unbatch().as_numpy_iterator()]
    assert collections.Counter(sum(parts, [])) == collections.Counter(whole)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "split, shards",
    [
        # 9 and 11 examples, which cut one by one give 5 + 6 and 4 + 5.
        ("train+extra", [range(10), range(10, 20)]),
        ("train+extra", [range(7), range(7, 14), range(14, 20)]),
        ("train[6:]+extra[:2]", [[6, 7], [8], [9], [10]]),
    ],
)
def test_sums_of_splits_are_cut_as_one(split, shards, prepared):
    for index, expected in enumerate(shards):
        dataset = data.load(
            "svhn_cropped",
            split,
            batch_size=5,
            shard=(index, len(shards)),
            data_dir=prepared,
        )
        assert sorted(numbers_of(dataset)) == list(expected)
        assert len(dataset) == -(-len(expected) // 5)


def test_shards_without_an_example_are_an_error(prepared):
    with pytest.raises(ValueError, match="`split`.*not empty"):
        data.load(
            "svhn_cropped",
            "train[:1]+extra[:1]",
            batch_size=1,
            shard=(2, 3),
            data_dir=prepared,
        )


def test_image_folders_label_by_sorted_folder_names(folder):
    info = data.describe("image_folder", "train[:50%]", data_dir=folder)
    assert info.class_names == ("cat", "dog")
    assert info.num_examples == 12
    dataset = data.load(
        "image_folder", "train[:50%]", batch_size=12, data_dir=folder
    )
    ((images, labels),) = dataset.as_numpy_iterator()
    assert images.shape == (12, 224, 224, 3)
    tens = np.array(levels_of(preprocessing.IMAGENET, images)) / 10
    # Cats have the odd levels.
    np.testing.assert_array_equal(np.round(tens) % 2, 1 - labels)
    assert 0 < labels.sum() < 12


def test_unknown_builders_are_treated_like_photographs(prepared):
    info = data.describe("flowers", "train", data_dir=prepared)
    assert (info.num_classes, info.image_shape) == (4, (224, 224, 3))
    recipe = data.preprocessing_of("flowers")
    assert (recipe.name, recipe.num_classes) == ("flowers", None)
    assert recipe.mean == preprocessing.IMAGENET.mean
    assert data.preprocessing_of("digits") is preprocessing.DIGITS
