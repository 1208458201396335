"""What is trained: network, gates, stages, first weights."""

from absl import flags

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
    _define_start()


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
