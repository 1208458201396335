"""Contenders in processes of their own, of which one at a time computes.

TensorFlow keeps kernels for shapes it has seen; in one process contenders
would push out one another's.
"""

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Sequence

import common
from architectures import Architecture


@dataclasses.dataclass(frozen=True)
class Contender:
    """One of those that take turns.

    Attributes:
        kind: `"dense"`, `"sp"`, `"masked"`, `"conditional"`, `"keras"` or
            `"pytorch"`.
        percent: Int, per cent of the images that run a gated block.
    """

    kind: str
    percent: int = 100

    @property
    def warm_up(self) -> int:
        """Steps before any counts: every number of rows has its kernels."""
        return 10 if self.kind == "conditional" else 3


@dataclasses.dataclass(frozen=True)
class Task:
    """What all contenders of a network and precision have in common.

    Attributes:
        architecture: The shapes.
        precision: `"float32"` or `"bfloat16"`.
        batch: Positive int, images in a step.
        cores: Tuple of ints, the processor's cores to run on, a thread each.
    """

    architecture: Architecture
    precision: str
    batch: int
    cores: tuple[int, ...]


class Session:
    """Answers the parent's requests, in the process of a contender.

    Args:
        training: Object with `step()`, `loss()` and `parameters`.
    """

    def __init__(self, training):
        self._training = training

    def parameters(self) -> int:
        """Number of weights that are trained."""
        return self._training.parameters

    def warm_up(self, steps: int) -> float | None:
        """MiB of the tensors of a step, where that is known."""
        self.run(steps)
        return self._training.memory()

    def run(self, steps: int) -> list[float]:
        """Milliseconds of each step."""
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            self._training.step()
            times.append(1e3 * (time.perf_counter() - start))
        return times

    def loss(self) -> float:
        """What the last steps ended in."""
        return self._training.loss()


class Worker:
    """A contender in a process of its own; a context manager.

    Args:
        contender: A `Contender`.
        task: What to train.
    """

    def __init__(self, contender: Contender, task: Task):
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other, contender, task), daemon=True
        )
        self._process.start()
        other.close()
        # Now, so that all load their libraries side by side.
        self._pipe.send(("parameters", ()))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._pipe.close()
        # It ends when it next listens; after an error there is no waiting.
        self._process.join(None if error[0] is None else 0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def parameters(self) -> int:
        """Number of weights that are trained; ask for it first, and once.

        Raises:
            RuntimeError: If they cannot be made.
        """
        return self._answer()

    def ask(self, request: str, *arguments):
        """The answer of a method of `Session`, waited for.

        Args:
            request: String, name of the method.
            *arguments: Of the method.

        Returns:
            What the method returns.

        Raises:
            RuntimeError: If it fails or the process has ended.
        """
        self._pipe.send((request, arguments))
        return self._answer()

    def _answer(self):
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError(
                f"the process of {self.contender.kind} has ended; "
                "is there memory enough?"
            ) from error
        if isinstance(answer, Exception):
            raise RuntimeError(f"{self.contender.kind}: {answer}") from answer
        return answer


def take_turns(
    workers: Sequence[Worker], steps: int, seconds: float
) -> list[list[float]]:
    """Milliseconds of the steps of every worker, some in each round.

    Args:
        workers: Those that take turns.
        steps: Int, at least 2, in a turn. The first is not counted: others
            have used the caches meanwhile.
        seconds: Float, after which no further round begins, unless there were
            fewer than five.

    Returns:
        List of times for each worker; each round adds `steps - 1`.
    """
    times = [[] for _ in workers]
    for _ in common.rounds(seconds):
        for worker, taken in zip(workers, times):
            taken += worker.ask("run", steps)[1:]
    return times


def _serve(pipe, contender, task):
    """Answers requests until the parent closes the pipe."""
    # Before the libraries are loaded, which count the cores they may use.
    os.sched_setaffinity(0, task.cores)
    session = None
    while True:
        try:
            request, arguments = pipe.recv()
        except EOFError:
            return
        try:
            session = session or Session(_training(contender, task))
            answer = getattr(session, request)(*arguments)
        except Exception as error:
            # As text: not every exception can be sent.
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        pipe.send(answer)


def _training(contender, task):
    threads = len(task.cores)
    if contender.kind == "pytorch":
        import plain_torch

        return plain_torch.Training(
            task.architecture, task.precision, task.batch, threads
        )
    # Imported here: PyTorch's process does without TensorFlow.
    import steps

    return steps.build(
        task.architecture,
        task.precision,
        contender.kind,
        contender.percent,
        task.batch,
        threads,
    )
