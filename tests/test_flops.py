"""Multiply-adds by hand."""

import numpy as np
import pytest
from cases import slow

import skipnet_tf
from skipnet_tf import flops

_CIFAR = (32, 32, 3)
# 32 * 32 pixels * 9 * 16 * 16, twice; the same in groups 2 and 3, where a
# quarter of the pixels meets four times the products.
_BLOCK = 4_718_592
# The first convolution of groups 2 and 3 has half the input channels:
# 16 * 16 * 9 * 16 * 32 + 16 * 16 * 9 * 32 * 32.
_FIRST = 3_538_944
_PROJECTION = 131_072  # 16 * 16 * 16 * 32
_STEM = 442_368  # 32 * 32 * 27 * 16


# Totals of convolutions: published numbers to four digits; our count has the
# classifier too, 64 * 10.
@pytest.mark.parametrize(("depth", "published"), [(38, 8.328e7), (74, 1.682e8)])
def test_cifar_networks_cost_what_the_paper_says(depth, published):
    counted = flops.count(skipnet_tf.cifar_resnet(depth), _CIFAR)
    n = (depth - 2) // 6
    by_hand = _STEM + (3 * n - 2) * _BLOCK + 2 * (_FIRST + _PROJECTION)
    assert counted.total == by_hand + 640
    assert counted.total == pytest.approx(published, rel=5e-4)
    assert counted.dense == counted.total
    assert len(counted.gates) == 0


@pytest.mark.parametrize(
    ("depth", "gate", "published", "percent"),
    [
        (38, "ff1", 8.328e7, 15.05),
        (38, "ff2", 8.328e7, 12.04),
        (38, "rnn", 8.328e7, 0.024),
        slow(110, "ff2", 2.531e8, 12.35),
        slow(152, "rnn", 3.522e8, 0.0248),
    ],
)
def test_gates_cost_their_published_share(depth, gate, published, percent):
    model = skipnet_tf.cifar_skipnet(depth, gate)
    counted = flops.count(model, _CIFAR)
    assert counted.dense == pytest.approx(published, rel=5e-4)
    share = 100 * counted.gates.sum() / counted.dense
    # Published to two decimals, or three digits.
    digits = 0.00005 if percent == 0.0248 else 0.0005
    assert share == pytest.approx(
        percent, abs=0.005 if gate != "rnn" else digits
    )
    assert counted.total == counted.dense + counted.gates.sum()


def test_every_block_of_skipnet_38_costs_the_same_but_two():
    counted = flops.count(skipnet_tf.cifar_skipnet(38), _CIFAR)
    # Blocks 1 to 17; 6 and 12 begin groups 2 and 3.
    expected = [_FIRST if i in (6, 12) else _BLOCK for i in range(1, 18)]
    np.testing.assert_array_equal(counted.blocks, expected)
    # Stem, block 0, two projections, classifier.
    assert counted.fixed == _STEM + _BLOCK + 2 * _PROJECTION + 640


def test_gates_by_hand():
    # Features after block 0 of each network: 32 x 32 x 16.
    expected = {
        # Pooled to 16 x 16: 256 * 9 * 256; then 8 x 8: 64 * 9 * 256; 16 * 2
        "ff1": 589_824 + 147_456 + 32,
        "ff2": 256 * 9 * 256 + 32,
        "pool": 16 * 10 + 10 * 2,
        # Embedding 16 * 10, LSTM 4 * 10 * (10 + 10), decision 10
        "rnn": 160 + 800 + 10,
    }
    for gate, cost in expected.items():
        model = skipnet_tf.cifar_skipnet(8, gate)
        assert flops.count(model, _CIFAR).gates[0] == cost


@pytest.mark.parametrize(
    ("depth", "published"), [(50, 4.089e9), slow(101, 7.801e9)]
)
def test_imagenet_networks_cost_what_is_published(depth, published):
    counted = flops.count(skipnet_tf.imagenet_resnet(depth), (224, 224, 3))
    assert counted.total == pytest.approx(published, rel=2e-4)


def test_odd_sizes_round_up():
    model = skipnet_tf.cifar_resnet(8)
    counted = flops.count(model, (9, 13, 3))
    # 9 x 13, then 5 x 7, then 3 x 4 pixels.
    np.testing.assert_array_equal(
        counted.blocks,
        [35 * 9 * (16 * 32 + 32 * 32), 12 * 9 * (32 * 64 + 64 * 64)],
    )
    projections = 35 * 16 * 32 + 12 * 32 * 64
    first = 117 * 9 * (16 * 16 + 16 * 16)
    assert counted.fixed == 117 * 27 * 16 + first + projections + 640


@pytest.mark.parametrize("shape", [(32, 32), (0, 32, 3), (None, None, 3)])
def test_unknown_image_sizes_are_refused(shape):
    model = skipnet_tf.cifar_resnet(8)
    with pytest.raises(ValueError, match="`input_shape`.*Received: "):
        flops.count(model, shape)


def test_the_block_ratio_counts_block_0_and_no_gates():
    # (0 + 1) / 4, (2 + 1) / 4, (3 + 1) / 4
    gates = [[0, 0, 0], [1, 0, 1], [1, 1, 1]]
    np.testing.assert_allclose(flops.block_ratio(gates), [0.25, 0.75, 1.0])
