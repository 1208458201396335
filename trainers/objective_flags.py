"""What gates and network are rewarded and taught for, in each stage."""

from absl import flags
from network_flags import number

from skipnet_tf import reinforce


def define(defaults: dict) -> None:
    """Defines the flags, with the defaults of the data set."""
    _define_mixing()
    _define_reward(defaults)
    _define_target()
    _define_exploration(defaults)
    _define_teachers()
    _define_peers()


def _define_mixing():
    flags.DEFINE_enum(
        "gating",
        "hard",
        ["hard", "soft", "random"],
        "How sp mixes: straight-through, probabilities (Table 3), or blocks "
        "skipped at random (the paper's SDV).",
    )
    number("skip_rate", 0.0, "Share of blocks that --gating=random skips.", 1.0)
    flags.DEFINE_list(
        "min_blocks",
        ["1"],
        "Fewest blocks of each group that elastic trains an image with: one "
        "number, or one for each group.",
    )
    flags.register_validator(
        "min_blocks",
        lambda texts: (
            bool(texts) and all(t.isdigit() and int(t) for t in texts)
        ),
        "must be positive whole numbers",
    )
    flags.DEFINE_enum(
        "execution",
        "auto",
        ["auto", "conditional", "masked"],
        "Blocks in elastic, gates, hrl and rl: conditional computes, forward "
        "and backward, "
        "and takes batch statistics of, the images that run a block; masked "
        "computes all of them, as published. auto: masked where there is a "
        "GPU, which takes longer over varying numbers of rows than over all. "
        "XLA and several devices are always masked.",
    )


def _define_reward(defaults):
    number("alpha", defaults["alpha"], "Price of computation in the reward.")
    flags.DEFINE_string(
        "beta",
        defaults.get("beta", "1.0"),
        'Weight of the loss in the reward, or "alpha/N".',
    )
    flags.register_validator(
        "beta",
        lambda beta: beta == "alpha/N" or _is_number(beta),
        'must be a number or "alpha/N"',
    )
    number("gamma", 1.0, "Discount of rewards, gate to gate.", 1.0)
    flags.DEFINE_bool(
        "block_costs",
        False,
        "Reward the multiply-adds of a skipped block; all blocks count the "
        "same otherwise, as in the paper.",
    )
    number(
        "rl_weight",
        defaults["rl_weight"],
        "Weight of the policy loss, a mean over images.",
    )


def _define_target():
    number(
        "target_macs",
        None,
        "Multiply-adds that gates, hrl and rl are to end at, gates included, "
        "relative to the network without gates: alpha is then the price to "
        "begin with, and adapts. What is missed by more than 0.01 on "
        "validation images is made up for by another threshold than 0.5.",
        1.0,
    )
    number(
        "price_ramp",
        0.0,
        "Share of the steps of hrl and rl, or of gates before them, in which "
        "alpha rises from 0 or, with --target_macs, the target falls from 1.",
        1.0,
    )


def _define_exploration(defaults):
    flags.DEFINE_enum(
        "baseline",
        defaults.get("baseline", "none"),
        reinforce.BASELINES,
        "What is subtracted from rewards: nothing, as published; moving "
        "averages; or the reward of the thresholded policy, which costs one "
        "more forward pass.",
    )
    number(
        "entropy_weight",
        0.03,
        "Reward for undecided gates at the start of gates, hrl and rl, for "
        "each nat; "
        "it falls to 0 in a line. Published: 0.",
    )
    number(
        "min_probability",
        0.0,
        "Chance that gates, hrl and rl leave to either decision of a gate; "
        "below 0.5.",
        0.499,
    )
    number(
        "sharpen",
        1.0,
        "Factor on the gates' logits at the start of gates, hrl and rl, so "
        "that samples begin near the thresholded policy; published for "
        "ImageNet: 20, which leaves gates that are still wide open nothing to "
        "try.",
    )


def _define_teachers():
    number("label_smoothing", 0.0, "Share of the target on all classes.", 1.0)
    flags.DEFINE_string(
        "imitate",
        None,
        "Trained network (.keras) with gates of another kind, for gates "
        "instead of rewards: the stage starts from it, leaves it as it is, and "
        "new gates learn its decisions; hrl then goes on at its price.",
    )
    flags.DEFINE_bool(
        "read_classifier",
        True,
        "With --imitate, recurrent gates and those without convolution begin "
        "by reading the classifier's scores in the last group, if they have a "
        "unit for each class.",
    )
    flags.DEFINE_string(
        "distill_from",
        None,
        "Dense network that sp and hrl also learn from: a weights file, or "
        '"base" for that stage of this run.',
    )
    flags.DEFINE_bool(
        "distill_base", False, "Teach base by --distill_from too: a file then."
    )
    flags.DEFINE_integer(
        "distill_depth",
        None,
        "Layers of --distill_from. Not given: --depth.",
        lower_bound=1,
    )
    number("distill_weight", 0.5, "Share of distillation in the loss.", 1.0)
    number("distill_temperature", 4.0, "Softens both networks' logits before.")


def _define_peers():
    number(
        "target",
        None,
        "Share of images that run each block in target_rate (not given: 0.7); "
        "multiply-adds to spend in budget, gates included, relative to the "
        "network without gates (not given: 0.5).",
        1.0,
    )
    number(
        "target_weight",
        None,
        "Weight of that loss. Not given: as published, 2 in target_rate and "
        "10 in budget.",
    )
    number(
        "gumbel_temperature", 1.0, "Of the relaxed decisions' gradient, not 0."
    )
    flags.register_validator(
        "gumbel_temperature", lambda value: value > 0, "must be above 0"
    )
    number(
        "anneal",
        0.33,
        "Share of budget's steps over which the bounds of each block loosen.",
        1.0,
    )


def _is_number(text):
    try:
        return float(text) >= 0
    except ValueError:
        return False
