"""What happens to a run that collapses."""

from absl import flags
from network_flags import number

from skipnet_tf import collapse


def define(defaults: dict) -> None:
    """Defines the flags, with the defaults of the data set."""
    flags.DEFINE_enum(
        "on_collapse",
        defaults.get("on_collapse", "stop"),
        collapse.ACTIONS,
        "Once validation accuracy is below the floor, all gates are shut, or "
        "all are open though skipping is rewarded: stop; fall back to the last "
        "good checkpoint with learning rate, alpha (as adapted, where there is "
        "--target_macs) and rl_weight halved, three times at most; or only "
        "warn.",
    )
    number(
        "accuracy_floor",
        None,
        "Validation accuracy below which a run has collapsed, once it has "
        "reached it or is in its tenth epoch. Not given: half-way from chance "
        "to the accuracy that the stage began with, or little above chance "
        "where it began with none.",
        1.0,
    )
