"""What TensorFlow's profiler says of a step: operations and memory."""

import glob
import os
import re
import tempfile
from collections.abc import Callable
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

# Events of operations are named "name of the node:kind of operation".
_OPERATION = re.compile(r"[^: ]+:(\w+)")


def peak_memory(step: Callable[[], object]) -> float:
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
    sizes = [
        stats["bytes_allocated"]
        for name, _, stats in _events(step)
        if name == "MemoryAllocation"
    ]
    if not sizes:
        raise RuntimeError("TensorFlow's allocator reported nothing")
    return max(sizes) / 2**20


def operations(step: Callable[[], object]) -> Iterator[tuple[str, float]]:
    """Kind and milliseconds of every operation of a step.

    Args:
        step: Function that runs once, under TensorFlow's profiler.

    Yields:
        Pairs such as `("_MklNativeConv2D", 2.5)`.
    """
    for name, milliseconds, _ in _events(step):
        found = _OPERATION.fullmatch(name)
        if found:
            yield found[1], milliseconds


def _events(step):
    """Name, milliseconds and statistics of everything that was recorded."""
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
    for plane in space.planes:
        names = {key: kind.name for key, kind in plane.event_metadata.items()}
        stats = {key: kind.name for key, kind in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                values = {
                    stats[stat.metadata_id]: stat.int64_value
                    or stat.uint64_value
                    for stat in event.stats
                }
                name = names[event.metadata_id]
                yield name, event.duration_ps / 1e9, values
