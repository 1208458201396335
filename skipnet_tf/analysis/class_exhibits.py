"""Exhibits of one run about its classes (Fig. 9)."""

import numpy as np

from skipnet_tf.analysis import findings
from skipnet_tf.analysis import plots
from skipnet_tf.analysis.exhibits import Claim
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.analysis.exhibits import Study
from skipnet_tf.analysis.exhibits import short
from skipnet_tf.analysis.exhibits import verdict

_FEW_CLASSES = 20  # as many have room for their names


def class_difficulty(study: Study) -> Exhibit:
    """Median of skipped blocks against accuracy, class by class (Fig. 9a)."""
    rows = _classes(study, study.looking)
    if len(rows) < 4:
        raise LeftOut("fewer than four classes have images")
    found = _correlation(rows, "median")
    if np.isnan(found["rho"]):
        raise LeftOut("all classes skip as much or are as accurate")
    few = len(rows) <= _FEW_CLASSES
    series = {
        study.last: [
            (100 * r["accuracy"], r["median"], r["class"] if few else "")
            for r in rows
        ]
    }
    told = _told(found)
    return Exhibit(
        name="class_difficulty",
        title="Do easy classes skip more? (Fig. 9a)",
        caption=(
            "Each point is a class: its accuracy and the median of the "
            "blocks that its images skip. Spearman's rank correlation with "
            "its 95 % confidence interval (Bonett and Wright; the classes "
            f"are the sample): {told}. Of the means of blocks skipped, which "
            f"tie less: {_told(_correlation(rows, 'mean'))}."
        ),
        data={
            "class_difficulty": [
                {"stage": stage, **row}
                for stage in study.routes
                for row in _classes(study, stage)
            ]
        },
        figure=plots.scatter(
            series,
            ("accuracy of the class in %", "blocks skipped, median"),
            f"Classes, {study.last} ({study.about})",
        ),
        claims=[
            Claim(
                "Classes with higher accuracy skip more blocks (Fig. 9)",
                verdict(found["low"], found["high"]),
                f"rank correlation {told} over {len(rows)} classes",
            )
        ],
    )


def _classes(study, stage):
    """What each class gave, in the order of labels."""
    routes, names = study.routes[stage], study.info.class_names
    correct = routes.labels == routes.predictions
    skipped = _skipped(routes)
    of_class = {label: routes.labels == label for label in set(routes.labels)}
    return [
        {
            "class": names[label],
            "images": int(of_class[label].sum()),
            "accuracy": float(correct[of_class[label]].mean()),
            "median": float(np.median(skipped[of_class[label]])),
            "mean": float(skipped[of_class[label]].mean()),
        }
        for label in sorted(of_class)
    ]


def _skipped(routes):
    return 1 + routes.gates.shape[1] - routes.blocks


def _correlation(rows, what):
    accuracy, skipped = (
        np.array([row[name] for row in rows]) for name in ("accuracy", what)
    )
    return findings.rank_correlation(accuracy, skipped)


def _told(found):
    if np.isnan(found["rho"]):
        return "none"
    return f"{found['rho']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def class_distributions(study: Study) -> Exhibit:
    """Blocks skipped by images of the hardest and easiest class (Fig. 9b)."""
    routes = study.routes[study.looking]
    rows = _classes(study, study.last)
    if len(rows) < 2:
        raise LeftOut("fewer than two classes have images")
    # Of equals the first in the order of labels, whatever it skips.
    hardest, easiest = (
        best(rows, key=lambda row: row["accuracy"]) for best in (min, max)
    )
    if hardest is easiest:
        raise LeftOut("all classes are as accurate")
    skipped = _skipped(routes)
    names = np.array(study.info.class_names)[routes.labels]
    values = {
        f"{kind}: {short(row['class'])}": skipped[names == row["class"]]
        for kind, row in (("hardest", hardest), ("easiest", easiest))
    }
    ties = sum(row["accuracy"] == easiest["accuracy"] for row in rows)
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
            + (f" {ties} classes are easiest, the first is here." * (ties > 1))
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
