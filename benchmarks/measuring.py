"""Times networks that take turns, in a process with one number of threads."""

import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence

import common
import numpy as np
import peers
from networks import spread

from skipnet_tf import sessions
from skipnet_tf import verification

_DRAWS = 8  # of decisions for each batch and share
_TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2}  # of the largest logit


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one process measures.

    Attributes:
        size: Int, height and width of the images in pixels.
        paths: Dict from precision to what `networks.export` returned.
        peers: Dict from peer to what `peers.convert` returned.
        threads: Positive int.
        batches: Sequence of ints, images in a call.
        shares: Sequence of ints, per cent of the gates that are open.
        repeats: Int, most rounds of a batch.
        seconds: Float, after which no further round of a batch begins.
    """

    size: int
    paths: dict[str, dict]
    peers: dict[str, str]
    threads: int
    batches: Sequence[int]
    shares: Sequence[int]
    repeats: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Contender:
    """One of those that take turns.

    Attributes:
        precision: `"float32"` or `"bfloat16"`.
        kind: `"dense"`, `"gated"`, `"straight"` or a peer.
        percent: Int, per cent of the gates or blocks behind gates.
        call: Function to a dict of `logits` and, but for peers, `macs`.
        inputs: List of tuples of arrays, for calls one after the other.
    """

    precision: str
    kind: str
    percent: int
    call: Callable[..., dict]
    inputs: list[tuple]

    def run(self, turn: int) -> dict:
        """Outputs of the call number `turn`."""
        return self.call(*self.inputs[turn % len(self.inputs)])


def draw(
    random: np.random.Generator, batch: int, gates: int, percent: int
) -> np.ndarray:
    """Decisions `(batch, gates)` with exactly this share open, float32.

    Any image and block with equal probability, independent of one another
    but for the sum, so that few draws suffice.
    """
    count = batch * gates
    actions = np.arange(count) < round(count * percent / 100)
    return random.permutation(actions).reshape(batch, gates).astype("float32")


def interleave(
    calls: Sequence[Callable[[int], object]], repeats: int, seconds: float
) -> list[list[float]]:
    """Milliseconds of every call, one after the other in each round.

    Args:
        calls: Functions of the number of the round.
        repeats: Int, most rounds.
        seconds: Float, after which no further round begins, unless there were
            fewer than five.

    Returns:
        List of times for each of `calls`.
    """
    times = [[] for _ in calls]
    for turn in itertools.islice(common.rounds(seconds), repeats):
        for call, taken in zip(calls, times):
            start = time.perf_counter()
            call(turn)
            taken.append(1e3 * (time.perf_counter() - start))
    return times


def measure(plan: Plan) -> list[dict]:
    """Measures all batches of a plan.

    Call it in a process where TensorFlow has not run yet: the first session
    decides on the number of threads.

    Returns:
        List of rows: `threads`, `batch`, `precision`, `kind`, `percent`,
        `macs` as a part of the dense network's, `median` and `minimum` in
        milliseconds, `rounds`.

    Raises:
        VerificationError: If contenders that should agree do not.
    """
    loaded = {
        precision: {
            key: sessions.Session(sessions.read_meta_graph(path), plan.threads)
            for key, path in paths.items()
        }
        for precision, paths in plan.paths.items()
    }
    rows = []
    for batch in plan.batches:
        started = time.perf_counter()
        found = _measure_batch(plan, loaded, batch)
        print(
            f"  {plan.threads} threads, batch {batch}: {found[0]['rounds']} "
            f"rounds in {time.perf_counter() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        rows += found
    return rows


def _measure_batch(plan, loaded, batch):
    shape = (batch, plan.size, plan.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    contenders = []
    for precision, networks in loaded.items():
        contenders += _contenders(plan, precision, networks, images)
    # The first is dense.
    dense = float(np.mean(contenders[0].run(0)["macs"]))
    macs = [_warm_up(contender, dense) for contender in contenders]
    times = interleave([c.run for c in contenders], plan.repeats, plan.seconds)
    return [
        {
            "threads": plan.threads,
            "batch": batch,
            "precision": contender.precision,
            "kind": contender.kind,
            "percent": contender.percent,
            "macs": _mean_of_turns(spent, len(taken)) / dense,
            "median": statistics.median(taken),
            "minimum": min(taken),
            "rounds": len(taken),
        }
        for contender, spent, taken in zip(contenders, macs, times)
    ]


def _contenders(plan, precision, networks, images):
    """All of one precision, the dense one first."""
    gated = networks["gated"]
    batch = len(images)
    gates = gated.run("serving_default", images=images)["gates"].shape[1]
    forced = _function(gated, "forced", "images", "actions")

    def check(answer, percent, what):
        actions = np.tile(np.float32(spread(gates, percent)), (batch, 1))
        verification.check_logits(
            forced(images, actions)["logits"],
            answer["logits"],
            _TOLERANCES[precision],
            f"the gated network, which should be those of {what}",
        )

    fixed = {("dense", 100): networks["dense"]}
    fixed |= {key: networks[key] for key in networks if "straight" in key}
    found = []
    for (kind, percent), session in fixed.items():
        call = _function(session, "serving_default", "images")
        check(call(images), percent, kind)
        found.append(Contender(precision, kind, percent, call, [(images,)]))
    for peer, path in plan.peers.items():
        if precision in peers.PRECISIONS[peer]:
            call = peers.load(peer, path, images.shape, plan.threads, precision)
            check(call(images), 100, peer)
            found.append(Contender(precision, peer, 100, call, [(images,)]))
    random = np.random.default_rng(0)  # the same draws in both precisions
    for percent in plan.shares:
        inputs = [
            (images, draw(random, batch, gates, percent))
            for _ in range(1 if percent in (0, 100) else _DRAWS)
        ]
        found.append(Contender(precision, "gated", percent, forced, inputs))
    return found


def _function(session, signature, *inputs):
    call = session.callable(signature, *inputs)
    names = list(session.signatures[signature].outputs)
    return lambda *arrays: dict(zip(names, call(*arrays)))


def _warm_up(contender, dense):
    """Multiply-adds per image of every draw; peers do not count them.

    Other numbers of rows need other kernels, made at their first use.
    """
    return [
        float(np.mean(contender.run(turn).get("macs", dense)))
        for turn in range(len(contender.inputs))
    ]


def _mean_of_turns(values, rounds):
    """Mean over the draws that were timed, as often as they were."""
    return statistics.mean(values[turn % len(values)] for turn in range(rounds))
