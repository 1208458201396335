"""The trainers as their users run them, and what they say to mistakes."""

import json
import pathlib

import building
import common_flags
import keras
import numpy as np
import pytest
import settings
import shared
from absl import flags
from cases import two_replicas
from trainer_cases import define
from trainer_cases import parse
from trainer_cases import train

import skipnet_tf
from skipnet_tf import callbacks
from skipnet_tf import splits

ROOT = pathlib.Path(__file__).parent.parent


def test_one_command_runs_all_stages_and_prints_the_table(tmp_path, capsys):
    # Under a learning rate of 0 weights stay what they start from.
    asked = ["--sp_from_base", "--learning_rate=0"]
    train(tmp_path, *asked)
    base, sp = (
        keras.saving.load_model(tmp_path / stage / "model.keras")
        for stage in ("base", "sp")
    )
    np.testing.assert_array_equal(
        base.stem_conv.kernel, sp.backbone.stem_conv.kernel
    )
    table = capsys.readouterr().out.split("thresholded policy:")[1]
    lines = [line.split() for line in table.strip().splitlines()]
    assert [line[0] for line in lines] == ["stage", "base", "sp", "hrl"]
    assert "MACs" in table
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["stages"]) == ["base", "sp", "hrl"]
    assert result["stages"]["hrl"]["validation"]["images"] == 50
    assert "--hrl_steps=4" in (tmp_path / "flags.txt").read_text()
    # 100 // 32 = 3 steps an epoch: an epoch of 3 steps and one of 1.
    log = (tmp_path / "hrl" / "log.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in log[1:]] == [["1", "3"], ["2", "4"]]
    history = json.loads(
        (tmp_path / "hrl" / "tensorboard" / "skip_rates.json").read_text()
    )
    assert np.shape(history) == (2, 2)  # 2 epochs, 3 blocks but the first

    before = (tmp_path / "hrl" / "model.keras").read_bytes()
    train(tmp_path, *asked)  # all is done: nothing is trained again
    assert (tmp_path / "hrl" / "model.keras").read_bytes() == before


def refused(match, tmp_path, *arguments, **options):
    with pytest.raises(ValueError, match=match):
        train(tmp_path, *arguments, **options)


def test_hrl_without_weights_to_start_from_is_refused(tmp_path):
    refused("--from_scratch", tmp_path, "--stages=hrl")


def test_weights_of_another_architecture_are_refused(tmp_path):
    other = tmp_path / "other.weights.h5"
    from skipnet_tf import cifar_skipnet

    cifar_skipnet(14, input_shape=(8, 8, 3)).save_weights(other)
    refused(
        "another architecture",
        tmp_path / "run",
        "--stages=sp",
        f"--init_from={other}",
    )


def test_a_missing_data_directory_is_named(tmp_path):
    refused(
        "nowhere",
        tmp_path / "run",
        f"--data_dir={tmp_path}/nowhere",
        dataset="cifar10",
    )


def test_a_work_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    refused("`workdir` must be", tmp_path / "file" / "run")


def test_a_disk_too_small_for_checkpoints_is_refused(tmp_path, monkeypatch):
    class Full:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Full)
    refused("MB free", tmp_path, "--stages=base")


def test_a_work_directory_is_bound_by_what_was_trained_in_it(tmp_path):
    refused("depth", tmp_path, "--stages=base", "--depth=9")
    train(tmp_path, "--stages=base")
    refused("--depth=8, not 14", tmp_path, "--stages=base", "--depth=14")
    train(tmp_path, "--stages=sp")  # a later command adds its stage
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["stages"]) == ["base", "sp"]


def test_what_a_later_stage_refuses_is_refused_at_once(tmp_path):
    stages = "--stages=base,elastic"
    refused("`min_blocks`.*", tmp_path, stages, "--min_blocks=9")
    target = ["--stages=base,sp,hrl", "--target_macs=0.9", "--beta=alpha/N"]
    refused("`beta` must be a number", tmp_path, *target)
    assert not (tmp_path / "base" / "result.json").exists()


def test_weights_from_elsewhere_are_noted_with_the_stage_they_are_for():
    parse("--workdir=w", "--stages=sp,hrl", "--init_from=dense.pth")
    noted = [settings.of_stage(s, "digits")["init_from"] for s in ("sp", "hrl")]
    assert noted == ["dense.pth", None]
    # Its gates learn on statistics as they are.
    assert "recalibrate" not in settings.of_stage("gates", "digits")


def test_gates_alone_need_no_teacher():
    parse("--workdir=w", "--stages=gates", "--distill_base")
    shared._check_teacher()
    parse("--workdir=w", "--stages=base", "--distill_base")
    with pytest.raises(ValueError, match="--distill_base needs a file"):
        shared._check_teacher()


def test_help_lists_every_flag():
    define()
    listed = flags.FLAGS.get_key_flags_for_module("trainer_cases")
    assert {flag.name for flag in listed} >= set(common_flags.values())


def test_a_skip_rate_without_random_gating_is_refused(tmp_path):
    refused("skip_rate", tmp_path, "--stages=sp", "--skip_rate=0.5")
    refused("skip_rate", tmp_path, "--stages=sp", "--gating=random")


def test_a_length_is_given_once_in_steps_or_in_epochs(tmp_path):
    refused("both give", tmp_path, "--stages=sp", "--sp_epochs=2")
    parse("--workdir=x", "--batch_size=32", "--sp_epochs=2")
    data = splits.Data("digits", "train[:100]", "test", "", batch_size=32)
    # 100 // 32 = 3 steps an epoch.
    assert building.plan("sp", "cifar", data).steps == 6
    assert building.plan("rl", "cifar", data).steps == 4


def test_learning_rates_follow_the_batch_they_are_meant_for():
    parse("--workdir=x", "--batch_size=32", "--learning_rate_batch=128")
    assert building.learning_rate("base") == (0.1 / 4, 0.1)
    assert building.learning_rate("hrl") == (0.01 / 4, 0.01)
    parse("--workdir=w", "--sp_learning_rate=0.02")
    assert building.learning_rate("base") == (0.1, 0.1)
    assert building.learning_rate("budget") == (0.02, 0.02)


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path):
    refused("multiple of 3", tmp_path, "--gradient_accumulation=3")


def test_a_missing_gpu_is_refused(tmp_path):
    refused("no GPU is visible", tmp_path, "--device=gpu")


def test_a_share_of_distillation_needs_a_teacher(tmp_path):
    refused("needs a teacher", tmp_path, "--distill_weight=0.5")
    refused("--distill_from must", tmp_path, "--distill_from=base/no.pth")


def test_the_flags_that_were_given_are_a_flag_file(tmp_path):
    parse("--workdir=x", "--sp_epochs=2", "--beta=alpha/N")
    path = tmp_path / "flags.txt"
    path.write_text(settings.as_flag_file())
    parse(f"--flagfile={path}")
    assert flags.FLAGS.sp_epochs == 2 and flags.FLAGS.beta == "alpha/N"
    assert not flags.FLAGS["sp_steps"].present


def test_milestones_are_ascending_fractions():
    for wrong in ("0.5,0.2", "0.5,1.5", "a"):
        with pytest.raises(flags.IllegalFlagValueError):
            parse("--workdir=x", f"--milestones={wrong}")
        flags.FLAGS["milestones"].value = ["0.5", "0.75"]


@pytest.fixture
def dense_weights(tmp_path):
    dense = skipnet_tf.cifar_resnet(8, input_shape=(8, 8, 3))
    dense.save_weights(tmp_path / "dense.weights.h5")
    return f"{tmp_path}/dense.weights.h5"


def test_a_start_from_dense_weights_is_told_and_counts_all_blocks(
    dense_weights, tmp_path, capsys
):
    train(
        tmp_path / "run",
        "--stages=sp",
        f"--init_from={dense_weights}",
        f"--distill_from={dense_weights}",
        "--label_smoothing=0.1",
        "--ema=0.9",
        "--sp_steps=1",
    )
    said = capsys.readouterr().out
    assert f"sp: starting from {dense_weights}, which has" in said
    assert "with 100.0 % of the blocks" in said
    log = (tmp_path / "run" / "sp" / "log.csv").read_text()
    assert "distillation_loss" in log


@pytest.mark.slow
def test_hrl_starts_with_sharpened_gates(dense_weights, tmp_path):
    train(
        tmp_path / "run",
        "--stages=hrl",
        f"--init_from={dense_weights}",
        "--sharpen=2",
        "--hrl_learning_rate=0",
        "--hrl_steps=1",
    )
    # Gates start with logits of 2.
    model = keras.saving.load_model(tmp_path / "run" / "hrl" / "model.keras")
    assert model.gates[0].last_weights()[-1].numpy() == 4.0


@pytest.mark.parametrize("script", ["cifar", "digits", "imagenet", "svhn"])
def test_every_flag_file_is_for_its_trainer(script):
    known = {"dataset", *common_flags.values()}
    found = list((ROOT / "trainers" / "flagfiles").glob(f"{script}*.txt"))
    assert found
    for path in found:
        lines = path.read_text().splitlines()
        given = [line for line in lines if not line.startswith("#")]
        names = [line.removeprefix("--").split("=")[0] for line in given]
        assert set(names) <= known, path
        parse("--workdir=x", *[g for g in given if "dataset" not in g])
        assert len(set(names)) == len(names), path
        if "the paper" in " ".join(lines[:3]):  # which has no such bonus
            assert not flags.FLAGS.entropy_weight, path


@pytest.mark.slow
def test_stages_train_on_two_replicas(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "skipnet_tf.distribution.make_strategy", lambda *_: two_replicas()
    )
    train(tmp_path, "--stages=hrl", "--from_scratch", "--schedule=constant")
    assert (tmp_path / "hrl" / "model.keras").exists()
    refused("multiple", tmp_path / "odd", "--stages=base", "--batch_size=31")


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    refused("batch_size", tmp_path, "--stages=base", "--batch_size=101")


def test_a_loss_that_is_not_a_number_names_step_and_checkpoint(tmp_path):
    with pytest.raises(callbacks.TrainingDiverged, match="at step 2; .* none"):
        train(
            tmp_path,
            "--stages=base",
            "--learning_rate=1e30",
            "--base_steps=6",
            "--checkpoint_steps=1",
        )


def test_unknown_stages_and_beta_are_refused_by_the_flags(tmp_path):
    for wrong in ("--stages=sp,rf", "--beta=alpha", "--beta=-1"):
        with pytest.raises(flags.IllegalFlagValueError):
            train(tmp_path, wrong)
        # absl keeps a refused value; the next parse must not see it.
        flags.FLAGS["stages"].value = ["base"]
        flags.FLAGS["beta"].value = "1.0"
