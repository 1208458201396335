"""What a sweep trains: settings, the stages they share, prices to try.

Pure functions: they read no flags and no files.
"""

import dataclasses
import itertools
import math
import os
import re
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Sequence

_WIDEN = 4.0  # factor on the price until it is too low and too high
_CLOSE = 1.1  # prices nearer than this differ by less than two seeds do


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a trainer's flags.

    Args:
        name: String, unique, the folder of its run.
        group: String, the name without the seed.
        flags: Dict from flag to value, both strings.
    """

    name: str
    group: str
    flags: dict[str, str]

    @property
    def arguments(self) -> list[str]:
        """The flags as a command line has them."""
        return [f"--{name}={value}" for name, value in self.flags.items()]

    def priced(self, alpha: float) -> "Setting":
        """This setting with a price of computation."""
        label = f"alpha={alpha:.3g}"
        return Setting(
            f"{self.name}_{label}",
            f"{self.group}_{label}",
            self.flags | {"alpha": f"{alpha:.3g}"},
        )


def settings(grids: Sequence[str], lists: Container[str]) -> list[Setting]:
    """All settings of some grids.

    Args:
        grids: Strings `"title: flag=value,value; flag=value"`, whose settings
            are all combinations; the title and its colon may be left out.
        lists: Flags whose values are lists with commas. Their values in a
            grid are separated by `|`.

    Returns:
        List of settings with names of their own.

    Raises:
        ValueError: If there are none, a grid cannot be read, or two settings
            have the same name.
    """
    found = {}
    for text in grids:
        for setting in _combinations(text, lists):
            if setting.name in found:
                raise ValueError(
                    "--grid must give every setting a name of its own: put "
                    "a title before one of the grids, as in --grid='title: "
                    f"{text}'. Received two of {setting.name}"
                )
            found[setting.name] = setting
    if not found:
        raise ValueError(
            "--grid must hold at least one setting, as in "
            "--grid='alpha=0.2,0.5; seed=0,1'. Received: none"
        )
    return list(found.values())


def _combinations(text, lists):
    title, axes = _read(text, lists)
    for values in itertools.product(*axes.values()):
        flags = dict(zip(axes, values))
        # Under a title, what all settings have in common goes without saying.
        labels = {
            name: _label(name, value)
            for name, value in flags.items()
            if not title or len(axes[name]) > 1
        }
        whole = [title] * bool(title) + list(labels.values())
        labels.pop("seed", None)
        group = [title] * bool(title) + list(labels.values())
        yield Setting(
            "_".join(whole) or title, "_".join(group) or "default", flags
        )


def _read(text, lists):
    title, body = re.fullmatch(r"\s*(?:([\w-]+):)?(.*)", text, re.S).groups()
    axes = {}
    for part in filter(None, map(str.strip, body.split(";"))):
        name, equals, values = part.partition("=")
        separator = "|" if name in lists else ","
        choices = [value.strip() for value in values.split(separator)]
        if not equals or not all(choices) or name in axes:
            raise ValueError(
                "--grid must be flag=value,value;flag=value with each flag "
                f"once. Received: {part!r} in --grid={text!r}"
            )
        axes[name] = list(dict.fromkeys(choices))
    if not axes:
        raise ValueError(
            f"--grid must name a flag and its values. Received: --grid={text!r}"
        )
    return title or "", axes


def _label(name, value):
    if name == "flagfile":
        return os.path.splitext(os.path.basename(value))[0]
    return re.sub(r"[^\w.,=+-]", "-", f"{name}={value}")


def owners(
    keys: dict[str, dict[str, str]], rank: Callable[[str, str], int]
) -> dict[str, dict[str, str]]:
    """Which run trains each stage: one for all that need it.

    Args:
        keys: Dict from run to dict from stage to all that it depends on.
        rank: Function of a run and a stage; the run with the lowest number
            trains it, the first of them in the order of `keys`.

    Returns:
        Dict from run to dict from stage to the run that trains it.
    """
    needing = {}
    for run, stages in keys.items():
        for need in stages.items():
            needing.setdefault(need, []).append(run)
    trains = {
        (stage, key): min(runs, key=lambda run: rank(run, stage))
        for (stage, key), runs in needing.items()
    }
    return {
        run: {stage: trains[stage, key] for stage, key in stages.items()}
        for run, stages in keys.items()
    }


def next_price(tried: dict[float, bool], first: float) -> float | None:
    """The price to try next in search of the highest that still holds.

    Bisection on a logarithmic scale: prices act by their ratio.

    Args:
        tried: Dict from price to whether accuracy held under it.
        first: Positive float, where to begin.

    Returns:
        Positive float, or `None` once the limit is known within a tenth.
    """
    if not tried:
        return first
    held = [price for price in tried if tried[price]]
    if not held:
        return min(tried) / _WIDEN
    low = max(held)
    too_high = [price for price in tried if price > low]
    if not too_high:
        return low * _WIDEN
    high = min(too_high)
    return math.sqrt(low * high) if high / low > _CLOSE else None
