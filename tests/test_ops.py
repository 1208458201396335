"""Operations with gradients of their own, number by number (Eq. 1, 7)."""

import numpy as np
import pytest
import tensorflow as tf
from cases import images

from skipnet_tf import ops


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_straight_through_rounds_forward_with_gradient_one(dtype, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def both(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            hard = ops.straight_through(values)
            total = tf.reduce_sum(hard * tf.cast([1, 2, 3, 4, 5], dtype))
        return hard, tape.gradient(total, values)

    # A probability of exactly one half runs its block (Eq. 7).
    hard, gradient = both(tf.cast([0.0, 0.496, 0.5, 0.504, 1.0], dtype))
    assert hard.dtype == gradient.dtype == tf.as_dtype(dtype)
    np.testing.assert_array_equal(tf.cast(hard, tf.float32), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(
        tf.cast(gradient, tf.float32), [1, 2, 3, 4, 5]
    )


def test_straight_through_takes_any_threshold():
    values = tf.constant([[0.2, 0.6], [0.4, 0.8]])
    np.testing.assert_array_equal(
        ops.straight_through(values, 0.7), [[0, 0], [0, 1]]
    )
    each = tf.constant([[0.1], [0.5]])
    np.testing.assert_array_equal(
        ops.straight_through(values, each), [[1, 1], [0, 1]]
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_spatial_means_are_summed_in_float32(dtype):
    # 4,096 ones: a sum in bfloat16, of 8 bits, would never pass 256.
    maps = np.ones((1, 64, 64, 2)) * [1, 3]
    means = ops.spatial_mean(tf.constant(maps, dtype))
    assert means.dtype == tf.float32
    np.testing.assert_array_equal(means, [[1, 3]])


def test_a_tap_adds_the_gradients_of_features_and_means():
    maps = tf.constant(images(2, 3, 4, 5))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        features, means = ops.tap(maps)
        total = tf.reduce_sum(means * tf.range(5.0)) + tf.reduce_sum(
            tf.sin(features)
        )
    np.testing.assert_array_equal(features, maps)
    np.testing.assert_allclose(means, np.mean(maps, (1, 2)), rtol=1e-5)
    # A channel's weight over the 12 pixels, and what comes from the features.
    expected = np.arange(5) / 12 + np.cos(maps)
    np.testing.assert_allclose(tape.gradient(total, maps), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "decisions", [[1, 1, 1], [1, 0, 1], [0, 0, 0], [0.25, 1, 0.5]]
)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_mix_and_its_gradients_are_those_of_equation_1(
    decisions, jit_compile
):
    outputs, shortcut = images(3, 2, 2, 4), images(3, 2, 2, 4, seed=1)
    share = np.float32(decisions)[:, None, None, None]

    @tf.function(jit_compile=jit_compile)
    def both(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(tf.sin(ops.mix(*inputs)))
        return ops.mix(*inputs), tape.gradient(total, inputs)

    mixed, gradients = both(
        *(tf.constant(v, tf.float32) for v in (outputs, shortcut, decisions))
    )
    expected = share * outputs + (1 - share) * shortcut
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)
    above = np.cos(expected)
    gain = np.sum((outputs - shortcut) * above, (1, 2, 3))
    for gradient, by_hand in zip(
        gradients, (share * above, (1 - share) * above, gain), strict=True
    ):
        np.testing.assert_allclose(gradient, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("channels", [4, 3])  # 3: half precision not in pairs
def test_rows_come_back_to_their_places(dtype, channels):
    inputs = tf.cast(images(4, 2, 2, channels), dtype)

    @tf.function
    def doubled(inputs, runs):
        rows = ops.Rows(runs)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            kept, rest = rows.split(inputs)
            merged = rows.merge(rest, 2 * kept)
        return kept, merged, tape.gradient(merged, inputs)

    before = inputs.numpy().copy()
    for runs in ([True, False, False, True], [True] * 4, [False] * 4):
        kept, merged, gradient = doubled(inputs, tf.constant(runs))
        factor = np.where(runs, 2, 1).astype(before.dtype)[:, None, None, None]
        np.testing.assert_array_equal(kept, before[runs])
        np.testing.assert_array_equal(merged, before * factor)
        np.testing.assert_array_equal(
            gradient, np.broadcast_to(factor, before.shape)
        )
        np.testing.assert_array_equal(inputs, before)  # was not written to


def test_what_others_still_hold_is_not_written_to():
    @tf.function
    def twice(inputs):
        # Fresh tensors, which nobody outside of the graph holds.
        first = inputs + 1
        rows = ops.Rows(tf.constant([False, True]))
        _, rest = rows.split(first)
        second = rows.merge(rest, tf.zeros([1, 1, 1, 2]))
        return first, second, tf.reduce_sum(first)

    first, second, total = twice(tf.zeros([2, 1, 1, 2]))
    np.testing.assert_array_equal(first, np.ones((2, 1, 1, 2)))
    np.testing.assert_array_equal(second[:, 0, 0, 0], [1, 0])
    assert float(total) == 4
