"""Pictures of a finished run, after the figures of the paper.

    python -m skipnet_tf.analysis --workdir=runs/digits --out=pictures

Accuracy against compute (Fig. 4 to 6), skip rate of each block (Fig. 10a) and
the easiest and hardest images (Fig. 7), on the test split of the run, or on
its validation split where it has none; and the course of the training.
"""

import argparse
import csv
import importlib.util
import os
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from skipnet_tf import data
from skipnet_tf import evaluation
from skipnet_tf import flops
from skipnet_tf.preprocessing import Preprocessing
from skipnet_tf.skipnet import SkipNet

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_COLUMNS = 8  # images in a row of the easiest and hardest


def pixels(images: np.ndarray, recipe: Preprocessing) -> np.ndarray:
    """Turns normalised images `(batch, height, width, 3)` back into uint8."""
    values = np.asarray(images) * np.array(recipe.std) + np.array(recipe.mean)
    return np.round(255 * values).clip(0, 255).astype(np.uint8)


def threshold_curve(
    model: SkipNet, dataset: tf.data.Dataset, dense_macs: int
) -> list[dict]:
    """Trades accuracy for compute by moving the threshold of inference.

    Args:
        model: A `SkipNet`; its own threshold is put back afterwards.
        dataset: Batches of normalised images and labels.
        dense_macs: Int, multiply-adds per image without gates.

    Returns:
        List of `evaluation.summary`, one for each of `THRESHOLDS`.
    """
    before = model.threshold
    curve = []
    try:
        for threshold in THRESHOLDS:
            model.threshold = threshold
            routes = evaluation.collect(model, dataset)
            curve.append(evaluation.summary(routes, dense_macs))
    finally:
        model.threshold = before
    return curve


def draw_accuracy_against_compute(
    path: str, summaries: dict[str, dict], curve: Sequence[dict], title: str
) -> None:
    """Draws each stage as a point, and the thresholds of the last as a line.

    Args:
        path: String, PNG file to write.
        summaries: Dict from stage to `evaluation.summary`.
        curve: What `threshold_curve` returned.
        title: String.
    """
    figure = _figure(7, 5.5, title)
    axes = figure.add_subplot()
    largest = max(point["macs"] for point in (*summaries.values(), *curve))
    scale, unit = (1e9, "billions") if largest >= 1e9 else (1e6, "millions")

    def place(point):
        return point["macs"] / scale, 100 * point["accuracy"]

    places = [place(point) for point in curve]
    label = f"{list(summaries)[-1]}, thresholds {min(THRESHOLDS)} to "
    axes.plot(
        *zip(*places), "o-", color="0.6", label=f"{label}{max(THRESHOLDS)}"
    )
    for index in (0, -1) if places[0] != places[-1] else ():
        axes.annotate(
            f"{THRESHOLDS[index]}",
            places[index],
            textcoords="offset points",
            xytext=(0, -16),
            ha="center",
        )
    for marker, (stage, point) in zip("s^Dv", summaries.items()):
        axes.plot(*place(point), marker, markersize=10, label=stage)
    axes.set_xlabel(f"{unit} of multiply-adds per image, gates included")
    axes.set_ylabel("accuracy in %")
    axes.set_xlim(0, 1.08 * largest / scale)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=150)


def draw_training_curves(
    path: str, logs: dict[str, Sequence[dict]], title: str
) -> None:
    """Draws validation accuracy and executed blocks of stage after stage.

    Args:
        path: String, PNG file to write.
        logs: Dict from stage to the rows of its `log.csv`.
        title: String.
    """
    figure = _figure(7, 5.5, title)
    accuracy, blocks = figure.subplots(2, 1, sharex=True)
    first = 0
    for stage, rows in logs.items():
        epochs = first + np.arange(1, len(rows) + 1)
        for axes, name in (
            (accuracy, "val_accuracy"),
            (blocks, "val_executed_blocks"),
        ):
            values = [100 * float(row.get(name, 1.0)) for row in rows]
            axes.plot(epochs, values, "o-", markersize=3, label=stage)
        first += len(rows)
    accuracy.set_ylabel("accuracy in %")
    blocks.set_ylabel("blocks executed in %")
    blocks.set_xlabel("epoch, the stages one after the other")
    for axes in (accuracy, blocks):
        axes.grid(alpha=0.3)
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(logs))
    figure.savefig(path, dpi=150)


def draw_skip_rate_per_block(
    path: str,
    open_rates: dict[str, np.ndarray],
    groups: Sequence[int],
    title: str,
) -> None:
    """Draws how often each block is skipped, stage beside stage (Fig. 10a).

    Args:
        path: String, PNG file to write.
        open_rates: Dict from stage to array `(gates,)`, the share of images
            that execute each gated block.
        groups: Sequence of ints, blocks in each group.
        title: String.
    """
    total = sum(groups)
    figure = _figure(max(7, total / 5), 4.5, title)
    axes = figure.add_subplot()
    width = 0.8 / len(open_rates)
    for index, (stage, rates) in enumerate(open_rates.items()):
        offset = (index - (len(open_rates) - 1) / 2) * width
        places = np.arange(1, total) + offset
        axes.bar(places, 100 * (1 - rates), width, label=stage)
    first = 0
    for number, count in enumerate(groups, start=1):
        axes.axvline(first - 0.5, color="0.3", linestyle="--")
        middle = first + (count - 1) / 2
        axes.text(middle, 102, f"group {number}", ha="center")
        first += count
    axes.set_xlim(-0.5, total - 0.5)
    axes.set_ylim(0, 110)
    axes.set_xticks(range(0, total, max(1, total // 18)))
    axes.set_xlabel("block in order; block 0 has no gate and always runs")
    axes.set_ylabel("images that skip the block, in %")
    figure.legend(loc="outside lower center", ncols=len(open_rates))
    figure.savefig(path, dpi=150)


def rank(routes: evaluation.Routes) -> np.ndarray:
    """Indices of images, most blocks skipped first; ties: most confident."""
    return np.lexsort((-routes.confidence, routes.gates.sum(axis=1)))


def draw_easiest_and_hardest(
    path: str, rows: dict[str, tuple[np.ndarray, list[str]]], title: str
) -> None:
    """Draws rows of images with what is known about each (Fig. 7).

    Args:
        path: String, PNG file to write.
        rows: Dict from the name of a row to its uint8 images
            `(columns, height, width, 3)` and their labels.
        title: String.
    """
    columns = max(len(labels) for _, labels in rows.values())
    figure = _figure(1.5 * columns + 0.5, 2.3 * len(rows), title)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, (images, labels)) in zip(grid, rows.items()):
        line[0].set_ylabel(name, fontsize=12)
        for axes, image, label in zip(line, images, labels):
            axes.imshow(image, interpolation="nearest")
            axes.set_title(label, fontsize=10)
        for axes in line:
            axes.set(xticks=[], yticks=[], frame_on=False)
    figure.savefig(path, dpi=150)


def draw_all(workdir: str, out: str) -> None:
    """Writes the pictures of a run and prints its number of paths.

    Args:
        workdir: String, the trainer's `--workdir`.
        out: String, folder of the pictures; made if missing.

    Raises:
        ValueError: If the run has no finished SkipNet stage, or `out` cannot
            be written.
        ImportError: If matplotlib is missing.
    """
    _need_matplotlib()
    run = evaluation.open_run(workdir)
    networks = {stage: run.model(stage) for stage in run.summaries}
    gated = {s: net for s, net in networks.items() if isinstance(net, SkipNet)}
    if not gated:
        raise ValueError(
            "`workdir` must hold a finished stage with gates, such as sp. "
            f"Received: workdir={workdir} with {list(networks)}"
        )
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise ValueError(
            "`out` must be a folder that can be written. "
            f"Received: out={out} ({error.strerror})"
        ) from error
    routes = {
        stage: evaluation.collect(network, run.images())
        for stage, network in gated.items()
    }
    last = list(gated)[-1]
    info, about = run.describe(), f"{run.dataset}, {run.split}"
    dense = flops.count(gated[last], tuple(info.image_shape)).dense
    draw_accuracy_against_compute(
        os.path.join(out, "accuracy_against_compute.png"),
        run.summaries,
        threshold_curve(gated[last], run.images(), dense),
        f"Accuracy against compute ({about})",
    )
    draw_training_curves(
        os.path.join(out, "training_curves.png"),
        {stage: _log(workdir, stage) for stage in run.summaries},
        f"Validation while training ({run.dataset})",
    )
    draw_skip_rate_per_block(
        os.path.join(out, "skip_rate_per_block.png"),
        {stage: found.open_rates for stage, found in routes.items()},
        gated[last].get_config()["blocks"],
        f"Skip rate of each block ({about})",
    )
    draw_easiest_and_hardest(
        os.path.join(out, "easiest_and_hardest.png"),
        _extremes(run, routes[last], info.class_names),
        f"Easiest and hardest images for {last} ({about})",
    )
    blocks = routes[last].gates.shape[1] + 1
    print(
        f"{last}: {len(routes[last].labels)} images take "
        f"{routes[last].distinct_paths} distinct paths through {blocks} blocks."
    )


def _log(workdir, stage):
    with open(os.path.join(workdir, stage, "log.csv"), newline="") as file:
        return list(csv.DictReader(file))


def _extremes(run, routes, class_names):
    order = rank(routes)
    blocks = 1 + routes.gates.sum(axis=1).astype(int)
    recipe = data.preprocessing_of(run.dataset)
    rows = {}
    for name, chosen in (
        ("skip most", order[:_COLUMNS]),
        ("skip fewest", order[: -_COLUMNS - 1 : -1]),
    ):
        labels = [
            f"{class_names[routes.labels[i]]}\n"
            f"{blocks[i]} of {routes.gates.shape[1] + 1} blocks"
            for i in chosen
        ]
        rows[name] = pixels(_pick(run.images(), chosen), recipe), labels
    return rows


def _pick(dataset, indices):
    # One pass that keeps nothing else: photographs would fill the memory.
    found, first = {}, 0
    for images, _ in dataset:
        for index in set(range(first, first + len(images))) & set(indices):
            found[index] = images[index - first].numpy()
        first += len(images)
    return np.stack([found[index] for index in indices])


def _need_matplotlib():
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            "pictures need matplotlib: pip install skipnet_tf[demo]"
        )


def _figure(width, height, title):
    _need_matplotlib()
    # Without pyplot there is no window system and nothing to close.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    return figure


def main() -> None:
    """The command line; mistakes end in one line."""
    parser = argparse.ArgumentParser(description="Draws pictures of a run.")
    parser.add_argument("--workdir", required=True, help="The trainer's.")
    parser.add_argument("--out", required=True, help="Folder of the pictures.")
    arguments = parser.parse_args()
    try:
        draw_all(arguments.workdir, arguments.out)
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
