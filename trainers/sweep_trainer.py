"""A trainer as the sweep sees it: flags to check, not yet a run."""

import dataclasses
import importlib
import json
import os

import settings
from absl import flags
from absl.testing import flagsaver

SCRIPTS = ("cifar", "digits", "imagenet", "svhn")
_HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a trainer makes of a setting.

    Attributes:
        keys: Dict from stage to all that it depends on, in order.
        alpha: Float, price of computation.
        tests: Bool, whether there is a test split.
    """

    keys: dict[str, str]
    alpha: float
    tests: bool


class Trainer:
    """A trainer's script, with its flags defined but not run.

    Args:
        name: String, one of `SCRIPTS`.
    """

    def __init__(self, name: str):
        self.name = name
        self.script = os.path.join(_HERE, f"{name}.py")
        before = set(flags.FLAGS)
        self._module = importlib.import_module(name)
        self._module.define()
        self._names = set(flags.FLAGS) - before

    @property
    def lists(self) -> set[str]:
        """Flags whose values are lists with commas."""
        return {
            name
            for name in self._names
            if flags.FLAGS[name].flag_type().startswith("comma separated")
        }

    @property
    def given(self) -> list[str]:
        """Flags of the trainer on this command line, for all settings."""
        values = (flags.FLAGS[name] for name in sorted(self._names))
        return [
            value.serialize()
            for value in values
            if value.present and value.name != "workdir"
        ]

    def check(self, flags_of: dict[str, str], workdir: str) -> Checked:
        """Reads a setting's flags as the trainer will.

        Args:
            flags_of: Dict from flag to value, both strings.
            workdir: String, the folder of its run.

        Returns:
            `Checked`.

        Raises:
            ValueError: If the trainer refuses a flag, or the folder holds a
                run with other flags.
        """
        values = flags.FLAGS
        for name in flags_of.keys() - self._names - {"flagfile"}:
            if name in values:
                raise ValueError(
                    f"--grid must hold flags of --trainer={self.name}. "
                    f"Received: {name}, a flag of the sweep"
                )
        given = [f"--{name}={value}" for name, value in flags_of.items()]
        with flagsaver.flagsaver():
            try:
                values(["sweep", *given, f"--workdir={workdir}"])
            except flags.Error as error:
                raise ValueError(
                    f"--grid must hold flags that --trainer={self.name} takes. "
                    f"Received: {' '.join(given)} ({error})"
                ) from error
            dataset = self._module.dataset()
            for stage in values.stages:
                settings.check(stage, dataset)
            return Checked(
                keys=self._keys(values.stages, dataset),
                alpha=values.alpha,
                tests=bool(values.test_split),
            )

    def _keys(self, stages, dataset):
        """All that each stage depends on, as the trainer itself notes it."""
        return {
            stage: json.dumps(settings.of_stage(stage, dataset), sort_keys=True)
            for stage in stages
        }
