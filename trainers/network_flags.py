"""What is trained: network, gates, stages, objective, first weights."""

from absl import flags

from skipnet_tf import reinforce

# In the order in which a table shows them.
STAGES = (
    "base",
    "sp",
    "elastic",
    "target_rate",
    "budget",
    "gates",
    "hrl",
    "rl",
)


def define(defaults: dict) -> None:
    """Defines the flags, with the defaults of the data set."""
    flags.DEFINE_integer("depth", defaults["depth"], "Layers of the network.")
    if "stride_on" in defaults:
        flags.DEFINE_enum(
            "stride_on",
            defaults["stride_on"],
            ["3x3", "1x1"],
            "Convolution with the stride in blocks of depth 50 and more: 3x3 "
            "as published, 1x1 as in keras.applications.",
        )
    flags.DEFINE_enum(
        "gate",
        "rnn",
        ["rnn", "ff1", "ff2", "ff", "pool", "confidence"],
        "Gate: recurrent, FFGate-I, FFGate-II, the paper's feed-forward gate "
        "for this depth, without convolution, or asking the classifier how "
        "sure it is.",
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
        "reinforcement learning); before hrl, gates (hrl of the gates alone); "
        "instead of sp, elastic (depths drawn at random); instead of sp and "
        "hrl, target_rate (ConvNet-AIG) or budget (DynConv, LAUDNet). The last "
        "three have the length, learning rate, start and teacher of sp.",
    )
    flags.register_validator(
        "stages",
        lambda stages: bool(stages) and all(s in STAGES for s in stages),
        f"must be a list of {', '.join(STAGES)}",
    )
    _define_objective(defaults)
    _define_peers()
    _define_start()


def _define_objective(defaults):
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
        "rl_weight",
        defaults["rl_weight"],
        "Weight of the policy loss, a mean over images.",
    )
    number(
        "sharpen",
        1.0,
        "Factor on the gates' logits at the start of gates, hrl and rl, so "
        "that samples begin near the thresholded policy; published for "
        "ImageNet: 20, which leaves gates that are still wide open nothing to "
        "try.",
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
        "Blocks in elastic, gates, hrl and rl: conditional computes, forward "
        "and backward, "
        "and takes batch statistics of, the images that run a block; masked "
        "computes all of them, as published. auto: masked where there is a "
        "GPU, which takes longer over varying numbers of rows than over all. "
        "XLA and several devices are always masked.",
    )
    number("label_smoothing", 0.0, "Share of the target on all classes.", 1.0)
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


def _define_start():
    flags.DEFINE_bool(
        "sp_from_base",
        False,
        "Start sp, elastic, target_rate and budget from the dense network.",
    )
    flags.DEFINE_enum(
        "hrl_from",
        "sp",
        ["sp", "elastic", "target_rate", "budget", "gates"],
        "The stage that hrl and rl start from; from gates at its price, and "
        "without --price_ramp, --sharpen and --entropy_weight a second time.",
    )
    flags.DEFINE_enum(
        "gates_from",
        "elastic",
        ["sp", "elastic", "target_rate", "budget"],
        "The stage that gates starts from.",
    )
    flags.DEFINE_bool(
        "from_scratch",
        False,
        "Start hrl or rl untrained (the paper's HRL+S); give them the steps "
        "and the learning rate of sp then.",
    )
    flags.DEFINE_string(
        "init_from",
        None,
        "Weights that the first stage starts from: a file (.keras, "
        ".weights.h5, .pth, .safetensors) of this network or of its dense "
        "network, whose accuracy the gates, open at the start, keep. Of a "
        ".keras file elastic takes the dense network alone; gates in one of "
        "elastic are of no use, and --gate begins afresh.",
    )
    flags.DEFINE_bool(
        "new_classifier",
        False,
        "Leave the classifier out of --init_from, for other classes.",
    )


def number(
    name: str, default: float | None, text: str, upper: float | None = None
) -> None:
    """A flag that is a number of at least 0."""
    # Refused here, not after the hours of the stages before.
    flags.DEFINE_float(name, default, text, lower_bound=0.0, upper_bound=upper)


def _is_number(text):
    try:
        return float(text) >= 0
    except ValueError:
        return False
