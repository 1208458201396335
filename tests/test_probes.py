"""Experiments on a trained network."""

import random

import cases
import numpy as np
import pytest

from skipnet_tf import data
from skipnet_tf import evaluation
from skipnet_tf import preprocessing
from skipnet_tf.analysis import image_exhibits
from skipnet_tf.analysis import probes


def batches():
    return data.load("digits", "test[:40]", batch_size=25)


@pytest.fixture(scope="module")
def divided():
    """A SkipNet that runs each block for some of the digits."""
    random.seed(0)  # Keras draws from it; tests seed it after this
    model = cases.skipnet("pool", num_classes=10)
    images, _ = next(iter(batches()))
    return cases.trained(model, images)


@pytest.fixture(scope="module")
def routes(divided):
    return evaluation.collect(divided, batches())


def test_a_higher_threshold_costs_less(divided, routes):
    found = probes.at_thresholds(divided, batches())
    assert found["macs"].shape == (len(probes.THRESHOLDS), 40)
    costs = found["macs"][[0, 4, -1]].mean(axis=1)
    assert costs[0] > costs[1] > costs[2]
    # The fifth is 0.5, that of the network.
    np.testing.assert_array_equal(found["macs"][4], routes.macs)
    right = routes.labels == routes.predictions
    np.testing.assert_array_equal(found["correct"][4], right)


def test_scale_1_runs_the_blocks_that_are_run_anyway(divided, routes):
    recipe = preprocessing.get("digits")
    chosen = [0, 3, 39]
    pixels = probes.pixels(probes.pick(batches(), chosen), recipe)
    found = probes.at_scales(divided, pixels, recipe.normalise)
    assert tuple(found) == probes.SCALES
    np.testing.assert_array_equal(found[1.0], routes.blocks[chosen])
    assert any((found[1.0] != blocks).any() for blocks in found.values())


def test_with_all_gates_open_the_prediction_is_that_at_threshold_0(
    divided, routes
):
    gates = np.stack([np.ones_like(routes.gates), routes.gates])
    found, own = probes.imposed(divided, batches(), gates)
    np.testing.assert_array_equal(own, routes.predictions)
    try:
        divided.threshold = 0.0
        routed = [divided.route(images) for images, _ in batches()]
    finally:
        divided.threshold = 0.5
    assert all(part["gates"].numpy().all() for part in routed)
    logits = np.concatenate([part["logits"] for part in routed])
    np.testing.assert_array_equal(found, logits.argmax(axis=1))


def test_each_image_has_a_time(divided):
    images = probes.pick(batches(), range(3))
    times = probes.milliseconds(divided, images)
    assert times.shape == (3,) and (times > 0).all() and (times < 1e4).all()


def test_images_are_picked_in_the_order_asked_for():
    images = np.concatenate([images for images, _ in batches()])
    np.testing.assert_array_equal(
        probes.pick(batches(), [30, 2]), images[[30, 2]]
    )


def test_pixels_undoes_the_normalisation():
    recipe = preprocessing.get("cifar10")
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images = np.repeat(images, 3, axis=-1)
    again = probes.pixels(recipe.normalise(images), recipe)
    np.testing.assert_array_equal(again, images)
    assert again.dtype == np.uint8


def test_the_easiest_image_skips_most_and_is_surest():
    gates = np.array([[1, 1], [1, 0], [0, 0], [0, 0]], "float32")
    routes = evaluation.Routes(
        labels=np.zeros(4),
        predictions=np.zeros(4),
        confidence=np.array([0.9, 0.9, 0.4, 0.8]),
        gates=gates,
        probabilities=gates,
        macs=np.zeros(4),
    )
    assert image_exhibits.rank(routes).tolist() == [3, 2, 1, 0]
