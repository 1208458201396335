"""Sizes of the paper's networks, what they are made from and start as."""

import numpy as np
import pytest
import tensorflow as tf
from cases import GATES
from cases import divide_opinions
from cases import images
from cases import skipnet
from cases import slow
from cases import trained

import skipnet_tf
from skipnet_tf import frozen
from skipnet_tf import models
from skipnet_tf.resnet import ResNet


def _parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def _last_gate(gate, channels):
    """Parameters of the gate after the last block, which nobody reads.

    The published networks own one and count it; ours do not have it.
    """
    if gate == "rnn":  # dense layer from the channels to 10, with bias
        return channels * 10 + 10
    # 3x3 convolutions and scale and shift of their normalisation, then a
    # dense layer to (skip, run) with bias.
    convolutions = {"ff1": 2, "ff2": 1}[gate]
    one = 9 * channels * channels + 2 * channels
    return convolutions * one + channels * 2 + 2


# PyTorch's LSTM has two biases of 4 * 10 numbers where ours has one.
_SECOND_LSTM_BIAS = {"rnn": 40, "ff1": 0, "ff2": 0}


# Counted by instantiating the published modules, as all numbers below.
_CIFAR_RESNETS = {38: 564_122, 74: 1_147_418, 110: 1_730_714, 152: 2_411_226}


def test_cifar_100_adds_ninety_rows_to_the_classifier():
    # 64 weights and a bias each: 90 * 65 = 5,850.
    dense = skipnet_tf.cifar_resnet(38, num_classes=100)
    assert _parameters(dense) == 569_972 == _CIFAR_RESNETS[38] + 5_850


@pytest.mark.parametrize(
    ("depth", "gate", "published"),
    [
        (38, "ff", 1_148_798),
        slow(74, "ff", 2_316_770),
        (110, "ff", 2_609_798),
        (38, "rnn", 571_913),
        slow(74, "rnn", 1_162_109),
        slow(110, "rnn", 1_752_305),
        slow(152, "rnn", 2_440_867),
    ],
)
def test_cifar_skipnets_have_the_published_number_of_parameters(
    depth, gate, published
):
    model = skipnet_tf.cifar_skipnet(depth, gate)
    if gate == "ff":  # FFGate-II past 100 layers, FFGate-I up to there
        gate = "ff2" if depth == 110 else "ff1"
        assert model.gate == gate
    unused = _last_gate(gate, 64) + _SECOND_LSTM_BIAS[gate]
    assert _parameters(model) == published - unused
    # The dense network is the backbone of the gated one.
    assert _parameters(model.backbone) == _CIFAR_RESNETS[depth]
    if (depth, gate) == (38, "rnn"):  # 571,913 - (64 * 10 + 10) - 40
        assert _parameters(model) == 571_223
    assert len(model.gates) == {38: 17, 74: 35, 110: 53, 152: 74}[depth]


@pytest.mark.parametrize(
    ("depth", "published"),
    [
        (18, 11_689_512),
        (34, 21_797_672),
        (50, 25_557_032),
        slow(101, 44_549_160),
        slow(152, 60_192_808),
    ],
)
def test_imagenet_networks_have_the_published_number_of_parameters(
    depth, published
):
    gated_published, gates, channels = {
        18: (11_709_683, 7, 512),
        34: (21_836_483, 15, 512),
        50: (25_709_123, 15, 2048),
        101: (44_875_501, 32, 2048),
        152: (60_672_919, 49, 2048),
    }[depth]
    model = skipnet_tf.imagenet_skipnet(depth)
    # The dense network is the backbone of the gated one.
    assert _parameters(model.backbone) == published
    assert _parameters(model) == gated_published - (channels * 10 + 10) - 40
    assert len(model.gates) == gates


def test_multiply_adds_follow_the_place_of_the_stride():
    totals = [
        skipnet_tf.flops.count(
            ResNet((1, 2), (4, 8), bottleneck=True, stride_on=stride_on),
            (9, 13, 3),
        ).total
        for stride_on in ("3x3", "1x1")
    ]
    # One 1x1 convolution, from 16 to 8 channels, at 5 x 7 pixels.
    assert totals[0] - totals[1] == (9 * 13 - 5 * 7) * 16 * 8


def test_a_network_that_strides_on_the_1x1_is_served_as_it_is():
    model = skipnet("pool", bottleneck=True, stem="imagenet", stride_on="1x1")
    pixels = images(6, 33, 40, 3)
    trained(model, pixels)
    expected = model.route(pixels)
    serve = tf.function(frozen.FrozenNetwork(model), autograph=False)
    served = serve(tf.constant(pixels), tf.zeros([6, 3]))
    np.testing.assert_allclose(
        served["logits"], expected["logits"], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(served["gates"], expected["gates"])
    np.testing.assert_array_equal(served["macs"], expected["macs"])
    assert 0 < expected["gates"].numpy().mean() < 1


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("execution", ["masked", "conditional"])
def test_a_gated_network_starts_as_the_dense_one_it_is_made_from(
    gate, execution
):
    dense = ResNet(
        blocks=(1, 2), filters=(4, 6), bottleneck=True, stride_on="1x1"
    )
    pixels = images(5, 8, 8, 3)
    trained(dense, pixels)
    model = models.from_resnet(dense, gate, execution=execution)
    np.testing.assert_array_equal(model(pixels), dense(pixels))
    assert model.backbone.arguments == dense.arguments
    assert (model.gate, model.execution) == (gate, execution)
    # Weights of its own.
    model.backbone.classifier.bias.assign(np.zeros(10))
    assert np.any(dense.classifier.bias)


def test_a_gated_network_is_made_from_dense_ones_alone():
    with pytest.raises(ValueError, match="`model`.*ResNet.*Received: "):
        models.from_resnet(skipnet())


@pytest.mark.parametrize("gate", GATES)
def test_sharpened_gates_have_logits_as_many_times_as_large(gate):
    pixels = images(6, 8, 8, 3)
    model = divide_opinions(skipnet(gate), pixels)
    before = model.route(pixels)
    model.sharpen(16)  # a power of two: no digit is lost
    after = model.route(pixels)
    np.testing.assert_array_equal(
        after["gate_logits"], 16 * before["gate_logits"].numpy()
    )
    np.testing.assert_array_equal(after["gates"], before["gates"])
    for factor in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="`factor`.*Received: "):
            model.sharpen(factor)


def test_dense_networks_are_the_backbones_of_gated_ones():
    for dense, gated in (
        (skipnet_tf.imagenet_resnet(18, 10), skipnet_tf.imagenet_skipnet(18)),
        (skipnet_tf.cifar_resnet(14), skipnet_tf.cifar_skipnet(14)),
    ):
        ours = {**dense.arguments, "num_classes": gated.num_classes}
        assert ours == gated.backbone.arguments
    assert dense.num_classes == 10


@pytest.mark.parametrize("gate", GATES)
def test_every_image_starts_with_every_block(gate):
    pixels = images(8, 8, 8, 3)
    for seed in range(4):  # every network draws its own initial weights
        model = skipnet(gate, blocks=(1, 2))
        trained = model.route(pixels, training=True)["gates"].numpy()
        inferred = model.route(pixels)["gates"].numpy()
        assert trained.min() == inferred.min() == 1, seed


def test_published_initialisation_does_not_start_open():
    pixels = images(8, 16, 16, 3)
    rates = []
    for _ in range(4):
        model = skipnet(gate_init="published")
        rates.append(model.route(pixels, training=True)["gates"].numpy().mean())
    assert min(rates) < 0.5
