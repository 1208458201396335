"""The main job that all trainers share: stages in order, then the table."""

import json
import os
import sys

import common_flags
import keras
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

import skipnet_tf
from skipnet_tf import checkpoints
from skipnet_tf import evaluation
from skipnet_tf import experiment

# May differ when the same command is given again to resume a run.
_FREE_FLAGS = {
    "workdir",
    "data_dir",
    "download",
    "stages",
    "checkpoint_steps",
    "steps_per_execution",
}
# What later stages depend on, of no concern to the stages before them.
_SP_FLAGS = {
    "gate",
    "gate_init",
    "gating",
    "skip_rate",
    "sp_from_base",
    "sp_steps",
}
_HRL_FLAGS = {
    "alpha",
    "beta",
    "gamma",
    "rl_weight",
    "block_costs",
    "execution",
    "from_scratch",
    "hrl_steps",
    "hrl_learning_rate",
    "hrl_schedule",
}


def run(main) -> None:
    """Runs a script; mistakes of its user end in one line, not a traceback."""

    def guarded(argv):
        logging.set_verbosity(logging.WARNING)
        try:
            main(argv)
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


def train(dataset: str) -> None:
    """The main job: all stages in order, then the table.

    Args:
        dataset: String, a data set that `skipnet_tf.data` knows.
    """
    values = flags.FLAGS
    experiment.set_up(
        values.workdir, values.deterministic, values.mixed_precision
    )
    splits = experiment.Data(
        name=dataset,
        train_split=values.train_split,
        validation_split=values.validation_split,
        test_split=values.test_split,
        batch_size=values.batch_size,
        data_dir=values.data_dir,
        download=values.download,
        seed=values.seed,
    )
    info = splits.describe()
    _check_gating()
    for stage in values.stages:
        _check_start(stage)
        _check_settings(stage, dataset)
    for stage in values.stages:
        _write_settings(stage, dataset)
    with open(os.path.join(values.workdir, "flags.txt"), "w") as file:
        file.write(values.flags_into_string())
    strategy = experiment.make_strategy(values.distribution)
    results, rows = _earlier_results(), []
    for stage in values.stages:
        plan = experiment.Plan(stage, _steps(stage), _maker(stage, info))
        results[stage] = experiment.run_stage(
            plan,
            splits,
            values.workdir,
            strategy,
            values.checkpoint_steps,
            values.steps_per_execution,
        )
        split = "test" if splits.test_split else "validation"
        rows.append((stage, results[stage][split]))
        _write_result(dataset, results)
    print(f"\n{dataset}, {split} images, thresholded policy:\n")
    print(evaluation.table(rows))


def _steps(stage):
    values = flags.FLAGS
    name = "hrl" if stage == "rl" else stage
    return values[f"{name}_steps"].value


def _maker(stage, info):
    values = flags.FLAGS

    def make():
        arguments = {
            "depth": values.depth,
            "num_classes": info.num_classes,
            "input_shape": tuple(info.image_shape),
        }
        if stage == "base":
            model = skipnet_tf.cifar_resnet(**arguments)
        else:
            model = skipnet_tf.cifar_skipnet(
                gate=values.gate, gate_init=values.gate_init, **arguments
            )
        weights = _first_weights(stage)
        if weights:
            checkpoints.load_weights(model, weights)
        compiled = {
            "optimizer": _optimizer(stage),
            "metrics": ["accuracy"],
            "jit_compile": values.jit_compile,
        }
        if stage != "base":
            compiled["stage"] = _stage(stage, model, info)
        model.compile(**compiled)
        return model

    return make


def _stage(stage, model, info):
    values = flags.FLAGS
    if stage == "sp":
        return skipnet_tf.Supervised(
            values.gating, values.skip_rate, values.seed
        )
    costs = None
    if values.block_costs:
        costs = skipnet_tf.flops.count(model, tuple(info.image_shape)).blocks
    kind = skipnet_tf.HybridReinforce
    if stage == "rl":
        kind = skipnet_tf.Reinforce
    return kind(
        alpha=values.alpha,
        beta=values.beta if values.beta == "alpha/N" else float(values.beta),
        gamma=values.gamma,
        rl_weight=values.rl_weight,
        costs=costs,
        seed=values.seed,
        execution=_execution(),
    )


def _execution():
    execution = flags.FLAGS.execution
    if execution != "auto":
        return execution
    gpus = tf.config.list_physical_devices("GPU")
    return "masked" if gpus else "conditional"


def _optimizer(stage):
    values = flags.FLAGS
    late = stage in ("hrl", "rl")
    rate = values.hrl_learning_rate if late else values.learning_rate
    schedule = values.hrl_schedule if late else values.schedule
    if schedule == "step":
        rate = skipnet_tf.schedules.step_decay(rate, _steps(stage), (0.5, 0.75))
    elif schedule == "cosine":
        rate = skipnet_tf.schedules.cosine(rate, _steps(stage))
    if values.warmup_steps and not late:
        rate = skipnet_tf.schedules.WarmUp(rate, values.warmup_steps, 0.01)
    return skipnet_tf.optimizers.SGD(
        rate, momentum=values.momentum, l2=values.l2
    )


def _first_weights(stage):
    """The file a stage starts from, or `None` for random weights."""
    values = flags.FLAGS
    if values.init_weights and stage == values.stages[0]:
        return values.init_weights
    before = {"sp": "base", "hrl": "sp", "rl": "sp"}.get(stage)
    if stage == "sp" and not values.sp_from_base:
        return None
    if before is None or (stage != "sp" and values.from_scratch):
        return None
    return os.path.join(values.workdir, before, "model.keras")


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
    path = _first_weights(stage)
    if path is None or os.path.exists(path):
        return
    earlier = values.stages[: values.stages.index(stage)]
    if os.path.basename(os.path.dirname(path)) not in earlier:
        raise ValueError(
            f"stage {stage} has no weights to start from: {path} does not "
            "exist. Name the stage before it in --stages, give "
            "--init_weights, or train untrained weights with --from_scratch."
        )


def _settings(stage, dataset):
    """The flags that matter to a stage."""
    later = {"base": _SP_FLAGS | _HRL_FLAGS, "sp": _HRL_FLAGS}.get(stage, set())
    return {"dataset": dataset} | {
        flag.name: flag.value
        for flag in flags.FLAGS.flags_by_module_dict()["common_flags"]
        if flag.name not in _FREE_FLAGS | later
    }


def _check_settings(stage, dataset):
    """A stage's folder belongs to one setting; resuming must not mix two."""
    folder = os.path.join(flags.FLAGS.workdir, stage)
    if not any(
        os.path.exists(os.path.join(folder, trace))
        for trace in ("checkpoints", "result.json")
    ):
        return  # nothing was trained with what stands there
    with open(os.path.join(folder, "settings.json")) as file:
        before = json.load(file)
    for name, value in sorted(_settings(stage, dataset).items()):
        if before.get(name) != value:
            raise ValueError(
                f"{folder} holds a run with --{name}={before.get(name)}, "
                f"not {value}: give the same flags to resume it, or another "
                "--workdir"
            )


def _write_settings(stage, dataset):
    folder = os.path.join(flags.FLAGS.workdir, stage)
    os.makedirs(folder, exist_ok=True)
    experiment.write_json(
        os.path.join(folder, "settings.json"), _settings(stage, dataset)
    )


def _earlier_results():
    """What stages of earlier commands in the same work directory gave."""
    found = {}
    for stage in common_flags.STAGES:
        path = os.path.join(flags.FLAGS.workdir, stage, "result.json")
        if os.path.exists(path):
            with open(path) as file:
                found[stage] = json.load(file)
    return found


def _write_result(dataset, results):
    values = flags.FLAGS
    experiment.write_json(
        os.path.join(values.workdir, "result.json"),
        {
            "dataset": dataset,
            "data_dir": values.data_dir,
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
            "stages": results,
        },
    )
