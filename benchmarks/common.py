"""What the benchmarks share: flags, rounds, the machine, files of results."""

import glob
import importlib.metadata
import importlib.util
import itertools
import json
import os
import sys
import time
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

from absl import flags

_FEWEST = 5  # rounds, however long they take


def use_processor() -> None:
    """Keeps TensorFlow, here and in child processes, from any GPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def check_choices(flag: flags.FlagHolder, known: Collection[str]) -> None:
    """Raises `ValueError` if a list has anything but what is known."""
    if not set(flag.value) <= set(known):
        raise ValueError(
            f"--{flag.name} takes {','.join(known)}; "
            f"received {','.join(flag.value)}"
        )


def numbers(flag: flags.FlagHolder, low: int, high: int) -> list[int]:
    """The whole numbers in a list, none for `None`.

    Args:
        flag: A list of strings or numbers.
        low: Int, the least that is allowed.
        high: Int, the most that is allowed.

    Returns:
        List of ints.

    Raises:
        ValueError: If something is not a number or out of range.
    """
    try:
        found = [int(number) for number in flag.value or ()]
    except ValueError as error:
        raise ValueError(f"--{flag.name} takes whole numbers") from error
    if not all(low <= number <= high for number in found):
        raise ValueError(f"--{flag.name} takes numbers of {low} to {high}")
    return found


def installed(wanted: Mapping[str, Iterable[str]]) -> list[str]:
    """The peers whose packages are there; says how to get the others.

    Args:
        wanted: Mapping from peer to the packages that it needs.

    Returns:
        List of strings.
    """
    found = []
    for peer, packages in wanted.items():
        missing = [p for p in packages if importlib.util.find_spec(p) is None]
        if missing:
            print(
                f"goes on without {peer}: {', '.join(missing)} missing; "
                "pip install 'skipnet_tf[benchmark]'",
                file=sys.stderr,
            )
        else:
            found.append(peer)
    return found


def machine(packages: Iterable[str]) -> dict[str, str]:
    """What the figures depend on, in words.

    Args:
        packages: Names of packages whose versions matter.

    Returns:
        Dict of strings.
    """
    # Not above: children set TensorFlow's environment before they import it.
    from skipnet_tf import model_card

    versions = {
        package: f"{package} {importlib.metadata.version(package)}"
        for package in packages
    }
    cores = f"{os.cpu_count()} logical cores"
    return {"processor": model_card.processor(), "cores": cores, **versions}


def rounds(seconds: float) -> Iterator[int]:
    """Numbers of the rounds: five, and more until the time is over."""
    end = time.perf_counter() + seconds
    for turn in itertools.count():
        if turn >= _FEWEST and time.perf_counter() > end:
            return
        yield turn


def save(folder: str, benchmark: str, result: dict) -> str:
    """Writes the result of one network.

    Args:
        folder: String.
        benchmark: `"inference"` or `"training"`.
        result: Dict of `network`, `machine` and `rows`.

    Returns:
        String, the file written.
    """
    path = os.path.join(folder, f"{benchmark}_{result['network']}.json")
    with open(path, "w") as file:
        json.dump(result, file, indent=1)
    return path


def load(folder: str, benchmark: str) -> list[dict]:
    """The results of all networks in a folder, fast networks first.

    Args:
        folder: String.
        benchmark: `"inference"` or `"training"`.

    Returns:
        List of dicts of `network`, `machine` and `rows`.

    Raises:
        ValueError: If there are none.
    """
    results = []
    for path in sorted(glob.glob(os.path.join(folder, f"{benchmark}_*.json"))):
        with open(path) as file:
            results.append(json.load(file))
    if not results:
        raise ValueError(f"there is no {benchmark}_*.json in {folder}")
    return sorted(results, key=lambda r: min(x["median"] for x in r["rows"]))
