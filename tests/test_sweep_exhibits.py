"""Exhibits of several runs, from their results alone."""

import json
import math

import numpy as np
import pytest

from skipnet_tf.analysis import baseline_exhibits
from skipnet_tf.analysis import published
from skipnet_tf.analysis import records
from skipnet_tf.analysis import sweep_exhibits
from skipnet_tf.analysis import table_exhibits
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.runs import Run


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
        kinds = [row["kind"] for row in records.records([run])]
        assert kinds == expected
    settings = {"distill_from": "base"}
    taught = make("taught", {"gates": DENSE, "hrl": DENSE}, settings)
    assert records.kind(taught, "hrl") == "HRL+SP, distilled"
    assert records.kind(taught, "gates") == "gates alone"  # without a teacher
    later = make("later", {"hrl": DENSE}, {"hrl_from": "elastic"})
    assert records.kind(later, "hrl") == "HRL after elastic depth"


def test_seeds_are_averaged_and_other_settings_are_not(make):
    runs = [
        make(f"{seed}", {"hrl": (accuracy, share)}, {"alpha": 1, "seed": seed})
        for seed, accuracy, share in ((0, 0.92, 0.4), (1, 0.90, 0.6))
    ]
    runs.append(runs[0])  # a stage that two runs of a sweep share
    runs.append(make("lr", {"hrl": DENSE}, {"alpha": 1, "l2": 1}))
    first, second = records.over_seeds(runs)
    assert (first["runs"], second["runs"]) == (2, 1)
    assert first["accuracy"] == pytest.approx(0.91)
    # Of a sample of two: their distance over the root of 2.
    assert first["accuracy_std"] == pytest.approx(0.02 / 2**0.5)
    assert first["macs_fraction"] == pytest.approx(0.5)
    assert first["macs_fraction_std"] == pytest.approx(0.2 / 2**0.5)
    assert second["accuracy_std"] is None  # one seed tells nothing


def test_accuracies_are_told_apart_beyond_chance():
    def row(accuracy, deviation=0.0, runs=1, images=1000):
        return {
            "accuracy": accuracy,
            "accuracy_std": deviation,
            "runs": runs,
            "images": images,
        }

    # One of 1000 images near 90 %: sqrt(0.09 / 1000) = 0.0095; of the
    # difference of two 1.96 * 1.41 * 0.0095 = 0.026.
    assert records.compare(row(0.93), row(0.90)) == 1
    assert records.compare(row(0.90), row(0.93)) == -1
    assert records.compare(row(0.92), row(0.90)) == 0
    assert records.compare(row(0.93, images=100), row(0.90, images=100)) == 0
    # A deviation over seeds is an error, too.
    assert records.compare(row(0.93, 0.05, 2), row(0.90)) == 0
    assert records.compare(row(1.0, images=100), row(0.98, images=100)) == 0


def test_savings_are_those_within_half_a_point(make):
    runs = [
        make("a", {"base": DENSE, "sp": (0.928, 0.9)}),
        make("b", {"hrl": (0.926, 0.6)}, {"alpha": 0.2}),
        make("c", {"hrl": (0.924, 0.3)}, {"alpha": 0.5}),  # 0.6 points
        make("d", {"base": DENSE, "hrl": (0.5, 0.2)}, depth=74),
        make("e", {"hrl": (0.93, 0.1)}, {"alpha": 0.2, "distill_from": "base"}),
    ]
    shown = sweep_exhibits.savings(runs)
    rows = {(r["depth"], r["kind"]): r for r in shown.data["savings"]}
    assert rows[38, "HRL+SP"]["alpha"] == 0.2
    assert rows[38, "HRL+SP"]["tried"] == 2
    assert rows[38, "HRL+SP"]["saved"] == pytest.approx(0.4)
    assert not rows[74, "HRL+SP"]["matched"]
    assert "No price is near enough: HRL+SP rnn, depth 74" in shown.caption
    (claim,) = shown.claims
    assert claim.verdict == "holds"
    assert claim.numbers == "rnn, depth 38: 40.0 % against 10.0 %"
    heights = {
        bars.get_label(): [bar.get_height() for bar in bars]
        for bars in shown.figure.axes[0].containers
    }
    np.testing.assert_allclose(heights["SP, ours"], [10, math.nan])
    np.testing.assert_allclose(heights["HRL+SP, ours"], [40, math.nan])
    assert heights["HRL+SP, published"] == [30, 48]


def test_savings_are_means_over_seeds_not_the_luckiest(make):
    runs = [make("a", {"base": DENSE}), make("b", {"hrl": DENSE}, gate="ff1")]
    for seed, accuracy, share in ((0, 0.94, 0.2), (1, 0.90, 0.8)):
        settings = {"alpha": 1, "seed": seed}
        runs.append(make(f"{seed}", {"hrl": (accuracy, share)}, settings))
    shown = sweep_exhibits.savings(runs)
    (row,) = [r for r in shown.data["savings"] if r["gate"] == "rnn"]
    assert row["saved"] == pytest.approx(0.5)
    assert not row["matched"]  # 0.92 is a point below


def test_one_network_is_not_compared(make):
    one = [make("a", {"base": DENSE, "sp": DENSE})]
    with pytest.raises(LeftOut, match="several depths or gates"):
        sweep_exhibits.savings(one)
    with pytest.raises(LeftOut, match="several depths or gates"):
        sweep_exhibits.networks(one)
    no_dense = [make(g, {"sp": DENSE}, gate=g) for g in ("rnn", "ff1")]
    with pytest.raises(LeftOut, match="no dense network"):
        sweep_exhibits.savings(no_dense)


def test_prices_and_published_points_are_drawn(make):
    runs = [
        make("a", {"base": DENSE, "hrl": (0.91, 0.5)}, {"alpha": 0.1}),
        make("b", {"hrl": (0.90, 0.3)}, {"alpha": 0.3}),
        make("c", {"sp": (0.2, 0.5)}, {"gating": "random"}),
        make("d", {"hrl": (0.92, 0.4)}, {"alpha": 0.1}, gate="ff1"),
    ]
    shown = sweep_exhibits.tradeoff(runs)
    axes = shown.figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["HRL+SP"].get_ydata(), [90, 91])
    np.testing.assert_allclose(lines["HRL+SP"].get_xdata(), [24, 40])
    skipnet = lines["SkipNet, published"].get_xydata().tolist()
    assert skipnet[0] == pytest.approx([60, 92.75])
    names = {line for line in lines if line.endswith("published")}
    methods = {point.method for point in published.POINTS["cifar10"]}
    assert names == {f"{method}, published" for method in methods}
    # Far below: told, not drawn. Another network: in a picture of its own.
    assert [t.get_text() for t in axes.texts] == ["0.3", "0.1", "↓ SDV 20.0 %"]
    assert len(shown.data["tradeoff"]) == 5
    assert "measured on 100 images (test), those published on 10000" in (
        shown.caption
    )
    lines = sweep_exhibits.networks(runs).figure.axes[0].lines
    assert [line.get_label() for line in lines] == [
        "dense, by depth",
        "HRL+SP, rnn, depth 38",
        "HRL+SP, ff1, depth 38",
    ]


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


def test_pre_training_is_compared_at_the_same_prices(make):
    runs = [
        make("a", {"hrl": (0.9, 0.5)}, {"alpha": 0.1}),
        make("b", {"hrl": (0.99, 0.5)}, {"alpha": 0.3}),  # no rival there
        make("c", {"hrl": (0.91, 0.4)}, {"alpha": 0.1, "from_scratch": True}),
        make("d", {"rl": (0.1, 0.5)}, {"alpha": 0.1}),
        make("e", {"rl": (0.1, 0.5)}, {}),  # its price is not known
    ]
    shown = baseline_exhibits.learners(runs)
    scratch, pure = shown.claims
    assert scratch.verdict == "cannot be told"
    assert scratch.numbers == "alpha 0.1: 90.00 % (50.0 %) and 91.00 % (40.0 %)"
    assert pure.verdict == "holds"
    assert len(shown.data["learners"]) == 4
    with pytest.raises(LeftOut, match="two prices alpha"):
        baseline_exhibits.learners(runs[:1])


def test_soft_gates_meet_the_hard_ones_of_similar_cost(make):
    runs = [
        make("soft", {"sp": (0.6, 0.7)}, {"gating": "soft"}),
        make("hard", {"sp": (0.92, 0.95), "hrl": (0.91, 0.65)}),
        make("deep", {"sp": (0.95, 0.7)}, depth=74),
        make("other", {"sp": (0.95, 0.7)}, gate="ff1"),
    ]
    shown = baseline_exhibits.hard_and_soft(runs)
    ours, soft, *theirs = shown.data["hard_and_soft"]
    assert (ours["source"], ours["accuracy"]) == ("ours, HRL+SP", 0.91)
    assert soft["accuracy"] == 0.6
    assert theirs[0]["accuracy"] == pytest.approx(0.9083)
    (claim,) = shown.claims
    assert claim.verdict == "holds"
    assert claim.numbers == "hard 91.00 % (65.0 %), soft 60.00 % (70.0 %)"
    with pytest.raises(LeftOut, match="gating=soft"):
        baseline_exhibits.hard_and_soft(runs[1:])
    # A hard one that spends far less proves nothing.
    runs[1] = make("thrifty", {"hrl": (0.91, 0.3)})
    (claim,) = baseline_exhibits.hard_and_soft(runs[:2]).claims
    assert claim.verdict == "cannot be told"


def test_random_skipping_meets_what_costs_no_more(make):
    runs = [
        make("random", {"sp": (0.8, 0.7)}, {"gating": "random"}),
        make("dear", {"sp": (0.99, 0.75)}),
        make("cheap", {"hrl": (0.92, 0.6)}, {"alpha": 1}),
        make("cheapest", {"hrl": (0.91, 0.3)}, {"alpha": 2}),
    ]
    shown = baseline_exhibits.random_skipping(runs)
    learned, random = shown.data["random_skipping"]
    assert (learned["accuracy"], random["kind"]) == (0.92, "SDV")
    assert shown.claims[0].verdict == "holds"
    with pytest.raises(LeftOut, match="cost no more"):
        baseline_exhibits.random_skipping(runs[:2])


@pytest.mark.parametrize(
    ("rival", "verdict"),
    [
        ((0.91, 0.7), "holds"),  # as accurate, dearer
        ((0.99, 0.7), "cannot be told"),  # more accurate, dearer
        ((0.91, 0.3), "does not hold"),  # as accurate, cheaper
        ((0.99, 0.3), "does not hold"),
    ],
)
def test_recurrent_gates_are_compared_at_one_price(make, rival, verdict):
    runs = [
        make("rnn", {"hrl": (0.9, 0.5)}, {"alpha": 1}),
        make("ff1", {"hrl": rival}, {"alpha": 1}, gate="ff1"),
        make("ff2", {"hrl": (0.99, 0.1)}, {"alpha": 2}, gate="ff2"),
    ]
    shown = baseline_exhibits.kinds_of_gates(runs)
    assert [row["gate"] for row in shown.data["kinds_of_gates"]] == [
        "rnn",
        "ff1",
    ]
    assert shown.claims[0].verdict == verdict
    with pytest.raises(LeftOut, match="one depth and alpha"):
        baseline_exhibits.kinds_of_gates(runs[::2])


def test_verdicts_of_several_cases():
    assert baseline_exhibits._verdict([1, 1]) == "holds"
    assert baseline_exhibits._verdict([0, -1]) == "does not hold"
    assert baseline_exhibits._verdict([0]) == "cannot be told"
    mixed = baseline_exhibits._verdict([1, 0, -1])
    assert mixed == "holds in 1 of 3 cases, not in 1"


def test_dense_accuracies_stand_beside_published_ones(make):
    runs = [
        make("a", {"base": DENSE}, {"seed": 0}),
        make("b", {"base": (0.92, 1.0)}, {"seed": 1}),
    ]
    rows = table_exhibits.dense_accuracies(runs).data["dense_accuracies"]
    assert [row["depth"] for row in rows] == [38, 74, 110]
    assert rows[0]["ours"] == pytest.approx(0.925)
    assert rows[0]["published"] == pytest.approx(0.925)
    assert rows[1]["ours"] is None
    with pytest.raises(LeftOut):
        table_exhibits.dense_accuracies([make("c", {"sp": DENSE})])


def test_many_runs_are_a_table_without_a_picture(make):
    runs = [make(str(i), {"base": DENSE, "sp": DENSE}) for i in range(9)]
    assert table_exhibits.side_by_side(runs[:8]).figure is not None
    shown = table_exhibits.side_by_side(runs)
    assert shown.figure is None
    assert len(shown.data["side_by_side"]) == 18


def test_settings_of_a_sweep_are_a_table(make):
    runs = [make(str(i), {"sp": (0.9, i)}, {"seed": i}) for i in (1, 2)]
    shown = table_exhibits.settings(runs)
    (row,) = shown.data["settings"]
    assert (row["runs"], row["macs_fraction"]) == (2, 1.5)
    assert len(shown.data["side_by_side"]) == 2
    with pytest.raises(LeftOut):
        table_exhibits.settings(runs[:1])
