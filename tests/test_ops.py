"""Eq. 7: rounds forward, lets gradients pass backward."""

import numpy as np
import pytest
import tensorflow as tf

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
