"""What the runs of a sweep gave: accuracy and compute over seeds."""

import csv
import json
import os
import statistics
from collections.abc import Sequence

from skipnet_tf import evaluation

_SPLITS = ("validation", "test")
_NUMBERS = ("accuracy", "macs_fraction")


def read(folder: str, stage: str) -> dict[str, dict]:
    """Summaries of a finished stage, by split."""
    with open(os.path.join(folder, "result.json")) as file:
        found = json.load(file)["stages"][stage]
    # Not all of it is about a split: a threshold, retreats.
    return {split: found[split] for split in _SPLITS if split in found}


def rows(runs: Sequence[tuple[str, str, dict[str, dict]]]) -> list[dict]:
    """Means and standard deviations over seeds.

    Args:
        runs: Tuples of setting, last stage, and its summaries by split.

    Returns:
        List of a dict for each setting and split: `setting`, `stage`,
        `split`, `n` (runs), and for accuracy and multiply-adds (fraction of
        the dense network's, gates included) the mean and `..._std`, the
        sample's standard deviation, `None` for a single run.
    """
    groups = {}
    for setting, stage, summaries in runs:
        for split, summary in summaries.items():
            groups.setdefault((setting, stage, split), []).append(summary)
    return [
        dict(zip(("setting", "stage", "split"), group), n=len(summaries))
        | {
            name: value
            for number in _NUMBERS
            for name, value in _moments(number, summaries)
        }
        for group, summaries in groups.items()
    ]


def _moments(name, summaries):
    values = [summary[name] for summary in summaries]
    std = statistics.stdev(values) if len(values) > 1 else None
    return (name, statistics.fmean(values)), (f"{name}_std", std)


def write_csv(path: str, found: list[dict]) -> None:
    """Writes what `rows` returned."""
    names = ["setting", "stage", "split", "n"]
    names += [f"{n}{suffix}" for n in _NUMBERS for suffix in ("", "_std")]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(found)


def table(found: list[dict]) -> str:
    """An aligned plain-text table of what `rows` returned."""
    header = ("setting", "stage", "accuracy", "multiply-adds of dense", "n")
    lines = [header] + [
        (
            row["setting"],
            row["stage"],
            _percent(row["accuracy"], row["accuracy_std"], 2),
            _percent(row["macs_fraction"], row["macs_fraction_std"], 1),
            str(row["n"]),
        )
        for row in found
    ]
    return evaluation.aligned(lines)


def _percent(mean, std, digits):
    spread = "" if std is None else f" +- {100 * std:.{digits}f}"
    return f"{100 * mean:.{digits}f}{spread} %"
