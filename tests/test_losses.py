"""Cross-entropy with smoothed labels, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_cases import fit
from training_cases import network
from training_cases import sgd

import skipnet_tf
from skipnet_tf import losses

# Probabilities 0.6, 0.2, 0.2 and 0.25, 0.5, 0.25.
_LOGITS = tf.math.log([[0.6, 0.2, 0.2], [0.25, 0.5, 0.25]])


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_the_loss_spreads_its_share_over_all_classes(shape):
    # Smoothing 0.3: targets 0.8 for the label, 0.1 for each other class.
    # -(0.8 log 0.6 + 0.2 log 0.2) = 0.408660 + 0.321888 = 0.730548
    # -(0.1 log 0.25 + 0.1 log 0.5 + 0.8 log 0.25)
    #     = 0.138629 + 0.069315 + 1.109035 = 1.316979
    labels = np.array([0, 2]).reshape(shape)
    loss = losses.SmoothedCrossEntropy(0.3)
    np.testing.assert_allclose(
        loss.call(labels, _LOGITS), [0.730548, 1.316979], rtol=1e-5
    )
    np.testing.assert_allclose(loss(labels, _LOGITS), 1.023764, rtol=1e-5)
    weighted = loss(labels, _LOGITS, sample_weight=np.array([2.0, 0.0]))
    np.testing.assert_allclose(weighted, 0.730548, rtol=1e-5)


def test_the_loss_is_kerass_own_on_one_hot_labels():
    labels = np.array([1, 0])
    ours = losses.SmoothedCrossEntropy(0.1)(labels, _LOGITS)
    theirs = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.1
    )(np.eye(3, dtype="float32")[labels], _LOGITS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_loss_survives_serialisation():
    loss = losses.SmoothedCrossEntropy(0.2, reduction="sum", name="smooth")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is losses.SmoothedCrossEntropy
    assert again.get_config() == loss.get_config()
    assert again.smoothing == 0.2


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match="`smoothing`.*Received: smoothing="):
        losses.SmoothedCrossEntropy(smoothing)


def test_one_hot_labels_are_refused():
    with pytest.raises(ValueError, match="`y_true`.*Received: .*(2, 3)"):
        losses.SmoothedCrossEntropy()(np.eye(3)[:2], _LOGITS)


def test_rewards_are_of_the_smoothed_loss():
    # Smoothed, a loss of images that all gates run is minus their reward.
    model = network()
    model.gates[0].recurrence.decision.bias.assign([30.0])
    model.compile(
        sgd(),
        loss=losses.SmoothedCrossEntropy(0.5),
        stage=skipnet_tf.HybridReinforce(rl_weight=0.0),
        run_eagerly=True,
    )
    history = fit(model).history
    assert history["executed_blocks"] == [1.0]
    assert history["mean_reward"][0] == pytest.approx(
        -history["loss"][0], rel=1e-5
    )
    # Above the entropy of the smoothed target, 0.5 + 1/6 and twice 1/6.
    assert history["loss"][0] > 0.8675
