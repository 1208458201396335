"""Statistics of decisions and images."""

import numpy as np
import pytest
from scipy import stats

from skipnet_tf.analysis import findings

GATES = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1]], "float32")


def test_entropy_of_paths_taken_by_2_1_and_1_of_4_images():
    # 1/2 * 1 bit + 2 * 1/4 * 2 bits
    assert findings.policy_entropy(GATES) == pytest.approx(1.5)
    assert findings.policy_entropy(GATES[:2]) == 0.0


def test_two_of_three_gates_look_at_the_image():
    assert findings.input_dependent(GATES) == pytest.approx(2 / 3)
    assert findings.input_dependent(GATES[:2]) == 0.0


def test_brightness_contrast_and_sharpness_by_hand():
    images = np.zeros([2, 4, 3, 3], np.uint8)
    images[0] = 7
    images[1, 1, 1] = 16  # one grey spot among 12 pixels
    found = findings.image_statistics(images)
    np.testing.assert_allclose(found["brightness"], [7, 16 / 12])
    # E[x^2] - E[x]^2
    spot = np.sqrt(16**2 / 12 - (16 / 12) ** 2)
    np.testing.assert_allclose(found["contrast"], [0, spot], atol=1e-9)
    # Laplacian at the two inner pixels: -4 * 16 and 16.
    np.testing.assert_allclose(found["sharpness"], [0, 40**2], atol=1e-9)


def test_a_tenth_is_easy_and_ties_belong_to_it():
    executed = np.array([1, 1, 2, 3, 3, 3, 3, 4, 5, 9])
    easy, hard = findings.easy_and_hard(executed)
    assert np.flatnonzero(easy).tolist() == [0, 1]
    assert np.flatnonzero(hard).tolist() == [9]
    rare = np.array([3] * 50 + [2])
    easy, hard = findings.easy_and_hard(rare)
    assert easy.sum() == 1 and hard.sum() == 50
    easy, hard = findings.easy_and_hard(np.full(5, 3))
    assert not easy.any() and not hard.any()


def test_difference_of_two_means_by_hand():
    found = findings.difference(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0]))
    assert (found["first"], found["second"]) == (2.0, 1.0)
    # Variances 2 and 1; the error is sqrt(2 / 2 + 1 / 3).
    margin = 1.96 * np.sqrt(4 / 3)
    assert found["low"] == pytest.approx(1 - margin, abs=1e-3)
    assert found["high"] == pytest.approx(1 + margin, abs=1e-3)
    assert found["deviation"] == pytest.approx(np.sqrt(1.5))


def test_rank_correlation_is_that_of_scipy():
    random = np.random.default_rng(0)
    first, second = random.integers(0, 5, (2, 30))
    expected = stats.spearmanr(first, second).statistic
    assert findings.spearman(first, second) == pytest.approx(expected)
    assert np.isnan(findings.spearman(first, np.ones(30)))


def test_interval_of_a_rank_correlation_by_hand():
    first = np.array([1, 2, 3, 4, 5, 6, 7])
    found = findings.rank_correlation(first, np.array([2, 1, 4, 3, 6, 5, 7]))
    # Of seven with three neighbours swapped: 1 - 6 * 6 / (7 * 48).
    rho = 1 - 36 / 336
    margin = 1.96 * np.sqrt((1 + rho**2 / 2) / 4)
    assert found["rho"] == pytest.approx(rho)
    assert found["low"] == pytest.approx(
        np.tanh(np.arctanh(rho) - margin), 1e-3
    )
    assert found["high"] == pytest.approx(
        np.tanh(np.arctanh(rho) + margin), 1e-3
    )
    # Few classes prove little, in perfect order, too.
    perfect = findings.rank_correlation(first[:4], -first[:4])
    assert perfect["rho"] == perfect["low"] == -1 and perfect["high"] > 0
    assert findings.rank_correlation(first, first)["low"] > 0
    assert np.isnan(findings.rank_correlation(first, np.ones(7))["low"])
    assert np.isnan(findings.rank_correlation(first[:3], first[:3])["rho"])


def test_interval_of_a_mean_by_hand():
    low, mean, high = findings.mean_interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2.0
    assert high - mean == pytest.approx(1.96 / np.sqrt(3), abs=1e-3)
    assert mean - low == pytest.approx(high - mean)
    assert findings.mean_interval(np.array([5])) == (5, 5, 5)


def test_a_line_through_points_on_it():
    x = np.array([1.0, 2.0, 4.0])
    assert findings.fit_line(x, 3 * x - 1) == pytest.approx((3, -1))
