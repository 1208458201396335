"""Proof that a SavedModel skips what its gates say and that servers can run it.

Works on what an operator received, without the network it was made from. The
reference is made from the file itself: every conditional block is replaced by
both of its branches, run for all rows and mixed (Eq. 1 as it stands).
"""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from skipnet_tf import gated_graphs
from skipnet_tf import serving
from skipnet_tf import sessions

_SIZE = 32  # pixels of the images that are tried
_MOST_BYTES = 2**31 - 1  # of a protocol buffer

# Largest difference of logits, as a part of the largest logit, and how near
# to its threshold a probability may decide either way.
_TOLERANCES = {"float32": (1e-4, 1e-5), "bfloat16": (5e-2, 2e-2)}

_CONDITIONALS = ("If", "StatelessIf", "Case", "StatelessCase")
_LOOPS = ("While", "StatelessWhile")


class VerificationError(RuntimeError):
    """A SavedModel is not fit to be served; the message says why."""


def verify_saved_model(path: str) -> list[str]:
    """Checks a version as an operator would want it to be checked.

    It is loaded with the plain session loader that TF Serving uses. Thresholds
    of 1, 0 and some of each make it skip everything, nothing and a part.

    Args:
        path: String, the version's folder.

    Returns:
        List of strings, what was found to hold.

    Raises:
        ValueError: If `path` holds no SavedModel.
        VerificationError: If anything does not hold; names all of it.
    """
    meta_graph = sessions.read_meta_graph(path)
    with sessions.Session(path) as session:
        return verify_loaded(path, meta_graph, session)


def verify_loaded(
    path: str,
    meta_graph: meta_graph_pb2.MetaGraphDef,
    session: sessions.Session,
) -> list[str]:
    """`verify_saved_model` of a version that is loaded already."""
    held = []
    checks = [
        ("files", lambda: _check_files(path)),
        ("control flow", lambda: _check_control_flow(meta_graph)),
        ("outputs", lambda: _check_outputs(meta_graph)),
    ]
    _run_checks(path, checks, held)
    # A graph that needs XLA ends the process, so that nothing may run before.
    checks = [
        ("bad requests", lambda: _check_bad_requests(session)),
        ("warm-up requests", lambda: _check_warmup(path, session)),
    ]
    if "tunable" in session.signatures:
        checks.append(
            ("skipping", lambda: _check_skipping(meta_graph, session))
        )
    _run_checks(path, checks, held)
    return held


def _run_checks(path, checks, held):
    failed = []
    for name, check in checks:
        try:
            held.append(f"{name}: {check()}")
        except (VerificationError, tf.errors.OpError, ValueError) as error:
            failed.append(f"{name}: {error}")
    if failed:
        raise VerificationError(
            f"{path} is not fit to be served; " + "; ".join(failed)
        )


def _expect(condition, message):
    if not condition:
        raise VerificationError(message)


def _check_files(path):
    bytes_ = os.path.getsize(os.path.join(path, "saved_model.pb"))
    _expect(bytes_ < _MOST_BYTES, f"saved_model.pb has {bytes_} bytes")
    fingerprint = os.path.join(path, "fingerprint.pb")
    _expect(os.path.exists(fingerprint), "there is no fingerprint.pb")
    return f"saved_model.pb of {bytes_ / 1e6:.1f} MB, with a fingerprint"


def _nodes(meta_graph) -> Iterator[node_def_pb2.NodeDef]:
    yield from meta_graph.graph_def.node
    for function in meta_graph.graph_def.library.function:
        yield from function.node_def


def _check_control_flow(meta_graph):
    """Every branch is lowered, and nothing needs a compiler or a variable."""
    conditionals = 0
    for node in _nodes(meta_graph):
        if node.op in (*_CONDITIONALS, *_LOOPS):
            conditionals += node.op in _CONDITIONALS
            # Otherwise a server fails as soon as a block runs.
            lowered = _has(node, "_lower_using_switch_merge")
            _expect(lowered, f"{node.op} {node.name} is not to be lowered")
        compiled = _has(node, "_XlaMustCompile") or node.op == "XlaLaunch"
        _expect(not compiled, f"{node.name} needs XLA, which servers disable")
        plain = node.op not in ("Switch", "RefSwitch", "VarHandleOp")
        _expect(plain, f"{node.name} is a {node.op}")
    for block in gated_graphs.blocks(meta_graph):
        found = [n.name for n in block.outside.node_def if n.op == "Where"]
        _expect(not found, f"{found} select rows outside of a branch")
    return f"{conditionals} conditionals, functional and to be lowered"


def _has(node, flag):
    # Asking a map of a protocol buffer for what it lacks adds it.
    return flag in node.attr and node.attr[flag].b


def _check_outputs(meta_graph):
    """Servers put requests together and cut answers apart by the batch."""
    for name in ("serving_default", "image_bytes"):
        _expect(name in meta_graph.signature_def, f"no signature {name}")
    for name, signature in meta_graph.signature_def.items():
        for kind in (signature.inputs, signature.outputs):
            for key, value in kind.items():
                sizes = [size.size for size in value.tensor_shape.dim]
                batched = sizes and sizes[0] == -1
                # The op that initialises a graph has outputs of no shape.
                special = name.startswith("__saved_model")
                _expect(
                    batched or special,
                    f"{key} of {name} does not begin with the batch: {sizes}",
                )
    return "all begin with the batch"


def _images(batch):
    shape = (batch, _SIZE, _SIZE, 3)
    return np.random.default_rng(batch).integers(0, 256, shape, np.uint8)


def _check_bad_requests(session):
    """A bad request is an error, and the next one is answered."""
    png = tf.io.encode_png(_images(1)[0]).numpy()
    empty = np.zeros((0, _SIZE, _SIZE, 3), np.uint8)
    bad = [
        ("serving_default", {"images": empty}),
        ("serving_default", {"images": _images(1)[0]}),
        ("image_bytes", {"bytes": np.array([], object)}),
        ("image_bytes", {"bytes": np.array([png, png[:-20]], object)}),
        ("image_bytes", {"bytes": np.array([b"GIF89a"], object)}),
    ]
    if "tunable" in session.signatures:
        for threshold in (-0.1, 1.1, np.nan):
            inputs = {
                "images": _images(1),
                "threshold": np.array([threshold], np.float32),
            }
            bad.append(("tunable", inputs))
    for signature, inputs in bad:
        try:
            session.run(signature, **inputs)
        except (tf.errors.InvalidArgumentError, ValueError):
            continue  # the latter from Python, before the graph is asked
        raise VerificationError(f"{signature} accepts a bad request")
    session.run("serving_default", images=_images(1))
    session.run("image_bytes", bytes=np.array([png], object))
    return f"{len(bad)} kinds, all refused"


def _check_warmup(path, session):
    count = 0
    for count, (name, inputs) in enumerate(serving.read_requests(path), 1):
        _expect(name in session.signatures, f"no signature {name}")
        # A session would convert what a server refuses.
        stated = session.signatures[name].inputs
        expected = {key: tf.as_dtype(t.dtype).name for key, t in stated.items()}
        given = {k: tf.as_dtype(a.dtype).name for k, a in inputs.items()}
        _expect(given == expected, f"{name} takes {expected}, not {given}")
        session.run(name, **inputs)
    return f"{count}, all answered"


def _check_skipping(meta_graph, session):
    """Rows that ran are rows that the gates chose, and the sums are right."""
    convolutions = {
        b.name: b.convolutions for b in gated_graphs.blocks(meta_graph)
    }
    mixed, gates = _mixture(session)
    _expect(
        len(convolutions) == gates and all(convolutions.values()),
        f"{gates} gates, but convolutions inside of branches are "
        f"{convolutions}",
    )
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    cases = [ones[:1], zeros[:1], ones, mixed, zeros]
    precision = _precision(meta_graph)
    with sessions.Session(gated_graphs.masked(meta_graph)) as reference:
        for threshold in cases:
            inputs = {"images": _images(len(threshold)), "threshold": threshold}
            outputs, ran = session.trace("tunable", **inputs)
            for name, output in outputs.items():
                _expect(
                    len(output) == len(threshold),
                    f"{name} has {len(output)} rows for {len(threshold)}",
                )
            _check_rows(convolutions, outputs["gates"], ran)
            run_all = threshold == 0
            _expect(outputs["gates"][run_all].all(), "threshold 0 skips")
            _expect(not outputs["gates"][threshold == 1].any(), "1 runs")
            compare(
                reference.run("tunable", **inputs),
                outputs,
                threshold,
                precision,
                "the masked reference",
            )
    return (
        f"{len(convolutions)} gated blocks convolve the rows that their gates "
        f"chose, and no others, at {len(cases)} mixtures; equal to computing "
        f"all and mixing ({precision})"
    )


def _mixture(session):
    """Thresholds under which images disagree where they can; gates."""
    half = np.full(8, 0.5, np.float32)
    probabilities = session.run("tunable", images=_images(8), threshold=half)[
        "gate_probabilities"
    ]
    # Next to probabilities, on either side of them.
    shares = np.quantile(probabilities, [0.1, 0.3, 0.5, 0.7, 0.9]) * 1.001
    mixed = np.array([0, 1, 0.5, *shares], np.float32)
    return mixed.clip(0, 1), probabilities.shape[1]


def _check_rows(convolutions, gates, ran):
    rows = dict.fromkeys(convolutions, 0)
    for operation in ran:
        if "Conv" in operation.op:
            inside = set(operation.name.split("/")) & rows.keys()
            for name in inside:
                rows[name] += operation.rows
    expected = [
        count * int(gates[:, index].sum())
        for index, count in enumerate(convolutions.values())
    ]
    _expect(
        list(rows.values()) == expected,
        f"rows convolved per block {list(rows.values())}, chosen {expected}",
    )


def _precision(meta_graph):
    half = tf.bfloat16.as_datatype_enum
    used = any(
        "T" in node.attr and node.attr["T"].type == half
        for node in _nodes(meta_graph)
    )
    return "bfloat16" if used else "float32"


def compare(
    expected: dict,
    got: dict,
    threshold: np.ndarray,
    precision: str,
    what: str,
) -> None:
    """Compares two answers to the same images.

    Images with a probability next to the threshold are left out: their
    decision, and so their path, may turn with the last digit.

    Args:
        expected: Dict of arrays, outputs of a signature.
        got: Dict of arrays, outputs of a signature.
        threshold: Float array `(batch,)`, of each image.
        precision: `"float32"` or `"bfloat16"`.
        what: String, what `expected` comes from.

    Raises:
        VerificationError: If they differ.
    """
    tolerance, margin = _TOLERANCES[precision]
    distance = np.abs(expected["gate_probabilities"] - threshold[:, None])
    # At 0 and 1 nothing hangs on a probability.
    sure = (distance > margin).all(axis=1) | np.isin(threshold, (0, 1))
    for name in ("gates", "macs"):
        same = (expected[name] == got[name])[sure].all()
        _expect(same, f"{name} are not those of {what}")
    check_logits(expected["logits"][sure], got["logits"][sure], tolerance, what)


def check_logits(
    expected: np.ndarray, got: np.ndarray, tolerance: float, what: str
) -> None:
    """Raises `VerificationError` if logits differ.

    Args:
        expected: Float array `(batch, classes)`.
        got: Float array `(batch, classes)`.
        tolerance: Float, as a part of the largest expected logit.
        what: String, what `expected` comes from.
    """
    largest = np.abs(expected).max(initial=0)
    difference = np.abs(expected - got).max(initial=0)
    # Not `>`: a comparison with NaN must fail.
    _expect(
        difference <= tolerance * largest,
        f"logits differ from those of {what} by {difference:.2g}; the "
        f"largest is {largest:.2g}",
    )
