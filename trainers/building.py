"""The compiled network of a stage, from the flags."""

import dataclasses
import math
import os

import saved_stages
import tensorflow as tf
from absl import flags

import skipnet_tf
from skipnet_tf import checkpoints
from skipnet_tf import experiment
from skipnet_tf import imitation
from skipnet_tf import interop
from skipnet_tf import models
from skipnet_tf import objectives
from skipnet_tf import peers
from skipnet_tf.layers import OPEN_LOGIT

# Stages that train the gates of a network that may be new.
_EARLY = ("sp", "elastic", "target_rate", "budget")
_LATE = ("gates", "hrl", "rl")  # by rewards, or by example
_CONSTANT_WARMUP = 0.01  # published
_IMAGES_TO_MATCH = 256  # for statistics of imported shortcuts


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
    late, values = stage in _LATE, flags.FLAGS
    return experiment.Plan(
        name=stage,
        steps=steps,
        make=lambda retreats: _compiled(
            stage, family, splits, steps, 0.5**retreats
        ),
        given=_given(stage),
        # Statistics are part of the backbone, which stays as it is in gates.
        recalibrate=values.recalibrate if late and stage != "gates" else 0,
        target_macs=values.target_macs if late else None,
    )


def check(stage: str, family: str, splits: experiment.Data) -> None:
    """Builds what a stage is made of, for what it refuses.

    Args:
        stage: String.
        family: See `plan`.
        splits: The data.

    Raises:
        ValueError: If flags do not fit the network.
    """
    info = splits.describe()
    model = _network(stage, family, info, flags.FLAGS.depth)
    if stage in _EARLY:
        _early_stage(stage, steps=1).build(model.groups)
    if stage in _LATE:
        _late_stage(stage, model, info, steps=1, gentle=1.0)


def first_weights(stage: str) -> str | None:
    """The file a stage starts from, or `None` for random weights."""
    values = flags.FLAGS
    if _imitates(stage):
        return values.imitate
    if _given(stage):
        return _given(stage)
    before = _before(stage)
    return before and os.path.join(values.workdir, before, "model.keras")


def teacher_weights(stage: str) -> str | None:
    """The file of the network that a stage learns from, or `None`."""
    values = flags.FLAGS
    untaught = stage == "base" and not values.distill_base
    if untaught or stage in ("gates", "rl"):
        return None
    if values.distill_from == "base":
        return os.path.join(values.workdir, "base", "model.keras")
    return values.distill_from


def learning_rate(stage: str) -> tuple[float, float]:
    """The first learning rate of a stage, scaled and as it was given."""
    values = flags.FLAGS
    rate = values.learning_rate
    if stage in _LATE:
        rate = values.hrl_learning_rate
    elif stage in _EARLY and values.sp_learning_rate is not None:
        rate = values.sp_learning_rate
    meant_for = values.learning_rate_batch or values.batch_size
    return rate * values.batch_size / meant_for, rate


def _before(stage):
    """The stage whose weights a stage starts from, or `None`."""
    values = flags.FLAGS
    if stage == "gates":
        return values.gates_from
    if stage in _LATE:
        return None if values.from_scratch else values.hrl_from
    return "base" if stage in _EARLY and values.sp_from_base else None


def _given(stage):
    values = flags.FLAGS
    return values.init_from if stage == values.stages[0] else None


def _steps(stage, splits):
    values = flags.FLAGS
    name = {"rl": "hrl"}.get(stage, "sp" if stage in _EARLY else stage)
    steps, epochs = values[f"{name}_steps"], values[f"{name}_epochs"]
    if steps.present and epochs.present:
        raise ValueError(
            f"--{name}_steps and --{name}_epochs both give the length of "
            f"{stage}: leave one out"
        )
    if epochs.present or (steps.value is None and not steps.present):
        return epochs.value * splits.steps_per_epoch
    return steps.value


def _compiled(stage, family, splits, steps, gentle):
    values, info = flags.FLAGS, splits.describe()
    model = _network(stage, family, info, values.depth)
    weights = first_weights(stage)
    if weights:
        # In elastic gates learn nothing: those that follow start afresh.
        elastic = "elastic" in (stage, saved_stages.taught_in(weights))
        afresh = elastic or _imitates(stage)
        target = model.backbone if afresh else model
        new_classifier = values.new_classifier and _given(stage) is not None
        _load(target, weights, splits, new_classifier)
    if _imitates(stage) and values.read_classifier:
        imitation.read_classifier(model)
    compiled = {
        "optimizer": _optimizer(stage, steps, gentle),
        "loss": _loss(),
        "metrics": ["accuracy"],
        "jit_compile": values.jit_compile,
        "gradient_accumulation": values.gradient_accumulation,
    }
    if teacher_weights(stage):
        compiled["distillation"] = _distillation(stage, family, splits)
    if stage in _EARLY:
        compiled["stage"] = _early_stage(stage, steps)
    if stage in _LATE:
        if not _continues(stage) and not _imitates(stage):
            model.sharpen(values.sharpen)
        compiled["stage"] = _late_stage(stage, model, info, steps, gentle)
    model.compile(**compiled)
    return model


def _load(model, weights, splits, new_classifier=False):
    checkpoints.load_weights(model, weights, new_classifier)
    if interop.has_identity_shortcuts(model):
        skipnet_tf.match_shortcuts(model, _some_images(splits))


def _some_images(splits):
    # Not by a service, which would give each process others.
    own = dataclasses.replace(splits, service=None)
    batches = own.training(epochs=1, first_step=0).unbatch()
    examples = batches.take(_IMAGES_TO_MATCH).batch(_IMAGES_TO_MATCH)
    return examples.get_single_element()[0]


def _network(stage, family, info, depth):
    values = flags.FLAGS
    arguments = {
        "depth": depth,
        "num_classes": info.num_classes,
        "input_shape": tuple(info.image_shape),
    }
    if family == "imagenet":
        arguments["stride_on"] = values.stride_on
    gated = stage != "base"
    if gated and stage != "elastic":  # whose gates have no say: any follow
        arguments |= {"gate": values.gate, "gate_init": values.gate_init}
    return models.NETWORKS[family][gated](**arguments)


def _loss():
    smoothing = flags.FLAGS.label_smoothing
    if not smoothing:
        return None
    return skipnet_tf.losses.SmoothedCrossEntropy(smoothing)


def _distillation(stage, family, splits):
    values = flags.FLAGS
    depth = values.distill_depth or values.depth
    teacher = _network("base", family, splits.describe(), depth)
    _load(teacher, teacher_weights(stage), splits)
    return skipnet_tf.Distillation(
        teacher, values.distill_weight, values.distill_temperature
    )


def _early_stage(stage, steps):
    values = flags.FLAGS
    if stage == "sp":
        return skipnet_tf.Supervised(
            values.gating, values.skip_rate, values.seed
        )
    if stage == "elastic":
        least = [int(blocks) for blocks in values.min_blocks]
        return skipnet_tf.Elastic(
            least if len(least) > 1 else least[0], values.seed, _execution()
        )
    arguments = {"temperature": values.gumbel_temperature, "seed": values.seed}
    if values.target is not None:
        arguments["target"] = values.target
    if values.target_weight is not None:
        arguments["weight"] = values.target_weight
    if stage == "target_rate":
        return peers.TargetRate(**arguments)
    anneal_steps = max(1, round(values.anneal * steps))
    return peers.Budget(anneal_steps=anneal_steps, **arguments)


def _late_stage(stage, model, info, steps, gentle):
    values = flags.FLAGS
    if _imitates(stage):
        teacher = saved_stages.gated_network(values.imitate)
        teacher.execution = "masked" if values.jit_compile else _execution()
        return skipnet_tf.Imitation(teacher, values.seed, _execution())
    count = skipnet_tf.flops.count(model, tuple(info.image_shape))
    costs = count.blocks if values.block_costs else None
    kind = skipnet_tf.HybridReinforce
    if stage == "rl":
        kind = skipnet_tf.Reinforce
    alpha, target = gentle * values.alpha, values.target_macs
    entropy_weight = values.entropy_weight
    if target is not None:
        always = count.fixed + count.gates.sum()
        objectives.check_affordable(
            "--target_macs", target, tf.constant(always / count.dense)
        )
    if _continues(stage):
        entropy_weight = 0.0
        path = values.imitate or first_weights(stage)
        # Not there yet where a stage is only checked.
        if target is not None and os.path.exists(path):
            alpha = gentle * saved_stages.price(path)
    elif values.price_ramp:
        ramp = max(1, round(values.price_ramp * steps))
        if target is not None:
            begin = _sampled_share(stage, count)
            target = skipnet_tf.schedules.Ramp(begin, target, ramp)
        else:
            alpha = skipnet_tf.schedules.Ramp(0.0, alpha, ramp)
    if entropy_weight:
        entropy_weight = skipnet_tf.schedules.Ramp(entropy_weight, 0.0, steps)
    return kind(
        alpha=alpha,
        beta=values.beta if values.beta == "alpha/N" else float(values.beta),
        gamma=values.gamma,
        rl_weight=gentle * values.rl_weight,
        costs=costs,
        seed=values.seed,
        execution=_execution(),
        target_macs=target,
        baseline=values.baseline,
        entropy_weight=entropy_weight,
        min_probability=values.min_probability,
        gates_alone=stage == "gates",
    )


def _sampled_share(stage, count):
    """Multiply-adds of dense that sampled decisions spend at the start.

    To ask new gates for more would reward those that are sure to run, before
    they have tried anything else.
    """
    if flags.FLAGS.gate_init != "open" or _gates_have_learnt(stage):
        return 1.0
    runs = 1 / (1 + math.exp(-OPEN_LOGIT)) * count.blocks.sum()
    return min(1.0, (count.fixed + count.gates.sum() + runs) / count.dense)


def _gates_have_learnt(stage):
    path = first_weights(stage)
    return path is not None and saved_stages.taught_in(path) not in (
        None,
        "elastic",
    )


def _continues(stage):
    """Whether gates have learnt at the same price in the stage before."""
    return not _given(stage) and _before(stage) == "gates"


def _imitates(stage):
    """Whether the gates of a stage learn by example."""
    return stage == "gates" and flags.FLAGS.imitate is not None


def _execution():
    execution = flags.FLAGS.execution
    if execution != "auto":
        return execution
    gpus = tf.config.get_visible_devices("GPU")
    return "masked" if gpus else "conditional"


def _optimizer(stage, steps, gentle):
    values = flags.FLAGS
    late = stage in _LATE
    prefix = "hrl_" if late else ""
    schedule = values[f"{prefix}schedule"].value
    rate = gentle * learning_rate(stage)[0]
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
        gate_rate=values.gate_rate if late else 1.0,
        gate_l2=values.gate_l2,
    )
