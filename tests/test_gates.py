"""The gates of Sec. 3.1 against plain numpy and Keras."""

import numpy as np
import pytest
import tensorflow as tf
from cases import images

from skipnet_tf import gates

_ALL = (
    gates.FeedForwardGateI,
    gates.FeedForwardGateII,
    gates.PooledGate,
    gates.RecurrentGate,
)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", _ALL)
@pytest.mark.parametrize("size", [(8, 6), (9, 13), (1, 1), (2, 3)])
def test_gates_give_one_float32_logit_for_each_image(kind, size):
    logits, _ = kind()(images(5, *size, 4))
    assert logits.shape == (5,)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("kind", _ALL)
def test_open_gates_start_near_a_log_odds_of_two(kind):
    logits, _ = kind()(images(16, 8, 8, 16), training=True)
    np.testing.assert_allclose(logits, np.full(16, 2.0), atol=0.5)


@pytest.mark.parametrize("kind", _ALL)
def test_published_gates_start_undecided(kind):
    draws = [kind(init="published")(images(16, 8, 8, 16))[0] for _ in range(12)]
    assert abs(np.mean(draws)) < 1
    assert np.std([np.mean(d) for d in draws]) > 0.02


def test_the_pooled_gate_is_two_dense_layers_on_the_mean():
    gate = gates.PooledGate(units=3)
    features = images(5, 4, 6, 7)
    logits, _ = gate(features)
    hidden = features.mean((1, 2)) @ gate.hidden.kernel + gate.hidden.bias
    two = np.maximum(hidden, 0) @ gate.decision.kernel + gate.decision.bias
    # A softmax over (skip, run) is a sigmoid of the difference.
    np.testing.assert_allclose(logits, two[:, 1] - two[:, 0], rtol=1e-5)
    # 7 * 3 + 3 * 2
    assert gate.multiply_adds(4, 6) == gate.multiply_adds(9, 9) == 27


def test_ff_gate_2_is_a_strided_convolution_and_a_dense_layer():
    gate = gates.FeedForwardGateII()
    features = images(5, 7, 6, 4)
    logits, _ = gate(features)
    x = np.maximum(gate.norm1(gate.conv1(features)), 0).mean((1, 2))
    two = x @ gate.decision.kernel + gate.decision.bias
    np.testing.assert_allclose(logits, two[:, 1] - two[:, 0], rtol=1e-5)
    # 4 x 3 pixels * 9 * 4 * 4, and 4 * 2
    assert gate.multiply_adds(7, 6) == 12 * 144 + 8


def test_ff_gate_1_pools_then_convolves_twice():
    gate = gates.FeedForwardGateI()
    features = images(5, 8, 6, 4)
    logits, _ = gate(features)
    x = features.reshape(5, 4, 2, 3, 2, 4).max((2, 4))
    x = np.maximum(gate.norm1(gate.conv1(x)), 0)
    x = np.maximum(gate.norm2(gate.conv2(x)), 0).mean((1, 2))
    two = x @ gate.decision.kernel + gate.decision.bias
    np.testing.assert_allclose(logits, two[:, 1] - two[:, 0], rtol=1e-5)
    # 4 x 3 pixels, then 2 x 2, * 144, and 4 * 2
    assert gate.multiply_adds(8, 6) == (12 + 4) * 144 + 8


def test_the_recurrent_gate_is_an_lstm_step():
    gate = gates.RecurrentGate(units=3, init="published")
    features = images(5, 4, 6, 7)
    state = images(5, 3, seed=1), images(5, 3, seed=2)
    logits, (hidden, cell) = gate(features, state)
    embedded = features.mean((1, 2)) @ gate.embedding.kernel
    embedded = embedded + gate.embedding.bias
    lstm = gate.recurrence.cell
    z = embedded @ lstm.kernel + state[0] @ lstm.recurrent_kernel + lstm.bias
    i, f, g, o = np.split(z, 4, axis=1)
    expected_cell = _sigmoid(f) * state[1] + _sigmoid(i) * np.tanh(g)
    expected = _sigmoid(o) * np.tanh(expected_cell)
    np.testing.assert_allclose(cell, expected_cell, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(hidden, expected, rtol=1e-4, atol=1e-5)
    decision = gate.recurrence.decision
    np.testing.assert_allclose(
        logits,
        (expected @ decision.kernel + decision.bias)[:, 0],
        rtol=1e-4,
        atol=1e-5,
    )
    # 7 * 3, four gates of 3 * (3 + 3), 3
    assert gate.multiply_adds(4, 6) == 21 + 72 + 3


def test_the_recurrent_gate_starts_from_zeros():
    gate = gates.RecurrentGate(units=3)
    features = images(5, 4, 6, 7)
    zeros = np.zeros((5, 3), "float32")
    without, _ = gate(features)
    np.testing.assert_array_equal(without, gate(features, (zeros, zeros))[0])
    np.testing.assert_array_equal(gate.initial_state(5)[1], zeros)


def test_a_state_travels_and_changes_later_decisions():
    gate = gates.RecurrentGate(init="published")
    features = images(5, 4, 6, 7)
    first, state = gate(features)
    second, _ = gate(features, state)
    assert not np.allclose(first, second)


def test_gates_without_memory_return_the_state_as_it_came():
    for kind in _ALL[:3]:
        gate = kind()
        assert gate.initial_state(4) is None
        state = tf.zeros([2, 3])
        assert gate(images(2, 4, 4, 4), state)[1] is state


def test_bad_arguments_are_named():
    for kind in (*_ALL, gates.Recurrence):
        with pytest.raises(ValueError, match="`init`.*Received: init='half'"):
            kind(init="half")
    for kind in (gates.PooledGate, gates.RecurrentGate, gates.Recurrence):
        for units in (0, -1, 2.5):
            with pytest.raises(ValueError, match="`units`.*Received: "):
                kind(units=units)
