"""By how much answers may differ from those of a reference."""

import copy

import numpy as np
import pytest

from skipnet_tf import verification
from skipnet_tf.verification import VerificationError

ANSWER = {
    "gates": np.array([[1, 0], [0, 0]], "float32"),
    "gate_probabilities": np.array([[0.9, 0.1], [0.2, 0.3]], "float32"),
    "macs": np.array([7, 5]),
    "logits": np.array([[2.0, -1.0], [0.5, 1.0]], "float32"),
}
HALVES = np.full(2, 0.5, np.float32)


def changed(name, index, value):
    """`ANSWER` with another number."""
    answer = copy.deepcopy(ANSWER)
    answer[name][index] = value
    return answer


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (changed("gates", (1, 0), 1), "gates are not those of the twin"),
        (changed("macs", 0, 6), "macs are not those of the twin"),
        # The largest is 2: 3e-4 is more than a ten-thousandth of it.
        (changed("logits", (1, 1), 1.0003), "logits differ.*of the twin"),
        (changed("logits", (1, 1), np.nan), "logits differ.*by nan"),
    ],
)
def test_answers_that_differ_are_told_apart(got, message):
    with pytest.raises(VerificationError, match=message):
        verification.compare(ANSWER, got, HALVES, "float32", "the twin")


def test_answers_may_differ_by_rounding_and_next_to_a_threshold():
    verification.compare(ANSWER, ANSWER, HALVES, "float32", "the twin")
    rounded = changed("logits", (1, 1), 1.0001)
    verification.compare(ANSWER, rounded, HALVES, "float32", "the twin")
    # The second image's probability of 0.3 is its threshold: anything goes.
    turned = changed("gates", (1, 1), 1)
    turned["logits"][1] = 100
    near = np.array([0.5, 0.3], np.float32)
    verification.compare(ANSWER, turned, near, "float32", "the twin")
    with pytest.raises(VerificationError):
        verification.compare(ANSWER, turned, HALVES, "float32", "the twin")
