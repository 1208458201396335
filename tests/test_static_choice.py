"""The best blocks for all images, against trying every choice."""

import itertools
import json

import cases
import keras
import numpy as np
import pytest
import tensorflow as tf

import skipnet_tf
from skipnet_tf import evaluation
from skipnet_tf import flops
from skipnet_tf import recalibration
from skipnet_tf import static_choice
from skipnet_tf import static_search

IMAGES = cases.images(40, 8, 8, 3)
LABELS = cases.labels(40)
MASKS = list(itertools.product((0, 1), repeat=4))


def batches(size=15, images=IMAGES, labels=LABELS):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(size)


@pytest.fixture(scope="module")
def model():
    network = cases.skipnet("pool", blocks=(3, 2))
    return cases.trained(network, IMAGES)


@pytest.fixture(scope="module")
def count(model):
    return flops.count(model, (8, 8, 3))


@pytest.fixture(scope="module")
def tried(model):
    """Cross-entropy and accuracy of every mask, by `route`."""
    found = {}
    for mask in MASKS:
        actions = np.tile(np.float32(mask), [len(IMAGES), 1])
        logits = model.route(IMAGES, actions=actions)["logits"]
        losses = keras.losses.sparse_categorical_crossentropy(
            LABELS, logits, from_logits=True
        )
        right = np.argmax(logits, axis=1) == LABELS
        found[mask] = float(np.mean(losses)), float(right.mean())
    return found


def cost(count, mask):
    return count.fixed + int(count.blocks @ np.array(mask))


@pytest.mark.parametrize("mask", [(1, 1, 1, 1), (0, 1, 0, 1), (0, 0, 0, 0)])
def test_accuracy_is_that_of_the_network_with_imposed_decisions(
    model, tried, mask
):
    got = static_choice.accuracy_of(model, batches(), np.float32(mask))
    assert got == pytest.approx(tried[mask][1])


def test_the_choice_is_the_best_that_the_search_ends_at(model, count, tried):
    budget = count.fixed + 0.6 * count.blocks.sum()
    choice = static_choice.best_static_choice(model, batches(), budget)
    assert choice.macs == cost(count, choice.mask) <= budget
    loss, accuracy = tried[choice.mask]
    assert choice.cross_entropy == pytest.approx(loss, rel=1e-5)
    assert choice.accuracy == pytest.approx(accuracy)
    assert choice.recalibrated_accuracy is None
    search = static_search.Search(
        count.blocks,
        budget - count.fixed,
        lambda masks: {mask: tried[mask][0] for mask in masks},
    )
    executed = search.fill(evaluation.collect(model, batches()).open_rates)
    eliminated = search.eliminate()
    ends = [executed, eliminated]
    ends.append(search.improve(search.best(ends)))
    assert choice.mask == max(ends, key=lambda m: (tried[m][1], -tried[m][0]))


def test_statistics_are_estimated_for_each_choice_and_put_back(model, count):
    before = model.get_weights()
    choice = static_choice.best_static_choice(
        model, batches(), count.fixed, images=20, calibration=batches(20)
    )
    for weight, value in zip(model.get_weights(), before):
        np.testing.assert_array_equal(weight, value)
    with recalibration.recalibrated(model, batches(20), actions=choice.mask):
        expected = static_choice.accuracy_of(model, batches(), choice.mask)
    assert choice.recalibrated_accuracy == expected
    assert choice.best_accuracy == max(choice.accuracy, expected)


def test_the_gain_over_a_static_choice_by_hand(model, count, tried):
    mask = (1, 0, 1, 0)
    choice = static_choice.StaticChoice(mask, cost(count, mask), 0, 0, None)
    found = static_choice.compare(model, batches(), choice)
    routes = evaluation.collect(model, batches())
    assert json.loads(json.dumps(found)) == found
    assert found["dynamic"] == evaluation.summary(routes, count.dense)
    assert found["static"] == {
        "macs": cost(count, mask),
        "macs_fraction": cost(count, mask) / count.dense,
        "accuracy": pytest.approx(tried[mask][1]),
        "recalibrated_accuracy": None,
    }
    gain = routes.accuracy - tried[mask][1]
    assert found["gain"] == pytest.approx(gain)
    actions = np.tile(np.float32(mask), [len(IMAGES), 1])
    logits = model.route(IMAGES, actions=actions)["logits"]
    right = np.argmax(logits, axis=1) == LABELS
    differ = np.mean(right != (routes.predictions == LABELS))
    # Each image counts -1, 0 or 1.
    error = np.sqrt((differ - gain**2) / len(IMAGES))
    assert found["standard_error"] == pytest.approx(error)


def test_what_cannot_be_is_refused(model, count):
    def message(function, *arguments, **others):
        with pytest.raises(ValueError) as error:
            function(*arguments, **others)
        return str(error.value)

    best = static_choice.best_static_choice
    too_little = message(best, model, batches(), count.fixed - 1)
    assert f"`macs` must be at least {count.fixed}" in too_little
    dense = skipnet_tf.cifar_resnet(8)
    assert "must be a SkipNet" in message(best, dense, batches(), 1e9)
    assert "`images` must be" in message(best, model, batches(), 1e9, 0)
    accuracy_of = static_choice.accuracy_of
    assert "`mask` must be 4" in message(accuracy_of, model, batches(), (1, 0))
