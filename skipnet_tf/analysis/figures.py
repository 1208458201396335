"""The paper's figures: numbers in, a matplotlib figure out."""

from collections.abc import Sequence

import numpy as np

from skipnet_tf.analysis import plots

_MACS = "multiply-adds per image, gates included"


def accuracy_against_compute(
    series: dict[str, Sequence[tuple[float, float]]],
    others: dict[str, Sequence[tuple[float, float]]],
    title: str,
    notes: Sequence[tuple[float, float, str]] = (),
    from_zero: bool = True,
    below: Sequence[tuple[float, str]] = (),
) -> plots.Figure:
    """Lines and points of accuracy over cost.

    Args:
        series: Dict from name to `(macs, accuracy)`, accuracies in [0, 1].
        others: The same, drawn behind in light lines.
        title: String.
        notes: Sequence of `(macs, accuracy, text)`. Defaults to `()`.
        from_zero: Bool, whether the axis of the cost begins at 0. Defaults
            to `True`.
        below: Sequence of `(macs, text)`, what lies below the picture.
            Defaults to `()`.

    Returns:
        A matplotlib figure.
    """
    figure, axes = plots.axes(7, 5.5, title)
    every = [p for ps in (*series.values(), *others.values()) for p in ps]
    largest = max(macs for macs, _ in every)
    scale, unit = (1e9, "billions") if largest >= 1e9 else (1e6, "millions")

    def line(points):
        ordered = np.array(sorted(points))
        return ordered[:, 0] / scale, 100 * ordered[:, 1]

    for index, (name, points) in enumerate(others.items()):
        mark = plots.MARKERS[index % len(plots.MARKERS)]
        look = {"color": "0.55", "linestyle": ":", "markersize": 5}
        axes.plot(*line(points), label=name, marker=mark, zorder=1, **look)
    for index, (name, points) in enumerate(series.items()):
        axes.plot(*line(points), label=name, markersize=8, **plots.style(index))
    for macs, accuracy, text in _apart(notes, every):
        axes.annotate(
            text,
            (macs / scale, 100 * accuracy),
            textcoords="offset points",
            xytext=(0, -18),
            ha="center",
            # Readable across a line.
            bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 0.5},
        )
    for line_number, (macs, text) in enumerate(sorted(below)):
        axes.annotate(
            f"↓ {text}",
            (macs / scale, 0.02 + 0.05 * line_number),
            xycoords=("data", "axes fraction"),
            color="0.3",
            fontsize="small",
            ha="center",
        )
    axes.set_xlabel(f"{unit} of {_MACS}")
    axes.set_ylabel("accuracy in %")
    # Room for what is noted below the points.
    axes.margins(x=0.08, y=0.15)
    if below:
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom - 0.08 * len(below) * (top - bottom), top)
    if from_zero:
        axes.set_xlim(0, 1.08 * largest / scale)
    plots.legend(figure, axes)
    return figure


def _apart(notes, points):
    """Notes whose points nearly coincide as one, or they would overlap."""
    macs, accuracies = zip(*points)
    height = max(accuracies) - min(accuracies) or 1
    found = []
    for cost, accuracy, text in sorted(notes):
        for near_cost, near_accuracy, texts in found:
            if (
                abs(cost - near_cost) < 0.08 * max(macs)
                and abs(accuracy - near_accuracy) < 0.06 * height
            ):
                texts.append(text)
                break
        else:
            found.append((cost, accuracy, [text]))
    return [
        (cost, accuracy, ", ".join(dict.fromkeys(texts)))
        for cost, accuracy, texts in found
    ]


def training_curves(
    logs: dict[str, Sequence[dict]], title: str
) -> plots.Figure:
    """Validation accuracy and executed blocks of stage after stage.

    Args:
        logs: Dict from stage to rows with `epoch`, counted over all stages,
            and `accuracy` and `executed_blocks`, in [0, 1].
        title: String.

    Returns:
        A matplotlib figure.
    """
    figure = plots.blank(7, 5.5, title)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, name in zip(panels, ("accuracy", "executed_blocks")):
        for index, (stage, rows) in enumerate(logs.items()):
            epochs = [row["epoch"] for row in rows]
            values = [100 * row[name] for row in rows]
            axes.plot(
                epochs, values, label=stage, markersize=3, **plots.style(index)
            )
        plots.plain(axes)
    panels[0].set_ylabel("accuracy in %")
    panels[1].set_ylabel("blocks executed in %")
    panels[1].set_xlabel("epoch, the stages one after the other")
    plots.legend(figure, panels[0])
    return figure


def skip_rates(
    open_rates: dict[str, np.ndarray], groups: Sequence[int], title: str
) -> plots.Figure:
    """How often each block is skipped, stage beside stage (Fig. 10a).

    Args:
        open_rates: Dict from stage to array `(gates,)`, the share of images
            that execute each gated block.
        groups: Sequence of ints, blocks in each group.
        title: String.

    Returns:
        A matplotlib figure.
    """
    total = sum(groups)
    figure, axes = plots.axes(max(7, total / 5), 4.5, title)
    width = 0.8 / len(open_rates)
    for index, (stage, rates) in enumerate(open_rates.items()):
        offset = (index - (len(open_rates) - 1) / 2) * width
        places = np.arange(1, total) + offset
        colour = plots.style(index)["color"]
        axes.bar(places, 100 * (1 - rates), width, color=colour, label=stage)
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
    plots.legend(figure, axes)
    return figure


def photographs(
    rows: dict[str, tuple[np.ndarray, Sequence[str]]], title: str
) -> plots.Figure:
    """Rows of images with what is known about each (Fig. 7).

    Args:
        rows: Dict from the name of a row to its uint8 images
            `(columns, height, width, 3)` and their labels.
        title: String.

    Returns:
        A matplotlib figure.
    """
    # At least as many as give the title room.
    columns = max(4, *(len(labels) for _, labels in rows.values()))
    figure = plots.blank(1.15 * columns + 0.5, 1.9 * len(rows) + 0.5, title)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, (images, labels)) in zip(grid, rows.items()):
        line[0].set_ylabel(name, fontsize=11)
        for axes, image, label in zip(line, images, labels):
            axes.imshow(image, interpolation="nearest")
            axes.set_title(label, fontsize=9)
        for axes in line:
            axes.set(xticks=[], yticks=[], frame_on=False)
    return figure


def differences(rows: Sequence[dict], title: str) -> plots.Figure:
    """Differences of means with their intervals, one below the other.

    Args:
        rows: Sequence of dicts with `measure`, and `difference`, `low` and
            `high` in units of `deviation`.
        title: String.

    Returns:
        A matplotlib figure.
    """
    figure, axes = plots.axes(7, 1.6 + 0.6 * len(rows), title)
    for place, row in enumerate(rows):
        low, middle, high = (
            row[name] / (row["deviation"] or 1)
            for name in ("low", "difference", "high")
        )
        axes.plot(
            [low, high], [place, place], color=plots.COLOURS[0], linewidth=2
        )
        axes.plot(middle, place, "o", color=plots.COLOURS[0], markersize=8)
    axes.axvline(0, color="0.3", linestyle="--")
    axes.set_yticks(range(len(rows)), [row["measure"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("easy minus hard images, in standard deviations")
    return figure
