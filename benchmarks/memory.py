"""What TensorFlow's allocator says of a step's memory."""

import glob
import os
import tempfile
from collections.abc import Callable

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2


def peak(step: Callable[[], object]) -> float:
    """MiB of all tensors that are alive at a time, at most, during a step.

    Of the tensors, and not of the process: TensorFlow keeps what it once had,
    and the compiler of a graph takes more than the graph.

    Args:
        step: Function that runs once, under TensorFlow's profiler.

    Returns:
        Float, MiB; weights and the batch are among them.

    Raises:
        RuntimeError: If the allocator says nothing.
    """
    options = tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=3, python_tracer_level=0
    )
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder, options=options)
        step()
        tf.profiler.experimental.stop()
        pattern = os.path.join(folder, "**", "*.xplane.pb")
        (path,) = glob.glob(pattern, recursive=True)
        with open(path, "rb") as file:
            space = xplane_pb2.XSpace.FromString(file.read())
    sizes = [size for plane in space.planes for size in _in_use(plane)]
    if not sizes:
        raise RuntimeError("TensorFlow's allocator reported nothing")
    return max(sizes) / 2**20


def _in_use(plane):
    """Bytes in use after every allocation."""
    names = {key: value.name for key, value in plane.event_metadata.items()}
    stats = {key: value.name for key, value in plane.stat_metadata.items()}
    for line in plane.lines:
        for event in line.events:
            if names[event.metadata_id] != "MemoryAllocation":
                continue
            for stat in event.stats:
                if stats[stat.metadata_id] == "bytes_allocated":
                    yield stat.int64_value or stat.uint64_value
