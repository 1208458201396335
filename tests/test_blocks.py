"""Residual blocks and their gated execution (Eq. 1)."""

import numpy as np
import pytest
import tensorflow as tf
from cases import images

from skipnet_tf import blocks

_DECISIONS = tf.constant([1.0, 0.0, 0.0, 1.0, 1.0])


def _block(kind):
    """Both kinds give 8 channels; from 4 they project."""
    if kind == "basic":
        return blocks.BasicBlock(8, strides=2)
    return blocks.BottleneckBlock(2, strides=2)


def test_a_basic_block_is_two_convolutions_and_its_input():
    block = blocks.BasicBlock(4)
    inputs = images(2, 5, 6, 4)
    outputs = block(inputs)
    x = tf.nn.relu(block.norms[0](block.convolutions[0](inputs)))
    x = block.norms[1](block.convolutions[1](x))
    np.testing.assert_allclose(outputs, tf.nn.relu(x + inputs), rtol=1e-6)
    assert block.projection is None


def test_a_bottleneck_strides_on_its_3x3_convolution():
    block = blocks.BottleneckBlock(2, strides=2)
    outputs = block(images(2, 5, 6, 4))
    assert outputs.shape == (2, 3, 3, 8)
    kernels = [c.kernel.shape for c in block.convolutions]
    assert kernels == [(1, 1, 4, 2), (3, 3, 2, 2), (1, 1, 2, 8)]
    assert [c.strides[0] for c in block.convolutions] == [1, 2, 1]
    assert block.projection.kernel.shape == (1, 1, 4, 8)


def test_multiply_adds_of_a_bottleneck_by_hand():
    block = blocks.BottleneckBlock(2, strides=2)
    block.build((None, None, None, 4))
    # 1x1 on 5 x 6 pixels, 3x3 to 3 x 3 pixels, 1x1 there; the projection.
    assert block.multiply_adds(5, 6) == (
        30 * 4 * 2 + 9 * 9 * 2 * 2 + 9 * 2 * 8,
        9 * 4 * 8,
    )


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("execution", blocks.EXECUTIONS)
def test_a_gated_block_runs_where_it_is_told(kind, execution):
    block = _block(kind)
    gated = blocks.GatedBlock(block)
    inputs = images(5, 6, 7, 4)
    outputs = gated(inputs, _DECISIONS, execution=execution)
    full, skipped = block(inputs), block.shortcut(inputs)
    for row, runs in enumerate(_DECISIONS.numpy()):
        expected = full[row] if runs else skipped[row]
        np.testing.assert_allclose(outputs[row], expected, rtol=1e-5, atol=1e-5)
    # A skipped projection does not pass a ReLU.
    assert outputs.numpy()[1].min() < 0


def test_a_skipped_block_without_projection_is_the_identity():
    gated = blocks.GatedBlock(blocks.BasicBlock(4))
    inputs = images(5, 6, 7, 4)
    for execution in blocks.EXECUTIONS:
        outputs = gated(inputs, tf.zeros([5]), execution=execution)
        np.testing.assert_array_equal(outputs, inputs)


def test_soft_decisions_mix_both_terms_of_equation_1():
    block = _block("basic")
    gated = blocks.GatedBlock(block)
    inputs = images(5, 6, 7, 4)
    mix = np.linspace(0, 1, 5).astype("float32")
    outputs = gated(inputs, mix, execution="masked")
    share = mix[:, None, None, None]
    expected = share * block(inputs) + (1 - share) * block.shortcut(inputs)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_training_takes_statistics_of_all_rows():
    statistics = []
    inputs = images(5, 6, 7, 4)
    gated = blocks.GatedBlock(_block("basic"))
    gated.build((None, None, None, 4))
    start = gated.get_weights()
    for decisions in (tf.ones([5]), tf.zeros([5])):
        gated.set_weights(start)
        gated(inputs, decisions, training=True, execution="conditional")
        statistics.append(gated.get_weights())
    for one, other in zip(*statistics):
        np.testing.assert_array_equal(one, other)
    assert any(not np.array_equal(a, b) for a, b in zip(start, statistics[0]))


def _computed_rows(gated, inputs, decisions):
    """Rows of the first convolution's input, one entry for each run."""
    rows = []
    convolution = gated.block.convolutions[0]
    original = type(convolution).call

    def counting(self, values):
        if self is convolution:
            tf.py_function(lambda v: rows.append(len(v)), [values], [])
        return original(self, values)

    type(convolution).call = counting
    try:
        tf.function(gated)(inputs, decisions)
    finally:
        type(convolution).call = original
    return rows


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [([1, 0, 0, 1, 1], [3]), ([0] * 5, []), ([1] * 5, [5])],
)
def test_conditional_execution_computes_only_what_runs(decisions, expected):
    gated = blocks.GatedBlock(_block("basic"))
    inputs = tf.constant(images(5, 6, 7, 4))
    gated.build(inputs.shape)
    decisions = tf.constant(decisions, tf.float32)
    assert _computed_rows(gated, inputs, decisions) == expected


def test_conditional_execution_passes_gradients():
    gated = blocks.GatedBlock(_block("basic"))
    inputs = tf.constant(images(5, 6, 7, 4))
    gradients = []
    for execution in blocks.EXECUTIONS:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = gated(inputs, _DECISIONS, execution=execution)
            loss = tf.reduce_sum(tf.sin(outputs))
        gradients.append(
            tape.gradient(loss, [inputs, *gated.trainable_variables])
        )
    for one, other in zip(*gradients):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_an_unknown_execution_is_refused():
    gated = blocks.GatedBlock(_block("basic"))
    with pytest.raises(ValueError, match="`execution`.*Received: "):
        gated(images(5, 6, 7, 4), _DECISIONS, execution="sparse")
