"""How the runs of a sweep are started: one by one, or by Ray Tune.

A run is a process of its own, of the trainer's own script.
"""

import dataclasses
import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Sequence

_HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True)
class Job:
    """A run and what it takes.

    Args:
        name: String.
        folder: String, its work directory.
        script: String, file of the trainer.
        arguments: Strings, the trainer's flags.
        sources: Dict from stage to the folder, of this run or of another,
            where that stage is trained.
    """

    name: str
    folder: str
    script: str
    arguments: tuple[str, ...]
    sources: dict[str, str]

    @property
    def log(self) -> str:
        """The file that receives what the trainer says."""
        return os.path.join(self.folder, "output.txt")

    @property
    def weight(self) -> int:
        """Stages it trains itself, at least 1: how long it may take."""
        own = [s for s in self.sources.values() if s == self.folder]
        return max(1, len(own))

    def complete(self) -> bool:
        """Whether every stage has its result."""
        try:
            with open(os.path.join(self.folder, "result.json")) as file:
                return set(self.sources) <= set(json.load(file)["stages"])
        except FileNotFoundError:
            return False

    def tail(self, lines: int = 10) -> str:
        """The end of what the trainer said."""
        try:
            with open(self.log, errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except FileNotFoundError:
            return ""

    def run(self) -> None:
        """Trains what is not trained yet; its state is in its folder."""
        os.makedirs(self.folder, exist_ok=True)
        with open(self.log, "ab") as log:
            # The trainer inherits the lock: one that outlived a killed sweep
            # is waited for, not joined by a second one in the same folder.
            fcntl.flock(log, fcntl.LOCK_EX)
            if self.complete():
                return
            for stage, source in self.sources.items():
                _copy(os.path.join(source, stage), self.folder, stage)
            subprocess.run(
                [sys.executable, self.script, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def _copy(source, folder, stage):
    """Copies a finished stage: the trainer then finds it done."""
    target = os.path.join(folder, stage)
    finished = os.path.exists(os.path.join(source, "result.json"))
    if os.path.exists(target) or not finished:
        return
    # In one step, or a killed sweep would leave half of it.
    shutil.copytree(source, target + ".tmp", dirs_exist_ok=True)
    os.rename(target + ".tmp", target)


def loop(jobs: Sequence[Job], tell: Callable[[Job], None]) -> None:
    """Runs jobs one after the other.

    Args:
        jobs: The runs.
        tell: Function of a job, called when it has ended.
    """
    for job in jobs:
        print(f"{job.name}: running, see {job.log}", flush=True)
        job.run()
        tell(job)


@dataclasses.dataclass(frozen=True)
class Ray:
    """Ray Tune as the engine: runs share the devices of a machine or cluster.

    All machines must see the work directory and the checkout at the same path.

    Args:
        folder: String, where Tune keeps its own notes.
        address: Optional string, a cluster's, such as `"auto"`. Defaults to
            `None`, this machine.
        cpus: Positive float, processor cores of a run. Defaults to `1`.
        gpus: Optional float, GPUs of a run, a fraction to share one. Defaults
            to `None`: one where there are any.
    """

    folder: str
    address: str | None = None
    cpus: float = 1.0
    gpus: float | None = None

    @staticmethod
    def installed() -> bool:
        """Whether Ray is there."""
        return importlib.util.find_spec("ray") is not None

    def __call__(self, jobs: Sequence[Job], tell: Callable[[Job], None]):
        """Runs jobs, as many at a time as fit; see `loop`."""
        from ray import tune

        ended = []

        class Tell(tune.Callback):
            def on_trial_complete(self, iteration, trials, trial, **info):
                ended.append(trial)
                tell(jobs[trial.config["job"]])

            on_trial_error = on_trial_complete

        def trainable(config):
            jobs[config["job"]].run()
            return {"complete": jobs[config["job"]].complete()}

        tune.Tuner(
            tune.with_resources(trainable, self._resources()),
            param_space={"job": tune.grid_search(list(range(len(jobs))))},
            run_config=tune.RunConfig(
                name="ray",
                storage_path=os.path.abspath(self.folder),
                verbose=0,
                callbacks=[Tell()],
            ),
        ).fit()
        if len(ended) < len(jobs):
            raise KeyboardInterrupt  # which Tune keeps to itself

    def _resources(self):
        """What a run takes; refused if there is not as much: Ray would wait."""
        import ray

        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level="error",
                # The machines' Python must find this file.
                runtime_env={"env_vars": {"PYTHONPATH": _HERE}},
            )
        there = ray.cluster_resources()
        gpus = self.gpus
        if gpus is None:
            gpus = min(1, there.get("GPU", 0))
        for flag, kind, asked in (
            ("cpus_per_run", "CPU", self.cpus),
            ("gpus_per_run", "GPU", gpus),
        ):
            if asked > there.get(kind, 0):
                raise ValueError(
                    f"--{flag} must be at most the {there.get(kind, 0):g} "
                    f"that Ray has. Received: --{flag}={asked:g}"
                )
        return {"cpu": self.cpus, "gpu": gpus}
