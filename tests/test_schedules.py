"""Schedules, value by value."""

import keras
import numpy as np
import pytest

from skipnet_tf import schedules


def _values(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_step_decay_divides_by_ten_at_each_milestone():
    schedule = schedules.step_decay(0.1, 64_000, (0.5, 0.75))
    got = _values(schedule, (0, 32_000, 32_001, 48_000, 48_001, 64_000))
    np.testing.assert_allclose(
        got, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6
    )


def test_cosine_falls_from_the_learning_rate_to_zero():
    # (1 + cos(pi / 3)) / 2 = 0.75 after a third.
    got = _values(schedules.cosine(0.2, 300), (0, 100, 150, 300, 400))
    np.testing.assert_allclose(got, [0.2, 0.15, 0.1, 0, 0], atol=1e-7)


def test_warm_up_is_a_line_to_what_follows():
    after = schedules.step_decay(0.4, 100, (0.5,))
    got = _values(schedules.WarmUp(after, 4), (0, 1, 3, 4, 50, 51))
    np.testing.assert_allclose(got, [0.1, 0.2, 0.4, 0.4, 0.4, 0.04], rtol=1e-6)


def test_warm_up_can_be_constant():
    after = schedules.step_decay(0.1, 64_000, (0.5, 0.75))
    schedule = schedules.WarmUp(after, 400, constant=0.01)
    np.testing.assert_allclose(
        _values(schedule, (0, 399, 400)), [0.01, 0.01, 0.1], rtol=1e-6
    )


def test_a_ramp_stays_at_its_end():
    got = _values(schedules.Ramp(0.1, 0.5, 10), (0, 5, 10, 20))
    np.testing.assert_allclose(got, [0.1, 0.3, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.WarmUp(schedules.cosine(0.2, 30), 4, 0.05),
        schedules.WarmUp(schedules.cosine(0.2, 30), 4),
        schedules.Ramp(1.0, 0.0, 7),
    ],
)
def test_schedules_survive_serialisation(schedule):
    config = keras.saving.serialize_keras_object(schedule)
    again = keras.saving.deserialize_keras_object(config)
    steps = range(0, 35, 3)
    assert _values(again, steps) == _values(schedule, steps)
    assert type(again) is type(schedule)
