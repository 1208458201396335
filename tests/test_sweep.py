"""Sweeps as they run: shared stages, resuming, engines, the search."""

import fcntl
import json
import os
import pathlib
import subprocess
import sys

import pytest
import sweep_engines
import sweep_match
import sweep_plan
import sweep_runs
import sweep_trainer

ROOT = pathlib.Path(__file__).parent.parent
TINY = [
    "--depth=8",
    "--batch_size=32",
    "--train_split=train[:100]",
    "--validation_split=train[100:150]",
    "--test_split=",
    "--base_steps=2",
    "--sp_steps=2",
    "--hrl_steps=2",
]
# A trainer that only pretends: a stage that is there stays, accuracy falls by
# the price, and a negative one ends in an error.
SCRIPT = """
import json, pathlib, sys

given = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
workdir, alpha = pathlib.Path(given["workdir"]), float(given["alpha"])
if alpha < 0:
    sys.exit("error: too cheap")
stages = {}
for stage in given["stages"].split(","):
    path = workdir / stage / "result.json"
    if not path.exists():
        path.parent.mkdir()
        price = alpha if stage == "hrl" else 0
        summary = {"accuracy": 0.9 - price / 10, "macs_fraction": 1 - price}
        path.write_text(json.dumps({"validation": summary}))
        print("trained", stage)
    stages[stage] = json.loads(path.read_text())
(workdir / "result.json").write_text(json.dumps({"stages": stages}))
"""


class PretendedTrainer:
    """`sweep_trainer.Trainer` of the script above."""

    name = "pretended"
    given = ("--stages=base,hrl", "--alpha=1")

    def __init__(self, folder):
        self.script = str(folder / "script.py")
        pathlib.Path(self.script).write_text(SCRIPT)

    def check(self, flags_of, workdir):
        seed, alpha = flags_of.get("seed", "0"), flags_of.get("alpha", "1")
        return sweep_trainer.Checked(
            keys={"base": seed, "hrl": f"{seed} {alpha}"},
            alpha=float(alpha),
            tests=False,
        )


def sweep(folder, *grids, **options):
    runs = sweep_runs.Runs(PretendedTrainer(folder), str(folder), **options)
    settings = runs.resume(sweep_plan.settings(grids, set()))
    return runs, settings


def train(folder, *grids, engine=sweep_engines.loop):
    runs, settings = sweep(folder, *grids)
    for setting in settings:
        runs.add(setting)
    runs.train(engine)
    return runs


def noted(folder):
    return json.loads((folder / "sweep.json").read_text())


def said(folder, run):
    return (folder / run / "output.txt").read_text()


# Runs.


def test_runs_take_shared_stages_and_are_noted(tmp_path, capsys):
    train(tmp_path, "alpha=1,2; seed=0,1")
    assert said(tmp_path, "alpha=1_seed=0") == "trained base\ntrained hrl\n"
    assert said(tmp_path, "alpha=2_seed=0") == "trained hrl\n"
    runs = {run["name"]: run for run in noted(tmp_path)["runs"]}
    assert runs["alpha=2_seed=1"] == {
        "name": "alpha=2_seed=1",
        "folder": str(tmp_path / "alpha=2_seed=1"),
        "flags": {"alpha": "2", "seed": "1"},
        "state": "done",
        "trained_by": {"base": "alpha=1_seed=1", "hrl": "alpha=2_seed=1"},
    }
    assert "alpha=2_seed=1: done; 0 runs left" in capsys.readouterr().out


def test_a_sweep_goes_on_and_grows_without_training_again(tmp_path):
    train(tmp_path, "alpha=2")
    (tmp_path / "alpha=2" / "result.json").unlink()  # as if it was killed
    # The new price stands first, and still takes what the old one trained.
    train(tmp_path, "alpha=1,2,3")
    assert said(tmp_path, "alpha=2") == "trained base\ntrained hrl\n"
    assert said(tmp_path, "alpha=1") == "trained hrl\n"
    runs = train(tmp_path, "alpha=1,2,3")
    assert said(tmp_path, "alpha=3") == "trained hrl\n"
    assert runs.done() == ["alpha=2", "alpha=1", "alpha=3"]


def test_half_a_copy_of_a_stage_is_not_taken_for_a_stage(tmp_path):
    train(tmp_path, "alpha=1")
    half = tmp_path / "alpha=2" / "base.tmp"
    half.mkdir(parents=True)
    (half / "result.json").write_text("{")
    train(tmp_path, "alpha=1,2")
    assert said(tmp_path, "alpha=2") == "trained hrl\n"
    assert not half.exists()


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path, capsys):
    runs = train(tmp_path, "alpha=-1,1")
    assert runs.failed == {"alpha=-1"} and runs.done() == ["alpha=1"]
    assert [run["state"] for run in noted(tmp_path)["runs"]] == [
        "failed",
        "done",
    ]
    assert "output.txt:\nerror: too cheap" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [{"grids": ["alpha=3"]}, {"match_accuracy": 1.0}]
)
def test_the_folder_of_another_sweep_is_refused(tmp_path, options):
    train(tmp_path, "alpha=1,2")
    grids = options.pop("grids", ["alpha=1,2"])
    with pytest.raises(ValueError, match="holds another sweep"):
        sweep(tmp_path, *grids, **options)


def test_a_trainer_that_outlived_its_sweep_is_waited_for(tmp_path):
    runs, (setting,) = sweep(tmp_path, "alpha=1")
    runs.add(setting)
    job = runs.jobs()["alpha=1"]
    os.makedirs(job.folder)
    program = f"import sys; sys.path[:0] = {sys.path!r}; import sweep_engines; "
    program += f"sweep_engines.{job!r}.run()"
    with open(job.log, "ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        second = subprocess.Popen([sys.executable, "-c", program])
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.5)
        assert not job.complete()
    assert second.wait(60) == 0
    assert job.complete()


def test_runs_start_once_the_stages_they_share_are_there(tmp_path):
    batches = []

    def engine(jobs, tell):
        batches.append([job.name for job in jobs])
        sweep_engines.loop(jobs, tell)

    train(tmp_path, "alpha=1,2; seed=0,1", "alpha=3; seed=2", engine=engine)
    first = ["alpha=1_seed=0", "alpha=1_seed=1", "alpha=3_seed=2"]
    assert batches == [first, ["alpha=2_seed=0", "alpha=2_seed=1"]]


def test_who_needs_a_stage_of_a_run_that_failed_trains_it(tmp_path):
    runs = train(tmp_path, "alpha=-1,1,2")
    assert said(tmp_path, "alpha=1") == "trained base\ntrained hrl\n"
    assert said(tmp_path, "alpha=2") == "trained hrl\n"
    last = noted(tmp_path)["runs"][-1]["trained_by"]
    assert last == {"base": "alpha=1", "hrl": "alpha=2"}
    assert runs.failed == {"alpha=-1"}


# The price at which accuracy still holds.


def test_the_search_saves_most_at_matched_accuracy_and_goes_on(
    tmp_path, capsys
):
    # Accuracy falls by 10 points times the price: 3 points are a price of 0.3.
    def search(tries):
        runs, settings = sweep(tmp_path, "gate=ff1", match_accuracy=3.0)
        found = sweep_match.Search(runs, settings, 3.0)
        return found.run(sweep_engines.loop, tries), runs.matches[0]

    assert search(1) == (
        {},
        {"name": "gate=ff1", "flags": {"gate": "ff1"}, "best": None}
        | {"tries": noted(tmp_path)["matches"][0]["tries"]},
    )
    best, match = search(4)
    # 1 is too high, 0.25 holds, then 0.5 is too high, then sqrt(0.125).
    assert [(t["alpha"], t["holds"]) for t in match["tries"]] == [
        (1.0, False),
        (0.25, True),
        (0.5, False),
        (0.354, False),
    ]
    assert best == {"gate=ff1_alpha=0.25": "gate=ff1"}
    assert match["best"]["macs_fraction"] == 0.75
    assert noted(tmp_path)["matches"] == [match]
    assert said(tmp_path, "gate=ff1_alpha=1") == "trained base\ntrained hrl\n"
    assert "alpha 0.25 gives 87.50 %" in capsys.readouterr().out


def test_the_search_refuses_a_grid_that_holds_the_price(tmp_path):
    runs, settings = sweep(tmp_path, "alpha=1", match_accuracy=1.0)
    with pytest.raises(ValueError, match="must not hold it"):
        sweep_match.Search(runs, settings, 1.0)


# With Ray, and as users run it.


@pytest.mark.slow
def test_ray_runs_three_settings(tmp_path):
    pytest.importorskip("ray")
    engine = sweep_engines.Ray(str(tmp_path))
    runs = train(tmp_path, "alpha=-1,1; seed=0,1", engine=engine)
    assert runs.done() == ["alpha=1_seed=0", "alpha=1_seed=1"]
    assert runs.failed == {"alpha=-1_seed=0", "alpha=-1_seed=1"}
    train(tmp_path, "alpha=-1,1,2; seed=0,1", engine=engine)
    assert said(tmp_path, "alpha=2_seed=1") == "trained hrl\n"
    with pytest.raises(ValueError, match="--gpus_per_run must be"):
        train(
            tmp_path,
            "alpha=-1,1,2,3; seed=0,1",
            engine=sweep_engines.Ray(str(tmp_path), gpus=1000),
        )


def script(*arguments):
    return subprocess.run(
        [sys.executable, "trainers/sweep.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )


@pytest.mark.slow
def test_a_sweep_of_digits_ends_in_a_table(tmp_path):
    arguments = ["--trainer=digits", f"--workdir={tmp_path}", *TINY]
    arguments += ["--engine=loop", "--grid=alpha=0.2,0.5; stages=base,hrl"]
    arguments += ["--from_scratch"]
    ended = script(*arguments)
    assert ended.returncode == 0, ended.stderr
    table = ended.stdout.split("over n runs:")[1].split()
    assert "alpha=0.5_stages=base,hrl" in table
    first, second = (
        tmp_path / f"alpha={alpha}_stages=base,hrl" for alpha in (0.2, 0.5)
    )
    for stage, shared in (("base", True), ("hrl", False)):
        # A file of Keras holds the time at which it was saved.
        files = [run / stage / "model.keras" for run in (first, second)]
        assert (files[0].read_bytes() == files[1].read_bytes()) == shared
    # What the trainer refuses is refused at once, in one line.
    for wrong in ("--grid=aplha=1", "--grid=stages=base|spp", "--depth=14"):
        ended = script(*arguments, wrong)
        assert ended.returncode == 1
        (line,) = ended.stderr.strip().splitlines()[-1:]
        assert line.startswith("error: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dense"),
    [("digits", 3 * 2), ("cifar10_short", 1)],  # depths, seeds
)
def test_sweep_files_hold_settings_that_share_stages(tmp_path, name, dense):
    ended = script(
        f"--workdir={tmp_path}",
        f"--flagfile=trainers/flagfiles/sweep_{name}.txt",
        "--dry_run",
    )
    assert ended.returncode == 0, ended.stderr
    lines = dict(line.split(": ", 1) for line in ended.stdout.splitlines())
    pure = [lines[run] for run in lines if run.startswith("rl")]
    assert pure and all("sp of price" in stages for stages in pure)
    # Each depth and seed has one dense network.
    trained = sum(stages.startswith("base,") for stages in lines.values())
    assert trained == dense
    assert not list(tmp_path.iterdir())
