"""Exhibits of one run about compute: curves, blocks, threshold and time."""

import numpy as np

from skipnet_tf.analysis import figures
from skipnet_tf.analysis import findings
from skipnet_tf.analysis import plots
from skipnet_tf.analysis import probes
from skipnet_tf.analysis.exhibits import Claim
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.analysis.exhibits import Study
from skipnet_tf.analysis.exhibits import percent
from skipnet_tf.analysis.exhibits import read_log
from skipnet_tf.analysis.exhibits import verdict

_TIMED = 40  # images whose time is measured


def accuracy_against_compute(study: Study) -> Exhibit:
    """The stages, and the last one at other thresholds (Fig. 5b)."""
    found = study.thresholds
    curve = [
        (float(macs.mean()), float(correct.mean()))
        for macs, correct in zip(found["macs"], found["correct"])
    ]
    rows = [
        {"stage": stage, "threshold": None, **_cost(summary)}
        for stage, summary in study.summaries().items()
    ]
    rows += [
        {
            "stage": study.last,
            "threshold": threshold,
            "macs": macs,
            "accuracy": accuracy,
        }
        for threshold, (macs, accuracy) in zip(probes.THRESHOLDS, curve)
    ]
    first, last = min(probes.THRESHOLDS), max(probes.THRESHOLDS)
    ends = zip((curve[0], curve[-1]), (first, last))
    notes = [(*place, f"{threshold:g}") for place, threshold in ends]
    end = study.summaries()[study.last]
    return Exhibit(
        name="accuracy_against_compute",
        title="Accuracy against compute (Fig. 5b)",
        caption=(
            "Higher and further left is better. Each stage is a point; the "
            f"dotted line moves the inference threshold of {study.last} from "
            f"{first:g} to {last:g} without retraining. {study.last} spends "
            f"{percent(end['macs_fraction'])} of the dense network's "
            f"multiply-adds at {percent(end['accuracy'], 2)} accuracy."
        ),
        data={"accuracy_against_compute": rows},
        figure=figures.accuracy_against_compute(
            {
                r["stage"]: [(r["macs"], r["accuracy"])]
                for r in rows[: -len(curve)]
            },
            {f"{study.last}, thresholds {first:g} to {last:g}": curve},
            f"Accuracy against compute ({study.about})",
            notes if curve[0] != curve[-1] else (),
        ),
    )


def _cost(summary):
    return {"macs": summary["macs"], "accuracy": summary["accuracy"]}


def training_curves(study: Study) -> Exhibit:
    """Validation accuracy and blocks executed, epoch after epoch."""
    logs, first = {}, 0
    for stage in study.run.summaries:
        logs[stage] = [
            {
                "stage": stage,
                "epoch": first + number,
                "accuracy": float(row["val_accuracy"]),
                # Of networks without gates there is no such column.
                "executed_blocks": float(row.get("val_executed_blocks") or 1),
            }
            for number, row in enumerate(read_log(study.run, stage), start=1)
            if row.get("val_accuracy")
        ]
        first += len(logs[stage])
    logs = {stage: rows for stage, rows in logs.items() if rows}
    if not logs:
        raise LeftOut("no stage has a log.csv with val_accuracy")
    ends = ", ".join(
        f"{stage} {percent(rows[-1]['accuracy'], 2)}"
        for stage, rows in logs.items()
    )
    return Exhibit(
        name="training_curves",
        title="Validation while training",
        caption=(
            "Accuracy and share of blocks executed on the validation images "
            f"after every epoch, by threshold. At the end: {ends}."
        ),
        data={"training_curves": [r for rows in logs.values() for r in rows]},
        figure=figures.training_curves(
            logs, f"Validation while training ({study.run.dataset})"
        ),
    )


def skip_rate_per_block(study: Study) -> Exhibit:
    """How often each block is skipped (Fig. 10a)."""
    group_of = np.repeat(np.arange(len(study.groups)), study.groups)[1:]
    rates = {stage: 1 - r.open_rates for stage, r in study.routes.items()}
    rows = [
        {
            "stage": stage,
            "block": block,
            "group": int(group_of[block - 1]) + 1,
            "skip_rate": float(rate),
        }
        for stage, of_stage in rates.items()
        for block, rate in enumerate(of_stage, start=1)
    ]
    skipped = 1 - study.routes[study.last].gates
    by_group = [
        skipped[:, group_of == group].mean(axis=1)
        for group in range(len(study.groups))
        if (group_of == group).any()
    ]
    told = ", ".join(percent(shares.mean()) for shares in by_group)
    return Exhibit(
        name="skip_rate_per_block",
        title="Skip rate of each block (Fig. 10a)",
        caption=(
            "Share of images that skip each block; dashed lines part the "
            "groups, whose maps have the same size. Blocks at 0 or 100 % are "
            f"decided without a look at the image. {study.last} skips "
            f"{told} of its gated blocks, group by group."
        ),
        data={"skip_rate_per_block": rows},
        figure=figures.skip_rates(
            {stage: r.open_rates for stage, r in study.routes.items()},
            study.groups,
            f"Skip rate of each block ({study.about})",
        ),
        claims=()
        if study.random(study.last)
        else _group_claims(by_group, told),
    )


def _group_claims(by_group, told):
    """Of three groups (CIFAR, Fig. 10a) and of four (ImageNet, Fig. 13).

    By the differences within each image; the claim is about all of them.
    """
    if len(by_group) == 3:
        claim = "Group 2 skips less than groups 1 and 3 (Fig. 10a)"
        differences = [by_group[other] - by_group[1] for other in (0, 2)]
    elif len(by_group) == 4:
        claim = "Group 3 skips more than the other groups (Fig. 13)"
        differences = [by_group[2] - by_group[other] for other in (0, 1, 3)]
    else:
        return []
    lows, _, highs = zip(*map(findings.mean_interval, differences))
    return [Claim(claim, verdict(min(lows), min(highs)), f"skipped: {told}")]


def threshold_knob(study: Study) -> Exhibit:
    """Whether the threshold costs what one expects of it."""
    routes, count = study.routes[study.looking], study.count
    if len(routes.labels) < 2:
        raise LeftOut("it compares two halves of the images")
    always = count.fixed + count.gates.sum()
    rows = []
    found = zip(
        probes.THRESHOLDS,
        study.thresholds["macs"],
        study.thresholds["correct"],
    )
    for threshold, macs, correct in found:
        open_gates = routes.probabilities >= threshold
        expected = always + (open_gates @ count.blocks).mean()
        rows.append(
            {
                "threshold": threshold,
                "accuracy": float(correct.mean()),
                "even_images": float(macs[::2].mean()) / count.dense,
                "odd_images": float(macs[1::2].mean()) / count.dense,
                "expected": float(expected) / count.dense,
            }
        )
    series = {
        label: [(r["threshold"], 100 * r[key], 0.0) for r in rows]
        for key, label in (
            ("accuracy", "accuracy"),
            ("even_images", "multiply-adds, even images"),
            ("odd_images", "multiply-adds, odd images"),
            ("expected", "multiply-adds, expected"),
        )
    }
    gap = max(abs(r["even_images"] - r["odd_images"]) for r in rows)
    miss = max(abs(r["even_images"] - r["expected"]) for r in rows)
    return Exhibit(
        name="threshold_knob",
        title="The threshold as a knob, without retraining",
        caption=(
            "Accuracy and multiply-adds (of the dense network) at each "
            "threshold, on every other image and on the rest: the halves "
            f"differ by at most {100 * gap:.1f} points, which is how well a "
            "threshold chosen on some images fits others. Expected is what "
            "the probabilities at the trained threshold foretell; later "
            "gates see other features once earlier ones decide otherwise, "
            f"which moves the cost by up to {100 * miss:.1f} points. The "
            f"knob reaches from {percent(rows[-1]['even_images'])} to "
            f"{percent(rows[0]['even_images'])} of the dense network."
        ),
        data={"threshold_knob": rows},
        figure=plots.lines(
            series,
            ("threshold", "accuracy, or share of the dense network, in %"),
            f"Threshold, {study.last} ({study.about})",
        ),
    )


def measured_time(study: Study) -> Exhibit:
    """Whether multiply-adds are time: each image alone."""
    routes = study.routes[study.last]
    if len(np.unique(routes.macs)) < 2:
        raise LeftOut("all images cost the same number of multiply-adds")
    chosen = _of_every_cost(routes.macs)
    times = probes.milliseconds(
        study.networks[study.last], probes.pick(study.run.images(), chosen)
    )
    macs = routes.macs[chosen]
    slope, intercept = findings.fit_line(macs / 1e6, times)
    correlation = findings.pearson(macs.astype(float), times)
    return Exhibit(
        name="measured_time",
        title="Time against multiply-adds, one image at a time",
        caption=(
            f"{len(chosen)} images, in turn one of every cost, each as "
            "a batch of one through the Keras model on this machine; median "
            f"of nine rounds. Correlation {correlation:.2f}; the line adds "
            f"{slope:.3g} ms per million multiply-adds to {intercept:.3g} ms."
        ),
        data={
            "measured_time": [
                {"image": int(i), "macs": int(m), "milliseconds": float(t)}
                for i, m, t in zip(chosen, macs, times)
            ]
        },
        figure=plots.scatter(
            {"images": [(m / 1e6, t, "") for m, t in zip(macs, times)]},
            (
                "millions of multiply-adds, gates included",
                "milliseconds",
            ),
            f"Time of an image, {study.last} ({study.about})",
            line=(slope, intercept),
        ),
    )


def _of_every_cost(macs):
    """Images of every cost, then second ones, until there are enough."""
    order = np.argsort(macs, kind="stable")
    turn = np.arange(len(macs)) - np.searchsorted(macs[order], macs[order])
    return np.sort(order[np.argsort(turn, kind="stable")][:_TIMED])
