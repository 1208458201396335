"""Exhibits of several runs, from their results alone."""

import json
import math

import numpy as np
import pytest

from skipnet_tf.analysis import baseline_exhibits
from skipnet_tf.analysis import published
from skipnet_tf.analysis import sweep_exhibits
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.evaluation import Run


@pytest.fixture
def make(tmp_path):
    """Function that makes a run from its stages' accuracies and costs."""

    def run(name, stages, settings=None, depth=38, gate="rnn", **arguments):
        for stage in stages:
            folder = tmp_path / name / stage
            folder.mkdir(parents=True)
            (folder / "settings.json").write_text(json.dumps(settings or {}))
        summaries = {
            stage: {
                "images": 100,
                "accuracy": accuracy,
                "executed_blocks": share,
                "macs": 8e7 * share,
                "macs_fraction": share,
                "distinct_paths": 2,
            }
            for stage, (accuracy, share) in stages.items()
        }
        arguments = {"dataset": "cifar10", "split": "test", **arguments}
        return Run(
            workdir=str(tmp_path / name),
            data_dir=None,
            summaries=summaries,
            depth=depth,
            gate=gate,
            **arguments,
        )

    return run


DENSE = (0.93, 1.0)


def test_stages_are_called_as_in_the_paper(make):
    stages = {"base": DENSE, "sp": DENSE, "hrl": DENSE, "rl": DENSE}
    for settings, expected in (
        ({"gating": "hard"}, ["dense", "SP", "HRL+SP", "RL"]),
        ({"gating": "random"}, ["dense", "SDV", "HRL+SP", "RL"]),
        ({"from_scratch": True}, ["dense", "SP", "HRL+S", "RL"]),
    ):
        run = make(str(settings), stages, settings)
        kinds = [row["kind"] for row in sweep_exhibits.records([run])]
        assert kinds == expected


def test_savings_are_those_within_half_a_point(make):
    runs = [
        make("a", {"base": DENSE, "sp": (0.928, 0.9)}, {"alpha": 0.1}),
        make("b", {"hrl": (0.926, 0.6)}, {"alpha": 0.2}),
        make("c", {"hrl": (0.924, 0.3)}, {"alpha": 0.5}),  # 0.6 points
        make("d", {"base": DENSE, "hrl": (0.5, 0.2)}, depth=74),
    ]
    shown = sweep_exhibits.savings(runs)
    rows = {(r["depth"], r["kind"]): r for r in shown.data["savings"]}
    assert rows[38, "HRL+SP"]["run"] == "b"
    assert rows[38, "HRL+SP"]["saved"] == pytest.approx(0.4)
    assert not rows[74, "HRL+SP"]["matched"]
    assert "the nearest is shown: HRL+SP 74" in shown.caption
    assert shown.claim.endswith("in 1 of 1 networks.")
    heights = {
        bars.get_label(): [bar.get_height() for bar in bars]
        for bars in shown.figure.axes[0].containers
    }
    np.testing.assert_allclose(heights["SP, ours"], [10, math.nan])
    np.testing.assert_allclose(heights["HRL+SP, ours"], [40, 80])
    assert heights["HRL, published"] == [30, 48]


def test_one_network_is_not_compared(make):
    with pytest.raises(LeftOut, match="several depths or gates"):
        sweep_exhibits.savings([make("a", {"base": DENSE, "sp": DENSE})])


def test_seeds_are_averaged_and_published_points_are_drawn(make):
    runs = [
        make(f"{alpha} {accuracy}", {"hrl": (accuracy, 0.5)}, {"alpha": alpha})
        for alpha, accuracy in ((0.1, 0.92), (0.1, 0.90), (0.3, 0.8))
    ]
    runs.append(runs[0])  # a stage that two runs of a sweep share
    shown = sweep_exhibits.tradeoff(runs)
    first, second = shown.data["tradeoff"]
    assert (first["runs"], second["runs"]) == (2, 1)
    assert first["accuracy"] == pytest.approx(0.91)
    # Of a sample of two: their distance over the root of 2.
    assert first["deviation"] == pytest.approx(0.02 / 2**0.5)
    lines = {line.get_label(): line for line in shown.figure.axes[0].lines}
    np.testing.assert_allclose(lines["HRL+SP 38, rnn"].get_ydata(), [80, 91])
    skipnet = lines["SkipNet, published"].get_xydata().tolist()
    assert skipnet[0] == pytest.approx([60, 92.75])
    names = {line for line in lines if line.endswith("published")}
    methods = {point.method for point in published.POINTS["cifar10"]}
    assert names == {f"{method}, published" for method in methods}


def test_nothing_published_is_drawn_on_other_data(make):
    runs = [
        make(name, {"hrl": DENSE}, {"alpha": 1.0}, dataset="digits")
        for name in ("a", "b")
    ]
    shown = sweep_exhibits.tradeoff(runs)
    assert "Nobody has published" in shown.caption
    assert list(shown.data) == ["tradeoff"]
    with pytest.raises(LeftOut):
        sweep_exhibits.tradeoff(runs[:1])


def test_pre_training_is_compared_with_scratch_and_pure_rl(make):
    runs = [
        make("a", {"hrl": (0.9, 0.5)}, {"alpha": 0.1}),
        make("b", {"hrl": (0.8, 0.5)}, {"alpha": 0.3}),
        make("c", {"hrl": (0.7, 0.5)}, {"alpha": 0.1, "from_scratch": True}),
        make("d", {"rl": (0.1, 0.5)}, {"alpha": 0.1}),
    ]
    shown = baseline_exhibits.learners(runs)
    assert "pre-training is the best start here" in shown.claim
    assert "HRL+SP 90.00 %, HRL+S 70.00 %, RL 10.00 %" in shown.claim
    assert len(shown.data["learners"]) == 4
    with pytest.raises(LeftOut, match="two prices alpha"):
        baseline_exhibits.learners(runs[:1])


def test_soft_gates_meet_the_hard_ones_of_similar_cost(make):
    runs = [
        make("soft", {"sp": (0.6, 0.7)}, {"gating": "soft"}),
        make("hard", {"sp": (0.92, 0.95), "hrl": (0.91, 0.65)}),
        make("deep", {"sp": (0.95, 0.7)}, depth=74),
    ]
    shown = baseline_exhibits.hard_and_soft(runs)
    ours, soft, *theirs = shown.data["hard_and_soft"]
    assert (ours["source"], ours["accuracy"]) == ("ours, HRL+SP", 0.91)
    assert soft["accuracy"] == 0.6
    assert theirs[0]["accuracy"] == pytest.approx(0.9083)
    assert "holds (91.00 % against 60.00 %)" in shown.claim
    with pytest.raises(LeftOut, match="gating=soft"):
        baseline_exhibits.hard_and_soft(runs[1:])


def test_dense_accuracies_stand_beside_published_ones(make):
    runs = [make("a", {"base": DENSE}), make("b", {"base": (0.92, 1.0)})]
    rows = baseline_exhibits.dense_accuracies(runs).data["dense_accuracies"]
    assert [row["depth"] for row in rows] == [38, 74, 110]
    assert rows[0]["ours"] == pytest.approx(0.925)
    assert rows[0]["published"] == pytest.approx(0.925)
    assert rows[1]["ours"] is None
    with pytest.raises(LeftOut):
        baseline_exhibits.dense_accuracies([make("c", {"sp": DENSE})])


def test_many_runs_are_a_table_without_a_picture(make):
    runs = [make(str(i), {"base": DENSE, "sp": DENSE}) for i in range(9)]
    assert sweep_exhibits.side_by_side(runs[:8]).figure is not None
    shown = sweep_exhibits.side_by_side(runs)
    assert shown.figure is None
    assert len(shown.data["side_by_side"]) == 18
