"""Trains many settings of one trainer and tells what they gave over seeds.

Each setting is a run of the trainer's own script in a folder of its own. A
stage that several settings share is trained by the first of them and copied by
the others. The same command again goes on where it was stopped.

    python trainers/sweep.py --trainer=digits --workdir=runs/sweep \
        --flagfile=trainers/flagfiles/digits_demo.txt \
        --grid="alpha=0.2,0.5,1.0; seed=0,1"
    python trainers/sweep.py --workdir=runs/sweep_digits \
        --flagfile=trainers/flagfiles/sweep_digits.txt

The trainer's flags are taken, too, and hold for every setting.
"""

import os
import sys

import shared
import sweep_engines
import sweep_match
import sweep_plan
import sweep_results
import sweep_runs
import sweep_trainer
import tensorflow as tf
from absl import flags

_TRAINER = flags.DEFINE_enum(
    "trainer", None, sweep_trainer.SCRIPTS, "Script to run.", required=True
)
_GRID = flags.DEFINE_multi_string(
    "grid",
    [],
    "Settings, 'title: flag=value,value; flag=value': all combinations, each "
    "in a folder named after the title and the values. Flags that are lists "
    "have | between values, as in stages=base|base,sp; flagfile=... is taken, "
    "too. May be given several times, and more of them to go on.",
)
_MATCH_ACCURACY = flags.DEFINE_float(
    "match_accuracy",
    None,
    "Search, for each setting, the --alpha that saves most while validation "
    "accuracy is at most this many points below that of base.",
    lower_bound=0.0,
)
_TRIES = flags.DEFINE_integer(
    "tries",
    8,
    "Most values of --alpha that --match_accuracy tries.",
    lower_bound=1,
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Check all settings and say what would be trained."
)
_ENGINE = flags.DEFINE_enum(
    "engine",
    "auto",
    ["auto", "loop", "ray"],
    "loop: one run after the other; ray: Ray Tune, as many at a time as there "
    "is room for. auto: ray where it is installed and there is a "
    "--ray_address or more than one GPU.",
)
_RAY_ADDRESS = flags.DEFINE_string(
    "ray_address",
    None,
    "Ray cluster, such as auto; all its machines see --workdir. Not given: "
    "this machine.",
)
_CPUS = flags.DEFINE_float(
    "cpus_per_run", 1.0, "Processor cores of a run, with ray.", lower_bound=0.0
)
_GPUS = flags.DEFINE_float(
    "gpus_per_run",
    None,
    "GPUs of a run, with ray; less than 1: runs share one. Not given: 1 where "
    "there are any.",
    lower_bound=0.0,
)


def main(trainer: sweep_trainer.Trainer) -> None:
    """Checks all settings, trains them, and prints the table."""
    folder = flags.FLAGS.workdir
    engine = _engine(folder)
    settings = sweep_plan.settings(_GRID.value, trainer.lists)
    runs = sweep_runs.Runs(trainer, folder, _MATCH_ACCURACY.value)
    for setting in settings:
        runs.check(setting)
    settings = runs.resume(settings)
    if _MATCH_ACCURACY.value is None:
        for setting in settings:
            runs.add(setting)
        groups = {setting.name: setting.group for setting in settings}
    else:
        search = sweep_match.Search(runs, settings, _MATCH_ACCURACY.value)
    if _DRY_RUN.value:
        print(runs.describe())
        return
    if _MATCH_ACCURACY.value is None:
        runs.train(engine)
    else:
        groups = search.run(engine, _TRIES.value)
    _conclude(runs, folder, groups)


def _engine(folder):
    wanted = _ENGINE.value
    installed = sweep_engines.Ray.installed()
    if wanted == "ray" and not installed:
        raise ValueError(
            "--engine=ray needs Ray Tune (pip install 'skipnet_tf[sweep]'). "
            "Received: --engine=ray without it"
        )
    if wanted == "auto" and installed:
        gpus = tf.config.list_physical_devices("GPU")
        wanted = "ray" if _RAY_ADDRESS.value or len(gpus) > 1 else "loop"
    if wanted != "ray":
        return sweep_engines.loop
    return sweep_engines.Ray(
        folder, _RAY_ADDRESS.value, _CPUS.value, _GPUS.value
    )


def _conclude(runs, folder, groups):
    """Prints and writes the table over seeds; ends badly if a run failed."""
    done = [name for name in runs.done() if name in groups]
    found = sweep_results.rows(
        [
            (groups[name], stage, runs.summaries(name, stage))
            for name, stage in ((n, runs.last_stage(n)) for n in done)
        ]
    )
    sweep_results.write_csv(os.path.join(folder, "sweep.csv"), found)
    split = "test" if any(map(runs.has_test, done)) else "validation"
    shown = [row for row in found if row["split"] == split]
    print(f"\n{split} images, mean +- standard deviation over n runs:\n")
    print(sweep_results.table(shown), flush=True)
    if runs.failed:
        sys.exit(
            f"error: {len(runs.failed)} runs failed: "
            f"{', '.join(sorted(runs.failed))}"
        )


def _named_trainer():
    """The value of --trainer, before the flags it brings can be read."""
    early = flags.FlagValues()
    flags.DEFINE_string("trainer", None, "", flag_values=early)
    early(sys.argv, known_only=True)
    # Without one, for --help and for what absl has to say to a wrong name.
    known = early.trainer in sweep_trainer.SCRIPTS
    return early.trainer if known else "digits"


if __name__ == "__main__":
    named = sweep_trainer.Trainer(_named_trainer())
    shared.run(lambda argv: main(named))
