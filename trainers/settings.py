"""What a stage was trained with: a work directory belongs to one setting."""

import json
import os

import common_flags
from absl import flags

from skipnet_tf import experiment

# May differ when the same command is given again to resume a run.
_FREE_FLAGS = {
    "workdir",
    "data_dir",
    "download",
    "data_service",
    "device",
    "worker_patience",
    "stages",
    "checkpoint_steps",
    "jit_compile",
    "steps_per_execution",
    "on_collapse",
    "accuracy_floor",
}
# What later stages depend on, of no concern to the stages before them.
_TEACHER_FLAGS = {
    "distill_from",
    "distill_depth",
    "distill_weight",
    "distill_temperature",
}
_SP_FLAGS = _TEACHER_FLAGS | {
    "gate",
    "gate_init",
    "gating",
    "skip_rate",
    "sp_from_base",
    "sp_learning_rate",
    "sp_steps",
    "sp_epochs",
    "gate_l2",
}
_PEER_FLAGS = {
    "min_blocks",
    "target",
    "target_weight",
    "gumbel_temperature",
    "anneal",
}
# Of no concern to hrl unless it starts from gates.
_GATES_FLAGS = {
    "gates_from",
    "gates_steps",
    "gates_epochs",
    "imitate",
    "read_classifier",
}
_HRL_LENGTH = {"hrl_from", "hrl_steps", "hrl_epochs", "from_scratch"}
_HRL_FLAGS = _HRL_LENGTH | {
    "alpha",
    "beta",
    "gamma",
    "rl_weight",
    "target_macs",
    "gate_rate",
    "recalibrate",
    "price_ramp",
    "baseline",
    "entropy_weight",
    "min_probability",
    "sharpen",
    "block_costs",
    "execution",
    "hrl_learning_rate",
    "hrl_schedule",
    "hrl_milestones",
}


def check(stage: str, dataset: str) -> None:
    """Refuses a stage whose folder holds a run with other flags.

    Args:
        stage: String.
        dataset: String.

    Raises:
        ValueError: If resuming would mix two settings.
    """
    folder = os.path.join(flags.FLAGS.workdir, stage)
    if not any(
        os.path.exists(os.path.join(folder, trace))
        for trace in ("checkpoints", "result.json")
    ):
        return  # nothing was trained with what stands there
    with open(os.path.join(folder, "settings.json")) as file:
        before = json.load(file)
    for name, value in sorted(of_stage(stage, dataset).items()):
        # A flag that came later had its default.
        past = before[name] if name in before else flags.FLAGS[name].default
        if past != value:
            raise ValueError(
                f"{folder} holds a run with --{name}={past}, "
                f"not {value}: give the same flags to resume it, or another "
                "--workdir"
            )


def write(stage: str, dataset: str) -> None:
    """Notes the flags in the stage's folder."""
    folder = os.path.join(flags.FLAGS.workdir, stage)
    os.makedirs(folder, exist_ok=True)
    experiment.write_json(
        os.path.join(folder, "settings.json"), of_stage(stage, dataset)
    )


def as_flag_file() -> str:
    """The flags that were given, to be read again by --flagfile."""
    names = {"dataset", *common_flags.values()} & set(flags.FLAGS)
    given = (flags.FLAGS[name] for name in sorted(names))
    return "".join(f"{flag.serialize()}\n" for flag in given if flag.present)


def of_stage(stage: str, dataset: str) -> dict:
    """The flags that matter to a stage, by name."""
    unread = _unread(stage)
    values = common_flags.values()
    if stage != values["stages"][0]:
        values["init_from"] = None  # it is the first stage's
    return {"dataset": dataset} | {
        name: value for name, value in values.items() if name not in unread
    }


def _unread(stage):
    values = flags.FLAGS
    rewards = _HRL_FLAGS | _GATES_FLAGS
    if stage == "base":
        unread = _FREE_FLAGS | _SP_FLAGS | _PEER_FLAGS | rewards
        return unread - _TEACHER_FLAGS if values.distill_base else unread
    if stage == "sp":
        return _FREE_FLAGS | _PEER_FLAGS | rewards
    if stage == "elastic":  # its gates learn nothing
        unread = _FREE_FLAGS | rewards | {"gate", "gate_init"}
        return unread - {"execution"}
    if stage in ("target_rate", "budget"):
        return _FREE_FLAGS | rewards
    before, unread = values.hrl_from, _FREE_FLAGS
    if stage == "gates":
        unread = unread | _HRL_LENGTH | {"recalibrate"}
    elif before != "gates":
        unread = unread | _GATES_FLAGS
    if stage == "gates" or before == "gates":
        before = values.gates_from
    return unread | _PEER_FLAGS if before == "sp" else unread
