"""Baselines of the paper beside ours: Fig. 10b, Tables 1 to 3."""

from collections.abc import Sequence

from skipnet_tf import data
from skipnet_tf.analysis import plots
from skipnet_tf.analysis import published
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.analysis.exhibits import percent
from skipnet_tf.analysis.sweep_exhibits import mean_over_seeds
from skipnet_tf.analysis.sweep_exhibits import records
from skipnet_tf.evaluation import Run

_LEARNERS = ("HRL+SP", "HRL+S", "RL")


def learners(runs: Sequence[Run]) -> Exhibit:
    """HRL after SP, from scratch, and pure RL over alpha (Fig. 10b)."""
    rows = mean_over_seeds(
        [r for r in records(runs) if r["kind"] in _LEARNERS],
        *("kind", "depth", "gate", "alpha"),
    )
    if len({row["alpha"] for row in rows}) < 2:
        raise LeftOut("it needs runs with two prices alpha or more")
    series = {}
    for row in rows:
        name = f"{row['kind']} {row['depth']}, {row['gate']}"
        place = row["alpha"], 100 * row["accuracy"], 100 * row["deviation"]
        series.setdefault(name, []).append(place)
    return Exhibit(
        name="learners",
        title="Accuracy over alpha: HRL+SP, HRL+S and RL (Fig. 10b)",
        caption=(
            "HRL+SP starts from supervised pre-training, HRL+S and RL from "
            "untrained weights; RL learns from rewards alone. Means over "
            "seeds, bars of one standard deviation."
        ),
        data={"learners": rows},
        figure=plots.lines(
            series,
            ("alpha, price of computation", "accuracy in %"),
            f"Learners ({runs[-1].dataset})",
        ),
        claim=_learners_claim(rows),
    )


def _learners_claim(rows):
    best = {
        kind: max(r["accuracy"] for r in rows if r["kind"] == kind)
        for kind in _LEARNERS
        if any(r["kind"] == kind for r in rows)
    }
    if "HRL+SP" not in best or len(best) < 2:
        return ""
    told = ", ".join(f"{kind} {percent(acc, 2)}" for kind, acc in best.items())
    holds = best["HRL+SP"] == max(best.values())
    return (
        "HRL needs supervised pre-training, and pure RL fails (Fig. 10b): "
        f"pre-training is {'' if holds else 'not '}the best start here, "
        f"highest accuracies {told}."
    )


def hard_and_soft(runs: Sequence[Run]) -> Exhibit:
    """Hard against soft gating at similar compute (Table 3)."""
    found = records(runs)
    rows = []
    for soft in [r for r in found if r["kind"] == "SP, soft gates"]:
        rivals = [
            r
            for r in found
            if r["depth"] == soft["depth"] and r["kind"] in ("SP", "HRL+SP")
        ]
        if rivals:
            hard = min(rivals, key=lambda r: abs(r["macs"] - soft["macs"]))
            rows += [
                _gating_row(f"ours, {hard['kind']}", "hard", hard),
                _gating_row("ours", "soft", soft),
            ]
    if not rows:
        raise LeftOut("it needs runs with --gating=soft and hard ones beside")
    ours = list(rows)
    theirs = published.HARD_AND_SOFT.get(runs[-1].dataset, {})
    for depth, pair in theirs.items():
        for gating, (accuracy, cost) in zip(("hard", "soft"), pair):
            numbers = {"accuracy": accuracy / 100, "macs": cost * 1e8}
            row = {"depth": depth, **numbers}
            rows.append(_gating_row("published", gating, row))
    holds = all(
        hard["accuracy"] > soft["accuracy"]
        for hard, soft in zip(ours[::2], ours[1::2])
    )
    told = ", ".join(
        f"{percent(hard['accuracy'], 2)} against {percent(soft['accuracy'], 2)}"
        for hard, soft in zip(ours[::2], ours[1::2])
    )
    return Exhibit(
        name="hard_and_soft",
        title="Hard against soft gating (Table 3)",
        caption=(
            "Soft gates are trained on probabilities and decide by threshold "
            "here; beside each, the network of that depth with hard gates "
            "whose multiply-adds come closest."
        ),
        data={"hard_and_soft": rows},
        table=(
            ("source", "", ""),
            ("gating", "gating", ""),
            ("depth", "depth", ""),
            ("accuracy", "accuracy", ".2%"),
            ("macs", "multiply-adds per image", ".3g"),
        ),
        claim=(
            "Hard gates keep more accuracy than soft ones at similar compute "
            f"(Table 3): {'holds' if holds else 'does not hold'} ({told})."
        ),
    )


def _gating_row(source, gating, row):
    chosen = {key: row[key] for key in ("depth", "accuracy", "macs")}
    return {"source": source, "gating": gating, **chosen}


def datasets(runs: Sequence[Run]) -> Exhibit:
    """Sizes of the data sets (Table 1)."""
    run = runs[-1]
    settings = run.settings(next(iter(run.summaries)))
    splits = [settings.get(f"{part}_split") for part in ("train", "validation")]
    rows = []
    for split in filter(None, [*splits, run.split]):
        info = data.describe(
            run.dataset, split, run.data_dir, image_size=run.image_size
        )
        rows.append(
            {
                "dataset": f"{run.dataset}, ours",
                "split": split,
                "images": info.num_examples,
                "classes": info.num_classes,
            }
        )
    for name, (train, test, classes) in published.DATASETS.items():
        for split, images in (("train", train), ("test", test)):
            of = {"split": split, "images": images, "classes": classes}
            rows.append({"dataset": f"{name}, published", **of})
    return Exhibit(
        name="datasets",
        title="Data sets (Table 1)",
        caption="Images and classes of this run, then of the paper.",
        data={"datasets": rows},
        table=(
            ("dataset", "data set", ""),
            ("split", "split", ""),
            ("images", "images", ""),
            ("classes", "classes", ""),
        ),
    )


def dense_accuracies(runs: Sequence[Run]) -> Exhibit:
    """Accuracies of the networks without gates (Table 2)."""
    dense = [r for r in records(runs) if r["kind"] == "dense"]
    ours = {
        row["depth"]: row["accuracy"] for row in mean_over_seeds(dense, "depth")
    }
    theirs = published.DENSE.get(runs[-1].dataset, {})
    if not ours:
        raise LeftOut("no run has trained a dense network (stage base)")
    rows = [
        {
            "depth": depth,
            "ours": ours.get(depth),
            "published": theirs[depth] / 100 if depth in theirs else None,
        }
        for depth in sorted(ours | theirs)
    ]
    return Exhibit(
        name="dense_accuracies",
        title="Networks without gates (Table 2)",
        caption=(
            f"Accuracy on {runs[-1].dataset}, mean over seeds. "
            + ("" if theirs else "The paper has no results on this data set.")
        ).strip(),
        data={"dense_accuracies": rows},
        table=(
            ("depth", "depth", ""),
            ("ours", "ours", ".2%"),
            ("published", "published", ".2%"),
        ),
    )
