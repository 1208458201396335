"""What the signatures of a SavedModel answer, and what they refuse."""

import numpy as np
import pytest
import tensorflow as tf
from cases import pixels
from export_cases import NAMES
from export_cases import RECIPE
from export_cases import files
from export_cases import same

from skipnet_tf import flops
from skipnet_tf import policy

BAD = (tf.errors.InvalidArgumentError, ValueError)


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
