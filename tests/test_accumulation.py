"""Steps that go through their batch in several parts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_cases import HYBRID
from training_cases import IMAGES
from training_cases import LABELS
from training_cases import fit
from training_cases import network
from training_cases import sgd

import skipnet_tf
from skipnet_tf import objectives

_HALVES = (slice(0, 4), slice(4, 8))


def _surprise(half, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS[half], logits)


def _hybrid_gradients(model, part):
    """Of one half of the batch: loss, share of open gates, gradients."""
    half = _HALVES[part]
    drawn = model.stage.policy(model.step_and_seed(part)[1], None)
    with tf.GradientTape() as tape:
        routed = model.route_with(IMAGES[half], drawn, training=True)
        surprise = _surprise(half, routed["logits"])
        rewards = objectives.returns(routed["gates"], surprise, 0.5)
        loss = tf.reduce_mean(surprise) + objectives.policy_gradient_loss(
            routed["gate_logits"], routed["gates"], rewards
        )
    gradients = tape.gradient(loss, model.trainable_variables)
    return float(loss), np.mean(routed["gates"]), gradients


@pytest.mark.parametrize("execution", ["masked", "conditional"])
def test_a_step_takes_the_mean_of_its_parts_gradients(execution):
    model = network()
    stage = skipnet_tf.HybridReinforce(**HYBRID, execution=execution)
    eagerly = execution == "masked"
    model.compile(
        sgd(0.1), stage=stage, run_eagerly=eagerly, gradient_accumulation=2
    )
    start = model.get_weights()
    losses, opened, gradients = zip(
        *(_hybrid_gradients(model, part) for part in (0, 1))
    )
    expected = [
        variable.numpy() - 0.1 * (one.numpy() + two.numpy()) / 2
        for variable, one, two in zip(model.trainable_variables, *gradients)
    ]
    # The statistics of two updates, one for each half.
    statistics = [v.numpy() for v in model.non_trainable_variables]
    model.set_weights(start)
    history = fit(model).history
    for variable, value in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)
    for variable, value in zip(model.non_trainable_variables, statistics):
        np.testing.assert_allclose(variable, value, rtol=1e-5)
    assert int(model.optimizer.iterations) == 1
    assert history["loss"][0] == pytest.approx(np.mean(losses), rel=1e-5)
    blocks = (2 * np.mean(opened) + 1) / 3
    assert history["executed_blocks"][0] == pytest.approx(blocks, rel=1e-5)


def test_a_dense_network_accumulates_weighted_images():
    model = skipnet_tf.ResNet((1, 1), (4, 4), num_classes=3)
    model.compile(
        sgd(0.1),
        metrics=["accuracy"],
        gradient_accumulation=2,
        run_eagerly=True,
    )
    weights = np.linspace(0.0, 2.0, 8, dtype="float32")
    start, gradients, right = model.get_weights(), [], []
    for half in _HALVES:
        with tf.GradientTape() as tape:
            logits = model(IMAGES[half], training=True)
            loss = tf.reduce_mean(_surprise(half, logits) * weights[half])
        gradients.append(tape.gradient(loss, model.trainable_variables))
        right += list(np.argmax(logits, 1) == LABELS[half])
    expected = [
        variable.numpy() - 0.1 * (one.numpy() + two.numpy()) / 2
        for variable, one, two in zip(model.trainable_variables, *gradients)
    ]
    model.set_weights(start)
    history = fit(model, sample_weight=weights).history
    for variable, value in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)
    assert history["accuracy"] == pytest.approx([np.mean(right)])


class Watched(skipnet_tf.SkipNet):
    """Remembers the decisions of every forward pass."""

    def route_with(self, images, policy, training=False):
        routed = super().route_with(images, policy, training)
        self.seen.values.append(routed["gates"].numpy())
        return routed


class _Seen:
    def __init__(self):
        self.values = []


def test_every_part_draws_decisions_of_its_own():
    seen = {}
    for parts in (1, 2):
        model = Watched((2, 6), (4, 4), num_classes=3, gate="pool")
        model.seen = _Seen()
        model.compile(
            sgd(),
            stage=skipnet_tf.HybridReinforce(seed=3),
            run_eagerly=True,
            gradient_accumulation=parts,
        )
        repeated = [np.concatenate([a[:8]] * parts) for a in (IMAGES, LABELS)]
        model.fit(*repeated, 8 * parts, verbose=0, shuffle=False)
        seen[parts] = model.seen.values
    (whole,), (first, second) = seen[1], seen[2]
    # Gates start alike for every image: equal seeds draw equal decisions.
    np.testing.assert_array_equal(first, whole)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_batch_that_cannot_be_divided_is_refused(run_eagerly):
    model = skipnet_tf.ResNet((1, 1), (4, 4), num_classes=3)
    model.compile(sgd(), gradient_accumulation=2, run_eagerly=run_eagerly)
    expected = "`gradient_accumulation` must divide .*Received: .*=2"
    with pytest.raises(ValueError, match=expected):
        model.fit(IMAGES[:5], LABELS[:5], 5, verbose=0)


@pytest.mark.parametrize("parts", [0, -1, 2.0, True, None])
def test_a_number_of_parts_is_a_positive_int(parts):
    expected = "`gradient_accumulation` must be a positive int.*Received"
    with pytest.raises(ValueError, match=expected):
        network().compile(sgd(), gradient_accumulation=parts)


def test_a_reloaded_network_goes_on_in_parts(tmp_path):
    model = network()
    model.compile(sgd(), gradient_accumulation=2)
    model.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert loaded.gradient_accumulation == 2
