"""What a network answers and what it counts, masked and conditional."""

import numpy as np
import pytest
import tensorflow as tf
from cases import GATES
from cases import divide_opinions
from cases import images
from cases import skipnet

import skipnet_tf
from skipnet_tf import policy


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
