"""Exhibits of several runs: depths, gates and prices (Sec. 4.1)."""

import math
from collections import Counter
from collections.abc import Sequence

from skipnet_tf.analysis import figures
from skipnet_tf.analysis import plots
from skipnet_tf.analysis import published
from skipnet_tf.analysis.exhibits import FAILS
from skipnet_tf.analysis.exhibits import HOLDS
from skipnet_tf.analysis.exhibits import MATCHED
from skipnet_tf.analysis.exhibits import UNKNOWN
from skipnet_tf.analysis.exhibits import Claim
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.analysis.exhibits import percent
from skipnet_tf.analysis.records import comparable
from skipnet_tf.analysis.records import network
from skipnet_tf.analysis.records import over_seeds
from skipnet_tf.analysis.records import resolution
from skipnet_tf.runs import Run

_FAR = 3.0  # times the errors of the best: others would be pressed into a line


def savings(runs: Sequence[Run]) -> Exhibit:
    """Multiply-adds saved by SP and HRL, network by network (Fig. 4, 5a)."""
    rows = over_seeds(runs)
    gated = [row for row in rows if row["kind"] in ("SP", "HRL+SP")]
    networks = list(dict.fromkeys((r["depth"], r["gate"]) for r in gated))
    networks.sort(key=lambda of: (of[0] or 0, of[1] or ""))
    if len(networks) < 2:
        raise LeftOut("it compares networks of several depths or gates")
    chosen = {
        (*of, name): row
        for of in networks
        for name in ("SP", "HRL+SP")
        if (row := _thriftiest(rows, of, name))
    }
    if not chosen:
        raise LeftOut("no dense network (stage base) to compare with")
    series = {
        f"{name}, ours": [
            100 * chosen[*of, name]["saved"]
            if chosen.get((*of, name), {}).get("matched")
            else math.nan
            for of in networks
        ]
        for name in ("SP", "HRL+SP")
    }
    theirs = published.SAVED.get(runs[-1].dataset, {})
    for place, name in enumerate(("SP", "HRL+SP")):
        values = [
            theirs[depth][place]
            if gate == "rnn" and depth in theirs
            else math.nan
            for depth, gate in networks
        ]
        if not all(map(math.isnan, values)):
            series[f"{name}, published"] = values
    drawn = not all(math.isnan(v) for row in series.values() for v in row)
    far = [
        f"{row['kind']} {network(row)}"
        for row in chosen.values()
        if not row["matched"]
    ]
    return Exhibit(
        name="savings",
        title="Multiply-adds saved by SP and HRL (Fig. 4, 5a)",
        caption=(
            "Share of the dense network's multiply-adds that is saved, gates "
            "included, so that gates which skip nothing lie below 0; means "
            "over seeds. Of several prices alpha, the one that saves most "
            "within 0.5 points of the dense network's accuracy, judged on "
            "these same images as in the paper. Where more prices were tried, "
            f"more can be saved; tried: {_tried(chosen)}."
            + (f" No price is near enough: {'; '.join(far)}." if far else "")
        ),
        data={"savings": list(chosen.values())},
        figure=plots.bars(
            series,
            [network({"depth": d, "gate": gate}) for d, gate in networks],
            "multiply-adds saved in %",
            f"Savings ({runs[-1].dataset})",
        )
        if drawn
        else None,
        claims=_savings_claim(chosen, networks),
    )


def _thriftiest(rows, of, name):
    same_depth = [row for row in rows if row["depth"] == of[0]]
    dense = [row["accuracy"] for row in same_depth if row["kind"] == "dense"]
    found = [
        {**row, "saved": 1 - row["macs_fraction"]}
        for row in same_depth
        if (row["gate"], row["kind"]) == (of[1], name)
    ]
    if not found or not dense:
        return None
    least = max(dense) - MATCHED
    near = [row for row in found if row["accuracy"] >= least]
    best = (
        max(near, key=lambda row: row["saved"])
        if near
        else max(found, key=lambda row: row["accuracy"])
    )
    return {**best, "tried": len(found), "matched": bool(near)}


def _tried(chosen):
    return ", ".join(
        f"{row['tried']} with {network(row)}"
        for (*_, name), row in chosen.items()
        if name == "HRL+SP"
    )


def _savings_claim(chosen, networks):
    pairs = {
        of: (chosen[*of, "SP"], chosen[*of, "HRL+SP"])
        for of in networks
        if (*of, "SP") in chosen and (*of, "HRL+SP") in chosen
    }
    matched = {
        of: pair
        for of, pair in pairs.items()
        if all(row["matched"] for row in pair)
    }
    more = sum(hrl["saved"] > sp["saved"] for sp, hrl in matched.values())
    told = "; ".join(
        f"{network(sp)}: {percent(hrl['saved'])} against {percent(sp['saved'])}"
        for sp, hrl in matched.values()
    )
    verdict = f"holds in {more} of {len(matched)} networks"
    if more in (0, len(matched)):
        verdict = HOLDS if more else FAILS
    if not matched:
        verdict, told = UNKNOWN, "no network with both is that near"
    claim = (
        "Within 0.5 points of the dense accuracy, HRL saves more than SP "
        "alone (Sec. 4.1)"
    )
    return [Claim(claim, verdict, told)] if pairs else []


def tradeoff(runs: Sequence[Run]) -> Exhibit:
    """Accuracy against multiply-adds over alpha, beside others (Fig. 5, 6)."""
    rows = over_seeds(runs)
    points = published.POINTS.get(runs[-1].dataset, ())
    if len(runs) == 1 and not points:
        raise LeftOut("there is one run, and nobody's results on its data set")
    main = _main_network(rows)
    ours = [r for r in rows if (r["depth"], r["gate"] or main[1]) == main]
    others = {}
    for point in points:
        place = point.macs, point.accuracy / 100
        others.setdefault(f"{point.method}, published", []).append(place)
    sources = dict.fromkeys(f"{p.method}: {p.source}" for p in points)
    theirs = (
        f"Grey: published, on the same data set ({'; '.join(sources)}). "
        f"{comparable(runs)}"
        if points
        else "Nobody has published results on this data set. "
    )
    kinds = dict.fromkeys(row["kind"] for row in ours)
    return Exhibit(
        name="tradeoff",
        title="Accuracy against multiply-adds over alpha (Fig. 5, 6)",
        caption=(
            f"Our methods on one network ({network(ours[-1])}), means over "
            "seeds; a line joins the prices alpha, which stand at the points "
            f"of HRL+SP. {_resolution(ours)} {theirs}PEFC and LCCL, the "
            "static compression in the paper's picture, have no published "
            "values there; SDV, ours, which skips blocks at random, stands "
            "for what does not look at the image."
        ),
        data={"tradeoff": rows}
        | ({"tradeoff_published": [vars(p) for p in points]} if points else {}),
        figure=_picture(
            {name: [r for r in ours if r["kind"] == name] for name in kinds},
            others,
            f"Accuracy over alpha ({runs[-1].dataset}, {network(ours[-1])})",
        ),
    )


def networks(runs: Sequence[Run]) -> Exhibit:
    """HRL+SP on several networks beside dense ones (Fig. 5)."""
    rows = [r for r in over_seeds(runs) if r["kind"] in ("dense", "HRL+SP")]
    series = {}
    for row in rows:
        name = "dense, by depth"
        if row["kind"] != "dense":
            name = f"HRL+SP, {network(row)}"
        series.setdefault(name, []).append(row)
    if len(series) < 3:
        raise LeftOut("it compares networks of several depths or gates")
    return Exhibit(
        name="networks",
        title="HRL+SP on several networks beside dense ones (Fig. 5)",
        caption=(
            "Means over seeds. A line joins the dense networks of several "
            "depths: points above it are more accurate than a shallower "
            "network without gates of the same cost. Another joins the prices "
            "alpha of a network, which stand at its points. "
            f"{_resolution(rows)}"
        ),
        data={"networks": rows},
        figure=_picture(series, {}, f"Networks ({runs[-1].dataset})"),
    )


def _resolution(rows):
    """How near points may be and still differ."""
    best = max(rows, key=lambda row: row["accuracy"])
    points = 100 * resolution(best, best)
    return (
        f"Near the top, points less than {points:.1f} points of accuracy "
        "apart cannot be told apart. Arrows: less accurate than the picture "
        "reaches."
    )


def _main_network(rows):
    """The network with gates that most settings share."""
    counts = Counter((r["depth"], r["gate"]) for r in rows if r["gate"])
    if counts:
        return counts.most_common(1)[0][0]
    return rows[-1]["depth"], rows[-1]["gate"]


def _picture(series, others, title):
    """Rows by name; those far below the best as arrows at the lower edge."""
    every = [row for rows in series.values() for row in rows]
    error = 1 - max(row["accuracy"] for row in every)
    floor = 1 - (_FAR * error + 0.01)
    near = {
        name: [(r["macs"], r["accuracy"]) for r in rows if _near(r, floor)]
        for name, rows in series.items()
    }
    priced = [r for r in every if r["kind"] == "HRL+SP" and r["alpha"]]
    counts = Counter(map(network, priced))
    return figures.accuracy_against_compute(
        {name: places for name, places in near.items() if places},
        others,
        title,
        [
            (row["macs"], row["accuracy"], f"{row['alpha']:g}")
            for row in priced
            if counts[network(row)] > 1 and _near(row, floor)
        ],
        below=[
            (row["macs"], f"{name} {percent(row['accuracy'])}")
            for name, rows in series.items()
            for row in rows
            if not _near(row, floor)
        ],
    )


def _near(row, floor):
    return row["accuracy"] >= floor
