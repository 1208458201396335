"""Tables and pictures of what was measured."""

import os
from collections.abc import Iterable
from collections.abc import Sequence

import common
import numpy as np

_PEERS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_SKIPPING = """\
Time is relative to the dense SavedModel, multiply-adds are relative to the
dense network and include the gates; medians. The straight line is the same
network without any gate and without some of its blocks; its time is
interpolated to the row's multiply-adds from straight lines with
{shares} % of their gated blocks.
"""
_PEERS_TEXT = """\
Dense networks: our SavedModel in milliseconds, others relative to that of the
same precision.
"""
_PRECISION_TEXT = "Our bfloat16 relative to our float32, dense and gated."


class Times:
    """Medians of one network, number of threads and precision.

    Args:
        rows: Rows of `measuring.measure`.
        threads: Int.
        precision: `"float32"` or `"bfloat16"`.
    """

    def __init__(self, rows: Iterable[dict], threads: int, precision: str):
        self._rows = {
            (row["batch"], row["kind"], row["percent"]): row
            for row in rows
            if (row["threads"], row["precision"]) == (threads, precision)
        }
        self.batches = sorted({batch for batch, _, _ in self._rows})
        self.shares = sorted(
            {percent for _, kind, percent in self._rows if kind == "gated"}
        )

    def median(self, batch: int, kind: str, percent: int = 100) -> float:
        """Milliseconds of a call."""
        return self._rows[batch, kind, percent]["median"]

    def line(self, batch: int, kind: str) -> tuple[list, list]:
        """`(multiply-adds, times)` relative to dense, rising with the share.

        Straight lines end in the dense network.
        """
        dense = self.median(batch, "dense")
        kinds = (kind, "dense") if kind == "straight" else (kind,)
        rows = [
            (row["macs"], row["median"] / dense)
            for (number, other, _), row in sorted(
                self._rows.items(), key=lambda item: item[0][2]
            )
            if number == batch and other in kinds
        ]
        return [macs for macs, _ in rows], [time for _, time in rows]


def combinations(rows: Sequence[dict]) -> list[tuple[int, str]]:
    """Numbers of threads and precisions that were measured."""
    found = {(row["threads"], row["precision"]) for row in rows}
    return sorted(found, key=lambda pair: (pair[0], pair[1] != "float32"))


def markdown(results: Sequence[dict]) -> str:
    """All tables, as the text of a file.

    Args:
        results: Sequence of dicts of `network`, `machine` and `rows`.

    Returns:
        String.
    """
    parts = ["# Time and multiply-adds"]
    for result in results:
        rows = result["rows"]
        parts.append(f"## {result['network']}")
        parts.append(machine_text(result["machine"]))
        shares = sorted({r["percent"] for r in rows if r["kind"] == "straight"})
        parts.append(_SKIPPING.format(shares=" and ".join(map(str, shares))))
        for threads, precision in combinations(rows):
            parts.append(f"### {precision}, {threads_text(threads)}")
            parts.append(skipping_table(Times(rows, threads, precision)))
        for threads in sorted({row["threads"] for row in rows}):
            parts.append(
                f"### Runtimes and precisions, {threads_text(threads)}"
            )
            parts += [_PEERS_TEXT, peers_table(rows, threads)]
            parts += [_PRECISION_TEXT, precision_table(rows, threads)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def skipping_table(times: Times) -> str:
    """Time beside its ideals, a row for each batch and share of gates open."""
    lines = []
    for batch in times.batches:
        straight = times.line(batch, "straight")
        for percent, macs, time in zip(
            times.shares, *times.line(batch, "gated")
        ):
            ideal = np.interp(macs, *straight)
            lines.append(
                [
                    str(batch),
                    f"{percent} %",
                    decimals(time),
                    decimals(macs),
                    decimals(time - macs, "+.2f"),
                    decimals(ideal),
                    decimals(time - ideal, "+.2f"),
                ]
            )
    header = ["batch", "gates open", "time", "multiply-adds", "difference"]
    return table([*header, "straight line", "difference"], lines)


def peers_table(rows: Sequence[dict], threads: int) -> str:
    """The dense network: our milliseconds, and other runtimes' ratios."""
    by_precision = {
        precision: Times(rows, threads, precision)
        for number, precision in combinations(rows)
        if number == threads
    }
    kinds = {(row["precision"], row["kind"]) for row in rows}
    header, lines = ["batch"], {}
    for precision, times in by_precision.items():
        peers = [p for p in _PEERS if (precision, p) in kinds]
        header.append(f"{precision}, ms")
        header += [f"{_PEERS[peer]} {precision}" for peer in peers]
        for batch in times.batches:
            dense = times.median(batch, "dense")
            line = lines.setdefault(batch, [str(batch)])
            line.append(f"{dense:.1f}")
            line += [decimals(times.median(batch, p) / dense) for p in peers]
    return table(header, lines.values())


def precision_table(rows: Sequence[dict], threads: int) -> str:
    """Time in bfloat16 by time in float32; empty without both."""
    full = Times(rows, threads, "float32")
    half = Times(rows, threads, "bfloat16")
    if not (full.batches and half.batches):
        return ""
    contenders = [("dense", 100), *(("gated", p) for p in half.shares)]
    lines = [
        [str(batch)]
        + [
            decimals(half.median(batch, *c) / full.median(batch, *c))
            for c in contenders
        ]
        for batch in half.batches
    ]
    shares = [f"{percent} % open" for percent in half.shares]
    return table(["batch", "dense", *shares], lines)


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, its columns flush right."""
    rows = [header, ["---:"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def decimals(value: float, form: str = ".2f") -> str:
    """A ratio in a table."""
    return format(value, form)


def threads_text(number: int) -> str:
    """So many threads, in words."""
    return f"{number} thread{'s' if number > 1 else ''}"


def machine_text(machine: dict[str, str]) -> str:
    """A line about what `common.machine` found."""
    return ", ".join(machine.values()) + "."


def draw(path: str, results: Sequence[dict], threads: int, precision: str):
    """Draws time against multiply-adds, a panel for each network.

    Args:
        path: String, PNG file to write.
        results: Sequence of dicts of `network`, `machine` and `rows`.
        threads: Int.
        precision: `"float32"` or `"bfloat16"`.

    Raises:
        ImportError: If matplotlib is missing.
    """
    from matplotlib.figure import Figure

    columns = len(results)
    size = max(7, 1 + 4.5 * columns), 6
    figure = Figure(size, layout="constrained")
    figure.suptitle(
        f"Time of SkipNets, {precision}, {threads_text(threads)}", fontsize=14
    )
    panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for axes, result in zip(panels, results):
        _draw_network(axes, Times(result["rows"], threads, precision))
        axes.set_title(result["network"])
    panels[0].set_ylabel("time, relative to the dense SavedModel")
    save(figure, panels, path)


def save(figure, panels, path: str) -> None:
    """Writes a figure, with one legend for all panels.

    Args:
        figure: Matplotlib figure.
        panels: Its axes, which have lines in common, and not always all.
        path: String, PNG file to write.
    """
    found = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles))
    figure.legend(
        found.values(), found, loc="outside lower center", ncols=3, fontsize=11
    )
    figure.savefig(path, dpi=150)


def _draw_network(axes, times):
    axes.plot([0, 1], [0, 1], color="0.6", label="time = multiply-adds")
    for batch in times.batches:
        # The same colour for the same batch in all panels.
        color = f"C{batch.bit_length() % 10}"
        axes.plot(
            *times.line(batch, "gated"),
            "o-",
            color=color,
            label=f"batch {batch}",
        )
        axes.plot(
            *times.line(batch, "straight"),
            "+:",
            color=color,
        )
    axes.plot([], [], "+:", color="0.3", label="the same, straight line")
    axes.set_xlabel("multiply-adds, relative to dense")
    axes.set_xlim(0, 1.1)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def write(folder: str) -> list[str]:
    """Writes table and pictures of all results in a folder.

    Args:
        folder: String, with files `inference_<network>.json`.

    Returns:
        List of strings, the files written.

    Raises:
        ValueError: If there are no results.
        ImportError: If matplotlib is missing; the table is written all the
            same.
    """
    results = common.load(folder, "inference")
    written = [os.path.join(folder, "inference.md")]
    with open(written[0], "w") as file:
        file.write(markdown(results))
    every = [row for result in results for row in result["rows"]]
    for threads, precision in combinations(every):
        name = f"inference_{precision}_{threads}.png"
        written.append(os.path.join(folder, name))
        draw(written[-1], results, threads, precision)
    return written
