"""Every way to turn gate logits into decisions."""

import numpy as np
import pytest
import tensorflow as tf

from skipnet_tf import policy

_SEED = tf.constant([3, 4])


def test_relaxed_decisions_round_and_pass_the_sigmoids_gradient():
    logits = tf.constant([-1.0, 0.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        decisions = policy.Relaxed()(logits, 0)
    np.testing.assert_array_equal(decisions, [0, 1, 1])
    # p (1 - p): 0.268941 * 0.731059, 0.5 * 0.5, 0.880797 * 0.119203
    np.testing.assert_allclose(
        tape.gradient(decisions, logits), [0.196612, 0.25, 0.104994], rtol=1e-5
    )


def test_soft_decisions_are_probabilities():
    decisions = policy.Soft()(tf.math.log([3.0, 1.0]), 0)
    np.testing.assert_allclose(decisions, [0.75, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    "make", [policy.Sampled, lambda seed: policy.Gumbel(seed, 0.5)]
)
def test_samples_follow_the_probabilities(make):
    # p = 0.2: 20,000 draws have mean 4,000 and deviation
    # sqrt(20,000 * 0.2 * 0.8) = 56.6; 4 deviations are 226.
    logits = tf.fill([20_000], tf.math.log(0.25))
    decisions = make(_SEED)(logits, 0)
    assert decisions.dtype == tf.float32
    assert set(np.unique(decisions)) == {0.0, 1.0}
    assert abs(decisions.numpy().sum() - 4_000) < 226


@pytest.mark.parametrize(
    "make",
    [policy.Sampled, policy.Gumbel, lambda seed: policy.Random(0.5, seed)],
)
def test_equal_seeds_draw_equally_and_others_differently(make):
    logits = tf.zeros([100])
    first = make(_SEED)(logits, 0)
    np.testing.assert_array_equal(make(_SEED)(logits, 0), first)
    assert not np.array_equal(make(_SEED)(logits, 1), first)
    assert not np.array_equal(make(_SEED + 1)(logits, 0), first)


def test_bounds_leave_either_decision_a_chance():
    # 0.1 + 0.8 * 0.2 = 0.26, and limits of 0.1 and 0.9.
    logits = tf.constant([np.log(0.25), -100.0, 100.0], tf.float32)
    bounded = policy.bounded(logits, 0.1)
    expected = np.log([0.26 / 0.74, 0.1 / 0.9, 0.9 / 0.1])
    np.testing.assert_allclose(bounded, expected, rtol=1e-5)
    assert policy.bounded(logits, 0.0) is logits
    decisions = policy.Sampled(_SEED, 0.1)(tf.fill([10_000], -100.0), 0)
    # sqrt(10,000 * 0.1 * 0.9) = 30.
    assert abs(decisions.numpy().sum() - 1_000) < 120


def test_samples_carry_no_gradient():
    logits = tf.zeros([10])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        decisions = policy.Sampled(_SEED)(logits, 0)
    assert tape.gradient(decisions, logits) is None


def test_gumbel_decisions_have_the_gradient_of_a_relaxed_sample():
    # Relaxed samples y at logit 0 and temperature 1 are uniform: the gradient
    # y (1 - y) has mean 1 / 6 and variance 1 / 30 - 1 / 36 = 1 / 180; four
    # deviations of the mean of 20,000 are 0.0021. At most it is 1 / (4 T).
    logits, gradients = tf.zeros([20_000]), {}
    for temperature in (1.0, 0.25):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            decisions = policy.Gumbel(_SEED, temperature)(logits, 0)
        gradients[temperature] = tape.gradient(decisions, logits).numpy()
        assert gradients[temperature].min() >= 0
    assert abs(gradients[1.0].mean() - 1 / 6) < 0.0021
    assert gradients[1.0].max() == pytest.approx(0.25, rel=1e-4)
    assert gradients[0.25].max() == pytest.approx(1.0, rel=1e-4)


def test_the_temperature_changes_no_gumbel_decision():
    logits = tf.linspace(-2.0, 2.0, 100)
    warm, cold = (policy.Gumbel(_SEED, t)(logits, 3) for t in (2.0, 0.1))
    np.testing.assert_array_equal(warm, cold)
    assert 0 < np.mean(warm) < 1


def test_thresholds_run_a_block_at_exactly_the_threshold():
    logits = tf.constant([-0.01, 0.0, 0.01])
    np.testing.assert_array_equal(policy.Thresholded()(logits, 0), [0, 1, 1])
    # sigmoid(log 3) = 0.75
    logits = tf.math.log([2.9, 3.1])
    np.testing.assert_array_equal(policy.Thresholded(0.75)(logits, 0), [0, 1])
    each = tf.constant([0.7, 0.8])
    np.testing.assert_array_equal(policy.Thresholded(each)(logits, 0), [1, 0])


def test_random_decisions_ignore_logits_and_skip_at_the_rate():
    # 0.7 of 20,000 run: deviation sqrt(20,000 * 0.3 * 0.7) = 64.8, 4: 259.
    low, high = tf.fill([20_000], -9.0), tf.fill([20_000], 9.0)
    decisions = policy.Random(0.3, _SEED)(low, 0)
    np.testing.assert_array_equal(policy.Random(0.3, _SEED)(high, 0), decisions)
    assert abs(decisions.numpy().sum() - 14_000) < 259


def test_random_rates_of_zero_and_one_are_exact():
    logits = tf.zeros([1000])
    assert policy.Random(0.0, _SEED)(logits, 0).numpy().min() == 1
    assert policy.Random(1.0, _SEED)(logits, 0).numpy().max() == 0


def test_whole_batches_share_one_random_draw():
    draws = [
        policy.Random(0.5, _SEED, whole_batch=True)(tf.zeros([50]), gate)
        for gate in range(20)
    ]
    assert all(len(np.unique(draw)) == 1 for draw in draws)
    assert {float(draw[0]) for draw in draws} == {0.0, 1.0}


def test_forced_decisions_are_the_gates_column():
    actions = tf.constant([[1, 0], [0, 0], [1, 1]])
    for gate, expected in enumerate(([1, 0, 1], [0, 0, 1])):
        decisions = policy.Forced(actions)(tf.zeros([3]), gate)
        np.testing.assert_array_equal(decisions, expected)
        assert decisions.dtype == tf.float32


def decided(policy, logits):
    """What a policy decides of logits `(batch, gates)`, gate by gate."""
    gates = range(logits.shape[1])
    return np.stack([policy(logits[:, gate], gate) for gate in gates], axis=1)


@pytest.mark.parametrize(
    "threshold",
    [0.0, 1e-30, 0.3, 0.5, 0.9, 1.0, tf.constant([0.0, 0.2, 0.5, 0.7, 1.0])],
    ids=lambda value: str(np.array(value)),
)
def test_cutoffs_decide_what_thresholds_do(threshold):
    thresholded = policy.Thresholded(threshold)
    cutoffs = thresholded.cutoffs(tf.constant(5), 4)
    assert cutoffs.dtype == tf.float32 and cutoffs.shape == (5, 4)
    # Up to where a float32 probability would be 1.
    logits = tf.constant(np.linspace(-15, 15, 20).reshape(5, 4), tf.float32)
    np.testing.assert_array_equal(
        logits >= cutoffs, decided(thresholded, logits)
    )


def test_cutoffs_of_thresholds_are_log_odds():
    cutoffs = policy.Thresholded(tf.constant([0.0, 0.5, 0.75, 1.0]))
    # 0.75 is three to one; 0.5 is 0 without an error, as a logit may be.
    expected = [[-np.inf], [0], [np.log(3)], [np.inf]]
    got = cutoffs.cutoffs(tf.constant(4), 1).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "imposed",
    [
        policy.Forced(tf.constant([[1, 0, 1], [0, 0, 1], [1, 1, 0]])),
        policy.Forced(tf.constant([[0.0, 1.0, 1.0]] * 3)),
        policy.Random(0.5, _SEED),
        policy.Random(
            0.5,
            _SEED,
            images=tf.random.stateless_normal([3, 2, 2, 3], [1, 2]),
        ),
        policy.Random(0.5, _SEED, whole_batch=True),
    ],
    ids=["ints", "floats", "random", "images", "batch"],
)
def test_cutoffs_impose_what_is_decided_in_advance(imposed):
    cutoffs = imposed.cutoffs(tf.constant(3), 3)
    expected = decided(imposed, tf.zeros([3, 3]))
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(
        cutoffs, np.where(expected, -np.inf, np.inf).astype("float32")
    )


def test_an_image_draws_the_same_decisions_in_every_batch():
    images = tf.random.stateless_normal([2000, 2, 2, 3], [1, 2])
    everything = policy.Random(0.3, _SEED, images=images)
    logits = tf.zeros([2000])
    first, second = everything(logits, 0).numpy(), everything(logits, 1).numpy()
    alone = [
        policy.Random(0.3, _SEED, images=images[i : i + 1])(logits[:1], 0)[0]
        for i in range(8)
    ]
    np.testing.assert_array_equal(first[:8], alone)
    # 1,400 of 2,000 run: deviation sqrt(2000 * 0.3 * 0.7) = 20.5, 4 are 82.
    assert abs(first.sum() - 1400) < 82
    # Independent gates agree in 0.7^2 + 0.3^2 = 0.58 of the images, 1,160.
    assert abs((first == second).sum() - 1160) < 88
