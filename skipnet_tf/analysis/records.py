"""What runs gave, as rows: one for each stage, or one for each setting."""

import json
import math
from collections.abc import Sequence

import numpy as np

from skipnet_tf.analysis import published
from skipnet_tf.runs import Run

_GATING = {"hard": "SP", "soft": "SP, soft gates", "random": "SDV"}
_NAMES = {
    "base": "dense",
    "rl": "RL",
    "target_rate": "target rate (ConvNet-AIG)",
    "budget": "budget (DynConv)",
    "elastic": "elastic depth",
    "gates": "gates alone",
}
_Z = 1.959964  # standard errors that hold 95 %

# Columns of tables whose rows are settings, see `over_seeds`.
SETTING = (
    ("depth", "depth", ""),
    ("gate", "gate", ""),
    ("alpha", "alpha", "g"),
    ("runs", "n", ""),
    ("accuracy", "accuracy", ".2%"),
    ("accuracy_std", "+-", ".2%"),
)
NOISE = (
    "Accuracies of two settings are told apart where they differ by more than "
    "1.96 standard errors, which come from the number of images and, with "
    "several seeds, from their deviation."
)


def kind(run: Run, stage: str) -> str:
    """What the paper calls a stage."""
    settings = run.settings(stage)
    name = _NAMES.get(stage, stage)
    if stage == "sp":
        name = _GATING[settings.get("gating", "hard")]
    elif stage == "hrl":
        before = settings.get("hrl_from", "sp")
        name = "HRL+SP" if before == "sp" else f"HRL after {_NAMES[before]}"
        name = "HRL+S" if settings.get("from_scratch") else name
    taught = settings.get("distill_from") and stage not in ("gates", "rl")
    return f"{name}, distilled" if taught else name


def records(runs: Sequence[Run]) -> list[dict]:
    """One row for every stage of every run."""
    return [row for _, row in _each(runs)]


def _each(runs):
    """Rows, each with all that makes its setting but the seed."""
    names = [run.name for run in runs]
    for run in runs:
        for stage, summary in run.summaries.items():
            settings = run.settings(stage)
            seed = settings.pop("seed", None)
            row = {
                "run": run.name if names.count(run.name) == 1 else run.workdir,
                "stage": stage,
                "kind": kind(run, stage),
                "depth": run.depth,
                "gate": None if stage == "base" else run.gate,
                "alpha": settings.get("alpha"),
                "seed": seed,
                **summary,
            }
            yield json.dumps(settings, sort_keys=True), row


def over_seeds(runs: Sequence[Run]) -> list[dict]:
    """One row for every setting, means and deviations over its seeds.

    Args:
        runs: Sequence of `Run`.

    Returns:
        List of dicts: `kind`, `depth`, `gate`, `alpha`, `runs`, `images`, and
        the means of `accuracy`, `macs` and `macs_fraction` with
        `accuracy_std` and `macs_fraction_std`, of the sample,
        `None` for one run.
    """
    keys = ("kind", "depth", "gate", "alpha")
    groups = {}
    for setting, row in _each(runs):
        # Runs of a sweep share stages: those count once.
        same = row["seed"], row["accuracy"], row["macs"]
        group = (*(row[key] for key in keys), setting)
        groups.setdefault(group, {})[same] = row
    return [
        dict(zip(keys, group)) | _moments(list(found.values()))
        for group, found in groups.items()
    ]


def _moments(found):
    def moments(name):
        values = [row[name] for row in found]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return {name: float(np.mean(values)), f"{name}_std": spread}

    return {
        "runs": len(found),
        "images": found[0]["images"],
        **moments("accuracy"),
        **moments("macs_fraction"),
        "macs": float(np.mean([row["macs"] for row in found])),
    }


def compare(first: dict, second: dict) -> int:
    """Which of two settings is more accurate, beyond chance.

    Args:
        first: Dict, a row of `over_seeds`.
        second: The same.

    Returns:
        1 where the first is, -1 where the second is, 0 where they cannot be
        told apart.
    """
    gap = first["accuracy"] - second["accuracy"]
    return int(math.copysign(abs(gap) > resolution(first, second), gap))


def resolution(first: dict, second: dict) -> float:
    """By how much two accuracies must differ to be told apart.

    Args:
        first: Dict, a row of `over_seeds`.
        second: The same.

    Returns:
        Float, a share of images.
    """
    return _Z * math.hypot(_error(first), _error(second))


def _error(row):
    """Standard error of an accuracy; all seeds see the same images."""
    # Agresti and Coull: two more of either kind, or 100 % would be certain.
    images = row["images"] + 4
    share = (row["accuracy"] * row["images"] + 2) / images
    of_seeds = (row["accuracy_std"] or 0.0) / math.sqrt(row["runs"])
    return math.hypot(of_seeds, math.sqrt(share * (1 - share) / images))


def network(row: dict) -> str:
    """Gates and depth of a row in words."""
    depth = "?" if row["depth"] is None else row["depth"]
    return f"{row['gate']}, depth {depth}" if row["gate"] else f"depth {depth}"


def comparable(runs: Sequence[Run]) -> str:
    """A sentence where our images are not those of published numbers."""
    run = runs[-1]
    theirs = published.TEST_IMAGES.get(run.dataset)
    ours = next(reversed(run.summaries.values()))["images"]
    if theirs in (None, ours):
        return ""
    return (
        f"Ours are measured on {ours} images ({run.split}), those published "
        f"on {theirs} test images: a few points between them say nothing. "
    )
