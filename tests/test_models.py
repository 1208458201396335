"""The networks of the paper: sizes, routes, arguments and their checks."""

import inspect

import keras
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
from skipnet_tf import policy
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet


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


@pytest.mark.parametrize("gate", GATES)
def test_conditional_execution_gives_the_numbers_of_masked(gate):
    # Three groups: a 4x4 image ends as a single pixel.
    model = skipnet(gate, blocks=(1, 1, 2), filters=(4, 6, 8))
    for shape in ((1, 9, 13, 3), (5, 9, 13, 3), (4, 8, 8, 3), (6, 4, 4, 3)):
        pixels = images(*shape)
        divide_opinions(model, images(6, *shape[1:]))
        model.execution = "conditional"
        conditional = model.route(pixels)
        model.execution = "masked"
        masked = model.route(pixels)
        assert np.isfinite(conditional["logits"]).all()
        np.testing.assert_allclose(
            conditional["logits"], masked["logits"], rtol=1e-6, atol=1e-6
        )
        np.testing.assert_array_equal(conditional["gates"], masked["gates"])
        assert shape[0] == 1 or 0 < masked["gates"].numpy().mean() < 1


@pytest.mark.parametrize("gate", GATES)
def test_images_do_not_see_their_neighbours_at_inference(gate):
    pixels = images(6, 8, 8, 3)
    model = divide_opinions(skipnet(gate), pixels)
    together = model.route(pixels)
    for row in range(6):
        alone = model.route(pixels[row : row + 1])
        np.testing.assert_array_equal(alone["gates"][0], together["gates"][row])
        np.testing.assert_allclose(
            alone["logits"][0], together["logits"][row], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("action", [0, 1])
def test_empty_and_full_selections_run_conditionally(action):
    model = skipnet()
    pixels = images(4, 8, 8, 3)
    actions = np.full((4, 3), action)
    conditional = model.route(pixels, actions=actions)
    model.execution = "masked"
    masked = model.route(pixels, actions=actions)
    np.testing.assert_allclose(
        conditional["logits"], masked["logits"], rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(conditional["gates"], actions)


def test_a_network_skips_where_there_is_a_gpu(monkeypatch):
    # Keras's own default would be XLA there, which skips nothing.
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: ["GPU"])
    assert skipnet().jit_compile is False
    assert skipnet().backbone.jit_compile is False


def test_an_open_route_is_the_dense_network():
    model = skipnet()
    pixels = images(4, 8, 8, 3)
    opened = model.route(pixels, actions=np.ones((4, 3)))["logits"]
    np.testing.assert_allclose(
        opened, model.backbone(pixels), rtol=1e-5, atol=1e-6
    )


def test_a_closed_route_is_stem_block_0_projections_and_classifier():
    model = skipnet()
    pixels = images(4, 8, 8, 3)
    x = model.backbone.blocks[0](model.backbone.stem(pixels))
    projecting = model.backbone.blocks[2]
    x = projecting.projection_norm(projecting.projection(x))
    expected = model.backbone.classifier(tf.reduce_mean(x, (1, 2)))
    closed = model.route(pixels, actions=np.zeros((4, 3)))["logits"]
    np.testing.assert_allclose(closed, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gate", GATES)
def test_a_route_has_documented_keys_shapes_and_types(gate):
    model = skipnet(gate)
    routed = model.route(images(5, 8, 8, 3))
    found = {k: (tuple(v.shape), v.dtype.name) for k, v in routed.items()}
    assert found == {
        "logits": ((5, 3), "float32"),
        "gate_logits": ((5, 3), "float32"),
        "probabilities": ((5, 3), "float32"),
        "gates": ((5, 3), "float32"),
        "macs": ((5,), "int64"),
    }
    np.testing.assert_array_equal(model(images(5, 8, 8, 3)), routed["logits"])
    np.testing.assert_allclose(
        routed["probabilities"],
        1 / (1 + np.exp(-routed["gate_logits"].numpy())),
        rtol=1e-6,
    )


@pytest.mark.parametrize("gate", GATES)
def test_macs_are_fixed_plus_gates_plus_executed_blocks(gate):
    model = skipnet(gate)
    counted = skipnet_tf.flops.count(model, (9, 13, 3))
    actions = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1]])
    routed = model.route(images(4, 9, 13, 3), actions=actions)
    always = counted.fixed + counted.gates.sum()
    np.testing.assert_array_equal(
        routed["macs"], always + actions @ counted.blocks
    )
    assert routed["macs"][1] == counted.total


def test_macs_follow_image_sizes_unknown_until_they_arrive():
    model = skipnet("ff1", stem="imagenet")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def macs(pixels):
        return model.route(pixels)["macs"]

    for shape in ((2, 33, 40, 3), (3, 64, 47, 3)):
        pixels = images(*shape)
        known = model.route(pixels)["macs"]
        np.testing.assert_array_equal(macs(pixels), known)
        total = skipnet_tf.flops.count(model, shape[1:]).total
        assert known.numpy().max() <= total


def test_macs_do_not_overflow_int32():
    # 1.44e7 pixels * 27 * 16 = 6e9 for the stem alone.
    model = skipnet_tf.cifar_skipnet(8)
    fixed, blocks, _ = model.multiply_adds(
        tf.constant(3800, tf.int64), tf.constant(3800, tf.int64)
    )
    counted = skipnet_tf.flops.count(model, (3800, 3800, 3))
    assert int(fixed) == counted.fixed > 2**32
    np.testing.assert_array_equal([int(b) for b in blocks], counted.blocks)


def test_the_threshold_moves_decisions():
    pixels = images(8, 8, 8, 3)
    model = divide_opinions(skipnet("pool"), pixels)
    probabilities = model.route(pixels)["probabilities"].numpy()
    for threshold in (0.0, 0.3, 0.5, 0.8, 1.0):
        model.threshold = threshold
        gates = model.route(pixels)["gates"].numpy()
        first = probabilities[:, 0] >= threshold
        np.testing.assert_array_equal(gates[:, 0], first)
    assert 0 < (probabilities[:, 0] >= 0.3).mean() < 1
    model = skipnet(threshold=0.95)  # gates start at a probability of 0.88
    assert model.route(pixels)["gates"].numpy().max() == 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("key", ["logits", "gate_logits", "probabilities"])
def test_gradients_flow_through_what_a_route_returns(key, training):
    model = skipnet(gate_init="published")  # open gates start with zeros
    pixels = tf.constant(images(4, 8, 8, 3))
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        value = model.route(pixels, training=training)[key]
    stem, image = tape.gradient(
        value, [model.backbone.stem_conv.kernel.value, pixels]
    )
    for gradient in (stem, image):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_logits_teach_the_gates_only_in_training():
    # Straight-through in training, a comparison at inference.
    model = skipnet()
    kernel = model.gates[0].embedding.kernel.value
    for training in (True, False):
        with tf.GradientTape() as tape:
            logits = model.route(images(4, 8, 8, 3), training)["logits"]
        assert (tape.gradient(logits, kernel) is not None) == training


def test_imposed_actions_leave_the_gates_at_work():
    model = skipnet(gate_init="published")  # open gates start with zeros
    pixels = images(4, 8, 8, 3)
    own = model.route(pixels)
    with tf.GradientTape() as tape:
        forced = model.route(pixels, actions=np.zeros((4, 3)))
    np.testing.assert_array_equal(forced["gates"], np.zeros((4, 3)))
    # The first gate sees the same features; the later ones see others.
    np.testing.assert_array_equal(
        forced["gate_logits"][:, 0], own["gate_logits"][:, 0]
    )
    assert not np.allclose(
        forced["gate_logits"][:, 2], own["gate_logits"][:, 2]
    )
    kernel = model.gates[2].embedding.kernel.value
    gradient = tape.gradient(forced["gate_logits"], kernel)
    assert np.abs(gradient).max() > 0


def test_a_bad_argument_is_named():
    for name, call in {
        "gate": lambda: skipnet_tf.cifar_skipnet(38, "lstm"),
        "depth": lambda: skipnet_tf.cifar_skipnet(40),
        "stem": lambda: skipnet(stem="mnist"),
        "execution": lambda: skipnet(execution="sparse"),
        "init": lambda: skipnet(gate_init="shut"),
        "num_classes": lambda: skipnet(num_classes=0),
        "blocks": lambda: skipnet(blocks=(2, 0)),
        "filters": lambda: skipnet(filters=(4,)),
        "input_shape": lambda: skipnet(input_shape=(None, None, None)),
        "stride_on": lambda: skipnet_tf.imagenet_skipnet(18, stride_on="1x1"),
    }.items():
        with pytest.raises(ValueError, match=f"`{name}`.*Received: "):
            call()
    for call in (
        lambda: skipnet_tf.cifar_resnet(2),
        lambda: skipnet_tf.imagenet_resnet(20),
        lambda: skipnet_tf.imagenet_skipnet(35),
    ):
        with pytest.raises(ValueError, match="`depth`.*Received: "):
            call()
    with pytest.raises(ValueError, match="`gate`.*Received: "):
        skipnet("ff")  # the paper's choice needs a depth


@pytest.mark.parametrize(
    "shape", [(8, 8, 3), (2, 8, 8, 1), (2, 8, 8, 4), (2, 3, 8, 8, 3)]
)
def test_images_of_the_wrong_shape_are_refused(shape):
    model = skipnet()
    for function in (model.route, model.backbone.stem):
        with pytest.raises(ValueError, match="`images`"):
            function(np.zeros(shape, "float32"))


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 4), (3, 3), (4, 3, 1)])
def test_actions_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match="`actions`"):
        skipnet().route(images(4, 8, 8, 3), actions=np.ones(shape))


def _arguments(model):
    return set(inspect.signature(type(model).__init__).parameters) - {"self"}


@pytest.mark.parametrize(
    "model",
    [
        lambda: SkipNet(
            blocks=(1, 2),
            filters=(4, 8),
            bottleneck=True,
            stem="imagenet",
            num_classes=7,
            input_shape=(40, None, 1),
            stride_on="1x1",
            gate="ff2",
            gate_init="published",
            threshold=0.4,
            execution="masked",
            name="everything",
        ),
        lambda: ResNet(
            blocks=(1, 2),
            filters=(4, 8),
            bottleneck=True,
            stem="imagenet",
            num_classes=7,
            input_shape=(40, None, 1),
            stride_on="1x1",
            name="everything",
        ),
    ],
)
def test_a_saved_network_keeps_every_constructor_argument(model, tmp_path):
    model = model()
    default = {
        name: parameter.default
        for name, parameter in inspect.signature(
            type(model).__init__
        ).parameters.items()
    }
    config = model.get_config()
    assert set(config) == _arguments(model)
    # Every argument differs from its default, or this would prove little.
    assert all(config[name] != default[name] for name in config)
    model.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert type(loaded) is type(model)
    assert loaded.get_config() == config
    pixels = images(3, 33, 40, 1)
    np.testing.assert_array_equal(loaded(pixels), model(pixels))
    for ours, theirs in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("gate", GATES)
def test_saved_networks_route_as_before(gate, tmp_path):
    pixels = images(4, 8, 8, 3)
    model = divide_opinions(skipnet(gate), pixels)
    model.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    expected = model.route(pixels)
    for key, value in loaded.route(pixels).items():
        np.testing.assert_array_equal(value, expected[key])


def test_all_recurrent_gates_share_one_lstm():
    model = skipnet()
    assert len({id(gate.recurrence) for gate in model.gates}) == 1
    # Before and after a copy; 3 embeddings, LSTM (3), decision (2).
    for network in (model, SkipNet.from_config(model.get_config())):
        own = [v for v in network.trainable_variables if "_gate" in v.path]
        assert len(own) == 3 * 2 + 3 + 2


def test_random_skipping_draws_once_for_the_batch_in_training():
    model = skipnet(blocks=(6, 6))
    model.compile("sgd", stage=skipnet_tf.Supervised("random", 0.4))
    pixels = images(6, 4, 4, 3)
    gates = model.route(pixels, training=True)["gates"].numpy()
    np.testing.assert_array_equal(gates, np.repeat(gates[:1], 6, 0))
    assert 0 < gates.mean() < 1
    model.optimizer.iterations.assign(1)
    later = model.route(pixels, training=True)["gates"].numpy()
    assert not np.array_equal(later, gates)


def test_random_skipping_draws_for_each_image_at_inference():
    model = skipnet(blocks=(5, 6))
    model.compile("sgd", stage=skipnet_tf.Supervised("random", 0.3))
    pixels = images(100, 4, 4, 3)
    gates = model.route(pixels)["gates"].numpy()
    np.testing.assert_array_equal(model.route(pixels)["gates"], gates)
    assert len(np.unique(gates, axis=0)) > 50
    # 1000 draws at 0.7: mean 700, deviation sqrt(1000 * 0.7 * 0.3) = 14.5;
    # 4 deviations are 58.
    assert abs(gates.sum() - 700) < 58


def test_a_soft_policy_mixes_in_training_and_counts_rounded_decisions():
    model = skipnet("pool")
    pixels = images(6, 8, 8, 3)
    divide_opinions(model, pixels)
    model.compile("sgd", stage=skipnet_tf.Supervised("soft"))
    routed = model.route(pixels, training=True)
    rounded = routed["probabilities"].numpy() >= 0.5
    np.testing.assert_array_equal(routed["gates"], rounded)
    hard = model.route_with(pixels, policy.Relaxed(), training=True)
    assert not np.allclose(routed["logits"], hard["logits"])
