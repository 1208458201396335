"""Where a run trains: one device, several devices, several processes.

The processes of a cluster are described by `TF_CONFIG`, as TensorFlow has it.
They meet before they start: TensorFlow itself waits in silence for a worker
that is not there, and takes one that comes back for a stranger.
"""

import contextlib
import dataclasses
import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import tensorflow as tf

DISTRIBUTIONS = ("none", "mirrored", "multi_worker")

_GREETING = b"skipnet_tf worker\n"
_PATIENCE = 300.0  # seconds until a worker counts as absent
_PAUSE = 0.2  # seconds between two attempts to reach one
# What collective operations end with once a worker is gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class WorkerLost(RuntimeError):
    """Another process of the cluster is gone, and this one cannot go on."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Args:
        workers: Tuple of strings, `host:port` of each; the first one is the
            chief, which writes.
        index: Int, the place of this process.
    """

    workers: tuple[str, ...]
    index: int


def make_strategy(
    distribution: str, patience: float = _PATIENCE
) -> tf.distribute.Strategy:
    """The strategy under which models are made and trained.

    Args:
        distribution: `"none"`, `"mirrored"` (all local GPUs, or the CPU) or
            `"multi_worker"` (the processes in `TF_CONFIG`); the last one is
            to be made before anything else of TensorFlow runs.
        patience: Float, seconds to wait for the other workers. Defaults to
            `300`.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: If `distribution` is unknown, `TF_CONFIG` makes no sense,
            or a worker stays away.
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(
            f"`distribution` must be one of {DISTRIBUTIONS}. "
            f"Received: distribution={distribution!r}"
        )
    if distribution == "none":
        return tf.distribute.get_strategy()
    if distribution == "mirrored":
        return tf.distribute.MirroredStrategy()
    meet(read_cluster(os.environ.get("TF_CONFIG", "")), patience)
    with watched():
        return tf.distribute.MultiWorkerMirroredStrategy()


def read_cluster(config: str) -> Cluster:
    """Reads `TF_CONFIG`.

    Args:
        config: String, JSON as TensorFlow describes it; a chief counts as the
            first worker.

    Returns:
        A `Cluster`.

    Raises:
        ValueError: If it is not JSON, or does not say who is who.
    """
    expected = (
        "TF_CONFIG must be JSON such as "
        '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        given = json.loads(config)
        members = given["cluster"]
        chiefs = list(members.get("chief", []))
        workers = (*chiefs, *members["worker"])
        index = int(given["task"]["index"])
        if given["task"]["type"] == "worker":
            index += len(chiefs)
        ports = [int(worker.rsplit(":", 1)[1]) for worker in workers]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ValueError(f"{expected}. Received: {config!r}") from None
    if not 0 <= index < len(ports):
        raise ValueError(
            f"TF_CONFIG must give a task that its cluster has. Received: task "
            f"{given['task']} of {len(workers)} workers"
        )
    return Cluster(workers, index)


def meet(cluster: Cluster, patience: float = _PATIENCE) -> None:
    """Waits until all workers are about to start.

    Each opens its own address, calls at all others', and leaves when it has
    reached and has been reached by every one of them.

    Args:
        cluster: The workers.
        patience: Float, seconds to wait. Defaults to `300`.

    Raises:
        ValueError: If the own address is taken or a worker stays away.
    """
    own = cluster.workers[cluster.index]
    try:
        door = _Door(("", _address(own)[1]), _Visit)
    except OSError as error:
        raise ValueError(
            f"TF_CONFIG must give this worker a free address. Received: {own} "
            f"({error.strerror})"
        ) from error
    others = set(range(len(cluster.workers))) - {cluster.index}
    reached, deadline = set(), time.monotonic() + patience
    with door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        try:
            while reached != others or not door.visitors >= others:
                for index in sorted(others - reached):
                    if _greet(cluster.workers[index], cluster.index):
                        reached.add(index)
                absent = others - (reached & door.visitors)
                if absent and time.monotonic() > deadline:
                    index = min(absent)
                    raise ValueError(
                        f"TF_CONFIG names worker {index} at "
                        f"{cluster.workers[index]}, which did not come within "
                        f"{patience:g} seconds: start it, or correct TF_CONFIG"
                    )
                time.sleep(_PAUSE)
        finally:
            door.shutdown()


class _Door(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.visitors = set()


class _Visit(socketserver.StreamRequestHandler):
    timeout = 2

    def handle(self):
        with contextlib.suppress(OSError):
            name = self.rfile.readline(20).strip()
            if name.isdigit():  # not a call meant for an earlier process
                self.wfile.write(_GREETING)
                self.server.visitors.add(int(name))


def _greet(worker, index):
    """Calls at another worker's address; is it a worker that waits, too?"""
    try:
        with socket.create_connection(_address(worker), timeout=2) as call:
            call.sendall(b"%d\n" % index)
            return call.makefile("rb").readline(20) == _GREETING
    except OSError:
        return False


def _address(worker):
    host, port = worker.rsplit(":", 1)
    return host, int(port)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Turns what TensorFlow says of a lost worker into `WorkerLost`."""
    try:
        yield
    except _LOST as error:
        line = error.message.split("Collective ops is aborted by: ")[-1]
        raise WorkerLost(
            f"a worker was lost ({line.splitlines()[0]})"
        ) from error


def workers(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """`(index, count)` of this process among those that train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    cluster = read_cluster(os.environ["TF_CONFIG"])
    return cluster.index, len(cluster.workers)


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns in every process once all of them have come to this call."""
    if workers(strategy)[1] == 1:
        return

    @tf.function
    def count():
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0))

    with watched():
        strategy.run(count)
