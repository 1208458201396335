"""A tiny network, exported and served, and images that are none."""

import contextlib
import functools
import os
import struct
import types
import zlib
from collections.abc import Iterator

import cases
import connection
import grpc_service
import numpy as np
import predictor
import rest
import tensorflow as tf

from skipnet_tf import export
from skipnet_tf import preprocessing

CLASS_NAMES = ("one", "two", "three")
MAX_BYTES = 1 << 20
SCHEMES = ("http", "grpc")
SIGNATURES = ("image_bytes", "serving_default", "forced", "tunable")
BROKEN = ("jpeg", "truncated", "text", "empty", "gif", "bomb")


def png(image):
    """An encoded image."""
    return tf.io.encode_png(image).numpy()


@functools.cache
def inputs(signature):
    """Inputs of a signature, four images."""
    images = {"images": cases.pixels(4)}
    return {
        "image_bytes": {"bytes": [png(image) for image in cases.pixels(4)]},
        "serving_default": images,
        "forced": {**images, "actions": np.eye(4, 3, dtype="float32")},
        "tunable": {**images, "threshold": np.float32([0, 0.3, 0.7, 1])},
    }[signature]


@functools.cache
def broken(kind):
    """Bytes that no signature may take for an image."""
    return {
        "jpeg": lambda: tf.io.encode_jpeg(cases.pixels(1)[0]).numpy()[:100],
        "truncated": lambda: png(cases.pixels(1)[0])[:-40],
        "text": lambda: b"not an image",
        "empty": lambda: b"",
        "gif": _animation,
        "bomb": _bomb,
    }[kind]()


def _animation():
    """A GIF of two frames of one pixel."""
    frame = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    return b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + 2 * frame + b";"


def _bomb(side=20_000):
    """A PNG of few bytes and many pixels, one bit each."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (1 + side // 8)), 9)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def export_tiny(folder):
    """Exports version 1 of a network whose gates divide the images."""
    normalised = preprocessing.get("digits").normalise(cases.pixels(9))
    model = cases.divide_opinions(cases.skipnet("rnn"), normalised)
    export.export_saved_model(
        model, str(folder), "digits", forced=True, class_names=CLASS_NAMES
    )
    return str(folder)


def direct(folder):
    """Returns a function that calls a signature, without a server."""
    signatures = tf.saved_model.load(os.path.join(folder, "1")).signatures

    def call(signature, inputs):
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        outputs = signatures[signature](**tensors)
        arrays = {name: value.numpy() for name, value in outputs.items()}
        arrays["class_names"] = arrays["class_names"].astype(str)
        return {name: array.tolist() for name, array in arrays.items()}

    return call


@contextlib.contextmanager
def serve(folder) -> Iterator[types.SimpleNamespace]:
    """Both servers: their model, URLs, and connections to them."""
    model = predictor.Model("skipnet", folder)
    http = rest.Server(model, "localhost", 0, MAX_BYTES)
    rpc, port = grpc_service.serve(model, "localhost", 0, MAX_BYTES, 8)
    urls = {
        "http": f"http://localhost:{http.port}",
        "grpc": f"grpc://localhost:{port}",
    }
    services = {k: connection.connect(v, "skipnet") for k, v in urls.items()}
    try:
        yield types.SimpleNamespace(model=model, urls=urls, services=services)
    finally:
        http.stop()
        rpc.stop(None).wait()


def same(got, expected):
    """Raises if two answers differ by more than rounding."""
    assert got.keys() == expected.keys()
    for name in ("classes", "class_names", "gates", "macs"):
        assert got[name] == expected[name], name
    for name in ("logits", "probabilities", "gate_probabilities"):
        np.testing.assert_allclose(got[name], expected[name], atol=1e-5)
