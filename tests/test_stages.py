"""The stages: arguments, policies and losses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import skipnet_tf
from skipnet_tf import objectives
from skipnet_tf import policy
from skipnet_tf import schedules

_SEED = tf.constant([1, 2])


@pytest.mark.parametrize(
    "stage", [skipnet_tf.HybridReinforce, skipnet_tf.Reinforce]
)
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("alpha", -0.1),
        ("alpha", float("nan")),
        ("alpha", "high"),
        ("beta", -1.0),
        ("beta", "alpha"),
        ("gamma", -0.5),
        ("rl_weight", -1),
        ("costs", [1.0, 0.0]),
        ("execution", "sparse"),
    ],
)
def test_numbers_out_of_range_are_refused(stage, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Received: "):
        stage(**{argument: value})


def test_a_discount_above_one_is_refused():
    with pytest.raises(ValueError, match="`gamma`"):
        skipnet_tf.HybridReinforce(gamma=1.5)


def test_bad_arguments_of_the_supervised_stage_are_refused():
    with pytest.raises(ValueError, match="`gating`.*Received: gating='firm'"):
        skipnet_tf.Supervised("firm")
    for rate in (-0.1, 1.1):
        with pytest.raises(ValueError, match="`skip_rate`.*Received: "):
            skipnet_tf.Supervised("random", rate)


@pytest.mark.parametrize(
    ("stage", "training", "inference"),
    [
        (skipnet_tf.Supervised(), policy.Relaxed, policy.Thresholded),
        (skipnet_tf.Supervised("soft"), policy.Soft, policy.Thresholded),
        (skipnet_tf.Supervised("random", 0.5), policy.Random, policy.Random),
        (skipnet_tf.HybridReinforce(), policy.Sampled, policy.Thresholded),
        (skipnet_tf.Reinforce(), policy.Sampled, policy.Thresholded),
    ],
)
def test_every_stage_has_its_policies(stage, training, inference):
    assert type(stage.policy(_SEED, None)) is training
    assert type(stage.inference_policy(0.5, None)) is inference
    assert stage.samples == (training is policy.Sampled)


@pytest.mark.parametrize(
    "stage",
    [
        skipnet_tf.Supervised("random", 0.25, seed=3),
        skipnet_tf.HybridReinforce(0.2, 0.5, 0.9, 2.0, [1, 2, 3], seed=4),
        skipnet_tf.Reinforce(0.2, "alpha/N", seed=5),
        skipnet_tf.HybridReinforce(alpha=schedules.Ramp(0.0, 0.3, 10)),
        skipnet_tf.HybridReinforce(execution="conditional"),
    ],
)
def test_stages_survive_serialisation(stage):
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(stage)
    )
    assert type(again) is type(stage)
    assert again.get_config() == stage.get_config()
    for name in stage.hyperparameters:
        one, other = stage.value(name, 5), again.value(name, 5)
        assert float(one) == float(other)


def test_a_saved_stage_keeps_an_assigned_value():
    stage = skipnet_tf.HybridReinforce(alpha=0.1)
    stage.alpha.assign(0.75)
    again = skipnet_tf.HybridReinforce.from_config(stage.get_config())
    assert float(again.value("alpha", 0)) == 0.75


def test_hyperparameters_follow_a_schedule_of_the_step():
    stage = skipnet_tf.HybridReinforce(alpha=schedules.Ramp(0.0, 0.4, 4))
    values = [float(stage.value("alpha", step)) for step in (0, 1, 4, 9)]
    np.testing.assert_allclose(values, [0, 0.1, 0.4, 0.4], rtol=1e-6)


def test_seeds_differ_between_steps_replicas_and_runs():
    seeds = [
        tuple(skipnet_tf.HybridReinforce(seed=seed).step_seed(step, replica))
        for seed in (0, 1)
        for step in (0, 1)
        for replica in (0, 1)
    ]
    assert len({tuple(map(int, seed)) for seed in seeds}) == 8


_ROUTED = {
    "logits": tf.math.log([[0.6, 0.4], [0.1, 0.9]]),
    "gate_logits": tf.constant([[0.3, -0.2, 1.0], [0.0, 2.0, -1.0]]),
    "gates": tf.constant([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]),
}
_LOSS = tf.constant([0.5, 2.0])


def test_the_hybrid_loss_adds_the_weighted_policy_loss():
    stage = skipnet_tf.HybridReinforce(
        0.3, 0.5, 0.9, rl_weight=2.0, costs=[1, 2, 3]
    )
    terms = stage.policy_terms(_ROUTED, _LOSS, 0, _SEED)
    loss, reward = terms["policy_loss"], terms["mean_reward"]
    returns = objectives.returns(
        _ROUTED["gates"], _LOSS, 0.3, 0.5, 0.9, [1, 2, 3]
    )
    expected = objectives.policy_gradient_loss(
        _ROUTED["gate_logits"], _ROUTED["gates"], returns
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(reward, np.mean(returns[:, 0]), rtol=1e-6)
    assert float(stage.total(10.0, loss, 0)) == pytest.approx(
        10 + 2 * float(expected)
    )


def test_pure_reinforcement_drops_the_cross_entropy():
    stage = skipnet_tf.Reinforce(rl_weight=2.0)
    assert float(stage.total(tf.constant(10.0), tf.constant(3.0), 0)) == 6
    hybrid = skipnet_tf.HybridReinforce().policy_terms(_ROUTED, _LOSS, 0, _SEED)
    pure = stage.policy_terms(_ROUTED, _LOSS, 0, _SEED)
    # The class prediction's term: -log p(class) * -L, a mean over two
    # images; each class has been drawn or not.
    found = float(pure["policy_loss"] - hybrid["policy_loss"])
    surprise = -np.log([[0.6, 0.4], [0.1, 0.9]])
    possible = [
        -(surprise[0, first] * 0.5 + surprise[1, second] * 2.0) / 2
        for first in (0, 1)
        for second in (0, 1)
    ]
    assert min(abs(found - value) for value in possible) < 1e-5


def test_the_supervised_stage_has_no_policy_terms():
    stage = skipnet_tf.Supervised()
    assert stage.policy_terms(_ROUTED, _LOSS, 0, _SEED) == {}
    assert stage.total(5.0, None, 0) == 5.0
