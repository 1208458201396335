"""Flags that all trainers have; each script sets the defaults."""

import data_flags
import network_flags
import objective_flags
import safety_flags
import training_flags
from absl import flags

STAGES = network_flags.STAGES

_MODULES = (
    network_flags,
    objective_flags,
    training_flags,
    safety_flags,
    data_flags,
)

# The flags then count as the script's own, and its --help lists them.
flags.disclaim_key_flags()


def define(**defaults) -> None:
    """Defines the flags; `defaults` are those of the data set."""
    for module in _MODULES:
        module.define(defaults)
    # Afterwards: some define flags of others, which count as theirs.
    for module in _MODULES:
        flags.adopt_module_key_flags(module)


def values() -> dict:
    """All flags defined here, by name."""
    defined = flags.FLAGS.flags_by_module_dict()
    return {
        flag.name: flag.value
        for module in _MODULES
        for flag in defined[module.__name__]
    }
