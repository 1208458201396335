"""The report of a run or a sweep, after the figures of the paper.

    python -m skipnet_tf.analysis --workdir=runs/digits --out=report
    python -m skipnet_tf.analysis --compare runs/a runs/b --out=report

writes `report.html`, which needs no other file, the pictures as PNG and SVG,
and their numbers as `data/*.csv`.  Images are those of the test split, or of
the validation split where there is none.
"""

import functools
import json
import os
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
import tqdm

from skipnet_tf.analysis import baseline_exhibits
from skipnet_tf.analysis import class_exhibits
from skipnet_tf.analysis import exhibits
from skipnet_tf.analysis import findings
from skipnet_tf.analysis import image_exhibits
from skipnet_tf.analysis import path_exhibits
from skipnet_tf.analysis import plots
from skipnet_tf.analysis import records
from skipnet_tf.analysis import report
from skipnet_tf.analysis import run_exhibits
from skipnet_tf.analysis import sweep_exhibits
from skipnet_tf.analysis import table_exhibits
from skipnet_tf.analysis.exhibits import percent
from skipnet_tf.runs import Run
from skipnet_tf.runs import open_run

# In the order of the report.
OF_A_RUN = (
    exhibits.stages,
    run_exhibits.accuracy_against_compute,
    run_exhibits.threshold_knob,
    run_exhibits.skip_rate_per_block,
    image_exhibits.easiest_and_hardest,
    image_exhibits.image_statistics,
    image_exhibits.input_scales,
    class_exhibits.class_difficulty,
    class_exhibits.class_distributions,
    path_exhibits.own_paths,
    path_exhibits.changed_predictions,
    run_exhibits.measured_time,
    run_exhibits.training_curves,
)
OF_RUNS = (
    sweep_exhibits.savings,
    sweep_exhibits.tradeoff,
    sweep_exhibits.networks,
    baseline_exhibits.kinds_of_gates,
    baseline_exhibits.learners,
    baseline_exhibits.random_skipping,
    baseline_exhibits.hard_and_soft,
    table_exhibits.settings,
    table_exhibits.dense_accuracies,
    table_exhibits.datasets,
)


def open_runs(workdir: str) -> list[Run]:
    """The run in a folder, or the runs in its sub-folders.

    Args:
        workdir: String, a trainer's `--workdir` or a folder of them.

    Returns:
        List of `Run`, in the order of `sweep.json` where there is
        one, else by name.

    Raises:
        ValueError: If there is no finished stage.
    """
    runs = []
    for name in _names(workdir):
        try:
            runs.append(open_run(os.path.join(workdir, name)))
        except ValueError:
            continue  # not finished yet, or failed: the report names it
    # A run itself, or an error that says what is missing.
    return runs or [open_run(workdir)]


def _names(workdir):
    """Folders of the runs of a sweep; none where it is a run itself."""
    if not os.path.isdir(workdir) or os.path.exists(
        os.path.join(workdir, "result.json")
    ):
        return []
    path = os.path.join(workdir, "sweep.json")
    if os.path.exists(path):
        with open(path) as file:
            listed = json.load(file)["runs"]
        # The folder's own name: the sweep may have been moved.
        return [os.path.basename(run["folder"]) for run in listed]
    return sorted(e.name for e in os.scandir(workdir) if e.is_dir())


def draw_all(
    workdir: str, out: str, run: str | None = None, shows_images: bool = True
) -> str:
    """Writes the report of a run or a sweep and prints its first paragraph.

    Args:
        workdir: String, a trainer's `--workdir` or a folder of them.
        out: String, folder of the report; made if missing.
        run: Optional string, the run of a sweep that the exhibits of a
            single run show. Defaults to `None`, the last one with gates.
        shows_images: Bool, whether pictures may show images of the data set,
            whose licence may not let them be published. Defaults to `True`.

    Returns:
        The path of the page.

    Raises:
        ValueError: If no stage is finished, there is no such run, or `out`
            cannot be written.
        ImportError: If matplotlib is missing.
    """
    plots.require_matplotlib()
    runs = open_runs(workdir)
    chosen = _choose(runs, run)
    report.make_folder(out)
    study = exhibits.study(chosen, shows_images)
    makers = {make: functools.partial(make, study) for make in OF_A_RUN}
    makers |= {make: functools.partial(make, runs) for make in OF_RUNS}
    shown, left_out = _make(makers)
    left_out += _unfinished(workdir, runs)
    opening = _opening(study, runs)
    print(" ".join(opening))
    title = f"SkipNet on {chosen.dataset}: {chosen.name}"
    return report.write(out, title, opening, shown, left_out)


def compare(workdirs: Sequence[str], out: str) -> str:
    """Writes a report that puts runs side by side.

    Args:
        workdirs: Sequence of strings, `--workdir` of trainers.
        out: String, folder of the report; made if missing.

    Returns:
        The path of the page.

    Raises:
        ValueError: If one has no finished stage, or `out` cannot be written.
        ImportError: If matplotlib is missing.
    """
    plots.require_matplotlib()
    runs = [run for workdir in workdirs for run in open_runs(workdir)]
    report.make_folder(out)
    opening = [f"{len(runs)} runs: {', '.join(run.name for run in runs)}."]
    shown = [table_exhibits.side_by_side(runs)]
    left_out = [e for workdir in workdirs for e in _unfinished(workdir, runs)]
    title = "SkipNet runs side by side"
    return report.write(out, title, opening, shown, left_out)


def _unfinished(workdir, runs):
    found = {run.name for run in runs}
    return [
        (f"Run {name}", "it has no finished stage")
        for name in _names(workdir)
        if name not in found
    ]


def _choose(runs, name):
    named = {run.name: run for run in runs}
    if name is not None:
        if name not in named:
            raise ValueError(
                f"`run` must be one of {sorted(named)}. Received: run={name}"
            )
        return named[name]
    gated = [run for run in runs if set(run.summaries) - {"base"}]
    return (gated or runs)[-1]


def _make(makers: dict[Callable, Callable]):
    """Makes exhibits; those that cannot be are named with the reason."""
    shown, left_out = [], []
    # `disable=None`: no bar unless standard error is a terminal.
    bar = tqdm.tqdm(makers.items(), disable=None, ascii=True, leave=False)
    for about, make in bar:
        bar.set_description(about.__name__)
        try:
            shown.append(make())
        except exhibits.LeftOut as reason:
            first_line = about.__doc__.splitlines()[0].rstrip(".")
            left_out.append((first_line, str(reason)))
    return shown, left_out


def _opening(study, runs):
    """What a reader should know first, in sentences."""
    run, summaries = study.run, study.summaries()
    stage, end = list(summaries.items())[-1]
    network = f"SkipNet-{run.depth}" if run.depth else "A SkipNet"
    if study.networks:
        network += f" with {study.networks[study.last].gate} gates"
    sentences = [
        f"{network}, trained through {', '.join(summaries)}.",
        f"After {stage} it is right on {percent(end['accuracy'], 2)} of "
        f"{end['images']} images ({study.about}) and spends "
        f"{percent(end['macs_fraction'])} of the dense network's "
        "multiply-adds, gates included.",
    ]
    if "base" in summaries and stage != "base":
        gap = 100 * (end["accuracy"] - summaries["base"]["accuracy"])
        near = "within" if gap >= -100 * exhibits.MATCHED else "not within"
        sentences.append(
            f"That is {gap:+.2f} points from the dense network, {near} the "
            f"0.5 points that the paper allows; one image is "
            f"{100 / end['images']:.2f} points."
        )
    if study.networks:
        sentences.append(
            "Its decisions are random and do not look at the image."
            if study.random(study.last)
            else _dynamics(study.routes[study.last])
        )
    if len(runs) > 1:
        sentences.append(f"This is run {run.name} of {len(runs)} in the sweep.")
    sentences.append(_seeds(runs))
    return sentences


def _seeds(runs):
    """How far chance between trainings is known."""
    most = max(row["runs"] for row in records.over_seeds(runs))
    if most > 1:
        return f"Settings have up to {most} seeds."
    return (
        "Each setting has one seed: how much chance in training moves these "
        "numbers is not known."
    )


def _dynamics(routes):
    share = findings.input_dependent(routes.gates)
    if routes.gates.all():
        return "Every image runs every block: nothing is skipped."
    if share == 0:
        return (
            "Every image takes the same path: the policy is static, a "
            "smaller network rather than dynamic inference."
        )
    _, counts = np.unique(routes.gates, axis=0, return_counts=True)
    return (
        f"{percent(share, 0)} of the gates depend on the image; the images "
        f"take {routes.distinct_paths} distinct paths, of "
        f"{findings.policy_entropy(routes.gates):.2f} bits of entropy; "
        f"{percent(counts.max() / counts.sum(), 0)} take the commonest."
    )
