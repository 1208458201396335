"""Flags and main job that the trainers share; each script sets the defaults."""

import json
import os
import sys

import keras
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

import skipnet_tf
from skipnet_tf import evaluation
from skipnet_tf import experiment

STAGES = ("base", "sp", "hrl", "rl")
# May differ when the same command is given again to resume a run.
_FREE_FLAGS = {"workdir", "data_dir", "download", "stages", "checkpoint_steps"}
# What later stages depend on, of no concern to the stages before them.
_SP_FLAGS = {"gate", "gate_init", "gating", "skip_rate", "sp_from_base"} | {
    "sp_steps"
}
_HRL_FLAGS = {"alpha", "beta", "gamma", "rl_weight", "block_costs"} | {
    "from_scratch",
    "hrl_steps",
    "hrl_learning_rate",
    "hrl_schedule",
}


def define_flags(**defaults) -> None:
    """Defines the flags; `defaults` are those of the data set."""
    _define_what(defaults)
    _define_how(defaults)
    _define_where(defaults)
    flags.mark_flag_as_required("workdir")
    _define_validators()
    flags.adopt_module_key_flags(sys.modules[__name__])


def _define_what(defaults):
    flags.DEFINE_integer("depth", defaults["depth"], "Layers, 6n + 2.")
    flags.DEFINE_enum(
        "gate",
        "rnn",
        ["rnn", "ff1", "ff2", "ff", "pool"],
        "Gate: recurrent, FFGate-I, FFGate-II, the paper's feed-forward gate "
        "for this depth, or without convolution.",
    )
    flags.DEFINE_enum(
        "gate_init",
        "open",
        ["open", "published"],
        "Start with every block running for every image, or as published.",
    )
    flags.DEFINE_list(
        "stages",
        ["base", "sp", "hrl"],
        "Stages in order: base (dense network), sp (supervised "
        "pre-training), hrl (hybrid reinforcement learning), rl (pure "
        "reinforcement learning).",
    )
    flags.DEFINE_enum(
        "gating",
        "hard",
        ["hard", "soft", "random"],
        "How sp mixes: straight-through, probabilities (Table 3), or blocks "
        "skipped at random (the paper's SDV).",
    )
    flags.DEFINE_float(
        "skip_rate", 0.0, "Share of blocks that --gating=random skips."
    )
    flags.DEFINE_float("alpha", 0.1, "Price of computation in the reward.")
    flags.DEFINE_string(
        "beta", "1.0", 'Weight of the loss in the reward, or "alpha/N".'
    )
    flags.DEFINE_float("gamma", 1.0, "Discount of rewards, gate to gate.")
    flags.DEFINE_float(
        "rl_weight", 1.28, "Weight of the policy loss, a mean over images."
    )
    flags.DEFINE_bool(
        "block_costs",
        False,
        "Reward the multiply-adds of a skipped block; all blocks count the "
        "same otherwise, as in the paper.",
    )
    flags.DEFINE_bool("sp_from_base", False, "Start sp from the dense network.")
    flags.DEFINE_bool("from_scratch", False, "Start hrl or rl untrained.")
    flags.DEFINE_string(
        "init_weights",
        None,
        "Weights file (.keras, .weights.h5) of this or the dense network "
        "that the first stage starts from.",
    )


def _define_how(defaults):
    for stage in ("base", "sp", "hrl"):
        flags.DEFINE_integer(
            f"{stage}_steps",
            defaults[f"{stage}_steps"],
            f"Training steps of {stage}"
            + (" and rl." if stage == "hrl" else "."),
            lower_bound=1,
        )
    flags.DEFINE_integer(
        "batch_size",
        defaults["batch_size"],
        "Images per step, over all devices.",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "learning_rate", defaults["learning_rate"], "Of base and sp."
    )
    flags.DEFINE_float(
        "hrl_learning_rate", defaults["hrl_learning_rate"], "Of hrl and rl."
    )
    flags.DEFINE_enum(
        "schedule",
        defaults["schedule"],
        ["step", "cosine", "constant"],
        "Learning rate of base and sp: divided by 10 at 1/2 and 3/4 of the "
        "steps, half a cosine to 0, or constant.",
    )
    flags.DEFINE_enum(
        "hrl_schedule",
        defaults["hrl_schedule"],
        ["step", "cosine", "constant"],
        "Learning rate of hrl and rl.",
    )
    flags.DEFINE_integer(
        "warmup_steps",
        0,
        "Steps of base and sp with a learning rate of 0.01 (published: 400 "
        "for depth 110).",
    )
    flags.DEFINE_float("momentum", 0.9, "Of gradient descent.")
    flags.DEFINE_float(
        "l2", 1e-4, "L2 regularisation inside the gradient, all weights."
    )
    flags.DEFINE_integer(
        "seed", 0, "Of weights, data order and decisions.", lower_bound=0
    )
    flags.DEFINE_bool(
        "deterministic", False, "Equal runs give equal bits; slower."
    )
    flags.DEFINE_enum(
        "mixed_precision",
        "float32",
        ["float32", "mixed_bfloat16", "mixed_float16"],
        "Precision of convolutions; gates' decisions and the classifier stay "
        "in float32.",
    )
    flags.DEFINE_bool(
        "jit_compile",
        False,
        "Compile steps with XLA, for GPUs; it computes skipped blocks too.",
    )
    flags.DEFINE_enum(
        "distribution", "none", ["none", "mirrored"], "Devices to train on."
    )


def _define_where(defaults):
    flags.DEFINE_string("workdir", None, "Folder that receives everything.")
    flags.DEFINE_string("data_dir", None, "Folder of prepared TFDS data sets.")
    flags.DEFINE_bool("download", False, "Download a missing data set.")
    for split in ("train", "validation", "test"):
        flags.DEFINE_string(
            f"{split}_split",
            defaults[f"{split}_split"],
            f"TFDS split for {split}"
            + ("; empty: leave it alone." if split == "test" else "."),
        )
    flags.DEFINE_integer(
        "checkpoint_steps",
        defaults.get("checkpoint_steps", 0),
        "Steps between checkpoints inside an epoch; 0: every epoch only.",
        lower_bound=0,
    )


def _define_validators():
    flags.register_validator(
        "stages",
        lambda stages: bool(stages) and all(s in STAGES for s in stages),
        f"must be a list of {', '.join(STAGES)}",
    )
    flags.register_validator(
        "beta",
        lambda beta: beta == "alpha/N" or _is_number(beta),
        'must be a number or "alpha/N"',
    )


def _is_number(text):
    try:
        return float(text) >= 0
    except ValueError:
        return False


def run(main) -> None:
    """Runs a script; mistakes of its user end in one line, not a traceback."""

    def guarded(argv):
        logging.set_verbosity(logging.WARNING)
        try:
            main(argv)
        except (ValueError, OSError, tf.errors.OpError) as error:
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
        values.workdir,
        values.seed,
        values.deterministic,
        values.mixed_precision,
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
    for stage in values.stages:
        _check_start(stage)
        _check_settings(stage, dataset)
    with open(os.path.join(values.workdir, "flags.txt"), "w") as file:
        file.write(values.flags_into_string())
    strategy = experiment.make_strategy(values.distribution)
    results, rows = {}, []
    for stage in values.stages:
        plan = experiment.Plan(stage, _steps(stage), _maker(stage, info))
        results[stage] = experiment.run_stage(
            plan, splits, values.workdir, strategy, values.checkpoint_steps
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
            experiment.load_weights(model, weights)
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
    )


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
        if isinstance(rate, float):
            rate = skipnet_tf.schedules.step_decay(rate, _steps(stage), ())
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


def _check_settings(stage, dataset):
    """A stage's folder belongs to one setting; resuming must not mix two."""
    values = flags.FLAGS
    later = {"base": _SP_FLAGS | _HRL_FLAGS, "sp": _HRL_FLAGS}.get(stage, set())
    settings = {"dataset": dataset} | {
        flag.name: flag.value
        for flag in values.flags_by_module_dict()[__name__]
        if flag.name not in _FREE_FLAGS | later
    }
    folder = os.path.join(values.workdir, stage)
    path = os.path.join(folder, "settings.json")
    if os.path.exists(path):
        with open(path) as file:
            before = json.load(file)
        for name in sorted(settings):
            if before.get(name) != settings[name]:
                raise ValueError(
                    f"{folder} holds a run with --{name}={before.get(name)}, "
                    f"not {settings[name]}: give the same flags to resume "
                    "it, or another --workdir"
                )
    os.makedirs(folder, exist_ok=True)
    experiment.write_json(path, settings)


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
