"""Does skipping save time in training? Against dense networks and peers.

    python benchmarks/training.py --networks=resnet38 --out=results
    python benchmarks/training.py --from_json --out=results

Shares of blocks that run are imposed, and the gates computed and trained all
the same. Writes `training_<network>.json`, and a table and a picture of all
results in --out. Everything runs on the processor; needs Linux.
"""

import concurrent.futures
import contextlib
import math
import os
import statistics
import sys
import time

import architectures
import common
import training_report
import turns
from absl import app
from absl import flags

_KINDS = (
    "dense",
    "sp",
    "masked",
    "self_critical",
    "conditional",
    "keras",
    "pytorch",
)
_MASKED_PERCENT = 50  # all blocks are computed, whatever the share
# Kinds that are the dense network, down to the number of weights.
_PEERS = ("keras", "pytorch")

_NETWORKS = flags.DEFINE_list(
    "networks",
    list(architectures.NETWORKS),
    "Networks: resnet38 and resnet110 at 32x32, resnet50 at 224x224 pixels.",
)
_PRECISIONS = flags.DEFINE_list(
    "precisions", list(architectures.POLICIES), "Precisions of the layers."
)
_CONTENDERS = flags.DEFINE_list(
    "contenders",
    list(_KINDS),
    "What to train; dense is always among them, to compare with.",
)
_SHARES = flags.DEFINE_list(
    "shares",
    [100, 75, 50, 25, 10],
    "Images that run a gated block, in per cent, of conditional.",
)
_BATCH = flags.DEFINE_integer(
    "batch",
    None,
    "Images in a step. Defaults to 128, and at 224x224 to 16.",
    lower_bound=1,
)
_THREADS = flags.DEFINE_integer(
    "threads", 2, "Threads, each on a core of its own.", lower_bound=1
)
_STEPS = flags.DEFINE_integer(
    "steps",
    3,
    "Steps in a turn; the first is not counted.",
    lower_bound=2,
)
_SECONDS = flags.DEFINE_float(
    "seconds",
    90,
    "A network in one precision begins no further round after this, if it "
    "has had five.",
    lower_bound=0,
)
_OUT = flags.DEFINE_string(
    "out", "benchmarks/results", "Folder for results, table and picture."
)
_FROM_JSON = flags.DEFINE_bool(
    "from_json", False, "Measure nothing; table and picture of --out only."
)


def main(argv):
    del argv
    try:
        if not _FROM_JSON.value:
            _measure_all()
        print(*training_report.write(_OUT.value), sep="\n")
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def _measure_all():
    common.use_processor()
    for flag, known in (
        (_NETWORKS, architectures.NETWORKS),
        (_PRECISIONS, architectures.POLICIES),
        (_CONTENDERS, _KINDS),
    ):
        common.check_choices(flag, known)
    shares = common.numbers(_SHARES, 0, 100)
    cores = _cores(_THREADS.value)
    kinds = set(_CONTENDERS.value)
    packages = ["tensorflow", "keras"]
    if "pytorch" in kinds:
        if common.installed({"pytorch": ("torch",)}):
            packages.append("torch")
        else:
            kinds.remove("pytorch")
    entrants = contenders(kinds, shares)
    os.makedirs(_OUT.value, exist_ok=True)
    machine = common.machine(packages)
    print(", ".join(machine.values()))
    for name in _NETWORKS.value:
        network = architectures.NETWORKS[name]
        rows = []
        for precision in _PRECISIONS.value:
            batch = _BATCH.value or network.batch
            task = turns.Task(network, precision, batch, cores)
            started = time.perf_counter()
            rows += measure(task, entrants, _STEPS.value, _SECONDS.value)
            print(
                f"  {name}, {precision}: {rows[-1]['rounds']} rounds in "
                f"{time.perf_counter() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        result = {"network": name, "machine": machine, "rows": rows}
        print(common.save(_OUT.value, "training", result))


def _cores(threads):
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise ValueError(
            f"--threads takes at most the {len(cores)} cores there are; "
            f"received {threads}"
        )
    return tuple(cores[:threads])


def contenders(kinds: set[str], shares: list[int]) -> list[turns.Contender]:
    """Those that take turns, the dense network first.

    Args:
        kinds: Set of strings; dense need not be among them.
        shares: List of ints, per cent, of conditional.

    Returns:
        List of `turns.Contender`.
    """
    percents = {
        "masked": [_MASKED_PERCENT],
        "self_critical": [_MASKED_PERCENT],
        "conditional": shares,
    }
    return [
        turns.Contender(kind, percent)
        for kind in _KINDS
        if kind in kinds or kind == "dense"
        for percent in dict.fromkeys(percents.get(kind, [100]))
    ]


def measure(
    task: turns.Task,
    entrants: list[turns.Contender],
    steps: int,
    seconds: float,
) -> list[dict]:
    """Times a network in one precision.

    Args:
        task: What to train.
        entrants: Contenders, dense first.
        steps: Int, in a turn.
        seconds: Float, see `turns.take_turns`.

    Returns:
        List of rows: `precision`, `contender`, `percent`, `threads`, `batch`,
        `median` and `minimum` in milliseconds of a step, `rounds`, `steps`
        that were timed, `memory` in MiB.

    Raises:
        RuntimeError: If a contender fails, is another network or diverges.
    """
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(turns.Worker(entrant, task))
            for entrant in entrants
        ]
        check_parameters({w.contender.kind: w.parameters() for w in workers})
        # Each on a core, more or less: a graph is built by one thread.
        pool = concurrent.futures.ThreadPoolExecutor(len(task.cores))
        memory = list(stack.enter_context(pool).map(_warm_up, workers))
        times = turns.take_turns(workers, steps, seconds)
        check_losses({w.contender: w.ask("loss") for w in workers})
    return [
        {
            "precision": task.precision,
            "contender": entrant.kind,
            "percent": entrant.percent,
            "threads": len(task.cores),
            "batch": task.batch,
            **_summary(taken, steps),
            "memory": held,
        }
        for entrant, taken, held in zip(entrants, times, memory)
    ]


def _summary(taken, steps):
    return {
        "median": statistics.median(taken),
        "minimum": min(taken),
        "rounds": len(taken) // (steps - 1),
        "steps": len(taken),
    }


def _warm_up(worker):
    return worker.ask("warm_up", worker.contender.warm_up)


def check_parameters(parameters: dict[str, int]) -> None:
    """Raises `RuntimeError` if a peer has not as many weights as dense."""
    for peer in _PEERS:
        found = parameters.get(peer, parameters["dense"])
        if found != parameters["dense"]:
            raise RuntimeError(
                f"{peer} trains another network: {found} weights instead of "
                f"{parameters['dense']}"
            )


def check_losses(losses: dict[turns.Contender, float]) -> None:
    """Raises `RuntimeError` unless all losses are finite."""
    for contender, loss in losses.items():
        if not math.isfinite(loss):
            label = training_report.label(contender.kind, contender.percent)
            raise RuntimeError(f"{label} ended in a loss of {loss}")


if __name__ == "__main__":
    app.run(main)
