"""The runs of a sweep: what is done, what failed, what it gave."""

import json
import os
import time
from collections.abc import Callable
from collections.abc import Sequence

import sweep_engines
import sweep_plan
import sweep_results
import sweep_trainer

from skipnet_tf import experiment


class Runs:
    """The runs of a work directory, noted in its `sweep.json`.

    Args:
        trainer: The trainer of all runs.
        folder: String, the work directory.
        match_accuracy: Optional float, points of accuracy that a search for
            the price may give away. Defaults to `None`, no search.

    Attributes:
        failed: Set of the names of runs that failed this time.
        matches: List of dicts, how the searches stand.
    """

    def __init__(
        self,
        trainer: sweep_trainer.Trainer,
        folder: str,
        match_accuracy: float | None = None,
    ):
        self.failed, self.matches = set(), []
        self._trainer, self._folder = trainer, folder
        self._match_accuracy = match_accuracy
        self._settings, self._checked = {}, {}
        self._began, self._stages_trained = time.monotonic(), 0

    def resume(
        self, settings: Sequence[sweep_plan.Setting]
    ) -> list[sweep_plan.Setting]:
        """Goes on with the sweep that the work directory holds, if any.

        Args:
            settings: What this sweep is asked for.

        Returns:
            The settings, those of the earlier command first: they have trained
            the stages that others share.

        Raises:
            ValueError: If it was begun with other settings than some of
                these, or with another trainer or search.
        """
        path = os.path.join(self._folder, "sweep.json")
        if not os.path.exists(path):
            return list(settings)
        with open(path) as file:
            before = json.load(file)
        kept = before["runs" if self._match_accuracy is None else "matches"]
        kept = [entry["name"] for entry in kept]
        lost = sorted(set(kept) - {setting.name for setting in settings})
        now = (self._trainer.name, self._match_accuracy)
        if (before["trainer"], before["match_accuracy"]) != now or lost:
            raise ValueError(
                f"{self._folder} holds another sweep: --trainer="
                f"{before['trainer']}, --match_accuracy="
                f"{before['match_accuracy']}, settings not asked for now: "
                f"{', '.join(lost[:3]) or 'none'}. Give the same --grid to go "
                "on, more if you like, or another --workdir"
            )
        kept += [s.name for s in settings if s.name not in kept]
        return sorted(settings, key=lambda setting: kept.index(setting.name))

    def check(self, setting: sweep_plan.Setting) -> sweep_trainer.Checked:
        """Reads a setting as the trainer will, see `Trainer.check`."""
        return self._trainer.check(setting.flags, self.path(setting.name))

    def add(self, setting: sweep_plan.Setting) -> None:
        """Adds the run of a setting."""
        self._checked[setting.name] = self.check(setting)
        self._settings[setting.name] = setting

    def path(self, name: str) -> str:
        """The folder of a run."""
        return os.path.join(self._folder, name)

    def last_stage(self, name: str) -> str:
        """The stage that a run ends with."""
        return list(self._checked[name].keys)[-1]

    def has_test(self, name: str) -> bool:
        """Whether a run looks at test images."""
        return self._checked[name].tests

    def jobs(self) -> dict[str, sweep_engines.Job]:
        """What to run, by name."""
        trained_by = self._trained_by()
        return {
            name: sweep_engines.Job(
                name=name,
                folder=self.path(name),
                script=self._trainer.script,
                arguments=(
                    *self._trainer.given,
                    *setting.arguments,
                    f"--workdir={self.path(name)}",
                ),
                sources={
                    stage: self.path(owner)
                    for stage, owner in trained_by[name].items()
                },
            )
            for name, setting in self._settings.items()
        }

    def done(self) -> list[str]:
        """Runs with all their results."""
        return [name for name, job in self.jobs().items() if job.complete()]

    def summaries(self, name: str, stage: str) -> dict[str, dict]:
        """What a stage of a finished run gave, by split."""
        return sweep_results.read(self.path(name), stage)

    def train(
        self,
        engine: Callable[
            [list[sweep_engines.Job], Callable[[sweep_engines.Job], None]], None
        ],
    ) -> None:
        """Trains every run that is not complete and has not failed.

        Args:
            engine: `sweep_engines.loop`, or a `sweep_engines.Ray`.
        """
        done = self.done()
        waiting = [
            name
            for name in self._settings
            if name not in done and name not in self.failed
        ]
        print(
            f"{self._folder}: {len(self._settings)} runs, {len(waiting)} to "
            "be trained",
            flush=True,
        )
        self.write()

        def tell(job):
            waiting.remove(job.name)
            self._tell(job, waiting)
            self.write()

        while waiting:
            engine(self._ready(waiting), tell)

    def write(self) -> None:
        """Writes `sweep.json`."""
        trained_by = self._trained_by()
        runs = [
            {
                "name": name,
                "folder": job.folder,
                "flags": self._settings[name].flags,
                "state": self._state(job),
                "trained_by": trained_by[name],
            }
            for name, job in self.jobs().items()
        ]
        os.makedirs(self._folder, exist_ok=True)
        experiment.write_json(
            os.path.join(self._folder, "sweep.json"),
            {
                "trainer": self._trainer.name,
                "match_accuracy": self._match_accuracy,
                "runs": runs,
                "matches": self.matches,
            },
        )

    def describe(self) -> str:
        """A line for each run: the stages it trains, and those it takes."""
        trained_by = self._trained_by()
        return "\n".join(
            f"{name} [{self._state(job)}]: "
            + ", ".join(
                stage + (f" of {owner}" if owner != name else "")
                for stage, owner in trained_by[name].items()
            )
            for name, job in self.jobs().items()
        )

    def _trained_by(self):
        return sweep_plan.owners(
            {name: checked.keys for name, checked in self._checked.items()},
            self._rank,
        )

    def _rank(self, name, stage):
        """Whose stage to take: one that is there, not one that failed."""
        result = os.path.join(self.path(name), stage, "result.json")
        return 0 if os.path.exists(result) else 1 + (name in self.failed)

    def _ready(self, waiting):
        """Jobs that need nothing which others have yet to train."""
        jobs, trained_by = self.jobs(), self._trained_by()
        return [
            jobs[name]
            for name in waiting
            if not any(
                owner != name and owner in waiting and self._rank(owner, stage)
                for stage, owner in trained_by[name].items()
            )
        ]

    def _state(self, job):
        if job.complete():
            return "done"
        return "failed" if job.name in self.failed else "waiting"

    def _tell(self, job, waiting):
        if not job.complete():
            self.failed.add(job.name)
        jobs = self.jobs()
        self._stages_trained += job.weight
        left = sum(jobs[name].weight for name in waiting)
        seconds = time.monotonic() - self._began
        seconds *= left / self._stages_trained
        print(
            f"{job.name}: {self._state(job)}; {len(waiting)} runs left, about "
            f"{seconds / 60:.0f} min",
            flush=True,
        )
        if job.name in self.failed:
            print(f"the end of {job.log}:\n{job.tail()}", flush=True)
