"""What the report draws with: series, points, bars and histograms.

Numbers in, a matplotlib figure out, nothing else.  Colours are those of Okabe
and Ito, told apart by colour-blind readers too; markers and hatches repeat
what colours say.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

Figure = Any  # matplotlib.figure.Figure; matplotlib is an extra

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "os^DvP"


def require_matplotlib() -> None:
    """Fails early where figures cannot be drawn.

    Raises:
        ImportError: If matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            "pictures need matplotlib: pip install skipnet_tf[demo]"
        )


def style(index: int) -> dict[str, str]:
    """Colour and marker of the series with a number, 36 pairs."""
    again = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + again) % len(MARKERS)],
    }


def blank(width: float, height: float, title: str) -> Figure:
    """An empty figure; sizes in inches."""
    # Without pyplot there is no window system and nothing to close.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    return figure


def axes(width: float, height: float, title: str) -> tuple[Figure, Any]:
    """A figure with one pair of axes."""
    figure = blank(width, height, title)
    panel = figure.add_subplot()
    plain(panel)
    return figure, panel


def plain(panel: Any) -> None:
    """A faint grid behind the data, no frame."""
    panel.grid(alpha=0.3)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, panel: Any) -> None:
    """Names the series of `panel` below the figure, where nothing is hidden."""
    handles, labels = panel.get_legend_handles_labels()
    columns = min(len(labels), 4 if max(map(len, labels)) < 20 else 2)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def lines(
    series: dict[str, Sequence[tuple[float, float, float]]],
    labels: tuple[str, str],
    title: str,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """Lines, with error bars where there are deviations other than 0.

    Args:
        series: Dict from name to `(x, y, deviation)`.
        labels: Pair of strings, of the axes.
        title: String.
        within: Pair of floats, the values that are possible: error bars end
            there. Defaults to all.

    Returns:
        A matplotlib figure.
    """
    figure, panel = axes(7, 5, title)
    for index, (name, points) in enumerate(series.items()):
        x, y, deviation = np.array(sorted(points)).T
        ends = np.minimum(deviation, [y - within[0], within[1] - y])
        bars = ends if deviation.any() else None
        panel.errorbar(x, y, bars, label=name, capsize=3, **style(index))
    panel.set(xlabel=labels[0], ylabel=labels[1])
    legend(figure, panel)
    return figure


def scatter(
    series: dict[str, Sequence[tuple[float, float, str]]],
    labels: tuple[str, str],
    title: str,
    line: tuple[float, float] | None = None,
) -> Figure:
    """Named points.

    Args:
        series: Dict from name to `(x, y, text)`; an empty text is not drawn.
        labels: Pair of strings, of the axes.
        title: String.
        line: Optional slope and intercept. Defaults to `None`.

    Returns:
        A matplotlib figure.
    """
    figure, panel = axes(7, 5, title)
    for index, (name, points) in enumerate(series.items()):
        x, y, texts = zip(*points)
        panel.plot(x, y, linestyle="", label=name, alpha=0.8, **style(index))
        for place, text in _joined(x, y, texts).items():
            # Slanted: names of neighbours in a row stay apart.
            panel.annotate(
                text,
                place,
                textcoords="offset points",
                xytext=(3, 5),
                rotation=40,
                rotation_mode="anchor",
                fontsize="small",
            )
    if line:
        ends = np.array(panel.get_xlim())
        panel.plot(ends, line[0] * ends + line[1], color="0.3", linestyle="--")
    panel.set(xlabel=labels[0], ylabel=labels[1])
    panel.margins(x=0.1, y=0.25)
    if all(y >= 0 for points in series.values() for _, y, _ in points):
        # A little below 0, or points there would be cut in half.
        bottom, top = panel.get_ylim()
        panel.set_ylim(max(bottom, -0.03 * top), top)
    if len(series) > 1:
        legend(figure, panel)
    return figure


def _joined(x, y, texts):
    """Texts of points at the same place, one after the other."""
    found = {}
    for place, text in zip(zip(x, y), texts):
        found[place] = ", ".join(filter(None, [found.get(place), text]))
    return found


def bars(
    series: dict[str, Sequence[float]],
    names: Sequence[str],
    label: str,
    title: str,
) -> Figure:
    """Bars in groups with their values; NaN leaves a bar out.

    Args:
        series: Dict from the name of a series to one value for each group.
        names: Sequence of strings, the groups.
        label: String, of the values.
        title: String.

    Returns:
        A matplotlib figure.
    """
    figure, panel = axes(max(7, 1.6 * len(names)), 4.5, title)
    width = 0.8 / len(series)
    for index, (name, values) in enumerate(series.items()):
        places = np.arange(len(names)) + (index - (len(series) - 1) / 2) * width
        drawn = panel.bar(
            places,
            values,
            0.95 * width,
            label=name,
            color=style(index)["color"],
            hatch=("", "//", "..", "xx")[index % 4],
            edgecolor="white",
        )
        texts = ["" if np.isnan(value) else f"{value:z.1f}" for value in values]
        panel.bar_label(drawn, texts)
    panel.axhline(0, color="0.3", linewidth=1)
    panel.set_xticks(range(len(names)), names)
    panel.set_ylabel(label)
    legend(figure, panel)
    return figure


def distributions(
    values: dict[str, np.ndarray], label: str, title: str, at: float = 0.0
) -> Figure:
    """Histograms of whole numbers, one below the other.

    Args:
        values: Dict from name to int array `(images,)`.
        label: String, what the numbers are.
        title: String.
        at: Float, where a dashed line stands. Defaults to `0.0`.

    Returns:
        A matplotlib figure.
    """
    figure = blank(7, 1.4 + 0.9 * len(values), title)
    panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    every = np.concatenate(list(values.values()))
    for panel, (name, numbers) in zip(panels, values.items()):
        found, counts = np.unique(numbers, return_counts=True)
        panel.bar(found, 100 * counts / len(numbers), color=COLOURS[0])
        panel.axvline(at, color="0.3", linestyle="--", linewidth=1)
        panel.set_ylabel(name, rotation=0, ha="right", va="center")
        panel.set_ylim(0, 100)
        panel.set_yticks([0, 50, 100])
        plain(panel)
    low, high = every.min() - 1, every.max() + 1
    panels[-1].set_xlim(low, high)
    panels[-1].locator_params(axis="x", integer=True)
    panels[-1].set_xlabel(label)
    figure.supylabel("images in %")
    return figure
