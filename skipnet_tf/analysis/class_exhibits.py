"""Exhibits of one run about its classes (Fig. 9)."""

import numpy as np

from skipnet_tf.analysis import findings
from skipnet_tf.analysis import plots
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.analysis.exhibits import Study

_FEW_CLASSES = 20  # as many have room for their names


def class_difficulty(study: Study) -> Exhibit:
    """Median of skipped blocks against accuracy, class by class (Fig. 9a)."""
    names = study.run.describe().class_names
    series, rows, told, verdict, known = {}, [], [], "", False
    for stage, routes in study.routes.items():
        found = _classes(routes, names)
        if len(found) < 3:
            raise LeftOut("fewer than three classes have images")
        correlation = findings.class_correlation(
            routes.labels, routes.labels == routes.predictions, _skipped(routes)
        )
        rows += [{"stage": stage, **row} for row in found]
        few = len(found) <= _FEW_CLASSES
        series[stage] = [
            (100 * r["accuracy"], r["median"], r["class"] if few else "")
            for r in found
        ]
        told.append(f"{stage} {_correlation(correlation)}")
        verdict = _verdict(correlation)
        known |= not np.isnan(correlation["rho"])
    if not known:
        raise LeftOut("all classes skip as much or are as accurate")
    return Exhibit(
        name="class_difficulty",
        title="Do easy classes skip more? (Fig. 9a)",
        caption=(
            "Each point is a class: its accuracy and the median of the "
            "blocks that its images skip. Spearman's rank correlation with "
            "its 95 % confidence interval (bootstrap over the images of each "
            f"class): {'; '.join(told)}."
        ),
        data={"class_difficulty": rows},
        figure=plots.scatter(
            series,
            ("accuracy of the class in %", "blocks skipped, median"),
            f"Classes ({study.about})",
        ),
        claim=(
            "Classes with higher accuracy skip more blocks (Fig. 9): "
            f"{verdict} ({told[-1]})."
        ),
    )


def _classes(routes, names):
    correct = routes.labels == routes.predictions
    skipped = _skipped(routes)
    return [
        {
            "class": names[label],
            "images": int((routes.labels == label).sum()),
            "accuracy": float(correct[routes.labels == label].mean()),
            "median": float(np.median(skipped[routes.labels == label])),
        }
        for label in np.unique(routes.labels)
    ]


def _skipped(routes):
    return 1 + routes.gates.shape[1] - routes.blocks


def _verdict(found):
    if np.isnan(found["rho"]) or found["low"] <= 0 <= found["high"]:
        return "cannot be told from chance"
    return "holds" if found["low"] > 0 else "does not hold"


def _correlation(found):
    if np.isnan(found["rho"]):
        return "none: all classes have the same median or the same accuracy"
    return f"{found['rho']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def class_distributions(study: Study) -> Exhibit:
    """Blocks skipped by images of the hardest and easiest class (Fig. 9b)."""
    routes = study.routes[study.last]
    rows = _classes(routes, study.run.describe().class_names)
    if len(rows) < 2:
        raise LeftOut("fewer than two classes have images")
    ordered = sorted(rows, key=lambda row: row["accuracy"])
    skipped = _skipped(routes)
    names = np.array(study.run.describe().class_names)[routes.labels]
    values = {
        f"{kind}: {row['class']}": skipped[names == row["class"]]
        for kind, row in (("hardest", ordered[0]), ("easiest", ordered[-1]))
    }
    told = "; ".join(
        f"{name}, mean {moved.mean():.2f}" for name, moved in values.items()
    )
    return Exhibit(
        name="class_distributions",
        title="Hardest and easiest class (Fig. 9b)",
        caption=(
            "Distribution of the blocks that images of the class with the "
            "lowest and of that with the highest accuracy skip; the dashed "
            f"line is the median of all images. {told}."
        ),
        data={
            "class_distributions": [
                {"class": name, "blocks_skipped": int(number)}
                for name, of_class in values.items()
                for number in of_class
            ]
        },
        figure=plots.distributions(
            values,
            "blocks skipped",
            f"Hardest and easiest class, {study.last} ({study.about})",
            at=float(np.median(skipped)),
        ),
    )
