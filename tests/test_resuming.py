"""Runs that are killed, and what becomes of them when started again."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from test_distribution import addresses
from test_distribution import config
from trainer_cases import train

from skipnet_tf import callbacks

ROOT = pathlib.Path(__file__).parent.parent
# 100 // 32 = 3 steps an epoch, checkpoints inside epochs.
ARGUMENTS = [
    "--depth=8",
    "--batch_size=32",
    "--train_split=train[:100]",
    "--validation_split=train[100:150]",
    "--test_split=",
    "--from_scratch",
    "--deterministic",
    "--checkpoint_steps=4",
    "--alpha=1.0",
    "--on_collapse=ignore",
]


_LENGTHS = {
    "elastic": "sp",
    "budget": "sp",
    "target_rate": "sp",
    "rl": "hrl",
}


def start(workdir, stage="hrl", *more, environment=()):
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "trainers" / "digits.py"),
            *ARGUMENTS,
            f"--workdir={workdir}",
            f"--stages={stage}",
            f"--{_LENGTHS.get(stage, stage)}_steps=40",
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SKIPNET_TF_TRACEBACK": "1",
            **dict(environment),
        },
    )


def finish(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    return output


def kill_after_checkpoint(process, folder):
    """Kills a run once its second checkpoint is there."""
    state = folder / "checkpoints" / "checkpoint"
    deadline = time.monotonic() + 120
    while not state.exists() or "ckpt-8" not in state.read_text():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (folder / "result.json").exists()


def weights_of_both(tmp_path, stage, steps=40):
    """Pairs of weights of the undisturbed run and of the other one."""
    whole, broken = (
        keras.saving.load_model(tmp_path / name / stage / "model.keras")
        for name in ("whole", "broken")
    )
    assert int(broken.optimizer.iterations) == steps
    return zip(whole.weights, broken.weights)


def same_bits(tmp_path, stage):
    for one, other in weights_of_both(tmp_path, stage):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def check_resuming(tmp_path, stage, *more):
    whole = start(tmp_path / "whole", stage, *more)
    broken = start(tmp_path / "broken", stage, *more)
    kill_after_checkpoint(broken, tmp_path / "broken" / stage)
    output = finish(start(tmp_path / "broken", stage, *more))
    assert "resuming at step" in output
    finish(whole)
    same_bits(tmp_path, stage)


class Interrupted(Exception):
    pass


def test_an_interrupted_hrl_run_resumes_to_the_same_weights(
    tmp_path, monkeypatch, capsys
):
    arguments = [
        "--stages=hrl",
        "--from_scratch",
        "--hrl_steps=8",
        "--alpha=1.0",
        "--checkpoint_steps=2",
    ]
    train(tmp_path / "whole", *arguments)
    save = callbacks.Checkpoints._save

    def save_or_stop(self, step):
        if step == 6:
            raise Interrupted
        save(self, step)

    monkeypatch.setattr(callbacks.Checkpoints, "_save", save_or_stop)
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", *arguments)
    monkeypatch.undo()
    train(tmp_path / "broken", *arguments)
    # 100 // 32 = 3 steps an epoch: in the middle of the second.
    assert "resuming at step 4 of 8" in capsys.readouterr().out
    # The same bits only with --deterministic, which would hold on for all
    # tests of this process; one other image or decision is a hundred times
    # the tolerance.
    for one, other in weights_of_both(tmp_path, "hrl", 8):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_killed_hrl_run_resumes_to_the_same_bits(tmp_path):
    check_resuming(tmp_path, "hrl", "--steps_per_execution=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", ["base", "sp", "elastic", "budget", "target_rate", "rl"]
)
def test_every_stage_resumes_to_the_same_bits(tmp_path, stage):
    check_resuming(
        tmp_path,
        stage,
        "--min_blocks=1",
        "--ema=0.9",
        "--gradient_accumulation=2",
        "--label_smoothing=0.1",
    )


def workers(workdir, ports):
    """Starts both processes of a cluster; returns them, chief first."""
    return [worker(workdir, ports, index) for index in (0, 1)]


def worker(workdir, ports, index):
    return start(
        workdir,
        "hrl",
        "--distribution=multi_worker",
        "--worker_patience=60",
        environment={"TF_CONFIG": config(ports, index)},
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_worker_comes_back_and_the_run_ends_as_if_nothing_was(
    tmp_path, victim
):
    whole = workers(tmp_path / "whole", addresses(2))
    for process in whole:
        finish(process)
    ports = addresses(2)
    broken = workers(tmp_path / "broken", ports)
    kill_after_checkpoint(broken[victim], tmp_path / "broken" / "hrl")
    broken[victim] = worker(tmp_path / "broken", ports, victim)
    outputs = [finish(process) for process in broken]
    assert "a worker was lost" in outputs[1 - victim]
    assert "resuming at step" in outputs[0]
    assert "2 device(s) in 2 process(es)" in outputs[0]
    same_bits(tmp_path, "hrl")
    assert (
        json.loads((tmp_path / "broken" / "result.json").read_text())["stages"][
            "hrl"
        ]["validation"]["images"]
        == 50
    )


@pytest.mark.slow
def test_a_worker_lost_before_the_first_step_is_waited_for(tmp_path):
    ports = addresses(2)
    chief, other = workers(tmp_path / "run", ports)
    for line in chief.stdout:
        if "2 device(s)" in line:
            break
    other.kill()
    other.wait()
    other.stdout.close()
    other = worker(tmp_path / "run", ports, 1)
    outputs = [finish(process) for process in (chief, other)]
    assert "a worker was lost" in outputs[0]
    assert (tmp_path / "run" / "hrl" / "result.json").exists()


@pytest.mark.slow
def test_workers_must_see_one_folder(tmp_path):
    ports = addresses(2)
    both = [worker(tmp_path / str(i), ports, i) for i in (0, 1)]
    for process in both:
        output, _ = process.communicate(timeout=240)
        assert process.returncode != 0
        assert "one folder that all workers see" in output
