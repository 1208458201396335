"""Work directories of the trainers: what was trained, and what it reached."""

import dataclasses
import json
import os

import keras
import tensorflow as tf

from skipnet_tf import data
from skipnet_tf.preprocessing import Preprocessing
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet

_BATCH_SIZE = 500


@dataclasses.dataclass(frozen=True)
class Run:
    """A work directory of the trainers.

    Attributes:
        workdir: String, the folder.
        dataset: String, a data set that `skipnet_tf.data` knows.
        data_dir: Optional string, where it is.
        split: String, the test split, or validation where there is none, or
            a stage has not seen it.
        summaries: Dict from stage to `evaluation.summary` on that split, in
            the order of training.
        image_size: Optional int, side of the photographs in pixels. Defaults
            to `None`, that of the data set.
        normalization: Optional string, the data set whose mean and deviation
            were used. Defaults to `None`, its own.
        depth: Optional int, layers of the network. Defaults to `None`,
            unknown.
        gate: Optional string, kind of its gates. Defaults to `None`, unknown.
    """

    workdir: str
    dataset: str
    data_dir: str | None
    split: str
    summaries: dict[str, dict]
    image_size: int | None = None
    normalization: str | None = None
    depth: int | None = None
    gate: str | None = None

    @property
    def name(self) -> str:
        """The folder's own name."""
        return os.path.basename(os.path.abspath(self.workdir))

    def settings(self, stage: str) -> dict:
        """Flags that mattered to a stage; empty where none are noted."""
        path = os.path.join(self.workdir, stage, "settings.json")
        if not os.path.exists(path):
            return {}
        with open(path) as file:
            return json.load(file)

    def path(self, stage: str) -> str:
        """The file of a stage's network."""
        return os.path.join(self.workdir, stage, "model.keras")

    def model(self, stage: str) -> ResNet | SkipNet:
        """The network at the end of a stage."""
        return keras.saving.load_model(self.path(stage))

    def images(self) -> tf.data.Dataset:
        """Batches of normalised images and labels, in order."""
        return data.load(
            self.dataset,
            self.split,
            batch_size=_BATCH_SIZE,
            data_dir=self.data_dir,
            image_size=self.image_size,
            normalization=self.normalization,
        )

    def describe(self) -> data.DatasetInfo:
        """What the split holds."""
        return data.describe(
            self.dataset,
            self.split,
            self.data_dir,
            image_size=self.image_size,
        )

    def preprocessing(self) -> Preprocessing:
        """What happened to the images before the network saw them."""
        return data.preprocessing_of(
            self.dataset, self.image_size, self.normalization
        )


def open_run(workdir: str) -> Run:
    """Reads the results of a run; stages without a network are left out.

    Args:
        workdir: String, the trainer's `--workdir`.

    Returns:
        A `Run`.

    Raises:
        ValueError: If there is no finished stage.
    """
    path = os.path.join(workdir, "result.json")
    result = {"stages": {}}
    if os.path.exists(path):
        with open(path) as file:
            result = json.load(file)
    # Stages may have been trained before a test split was named.
    tested = all("test" in found for found in result["stages"].values())
    kind = "test" if result.get("test_split") and tested else "validation"
    run = Run(
        workdir=workdir,
        dataset=result.get("dataset"),
        data_dir=result.get("data_dir"),
        split=result.get(f"{kind}_split"),
        summaries={s: found[kind] for s, found in result["stages"].items()},
        image_size=result.get("image_size"),
        normalization=result.get("normalization"),
        depth=result.get("depth"),
        gate=result.get("gate"),
    )
    for stage in [s for s in run.summaries if not os.path.exists(run.path(s))]:
        del run.summaries[stage]
    if not run.summaries:
        raise ValueError(
            "`workdir` must hold result.json and the model.keras of a "
            f"finished stage. Received: workdir={workdir}"
        )
    return run
