"""Runs that collapsed: how they go on, with gentler settings."""

import csv
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import skipnet

import skipnet_tf
from skipnet_tf import attempts
from skipnet_tf import callbacks
from skipnet_tf import checkpoints
from skipnet_tf import collapse
from skipnet_tf import distribution
from skipnet_tf import experiment
from skipnet_tf import flops
from skipnet_tf import recalibration
from skipnet_tf import retreats
from skipnet_tf import splits

# 100 // 32 = 3 steps an epoch.
DIGITS = splits.Data(
    "digits", "train[:100]", "train[100:150]", "", batch_size=32
)


def make(retreats, alpha=1.0):
    """Two blocks, one gate; settings halve with each retreat."""
    gentle = 0.5**retreats
    model = skipnet(blocks=(1, 1), filters=(4, 4), num_classes=10)
    model.compile(
        skipnet_tf.optimizers.SGD(0.1 * gentle),
        metrics=["accuracy"],
        stage=skipnet_tf.HybridReinforce(alpha * gentle),
        run_eagerly=True,  # a few steps; tracing them would take longer
    )
    return model


def run(workdir, on_collapse, make=make, **options):
    return experiment.run_stage(
        experiment.Plan("hrl", 12, make, **options),
        DIGITS,
        str(workdir),
        tf.distribute.get_strategy(),
        checkpoint_steps=2,
        safety=collapse.Safety(on_collapse),
    )


def test_an_absurd_price_stops_and_leaves_no_result(tmp_path):
    with pytest.raises(
        collapse.TrainingCollapsed, match="all gates are shut .* Lower --alpha"
    ):
        run(tmp_path, "stop", lambda retreats: make(retreats, alpha=1e3))
    log = (tmp_path / "hrl" / "log.csv").read_text().splitlines()
    assert 2 <= len(log) < 5  # the collapse is logged, and was early
    assert not (tmp_path / "hrl" / "result.json").exists()


def shut_at_step_6(self, epoch):
    """For a price of 1 only: the first retreat helps."""
    if self.counter.done == 6 and float(self.model.stage.alpha) == 1.0:
        return "all gates are shut", self._advice(), True
    return None


class Interrupted(Exception):
    pass


def test_a_run_falls_back_and_survives_being_killed_after_it(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(collapse.CollapseGuard, "_in_gates", shut_at_step_6)
    save = callbacks.Checkpoints._save
    monkeypatch.setattr(callbacks.Checkpoints, "_save", stop_at(save, 9))
    with pytest.raises(Interrupted):
        run(tmp_path, "fall_back")
    said = capsys.readouterr()
    assert "hrl has collapsed at epoch 2, step 6: all gates" in said.err
    assert "good/ckpt-3. " in said.err
    assert (
        "falling back to step 3, retreat 1 of at most 3; it was "
        "learning_rate 0.1, alpha 1"
    ) in said.out
    assert "resuming at step 3 of 12" in said.out

    monkeypatch.setattr(callbacks.Checkpoints, "_save", save)
    called = []
    monkeypatch.setattr(
        recalibration,
        "recalibrate",
        lambda model, dataset, batches: called.append((batches, len(dataset))),
    )
    result = run(tmp_path, "fall_back", recalibrate=4)
    said = capsys.readouterr().out
    assert "resuming at step 8 of 12" in said
    assert "1 retreat(s): learning_rate 0.05, alpha 0.5," in said
    assert result["retreats"] == 1
    assert called == [(4, 6)]  # two epochs of three batches hold them
    with open(tmp_path / "hrl" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6", "9", "12"]
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.05, 0.05], rtol=1e-6)
    with open(tmp_path / "hrl" / "gates.csv") as file:
        assert len(list(csv.DictReader(file))) == 4
    model = keras.saving.load_model(tmp_path / "hrl" / "model.keras")
    assert int(model.optimizer.iterations) == 12
    assert float(model.stage.alpha) == 0.5


def stop_at(save, last):
    def save_or_stop(self, step):
        if step == last:
            raise Interrupted
        save(self, step)

    return save_or_stop


@pytest.mark.parametrize(("retreated", "alpha"), [(0, 1.0), (1, 0.25)])
def test_weights_come_back_and_what_led_to_collapse_does_not(
    tmp_path, retreated, alpha
):
    def prepared(model):
        counter = callbacks.Steps()
        folder = str(tmp_path / "checkpoints")
        return counter, checkpoints.manager(model, counter.variable, folder)

    before = make(0)
    counter, manager = prepared(before)
    counter.variable.assign(7)
    for variable in (before.weights[0], before.optimizer.variables[-1]):
        variable.assign(variable + 3.0)
    good = retreats.good_checkpoints(manager, str(tmp_path))
    good.save(checkpoint_number=7)
    manager.save(checkpoint_number=9)
    if retreated:
        record = retreats.retreat(str(tmp_path))
        assert (record.retreats, record.step) == (1, 7)
    after = make(2)
    counter, manager = prepared(after)
    retreats.restore(after, manager, str(tmp_path), counter)
    assert counter.done == 7
    np.testing.assert_array_equal(before.weights[0], after.weights[0])
    np.testing.assert_array_equal(
        before.optimizer.variables[-1], after.optimizer.variables[-1]
    )
    assert float(after.stage.alpha) == alpha
    rate = float(after.optimizer.learning_rate)
    assert rate == pytest.approx(0.1 * alpha)


@pytest.mark.parametrize(
    ("on_collapse", "error", "attempts_made"),
    [
        ("stop", collapse.TrainingCollapsed("shut"), [0]),
        ("fall_back", collapse.TrainingCollapsed("open", False), [0]),
        ("fall_back", collapse.TrainingCollapsed("shut"), [0, 1, 2, 3]),
        ("fall_back", callbacks.TrainingDiverged("nan"), [0, 1, 2, 3]),
    ],
)
def test_a_run_falls_back_three_times_at_most(
    tmp_path, monkeypatch, on_collapse, error, attempts_made
):
    def train(job, model):
        os.makedirs(os.path.join(job.folder, "checkpoints"), exist_ok=True)
        raise error

    monkeypatch.setattr(attempts, "train", train)
    seen = []

    def noted(retreats):
        seen.append(retreats)
        return make(retreats)

    after = "after 3 retreats: " if len(attempts_made) == 4 else ""
    with pytest.raises(ValueError, match=f"^{after}{error}$"):
        run(tmp_path, on_collapse, noted)
    assert seen == attempts_made
    if len(seen) == 4:
        noted = json.loads((tmp_path / "hrl" / "safety.json").read_text())
        assert noted["retreats"] == 3


def test_a_price_that_was_adapted_is_halved_not_forgotten(tmp_path):
    stage = skipnet_tf.HybridReinforce(0.0, rl_weight=2.0, target_macs=0.9)
    model = make(0)
    model.compile(skipnet_tf.optimizers.SGD(0.1), stage=stage)
    counter = callbacks.Steps()
    manager = checkpoints.manager(
        model, counter.variable, str(tmp_path / "checkpoints")
    )
    stage.alpha.assign(0.4)
    retreats.good_checkpoints(manager, str(tmp_path)).save(0)
    for times in (1, 2):
        retreats.retreat(str(tmp_path))
        stage.alpha.assign(9.0)
        stage.rl_weight.assign(2.0 * 0.5**times)  # as the plan makes it
        retreats.restore(model, manager, str(tmp_path), counter)
        assert float(stage.alpha) == pytest.approx(0.4 * 0.5**times)
        assert float(stage.rl_weight) == 2.0 * 0.5**times


@pytest.mark.parametrize(
    ("logits", "runs", "threshold", "told"),
    [
        # All gates are as sure: a threshold opens or shuts them all.
        ([2.0, 2.0, 2.0], 0.2, 0.5, "it stays at 0.5"),
        (
            [2.0, 2.0, 0.5],
            0.64,
            None,
            "instead of 0.5 takes multiply-adds from",
        ),
    ],
)
def test_a_target_is_met_only_where_the_network_bears_it(
    tmp_path, capsys, logits, runs, threshold, told
):
    model = skipnet("confidence", num_classes=10)
    for gate, logit in zip(model.gates, logits):
        gate.bias.assign([logit])
    count = flops.count(model, (8, 8, 3))
    spent = count.fixed + count.gates.sum() + runs * count.blocks.sum()
    plan = experiment.Plan(
        "hrl", 1, make, target_macs=float(spent / count.dense)
    )
    job = attempts.Job(
        plan,
        DIGITS,
        str(tmp_path),
        tf.distribute.get_strategy(),
        0,
        1,
        # Untrained: whatever it knows is enough.
        collapse.Safety(accuracy_floor=0.0),
    )
    found = experiment._meet_target(job, model)
    output = capsys.readouterr()
    assert told in (output.err if threshold else output.out)
    assert found == model.threshold
    if threshold:
        assert found == threshold
        assert "multiply-adds where" in output.err  # missed
    else:
        # 1 / (1 + exp(-0.5)) = 0.622, 1 / (1 + exp(-2)) = 0.881
        assert 0.622 < found < 0.881 and not output.err


def test_several_processes_do_not_fall_back(tmp_path, monkeypatch):
    monkeypatch.setattr(distribution, "workers", lambda strategy: (0, 2))
    with pytest.raises(ValueError, match="on_collapse='fall_back' and 2"):
        run(tmp_path, "fall_back")


def test_pure_reinforcement_learning_may_collapse(tmp_path, monkeypatch):
    def guards(floor, stage):
        model = make(0)
        model.compile(skipnet_tf.optimizers.SGD(0.1), stage=stage)
        job = attempts.Job(
            experiment.Plan("rl", 12, make),
            DIGITS,
            str(tmp_path),
            tf.distribute.get_strategy(),
            0,
            1,
            collapse.Safety(accuracy_floor=floor),
        )
        counter = callbacks.Steps()
        manager = checkpoints.manager(model, counter.variable, str(tmp_path))
        made = attempts._callbacks(
            job, model, 4, counter, manager, retreats.Record()
        )
        return sum(isinstance(c, collapse.CollapseGuard) for c in made)

    assert guards(None, skipnet_tf.Reinforce()) == 0
    assert guards(0.5, skipnet_tf.Reinforce()) == 1
    assert guards(None, skipnet_tf.HybridReinforce()) == 1
