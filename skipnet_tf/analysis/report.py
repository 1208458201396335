"""Exhibits as files: pictures, data, and one HTML page that holds them all."""

import base64
import csv
import dataclasses
import html
import io
import os
from collections.abc import Sequence

from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.records import NOISE
from skipnet_tf.version import VERSION

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right;
  border-bottom: 1px solid #8886; }
td { white-space: nowrap; }
.words :is(th, td) { white-space: normal; text-align: left;
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
figure { margin: 1rem 0; }
img { max-width: 100%; background: #fff; border-radius: .3rem; }
figcaption, .caption { margin: .5rem 0; }
@media print {
  body { max-width: none; font-size: 10pt; }
  section { break-inside: avoid; }
  nav { display: none; }
}
"""


def write(
    out: str,
    title: str,
    opening: Sequence[str],
    exhibits: Sequence[Exhibit],
    left_out: Sequence[tuple[str, str]],
) -> str:
    """Writes `report.html`, the pictures and their data.

    Args:
        out: String, a folder; made if missing.
        title: String.
        opening: Sequence of sentences, the first paragraph.
        exhibits: Sequence of `Exhibit`; the first comes before the contents.
        left_out: Sequence of `(title, reason)`.

    Returns:
        The path of the page.

    Raises:
        ValueError: If `out` cannot be written.
    """
    make_folder(out)
    sections = []
    for exhibit in exhibits:
        for name, rows in exhibit.data.items():
            _write_csv(os.path.join(out, "data", f"{name}.csv"), rows)
        picture = _write_pictures(out, exhibit) if exhibit.figure else ""
        sections.append(_section(exhibit, picture))
    claims = [claim for exhibit in exhibits for claim in exhibit.claims]
    if claims:
        rows = [dataclasses.asdict(claim) for claim in claims]
        _write_csv(os.path.join(out, "data", "claims.csv"), rows)
    page = _page(title, opening, claims, exhibits, sections, left_out)
    path = os.path.join(out, "report.html")
    with open(path, "w", encoding="utf-8") as file:
        file.write(page)
    return path


def make_folder(out: str) -> None:
    """Makes the folder of the report, before long work.

    Args:
        out: String.

    Raises:
        ValueError: If it cannot be written.
    """
    try:
        os.makedirs(os.path.join(out, "data"), exist_ok=True)
    except OSError as error:
        raise ValueError(
            "`out` must be a folder that can be written. "
            f"Received: out={out} ({error.strerror})"
        ) from error


def _write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_pictures(out, exhibit):
    """Writes PNG and SVG; the SVG as a data URI."""
    import matplotlib

    exhibit.figure.savefig(os.path.join(out, f"{exhibit.name}.png"), dpi=150)
    # Laid out once: it takes as long as drawing.
    exhibit.figure.set_layout_engine("none")
    drawn = io.BytesIO()
    # Equal numbers give equal files: no date, no random names.
    with matplotlib.rc_context({"svg.hashsalt": exhibit.name}):
        exhibit.figure.savefig(drawn, format="svg", metadata={"Date": None})
    with open(os.path.join(out, f"{exhibit.name}.svg"), "wb") as file:
        file.write(drawn.getvalue())
    encoded = base64.b64encode(drawn.getvalue()).decode()
    return f"data:image/svg+xml;base64,{encoded}"


def _section(exhibit, picture):
    files = ", ".join(
        f'<a href="data/{name}.csv">{name}.csv</a>' for name in exhibit.data
    )
    caption = f"{html.escape(exhibit.caption)} Data: {files}."
    body = _table(exhibit) if exhibit.table else ""
    if picture:
        alternative = html.escape(exhibit.title, quote=True)
        body += (
            f'<figure><img src="{picture}" alt="{alternative}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    else:
        body += f'<p class="caption">{caption}</p>'
    return (
        f'<section id="{exhibit.name}"><h2>{html.escape(exhibit.title)}</h2>'
        f"{body}</section>"
    )


def _table(exhibit):
    rows = next(iter(exhibit.data.values()))
    head = "".join(
        f'<th scope="col">{html.escape(header)}</th>'
        for _, header, _ in exhibit.table
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(_cell(row[key], spec))}</td>"
            for key, _, spec in exhibit.table
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _cell(value, spec):
    if value is None:
        return "–"
    text = f"{value:{spec}}"
    return text.replace("%", " %") if spec.endswith("%") else text


def _claims(claims):
    """What the paper says, whether it holds here, and by which numbers."""
    lines = "".join(
        f"<tr><td>{html.escape(claim.text)}</td>"
        f"<td>{html.escape(claim.verdict)}</td>"
        f"<td>{html.escape(claim.numbers)}</td></tr>"
        for claim in claims
    )
    return (
        "<h2>Claims of the paper</h2>"
        '<div class="scroll"><table class="words"><thead><tr>'
        '<th scope="col">claim</th><th scope="col">here</th>'
        '<th scope="col">numbers</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
        "<p>Of accuracies, in brackets: share of the dense network&#x27;s "
        f"multiply-adds. {html.escape(NOISE)} Data: "
        '<a href="data/claims.csv">claims.csv</a>.</p>'
    )


def _page(title, opening, claims, exhibits, sections, left_out):
    links = "".join(
        f'<li><a href="#{exhibit.name}">{html.escape(exhibit.title)}</a></li>'
        for exhibit in exhibits
    )
    missing = "".join(
        f"<li>{html.escape(name)}: {html.escape(reason)}.</li>"
        for name, reason in left_out
    )
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(' '.join(opening))}</p>",
        _claims(claims) if claims else "",
        sections[0],
        f"<nav><h2>Contents</h2><ul>{links}</ul></nav>",
        *sections[1:],
        f"<h2>Left out</h2><ul>{missing}</ul>" if missing else "",
        f"<footer><p>skipnet_tf {VERSION}</p></footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
