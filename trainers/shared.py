"""The main job that all trainers share: stages in order, then the table."""

import json
import os
import sys

import building
import common_flags
import keras
import settings
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

import skipnet_tf
from skipnet_tf import collapse
from skipnet_tf import data
from skipnet_tf import distribution
from skipnet_tf import evaluation
from skipnet_tf import experiment


def run(main) -> None:
    """Runs a script; mistakes of its user end in one line, not a traceback."""

    def guarded(argv):
        logging.set_verbosity(logging.WARNING)
        # Its warnings are about code, not about what the user asked for.
        tf.get_logger().setLevel("ERROR")
        try:
            main(argv)
        except distribution.WorkerLost as error:
            print(f"{error}; starting again", file=sys.stderr, flush=True)
            # Anew: TensorFlow cannot leave a cluster and join another one.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        except (
            ValueError,
            ImportError,
            OSError,
            RuntimeError,
            tf.errors.OpError,
        ) as error:
            if os.environ.get("SKIPNET_TF_TRACEBACK"):
                raise
            message = getattr(error, "message", None) or str(error)
            sys.exit(f"error: {message}")

    app.run(guarded)


def train(dataset: str, family: str = "cifar") -> None:
    """The main job: all stages in order, then the table.

    Args:
        dataset: String, a data set that `skipnet_tf.data` knows.
        family: `"cifar"` or `"imagenet"`, the paper's networks for small
            images or for photographs. Defaults to `"cifar"`.
    """
    values = flags.FLAGS
    _check_gating()
    _check_teacher()
    _check_example()
    experiment.set_up(
        values.workdir,
        values.deterministic,
        values.mixed_precision,
        values.device,
    )
    # Before the others are waited for: what needs nothing of TensorFlow.
    for stage in values.stages:
        _check_start(stage)
        settings.check(stage, dataset)
    strategy = distribution.make_strategy(
        values.distribution, values.worker_patience
    )
    splits = _splits(dataset)
    _check_batch(strategy)
    plans = [building.plan(s, family, splits) for s in values.stages]
    # The first one is made in a moment.
    for stage in values.stages[1:]:
        building.check(stage, family, splits)
    writes = distribution.workers(strategy)[0] == 0
    if writes:
        for stage in values.stages:
            settings.write(stage, dataset)
        with open(os.path.join(values.workdir, "flags.txt"), "w") as file:
            file.write(settings.as_flag_file())
        _tell_devices(strategy)
    split = "test" if splits.test_split else "validation"
    rows = []
    for plan in plans:
        result = experiment.run_stage(
            plan,
            splits,
            values.workdir,
            strategy,
            values.checkpoint_steps,
            values.steps_per_execution,
            collapse.Safety(values.on_collapse, values.accuracy_floor),
        )
        rows.append((plan.name, result[split]))
        if writes:
            _write_result(dataset)
    _tell_corrupt()
    if writes:
        print(f"\n{dataset}, {split} images, thresholded policy:\n")
        print(evaluation.table(rows))


def _splits(dataset):
    values = flags.FLAGS
    splits = experiment.Data(
        name=dataset,
        train_split=values.train_split,
        validation_split=values.validation_split,
        test_split=values.test_split,
        batch_size=values.batch_size,
        data_dir=values.data_dir,
        download=values.download,
        seed=values.seed,
        image_size=values.image_size,
        normalization=values.normalization,
        service=values.data_service,
        corrupt=values.corrupt,
    )
    splits.describe()
    return splits


def _tell_devices(strategy):
    values = flags.FLAGS
    replicas = strategy.num_replicas_in_sync
    meant_for = values.learning_rate_batch or values.batch_size
    scale = f" x {values.batch_size} / {meant_for}"
    rates = ", ".join(
        "{:g} = {:g}{} in {}".format(
            *building.learning_rate(stage), scale, stage
        )
        for stage in values.stages
    )
    print(
        f"{replicas} device(s) in {distribution.workers(strategy)[1]} "
        f"process(es): batches of {values.batch_size} = {replicas} x "
        f"{values.batch_size // replicas} images; learning rate {rates}",
        flush=True,
    )


def _tell_corrupt():
    found = data.corrupt_images.summary()
    if found:
        print(found, file=sys.stderr, flush=True)


def _check_batch(strategy):
    values = flags.FLAGS
    parts = strategy.num_replicas_in_sync * values.gradient_accumulation
    if values.batch_size % parts:
        raise ValueError(
            f"--batch_size must be a multiple of {parts}: "
            f"{strategy.num_replicas_in_sync} device(s) with "
            f"--gradient_accumulation={values.gradient_accumulation}. "
            f"Received: --batch_size={values.batch_size}"
        )


def _check_teacher():
    values = flags.FLAGS
    if not set(values.stages) - {"gates", "rl"}:
        return  # which nobody teaches
    base = "base" in values.stages and values.distill_base
    if base and values.distill_from in (None, "base"):
        raise ValueError(
            "--distill_base needs a file in --distill_from: base cannot teach "
            f"itself. Received: --distill_from={values.distill_from}"
        )
    if values["distill_weight"].present and not values.distill_from:
        raise ValueError(
            "--distill_weight needs a teacher: give --distill_from (and "
            "--init_from, to start from its weights), or leave it out"
        )


def _check_example():
    values = flags.FLAGS
    stages, path = values.stages, values.imitate
    if path is None:
        return
    if "gates" not in stages and values.hrl_from != "gates":
        raise ValueError(
            "--imitate is for the stage gates, which is neither in --stages "
            f"nor in --hrl_from. Received: --stages={','.join(stages)} "
            f"--hrl_from={values.hrl_from}"
        )
    if "gates" in stages and (stages[0] != "gates" or values.init_from):
        raise ValueError(
            "gates start from the network in --imitate, and from no other: "
            "begin --stages with gates, and leave out --init_from. "
            f"Received: --stages={','.join(stages)} "
            f"--init_from={values.init_from}"
        )
    if "gates" in stages and not os.path.exists(path):
        raise ValueError(
            "--imitate must be the .keras file of a trained network. "
            f"Received: {path}, which does not exist"
        )


def _check_gating():
    values = flags.FLAGS
    if (values.gating == "random") != (values.skip_rate > 0):
        raise ValueError(
            "--gating=random and a --skip_rate above 0 belong together. "
            f"Received: --gating={values.gating} --skip_rate={values.skip_rate}"
        )


def _check_start(stage):
    """Refuses a stage whose start will be missing, before hours are spent."""
    values = flags.FLAGS
    earlier = values.stages[: values.stages.index(stage)]
    coming = {
        os.path.join(values.workdir, name, "model.keras") for name in earlier
    }
    path = building.first_weights(stage)
    if path and path not in coming and not os.path.exists(path):
        scratch = ", or train untrained weights with --from_scratch"
        raise ValueError(
            f"stage {stage} has no weights to start from: {path} does not "
            "exist. Name the stage before it in --stages, or give --init_from"
            + (scratch if stage in ("hrl", "rl") else "")
        )
    if "gates" in earlier and stage in ("hrl", "rl"):
        _check_gates_are_used(stage)
    path = building.teacher_weights(stage)
    if path and path not in coming and not os.path.exists(path):
        raise ValueError(
            f"--distill_from must be a weights file, or base where that stage "
            f"is trained. Received: {path}, which does not exist"
        )


def _check_gates_are_used(stage):
    values = flags.FLAGS
    if values.from_scratch or values.hrl_from != "gates":
        raise ValueError(
            f"--stages has gates before {stage}, which would not start from "
            "them: give --hrl_from=gates and leave out --from_scratch. "
            f"Received: --hrl_from={values.hrl_from}"
        )


def _write_result(dataset):
    """Notes the finished stages, of earlier commands too."""
    values = flags.FLAGS
    stages = {}
    for stage in common_flags.STAGES:
        path = os.path.join(values.workdir, stage, "result.json")
        if os.path.exists(path):
            with open(path) as file:
                stages[stage] = json.load(file)
    experiment.write_json(
        os.path.join(values.workdir, "result.json"),
        {
            "dataset": dataset,
            "data_dir": values.data_dir,
            "image_size": values.image_size,
            "normalization": values.normalization,
            "validation_split": values.validation_split,
            "test_split": values.test_split,
            "depth": values.depth,
            "gate": values.gate,
            "seed": values.seed,
            "versions": {
                "skipnet_tf": skipnet_tf.__version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
            "stages": stages,
        },
    )
