"""The threshold at which a policy spends what it is asked to."""

import keras
import pytest
import tensorflow as tf
from cases import images
from cases import labels
from cases import skipnet
from cases import trained

import skipnet_tf
from skipnet_tf import calibration
from skipnet_tf import flops

IMAGES = images(300, 4, 4, 3)


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
    count = flops.count(model, (4, 4, 3))
    model.threshold = threshold
    runs = model.route(IMAGES)["gates"].numpy().mean(axis=0)
    model.threshold = 0.5
    paid = count.fixed + count.gates.sum() + runs @ count.blocks
    return paid / count.dense


@pytest.mark.parametrize("shift", [-0.15, 0.05])
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
    with pytest.raises(ValueError, match="`threshold`.*Received: .*'0.3'"):
        moved.threshold = "0.3"


def test_training_follows_a_threshold_that_was_moved():
    model = skipnet("confidence")  # all gates open at 0.88 for all images
    stage = skipnet_tf.HybridReinforce(0.0, target_macs=0.9)
    model.compile(skipnet_tf.optimizers.SGD(0.0, l2=0.0), stage=stage)

    def price_of_a_step(threshold, **arguments):
        before = float(stage.alpha)
        model.threshold = threshold
        model.fit(IMAGES, labels(300), 300, verbose=0, **arguments)
        return float(stage.alpha) - before

    # 0.04 times what is spent over 0.9 at that threshold.
    for threshold in (0.5, 0.9):
        spends = spent(model, threshold) - 0.9
        assert price_of_a_step(threshold) == pytest.approx(0.04 * spends)

    class Move(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.threshold = (0.5, 0.9)[epoch]

    both = sum(spent(model, threshold) - 0.9 for threshold in (0.5, 0.9))
    moved = price_of_a_step(0.3, epochs=2, callbacks=[Move()])
    assert moved == pytest.approx(0.04 * both)


def test_a_network_that_asks_no_threshold_is_refused():
    dense = skipnet_tf.ResNet((1, 1), (4, 4))
    with pytest.raises(ValueError, match="`model` must be a SkipNet"):
        calibration.threshold_for(dense, dataset(), 0.9)
    model = skipnet()
    model.compile(stage=skipnet_tf.Supervised("random", skip_rate=0.5))
    with pytest.raises(ValueError, match="`model` must decide by its thresh"):
        calibration.threshold_for(model, dataset(), 0.9)
    weighted = tf.data.Dataset.zip(dataset(), dataset().map(lambda x, y: y))
    weighted = weighted.map(lambda pair, weights: (*pair, weights))
    with pytest.raises(ValueError, match="`dataset` must be a batched"):
        calibration.threshold_for(model, weighted, 0.9)


def test_bad_arguments_are_named(model):
    for macs in (0, 1.1):
        with pytest.raises(ValueError, match="`macs`.*Received: "):
            calibration.threshold_for(model, dataset(), macs)
    with pytest.raises(ValueError, match="`images`.*Received: "):
        calibration.threshold_for(model, dataset(), 0.5, images=0)
    with pytest.raises(ValueError, match="`dataset`.*at least one image"):
        calibration.threshold_for(model, dataset(0), 0.5)
