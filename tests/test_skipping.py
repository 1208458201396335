"""Proof of skipping: what a served network computes."""

import numpy as np
import pytest
import tensorflow as tf
from cases import pixels
from tensorflow.tsl.profiler.protobuf import xplane_pb2

GATED = ("group1_block1", "group2_block0", "group2_block1")


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
