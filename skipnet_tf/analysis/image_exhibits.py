"""Exhibits of one run about its images (Fig. 7, 8)."""

import numpy as np

from skipnet_tf import evaluation
from skipnet_tf.analysis import figures
from skipnet_tf.analysis import findings
from skipnet_tf.analysis import plots
from skipnet_tf.analysis import probes
from skipnet_tf.analysis.exhibits import Claim
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.analysis.exhibits import Study
from skipnet_tf.analysis.exhibits import short
from skipnet_tf.analysis.exhibits import verdict

_COLUMNS = 8  # images in a row
_SCALED = 128  # images that are shown at other scales
_ABOUT_EASY = (
    "Images that run few blocks are brighter than those that run many",
    "Images that run few blocks have a higher contrast",
    "Images that run few blocks are sharper",
)


def easiest_and_hardest(study: Study) -> Exhibit:
    """Images that skip the most and the fewest blocks (Fig. 7)."""
    routes, names = study.routes[study.looking], study.info.class_names
    order = rank(routes)
    count, blocks = routes.gates.shape[1] + 1, routes.blocks
    rows, drawn = [], {}
    for name, chosen in (
        ("skip most", order[:_COLUMNS]),
        ("skip fewest", order[: -_COLUMNS - 1 : -1]),
    ):
        labels = [
            f"{short(names[routes.labels[i]])}\n{blocks[i]} of {count} blocks"
            for i in chosen
        ]
        drawn[name] = chosen, labels
        rows += [
            {
                "row": name,
                "image": int(i),
                "class": names[routes.labels[i]],
                "blocks": int(blocks[i]),
            }
            for i in chosen
        ]
    return Exhibit(
        name="easiest_and_hardest",
        title="Easiest and hardest images (Fig. 7)",
        caption=(
            f"The images that skip most and fewest blocks under {study.last}, "
            "with class and blocks executed; the surest predictions come "
            "first among equals above, and last below. Executed: "
            f"{blocks.min()} to {blocks.max()} of {count} blocks."
            f"{study.withheld}"
        ),
        data={"easiest_and_hardest": rows},
        figure=study.photographs(
            drawn, f"Easiest and hardest images for {study.last}"
        ),
    )


def rank(routes: evaluation.Routes) -> np.ndarray:
    """Indices of images, most blocks skipped first; ties: most confident."""
    return np.lexsort((-routes.confidence, routes.blocks))


def image_statistics(study: Study) -> Exhibit:
    """Whether easy images are brighter and clearer (Fig. 7), in numbers."""
    blocks = study.routes[study.looking].blocks
    easy, hard = findings.easy_and_hard(blocks)
    if min(easy.sum(), hard.sum()) < 2:
        raise LeftOut("fewer than two images differ in the blocks they run")
    recipe = study.run.preprocessing()
    batches = [
        findings.image_statistics(probes.pixels(images, recipe))
        for images, _ in study.run.images()
    ]
    values = {
        name: np.concatenate([batch[name] for batch in batches])
        for name in batches[0]
    }
    rows = [
        {"measure": name, **findings.difference(of[easy], of[hard])}
        for name, of in values.items()
    ]
    signs = ", ".join(f"{row['measure']} {_direction(row)}" for row in rows)
    return Exhibit(
        name="image_statistics",
        title="Are easy images brighter and clearer? (Fig. 7)",
        caption=(
            f"Means of the {easy.sum()} images that run fewest blocks (at "
            f"most {blocks[easy].max()}) minus those of the {hard.sum()} that "
            f"run most (at least {blocks[hard].min()}), with 95 % confidence "
            "intervals; an interval that holds 0 tells nothing apart. "
            "Brightness and contrast are mean and deviation of the grey "
            "levels, sharpness is the variance of their Laplacian. Easy "
            f"images compared with hard ones: {signs}."
        ),
        data={
            "image_statistics": rows,
            "image_statistics_of_each": [
                {"image": i, "blocks": int(blocks[i])}
                | {name: float(of[i]) for name, of in values.items()}
                for i in range(len(blocks))
            ],
        },
        figure=figures.differences(rows, f"Easy minus hard ({study.about})"),
        table=(
            ("measure", "", ""),
            ("first", "easy", ".4g"),
            ("second", "hard", ".4g"),
            ("difference", "difference", ".3g"),
            ("low", "from", ".3g"),
            ("high", "to", ".3g"),
        ),
        claims=[
            Claim(
                f"{about} (Fig. 7)",
                verdict(row["low"], row["high"]),
                f"{row['first']:.4g} against {row['second']:.4g}, difference "
                f"{row['low']:.3g} to {row['high']:.3g}",
            )
            for about, row in zip(_ABOUT_EASY, rows)
        ],
    )


def _direction(row):
    if row["low"] > 0:
        return "higher"
    return "lower" if row["high"] < 0 else "not told apart"


def input_scales(study: Study) -> Exhibit:
    """Blocks executed at other input scales (Fig. 8)."""
    count = len(study.routes[study.looking].labels)
    chosen = np.linspace(0, count - 1, min(_SCALED, count)).astype(int)
    found = probes.at_scales(
        study.networks[study.last],
        study.pixels(chosen),
        study.run.preprocessing().normalise,
    )
    change = {scale: blocks - found[1.0] for scale, blocks in found.items()}
    rows = [
        {"image": int(image), "scale": scale, "blocks": int(blocks)}
        for scale, of_scale in found.items()
        for image, blocks in zip(chosen, of_scale)
    ]
    means = {
        scale: findings.mean_interval(moved)
        for scale, moved in change.items()
        if scale != 1
    }
    told = ", ".join(
        f"{middle:+.2f} ({low:+.2f} to {high:+.2f}) at {scale:g}"
        for scale, (low, middle, high) in means.items()
    )
    return Exhibit(
        name="input_scales",
        title="Blocks executed at other input scales (Fig. 8)",
        caption=(
            f"{len(chosen)} images, resized before they are normalised: how "
            "many more blocks each runs than at scale 1 (dashed). On average, "
            f"with 95 % confidence intervals: {told}."
        ),
        data={"input_scales": rows},
        figure=plots.distributions(
            {f"{scale:g}": moved for scale, moved in change.items()},
            "blocks executed, more than at scale 1",
            f"Input scales, {study.last} ({study.about})",
        ),
        claims=[
            _scale_claim(means, min(means)),
            _scale_claim(means, max(means)),
        ],
    )


def _scale_claim(means, scale):
    low, middle, high = means[scale]
    larger = scale > 1
    return Claim(
        f"At scale {scale:g} images run {'more' if larger else 'fewer'} "
        "blocks (Fig. 8)",
        verdict(low, high) if larger else verdict(-high, -low),
        f"{middle:+.2f} blocks ({low:+.2f} to {high:+.2f})",
    )
