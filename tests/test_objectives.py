"""Rewards and losses of reinforcement learning, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from skipnet_tf import objectives

_GATES = tf.constant([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
_LOSS = tf.constant([0.5, 2.0])


def test_returns_match_equation_6_by_hand():
    # alpha / N = 1; skips still to come: [2, 2, 1] and [0, 0, 0].
    got = objectives.returns(_GATES, _LOSS, alpha=3.0)
    np.testing.assert_allclose(got, [[1.5, 1.5, 0.5], [-2.0, -2.0, -2.0]])


def test_returns_weigh_the_loss_by_beta():
    # Bonus 2, 2, 1 as above, minus 4 * 0.5; and minus 4 * 2.
    got = objectives.returns(_GATES, _LOSS, alpha=3.0, beta=4.0)
    np.testing.assert_allclose(got, [[0, 0, -1], [-8, -8, -8]])


def test_beta_of_alpha_over_n_shrinks_the_loss_with_the_price():
    # alpha / N = 0.2: bonus 0.4, 0.4, 0.2; loss 0.2 * 0.5 and 0.2 * 2.
    got = objectives.returns(_GATES, _LOSS, alpha=0.6, beta="alpha/N")
    np.testing.assert_allclose(
        got, [[0.3, 0.3, 0.1], [-0.4, -0.4, -0.4]], rtol=1e-6
    )


def test_gamma_discounts_from_gate_to_gate():
    # R4 = -0.5; R3 = 1 - 0.25 = 0.75; R2 = 1 + 0.375; R1 = 0 + 0.6875.
    # R4 = -2; -1; -0.5; -0.25.
    got = objectives.returns(_GATES, _LOSS, alpha=3.0, gamma=0.5)
    np.testing.assert_allclose(
        got, [[0.6875, 1.375, 0.75], [-0.25, -0.5, -1.0]]
    )


def test_a_gamma_of_zero_leaves_only_the_own_bonus():
    got = objectives.returns(_GATES, _LOSS, alpha=3.0, gamma=0.0)
    np.testing.assert_allclose(got, [[0, 1, 1], [0, 0, 0]])


def test_costs_are_scaled_to_mean_one():
    # Mean of 2, 4, 6 is 4: relative costs 0.5, 1, 1.5. Bonus of the first
    # image: 0 + 1 + 1.5, 1 + 1.5, 1.5, minus its loss of 0.5.
    for scale in (1.0, 10.0):
        got = objectives.returns(
            _GATES, _LOSS, alpha=3.0, costs=np.array([2, 4, 6]) * scale
        )
        np.testing.assert_allclose(got, [[2, 2, 1], [-2, -2, -2]], rtol=1e-6)


def test_returns_match_a_loop_over_gates():
    random = np.random.default_rng(0)
    gates = random.integers(0, 2, (4, 7)).astype("float32")
    loss = random.uniform(0, 3, 4).astype("float32")
    costs = random.uniform(1, 2, 7)
    alpha, beta, gamma = 0.7, 0.9, 0.8
    value, expected = -beta * loss, np.zeros((4, 7))
    for i in reversed(range(7)):
        bonus = alpha / 7 * (1 - gates[:, i]) * costs[i] / costs.mean()
        value = expected[:, i] = bonus + gamma * value
    got = objectives.returns(gates, loss, alpha, beta, gamma, costs)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("gates", "loss", "costs", "name"),
    [
        ((2, 3), (2, 1), None, "cross_entropy"),
        ((2, 3), (3,), None, "cross_entropy"),
        ((2, 3), (), None, "cross_entropy"),
        ((2,), (2,), None, "gates"),
        ((2, 3), (2,), (2,), "costs"),
        ((2, 3), (2,), (2, 3), "costs"),
    ],
)
def test_returns_refuse_shapes_that_would_broadcast(gates, loss, costs, name):
    costs = None if costs is None else tf.ones(costs)
    with pytest.raises(ValueError, match=f"`{name}`"):
        objectives.returns(tf.ones(gates), tf.ones(loss), 1.0, costs=costs)


def test_returns_refuse_an_unknown_beta():
    with pytest.raises(ValueError, match="`beta`.*alpha"):
        objectives.returns(_GATES, _LOSS, 1.0, beta="alpha")


def test_entropy_is_a_mean_over_images_of_sums_over_gates():
    # log 2 where p is 0.5, 0.562335 nats where it is 0.75 or 0.25, 0 where a
    # gate is sure.
    logits = tf.math.log([[1.0, 3.0], [1 / 3, 1e30]])
    entropy = objectives.entropy(logits)
    expected = (0.693147 + 0.562335 + 0.562335) / 2
    np.testing.assert_allclose(entropy, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="`gate_logits`"):
        objectives.entropy(logits[0])


def test_the_policy_loss_is_a_mean_over_images_of_sums_over_gates():
    # p = 0.75 where the logit is log 3. Surprise: -log 0.75 = 0.287682 of
    # running, -log 0.25 = 1.386294 of skipping, times the returns 2 and 4.
    logits = tf.math.log([[3.0, 3.0], [3.0, 3.0]])
    gates = tf.constant([[1.0, 0.0], [0.0, 0.0]])
    rewards = tf.constant([[2.0, 4.0], [0.0, 0.0]])
    loss = objectives.policy_gradient_loss(logits, gates, rewards)
    expected = (2 * 0.287682 + 4 * 1.386294) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_policy_gradient_is_probability_minus_decision_times_return():
    random = np.random.default_rng(0)
    logits = tf.constant(random.normal(size=(5, 4)), tf.float32)
    gates = tf.constant(random.integers(0, 2, (5, 4)), tf.float32)
    rewards = tf.Variable(random.normal(size=(5, 4)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = objectives.policy_gradient_loss(logits, gates, rewards * 1.0)
    by_logits, by_rewards = tape.gradient(loss, [logits, rewards])
    probabilities = 1 / (1 + np.exp(-logits.numpy()))
    np.testing.assert_allclose(
        by_logits, (probabilities - gates) * rewards.numpy() / 5, rtol=1e-5
    )
    assert by_rewards is None  # returns are held constant


@pytest.mark.parametrize(
    ("gates", "rewards"), [((2, 3), (2, 1)), ((2, 1), (2, 3)), ((2, 3), (2,))]
)
def test_the_policy_loss_refuses_shapes_that_would_broadcast(gates, rewards):
    with pytest.raises(ValueError, match="`gates`|`returns`"):
        objectives.policy_gradient_loss(
            tf.zeros((2, 3)), tf.ones(gates), tf.ones(rewards)
        )


def test_the_class_action_loss_rewards_the_sampled_class():
    # p = 0.6, 0.2, 0.2: (-log 0.6 * -1 - log 0.2 * 3) / 2.
    logits = tf.math.log([[0.6, 0.2, 0.2]] * 2)
    classes, rewards = tf.constant([0, 2]), tf.Variable([-1.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = objectives.class_action_loss(logits, classes, rewards * 1.0)
    expected = (-0.510826 + 3 * 1.609438) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    by_logits, by_rewards = tape.gradient(loss, [logits, rewards])
    # (p - one_hot) * R / 2
    np.testing.assert_allclose(
        by_logits, [[0.2, -0.1, -0.1], [0.9, 0.3, -1.2]], atol=1e-6
    )
    assert by_rewards is None


@pytest.mark.parametrize(
    ("classes", "rewards"), [((2, 1), (2,)), ((2,), (2, 1)), ((2,), (3,))]
)
def test_the_class_action_loss_refuses_wrong_shapes(classes, rewards):
    with pytest.raises(ValueError, match="`classes`|`rewards`"):
        objectives.class_action_loss(
            tf.zeros((2, 3)), tf.zeros(classes, tf.int32), tf.ones(rewards)
        )


def test_the_distillation_loss_compares_softened_predictions():
    # T = 2. Teacher logits 2 log 3 and 0: 0.75 and 0.25 against 0.5 and 0.5,
    # 0.75 log 1.5 + 0.25 log 0.5 = 0.130812. The second image agrees with its
    # teacher. T^2 * (0.130812 + 0) / 2 = 0.261624.
    logits = tf.constant([[0.0, 0.0], [7.0, 1.0]])
    teacher = tf.Variable([[2 * np.log(3.0), 0.0], [8.0, 2.0]], dtype="float32")
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = objectives.distillation_loss(logits, teacher * 1.0, 2.0)
    np.testing.assert_allclose(loss, 0.261624, rtol=1e-5)
    by_logits, by_teacher = tape.gradient(loss, [logits, teacher])
    # T * (student - teacher) / 2
    np.testing.assert_allclose(by_logits, [[-0.25, 0.25], [0, 0]], atol=1e-6)
    assert by_teacher is None


def test_the_distillation_loss_is_float32_in_half_precision():
    logits = tf.constant([[0.0, 20.0]], tf.float16)
    loss = objectives.distillation_loss(logits, -logits, 1.0)
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, 20.0, rtol=1e-6)


@pytest.mark.parametrize("teacher", [(2, 1), (2,), (1, 3), (2, 4)])
def test_the_distillation_loss_refuses_shapes_that_would_broadcast(teacher):
    with pytest.raises(ValueError, match="`teacher_logits`"):
        objectives.distillation_loss(tf.zeros((2, 3)), tf.zeros(teacher))


def test_the_target_rate_loss_by_hand():
    # (0.2^2 + 0.3^2 + 0.7^2) / 3; gradient 2 (rate - target) / 3.
    rates = tf.constant([0.5, 1.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(rates)
        loss = objectives.target_rate_loss(rates, 0.7)
    np.testing.assert_allclose(loss, 0.62 / 3, rtol=1e-6)
    np.testing.assert_allclose(
        tape.gradient(loss, rates), [-0.4 / 3, 0.6 / 3, -1.4 / 3], rtol=1e-6
    )
    each = objectives.target_rate_loss(rates, [0.5, 0.0, 1.0])
    np.testing.assert_allclose(each, 2 / 3, rtol=1e-6)


@pytest.mark.parametrize("target", [[0.5], [0.5, 0.5], [[0.5, 0.5, 0.5]]])
def test_targets_of_another_number_of_gates_are_refused(target):
    with pytest.raises(ValueError, match="`target`.*, 3. Received: "):
        objectives.target_rate_loss(tf.zeros([3]), target)


@pytest.mark.parametrize(
    ("tightness", "blocks", "gradient"),
    [
        # Spent: 0.2 + 0.2 + 0.25 * 0.6 = 0.55 of 0.6. Even: 0.4 / 0.8.
        # No bounds; gradient 2 * -0.05 * cost.
        (0.0, 0.0, [-0.02, -0.06]),
        # Within [0.25, 0.75]: the first is 0.25 above, 2 * 0.25 / 2.
        (0.5, 0.25**2 / 2, [0.23, -0.06]),
        # At 0.5: 0.5 above and 0.25 below.
        (1.0, (0.5**2 + 0.25**2) / 2, [0.48, -0.31]),
    ],
)
def test_the_budget_loss_by_hand(tightness, blocks, gradient):
    rates = tf.constant([1.0, 0.25])
    with tf.GradientTape() as tape:
        tape.watch(rates)
        loss = objectives.budget_loss(rates, 0.6, 0.2, [0.2, 0.6], tightness)
    np.testing.assert_allclose(loss, 0.05**2 + blocks, rtol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(loss, rates), gradient, rtol=1e-5, atol=1e-7
    )


def test_the_budget_loss_takes_one_cost_for_each_gate():
    for costs in (tf.ones([3]), tf.ones([2, 1])):
        with pytest.raises(ValueError, match="`costs`.*Received: "):
            objectives.budget_loss(tf.ones([2]), 0.5, 0.1, costs, 1.0)
