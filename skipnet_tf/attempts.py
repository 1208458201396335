"""One attempt at a stage: from its latest checkpoint to its end."""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Callable

import keras
import tensorflow as tf

from skipnet_tf import callbacks
from skipnet_tf import checkpoints
from skipnet_tf import collapse
from skipnet_tf import distribution
from skipnet_tf import fitting
from skipnet_tf import logs
from skipnet_tf import monitors
from skipnet_tf import optimizers
from skipnet_tf import retreats
from skipnet_tf.splits import Data


@dataclasses.dataclass(frozen=True)
class Plan:
    """One stage of a run.

    Args:
        name: String, the stage and its folder.
        steps: Positive int, training steps.
        make: Function of the number of retreats from a collapse, 0 at first,
            each of which asks for gentler settings, that returns the compiled
            model with the weights to start from; called inside the strategy's
            scope.
        given: Optional string, weights from elsewhere that the stage starts
            from: their accuracy is told first. Defaults to `None`.
        recalibrate: Int, training batches from which statistics of batch
            normalisation are estimated anew at the end. Defaults to `0`, those
            of training stay.
        target_macs: Optional float, multiply-adds that the policy is to spend
            on validation images, see `calibration.threshold_for`. Defaults to
            `None`, the threshold stays.
    """

    name: str
    steps: int
    make: Callable[[int], keras.Model]
    given: str | None = None
    recalibrate: int = 0
    target_macs: float | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """What a stage is trained with, see `experiment.run_stage`."""

    plan: Plan
    splits: Data
    folder: str
    strategy: tf.distribute.Strategy
    checkpoint_steps: int
    together: int
    safety: collapse.Safety

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return distribution.workers(self.strategy)[0] == 0


def train(job: Job, model: keras.Model) -> None:
    """Trains a model to the end of a stage, from its latest checkpoint on.

    Args:
        job: The stage.
        model: Compiled network, as the plan makes it.

    Raises:
        TrainingCollapsed: If the run has collapsed.
        TrainingDiverged: If the loss is not a number any more.
        WorkerLost: If another process of the run is gone.
    """
    plan, splits, strategy = job.plan, job.splits, job.strategy
    shard = distribution.workers(strategy)
    epochs = math.ceil(plan.steps / splits.steps_per_epoch)
    counter = callbacks.Steps()
    manager = checkpoints.manager(
        model, counter.variable, os.path.join(job.folder, "checkpoints")
    )
    retreats.restore(model, manager, job.folder, counter)
    first = counter.done
    distribution.check_agreement(
        strategy,
        first % 2**20,
        f"checkpoints in {job.folder} must be the same for all workers. "
        f"Received: one of step {first}, and another one elsewhere",
    )
    feed = fitting.Feed(
        lambda step: splits.training(epochs, step, shard),
        lambda: splits.evaluation(splits.validation_split, shard),
    )
    record = retreats.read(job.folder)
    if not first and record.start_accuracy is None:
        record = _measure_start(job, model, feed)
    elif first and job.writes:
        print(f"{plan.name}: resuming at step {first} of {plan.steps}")
    if record.retreats and job.writes:
        print(
            f"{plan.name}: gentler settings after {record.retreats} "
            f"retreat(s): {retreats.settings(model)}",
            flush=True,
        )
    parts = fitting.segments(first, plan.steps, splits.steps_per_epoch)
    shared = _callbacks(job, model, epochs, counter, manager, record)
    fitting.fit(model, strategy, feed, list(parts), shared, job.together)


def _callbacks(job, model, epochs, counter, manager, record):
    """In the order in which they see the end of an epoch."""
    name, folder, writes = job.plan.name, job.folder, job.writes
    shared = [counter]
    if writes:
        shared += [
            logs.CsvLog(os.path.join(folder, "log.csv"), counter),
            logs.Progress(name, job.plan.steps, epochs, counter),
        ]
    if hasattr(model, "route_metrics"):
        path = os.path.join(folder, "gates.csv")
        shared.append(logs.GateLog(path, counter, writes))
        shared.append(monitors.GateMonitor(name, writes))
    if importlib.util.find_spec("tensorboard"):  # tf.summary lives there
        board = os.path.join(folder, "tensorboard")
        shared.append(logs.TensorBoardLog(board, writes))
    given, stage = job.safety.accuracy_floor, getattr(model, "stage", None)
    # The paper's own baseline of pure reinforcement learning collapses.
    if given is not None or getattr(stage, "supervises", True):
        floor = collapse.Floor.of(
            model.num_classes, record.start_accuracy, given
        )
        if record.armed:
            floor = dataclasses.replace(floor, armed=True)
        shared.append(
            collapse.CollapseGuard(
                name,
                counter,
                epochs,
                floor,
                retreats.good_checkpoints(manager, folder) if writes else None,
                stop=job.safety.on_collapse != "ignore",
                armed=lambda: retreats.arm(folder) if writes else None,
            )
        )
    own = manager if writes else None
    shared.append(callbacks.Checkpoints(own, counter, job.checkpoint_steps))
    if optimizers.averages(model):
        shared.append(keras.callbacks.SwapEMAWeights())
    return shared


def _measure_start(job, model, feed):
    """Notes the accuracy before the first step, from which a run can fall."""
    plan, split = job.plan, job.splits.validation_split
    gated = hasattr(model, "threshold")
    start = fitting.validate(model, job.strategy, feed)
    record = retreats.Record(start_accuracy=start.get("accuracy"))
    if not job.writes:
        return record
    retreats.write(job.folder, record)
    if plan.given:
        print(
            f"{plan.name}: starting from {plan.given}, which has "
            f"{100 * start['accuracy']:.2f} % accuracy on "
            f"{job.splits.infos[split].num_examples} validation images with "
            f"{100 * start.get('executed_blocks', 1.0):.1f} % of the blocks"
            + (f", threshold {model.threshold:g}" if gated else ""),
            flush=True,
        )
    return record
