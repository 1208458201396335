"""How it is trained: length, learning rate, precision, devices."""

from absl import flags
from network_flags import number

from skipnet_tf import distribution

_SCHEDULES = ["step", "cosine", "constant"]


def define(defaults: dict) -> None:
    """Defines the flags, with the defaults of the data set."""
    _define_length(defaults)
    _define_learning_rate(defaults)
    _define_schedules(defaults)
    number("momentum", 0.9, "Of gradient descent.", 1.0)
    number(
        "l2",
        defaults.get("l2", 1e-4),
        "L2 regularisation inside the gradient, all weights.",
    )
    number(
        "gate_rate",
        1.0,
        "Learning rate of gates in the stages gates, hrl and rl, relative to "
        "that of all other weights.",
    )
    number(
        "gate_l2", None, "L2 regularisation of gates. Not given: that of --l2."
    )
    flags.DEFINE_integer(
        "recalibrate",
        0,
        "Batches from which the statistics of normalisation are measured anew "
        "at the end of hrl and rl, under the thresholded policy; 0: those of "
        "training stay.",
        lower_bound=0,
    )
    number(
        "ema",
        0.0,
        "Momentum of an average of the weights, which is validated and kept "
        "at the end; 0: none.",
        1.0,
    )
    flags.register_validator("ema", lambda value: value < 1, "must be below 1")
    flags.DEFINE_integer(
        "seed", 0, "Of weights, data order and decisions.", lower_bound=0
    )
    flags.DEFINE_bool(
        "deterministic", False, "Equal runs give equal bits; slower."
    )
    _define_devices()


def _define_length(defaults):
    for stage in ("base", "sp", "gates", "hrl"):
        also = {"hrl": " and rl", "sp": ", elastic, target_rate and budget"}
        of = f"of {stage}{also.get(stage, '')}"
        flags.DEFINE_integer(
            f"{stage}_steps",
            defaults.get(f"{stage}_steps"),
            f"Training steps {of}.",
            lower_bound=1,
        )
        flags.DEFINE_integer(
            f"{stage}_epochs",
            defaults.get(f"{stage}_epochs", 5 if stage == "gates" else None),
            f"Length {of} in passes over the training images, instead of "
            f"--{stage}_steps.",
            lower_bound=1,
        )
    flags.DEFINE_integer(
        "batch_size",
        defaults["batch_size"],
        "Images per step, over all devices of all processes.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "gradient_accumulation",
        1,
        "Parts in which a device computes its share of a batch, one after "
        "the other, for want of memory; batch statistics are those of a part.",
        lower_bound=1,
    )


def _define_learning_rate(defaults):
    number(
        "learning_rate",
        defaults["learning_rate"],
        "Of base, sp, elastic, target_rate and budget.",
    )
    number(
        "sp_learning_rate",
        None,
        "Of sp, elastic, target_rate and budget. Not given: --learning_rate.",
    )
    number(
        "hrl_learning_rate",
        defaults["hrl_learning_rate"],
        "Of gates, hrl and rl.",
    )
    flags.DEFINE_integer(
        "learning_rate_batch",
        None,
        "Batch size that the learning rates are meant for: they are scaled "
        "by --batch_size over this. Not given: they are taken as they are.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "warmup_steps",
        0,
        "First steps of base and of sp, or what comes in its place, with "
        "another learning rate.",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "warmup",
        "constant",
        ["constant", "linear"],
        "Learning rate of --warmup_steps: 0.01 (published: 400 steps for "
        "depth 110), or a line up to where the schedule is.",
    )


def _define_schedules(defaults):
    for prefix, stages in (
        ("", "base, sp and stages like sp"),
        ("hrl_", "gates, hrl and rl"),
    ):
        flags.DEFINE_enum(
            f"{prefix}schedule",
            defaults[f"{prefix}schedule"],
            _SCHEDULES,
            f"Learning rate of {stages}: divided by 10 at each of "
            f"--{prefix}milestones, half a cosine to 0, or constant.",
        )
        flags.DEFINE_list(
            f"{prefix}milestones",
            defaults.get(f"{prefix}milestones", ["0.5", "0.75"]),
            f"Fractions of {stages}.",
        )
        flags.register_validator(
            f"{prefix}milestones",
            _are_fractions,
            "must be fractions between 0 and 1 in ascending order",
        )


def _define_devices():
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
        "device",
        "auto",
        ["auto", "cpu", "gpu"],
        "auto: GPUs if there are any; gpu: refuse to start without.",
    )
    flags.DEFINE_enum(
        "distribution",
        "none",
        distribution.DISTRIBUTIONS,
        "none: one device; mirrored: all of this machine; multi_worker: the "
        "processes named in TF_CONFIG, started with the same flags and a "
        "--workdir that all of them see.",
    )
    number("worker_patience", 300.0, "Seconds to wait for the other processes.")


def _are_fractions(texts):
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return False
    inside = all(0 < number < 1 for number in numbers)
    return inside and numbers == sorted(numbers)
