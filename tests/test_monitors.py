"""What validation says of the gates, and the words for it."""

import csv
import types

import numpy as np
import pytest
import tensorflow as tf
from cases import two_replicas
from training_cases import IMAGES
from training_cases import LABELS
from training_cases import network
from training_cases import sgd

import skipnet_tf
from skipnet_tf import callbacks
from skipnet_tf import logs
from skipnet_tf import metrics
from skipnet_tf import monitors

GATES = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]], "float32")
PROBABILITIES = np.array(
    [[0.9, 0.6, 0.1], [0.9, 0.4, 0.1], [0.9, 0.8, 0.1], [0.9, 0.6, 0.3]],
    "float32",
)


def test_dependence_is_the_share_of_images_against_the_majority():
    metric = metrics.DependentGates(3)
    metric.update_state(GATES[:1], PROBABILITIES[:1])
    metric.update_state(GATES[1:], PROBABILITIES[1:])
    np.testing.assert_allclose(metric.dependence(), [0, 0.25, 0])
    assert float(metric.result()) == pytest.approx(1 / 3)
    # Means 0.9, 0.6 and 0.15; variances 0, 0.08 / 4 and 0.03 / 4.
    np.testing.assert_allclose(
        metric.deviations(), np.sqrt([0, 0.02, 0.0075]), atol=3e-4
    )
    metric.reset_state()
    assert float(metric.result()) == 0.0


@pytest.mark.parametrize(("against", "dependent"), [(1, 0.0), (2, 1.0)])
def test_a_gate_depends_on_the_image_from_one_in_a_hundred(against, dependent):
    metric = metrics.DependentGates(1)
    gates = np.ones((200, 1), "float32")
    gates[:against] = 0.0
    metric.update_state(gates, gates)
    assert float(metric.result()) == dependent


def test_distinct_paths_are_counted_over_batches():
    metric = metrics.DistinctPaths()
    assert float(metric.result()) == 0.0
    metric.update_state(GATES)
    assert float(metric.result()) == 2.0
    metric.update_state(GATES[:2])
    metric.update_state(1.0 - GATES[:1])
    assert float(metric.result()) == 3.0


@pytest.mark.parametrize(
    ("count", "gates", "rate"),
    [(100, 40, 0.5), (100, 150, 0.02), (5000, 40, 0.5), (5000, 53, 0.05)],
)
def test_many_paths_of_many_gates_are_estimated(count, gates, rate):
    runs = np.random.default_rng(1).random((count, gates)) < rate
    metric = metrics.DistinctPaths()
    metric.update_state(runs.astype("float32"))
    exact = len(np.unique(runs, axis=0))
    error = 0.0 if exact <= 100 else 0.005 * exact
    assert float(metric.result()) == pytest.approx(exact, abs=error)


def test_paths_of_two_replicas_are_those_of_all_images():
    strategy = two_replicas()
    with strategy.scope():
        paths, gates = metrics.DistinctPaths(), metrics.DependentGates(3)

    def update():
        context = tf.distribute.get_replica_context()
        # Two images each, of which the second takes another way on the first.
        first = 2 * context.replica_id_in_sync_group
        runs = tf.gather(GATES, [first, first + 1])
        paths.update_state(runs)
        gates.update_state(runs, runs)

    strategy.run(update)
    assert float(paths.result()) == 2.0
    np.testing.assert_allclose(gates.dependence(), [0, 0.25, 0])


def test_validation_reports_what_the_routes_are():
    model = network()
    model.compile(sgd(), stage=skipnet_tf.Supervised(), run_eagerly=True)
    model.gates[0].last_weights()[-1].assign([0.0])  # shared by both
    routed = model.route(IMAGES)
    gates, probabilities = (
        routed[name].numpy() for name in ("gates", "probabilities")
    )
    evaluated = model.evaluate(IMAGES, LABELS, 8, verbose=0, return_dict=True)
    assert evaluated["distinct_paths"] == len(np.unique(gates, axis=0))
    found = model.route_metrics.of_gates()
    rates = gates.mean(axis=0)
    np.testing.assert_allclose(found["open_rate"], rates, rtol=1e-6)
    against = np.minimum(rates, 1 - rates)
    np.testing.assert_allclose(found["dependence"], against, atol=1e-6)
    np.testing.assert_allclose(
        found["deviation"], probabilities.std(axis=0), atol=1e-3
    )
    assert evaluated["input_dependent_gates"] == np.mean(against >= 0.01)


def fake_model(stage, *epochs):
    """A model whose gates have these open rates, one epoch after another."""
    rates = iter(epochs)
    return types.SimpleNamespace(
        stage=stage,
        route_metrics=types.SimpleNamespace(
            of_gates=lambda: {
                "open_rate": np.array(next(rates), "float32"),
                "dependence": np.zeros(2, "float32"),
            }
        ),
    )


def told(capsys, stage, *epochs, logs=None):
    """Lines that a monitor prints in each epoch."""
    monitor = monitors.GateMonitor("hrl")
    monitor.set_model(fake_model(stage, *epochs))
    lines = []
    for epoch in range(len(epochs)):
        monitor.on_epoch_end(epoch, logs[epoch] if logs else {})
        lines.append(capsys.readouterr().err)
    return lines


def test_a_gate_is_called_stuck_once_after_two_epochs(capsys):
    lines = told(
        capsys,
        skipnet_tf.HybridReinforce(),
        [1.0, 1.0, 1.0, 0.0, 0.5],
        [1.0, 1.0, 1.0, 1.0, 0.5],  # the fourth begins anew
        [1.0, 1.0, 1.0, 1.0, 0.5],
        [1.0, 0.5, 1.0, 1.0, 0.0],
        [1.0, 1.0, 1.0, 1.0, 0.0],
        [1.0, 1.0, 1.0, 1.0, 0.0],
    )
    assert lines[0] == lines[3] == ""
    assert lines[1] == (
        "warning: hrl epoch 2: gates that decide alike for every validation "
        "image: 1-3 always open\n"
    )
    assert "image: 4 always open\n" in lines[2]
    assert "image: 5 always shut\n" in lines[4]
    # The second, which had come loose, is the last one to be stuck.
    assert (
        "epoch 6: every image takes the same path, gates 1-4 always open; "
        "5 always shut: this is a static network, not dynamic inference"
    ) in lines[5]


def test_gates_that_start_open_are_no_news_without_a_shut_one(capsys):
    lines = told(
        capsys,
        skipnet_tf.Supervised(),
        *3 * [[1.0, 1.0, 0.5]],
        *3 * [[1.0, 1.0, 0.0]],
    )
    assert [bool(line) for line in lines] == 4 * [False] + [True, False]
    assert "gates 1-2 always open; 3 always shut: this is a static" in lines[4]


def test_policies_far_apart_are_told_when_it_begins(capsys):
    pairs = [(0.8, 0.75), (0.8, 0.65), (0.8, 0.6), (0.8, 0.8), (0.5, 0.8)]
    lines = told(
        capsys,
        skipnet_tf.HybridReinforce(),
        *5 * [[0.5, 0.5]],
        logs=[
            {"val_accuracy": kept, "val_sampled_accuracy": sampled}
            for kept, sampled in pairs
        ],
    )
    assert [bool(line) for line in lines] == [False, True, False, False, True]
    assert "65.0 % accuracy and thresholded ones 80.0 %" in lines[1]


def test_a_file_has_a_row_for_each_epoch_and_gate(tmp_path):
    counter = callbacks.Steps()
    log = logs.GateLog(str(tmp_path / "gates.csv"), counter)
    stage = skipnet_tf.Supervised()
    log.set_model(fake_model(stage, [1, 0.5], [1, 1 / 3], [0.5, 1]))
    for epoch, steps in ((0, 5), (1, 10), (1, 9)):  # the second one again
        counter.variable.assign(steps)
        log.on_epoch_end(epoch)
    with open(tmp_path / "gates.csv") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ("1", "5", "1", "1.0", "0.0"),
        ("1", "5", "2", "0.5", "0.0"),
        ("2", "9", "1", "0.5", "0.0"),
        ("2", "9", "2", "1.0", "0.0"),
    ]
