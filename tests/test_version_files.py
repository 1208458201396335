"""What is in the folder of a version."""

import datetime
import json
import os
import shutil

import keras
import numpy as np
import tensorflow as tf
from cases import pixels
from export_cases import RECIPE
from export_cases import graph_nodes
from export_cases import same
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

import skipnet_tf
from skipnet_tf import export
from skipnet_tf import flops
from skipnet_tf import serving


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
