"""Going back to the last good checkpoint of a stage, with gentler settings."""

import dataclasses
import glob
import json
import os

import keras
import tensorflow as tf

from skipnet_tf import logs
from skipnet_tf.callbacks import Steps

MOST = 3

_RECORD = "safety.json"
# Within the folder of the other checkpoints, which is removed in the end.
_GOOD = os.path.join("checkpoints", "good")


@dataclasses.dataclass(frozen=True)
class Record:
    """What a stage has to know again when it is resumed.

    Args:
        start_accuracy: Optional float, validation accuracy before its first
            step. Defaults to `None`, unknown.
        retreats: Int, how often it has gone back. Defaults to `0`.
        step: Int, the step it has gone back to; checkpoints of later steps
            are of the present settings. Defaults to `0`.
        armed: Bool, whether accuracy has reached what it must not fall below.
            Defaults to `False`.
    """

    start_accuracy: float | None = None
    retreats: int = 0
    step: int = 0
    armed: bool = False


def read(folder: str) -> Record:
    """The record in a stage's folder, or a new one."""
    path = os.path.join(folder, _RECORD)
    if not os.path.exists(path):
        return Record()
    with open(path) as file:
        return Record(**json.load(file))


def write(folder: str, record: Record) -> None:
    """Notes the record in a stage's folder."""
    logs.write_json(os.path.join(folder, _RECORD), dataclasses.asdict(record))


def good_checkpoints(
    manager: tf.train.CheckpointManager, folder: str
) -> tf.train.CheckpointManager:
    """Where the last good checkpoint of a stage is kept.

    Args:
        manager: That of its other checkpoints, which rotate.
        folder: String, the stage's folder.
    """
    return tf.train.CheckpointManager(
        manager.checkpoint, os.path.join(folder, _GOOD), max_to_keep=1
    )


def restore(
    model: keras.Model,
    manager: tf.train.CheckpointManager,
    folder: str,
    counter: Steps,
) -> None:
    """Restores the latest checkpoint of a stage, if there is one.

    One from before a retreat gives weights and slots of the optimizer, but
    not its hyper-parameters, which had led to collapse. Only a price that
    adapts itself to a target is taken from there, and halved for each retreat.

    Args:
        model: Compiled network.
        manager: Checkpoints of it.
        folder: String, the stage's folder.
        counter: `Steps`, restored with it.
    """
    good = good_checkpoints(manager, folder)
    latest = manager.latest_checkpoint or good.latest_checkpoint
    if latest is None:
        return
    fresh = [(v, v.numpy()) for v in _hyperparameters(model)]
    manager.checkpoint.restore(latest).assert_existing_objects_matched()
    record = read(folder)
    if not record.retreats or counter.done > record.step:
        return
    stage = getattr(model, "stage", None)
    adapted = getattr(stage, "target_macs", None) is not None
    for variable, value in fresh:
        if adapted and variable is stage.alpha:
            value = 0.5**record.retreats * variable.numpy()
        variable.assign(value)


def retreat(folder: str) -> Record:
    """Goes back to the last good checkpoint of a stage, or to its start.

    Args:
        folder: String, the stage's folder.

    Returns:
        The record as it is now.
    """
    latest = tf.train.latest_checkpoint(os.path.join(folder, _GOOD))
    step = int(latest.rsplit("-", 1)[1]) if latest else 0
    # What names the checkpoints goes first: without it none is found. A run
    # that is killed before the record is written collapses once more.
    checkpoints = os.path.join(folder, "checkpoints")
    others = glob.glob(os.path.join(glob.escape(checkpoints), "ckpt-*"))
    for path in (os.path.join(checkpoints, "checkpoint"), *others):
        if os.path.isfile(path):
            os.remove(path)
    record = read(folder)
    record = dataclasses.replace(
        record, retreats=record.retreats + 1, step=step
    )
    write(folder, record)
    return record


def arm(folder: str) -> None:
    """Notes that accuracy has reached what it must not fall below."""
    write(folder, dataclasses.replace(read(folder), armed=True))


def settings(model: keras.Model) -> str:
    """Learning rate and the stage's hyper-parameters at the present step."""
    optimizer, stage = model.optimizer, getattr(model, "stage", None)
    values = {"learning_rate": optimizer.learning_rate}
    step = tf.cast(tf.convert_to_tensor(optimizer.iterations), tf.int64)
    for name in stage.hyperparameters if stage else ():
        values[name] = stage.value(name, step)
    return ", ".join(
        f"{name} {float(keras.ops.convert_to_numpy(value)):.4g}"
        for name, value in values.items()
    )


def _hyperparameters(model):
    """The variables among them."""
    stage = getattr(model, "stage", None)
    named = [v for v in model.optimizer.variables if v.name == "learning_rate"]
    values = [getattr(stage, n) for n in stage.hyperparameters] if stage else []
    return named + [value for value in values if not callable(value)]
