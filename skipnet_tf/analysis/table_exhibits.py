"""Exhibits that are tables: runs, settings, Tables 1 and 2."""

from collections.abc import Sequence

from skipnet_tf import data
from skipnet_tf.analysis import figures
from skipnet_tf.analysis import published
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.analysis.records import SETTING
from skipnet_tf.analysis.records import comparable
from skipnet_tf.analysis.records import over_seeds
from skipnet_tf.analysis.records import records
from skipnet_tf.runs import Run

_FEW_RUNS = 8  # as many can be told apart in one picture


def side_by_side(runs: Sequence[Run]) -> Exhibit:
    """Every stage of every run in one table, few runs in one picture."""
    rows = records(runs)
    series = {}
    for row in rows:
        place = row["macs"], row["accuracy"]
        series.setdefault(row["run"], []).append(place)
    few = len(runs) <= _FEW_RUNS
    names = sorted({run.dataset for run in runs})
    return Exhibit(
        name="side_by_side",
        title="Runs side by side",
        caption=(
            "Accuracy and multiply-adds, gates included, of all finished "
            "stages on the evaluation images."
            + (" A line joins the stages of a run." if few else "")
            + (
                f" The data sets differ ({', '.join(names)}), so accuracies "
                "of one run are not to be compared with those of another."
                if len(names) > 1
                else ""
            )
        ),
        data={"side_by_side": rows},
        figure=figures.accuracy_against_compute(
            series,
            {},
            f"Runs ({', '.join(names)})",
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


def settings(runs: Sequence[Run]) -> Exhibit:
    """Every setting of a sweep, means and deviations over seeds."""
    if len(runs) == 1:
        raise LeftOut("there is one run")
    rows = over_seeds(runs)
    return Exhibit(
        name="settings",
        title="Settings of the sweep",
        caption=(
            "Means over seeds (n) with the deviation of the sample (+-) of "
            "accuracy and of multiply-adds, gates included, of the dense "
            "network's. A stage that several runs share counts once. "
            "side_by_side.csv holds every stage of every run."
        ),
        data={"settings": rows, "side_by_side": records(runs)},
        table=(
            ("kind", "stage", ""),
            *SETTING,
            ("macs_fraction", "of dense", ".1%"),
            ("macs_fraction_std", "+-", ".1%"),
        ),
    )


def datasets(runs: Sequence[Run]) -> Exhibit:
    """Sizes of the data sets (Table 1)."""
    run = runs[-1]
    settings = run.settings(next(iter(run.summaries)))
    splits = [settings.get(f"{part}_split") for part in ("train", "validation")]
    rows = []
    for split in filter(None, dict.fromkeys([*splits, run.split])):
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
    dense = [row for row in over_seeds(runs) if row["kind"] == "dense"]
    ours = {row["depth"]: row["accuracy"] for row in dense}
    theirs = published.DENSE.get(runs[-1].dataset, {})
    if not ours:
        raise LeftOut("no run has trained a dense network (stage base)")
    rows = [
        {
            "depth": depth,
            "ours": ours.get(depth),
            "published": theirs[depth] / 100 if depth in theirs else None,
        }
        for depth in sorted(ours | theirs, key=lambda depth: depth or 0)
    ]
    return Exhibit(
        name="dense_accuracies",
        title="Networks without gates (Table 2)",
        caption=(
            f"Accuracy on {runs[-1].dataset}, mean over seeds. "
            + (
                comparable(runs)
                if theirs
                else "The paper has no results on this data set."
            )
        ).strip(),
        data={"dense_accuracies": rows},
        table=(
            ("depth", "depth", ""),
            ("ours", "ours", ".2%"),
            ("published", "published", ".2%"),
        ),
    )
