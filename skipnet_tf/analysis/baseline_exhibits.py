"""The paper's baselines beside SkipNet: Fig. 10b, Table 3, SDV and gates."""

import math
from collections.abc import Sequence

from skipnet_tf.analysis import plots
from skipnet_tf.analysis import published
from skipnet_tf.analysis.exhibits import FAILS
from skipnet_tf.analysis.exhibits import HOLDS
from skipnet_tf.analysis.exhibits import UNKNOWN
from skipnet_tf.analysis.exhibits import Claim
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.analysis.exhibits import percent
from skipnet_tf.analysis.records import NOISE
from skipnet_tf.analysis.records import SETTING
from skipnet_tf.analysis.records import comparable
from skipnet_tf.analysis.records import compare
from skipnet_tf.analysis.records import network
from skipnet_tf.analysis.records import over_seeds
from skipnet_tf.runs import Run

_LEARNERS = ("HRL+SP", "HRL+S", "RL")
_SIMILAR = 0.1  # of the dense network's multiply-adds

_COLUMNS = (
    ("kind", "", ""),
    *SETTING,
    ("macs_fraction", "multiply-adds of dense", ".1%"),
)


def learners(runs: Sequence[Run]) -> Exhibit:
    """HRL after SP, from scratch, and pure RL over alpha (Fig. 10b)."""
    rows = [
        row
        for row in over_seeds(runs)
        if row["kind"] in _LEARNERS and row["alpha"] is not None
    ]
    series = {}
    for row in rows:
        name = f"{row['kind']}, {network(row)}"
        deviation = 100 * (row["accuracy_std"] or 0.0)
        place = row["alpha"], 100 * row["accuracy"], deviation
        series.setdefault(name, []).append(place)
    # A line needs two prices.
    series = {name: found for name, found in series.items() if len(found) > 1}
    if not series:
        raise LeftOut("it needs runs with two prices alpha or more")
    return Exhibit(
        name="learners",
        title="Accuracy over alpha: HRL+SP, HRL+S and RL (Fig. 10b)",
        caption=(
            "HRL+SP starts from supervised pre-training, HRL+S and RL from "
            "untrained weights; RL learns from rewards alone. Means over "
            "seeds, bars of one standard deviation. The paper has "
            "feed-forward gates here and trains HRL+S and RL for 80k "
            "iterations."
        ),
        data={"learners": rows},
        figure=plots.lines(
            series,
            ("alpha, price of computation", "accuracy in %"),
            f"Learners ({runs[-1].dataset})",
            within=(0, 100),
        ),
        claims=[
            claim
            for rival in ("HRL+S", "RL")
            if (claim := _pre_training_claim(rows, rival))
        ],
    )


def _pre_training_claim(rows, rival):
    """The two at the same network and prices, or it would not be fair."""
    of = {(r["kind"], r["depth"], r["gate"], r["alpha"]): r for r in rows}
    pairs = [
        (of["HRL+SP", *where], row)
        for (kind, *where), row in of.items()
        if kind == rival and ("HRL+SP", *where) in of
    ]
    if not pairs:
        return None
    told = "; ".join(
        f"alpha {ours['alpha']:g}: {_place(ours)} and {_place(theirs)}"
        for ours, theirs in pairs
    )
    return Claim(
        f"HRL+SP is more accurate than {rival} at the same price (Fig. 10b)",
        _verdict([compare(*pair) for pair in pairs]),
        told,
    )


def _verdict(signs):
    """Of comparisons: 1 for the claim, -1 against it, 0 not told apart."""
    holds, fails = signs.count(1), signs.count(-1)
    if not holds:
        return FAILS if fails else UNKNOWN
    if holds == len(signs):
        return HOLDS
    against = f", not in {fails}" if fails else ""
    return f"{HOLDS} in {holds} of {len(signs)} cases{against}"


def _place(row):
    """Accuracy, and in brackets multiply-adds of dense: see the report."""
    accuracy, cost = percent(row["accuracy"], 2), percent(row["macs_fraction"])
    return f"{accuracy} ({cost})"


def hard_and_soft(runs: Sequence[Run]) -> Exhibit:
    """Hard against soft gating at similar compute (Table 3)."""
    found = over_seeds(runs)
    pairs = [
        (hard, soft)
        for soft in found
        if soft["kind"] == "SP, soft gates"
        and (hard := _nearest(soft, found, ("SP", "HRL+SP")))
    ]
    if not pairs:
        raise LeftOut("it needs runs with --gating=soft and hard ones beside")
    rows = [
        _gating_row(f"ours, {row['kind']}", gating, row)
        for pair in pairs
        for gating, row in zip(("hard", "soft"), pair)
    ]
    theirs = published.HARD_AND_SOFT.get(runs[-1].dataset, {})
    for depth, pair in theirs.items():
        for gating, (accuracy, cost) in zip(("hard", "soft"), pair):
            numbers = {"accuracy": accuracy / 100, "macs": cost * 1e8}
            row = {"depth": depth, "gate": "rnn", **numbers}
            rows.append(_gating_row("published", gating, row))
    similar = [pair for pair in pairs if _similar(*pair)]
    return Exhibit(
        name="hard_and_soft",
        title="Hard against soft gating (Table 3)",
        caption=(
            "Soft gates are trained on probabilities and decide by threshold "
            "here; beside each, the network of that depth and kind of gates "
            "with hard decisions whose multiply-adds come closest. Means over "
            f"seeds. {comparable(runs) if theirs else ''}"
        ).strip(),
        data={"hard_and_soft": rows},
        table=(
            ("source", "", ""),
            ("gating", "gating", ""),
            ("depth", "depth", ""),
            ("gate", "gate", ""),
            ("accuracy", "accuracy", ".2%"),
            ("macs", "multiply-adds per image", ".3g"),
        ),
        claims=[
            Claim(
                "Soft gates lose accuracy when they are hardened, hard ones "
                "of similar compute do not (Table 3)",
                _verdict([compare(*p) for p in similar])
                if similar
                else UNKNOWN,
                "; ".join(
                    f"hard {_place(hard)}, soft {_place(soft)}"
                    for hard, soft in pairs
                ),
            )
        ],
    )


def _nearest(row, rows, kinds):
    """Of the same network, that of some kinds with the nearest cost."""
    rivals = [
        rival
        for rival in rows
        if network(rival) == network(row) and rival["kind"] in kinds
    ]
    return min(rivals, key=lambda r: abs(r["macs"] - row["macs"]), default=None)


def _similar(first, second):
    gap = first["macs_fraction"] - second["macs_fraction"]
    return abs(gap) <= _SIMILAR


def _gating_row(source, gating, row):
    chosen = {key: row[key] for key in ("depth", "gate", "accuracy", "macs")}
    return {"source": source, "gating": gating, **chosen}


def random_skipping(runs: Sequence[Run]) -> Exhibit:
    """Learned decisions against random ones, SDV (Sec. 4.1)."""
    rows = over_seeds(runs)
    pairs = []
    for random in [row for row in rows if row["kind"] == "SDV"]:
        # Those that spend more have an easier task.
        thrifty = [r for r in rows if r["macs"] <= 1.01 * random["macs"]]
        learned = _nearest(random, thrifty, ("SP", "HRL+SP", "HRL+S"))
        if learned:
            pairs.append((learned, random))
    if not pairs:
        raise LeftOut("it needs SDV runs and learned ones that cost no more")
    return Exhibit(
        name="random_skipping",
        title="Learned against random skipping (SDV)",
        caption=(
            "SDV, the stochastic-depth variant, skips at random in training "
            "and inference. Above each, the network of that depth and kind of "
            "gates with learned decisions that spends as much or, failing "
            "that, the next one that spends less."
        ),
        data={"random_skipping": [row for pair in pairs for row in pair]},
        table=_COLUMNS,
        claims=[
            Claim(
                "Learned decisions are more accurate than random ones that "
                "cost as much or more (Sec. 4.1)",
                _verdict([compare(*pair) for pair in pairs]),
                "; ".join(
                    f"{learned['kind']} {_place(learned)}, SDV {_place(random)}"
                    for learned, random in pairs
                ),
            )
        ],
    )


def kinds_of_gates(runs: Sequence[Run]) -> Exhibit:
    """Recurrent gates against the others at one price (Sec. 3.1)."""
    found = [row for row in over_seeds(runs) if row["kind"] == "HRL+SP"]
    places = [(r["depth"], r["alpha"]) for r in found if r["gate"] == "rnn"]
    same = [
        [row for row in found if (row["depth"], row["alpha"]) == place]
        for place in places
    ]
    rows = max(same, key=len, default=[])
    if len({row["gate"] for row in rows}) < 2:
        raise LeftOut("it needs rnn and other gates with one depth and alpha")
    ours = next(row for row in rows if row["gate"] == "rnn")
    others = [row for row in rows if row["gate"] != "rnn"]
    return Exhibit(
        name="kinds_of_gates",
        title="Kinds of gates (Sec. 3.1)",
        caption=(
            "The same depth, price alpha and schedule with each kind of "
            "gates, means over seeds; multiply-adds include those of the "
            f"gates. {NOISE}"
        ),
        data={"kinds_of_gates": rows},
        table=_COLUMNS,
        claims=[
            Claim(
                "Recurrent gates give the best trade-off: they cost less and "
                "are as accurate as others or more (Sec. 3.1)",
                _verdict([_better(ours, other) for other in others]),
                "; ".join(f"{r['gate']} {_place(r)}" for r in (ours, *others)),
            )
        ],
    )


def _better(first, second):
    """1 where the first costs less and is no worse, -1 the other way round."""
    accuracy = compare(first, second)
    errors = [
        (row["macs_fraction_std"] or 0.0) / math.sqrt(row["runs"])
        for row in (first, second)
    ]
    saved = second["macs_fraction"] - first["macs_fraction"]
    cheaper = math.copysign(abs(saved) > 1.96 * math.hypot(*errors), saved)
    if accuracy * cheaper < 0:
        return 0  # one costs less, the other is more accurate
    return int(math.copysign(bool(accuracy or cheaper), accuracy + cheaper))
