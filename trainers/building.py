"""The compiled network of a stage, from the flags."""

import os

import tensorflow as tf
from absl import flags

import skipnet_tf
from skipnet_tf import checkpoints
from skipnet_tf import experiment

# The paper's networks: small images, or photographs.
_RESNETS = {
    "cifar": skipnet_tf.cifar_resnet,
    "imagenet": skipnet_tf.imagenet_resnet,
}
_SKIPNETS = {
    "cifar": skipnet_tf.cifar_skipnet,
    "imagenet": skipnet_tf.imagenet_skipnet,
}
_CONSTANT_WARMUP = 0.01  # published
_BATCHES_TO_MATCH = 4  # of training, for statistics of imported shortcuts


def plan(stage: str, family: str, splits: experiment.Data) -> experiment.Plan:
    """One stage of a run.

    Args:
        stage: String.
        family: `"cifar"` or `"imagenet"`.
        splits: The data.

    Returns:
        A plan for `experiment.run_stage`.

    Raises:
        ValueError: If its length is given twice.
    """
    steps = _steps(stage, splits)
    return experiment.Plan(
        name=stage,
        steps=steps,
        make=lambda: _compiled(stage, family, splits, steps),
        given=_given(stage),
    )


def first_weights(stage: str) -> str | None:
    """The file a stage starts from, or `None` for random weights."""
    values = flags.FLAGS
    if _given(stage):
        return _given(stage)
    before = {"sp": "base", "hrl": "sp", "rl": "sp"}.get(stage)
    if stage == "sp" and not values.sp_from_base:
        return None
    if before is None or (stage != "sp" and values.from_scratch):
        return None
    return os.path.join(values.workdir, before, "model.keras")


def teacher_weights() -> str | None:
    """The file of the network that sp and hrl learn from, or `None`."""
    values = flags.FLAGS
    if values.distill_from == "base":
        return os.path.join(values.workdir, "base", "model.keras")
    return values.distill_from


def learning_rate(late: bool) -> float:
    """The first learning rate: of hrl and rl, or of base and sp."""
    values = flags.FLAGS
    rate = values.hrl_learning_rate if late else values.learning_rate
    meant_for = values.learning_rate_batch or values.batch_size
    return rate * values.batch_size / meant_for


def _given(stage):
    values = flags.FLAGS
    return values.init_from if stage == values.stages[0] else None


def _steps(stage, splits):
    values = flags.FLAGS
    name = "hrl" if stage == "rl" else stage
    steps, epochs = values[f"{name}_steps"], values[f"{name}_epochs"]
    if steps.present and epochs.present:
        raise ValueError(
            f"--{name}_steps and --{name}_epochs both give the length of "
            f"{stage}: leave one out"
        )
    if epochs.present or (steps.value is None and not steps.present):
        return epochs.value * splits.steps_per_epoch
    return steps.value


def _compiled(stage, family, splits, steps):
    values, info = flags.FLAGS, splits.describe()
    model = _network(stage, family, info)
    weights = first_weights(stage)
    if weights:
        new_classifier = values.new_classifier and _given(stage) is not None
        checkpoints.load_weights(model, weights, new_classifier)
    if _given(stage):
        skipnet_tf.match_shortcuts(model, _some_images(splits))
    compiled = {
        "optimizer": _optimizer(stage, steps),
        "loss": _loss(),
        "metrics": ["accuracy"],
        "jit_compile": values.jit_compile,
        "gradient_accumulation": values.gradient_accumulation,
    }
    if stage in ("sp", "hrl"):
        compiled["distillation"] = _distillation(family, info)
    if stage in ("hrl", "rl"):
        model.sharpen(values.sharpen)
    if stage != "base":
        compiled["stage"] = _stage(stage, model, info)
    model.compile(**compiled)
    return model


def _some_images(splits):
    batches = splits.training(epochs=1, first_step=0).take(_BATCHES_TO_MATCH)
    return tf.concat([images for images, _ in batches], axis=0)


def _network(stage, family, info):
    values = flags.FLAGS
    arguments = {
        "depth": values.depth,
        "num_classes": info.num_classes,
        "input_shape": tuple(info.image_shape),
    }
    if family == "imagenet":
        arguments["stride_on"] = values.stride_on
    if stage == "base":
        return _RESNETS[family](**arguments)
    return _SKIPNETS[family](
        gate=values.gate, gate_init=values.gate_init, **arguments
    )


def _loss():
    smoothing = flags.FLAGS.label_smoothing
    if not smoothing:
        return None
    return skipnet_tf.losses.SmoothedCrossEntropy(smoothing)


def _distillation(family, info):
    values = flags.FLAGS
    if teacher_weights() is None:
        return None
    teacher = _network("base", family, info)
    checkpoints.load_weights(teacher, teacher_weights())
    return skipnet_tf.Distillation(
        teacher, values.distill_weight, values.distill_temperature
    )


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
    gpus = tf.config.get_visible_devices("GPU")
    return "masked" if gpus else "conditional"


def _optimizer(stage, steps):
    values = flags.FLAGS
    late = stage in ("hrl", "rl")
    prefix = "hrl_" if late else ""
    schedule = values[f"{prefix}schedule"].value
    rate = learning_rate(late)
    if schedule == "step":
        milestones = tuple(map(float, values[f"{prefix}milestones"].value))
        rate = skipnet_tf.schedules.step_decay(rate, steps, milestones)
    elif schedule == "cosine":
        rate = skipnet_tf.schedules.cosine(rate, steps)
    if values.warmup_steps and not late:
        constant = _CONSTANT_WARMUP if values.warmup == "constant" else None
        rate = skipnet_tf.schedules.WarmUp(rate, values.warmup_steps, constant)
    return skipnet_tf.optimizers.SGD(
        rate,
        momentum=values.momentum,
        l2=values.l2,
        use_ema=values.ema > 0,
        ema_momentum=values.ema,
    )
