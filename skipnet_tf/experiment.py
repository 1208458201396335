"""What every run shares: set-up, stages, resuming, results (Algorithm 1).

A run lives in one work directory:

    flags.txt  result.json
    base/ sp/ hrl/ ...       one folder for each stage, holding
        settings.json        its flags
        safety.json          its first accuracy and its retreats
        checkpoints/         to resume from, removed when the stage is done
        log.csv              one row an epoch
        gates.csv            one row an epoch and gate
        tensorboard/         scalars and the picture of skip rates
        model.keras          network, optimizer and stage at the end
        result.json          accuracy and compute
"""

import dataclasses
import json
import math
import os
import shutil
import tempfile

import keras
import tensorflow as tf

from skipnet_tf import attempts
from skipnet_tf import calibration
from skipnet_tf import callbacks
from skipnet_tf import checkpoints
from skipnet_tf import collapse
from skipnet_tf import distribution
from skipnet_tf import evaluation
from skipnet_tf import flops
from skipnet_tf import optimizers
from skipnet_tf import recalibration
from skipnet_tf import retreats
from skipnet_tf.attempts import Plan
from skipnet_tf.collapse import percent
from skipnet_tf.logs import write_json
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet
from skipnet_tf.splits import Data

_NEAR = 0.02  # of the multiply-adds that were asked for


def set_up(
    workdir: str,
    deterministic: bool = False,
    mixed_precision: str = "float32",
    device: str = "auto",
) -> None:
    """Makes the work directory and sets what holds for the whole process.

    Args:
        workdir: String, the folder that receives everything.
        deterministic: Bool, equal runs give equal bits, at some cost in
            speed. Defaults to `False`.
        mixed_precision: `"float32"`, `"mixed_bfloat16"` or
            `"mixed_float16"`. Defaults to `"float32"`.
        device: `"auto"`, `"cpu"` or `"gpu"`; TensorFlow uses a GPU that is
            there unless told not to, and says nothing if there is none.
            Defaults to `"auto"`.

    Raises:
        ValueError: If `workdir` cannot be written or the device is missing.
    """
    try:
        os.makedirs(workdir, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(b"yes")
    except OSError as error:
        raise ValueError(
            "`workdir` must be a folder that can be written. "
            f"Received: workdir={workdir} ({error.strerror})"
        ) from error
    if device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise ValueError(
            "`device` must be one that TensorFlow finds: no GPU is visible "
            '(pip install "tensorflow[and-cuda]"?). Received: device=gpu'
        )
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    keras.mixed_precision.set_global_policy(mixed_precision)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def run_stage(
    plan: Plan,
    splits: Data,
    workdir: str,
    strategy: tf.distribute.Strategy,
    checkpoint_steps: int = 0,
    together: int = 1,
    safety: collapse.Safety = collapse.Safety(),
) -> dict:
    """Trains one stage, or resumes it, or reads what it gave.

    Args:
        plan: The stage.
        splits: The data.
        workdir: String, the run's folder.
        strategy: Where to train.
        checkpoint_steps: Int, steps between checkpoints inside an epoch, 0
            for one at the end of each epoch only. Defaults to `0`.
        together: Positive int, most training steps that run without a
            callback between them. Defaults to `1`.
        safety: What happens to a run that collapses. Defaults to
            `collapse.Safety()`, it stops.

    Returns:
        Dict with a summary for `"validation"` and, if there is one,
        `"test"`, see `skipnet_tf.evaluation.summary`, the `"threshold"` if it
        was chosen, and the number of `"retreats"` if there were any.

    Raises:
        ValueError: If the batch is larger than the data, the disk too small
            for the checkpoints, or several processes are to fall back.
        TrainingCollapsed: If the run has collapsed.
        TrainingDiverged: If the loss is not a number any more.
        WorkerLost: If another process of the run is gone.
    """
    count = distribution.workers(strategy)[1]
    if count > 1 and safety.on_collapse == "fall_back":
        raise ValueError(
            '`on_collapse` must be "stop" or "ignore" where several processes '
            f"train together. Received: on_collapse='fall_back' and {count} "
            "processes"
        )
    folder = os.path.join(workdir, plan.name)
    with distribution.watched(strategy):
        distribution.check_shared(strategy, workdir)
        return _run_stage(
            attempts.Job(
                plan,
                splits,
                folder,
                strategy,
                checkpoint_steps,
                together,
                safety,
            )
        )


def _run_stage(job):
    finished = os.path.join(job.folder, "result.json")
    if os.path.exists(finished):
        with open(finished) as file:
            return json.load(file)
    os.makedirs(job.folder, exist_ok=True)
    model = _trained(job)
    if optimizers.averages(model):
        optimizers.assign_averages(model)
    if job.writes:
        _conclude(job, model)
    distribution.wait_for_all(job.strategy)
    with open(finished) as file:
        return json.load(file)


def _trained(job):
    """The model at the end of a stage, after as many retreats as it takes."""
    while True:
        record = retreats.read(job.folder)
        # Here, not once per run: initial weights must not depend on which
        # stages were built before in the same process.
        keras.utils.set_random_seed(job.splits.seed)
        with job.strategy.scope():
            model = job.plan.make(record.retreats)
        checkpoints.check_disk(model, job.folder)
        try:
            attempts.train(job, model)
            return model
        except (
            collapse.TrainingCollapsed,
            callbacks.TrainingDiverged,
        ) as error:
            gentler_helps = getattr(error, "gentler_helps", True)
            if job.safety.on_collapse != "fall_back" or not gentler_helps:
                raise
            if record.retreats == retreats.MOST:
                raise collapse.TrainingCollapsed(
                    f"after {retreats.MOST} retreats: {error}"
                ) from error
            collapse.warn(str(error))
        record = retreats.retreat(job.folder)
        print(
            f"{job.plan.name}: falling back to step {record.step}, retreat "
            f"{record.retreats} of at most {retreats.MOST}; it was "
            f"{retreats.settings(model)}",
            flush=True,
        )


def _conclude(job, model):
    """Writes what a stage gave; `result.json` says that it is complete."""
    splits, folder = job.splits, job.folder
    result = {}
    if job.plan.target_macs is not None:
        # Statistics are to be those of the policy that is served, which they
        # then change a little.
        last = not job.plan.recalibrate
        result["threshold"] = _meet_target(job, model, tell=last)
    if job.plan.recalibrate:
        recalibration.recalibrate(
            model, _some_batches(job), job.plan.recalibrate
        )
        if job.plan.target_macs is not None:
            result["threshold"] = _meet_target(job, model)
    model.save(os.path.join(folder, "model.keras"))
    result |= {
        name: evaluate(model, splits, split)
        for name, split in (
            ("validation", splits.validation_split),
            ("test", splits.test_split),
        )
        if split
    }
    record = retreats.read(folder)
    if record.retreats:
        result["retreats"] = record.retreats
    write_json(os.path.join(folder, "result.json"), result)
    shutil.rmtree(os.path.join(folder, "checkpoints"), ignore_errors=True)


def _meet_target(job, model, tell=True):
    """The threshold at which the target is met, if the network bears it.

    Where gates are about as sure of all images, one number moves them all at
    once.
    """
    name, target = job.plan.name, job.plan.target_macs
    splits, split = job.splits, job.splits.validation_split
    model.threshold = 0.5
    before = evaluate(model, splits, split)
    found = calibration.threshold_for(model, splits.evaluation(split), target)
    model.threshold = found
    after = before if found == 0.5 else evaluate(model, splits, split)
    told = (
        f"{name}: a threshold of {found:.3g} instead of 0.5 takes "
        f"multiply-adds from {percent(before['macs_fraction'])} to "
        f"{percent(after['macs_fraction'])} and validation accuracy from "
        f"{percent(before['accuracy'])} to {percent(after['accuracy'])}"
    )
    floor = collapse.Floor.of(
        model.num_classes, before["accuracy"], job.safety.accuracy_floor
    )
    shut = after["executed_blocks"] * sum(model.groups) < 1.001  # block 0
    stays = after["accuracy"] < floor.accuracy or shut
    if stays:
        model.threshold, after = 0.5, before
    if not tell:
        return model.threshold
    if stays:
        collapse.warn(f"{told}: it stays at 0.5")
    elif found != 0.5:
        print(told, flush=True)
    if abs(after["macs_fraction"] - target) > _NEAR:
        collapse.warn(
            f"{name} spends {percent(after['macs_fraction'])} of the dense "
            f"network's multiply-adds where {percent(target)} were asked for: "
            "train longer, or give gates that differ from image to image"
        )
    return model.threshold


def _some_batches(job):
    # Not by a service, which would give each process others.
    own = dataclasses.replace(job.splits, service=None)
    epochs = math.ceil(job.plan.recalibrate / own.steps_per_epoch)
    return own.training(epochs, first_step=0)


def evaluate(model: ResNet | SkipNet, splits: Data, split: str) -> dict:
    """Accuracy and compute of the thresholded policy on a split."""
    info = splits.describe()
    count = flops.count(model, tuple(info.image_shape))
    routes = evaluation.collect(model, splits.evaluation(split))
    return evaluation.summary(routes, count.dense)
