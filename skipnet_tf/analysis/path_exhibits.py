"""Exhibits of one run about the paths of its images: do they matter?"""

import numpy as np

from skipnet_tf.analysis import findings
from skipnet_tf.analysis.exhibits import Claim
from skipnet_tf.analysis.exhibits import Exhibit
from skipnet_tf.analysis.exhibits import LeftOut
from skipnet_tf.analysis.exhibits import Study
from skipnet_tf.analysis.exhibits import short
from skipnet_tf.analysis.exhibits import verdict

_COLUMNS = 8  # images in a row


def own_paths(study: Study) -> Exhibit:
    """Does it pay to decide for each image?"""
    routes, count = study.routes[study.looking], study.count
    if routes.distinct_paths == 1:
        raise LeftOut("all images take the same path: the policy is static")
    always = count.fixed + count.gates.sum()
    rows, correct = [], {}
    for name, (gates, predictions) in study.other_paths.items():
        correct[name] = predictions == routes.labels
        macs = float(always + (gates @ count.blocks).mean())
        rows.append(
            {
                "path": name,
                "accuracy": float(correct[name].mean()),
                "macs": macs,
                "macs_fraction": macs / count.dense,
            }
        )
    gain = correct["its own"].astype(int) - correct["another image's"]
    low, middle, high = findings.mean_interval(100 * gain)
    return Exhibit(
        name="own_paths",
        title="Does it pay to decide for each image?",
        caption=(
            "Accuracy when images take their own path, the path of another "
            "image drawn at random, which costs the same on average, all the "
            "commonest path, a static network, or every block. With every "
            f"block it is still the network that {study.last} trained to "
            "skip, not the dense one."
        ),
        data={"own_paths": rows},
        table=(
            ("path", "path of each image", ""),
            ("accuracy", "accuracy", ".2%"),
            ("macs", "multiply-adds per image", ".3g"),
            ("macs_fraction", "of dense", ".1%"),
        ),
        claims=[
            Claim(
                "Looking at the image pays: its own path is better for it "
                "than another image's (Sec. 1)",
                verdict(low, high),
                f"{middle:+.2f} points ({low:+.2f} to {high:+.2f})",
            )
        ],
    )


def changed_predictions(study: Study) -> Exhibit:
    """Images whose class changes when blocks are skipped."""
    routes = study.routes[study.last]
    _, every = study.other_paths["every block"]
    changed = np.flatnonzero(every != routes.predictions)
    if not len(changed):
        raise LeftOut("no image changes its class when blocks are skipped")
    names = study.info.class_names
    lost = changed[every[changed] == routes.labels[changed]]
    gained = changed[routes.predictions[changed] == routes.labels[changed]]
    drawn = {}
    for name, chosen in (("lost", lost), ("gained", gained)):
        chosen = chosen[:_COLUMNS]
        classes = zip(every[chosen], routes.predictions[chosen])
        drawn[name] = (
            chosen,
            [
                f"{short(names[before])}\nto {short(names[after])}"
                for before, after in classes
            ],
        )
    rows = [
        {
            "image": int(i),
            "class": names[routes.labels[i]],
            "all_blocks": names[every[i]],
            "skipping": names[routes.predictions[i]],
            "blocks": int(routes.blocks[i]),
        }
        for i in changed
    ]
    return Exhibit(
        name="changed_predictions",
        title="Images that change class when blocks are skipped",
        caption=(
            f"{len(changed)} of {len(every)} images. Right with all gates "
            f"open and lost by skipping: {len(lost)}; wrong and gained: "
            f"{len(gained)}; wrong both times: "
            f"{len(changed) - len(lost) - len(gained)}. "
            "Given: prediction with all blocks, and with those that "
            f"{study.last} runs.{study.withheld}"
        ),
        data={"changed_predictions": rows},
        figure=study.photographs(drawn, f"Changed by skipping, {study.last}"),
    )
