"""SavedModels: what they answer, what they compute, and when they appear."""

import datetime
import json
import os
import shutil

import cases
import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import pixels
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils
from tensorflow.tsl.profiler.protobuf import xplane_pb2

import skipnet_tf
from skipnet_tf import export
from skipnet_tf import flops
from skipnet_tf import policy
from skipnet_tf import preprocessing
from skipnet_tf import serving
from skipnet_tf import sessions
from skipnet_tf.frozen import FrozenNetwork

RECIPE = preprocessing.get("digits")
NAMES = ("one", "two", "three")
GATED = ("group1_block1", "group2_block0", "group2_block1")
BAD = (tf.errors.InvalidArgumentError, ValueError)


def divided(gate="rnn", **arguments):
    """A SkipNet whose gates run for some images and not for others."""
    model = cases.skipnet(gate, **arguments)
    return cases.trained(model, RECIPE.normalise(pixels(10)))


@pytest.fixture(scope="module")
def skipnet():
    return divided()


@pytest.fixture(scope="module")
def version(skipnet, tmp_path_factory):
    return export.export_saved_model(
        skipnet,
        str(tmp_path_factory.mktemp("skipnet")),
        "digits",
        forced=True,
        class_names=NAMES,
        warmup_batches=(1, 3),
        card={"accuracy": 0.5},
    )


@pytest.fixture(scope="module")
def session(version):
    """The plain session that a server loads a version into."""
    with sessions.Session(version) as session:
        yield session


@pytest.fixture(scope="module")
def signatures(version):
    return tf.saved_model.load(version).signatures


def same(got, expected, tolerance=1e-5):
    """Raises unless an answer is that of `SkipNet.route`."""
    for name in ("gates", "macs"):
        np.testing.assert_array_equal(got[name], expected[name], name)
    np.testing.assert_allclose(
        got["gate_probabilities"], expected["probabilities"], atol=tolerance
    )
    largest = np.abs(expected["logits"]).max()
    np.testing.assert_allclose(
        got["logits"], expected["logits"], atol=tolerance * largest
    )


# What is answered


@pytest.mark.parametrize("shape", [(1, 8), (10, 8), (4, 13)])
def test_the_export_answers_as_the_keras_model(
    session, signatures, skipnet, shape
):
    images = pixels(*shape)
    expected = skipnet.route(RECIPE.normalise(images))
    same(session.run("serving_default", images=images), expected)
    same(signatures["serving_default"](images=tf.constant(images)), expected)


def test_images_of_one_batch_take_different_paths(session):
    got = session.run("serving_default", images=pixels(10))
    assert len(np.unique(got["gates"], axis=0)) > 1
    assert len(set(got["macs"].tolist())) > 1


def test_inputs_and_outputs_have_their_types_and_begin_with_the_batch(session):
    outputs = {
        "logits": ("float32", [-1, 3]),
        "probabilities": ("float32", [-1, 3]),
        # The top five of three classes are three.
        "classes": ("int64", [-1, 3]),
        "class_names": ("string", [-1, 3]),
        "gate_probabilities": ("float32", [-1, 3]),
        "gates": ("float32", [-1, 3]),
        "macs": ("int64", [-1]),
    }
    images = {"images": ("uint8", [-1, -1, -1, 3])}
    inputs = {
        "serving_default": images,
        "image_bytes": {"bytes": ("string", [-1])},
        "tunable": {**images, "threshold": ("float32", [-1])},
        "forced": {**images, "actions": ("float32", [-1, 3])},
    }

    def stated(tensors):
        return {
            name: (
                tf.as_dtype(tensor.dtype).name,
                [size.size for size in tensor.tensor_shape.dim],
            )
            for name, tensor in tensors.items()
        }

    found = {
        name: (stated(signature.inputs), stated(signature.outputs))
        for name, signature in session.signatures.items()
        if not name.startswith("__")
    }
    assert found == {name: (inputs[name], outputs) for name in inputs}


@pytest.mark.parametrize("count", [1, 5])
def test_outputs_are_as_the_signature_states(session, count):
    got = session.run("serving_default", images=pixels(count))
    for name, output in session.signatures["serving_default"].outputs.items():
        sizes = [size.size for size in output.tensor_shape.dim]
        assert got[name].shape == (count, *sizes[1:]), name
        # Strings arrive as objects.
        stated = tf.as_dtype(output.dtype).as_numpy_dtype
        assert got[name].dtype == np.dtype(stated), name


def test_a_session_can_be_called_without_delay(session):
    inputs = {"images": pixels(2), "threshold": np.float32([0.3, 0.7])}
    call = session.callable("tunable", "threshold", "images")
    got = call(inputs["threshold"], inputs["images"])
    expected = session.run("tunable", **inputs)
    assert len(got) == len(expected)
    for value, name in zip(got, session.signatures["tunable"].outputs):
        np.testing.assert_array_equal(value, expected[name], name)


def test_classes_are_sorted_by_probability_and_named(session):
    got = session.run("serving_default", images=pixels(5))
    order = np.argsort(-got["probabilities"], axis=1)
    np.testing.assert_array_equal(got["classes"], order)
    names = np.array(NAMES)[order]
    np.testing.assert_array_equal(got["class_names"].astype(str), names)
    exponentials = np.exp(got["logits"])
    np.testing.assert_allclose(
        got["probabilities"],
        exponentials / exponentials.sum(axis=1, keepdims=True),
        rtol=1e-5,
    )


def files(images, encode=tf.io.encode_png):
    """Encoded images `(batch,)`."""
    return np.array([encode(image).numpy() for image in images], object)


def test_image_bytes_answers_as_the_decoded_pixels(session):
    images = pixels(4)
    got = session.run("image_bytes", bytes=files(images))
    expected = session.run("serving_default", images=images)
    np.testing.assert_array_equal(got["logits"], expected["logits"])
    np.testing.assert_array_equal(got["gates"], expected["gates"])


def test_image_bytes_resizes_as_evaluation_does(session):
    encoded = files(pixels(2, size=21), tf.io.encode_jpeg)
    got = session.run("image_bytes", bytes=encoded)
    images = np.stack([RECIPE.decode(file) for file in encoded])
    expected = session.run("serving_default", images=images)
    np.testing.assert_array_equal(got["logits"], expected["logits"])


# Decisions of the caller


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_a_threshold_decides_as_the_keras_model_would(
    session, skipnet, threshold
):
    images = pixels(6)
    given = np.full(6, threshold, np.float32)
    got = session.run("tunable", images=images, threshold=given)
    decide = policy.Thresholded(threshold)
    same(got, skipnet.route_with(RECIPE.normalise(images), decide))
    assert 0 < got["gates"].mean() < 1


def test_thresholds_of_one_batch_decide_image_by_image(session, skipnet):
    # One image again and again: only the thresholds differ.
    images = np.repeat(pixels(1), 5, axis=0)
    given = np.array([1, 0.6, 0, 0.3, 1], np.float32)
    got = session.run("tunable", images=images, threshold=given)
    decide = policy.Thresholded(tf.constant(given))
    same(got, skipnet.route_with(RECIPE.normalise(images), decide))
    assert not got["gates"][[0, 4]].any() and got["gates"][2].all()


def test_thresholds_of_one_and_zero_skip_and_run_everything(session, skipnet):
    count = flops.count(skipnet, (8, 8, 3))
    images = pixels(7)
    for threshold, gate, macs in (
        (0, 1, count.total),
        (1, 0, count.total - count.blocks.sum()),
    ):
        given = np.full(7, threshold, np.float32)
        got = session.run("tunable", images=images, threshold=given)
        assert (got["gates"] == gate).all()
        assert (got["macs"] == macs).all()


def test_imposed_decisions_are_taken_image_by_image(session, skipnet):
    images = pixels(3)
    actions = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.float32)
    got = session.run("forced", images=images, actions=actions)
    same(got, skipnet.route(RECIPE.normalise(images), actions=actions))
    np.testing.assert_array_equal(got["gates"], actions)


def test_imposed_skips_cost_what_every_image_pays(session, skipnet):
    count = flops.count(skipnet, (8, 8, 3))
    actions = np.zeros((2, 3), np.float32)
    got = session.run("forced", images=pixels(2), actions=actions)
    paid = count.fixed + int(count.gates.sum())
    assert got["macs"].tolist() == [paid, paid]
    # Gates are computed, and reported, although they decide nothing.
    assert (got["gate_probabilities"] > 0).all()


def test_no_image_is_decided_for_by_another(session):
    images = pixels(10)
    alone = [
        session.run("serving_default", images=images[i : i + 1])
        for i in range(10)
    ]
    gates = np.concatenate([answer["gates"] for answer in alone])
    logits = np.concatenate([answer["logits"] for answer in alone])
    differing = 0
    for first in range(10):
        for second in (first - 1, first - 2):
            pair = [first, second]
            got = session.run("serving_default", images=images[pair])
            np.testing.assert_array_equal(got["gates"], gates[pair])
            np.testing.assert_allclose(got["logits"], logits[pair], atol=1e-5)
            differing += (gates[first] != gates[second]).any()
    assert differing > 3


# Bad requests

IMAGES = pixels(2)
HALVES = np.full(2, 0.5, np.float32)
PNG = files(IMAGES)
BAD_REQUESTS = {
    "threshold below 0": ("tunable", {"threshold": [0.5, -0.1]}),
    "threshold above 1": ("tunable", {"threshold": [1.1, 0.5]}),
    "threshold not a number": ("tunable", {"threshold": [np.nan, 0.5]}),
    "threshold for another number": ("tunable", {"threshold": [0.5]}),
    "threshold for more": ("tunable", {"threshold": [0.5] * 3}),
    "threshold of rank 0": ("tunable", {"threshold": 0.5}),
    "threshold missing": ("tunable", {}),
    "actions for another number": ("forced", {"actions": np.ones((1, 3))}),
    "actions for other gates": ("forced", {"actions": np.ones((2, 2))}),
    "actions above 1": ("forced", {"actions": np.full((2, 3), 2)}),
    "actions not a number": ("forced", {"actions": np.full((2, 3), np.nan)}),
    "no images": ("serving_default", {"images": IMAGES[:0]}),
    "no images with thresholds": (
        "tunable",
        {"images": IMAGES[:0], "threshold": HALVES[:0]},
    ),
    "images of no height": ("serving_default", {"images": IMAGES[:, :0]}),
    "images of rank 3": ("serving_default", {"images": IMAGES[0]}),
    "grey images": ("serving_default", {"images": IMAGES[..., :1]}),
    "no files": ("image_bytes", {"bytes": PNG[:0]}),
    "one broken file": (
        "image_bytes",
        {"bytes": np.array([PNG[0], PNG[1][:-20]], object)},
    ),
    "not an image": ("image_bytes", {"bytes": np.array([b"text"], object)}),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_requests_are_errors_and_the_next_one_is_answered(session, name):
    signature, inputs = BAD_REQUESTS[name]
    if signature in ("tunable", "forced"):
        inputs = {"images": IMAGES, **inputs}
    with pytest.raises(BAD):
        session.run(signature, **inputs)
    got = session.run("tunable", images=IMAGES, threshold=HALVES)
    assert np.isfinite(got["logits"]).all()


def test_bad_requests_are_told_what_was_wrong(signatures):
    images = tf.constant(IMAGES)
    for threshold, message in (
        ([0.5, 1.5], r"`threshold` must lie in \[0, 1\]"),
        ([0.5], "`threshold` must have one row for each image"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            signatures["tunable"](
                images=images, threshold=tf.constant(threshold)
            )
    with pytest.raises(tf.errors.InvalidArgumentError, match="one image or"):
        signatures["serving_default"](images=images[:0])


# Proof of skipping


def rows_convolved(ran):
    """Rows of all convolutions, of each gated block and of the others."""
    rows = dict.fromkeys((*GATED, "others"), 0)
    for operation in ran:
        if "Conv" in operation.op:
            inside = set(operation.name.split("/")) & set(GATED)
            rows[inside.pop() if inside else "others"] += operation.rows
    return list(rows.values())


@pytest.mark.parametrize(
    "actions",
    [
        [[0, 0, 0]],
        [[1, 0, 1]],
        [[1, 1, 1]],
        [[0, 0, 0]] * 4,
        [[1, 1, 1]] * 4,
        [[0, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 1]],
    ],
    ids=str,
)
def test_a_session_convolves_the_imposed_rows_and_no_others(session, actions):
    actions = np.array(actions, np.float32)
    images = pixels(len(actions))
    _, ran = session.trace("forced", images=images, actions=actions)
    # Two convolutions a block; stem, block 0 and the projection are four.
    expected = [*(2 * actions.sum(axis=0)), 4 * len(actions)]
    assert rows_convolved(ran) == expected


@pytest.mark.parametrize("count", [1, 10])
def test_a_session_convolves_the_rows_that_the_gates_chose(session, count):
    outputs, ran = session.trace("serving_default", images=pixels(count))
    expected = [*(2 * outputs["gates"].sum(axis=0)), 4 * count]
    assert rows_convolved(ran) == expected


def convolutions_profiled(folder):
    """How many convolutions a profile has seen."""
    (file,) = folder.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    return sum(
        "Conv2D" in plane.event_metadata[event.metadata_id].name.split(":")[-1]
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    )


@pytest.mark.parametrize("count", [1, 2])
def test_a_loaded_signature_skips_as_a_session_does(
    signatures, tmp_path, count
):
    images = tf.constant(pixels(count))
    found = []
    for actions in ([0, 0, 0], [0, 1, 0], [1, 1, 1]):
        folder = tmp_path / str(sum(actions))
        with tf.profiler.experimental.Profile(str(folder)):
            signatures["forced"](
                images=images,
                actions=tf.constant([actions] * count, tf.float32),
            )
        found.append(convolutions_profiled(folder))
    # Stem, block 0 and the projection are four; two for every block that runs.
    assert found == [4, 6, 10]


# What is in the folder


def graph_nodes(version):
    """All nodes of a SavedModel, those inside functions included."""
    saved = saved_model_pb2.SavedModel()
    with open(os.path.join(version, "saved_model.pb"), "rb") as file:
        saved.ParseFromString(file.read())
    graph = saved.meta_graphs[0].graph_def
    return [
        node
        for part in [graph.node, *(f.node_def for f in graph.library.function)]
        for node in part
    ]


def test_the_graph_has_no_variables_and_asks_for_no_compiler(version):
    nodes = graph_nodes(version)
    ops = {node.op for node in nodes}
    assert {"Conv2D", "LSTMBlockCell", "StatelessIf", "Const"} <= ops
    assert not ops & {"VarHandleOp", "ReadVariableOp", "Switch", "XlaLaunch"}
    # TF Serving refuses to run such functions unless it is told otherwise.
    assert not [n for n in nodes if n.attr["_XlaMustCompile"].b]


def test_the_model_card_holds_what_operators_ask(version, skipnet):
    with open(os.path.join(version, "model_card.json")) as file:
        card = json.load(file)
    created = datetime.datetime.fromisoformat(card.pop("created"))
    age = datetime.datetime.now(datetime.UTC) - created
    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)
    count = flops.count(skipnet, (8, 8, 3))
    assert card.pop("multiply_adds") == {
        "image_size": [8, 8],
        "always": count.fixed,
        "blocks": count.blocks.tolist(),
        "gates": count.gates.tolist(),
        "dense_network": count.dense,
        "all_blocks_and_gates": count.total,
    }
    assert card.pop("versions").keys() == {
        "skipnet_tf",
        "python",
        "tensorflow",
        "keras",
    }
    network = card.pop("network")
    assert network.pop("name") == skipnet.name
    assert network == {
        "class": "SkipNet",
        "blocks": [2, 2],
        "filters": [4, 8],
        "bottleneck": False,
        "stride_on": "3x3",
        "stem": "cifar",
        "num_classes": 3,
        "input_shape": [None, None, 3],
        "gate": "rnn",
        "gate_init": "open",
        "threshold": 0.5,
        "execution": "conditional",
    }
    assert card == {
        "precision": "float32",
        "parameters": skipnet.count_params(),
        "preprocessing": {
            "name": "digits",
            "mean": [0.3053] * 3,
            "std": [0.3759] * 3,
            "size": 8,
        },
        "accuracy": 0.5,
        "signatures": ["forced", "image_bytes", "serving_default", "tunable"],
    }


def test_warm_up_requests_cover_signatures_sizes_and_extremes(version, session):
    requests = list(serving.read_requests(version))
    found = []
    for signature, inputs in requests:
        batch = len(next(iter(inputs.values())))
        found.append((signature, batch, *inputs.get("threshold", [])[:1]))
        gates = session.run(signature, **inputs)["gates"]
        if signature == "tunable":
            np.testing.assert_array_equal(gates[:, 0], 1 - inputs["threshold"])
    kinds = [("serving_default",), ("image_bytes",)]
    assert sorted(found) == sorted(
        (name, batch, *threshold)
        for batch in (1, 3)
        for name, *threshold in (*kinds, ("tunable", 0), ("tunable", 1))
    )


def test_the_fingerprint_is_that_of_the_file(version, tmp_path):
    found = tf.saved_model.experimental.read_fingerprint(version)
    shutil.copy(os.path.join(version, "saved_model.pb"), tmp_path)
    fingerprinting_utils.write_fingerprint(str(tmp_path))
    again = tf.saved_model.experimental.read_fingerprint(str(tmp_path))
    assert found.saved_model_checksum == again.saved_model_checksum > 0
    # It does tell files apart.
    with open(tmp_path / "saved_model.pb", "ab") as file:
        file.write(
            saved_model_pb2.SavedModel(
                saved_model_schema_version=2
            ).SerializeToString()
        )
    fingerprinting_utils.write_fingerprint(str(tmp_path))
    other = tf.saved_model.experimental.read_fingerprint(str(tmp_path))
    assert found.saved_model_checksum != other.saved_model_checksum


def test_a_keras_layer_loads_the_version(version, skipnet):
    layer = keras.layers.TFSMLayer(version, call_endpoint="serving_default")
    images = pixels(4)
    got = layer(tf.constant(images))
    same(got, skipnet.route(RECIPE.normalise(images)))


def test_a_file_is_little_larger_than_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_check", lambda *_: None)
    model = skipnet_tf.cifar_skipnet(38)
    path = export.export_saved_model(
        model, str(tmp_path), "cifar10", warmup_batches=()
    )
    # Four bytes for every number.
    weights = 4 * model.count_params()
    size = os.path.getsize(os.path.join(path, "saved_model.pb"))
    assert 0.9 * weights < size <= 1.2 * weights


# Networks of other kinds


def serve(path, **inputs):
    """`serving_default`, or `forced` if there are actions."""
    name = "forced" if "actions" in inputs else "serving_default"
    tensors = {key: tf.constant(value) for key, value in inputs.items()}
    return tf.saved_model.load(path).signatures[name](**tensors)


def test_a_dense_network_is_exported_without_gates(tmp_path):
    model = skipnet_tf.cifar_resnet(8, input_shape=(None, None, 3))
    cases.trained(model, None)
    path = export.export_saved_model(model, str(tmp_path), "cifar10", top=2)
    signatures = tf.saved_model.load(path).signatures
    assert set(signatures) == {"serving_default", "image_bytes"}
    images = pixels(2)
    got = signatures["serving_default"](images=tf.constant(images))
    expected = model(preprocessing.get("cifar10").normalise(images))
    np.testing.assert_allclose(got["logits"], expected, atol=1e-5)
    assert got["gates"].shape == got["gate_probabilities"].shape == (2, 0)
    assert got["classes"].shape == (2, 2)
    assert "class_names" not in got
    dense = flops.count(model, (8, 8, 3)).dense
    assert got["macs"].numpy().tolist() == [dense, dense]


def types_of(nodes, op):
    """The types of all nodes of a kind."""
    return {tf.as_dtype(n.attr["T"].type).name for n in nodes if n.op == op}


def test_a_bfloat16_export_keeps_gates_and_classifier_in_float32(tmp_path):
    model = divided(blocks=(2, 1))
    path = export.export_saved_model(
        model,
        str(tmp_path),
        "digits",
        forced=True,
        precision="bfloat16",
        warmup_batches=(),
    )
    nodes = graph_nodes(path)
    assert types_of(nodes, "Conv2D") == {"bfloat16"}
    for op in ("MatMul", "LSTMBlockCell"):
        assert types_of(nodes, op) == {"float32"}
    images = pixels(4)
    actions = np.array([[1, 1], [0, 0], [1, 0], [0, 1]], "float32")
    got = serve(path, images=images, actions=actions)
    expected = model.route(RECIPE.normalise(images), actions=actions)
    same(got, expected, tolerance=0.03)
    assert np.abs(got["logits"] - expected["logits"]).max() > 0


def test_a_mixed_and_masked_network_is_exported_as_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = divided("ff2", blocks=(2, 1), execution="masked", threshold=0.6)
    path = export.export_saved_model(
        model, str(tmp_path), "digits", warmup_batches=()
    )
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert model.execution == "masked"
    keras.config.set_dtype_policy("float32")
    nodes = graph_nodes(path)
    used = {a.type for node in nodes for a in node.attr.values()}
    assert tf.bfloat16.as_datatype_enum not in used
    # Masked in training, yet a served block that is skipped is not computed.
    assert sum(node.op == "StatelessIf" for node in nodes) >= 2
    twin = cases.skipnet("ff2", threshold=0.6, blocks=(2, 1))
    twin.set_weights(model.get_weights())
    images = pixels(10)
    got = serve(path, images=images)
    same(got, twin.route(RECIPE.normalise(images)))
    # The threshold is that of the network.
    runs = got["gate_probabilities"].numpy() >= 0.6
    np.testing.assert_array_equal(got["gates"], runs)
    assert 0 < runs.mean() < (got["gate_probabilities"].numpy() > 0.5).mean()


def test_random_skips_are_exported_as_keras_draws_them(tmp_path):
    model = cases.skipnet("pool", blocks=(2, 1))
    stage = skipnet_tf.Supervised(gating="random", skip_rate=0.5)
    model.compile(stage=stage)
    path = export.export_saved_model(
        model, str(tmp_path), "digits", warmup_batches=()
    )
    images = pixels(12)
    got = serve(path, images=images)
    same(got, model.route(RECIPE.normalise(images)))
    # Its gates are open: every skip was drawn.
    assert (got["gate_probabilities"].numpy() > 0.5).all()
    assert 0 < got["gates"].numpy().mean() < 1


def test_a_network_of_a_mirrored_strategy_is_exported(tmp_path):
    with cases.two_replicas().scope():
        model = skipnet_tf.ResNet((1, 1), (2, 2), num_classes=3)
    path = export.export_saved_model(
        model, str(tmp_path), "digits", warmup_batches=()
    )
    images = pixels(2)
    np.testing.assert_allclose(
        serve(path, images=images)["logits"],
        model(RECIPE.normalise(images)),
        atol=1e-5,
    )


# When a version appears


@pytest.fixture
def dense():
    return skipnet_tf.ResNet((1, 1), (2, 2), num_classes=3)


def visible(directory):
    """Names in a folder without hidden ones."""
    return sorted(n for n in os.listdir(directory) if not n.startswith("."))


def test_a_version_gets_the_next_number(dense, tmp_path):
    (tmp_path / "4").mkdir()
    (tmp_path / "8.writing").mkdir()  # of a process that was killed
    path = export.export_saved_model(dense, str(tmp_path), "digits")
    assert path == str(tmp_path / "9")
    assert visible(tmp_path) == ["4", "8.writing", "9"]


def test_an_export_that_differs_leaves_no_version(dense, tmp_path, monkeypatch):
    right = FrozenNetwork.__call__

    def wrong(self, images, cutoffs):
        answer = right(self, images, cutoffs)
        # By a thousandth of the largest.
        shift = 1e-3 * tf.reduce_max(tf.abs(answer["logits"]))
        return {**answer, "logits": answer["logits"] + shift}

    monkeypatch.setattr(FrozenNetwork, "__call__", wrong)
    with pytest.raises(RuntimeError, match="logits differ.*the Keras model"):
        export.export_saved_model(dense, str(tmp_path), "digits")
    assert visible(tmp_path) == []


def test_an_export_that_counts_wrong_leaves_no_version(
    dense, tmp_path, monkeypatch
):
    right = FrozenNetwork.__call__

    def wrong(self, images, cutoffs):
        answer = right(self, images, cutoffs)
        return {**answer, "macs": answer["macs"] + 1}

    monkeypatch.setattr(FrozenNetwork, "__call__", wrong)
    with pytest.raises(RuntimeError, match="other multiply-adds"):
        export.export_saved_model(dense, str(tmp_path), "digits")
    assert visible(tmp_path) == []


def test_an_export_that_decides_otherwise_leaves_no_version(
    tmp_path, monkeypatch
):
    # Decisions at half the threshold, of a network that is not sure.
    model = cases.skipnet("pool", gate_init="published", blocks=(2, 1))
    right = policy.Thresholded.cutoffs
    monkeypatch.setattr(
        policy.Thresholded,
        "cutoffs",
        lambda self, *sizes: right(
            policy.Thresholded(0.5 * self.threshold), *sizes
        ),
    )
    with pytest.raises(RuntimeError, match="does not decide what the Keras"):
        export.export_saved_model(
            model, str(tmp_path), "digits", warmup_batches=()
        )
    assert visible(tmp_path) == []


def test_a_network_that_diverged_is_not_exported(dense, tmp_path):
    dense.classifier.bias.assign([np.nan, 0, 0])
    with pytest.raises(RuntimeError, match="logits differ.* by nan"):
        export.export_saved_model(dense, str(tmp_path), "digits")
    assert visible(tmp_path) == []


def test_an_interrupted_export_leaves_nothing(dense, tmp_path, monkeypatch):
    seen = []

    def interrupt(folder, requests):
        seen.extend(os.listdir(folder))
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export.export_saved_model(dense, str(tmp_path), "digits")
    assert "saved_model.pb" in seen
    assert visible(tmp_path) == []


def test_mistakes_are_named_before_anything_is_written(dense, tmp_path):
    directory = str(tmp_path / "served")
    file = tmp_path / "file"
    file.write_text("")
    grey = skipnet_tf.ResNet((2,), (2,), input_shape=(None, None, 1))
    many = {"warmup_batches": (1,) * 501}
    wrong = [
        (keras.Sequential(), directory, "digits", {}, "`model`"),
        (grey, directory, "digits", {}, "`model`.*Received: 1"),
        (dense, directory, "mnist", {}, "`preprocessing`.*mnist"),
        (dense, directory, "digits", {"forced": True}, "`forced`"),
        (dense, directory, "digits", {"top": 0}, "`top`.*Received: 0"),
        (dense, directory, "digits", {"class_names": ["a"]}, "`class_names`"),
        (dense, directory, "digits", {"precision": "int8"}, "`precision`"),
        (
            dense,
            directory,
            "digits",
            {"warmup_batches": (8, 0)},
            r"`warmup_batches`.*Received: \(8, 0\)",
        ),
        # Two records each, and a server reads a thousand.
        (dense, directory, "digits", many, "at most"),
        (dense, str(file / "in"), "digits", {}, "`directory`.*file/in"),
    ]
    for model, folder, recipe, arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            export.export_saved_model(model, folder, recipe, **arguments)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        with pytest.raises(ValueError, match="outside of a strategy's scope"):
            export.export_saved_model(dense, directory, "digits")
    assert not os.path.exists(directory)
