"""A trained network, published with all that is known of it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import cases
import numpy as np
import pytest
import tensorflow as tf
import timing
import trained

import skipnet_tf
from skipnet_tf import model_card
from skipnet_tf.runs import open_run

ROOT = pathlib.Path(__file__).parents[1]
STAGES = ("base", "hrl")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run on the digits, as trainers leave it, of two untrained stages."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    stages = {}
    networks = skipnet_tf.cifar_resnet(8), skipnet_tf.cifar_skipnet(8)
    for stage, model in zip(STAGES, networks):
        (folder / stage).mkdir(parents=True)
        model.save(folder / stage / "model.keras")
        (folder / stage / "log.csv").write_text(f"epoch,loss\n0,{stage}\n")
        (folder / stage / "settings.json").write_text(
            json.dumps({"dataset": "digits", "init_from": "/far/off/w.keras"})
        )
        stages[stage] = {
            "validation": {"accuracy": 0.5, "macs": 2e6},
        }
    (folder / "flags.txt").write_text(
        "--alpha=3.0\n--data_dir=/home/me/data\n--distill_from=/a/t.keras\n"
        "--workdir=/tmp/tiny\n"
    )
    result = {
        "dataset": "digits",
        "data_dir": "/home/me/data",
        "validation_split": "train[:40]",
        "test_split": None,
        "seed": 7,
        "stages": stages,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def run(workdir):
    return open_run(str(workdir))


def publish(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "savedmodels" / "publish.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_places_on_one_machine_are_left_out(run, workdir):
    flags = trained.portable(str(workdir / "flags.txt"))
    assert flags == "--alpha=3.0\n--distill_from=t.keras\n"
    card = trained.card(run, "hrl")
    assert card["flags"] == flags.splitlines()
    assert card["results"] == {"train[:40]": {"accuracy": 0.5, "macs": 2e6}}
    settings = json.loads(trained.portable(str(workdir / "hrl/settings.json")))
    assert settings == {"dataset": "digits", "init_from": "w.keras"}
    result = trained.result(run)
    assert "data_dir" not in result and result["seed"] == 7


def test_the_last_stage_is_taken_unless_one_is_named(run):
    assert trained.stage_of(run, None) == "hrl"
    assert trained.stage_of(run, "base") == "base"
    with pytest.raises(ValueError, match="--stage=sp is not finished in"):
        trained.stage_of(run, "sp")


def test_networks_take_turns_on_repeated_images(tmp_path, monkeypatch):
    seen, clock = [], iter(range(10**6))

    class Session:
        def __init__(self, path):
            self.path = path

        def callable(self, signature, name):
            return lambda images: seen.append((self.path, images))

    monkeypatch.setattr(timing.sessions, "Session", Session)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    images = cases.pixels(3)
    found = timing.milliseconds({"a": "A", "b": "B"}, images, (1, 4))
    # Every look at the clock is a second later.
    assert found == {
        1: {"a": 1000.0, "b": 1000.0},
        4: {"a": 250.0, "b": 250.0},
    }
    assert [path for path, _ in seen[:4]] == ["A", "B", "A", "B"]
    np.testing.assert_array_equal(seen[0][1], images[:1])
    np.testing.assert_array_equal(seen[1][1], images[:1])
    np.testing.assert_array_equal(seen[-1][1], images[[0, 1, 2, 0]])


def test_the_processor_has_a_name():
    assert model_card.processor().strip()


@pytest.mark.slow
def test_a_published_folder_tells_how_it_came_to_be(workdir, tmp_path):
    done = publish(
        f"--workdir={workdir}",
        f"--directory={tmp_path}",
        "--test=train[40:70]",
        "--static_images=30",
        "--benchmark",
    )
    assert done.returncode == 0, done.stderr
    version = tmp_path / "1"
    assert done.stdout.splitlines()[-1] == str(version)
    assert sorted(os.listdir(tmp_path)) == [".last_version", "1"]
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    assert served(images=tf.zeros([1, 8, 8, 3], tf.uint8))["gates"].shape == (
        1,
        2,
    )
    result = json.loads((version / "result.json").read_text())
    assert (result["seed"], result["published_stage"]) == (7, "hrl")
    assert result["stages"]["hrl"]["validation"]["accuracy"] == 0.5
    assert {
        kind: result["dense"][kind]["images"] for kind in ("validation", "test")
    } == {"validation": 40, "test": 30}
    assert result["dense"]["test"] == result["stages"]["base"]["test"]
    static = result["static_choice"]
    assert static["compared_on"] == "train[40:70]"
    assert static["selected_on"] == "train[:40]"
    assert static["selected"]["macs"] <= 2e6
    assert static["dynamic"] == result["stages"]["hrl"]["test"]
    times = result["timing"]["milliseconds_per_image"]
    assert list(times) == ["batch 1", "batch 32", "batch 128"]
    for taken in times.values():
        ratio = taken["published"] / taken["dense"]
        assert taken["of_dense"] == pytest.approx(ratio)
    training = version / "training"
    for stage in STAGES:
        log = (training / stage / "log.csv").read_text()
        assert log == f"epoch,loss\n0,{stage}\n"
    assert (training / "flags.txt").read_text().startswith("--alpha=3.0\n")
    texts = [
        p.read_text() for s in ("json", "txt") for p in version.rglob(f"*.{s}")
    ]
    assert not any("/home/" in text or "/far/" in text for text in texts)
    skipnet_tf.verify_saved_model(str(version))


@pytest.mark.slow
def test_mistakes_are_told_before_anything_is_written(workdir, tmp_path):
    directory = f"--directory={tmp_path / 'out'}"
    full = f"--workdir={workdir}"

    def message(*arguments):
        done = publish(directory, *arguments)
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    alone = tmp_path / "alone"
    shutil.copytree(workdir, alone)
    (alone / "base" / "model.keras").unlink()
    gated = workdir / "hrl" / "model.keras"
    missing = message(full, "--dense=none.keras")
    assert missing == "error: --dense=none.keras does not exist"
    assert "without gates" in message(full, f"--dense={gated}")
    assert "nowhere" in message(full, "--test=nowhere")
    assert "no finished stage base" in message(f"--workdir={alone}")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_fails_after_the_export_leaves_no_version(workdir, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(workdir, broken)
    (broken / "hrl" / "log.csv").unlink()
    (broken / "hrl" / "log.csv").mkdir()
    out = tmp_path / "out"
    done = publish(
        f"--workdir={broken}", f"--directory={out}", "--static_images=0"
    )
    assert done.returncode == 1
    assert "log.csv" in done.stderr.splitlines()[-1]
    assert os.listdir(out) == [".last_version"]
