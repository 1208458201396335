"""SavedModels: what they answer, and when a version appears."""

import os

import cases
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import skipnet_tf
from skipnet_tf import evaluation
from skipnet_tf import export
from skipnet_tf import flops
from skipnet_tf import preprocessing

RECIPE = preprocessing.get("digits")
NAMES = ("one", "two", "three")


def pixels(count, size=8, seed=0):
    """uint8 noise, each image at a brightness of its own."""
    values = 127 + 60 * cases.images(count, size, size, 3, seed=seed)
    return values.clip(0, 255).astype("uint8")


def divided(gate="rnn", **arguments):
    """A SkipNet whose gates run for some images and not for others."""
    normalised = RECIPE.normalise(pixels(9))
    return cases.divide_opinions(cases.skipnet(gate, **arguments), normalised)


@pytest.fixture(scope="module")
def skipnet():
    return divided()


@pytest.fixture(scope="module")
def version(skipnet, tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("skipnet"))
    return export.export_saved_model(
        skipnet, directory, "digits", forced=True, class_names=NAMES
    )


@pytest.fixture(scope="module")
def signatures(version):
    return tf.saved_model.load(version).signatures


@pytest.mark.parametrize("shape", [(1, 8), (9, 8), (3, 13)])
def test_the_export_answers_as_the_keras_model(signatures, skipnet, shape):
    images = pixels(*shape)
    got = signatures["serving_default"](images=tf.constant(images))
    expected = skipnet.route(RECIPE.normalise(images))
    np.testing.assert_allclose(got["logits"], expected["logits"], atol=1e-5)
    np.testing.assert_array_equal(got["gates"], expected["gates"])
    np.testing.assert_array_equal(got["macs"], expected["macs"])
    np.testing.assert_allclose(
        got["gate_probabilities"], expected["probabilities"], atol=1e-5
    )


def test_images_of_one_batch_take_different_paths(signatures):
    got = signatures["serving_default"](images=tf.constant(pixels(9)))
    assert len(set(got["macs"].numpy().tolist())) > 1


def test_every_output_has_its_type_and_begins_with_the_batch(signatures):
    got = signatures["serving_default"](images=tf.constant(pixels(5)))
    found = {name: (v.dtype, tuple(v.shape)) for name, v in got.items()}
    # Three classes and three gates; the top five of three are three.
    assert found == {
        "logits": (tf.float32, (5, 3)),
        "probabilities": (tf.float32, (5, 3)),
        "classes": (tf.int64, (5, 3)),
        "class_names": (tf.string, (5, 3)),
        "gate_probabilities": (tf.float32, (5, 3)),
        "gates": (tf.float32, (5, 3)),
        "macs": (tf.int64, (5,)),
    }


def test_classes_are_sorted_by_probability_and_named(signatures):
    got = signatures["serving_default"](images=tf.constant(pixels(5)))
    order = np.argsort(-got["probabilities"].numpy(), axis=1)
    np.testing.assert_array_equal(got["classes"], order)
    names = np.array(NAMES, object)[order]
    assert got["class_names"].numpy().astype(str).tolist() == names.tolist()
    np.testing.assert_allclose(
        tf.reduce_sum(got["probabilities"], 1), np.ones(5), rtol=1e-6
    )


def test_image_bytes_answers_as_the_decoded_pixels(signatures):
    images = pixels(4)
    encoded = tf.stack([tf.io.encode_png(image) for image in images])
    got = signatures["image_bytes"](bytes=encoded)
    expected = signatures["serving_default"](images=tf.constant(images))
    np.testing.assert_allclose(got["logits"], expected["logits"], atol=1e-6)
    np.testing.assert_array_equal(got["gates"], expected["gates"])


def test_image_bytes_resizes_as_evaluation_does(signatures):
    encoded = tf.io.encode_png(pixels(1, size=21)[0])
    got = signatures["image_bytes"](bytes=encoded[None])
    expected = signatures["serving_default"](
        images=RECIPE.decode(encoded)[None]
    )
    np.testing.assert_allclose(got["logits"], expected["logits"], atol=1e-6)


def test_imposed_skips_cost_what_every_image_pays(signatures, skipnet):
    count = flops.count(skipnet, (8, 8, 3))
    got = signatures["forced"](
        images=tf.constant(pixels(2)), actions=tf.zeros([2, 3])
    )
    paid = count.fixed + int(count.gates.sum())
    assert got["macs"].numpy().tolist() == [paid, paid]
    # Gates are computed, and reported, although they decide nothing.
    assert (got["gate_probabilities"].numpy() > 0).all()
    assert not got["gates"].numpy().any()


def test_imposed_decisions_are_taken_image_by_image(signatures, skipnet):
    images, actions = pixels(2), np.array([[1, 0, 1], [0, 1, 0]], "float32")
    got = signatures["forced"](
        images=tf.constant(images), actions=tf.constant(actions)
    )
    expected = skipnet.route(RECIPE.normalise(images), actions=actions)
    np.testing.assert_allclose(got["logits"], expected["logits"], atol=1e-5)
    np.testing.assert_array_equal(got["gates"], actions)


def test_actions_for_another_number_of_images_are_an_error(signatures):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="one row for each"
    ):
        signatures["forced"](
            images=tf.constant(pixels(3)), actions=tf.ones([1, 3])
        )


def convolved_rows(session, outputs, feeds):
    """Rows of all convolutions with 8 channels that really ran.

    Only the last two of the three gated blocks have 8 channels, two
    convolutions each; the projection that is always computed has 8, too.
    """
    trace = tf.compat.v1.RunMetadata()
    options = tf.compat.v1.RunOptions(
        trace_level=tf.compat.v1.RunOptions.FULL_TRACE
    )
    session.run(outputs, feeds, options=options, run_metadata=trace)
    rows = 0
    for device in trace.step_stats.dev_stats:
        for node in device.node_stats:
            if "Conv2D" not in node.timeline_label:
                continue
            shape = node.output[0].tensor_description.shape
            sizes = [dimension.size for dimension in shape.dim]
            rows += sizes[0] if sizes[-1] == 8 else 0
    return rows


def test_a_session_convolves_only_the_rows_that_run(version):
    actions = np.array([[0, 0, 0], [0, 1, 0], [1, 1, 1]], "float32")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], version)
        signature = loaded.signature_def["forced"]
        inputs = {k: v.name for k, v in signature.inputs.items()}
        outputs = signature.outputs["logits"].name
        rows = [
            convolved_rows(
                session,
                outputs,
                {
                    inputs["images"]: pixels(3),
                    inputs["actions"]: actions * scale,
                },
            )
            for scale in (0, 1)
        ]
    # The projection of 3 rows; and 2 convolutions for each of 3 executions.
    assert rows == [3, 3 + 2 * 3]


def test_a_dense_network_is_exported_without_gates(tmp_path):
    model = skipnet_tf.cifar_resnet(8, input_shape=(None, None, 3))
    path = export.export_saved_model(model, str(tmp_path), "cifar10", top=2)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    images = pixels(2)
    got = serve(images=tf.constant(images))
    expected = model(preprocessing.get("cifar10").normalise(images))
    np.testing.assert_allclose(got["logits"], expected, atol=1e-5)
    assert got["gates"].shape == got["gate_probabilities"].shape == (2, 0)
    assert got["classes"].shape == (2, 2)
    assert "class_names" not in got
    dense = flops.count(model, (8, 8, 3)).dense
    assert got["macs"].numpy().tolist() == [dense, dense]


def nodes(version):
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


def test_a_bfloat16_and_masked_model_is_exported_as_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = cases.skipnet("ff2", execution="masked")
    path = export.export_saved_model(model, str(tmp_path), "digits")
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    used = {a.type for node in nodes(path) for a in node.attr.values()}
    assert tf.bfloat16.as_datatype_enum not in used
    # Masked in training, yet a served block that is skipped is not computed.
    assert sum(node.op == "If" for node in nodes(path)) >= 3
    keras.config.set_dtype_policy("float32")
    twin = cases.skipnet("ff2")
    twin.set_weights(model.get_weights())
    images = pixels(3)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    np.testing.assert_allclose(
        serve(images=tf.constant(images))["logits"],
        twin(RECIPE.normalise(images)),
        atol=1e-5,
    )


def test_the_threshold_of_the_model_is_exported(tmp_path):
    model = divided("pool", threshold=0.999)
    path = export.export_saved_model(model, str(tmp_path), "digits")
    serve = tf.saved_model.load(path).signatures["serving_default"]
    got = serve(images=tf.constant(pixels(9)))
    runs = got["gate_probabilities"].numpy() >= 0.999
    np.testing.assert_array_equal(got["gates"], runs)
    assert (got["gate_probabilities"].numpy() > 0.5).sum() > runs.sum()


@pytest.fixture
def dense():
    return skipnet_tf.ResNet((1, 1), (2, 2), num_classes=3)


def test_versions_go_up_and_pass_over_what_is_being_written(dense, tmp_path):
    def write():
        path = export.export_saved_model(dense, str(tmp_path), "digits")
        return os.path.basename(path)

    assert write() == "1"
    assert write() == "2"
    (tmp_path / "1").rename(tmp_path / "old")
    (tmp_path / "9.writing").mkdir()  # another process, at work
    assert write() == "10"
    assert sorted(os.listdir(tmp_path)) == ["10", "2", "9.writing", "old"]


def test_an_export_that_differs_leaves_no_version(dense, tmp_path, monkeypatch):
    right = evaluation.route
    calls = []

    def route(model, images, actions=None):
        routed = right(model, images, actions)
        calls.append(tf.inside_function())
        # The exported graph gets one logit wrong by a thousandth.
        wrong = 1e-3 if tf.inside_function() else 0.0
        shift = wrong * tf.reduce_max(tf.abs(routed["logits"]))
        return {**routed, "logits": routed["logits"] + shift}

    monkeypatch.setattr(evaluation, "route", route)
    with pytest.raises(RuntimeError, match="logits differ"):
        export.export_saved_model(dense, str(tmp_path), "digits")
    assert set(calls) == {True, False}
    assert os.listdir(tmp_path) == []


def test_a_network_that_diverged_is_not_exported(dense, tmp_path):
    dense.classifier.bias.assign([np.nan, 0, 0])
    with pytest.raises(RuntimeError, match="logits differ by nan"):
        export.export_saved_model(dense, str(tmp_path), "digits")
    assert os.listdir(tmp_path) == []


def test_mistakes_are_named_before_anything_is_written(dense, tmp_path):
    directory = str(tmp_path / "served")
    file = tmp_path / "file"
    file.write_text("")
    wrong = [
        (keras.Sequential(), directory, "digits", {}, "`model`"),
        (dense, directory, "mnist", {}, "`preprocessing`.*mnist"),
        (dense, directory, "digits", {"forced": True}, "`forced`"),
        (dense, directory, "digits", {"top": 0}, "`top`.*Received: 0"),
        (dense, directory, "digits", {"class_names": ["a"]}, "`class_names`"),
        (dense, str(file / "in"), "digits", {}, "`directory`.*file/in"),
    ]
    for model, folder, recipe, arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            export.export_saved_model(model, folder, recipe, **arguments)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        with pytest.raises(ValueError, match="outside of a strategy's scope"):
            export.export_saved_model(dense, directory, "digits")
    assert not os.path.exists(directory)


def test_a_network_of_a_mirrored_strategy_is_exported(tmp_path):
    with cases.two_replicas().scope():
        model = skipnet_tf.ResNet((1, 1), (2, 2), num_classes=3)
    path = export.export_saved_model(model, str(tmp_path), "digits")
    images = pixels(2)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    np.testing.assert_allclose(
        serve(images=tf.constant(images))["logits"],
        model(RECIPE.normalise(images)),
        atol=1e-5,
    )


def test_no_function_asks_for_xla(version):
    # TF Serving refuses to run such functions unless it is told otherwise.
    xla = [node for node in nodes(version) if node.attr["_XlaMustCompile"].b]
    assert xla == []
