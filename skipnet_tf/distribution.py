"""Where a run trains: one device, several devices, several processes.

The processes of a cluster are described by `TF_CONFIG`, as TensorFlow has it.
They meet before they start: TensorFlow itself waits in silence for a worker
that is not there, and takes one that comes back for a stranger.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import tensorflow as tf

DISTRIBUTIONS = ("none", "mirrored", "multi_worker")

_GREETING = "skipnet_tf"
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
        members = {"chief": [], **given["cluster"]}
        workers = (*members["chief"], *members["worker"])
        task = given["task"]
        place, kind = int(task["index"]), task["type"]
        ports = [int(worker.rsplit(":", 1)[1]) for worker in workers]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ValueError(f"{expected}. Received: {config!r}") from None
    if len(set(workers)) < len(workers) or not all(
        0 < port < 2**16 for port in ports
    ):
        raise ValueError(
            "TF_CONFIG must give each worker an address of its own, with a "
            f"port from 1 to 65535. Received: {list(workers)}"
        )
    index = place + (len(members["chief"]) if kind == "worker" else 0)
    if kind not in ("chief", "worker") or not 0 <= place < len(members[kind]):
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
    # Each process by a number of its own: one that was started again in the
    # meantime calls under another, and is called at once more.
    reached, deadline = {}, time.monotonic() + patience

    def find_absent():
        return {
            index
            for index in others
            if reached.get(index) is None
            or reached[index] != door.visitors.get(index)
        }

    with door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        try:
            while absent := find_absent():
                for index in sorted(absent):
                    worker = cluster.workers[index]
                    reached[index] = _greet(worker, cluster.index, door.number)
                absent = find_absent()
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
        self.number = secrets.token_hex(4)
        self.visitors = {}  # from index to number


class _Visit(socketserver.StreamRequestHandler):
    timeout = 2

    def handle(self):
        with contextlib.suppress(OSError):
            words = self.rfile.readline(40).decode("latin-1").split()
            # Not a call meant for an earlier process.
            if len(words) == 3 and words[0] == _GREETING:
                answer = f"{_GREETING} {self.server.number}\n"
                self.wfile.write(answer.encode())
                self.server.visitors[int(words[1])] = words[2]


def _greet(worker, index, number):
    """Calls at another worker's address; the number of one that waits, too."""
    try:
        with socket.create_connection(_address(worker), timeout=2) as call:
            call.sendall(f"{_GREETING} {index} {number}\n".encode())
            words = call.makefile("r", encoding="latin-1").readline(40).split()
    except OSError:
        return None
    return words[1] if len(words) == 2 and words[0] == _GREETING else None


def _address(worker):
    host, port = worker.rsplit(":", 1)
    return host, int(port)


@contextlib.contextmanager
def watched(strategy: tf.distribute.Strategy | None = None) -> Iterator[None]:
    """Turns what TensorFlow says of a lost worker into `WorkerLost`.

    Args:
        strategy: Where this process runs; alone, it cannot lose anyone.
            Defaults to `None`, not known yet.
    """
    try:
        yield
    except _LOST as error:
        if strategy is not None and workers(strategy)[1] == 1:
            raise
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
    if workers(strategy)[1] > 1:
        _sum(strategy, [1])


def _sum(strategy, values):
    """Sums of ints over the replicas of all processes, which all must call."""

    @tf.function
    def reduce():
        context = tf.distribute.get_replica_context()
        own = tf.constant(values, tf.int64)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

    local = strategy.experimental_local_results(strategy.run(reduce))[0]
    return [int(value) for value in local]


def check_agreement(
    strategy: tf.distribute.Strategy, value: int, message: str
) -> None:
    """Refuses processes that are about to train apart.

    Args:
        strategy: Where they train.
        value: Int below 2**20, which must be the same in all of them.
        message: String, the error otherwise.

    Raises:
        ValueError: If another process has another value.
    """

    if workers(strategy)[1] > 1:
        total, squares = _sum(strategy, [value, value**2])
        if total**2 != squares * strategy.num_replicas_in_sync:
            raise ValueError(message)


def check_shared(strategy: tf.distribute.Strategy, folder: str) -> None:
    """Refuses processes that do not see the same folder.

    Args:
        strategy: Where they train.
        folder: String, the work directory.

    Raises:
        ValueError: If a process sees another folder.
    """
    index, count = workers(strategy)
    if count == 1:
        return
    path = os.path.join(folder, ".cluster")
    if index == 0:
        with open(path, "w") as file:
            file.write(str(secrets.randbelow(2**20)))
    wait_for_all(strategy)
    seen = 2**20 - 1 - index
    if os.path.exists(path):
        with open(path) as file:
            seen = int(file.read())
    check_agreement(
        strategy,
        seen,
        "`workdir` must be one folder that all workers see. Received: "
        f"workdir={folder}, which is another one for one of them",
    )
