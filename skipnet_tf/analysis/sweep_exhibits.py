"""Exhibits of several runs: depths, gates, prices and baselines (Sec. 4)."""

import math
from collections.abc import Sequence

import numpy as np

from skipnet_tf.analysis import figures
from skipnet_tf.analysis import plots
from skipnet_tf.analysis import published
from skipnet_tf.analysis.exhibits import MATCHED
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.evaluation import Run

_GATING = {"hard": "SP", "soft": "SP, soft gates", "random": "SDV"}
_FEW_RUNS = 8  # as many can be told apart in one picture

# Accuracies this far below the best would press all others into a line.
_IN_PICTURE = 0.15


def records(runs: Sequence[Run]) -> list[dict]:
    """One row for every stage of every run."""
    names = [run.name for run in runs]
    return [
        {
            "run": run.name if names.count(run.name) == 1 else run.workdir,
            "stage": stage,
            "kind": kind(run, stage),
            "depth": run.depth,
            "gate": run.gate,
            "alpha": run.settings(stage).get("alpha"),
            "seed": run.settings(stage).get("seed"),
            **summary,
        }
        for run in runs
        for stage, summary in run.summaries.items()
    ]


def kind(run: Run, stage: str) -> str:
    """What the paper calls a stage."""
    settings = run.settings(stage)
    if stage == "sp":
        return _GATING[settings.get("gating", "hard")]
    if stage == "hrl":
        return "HRL+S" if settings.get("from_scratch") else "HRL+SP"
    return {"base": "dense", "rl": "RL"}.get(stage, stage)


def mean_over_seeds(rows, *keys):
    """Rows with the same `keys`, as means with deviations."""
    groups = {}
    for row in rows:
        # Runs of a sweep share stages: those count once.
        same = row["seed"], row["accuracy"], row["macs"]
        group = groups.setdefault(tuple(row[key] for key in keys), {})
        group[same] = row
    groups = {key: list(found.values()) for key, found in groups.items()}
    return [
        {
            **dict(zip(keys, group)),
            "runs": len(found),
            "accuracy": float(np.mean([r["accuracy"] for r in found])),
            "deviation": _deviation([r["accuracy"] for r in found]),
            "macs": float(np.mean([r["macs"] for r in found])),
            "macs_fraction": float(
                np.mean([r["macs_fraction"] for r in found])
            ),
        }
        for group, found in groups.items()
    ]


def _deviation(values):
    """Of the sample, as `sweep.csv` has it; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def side_by_side(runs: Sequence[Run]) -> Exhibit:
    """Every stage of every run in one table, few runs in one picture."""
    rows = records(runs)
    series = {}
    for row in rows:
        place = row["macs"], row["accuracy"]
        series.setdefault(row["run"], []).append(place)
    few = len(runs) <= _FEW_RUNS
    return Exhibit(
        name="side_by_side",
        title="Runs side by side",
        caption=(
            "Accuracy and multiply-adds, gates included, of all finished "
            "stages on the evaluation images."
            + (" A line joins the stages of a run." if few else "")
        ),
        data={"side_by_side": rows},
        figure=figures.accuracy_against_compute(
            series,
            {},
            f"Runs ({', '.join(sorted({run.dataset for run in runs}))})",
            [(row["macs"], row["accuracy"], row["kind"]) for row in rows],
        )
        if few
        else None,
        table=(
            ("run", "run", ""),
            ("kind", "stage", ""),
            ("depth", "depth", ""),
            ("gate", "gate", ""),
            ("alpha", "alpha", "g"),
            ("accuracy", "accuracy", ".2%"),
            ("executed_blocks", "blocks executed", ".1%"),
            ("macs", "multiply-adds per image", ".3g"),
            ("macs_fraction", "of dense", ".1%"),
            ("distinct_paths", "distinct paths", ""),
        ),
    )


def savings(runs: Sequence[Run]) -> Exhibit:
    """Multiply-adds saved by SP and HRL, network by network (Fig. 4, 5a)."""
    rows = records(runs)
    networks = sorted({(r["depth"], r["gate"]) for r in rows})
    if len(networks) < 2:
        raise LeftOut("it compares networks of several depths or gates")
    chosen = [
        row
        for network in networks
        for name in ("SP", "HRL+SP")
        if (row := _thriftiest(rows, network, name))
    ]
    series = {
        f"{name}, ours": [
            next(
                (
                    100 * row["saved"]
                    for row in chosen
                    if (row["depth"], row["gate"], row["kind"])
                    == (*network, name)
                ),
                math.nan,
            )
            for network in networks
        ]
        for name in ("SP", "HRL+SP")
    }
    theirs = published.SAVED.get(runs[-1].dataset, {})
    for place, name in enumerate(("SP", "HRL")):
        values = [
            theirs[depth][place]
            if gate == "rnn" and depth in theirs
            else math.nan
            for depth, gate in networks
        ]
        if not np.isnan(values).all():
            series[f"{name}, published"] = values
    far = [f"{r['kind']} {r['depth']}" for r in chosen if not r["matched"]]
    return Exhibit(
        name="savings",
        title="Multiply-adds saved by SP and HRL (Fig. 4, 5a)",
        caption=(
            "Share of the dense network's multiply-adds that is saved, gates "
            "included, so that gates which skip nothing lie below 0. Of "
            "several runs, the one that saves most within 0.5 points of the "
            "dense network's accuracy."
            + (
                f" None is that near, the nearest is shown: {', '.join(far)}."
                if far
                else ""
            )
        ),
        data={"savings": chosen},
        figure=plots.bars(
            series,
            [f"{gate}, depth {depth}" for depth, gate in networks],
            "multiply-adds saved in %",
            f"Savings ({runs[-1].dataset})",
        ),
        claim=_savings_claim(chosen, networks),
    )


def _thriftiest(rows, network, name):
    same_depth = [r for r in rows if r["depth"] == network[0]]
    dense = [r["accuracy"] for r in same_depth if r["kind"] == "dense"]
    found = [
        {**r, "saved": 1 - r["macs_fraction"]}
        for r in same_depth
        if (r["gate"], r["kind"]) == (network[1], name)
    ]
    if not found or not dense:
        return None
    near = [r for r in found if r["accuracy"] >= np.mean(dense) - MATCHED]
    if near:
        return {**max(near, key=lambda r: r["saved"]), "matched": True}
    return {**max(found, key=lambda r: r["accuracy"]), "matched": False}


def _savings_claim(chosen, networks):
    saved = {(r["depth"], r["gate"], r["kind"]): r["saved"] for r in chosen}
    pairs = [
        (saved[*network, "SP"], saved[*network, "HRL+SP"])
        for network in networks
        if (*network, "SP") in saved and (*network, "HRL+SP") in saved
    ]
    if not pairs:
        return ""
    more = sum(hrl > sp for sp, hrl in pairs)
    return (
        "HRL saves more than SP alone (Sec. 4.1): in "
        f"{more} of {len(pairs)} networks."
    )


def tradeoff(runs: Sequence[Run]) -> Exhibit:
    """Accuracy against multiply-adds over alpha, beside others (Fig. 5, 6)."""
    rows = mean_over_seeds(
        records(runs), "kind", "depth", "gate", "alpha", "stage"
    )
    points = published.POINTS.get(runs[-1].dataset, ())
    if len(runs) == 1 and not points:
        raise LeftOut("there is one run, and nobody's results on its data set")
    series, others = {}, {}
    shown, below = _readable(rows)
    for row in shown:
        gate = "" if row["kind"] == "dense" else f", {row['gate']}"
        name = f"{row['kind']} {row['depth']}{gate}"
        series.setdefault(name, []).append((row["macs"], row["accuracy"]))
    for point in points:
        place = point.macs, point.accuracy / 100
        others.setdefault(f"{point.method}, published", []).append(place)
    theirs = (
        "Grey: published, on the same data set. PEFC and LCCL, which the "
        "paper plots too, have published no numbers there."
        if points
        else "Nobody has published results on this data set."
    )
    return Exhibit(
        name="tradeoff",
        title="Accuracy against multiply-adds over alpha (Fig. 5, 6)",
        caption=(
            "Means over seeds; a line joins the prices alpha of a network, "
            "which stand below the points of HRL+SP. "
            f"SDV skips blocks at random. {below}{theirs}"
        ),
        data={"tradeoff": rows}
        | ({"tradeoff_published": [vars(p) for p in points]} if points else {}),
        figure=figures.accuracy_against_compute(
            series,
            others,
            f"Accuracy over alpha ({runs[-1].dataset})",
            _prices(shown),
        ),
    )


def _prices(rows):
    """Notes of alpha below a network's points, where it has several."""
    priced = [row for row in rows if row["kind"] == "HRL+SP" and row["alpha"]]
    networks = [(row["depth"], row["gate"]) for row in priced]
    return [
        (row["macs"], row["accuracy"], f"{row['alpha']:g}")
        for row, network in zip(priced, networks)
        if networks.count(network) > 1
    ]


def _readable(rows):
    """Rows near enough to the best one to share a picture, and the others."""
    floor = max(row["accuracy"] for row in rows) - _IN_PICTURE
    shown = [row for row in rows if row["accuracy"] >= floor]
    names = sorted({r["kind"] for r in rows if r["accuracy"] < floor})
    if not names:
        return shown, ""
    return shown, (
        f"More than {100 * _IN_PICTURE:g} points below the best, and in the "
        f"data alone: {', '.join(names)}. "
    )
