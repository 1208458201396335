"""What a report consists of, and the networks and routes that it shows."""

import csv
import dataclasses
import functools
import os
from collections.abc import Sequence

import numpy as np
import tqdm

from skipnet_tf import data
from skipnet_tf import evaluation
from skipnet_tf import flops
from skipnet_tf.analysis import figures
from skipnet_tf.analysis import findings
from skipnet_tf.analysis import plots
from skipnet_tf.analysis import probes
from skipnet_tf.runs import Run
from skipnet_tf.skipnet import SkipNet

# The paper compares networks "within a variance of 0.5 %" (Sec. 4).
MATCHED = 0.005
_NAME = 13  # letters above an image

_STAGE_COLUMNS = (
    ("stage", "stage", ""),
    ("accuracy", "accuracy", ".2%"),
    ("executed_blocks", "blocks executed", ".1%"),
    ("macs", "multiply-adds per image", ".3g"),
    ("macs_fraction", "of dense", ".1%"),
    ("distinct_paths", "distinct paths", ""),
    ("entropy_bits", "entropy of paths, bits", ".2f"),
    ("input_dependent", "gates that depend on the image", ".0%"),
)


HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told"


class LeftOut(Exception):
    """Why an exhibit cannot be shown; the others can."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """What these runs say to a claim of the paper.

    Attributes:
        text: String, the claim and where it stands.
        verdict: String: `HOLDS`, where not everywhere with how often;
            `FAILS`, or `UNKNOWN`.
        numbers: String, what the verdict follows from.
    """

    text: str
    verdict: str
    numbers: str


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """A picture or a table with its data and its words.

    Attributes:
        name: String, of its files and its place in the report.
        title: String.
        caption: String, how to read it and what it shows in this run.
        data: Dict from the name of a CSV file to its rows, dicts with the
            same keys; the first one's are shown where there is a `table`.
        figure: Optional matplotlib figure. Defaults to `None`.
        table: Sequence of `(key, header, format)`, the columns to show, such
            as `("accuracy", "accuracy", ".2%")`. Defaults to `()`, none.
        claims: Sequence of `Claim`. Defaults to `()`.
    """

    name: str
    title: str
    caption: str
    data: dict[str, Sequence[dict]]
    figure: plots.Figure | None = None
    table: Sequence[tuple[str, str, str]] = ()
    claims: Sequence[Claim] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """A run, its networks with gates, and what these did with its images.

    Attributes:
        run: A `Run`.
        networks: Dict from stage to `SkipNet`, in the order of training;
            empty where no finished stage has gates.
        routes: Dict from stage to `evaluation.Routes`.
        shows_images: Bool, whether exhibits may show images of the data set.
    """

    run: Run
    networks: dict[str, SkipNet]
    routes: dict[str, evaluation.Routes]
    shows_images: bool = True

    @property
    def last(self) -> str:
        """The last stage with gates, which most exhibits are about."""
        if not self.networks:
            raise LeftOut("no finished stage has gates")
        return list(self.networks)[-1]

    def random(self, stage: str) -> bool:
        """Whether a stage decides at random (SDV)."""
        settings = self.run.settings(stage)
        return stage == "sp" and settings.get("gating") == "random"

    @property
    def looking(self) -> str:
        """The last stage, where its gates look at the image."""
        if self.random(self.last):
            raise LeftOut("the network decides at random, not by the image")
        return self.last

    @property
    def groups(self) -> tuple[int, ...]:
        """Blocks in each group."""
        return tuple(self.networks[self.last].get_config()["blocks"])

    @functools.cached_property
    def info(self) -> data.DatasetInfo:
        """What the images are."""
        return self.run.describe()

    def pixels(self, indices: Sequence[int]) -> np.ndarray:
        """Images by their position, uint8 `(indices, height, width, 3)`."""
        images = probes.pick(self.run.images(), indices)
        return probes.pixels(images, self.run.preprocessing())

    def photographs(
        self, rows: dict[str, tuple[Sequence[int], Sequence[str]]], title: str
    ) -> plots.Figure | None:
        """Rows of images by their positions, each with its label."""
        rows = {name: row for name, row in rows.items() if len(row[0])}
        if not (self.shows_images and rows):
            return None
        drawn = {
            name: (self.pixels(indices), labels)
            for name, (indices, labels) in rows.items()
        }
        return figures.photographs(drawn, f"{title} ({self.about})")

    @property
    def withheld(self) -> str:
        """What a caption says where images may not be shown."""
        return "" if self.shows_images else " The images are not shown here."

    @functools.cached_property
    def count(self) -> flops.Count:
        """Multiply-adds of the network, part by part."""
        shape = tuple(self.info.image_shape)
        return flops.count(self.networks[self.last], shape)

    @functools.cached_property
    def thresholds(self) -> dict[str, np.ndarray]:
        """`probes.at_thresholds` of the last stage."""
        network = self.networks[self.looking]
        return probes.at_thresholds(network, self.run.images())

    @functools.cached_property
    def other_paths(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Gates and predictions of the last stage, and of other policies."""
        routes = self.routes[self.last]
        paths, counts = np.unique(routes.gates, axis=0, return_counts=True)
        turns = np.random.default_rng(0).permutation(len(routes.gates))
        others = {
            "another image's": routes.gates[turns],
            "the commonest": paths[[counts.argmax()] * len(turns)],
            "every block": np.ones_like(routes.gates),
        }
        predictions = probes.imposed(
            self.networks[self.last],
            self.run.images(),
            np.stack(list(others.values())),
        )
        own = {"its own": (routes.gates, routes.predictions)}
        return own | dict(zip(others, zip(others.values(), predictions)))

    @property
    def about(self) -> str:
        """Data set and split."""
        return f"{self.run.dataset}, {self.run.split}"

    def summaries(self) -> dict[str, dict]:
        """`evaluation.summary` of every stage, with gates or without."""
        found = dict(self.run.summaries)
        for stage, routes in self.routes.items():
            found[stage] = evaluation.summary(routes, self.count.dense)
        return found


def study(run: Run, shows_images: bool = True) -> Study:
    """Loads the networks of a run and runs them over its images.

    Args:
        run: A `Run`.
        shows_images: See `Study`. Defaults to `True`.

    Returns:
        A `Study`.
    """
    networks = {stage: run.model(stage) for stage in run.summaries}
    gated = {s: net for s, net in networks.items() if isinstance(net, SkipNet)}
    bar = tqdm.tqdm(
        gated.items(), "running", disable=None, ascii=True, leave=False
    )
    return Study(
        run=run,
        networks=gated,
        routes={
            stage: evaluation.collect(network, run.images())
            for stage, network in bar
        },
        shows_images=shows_images,
    )


def percent(share: float, digits: int = 1) -> str:
    """A share in words."""
    return f"{100 * share:.{digits}f} %"


def verdict(low: float, high: float) -> str:
    """Of a claim that a number is positive, by its interval."""
    if low > 0:
        return HOLDS
    return FAILS if high < 0 else UNKNOWN


def short(name: str) -> str:
    """A class name that fits above a small image."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def stages(study: Study) -> Exhibit:
    """The table that a reader can quote, and every image's route."""
    rows, data = [], {}
    for stage, summary in study.summaries().items():
        routes = study.routes.get(stage)
        gates = routes.gates if routes else np.zeros([1, 0])
        looking = routes and not study.random(stage)
        dynamic = findings.input_dependent(gates) if looking else None
        rows.append(
            {
                "stage": stage,
                **summary,
                "entropy_bits": findings.policy_entropy(gates),
                "input_dependent": dynamic,
            }
        )
        if routes:
            data[f"images_{stage}"] = _image_rows(routes)
    return Exhibit(
        name="stages",
        title="Stages of the run",
        caption=(
            f"{rows[-1]['images']} images ({study.about}), decisions by "
            "threshold. Multiply-adds include those of the gates and are "
            "compared with the same network without gates; the share of "
            "blocks counts block 0, which always runs. The entropy is 0 "
            "where all images take one path. images_STAGE.csv holds what "
            "each image did; everything here follows from it."
        ),
        data={"stages": rows, **data},
        table=_STAGE_COLUMNS,
    )


def _image_rows(routes):
    return [
        {
            "image": index,
            "label": int(routes.labels[index]),
            "prediction": int(routes.predictions[index]),
            "confidence": float(routes.confidence[index]),
            "blocks": int(routes.blocks[index]),
            "macs": int(routes.macs[index]),
            "gates": "".join(str(int(g)) for g in routes.gates[index]),
        }
        for index in range(len(routes.labels))
    ]


def read_log(run: Run, stage: str) -> list[dict]:
    """Rows of a stage's `log.csv`; none where there is no such file."""
    path = os.path.join(run.workdir, stage, "log.csv")
    if not os.path.exists(path):
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
