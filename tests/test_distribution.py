"""Clusters of processes: who they are, how they meet, what they say."""

import json
import socket
import threading
import time

import pytest
import tensorflow as tf

from skipnet_tf import distribution


def config(workers, index, **members):
    return json.dumps(
        {
            "cluster": {"worker": workers, **members},
            "task": {"type": "worker", "index": index},
        }
    )


def addresses(count):
    """Free ones of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return found


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match="distribution='tpu'"):
        distribution.make_strategy("tpu")


def test_a_chief_is_the_first_worker():
    text = config(["b:1", "c:2"], 1, chief=["a:3"])
    cluster = distribution.read_cluster(text)
    assert cluster == distribution.Cluster(("a:3", "b:1", "c:2"), 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{not json",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        config(["a"], 0),
        config(["a:b"], 0),
    ],
)
def test_a_configuration_that_is_none_shows_what_one_looks_like(text):
    with pytest.raises(ValueError, match='TF_CONFIG must be JSON .*"task"'):
        distribution.read_cluster(text)


def test_a_task_that_the_cluster_does_not_have_is_refused():
    with pytest.raises(ValueError, match="'index': 2.* of 2 workers"):
        distribution.read_cluster(config(["a:1", "b:2"], 2))


@pytest.mark.parametrize(
    ("workers", "more"),
    [
        (["a:1", "a:1"], {}),
        (["a:0"], {}),
        (["a:99999"], {}),
        (["a:1"], {"chief": ["a:1"]}),
    ],
)
def test_addresses_are_distinct_and_have_a_port(workers, more):
    with pytest.raises(ValueError, match="address of its own"):
        distribution.read_cluster(config(workers, 0, **more))


@pytest.mark.parametrize(("kind", "place"), [("chief", 1), ("evaluator", 0)])
def test_a_task_is_a_worker_or_the_chief(kind, place):
    given = {
        "cluster": {"chief": ["a:1"], "worker": ["b:2"]},
        "task": {"type": kind, "index": place},
    }
    with pytest.raises(ValueError, match="task that its cluster has"):
        distribution.read_cluster(json.dumps(given))


def test_a_missing_configuration_is_refused_before_anyone_waits(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="Received: ''"):
        distribution.make_strategy("multi_worker")


def test_workers_leave_together_when_the_last_one_comes():
    workers = tuple(addresses(3))
    left = []

    def come(index):
        distribution.meet(distribution.Cluster(workers, index), 20)
        left.append(index)

    early = [threading.Thread(target=come, args=(i,)) for i in (0, 1)]
    for thread in early:
        thread.start()
    time.sleep(0.5)
    assert not left
    come(2)
    for thread in early:
        thread.join(20)
    assert sorted(left) == [0, 1, 2]


def test_a_worker_that_is_started_again_is_called_again():
    workers = tuple(addresses(3))
    left = []

    def come(index, patience=20):
        try:
            distribution.meet(distribution.Cluster(workers, index), patience)
            left.append(index)
        except ValueError:
            left.append("gone")

    first = threading.Thread(target=come, args=(0,))
    first.start()
    come(1, 0.5)  # meets 0, and is gone before 2 comes
    assert left == ["gone"]
    others = [threading.Thread(target=come, args=(i,)) for i in (1, 2)]
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join(20)
    assert sorted(left[1:]) == [0, 1, 2]


def test_a_server_that_is_not_a_waiting_worker_does_not_count():
    with socket.create_server(("127.0.0.1", 0)) as other:
        there = f"127.0.0.1:{other.getsockname()[1]}"
        cluster = distribution.Cluster((*addresses(1), there), 0)
        with pytest.raises(ValueError, match=f"worker 1 at {there}, which"):
            distribution.meet(cluster, 0.1)


def test_an_address_that_is_taken_is_named():
    with socket.create_server(("", 0)) as other:
        own = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"free address. Received: {own}"):
            distribution.meet(distribution.Cluster((own, "b:1"), 0), 0.1)


def test_what_tensorflow_says_of_a_lost_worker_becomes_one_line():
    message = "Graph execution error:\nCollective ops is aborted by: gone\nx"
    with pytest.raises(distribution.WorkerLost, match=r"lost \(gone\)$"):
        with distribution.watched():
            raise tf.errors.UnavailableError(None, None, message)


def test_one_process_is_alone_and_never_waits(tmp_path):
    strategy = tf.distribute.get_strategy()
    distribution.check_shared(strategy, str(tmp_path))
    distribution.check_agreement(strategy, 1, "never raised")
    assert not list(tmp_path.iterdir())
    with pytest.raises(tf.errors.UnavailableError):  # of something else
        with distribution.watched(strategy):
            raise tf.errors.UnavailableError(None, None, "a file system")
    assert distribution.workers(strategy) == (0, 1)
    distribution.wait_for_all(strategy)
