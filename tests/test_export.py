"""Exporting: networks of every kind, and when a version appears."""

import os

import cases
import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import pixels
from export_cases import RECIPE
from export_cases import divided
from export_cases import graph_nodes
from export_cases import same

import skipnet_tf
from skipnet_tf import export
from skipnet_tf import flops
from skipnet_tf import policy
from skipnet_tf import preprocessing
from skipnet_tf import serving
from skipnet_tf.frozen import FrozenNetwork

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
