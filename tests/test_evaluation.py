"""What is measured on a data set."""

import json

import cases
import numpy as np
import pytest
import tensorflow as tf

import skipnet_tf
from skipnet_tf import evaluation
from skipnet_tf import flops

IMAGES = cases.images(7, 8, 8, 3)
LABELS = cases.labels(7)


def batches(size):
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(size)


def test_collect_over_uneven_batches_equals_one_route_of_all_images():
    model = cases.divide_opinions(cases.skipnet(), IMAGES)
    routed = model.route(IMAGES)
    routes = evaluation.collect(model, batches(3))
    np.testing.assert_array_equal(routes.gates, routed["gates"])
    np.testing.assert_array_equal(routes.macs, routed["macs"])
    np.testing.assert_allclose(
        routes.probabilities, routed["probabilities"], atol=1e-5
    )
    probabilities = tf.nn.softmax(routed["logits"]).numpy()
    np.testing.assert_array_equal(routes.predictions, probabilities.argmax(1))
    np.testing.assert_allclose(
        routes.confidence, probabilities.max(1), rtol=1e-4
    )
    np.testing.assert_array_equal(routes.labels, LABELS)
    assert 1 < routes.distinct_paths <= 7


def test_a_dense_network_has_no_gates_and_spends_the_dense_count():
    model = skipnet_tf.cifar_resnet(8, input_shape=(None, None, 3))
    routes = evaluation.collect(model, batches(4))
    dense = flops.count(model, (8, 8, 3)).dense
    assert routes.gates.shape == (7, 0)
    assert routes.macs.tolist() == [dense] * 7
    assert routes.macs.dtype == np.int64
    numbers = evaluation.summary(routes, dense)
    assert numbers["executed_blocks"] == numbers["macs_fraction"] == 1.0
    assert numbers["distinct_paths"] == 1


def routes_by_hand():
    gates = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], "float32")
    return evaluation.Routes(
        labels=np.array([4, 5, 6]),
        predictions=np.array([4, 5, 0]),
        confidence=np.array([0.9, 0.5, 0.4], "float32"),
        gates=gates,
        probabilities=gates,
        macs=np.array([30, 12, 30]),
    )


def test_summary_matches_numbers_computed_by_hand():
    numbers = evaluation.summary(routes_by_hand(), dense_macs=48)
    assert numbers == {
        "accuracy": pytest.approx(2 / 3),
        # (2 + 1, 1 + 1, 2 + 1) of 4 blocks, block 0 included: 8 / 12.
        "executed_blocks": pytest.approx(8 / 12),
        "macs": pytest.approx(24),
        "macs_fraction": pytest.approx(24 / 48),
        "distinct_paths": 2,
        "images": 3,
    }
    assert json.loads(json.dumps(numbers)) == numbers
    np.testing.assert_allclose(routes_by_hand().open_rates, [1, 2 / 3, 0])


def test_table_is_aligned_and_names_the_unit():
    numbers = evaluation.summary(routes_by_hand(), dense_macs=48)
    text = evaluation.table([("base", numbers), ("hrl", numbers)])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert " ".join(lines[1].split()) == (
        "base 66.67 % 66.7 % 2.40e+01 MACs 50.0 % 2"
    )
    assert "multiply-adds per image" in lines[0]


def test_a_data_set_without_labels_or_images_is_refused():
    model = skipnet_tf.cifar_resnet(8, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="`dataset` must be a batched"):
        evaluation.collect(model, batches(2).map(lambda x, y: x))
    with pytest.raises(ValueError, match="at least one image"):
        evaluation.collect(model, batches(2).take(0))
    # One-hot labels would broadcast against predictions.
    one_hot = batches(2).map(lambda x, y: (x, tf.one_hot(y, 10)))
    with pytest.raises(ValueError, match="`dataset` must be a batched"):
        evaluation.collect(model, one_hot)
