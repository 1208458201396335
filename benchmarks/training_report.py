"""Table and picture of how fast networks train."""

import os
from collections.abc import Sequence

import common
import report

_LABELS = {
    "dense": "dense",
    "sp": "SP",
    "masked": "HRL masked",
    "self_critical": "HRL masked, self-critical",
    "conditional": "HRL conditional",
    "keras": "plain Keras, dense",
    "pytorch": "PyTorch, dense",
}
# Whose decisions are imposed, so that a share of the images runs a block.
_SAMPLING = ("masked", "self_critical", "conditional")
_PRECISIONS = ("float32", "bfloat16")
_TEXT = """\
Batches of {batch} on {threads}; images per second, from medians. Speeds are
relative to the dense network of the same precision, the last one to the same
contender in float32. Memory is that of all tensors alive at a time, at most, by
the account of TensorFlow's allocator.
"""


class Speeds:
    """Rows of one network, by contender and precision.

    Args:
        rows: Sequence of dicts, see `training.py`.
    """

    def __init__(self, rows: Sequence[dict]):
        self._rows = {
            (row["contender"], row["percent"], row["precision"]): row
            for row in rows
        }
        # As they were measured, each once.
        self.contenders = list(dict.fromkeys(key[:2] for key in self._rows))
        found = {precision for _, _, precision in self._rows}
        self.precisions = [p for p in _PRECISIONS if p in found]

    def images(self, kind: str, percent: int, precision: str) -> float | None:
        """Images per second, or `None` if that was not measured."""
        row = self._rows.get((kind, percent, precision))
        return row and 1e3 * row["batch"] / row["median"]

    def memory(self, kind: str, percent: int, precision: str) -> float | None:
        """MiB of the tensors of a step, or `None` if that was not measured."""
        row = self._rows.get((kind, percent, precision))
        return row and row["memory"]


def label(kind: str, percent: int) -> str:
    """A contender in words."""
    share = f", {percent} %" if kind in _SAMPLING else ""
    return _LABELS[kind] + share


def markdown(results: Sequence[dict]) -> str:
    """All tables, as the text of a file.

    Args:
        results: Sequence of dicts of `network`, `machine` and `rows`.

    Returns:
        String.
    """
    parts = ["# Speed of training"]
    for result in results:
        row = result["rows"][0]
        parts.append(f"## {result['network']}")
        parts.append(report.machine_text(result["machine"]))
        threads = report.threads_text(row["threads"])
        parts.append(_TEXT.format(batch=row["batch"], threads=threads))
        parts.append(table(Speeds(result["rows"])))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def table(speeds: Speeds) -> str:
    """Images per second, ratios and memory, a row for each contender."""
    header = ["contender"]
    for precision in speeds.precisions:
        header += [f"{precision}, images/s", "to dense", "memory, MiB"]
    both = len(speeds.precisions) == 2
    if both:
        header.append("bfloat16 to float32")
    lines = []
    for contender in speeds.contenders:
        line, images = [label(*contender)], []
        for precision in speeds.precisions:
            images.append(speeds.images(*contender, precision))
            dense = speeds.images("dense", 100, precision)
            line.append(_text(images[-1], ".1f"))
            line.append(_text(_ratio(images[-1], dense), ".2f"))
            line.append(_text(speeds.memory(*contender, precision), ".0f"))
        if both:
            line.append(_text(_ratio(images[1], images[0]), ".2f"))
        lines.append(line)
    return report.table(header, lines)


def _ratio(value, reference):
    return None if None in (value, reference) else value / reference


def _text(value, form):
    return "" if value is None else report.decimals(value, form)


def draw(path: str, results: Sequence[dict]) -> None:
    """Draws images per second as bars, a panel for each network.

    Args:
        path: String, PNG file to write.
        results: Sequence of dicts of `network`, `machine` and `rows`.

    Raises:
        ImportError: If matplotlib is missing.
    """
    from matplotlib.figure import Figure

    every = [Speeds(result["rows"]) for result in results]
    bars = max(len(speeds.contenders) for speeds in every)
    size = max(7, 2 + 4.5 * len(results)), 1.8 + 0.5 * bars
    figure = Figure(size, layout="constrained")
    threads = report.threads_text(results[0]["rows"][0]["threads"])
    figure.suptitle(f"Training on {threads}", fontsize=14)
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, result, speeds in zip(panels, results, every):
        _draw_network(axes, speeds)
        batch = result["rows"][0]["batch"]
        axes.set_title(f"{result['network']}, batch {batch}")
    report.save(figure, panels, path)


def _draw_network(axes, speeds):
    height = 0.8 / len(speeds.precisions)
    for index, precision in enumerate(speeds.precisions):
        found = [
            speeds.images(*contender, precision) or 0
            for contender in speeds.contenders
        ]
        # The same colour for the same precision in all panels.
        color = f"C{_PRECISIONS.index(precision)}"
        bars = axes.barh(
            [place + index * height for place in range(len(found))],
            found,
            height,
            color=color,
            label=precision,
        )
        texts = [
            f"{value:.{0 if value >= 10 else 1}f}" if value else ""
            for value in found
        ]
        axes.bar_label(bars, texts, padding=2, fontsize=8)
        dense = speeds.images("dense", 100, precision)
        if dense:
            axes.axvline(dense, color=color, linestyle=":", linewidth=1)
    middle = (len(speeds.precisions) - 1) * height / 2
    axes.set_yticks(
        [place + middle for place in range(len(speeds.contenders))],
        [label(*contender) for contender in speeds.contenders],
    )
    axes.invert_yaxis()
    axes.set_xlabel("images per second; dotted: dense")
    axes.margins(x=0.12)
    axes.grid(axis="x", alpha=0.3)


def write(folder: str) -> list[str]:
    """Writes table and picture of all results in a folder.

    Args:
        folder: String, with files `training_<network>.json`.

    Returns:
        List of strings, the files written.

    Raises:
        ValueError: If there are no results.
        ImportError: If matplotlib is missing; the table is written all the
            same.
    """
    results = common.load(folder, "training")
    written = [os.path.join(folder, f"training.{e}") for e in ("md", "png")]
    with open(written[0], "w") as file:
        file.write(markdown(results))
    draw(written[1], results)
    return written
