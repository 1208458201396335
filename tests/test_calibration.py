"""The threshold at which a policy spends what it is asked to."""

import pytest
import tensorflow as tf
from cases import images
from cases import labels
from cases import skipnet
from cases import trained

from skipnet_tf import calibration
from skipnet_tf import flops

IMAGES = images(300, 4, 4, 3)
COUNT = flops.count(skipnet("pool"), (4, 4, 3))


@pytest.fixture(scope="module")
def model():
    divided = trained(skipnet("pool"), IMAGES)
    divided.sharpen(0.1)  # most probabilities between the bounds
    return divided


def dataset(count=300):
    pairs = IMAGES[:count], labels(count)
    return tf.data.Dataset.from_tensor_slices(pairs).batch(max(count, 1))


def spent(model, threshold):
    """Counted block by block."""
    model.threshold = threshold
    runs = model.route(IMAGES)["gates"].numpy().mean(axis=0)
    model.threshold = 0.5
    paid = COUNT.fixed + COUNT.gates.sum() + runs @ COUNT.blocks
    return paid / COUNT.dense


@pytest.mark.parametrize("shift", [-0.15, -0.05, 0.05, 0.15])
def test_what_is_spent_comes_near_to_what_was_asked(model, shift):
    asked = spent(model, 0.5) + shift
    threshold = calibration.threshold_for(model, dataset(), asked)
    assert model.threshold == 0.5
    assert (threshold > 0.5) == (shift < 0)
    assert spent(model, threshold) == pytest.approx(asked, abs=0.01)


def test_a_half_stays_where_it_is_close_enough(model):
    asked = spent(model, 0.5) + 0.009
    assert calibration.threshold_for(model, dataset(), asked) == 0.5


def test_sure_decisions_are_not_turned_into_their_opposites():
    sure = trained(skipnet("pool"), IMAGES)
    sure.sharpen(100)
    half = spent(sure, 0.5)
    for asked in (half - 0.2, half + 0.2):
        threshold = calibration.threshold_for(sure, dataset(), asked)
        assert 0.05 <= threshold <= 0.95
        assert spent(sure, threshold) == pytest.approx(half, abs=0.02)


def test_so_many_images_are_used_whatever_the_batches(model):
    asked = spent(model, 0.5) + 0.1
    few = calibration.threshold_for(model, dataset(), asked, images=40)
    assert few == calibration.threshold_for(model, dataset(40), asked)
    assert few != calibration.threshold_for(model, dataset(), asked)


def test_evaluation_follows_a_threshold_that_was_moved():
    moved = trained(skipnet("pool"), IMAGES)
    moved.compile()
    arguments = {"batch_size": 300, "verbose": 0, "return_dict": True}
    found = []
    for threshold in (0.0, 0.5, 1.0):
        moved.threshold = threshold
        logs = moved.evaluate(IMAGES, labels(300), **arguments)
        found.append(logs["executed_blocks"])
    assert found[0] == 1.0 > found[1] > found[2]
    with pytest.raises(ValueError, match="`threshold`.*Received: "):
        moved.threshold = 1.5


def test_bad_arguments_are_named(model):
    for macs in (0, 1.1):
        with pytest.raises(ValueError, match="`macs`.*Received: "):
            calibration.threshold_for(model, dataset(), macs)
    with pytest.raises(ValueError, match="`images`.*Received: "):
        calibration.threshold_for(model, dataset(), 0.5, images=0)
    with pytest.raises(ValueError, match="`dataset`.*at least one image"):
        calibration.threshold_for(model, dataset(0), 0.5)
