"""Folded layers and the frozen network against the Keras model."""

import functools
import types

import cases
import keras
import numpy as np
import pytest
import tensorflow as tf

import skipnet_tf
from skipnet_tf import flops
from skipnet_tf import folded_gates
from skipnet_tf import folding
from skipnet_tf import frozen
from skipnet_tf import layers
from skipnet_tf import policy

# Stem and blocks of the two families of the paper, and maps of odd sizes.
KINDS = {
    "cifar": ({}, (9, 11)),
    "imagenet": (
        {"stem": "imagenet", "bottleneck": True, "filters": (2, 4)},
        (37, 45),
    ),
}
IMPOSED = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "float32")


def graph(model, gates, precision="float32"):
    """The frozen network as one graph for every batch and image size."""
    signature = [
        tf.TensorSpec((None, None, None, 3)),
        tf.TensorSpec((None, gates)),
    ]
    network = frozen.FrozenNetwork(model, precision)
    traced = tf.function(network, signature, autograph=False)
    return traced.get_concrete_function()


@functools.cache
def frozen_twin(gate, kind):
    """A network, its graph, and images that it does not agree about."""
    arguments, size = KINDS[kind]
    images = cases.images(6, *size, 3)
    model = cases.trained(cases.skipnet(gate, **arguments), images)
    return types.SimpleNamespace(
        model=model, route=graph(model, 3), images=images
    )


@pytest.fixture(params=[(g, k) for g in cases.GATES for k in KINDS], ids=str)
def twin(request):
    return frozen_twin(*request.param)


def same(got, expected):
    """Raises unless two answers differ by no more than rounding."""
    for name in ("gates", "macs"):
        np.testing.assert_array_equal(got[name], expected[name], name)
    np.testing.assert_allclose(
        got["probabilities"], expected["probabilities"], atol=1e-5
    )
    largest = np.abs(expected["logits"]).max()
    np.testing.assert_allclose(
        got["logits"], expected["logits"], atol=1e-4 * largest
    )


def route(twin, images, decide):
    """The frozen network under a policy."""
    return twin.route(tf.constant(images), decide.cutoffs(len(images), 3))


def test_images_of_one_batch_go_their_ways_as_in_keras(twin):
    got = route(twin, twin.images, policy.Thresholded())
    assert 0 < got["gates"].numpy().mean() < 1
    assert len(np.unique(got["gates"], axis=0)) > 1
    same(got, twin.model.route(twin.images))


def test_an_image_alone_is_answered_as_within_a_batch(twin):
    together = route(twin, twin.images, policy.Thresholded())
    alone = [
        route(twin, twin.images[i : i + 1], policy.Thresholded())
        for i in range(len(twin.images))
    ]
    joined = {key: np.concatenate([a[key] for a in alone]) for key in alone[0]}
    same(joined, together)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (6, 33)])
def test_images_of_other_sizes_are_answered_as_in_keras(twin, size):
    images = cases.images(4, *size, 3, seed=1)
    decide = policy.Thresholded(tf.constant([0.0, 0.4, 0.6, 0.9]))
    got = route(twin, images, decide)
    same(got, twin.model.route_with(images, decide))
    assert got["gates"].numpy()[0].all()


def test_infinite_cutoffs_impose_decisions_and_gates_say_what_they_would(twin):
    actions = np.roll(IMPOSED, 1, axis=0)
    images = twin.images[:4]
    got = route(twin, images, policy.Forced(tf.constant(actions)))
    same(got, twin.model.route(images, actions=actions))
    np.testing.assert_array_equal(got["gates"], actions)
    # The first gate reads the same maps, whatever is imposed.
    free = twin.model.route(images)["probabilities"][:, 0]
    np.testing.assert_allclose(got["probabilities"][:, 0], free, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (13, 9), (33, 18)])
def test_multiply_adds_are_those_of_the_trained_network(twin, size):
    count = flops.count(twin.model, (*size, 3))
    images = cases.images(4, *size, 3)
    macs = route(twin, images, policy.Forced(tf.constant(IMPOSED)))["macs"]
    paid = count.fixed + count.gates.sum()
    np.testing.assert_array_equal(macs, [paid, *(paid + count.blocks)])
    # Gates after blocks 0 to 2, of which the last has strides of 2.
    stem = 2 if twin.model.backbone.large_stem else 0
    areas = folding.areas(images, len(folding.multiply_adds())).numpy()
    for gate, halvings, expected in zip(
        twin.model.gates, (stem, stem, stem + 1), count.gates
    ):
        vector = folded_gates.fold_gate(gate, None).multiply_adds(halvings)
        assert vector @ areas == expected


def nodes(graph):
    """All nodes of a graph, those inside functions included."""
    definition = graph.graph.as_graph_def()
    functions = definition.library.function
    return [*definition.node, *(n for f in functions for n in f.node_def)]


def test_the_graph_holds_constants_and_nothing_of_the_trained_network(twin):
    assert twin.route.variables == ()
    assert twin.route.captured_inputs == []
    resources = tf.resource.as_datatype_enum
    for node in nodes(twin.route):
        types_ = {attribute.type for attribute in node.attr.values()}
        assert resources not in types_, node.name


def test_a_graph_holds_each_kernel_once():
    twin = frozen_twin("rnn", "cifar")
    kernels = [
        node.attr["value"].tensor.tensor_shape
        for node in nodes(twin.route)
        if node.op == "Const"
        and len(node.attr["value"].tensor.tensor_shape.dim) == 4
    ]
    # Stem, four blocks of two and one projection, for one image and several.
    assert len(kernels) == 1 + 4 * 2 + 1


@pytest.mark.parametrize(
    ("gate", "convolutions_of_gates"), [("rnn", 0), ("ff1", 6)]
)
def test_bfloat16_is_for_the_convolutions_of_the_blocks(
    gate, convolutions_of_gates
):
    twin = frozen_twin(gate, "cifar")
    half = graph(twin.model, 3, "bfloat16")
    types_ = {}
    for node in nodes(half):
        if node.op in ("Conv2D", "MatMul", "LSTMBlockCell"):
            kinds = types_.setdefault(node.op, [])
            kinds.append(tf.as_dtype(node.attr["T"].type))
    convolutions = types_.pop("Conv2D")
    # Stem, four blocks of two and one projection; two for each of 3 gates.
    assert convolutions.count(tf.bfloat16) == 10
    assert convolutions.count(tf.float32) == convolutions_of_gates
    assert {t for kinds in types_.values() for t in kinds} == {tf.float32}
    images = tf.constant(twin.images[:4])
    cutoffs = policy.Forced(tf.constant(IMPOSED)).cutoffs(4, 3)
    got, expected = half(images, cutoffs), twin.route(images, cutoffs)
    assert {name: value.dtype for name, value in got.items()} == {
        "logits": tf.float32,
        "probabilities": tf.float32,
        "gates": tf.float32,
        "macs": tf.int64,
    }
    # bfloat16 keeps 8 bits: 1 / 256 each time something is rounded.
    largest = np.abs(expected["logits"]).max()
    difference = np.abs(got["logits"] - expected["logits"]).max()
    assert 0 < difference < 0.03 * largest
    np.testing.assert_allclose(
        got["probabilities"], expected["probabilities"], atol=0.05
    )
    np.testing.assert_array_equal(got["macs"], expected["macs"])


def test_a_dense_network_is_frozen_without_gates():
    images = cases.images(3, 9, 7, 3)
    model = skipnet_tf.ResNet((1, 1), (2, 4), num_classes=3)
    cases.trained(model, images)
    got = graph(model, 0)(tf.constant(images), tf.zeros([3, 0]))
    np.testing.assert_allclose(got["logits"], model(images), atol=1e-5)
    dense = flops.count(model, (9, 7, 3)).dense
    assert got["macs"].numpy().tolist() == [dense] * 3
    assert got["gates"].shape == got["probabilities"].shape == (3, 0)


def test_unknown_precisions_are_an_error():
    with pytest.raises(ValueError, match="`precision`.*Received.*'float16'"):
        frozen.FrozenNetwork(frozen_twin("rnn", "cifar").model, "float16")


@pytest.mark.parametrize(
    ("kernel", "strides"), [(3, 1), (3, 2), (1, 1), (1, 2), (7, 2)]
)
def test_a_folded_convolution_is_convolution_and_normalisation(kernel, strides):
    convolution = layers.Convolution(4, kernel, strides)
    norm = layers.BatchNormalization()
    keras.Sequential([convolution, norm]).build((None, None, None, 3))
    for weight, values in zip(norm.weights, np.random.uniform(1, 2, (4, 4))):
        weight.assign(values)
    maps = cases.images(2, 5, 8, 3)
    folded = folding.Convolution.fold(convolution, norm)
    np.testing.assert_allclose(
        folded(tf.constant(maps)), norm(convolution(maps)), atol=1e-4
    )
    # A map of the image's size; the image has 5 * 8 pixels.
    vector = folded.multiply_adds(0)
    expected = convolution.multiply_adds(5, 8)
    assert vector @ folding.areas(maps, len(vector)).numpy() == expected


def test_areas_are_those_of_maps_halved_and_rounded_up():
    areas = folding.areas(tf.zeros([2, 5, 8, 3]), 6).numpy()
    # 5 * 8, 3 * 4, 2 * 2, 1 * 1 and no less.
    assert areas.tolist() == [1, 40, 12, 4, 1, 1]


def test_a_shared_function_is_traced_once_for_all_sizes():
    traced = []

    def double(tensors):
        traced.append([tensor.shape.as_list() for tensor in tensors])
        return [2 * tensor for tensor in tensors]

    call = folding.shared(double)
    for batch, size in ((2, 3), (1, 4)):
        maps = tf.ones([batch, size, size, 5])
        for got in call([maps, maps]):
            np.testing.assert_array_equal(got, 2 * maps)
    assert traced == [[[None, None, None, 5]] * 2]
