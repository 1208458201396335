"""A network whose gates divide the images, and what its answers must be."""

import os

import cases
import numpy as np
import tensorflow as tf
from cases import pixels
from tensorflow.core.protobuf import saved_model_pb2

from skipnet_tf import preprocessing

RECIPE = preprocessing.get("digits")
NAMES = ("one", "two", "three")


def divided(gate="rnn", **arguments):
    """A SkipNet whose gates run for some images and not for others."""
    model = cases.skipnet(gate, **arguments)
    return cases.trained(model, RECIPE.normalise(pixels(10)))


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


def files(images, encode=tf.io.encode_png):
    """Encoded images `(batch,)`."""
    return np.array([encode(image).numpy() for image in images], object)


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
