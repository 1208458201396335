"""Residual blocks and their gated execution (Eq. 1)."""

import numpy as np
import pytest
import tensorflow as tf
from cases import images

from skipnet_tf import blocks
from skipnet_tf import ops

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


def test_a_bottleneck_strides_on_its_first_convolution_if_told():
    block = blocks.BottleneckBlock(2, strides=2, stride_on="1x1")
    inputs = images(2, 5, 6, 4)
    outputs = block(inputs)
    assert outputs.shape == (2, 3, 3, 8)
    assert [c.strides[0] for c in block.convolutions] == [2, 1, 1]
    # Only every second pixel is read.
    skipped = inputs.copy()
    skipped[:, 1::2] = skipped[:, :, 1::2] = 7
    np.testing.assert_array_equal(block(skipped), outputs)
    # The first 1x1 is at 3 x 3 pixels, too.
    assert block.multiply_adds(5, 6) == (
        9 * 4 * 2 + 9 * 9 * 2 * 2 + 9 * 2 * 8,
        9 * 4 * 8,
    )


def test_a_stride_on_a_kernel_that_a_block_lacks_is_refused():
    for kind, stride_on in (
        (blocks.BasicBlock, "1x1"),
        (blocks.BottleneckBlock, "5x5"),
    ):
        with pytest.raises(ValueError, match="`stride_on`.*Received: "):
            kind(4, strides=2, stride_on=stride_on)


def test_multiply_adds_of_a_bottleneck_by_hand():
    block = blocks.BottleneckBlock(2, strides=2)
    block.build((None, None, None, 4))
    # 1x1 on 5 x 6 pixels, 3x3 to 3 x 3 pixels, 1x1 there; the projection.
    assert block.multiply_adds(5, 6) == (
        30 * 4 * 2 + 9 * 9 * 2 * 2 + 9 * 2 * 8,
        9 * 4 * 8,
    )


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("execution", ops.EXECUTIONS)
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
    for execution in ops.EXECUTIONS:
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


def test_masked_training_takes_statistics_of_all_rows():
    statistics = []
    inputs = images(5, 6, 7, 4)
    gated = blocks.GatedBlock(_block("basic"))
    gated.build((None, None, None, 4))
    start = gated.get_weights()
    for decisions in (tf.ones([5]), tf.zeros([5])):
        gated.set_weights(start)
        gated(inputs, decisions, training=True)
        statistics.append(gated.get_weights())
    for one, other in zip(*statistics):
        np.testing.assert_array_equal(one, other)
    assert any(not np.array_equal(a, b) for a, b in zip(start, statistics[0]))


def _trained(block, inputs, decisions, execution):
    """Outputs, gradients and statistics of one training step in a graph."""
    gated = blocks.GatedBlock(block)
    gated.build(inputs.shape)
    start = gated.get_weights()

    @tf.function
    def step(inputs, decisions):
        with tf.GradientTape() as tape:
            tape.watch([inputs, decisions])
            outputs = gated(
                inputs, decisions, training=True, execution=execution
            )
            loss = tf.reduce_sum(tf.sin(outputs))
        wanted = [inputs, decisions, *gated.trainable_variables]
        return outputs, tape.gradient(
            loss, wanted, unconnected_gradients="zero"
        )

    outputs, gradients = step(tf.constant(inputs), tf.constant(decisions))
    moving = [w.numpy() for w in gated.non_trainable_variables]
    gated.set_weights(start)
    return outputs.numpy(), [g.numpy() for g in gradients], moving


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_conditional_training_is_a_step_on_the_rows_that_run(kind):
    # A block without projection: skipped rows pass gradients and nothing else.
    block = {
        "basic": blocks.BasicBlock(4),
        "bottleneck": blocks.BottleneckBlock(1),
    }[kind]
    inputs, runs = images(5, 6, 7, 4), _DECISIONS.numpy() == 1
    outputs, gradients, moving = _trained(
        block, inputs, _DECISIONS, "conditional"
    )
    kept, (kept_inputs, _, *kept_weights), kept_moving = _trained(
        block, inputs[runs], np.ones(3, "float32"), "masked"
    )
    np.testing.assert_allclose(outputs[runs], kept, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outputs[~runs], inputs[~runs])
    to_inputs, to_decisions, *to_weights = gradients
    np.testing.assert_allclose(to_inputs[runs], kept_inputs, 1e-4, 1e-4)
    np.testing.assert_allclose(to_inputs[~runs], np.cos(inputs[~runs]), 1e-5)
    np.testing.assert_array_equal(to_decisions, np.zeros(5))
    for one, other in zip(to_weights, kept_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    for one, other in zip(moving, kept_moving, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_block_that_nobody_runs_keeps_its_statistics_and_gets_no_gradient():
    block, inputs = blocks.BasicBlock(4), images(5, 6, 7, 4)
    block.build((None, None, None, 4))
    before = [w.numpy() for w in block.non_trainable_variables]
    outputs, gradients, moving = _trained(
        block, inputs, np.zeros(5, "float32"), "conditional"
    )
    np.testing.assert_array_equal(outputs, inputs)
    np.testing.assert_allclose(gradients[0], np.cos(inputs), rtol=1e-5)
    for gradient in gradients[1:]:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
    for one, other in zip(moving, before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_projection_is_trained_on_all_rows():
    # Nobody runs the block: its shortcut is all there is.
    block, inputs = _block("basic"), images(5, 6, 7, 4)
    results = [
        _trained(block, inputs, np.zeros(5, "float32"), execution)
        for execution in ops.EXECUTIONS
    ]
    conditional, masked = results
    np.testing.assert_allclose(conditional[0], masked[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        conditional[1][0], masked[1][0], rtol=1e-4, atol=1e-5
    )
    # Only the statistics of the projection have moved.
    gated = blocks.GatedBlock(block)
    gated(inputs, tf.zeros([5]), training=True, execution="conditional")
    assert np.any(block.projection_norm.moving_mean)
    assert not np.any(block.norms[0].moving_mean)


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
    for execution in ops.EXECUTIONS:
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
