"""Pictures of a run, and the numbers behind them."""

import json
import os
import subprocess
import sys

import cases
import numpy as np
import pytest
import tensorflow as tf

import skipnet_tf
from skipnet_tf import analysis
from skipnet_tf import data
from skipnet_tf import evaluation
from skipnet_tf import flops
from skipnet_tf import preprocessing

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPLIT = "test[:40]"


def batches():
    return data.load("digits", SPLIT, batch_size=25)


@pytest.fixture(scope="module")
def divided():
    """A SkipNet that runs each block for some of the digits."""
    model = cases.skipnet("pool", num_classes=10)
    images, _ = next(iter(batches()))
    return cases.divide_opinions(model, images)


@pytest.fixture(scope="module")
def workdir(divided, tmp_path_factory):
    """What a trainer leaves behind."""
    folder = tmp_path_factory.mktemp("run")
    stages = {}
    dense = skipnet_tf.ResNet((2, 2), (4, 8), num_classes=10)
    for name, model in (("base", dense), ("sp", divided), ("hrl", divided)):
        (folder / name).mkdir()
        model.save(folder / name / "model.keras")
        log = "epoch,val_accuracy,val_executed_blocks\n1,0.5,1.0\n2,0.9,0.6\n"
        (folder / name / "log.csv").write_text(log)
        count = flops.count(model, (8, 8, 3)).dense
        found = evaluation.summary(evaluation.collect(model, batches()), count)
        stages[name] = {"validation": found}
    result = {
        "dataset": "digits",
        "data_dir": None,
        "validation_split": SPLIT,
        "test_split": "",
        "stages": stages,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return str(folder)


def test_a_run_gives_four_pictures_and_a_sentence(
    workdir, divided, tmp_path, capsys
):
    out = tmp_path / "new" / "pictures"
    analysis.draw_all(workdir, str(out))
    for name in (
        "accuracy_against_compute",
        "skip_rate_per_block",
        "easiest_and_hardest",
        "training_curves",
    ):
        picture = tf.io.decode_png((out / f"{name}.png").read_bytes())
        height, width = picture.shape[:2]
        assert height >= 500 and width >= 900
        assert len(np.unique(picture)) > 10, f"{name} is empty"
    paths = evaluation.collect(divided, batches()).distinct_paths
    assert paths > 1
    assert capsys.readouterr().out == (
        f"hrl: 40 images take {paths} distinct paths through 4 blocks.\n"
    )


def test_a_higher_threshold_costs_less_and_is_put_back(divided):
    dense = flops.count(divided, (8, 8, 3)).dense
    curve = analysis.threshold_curve(divided, batches(), dense)
    assert divided.threshold == 0.5
    assert len(curve) == len(analysis.THRESHOLDS)
    assert curve[0]["macs"] > curve[4]["macs"] > curve[-1]["macs"]
    at_half = evaluation.summary(evaluation.collect(divided, batches()), dense)
    assert curve[4] == at_half


def test_pixels_undoes_the_normalisation():
    recipe = preprocessing.get("cifar10")
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images = np.repeat(images, 3, axis=-1)
    again = analysis.pixels(recipe.normalise(images), recipe)
    np.testing.assert_array_equal(again, images)
    assert again.dtype == np.uint8


def test_the_easiest_image_skips_most_and_is_surest():
    gates = np.array([[1, 1], [1, 0], [0, 0], [0, 0]], "float32")
    routes = evaluation.Routes(
        labels=np.zeros(4),
        predictions=np.zeros(4),
        confidence=np.array([0.9, 0.9, 0.4, 0.8]),
        gates=gates,
        probabilities=gates,
        macs=np.zeros(4),
    )
    assert analysis.rank(routes).tolist() == [3, 2, 1, 0]


def test_mistakes_end_in_one_line(workdir, tmp_path, monkeypatch):
    def message(*arguments):
        monkeypatch.setattr(sys, "argv", ["analysis", *arguments])
        with pytest.raises(SystemExit) as stopped:
            analysis.main()
        assert "\n" not in stopped.value.code
        return stopped.value.code

    empty = f"--workdir={tmp_path}"
    out = f"--out={tmp_path / 'out'}"
    assert message(empty, out).startswith("error: `workdir` must hold")
    (tmp_path / "file").write_text("")
    blocked = f"--out={tmp_path / 'file' / 'in'}"
    full = f"--workdir={workdir}"
    assert message(full, blocked).startswith("error: `out` must be")
    monkeypatch.setattr(analysis.importlib.util, "find_spec", lambda name: None)
    assert "pip install skipnet_tf[demo]" in message(full, out)


def test_the_export_script_takes_the_last_stage_of_a_run(workdir, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            os.path.join(ROOT, "savedmodels", "export.py"),
            f"--workdir={workdir}",
            f"--directory={tmp_path}",
            "--benchmark",
        ],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    version, one, many = done.stdout.splitlines()
    assert version == str(tmp_path / "1")
    assert one.startswith("batch 1, ") and "times dense" in one
    assert many.startswith("batch 32, ") and "times dense" in many
    serve = tf.saved_model.load(version).signatures["serving_default"]
    got = serve(images=tf.zeros([1, 8, 8, 3], tf.uint8))
    assert got["gates"].shape == (1, 3)
    assert int(got["class_names"][0, 0]) == int(got["classes"][0, 0])
