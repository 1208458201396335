"""What an operator's check finds, and what it must not let pass."""

import os
import shutil

import cases
import numpy as np
import pytest
import tensorflow as tf
from cases import pixels
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

import skipnet_tf
from skipnet_tf import export
from skipnet_tf import frozen
from skipnet_tf import gated_graphs
from skipnet_tf import preprocessing
from skipnet_tf import serving
from skipnet_tf import sessions
from skipnet_tf import verification
from skipnet_tf.verification import VerificationError

# The two forms of a served network: small images have a graph for one image.
KINDS = {
    "cifar": {"gate": "rnn"},
    "imagenet": {"gate": "ff1", "stem": "imagenet", "bottleneck": True},
}


def unchecked(model, directory, warmup_batches=()):
    """A version that was written without being looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_check", lambda *_: None)
        return export.export_saved_model(
            model, str(directory), "digits", warmup_batches=warmup_batches
        )


def divided(gate="pool", blocks=(2, 1), **arguments):
    """A SkipNet whose gates run for some images and not for others."""
    model = cases.skipnet(gate, blocks=blocks, **arguments)
    normalised = preprocessing.get("digits").normalise(pixels(10, size=32))
    return cases.trained(model, normalised)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def version(kind, tmp_path_factory):
    model = divided(**KINDS[kind])
    return unchecked(model, tmp_path_factory.mktemp("gated"), (1, 2))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    model = skipnet_tf.ResNet((1, 1), (2, 2), num_classes=3)
    return unchecked(model, tmp_path_factory.mktemp("dense"), (1,))


def test_a_good_version_is_said_to_skip(version):
    files, control, outputs, bad, warmup, skipping = (
        verification.verify_saved_model(version)
    )
    size = os.path.getsize(os.path.join(version, "saved_model.pb")) / 1e6
    assert f"{size:.1f} MB, with a fingerprint" in files
    assert "conditionals, functional and to be lowered" in control
    assert "begin with the batch" in outputs
    assert bad == "bad requests: 8 kinds, all refused"
    # Pixels, files, and two thresholds; of one image and of two.
    assert warmup == "warm-up requests: 8, all answered"
    assert "2 gated blocks convolve the rows that their gates chose" in skipping
    assert "equal to computing all and mixing (float32)" in skipping


def test_a_dense_version_has_nothing_to_skip(dense):
    held = verification.verify_saved_model(dense)
    assert [line.split(":")[0] for line in held] == [
        "files",
        "control flow",
        "outputs",
        "bad requests",
        "warm-up requests",
    ]


def rows_convolved(ran, blocks):
    """Rows of all convolutions of each block."""
    return [
        sum(
            operation.rows
            for operation in ran
            if "Conv" in operation.op
            and any(part.startswith(name) for part in operation.name.split("/"))
        )
        for name in blocks
    ]


@pytest.mark.parametrize("batch", [1, 4])
def test_the_reference_computes_every_row_and_answers_the_same(
    kind, version, batch
):
    meta_graph = sessions.read_meta_graph(version)
    before = meta_graph.SerializeToString(deterministic=True)
    masked = gated_graphs.masked(meta_graph)
    assert meta_graph.SerializeToString(deterministic=True) == before
    inputs = {
        "images": pixels(batch, size=32),
        "threshold": np.array([1, 0.5, 0, 0.5], np.float32)[:batch],
    }
    with sessions.Session(version) as session:
        got = session.run("tunable", **inputs)
    with sessions.Session(masked) as reference:
        expected, ran = reference.trace("tunable", **inputs)
    np.testing.assert_array_equal(got["gates"], expected["gates"])
    np.testing.assert_allclose(got["logits"], expected["logits"], atol=1e-4)
    convolutions = {"cifar": 2, "imagenet": 3}[kind]
    # Rows of both gated blocks, skipped or not.
    assert (
        rows_convolved(ran, ("group1_block1", "group2_block0"))
        == [convolutions * batch] * 2
    )
    assert got["gates"].mean() < 1


# Traps, by their numbers: each made a server fail, or skip nothing.


def copied(version, folder):
    """A copy of a version, to be changed."""
    path = os.path.join(folder, "1")
    shutil.copytree(version, path)
    return path


def nodes(meta_graph):
    """All nodes, those inside functions included."""
    functions = meta_graph.graph_def.library.function
    yield from meta_graph.graph_def.node
    for function in functions:
        yield from function.node_def


def fails(version, message):
    """Raises unless the check fails for the reason in `message`."""
    with pytest.raises(VerificationError, match=message) as raised:
        verification.verify_saved_model(version)
    assert version in str(raised.value)


def fails_changed(version, change, message):
    """`fails` of the graph after `change`, which need not be able to run."""
    meta_graph = sessions.read_meta_graph(version)
    change(meta_graph)
    with sessions.Session(version) as session:
        with pytest.raises(VerificationError, match=message):
            verification.verify_loaded(version, meta_graph, session)


@pytest.mark.parametrize("absent", [False, True])
def test_t1_branches_that_are_not_lowered_are_found(dense, absent):
    def change(meta_graph):
        branch = next(n for n in nodes(meta_graph) if n.op.endswith("If"))
        branch.attr["_lower_using_switch_merge"].b = False
        if absent:
            del branch.attr["_lower_using_switch_merge"]

    message = "control flow: (Stateless)?If .* is not to be lowered"
    fails_changed(dense, change, message)


def test_t1_gated_blocks_that_are_not_lowered_are_found(version):
    def change(meta_graph):
        for node in nodes(meta_graph):
            if node.name == "group2_block0":
                del node.attr["_lower_using_switch_merge"]

    message = "If group2_block0 is not to be lowered"
    fails_changed(version, change, message)


def broken(directory, **replaced):
    """A version made with wrong functions in place of those of `frozen`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, function in replaced.items():
            patch.setattr(frozen, name, function)
        return unchecked(divided(stem="imagenet"), directory)


def test_t2_decisions_of_the_first_image_for_all_are_found(tmp_path):
    right = frozen._run_rows

    def first(block, maps, before, runs, name):
        runs = tf.broadcast_to(runs[:1], tf.shape(runs))
        return right(block, maps, before, runs, name)

    fails(broken(tmp_path, _run_rows=first), "skipping: rows convolved")


def drop_batch(meta_graph):
    """Makes an output a scalar, for all that the signature says."""
    outputs = meta_graph.signature_def["image_bytes"].outputs
    outputs["macs"].tensor_shape.dim.pop()


def test_t3_outputs_without_a_batch_are_found(dense):
    message = r"macs of image_bytes does not begin with the batch: \[\]"
    fails_changed(dense, drop_batch, message)


def test_t3_outputs_of_a_fixed_batch_are_found(dense):
    def change(meta_graph):
        outputs = meta_graph.signature_def["serving_default"].outputs
        outputs["logits"].tensor_shape.dim[0].size = 1

    message = r"logits of serving_default does not begin.*\[1, 3\]"
    fails_changed(dense, change, message)


def test_a_missing_signature_is_found(dense):
    def change(meta_graph):
        del meta_graph.signature_def["image_bytes"]

    fails_changed(dense, change, "outputs: no signature image_bytes")


def test_t4_functions_for_a_compiler_are_found(dense):
    def change(meta_graph):
        call = next(n for n in nodes(meta_graph) if n.op.endswith("Call"))
        call.attr["_XlaMustCompile"].b = True

    fails_changed(dense, change, "needs XLA, which servers disable")


def masked_rows(block, maps, before, runs, name):
    """Eq. 1 as it stands, which saves nothing."""
    after = block(maps, before[0])
    return [
        tf.where(tf.reshape(runs, [-1] + [1] * (new.shape.rank - 1)), new, old)
        for old, new in zip(before, after)
    ]


def test_t5_blocks_that_are_always_computed_are_found(tmp_path):
    fails(broken(tmp_path, _run_rows=masked_rows), "skipping")


def test_t5_blocks_computed_outside_of_their_branch_are_found(tmp_path):
    def outside(block, maps, before, runs, name):
        after = masked_rows(block, maps, before, runs, name)
        after = tf.cond(
            tf.reduce_any(runs), lambda: after, lambda: before, name=name
        )
        return frozen._shaped_as(before, after)

    fails(broken(tmp_path, _run_rows=outside), "skipping")


def test_t5_blocks_computed_for_all_rows_if_for_any_are_found(tmp_path):
    def whole(block, maps, before, runs, name):
        after = tf.cond(
            tf.reduce_any(runs),
            lambda: masked_rows(block, maps, before, runs, name),
            lambda: before,
            name=name,
        )
        return frozen._shaped_as(before, after)

    fails(broken(tmp_path, _run_rows=whole), "skipping: rows convolved")


def test_rows_put_back_in_wrong_places_are_found(tmp_path):
    right = frozen._put_rows

    def turned(tensor, rows, values, in_place):
        # In one of two blocks: two rows that change places twice are right.
        turns = int(in_place)
        return right(tensor, rows, tf.roll(values, turns, axis=0), in_place)

    path = broken(tmp_path, _put_rows=turned)
    fails(path, "skipping: logits differ from those of the masked reference")


def test_t6_warm_up_requests_that_a_server_would_refuse_are_found(
    dense, tmp_path
):
    images = pixels(1)
    wrong = {
        "unknown": ("no signature unknown", {"images": images}),
        "serving_default": ("warm-up", {"images": images[0]}),
        "image_bytes": ("warm-up", {"bytes": np.array([b"text"], object)}),
    }
    for signature, (message, inputs) in wrong.items():
        path = with_requests(dense, tmp_path / signature, [(signature, inputs)])
        fails(path, message)


def with_requests(version, folder, requests):
    """A copy of a version with other warm-up requests."""
    path = copied(version, folder)
    shutil.rmtree(os.path.join(path, "assets.extra"))
    serving.write(path, requests)
    return path


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"pixels": pixels(1)},
        {"images": pixels(1), "threshold": np.zeros(1, np.float32)},
        {"images": pixels(1).astype("float32")},
    ],
    ids=["nothing", "another name", "too much", "another type"],
)
def test_t6_warm_up_inputs_that_do_not_fit_the_signature_are_found(
    dense, tmp_path, inputs
):
    path = with_requests(dense, tmp_path, [("serving_default", inputs)])
    fails(path, "warm-up requests: ")


def test_t6_warm_up_records_that_cannot_be_read_are_found(dense, tmp_path):
    path = with_requests(dense, tmp_path, [])
    records = os.path.join(path, "assets.extra", "tf_serving_warmup_requests")
    with tf.io.TFRecordWriter(records) as file:
        file.write(b"\xff\xff nothing that a server knows")
    fails(path, "warm-up requests: ")
    with open(records, "wb") as file:
        file.write(b"no records at all")
    fails(path, "warm-up requests: ")


def test_t9_rows_selected_outside_of_a_branch_are_found(tmp_path):
    def outside(block, maps, before, runs, name):
        rows = tf.cast(tf.where(runs)[:, 0], tf.int32)

        def run():
            inputs = [tf.gather(t, rows) for t in (maps, before[0])]
            return [
                tf.tensor_scatter_nd_update(old, rows[:, None], new)
                for old, new in zip(before, block(*inputs))
            ]

        after = tf.cond(tf.reduce_any(runs), run, lambda: before, name=name)
        return frozen._shaped_as(before, after)

    path = broken(tmp_path, _run_rows=outside)
    fails(path, r"control flow: \['Where.*\] select rows outside of a branch")


@pytest.mark.parametrize("op", ["VarHandleOp", "Switch"])
def test_t10_variables_and_lowered_branches_are_found(dense, op):
    def change(meta_graph):
        node = node_def_pb2.NodeDef(op=op, name="captured")
        meta_graph.graph_def.library.function[0].node_def.append(node)

    fails_changed(dense, change, f"captured is a {op}")


def test_bad_requests_that_are_answered_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "skipnet_tf.signatures._checked", lambda tensor, *_: tensor
    )
    path = unchecked(divided(blocks=(1, 1)), tmp_path)
    fails(path, "bad requests: .* accepts a bad request")


def test_a_version_without_a_fingerprint_is_found(dense, tmp_path):
    path = copied(dense, tmp_path)
    os.remove(os.path.join(path, "fingerprint.pb"))
    fails(path, "files: there is no fingerprint.pb")


def test_all_faults_are_named_together(dense, tmp_path):
    path = copied(dense, tmp_path)
    os.remove(os.path.join(path, "fingerprint.pb"))
    fails_changed(path, drop_batch, "files: .*; outputs: macs of image_bytes")


def test_a_folder_without_a_version_is_an_error_that_names_it(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ValueError, match=f"`path`.*Received: path={path}"):
            verification.verify_saved_model(str(path))


def test_a_file_that_is_no_saved_model_is_an_error_that_names_it(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff nothing")
    with pytest.raises(ValueError, match=f"`path`.*Received: path={tmp_path}"):
        verification.verify_saved_model(str(tmp_path))


def test_a_graph_for_training_is_an_error(tmp_path):
    saved = saved_model_pb2.SavedModel()
    saved.meta_graphs.add().meta_info_def.tags.append("train")
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(ValueError, match=f'tagged "serve".*path={tmp_path}'):
        verification.verify_saved_model(str(tmp_path))
