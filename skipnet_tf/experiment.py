"""What every run shares: set-up, stages, resuming, results (Algorithm 1).

A run lives in one work directory:

    flags.txt  result.json
    base/ sp/ hrl/ ...       one folder for each stage, holding
        settings.json        its flags
        checkpoints/         to resume from, removed when the stage is done
        log.csv              one row an epoch
        tensorboard/         scalars and the picture of skip rates
        model.keras          network, optimizer and stage at the end
        result.json          accuracy and compute
"""

import dataclasses
import importlib.util
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable

import keras
import tensorflow as tf

from skipnet_tf import callbacks
from skipnet_tf import checkpoints
from skipnet_tf import distribution
from skipnet_tf import evaluation
from skipnet_tf import fitting
from skipnet_tf import flops
from skipnet_tf import optimizers
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet
from skipnet_tf.splits import Data


@dataclasses.dataclass(frozen=True)
class Plan:
    """One stage of a run.

    Args:
        name: String, the stage and its folder.
        steps: Positive int, training steps.
        make: Function without arguments that returns the compiled model with
            the weights to start from; called inside the strategy's scope.
        given: Optional string, weights from elsewhere that the stage starts
            from: their accuracy is measured and told first. Defaults to
            `None`.
    """

    name: str
    steps: int
    make: Callable[[], keras.Model]
    given: str | None = None


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

    Returns:
        Dict with a summary for `"validation"` and, if there is one,
        `"test"`, see `skipnet_tf.evaluation.summary`.

    Raises:
        ValueError: If the batch is larger than the data, or the disk too
            small for the checkpoints.
        TrainingDiverged: If the loss is not a number any more.
        WorkerLost: If another process of the run is gone.
    """
    with distribution.watched(strategy):
        distribution.check_shared(strategy, workdir)
        return _run_stage(
            plan, splits, workdir, strategy, checkpoint_steps, together
        )


def _run_stage(plan, splits, workdir, strategy, checkpoint_steps, together):
    folder = os.path.join(workdir, plan.name)
    finished = os.path.join(folder, "result.json")
    if os.path.exists(finished):
        with open(finished) as file:
            return json.load(file)
    os.makedirs(folder, exist_ok=True)
    # Here, not once per run: initial weights must not depend on which stages
    # were built before in the same process.
    keras.utils.set_random_seed(splits.seed)
    with strategy.scope():
        model = plan.make()
    checkpoints.check_disk(model, folder)
    _train(plan, model, splits, folder, strategy, checkpoint_steps, together)
    if optimizers.averages(model):
        optimizers.assign_averages(model)
    if distribution.workers(strategy)[0] == 0:
        _conclude(model, splits, folder)
    distribution.wait_for_all(strategy)
    with open(finished) as file:
        return json.load(file)


def _conclude(model, splits, folder):
    """Writes what a stage gave; `result.json` says that it is complete."""
    model.save(os.path.join(folder, "model.keras"))
    result = {
        name: evaluate(model, splits, split)
        for name, split in (
            ("validation", splits.validation_split),
            ("test", splits.test_split),
        )
        if split
    }
    write_json(os.path.join(folder, "result.json"), result)
    shutil.rmtree(os.path.join(folder, "checkpoints"), ignore_errors=True)


def _train(plan, model, splits, folder, strategy, checkpoint_steps, together):
    shard = distribution.workers(strategy)
    epochs = math.ceil(plan.steps / splits.steps_per_epoch)
    counter = callbacks.Steps()
    manager = checkpoints.manager(
        model, counter.variable, os.path.join(folder, "checkpoints")
    )
    if manager.latest_checkpoint:
        manager.checkpoint.restore(
            manager.latest_checkpoint
        ).assert_existing_objects_matched()
    first, writes = counter.done, shard[0] == 0
    distribution.check_agreement(
        strategy,
        first % 2**20,
        f"checkpoints in {folder} must be the same for all workers. Received: "
        f"one of step {first}, and another one elsewhere",
    )
    if first and writes:
        print(f"{plan.name}: resuming at step {first} of {plan.steps}")
    elif plan.given and writes:
        _tell_start(plan, model, splits)
    shared = [counter]
    if writes:
        shared += [
            callbacks.CsvLog(os.path.join(folder, "log.csv"), counter),
            callbacks.Progress(plan.name, plan.steps, epochs, counter),
        ]
    own = manager if writes else None
    shared.append(callbacks.Checkpoints(own, counter, checkpoint_steps))
    if optimizers.averages(model):
        shared.append(keras.callbacks.SwapEMAWeights())
    if importlib.util.find_spec("tensorboard"):  # tf.summary lives there
        board = os.path.join(folder, "tensorboard")
        shared.append(callbacks.TensorBoardLog(board, writes))
    parts = fitting.segments(first, plan.steps, splits.steps_per_epoch)
    feed = fitting.Feed(
        lambda step: splits.training(epochs, step, shard),
        lambda: splits.evaluation(splits.validation_split, shard),
    )
    fitting.fit(model, strategy, feed, list(parts), shared, together)


def _tell_start(plan, model, splits):
    start = evaluate(model, splits, splits.validation_split)
    print(
        f"{plan.name}: starting from {plan.given}, which has "
        f"{100 * start['accuracy']:.2f} % accuracy on {start['images']} "
        f"validation images with {100 * start['executed_blocks']:.1f} % of "
        "the blocks",
        flush=True,
    )


def evaluate(model: ResNet | SkipNet, splits: Data, split: str) -> dict:
    """Accuracy and compute of the thresholded policy on a split."""
    info = splits.describe()
    count = flops.count(model, tuple(info.image_shape))
    routes = evaluation.collect(model, splits.evaluation(split))
    return evaluation.summary(routes, count.dense)


def write_json(path: str, value: dict) -> None:
    """Writes a JSON file in one step: a reader never sees half of it."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    os.replace(path + ".tmp", path)
