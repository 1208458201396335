"""Flags that all trainers have; each script sets the defaults."""

import sys

from absl import flags

STAGES = ("base", "sp", "hrl", "rl")


def define(**defaults) -> None:
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
    _number(
        "skip_rate", 0.0, "Share of blocks that --gating=random skips.", 1.0
    )
    _number(
        "alpha",
        defaults["alpha"],
        "Price of computation in the reward.",
    )
    flags.DEFINE_string(
        "beta", "1.0", 'Weight of the loss in the reward, or "alpha/N".'
    )
    _number("gamma", 1.0, "Discount of rewards, gate to gate.", 1.0)
    _number(
        "rl_weight",
        defaults["rl_weight"],
        "Weight of the policy loss, a mean over images.",
    )
    flags.DEFINE_bool(
        "block_costs",
        False,
        "Reward the multiply-adds of a skipped block; all blocks count the "
        "same otherwise, as in the paper.",
    )
    flags.DEFINE_enum(
        "execution",
        "auto",
        ["auto", "conditional", "masked"],
        "Blocks in hrl and rl: conditional computes, forward and backward, "
        "and takes batch statistics of, the images that run a block; masked "
        "computes all of them, as published. auto: masked where there is a "
        "GPU, which takes longer over varying numbers of rows than over all. "
        "XLA and several devices are always masked.",
    )
    flags.DEFINE_bool("sp_from_base", False, "Start sp from the dense network.")
    flags.DEFINE_bool(
        "from_scratch",
        False,
        "Start hrl or rl untrained (the paper's HRL+S); give them the steps "
        "and the learning rate of sp then.",
    )
    flags.DEFINE_string(
        "init_weights",
        None,
        "Weights file (.keras, .weights.h5) of this or the dense network "
        "that the first stage starts from.",
    )


def _number(name, default, text, upper=None):
    # Refused here, not after the hours of the stages before.
    flags.DEFINE_float(name, default, text, lower_bound=0.0, upper_bound=upper)


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
    _number("learning_rate", defaults["learning_rate"], "Of base and sp.")
    _number(
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
    _number("momentum", 0.9, "Of gradient descent.", 1.0)
    _number("l2", 1e-4, "L2 regularisation inside the gradient, all weights.")
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
    flags.DEFINE_integer(
        "steps_per_execution",
        1,
        "Steps between two looks at the progress; more of them help where a "
        "step takes milliseconds.",
        lower_bound=1,
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
