"""Segments of a resumed stage, logs and checkpoints."""

import csv
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import skipnet_tf
from skipnet_tf import callbacks
from skipnet_tf import checkpoints
from skipnet_tf import experiment
from skipnet_tf import logs


def test_checkpoints_are_saved_when_steps_executed_together_pass_them():
    saved = []
    manager = types.SimpleNamespace(
        save=lambda checkpoint_number: saved.append(checkpoint_number)
    )
    counter = callbacks.Steps()
    saver = callbacks.Checkpoints(manager, counter, every=5)
    saver.set_params({"steps": 12})
    for epoch in range(2):
        for callback in (counter, saver):
            callback.on_epoch_begin(epoch)
        for batch in (2, 5, 8, 11):  # three steps at a time
            for callback in (counter, saver):
                callback.on_train_batch_end(batch, {"loss": 1.0})
    # Passed 5, 10, then 15 and 20; the ends of epochs are saved elsewhere.
    assert saved == [6, 15, 21]
    assert counter.done == 24


def compiled():
    model = skipnet_tf.cifar_skipnet(8, input_shape=(8, 8, 3))
    model.compile(skipnet_tf.optimizers.SGD(0.1))
    return model


def test_a_resumed_log_replaces_the_epochs_that_are_run_again(tmp_path):
    log = logs.CsvLog(str(tmp_path / "log.csv"), callbacks.Steps())
    log.set_model(compiled())
    for epoch, loss in ((0, 3.0), (1, 2.0), (2, 1.0), (1, 2.5)):
        log.on_epoch_end(epoch, {"loss": loss})
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["loss"]) for row in rows] == [
        ("1", "3.0"),
        ("2", "2.5"),
    ]


def test_the_picture_has_a_row_an_epoch_and_a_column_a_block():
    pixels = logs._picture(np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0]]))
    assert pixels.shape == (1, 16, 24, 1)
    assert pixels[0, 0, 0, 0] == 0
    assert pixels[0, 7, 8, 0] == 255
    assert pixels[0, 0, 23, 0] == 127
    assert pixels[0, 8, 0, 0] == 255


def test_dense_weights_load_into_the_backbone_and_leave_the_gates(tmp_path):
    dense = skipnet_tf.cifar_resnet(8, input_shape=(8, 8, 3))
    dense.save_weights(tmp_path / "dense.weights.h5")
    dense.save(tmp_path / "dense.keras")
    for name in ("dense.weights.h5", "dense.keras"):
        model = skipnet_tf.cifar_skipnet(8, input_shape=(8, 8, 3))
        gates = [w.numpy() for gate in model.gates for w in gate.weights]
        checkpoints.load_weights(model, str(tmp_path / name))
        for ours, theirs in zip(model.backbone.weights, dense.weights):
            np.testing.assert_array_equal(ours, theirs)
        after = [w.numpy() for gate in model.gates for w in gate.weights]
        for one, other in zip(gates, after):
            np.testing.assert_array_equal(one, other)


def test_a_dense_network_takes_the_one_within_a_skipnet(tmp_path):
    gated = skipnet_tf.cifar_skipnet(8, "pool", input_shape=(8, 8, 3))
    gated.save(tmp_path / "pool.keras")
    dense = skipnet_tf.cifar_resnet(8, input_shape=(8, 8, 3))
    checkpoints.load_weights(dense, str(tmp_path / "pool.keras"))
    for ours, theirs in zip(dense.weights, gated.backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_skipnet_file_does_not_load_into_another_gate_type(tmp_path):
    recurrent = skipnet_tf.cifar_skipnet(8, input_shape=(8, 8, 3))
    recurrent.save(tmp_path / "rnn.keras")
    pooled = skipnet_tf.cifar_skipnet(8, "pool", input_shape=(8, 8, 3))
    with pytest.raises(ValueError, match="another architecture"):
        checkpoints.load_weights(pooled, str(tmp_path / "rnn.keras"))


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(ValueError, match="nothing.keras"):
        checkpoints.load_weights(compiled(), str(tmp_path / "nothing.keras"))


def test_set_up_applies_the_precision_and_a_file_keeps_it(tmp_path):
    experiment.set_up(str(tmp_path), mixed_precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    compiled().save(tmp_path / "half.keras")
    keras.config.set_dtype_policy("float32")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    block = loaded.gated_blocks[0].block
    assert block.convolutions[0].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


class Manager:
    checkpoints = ["run/ckpt-10", "run/ckpt-20"]

    def save(self, checkpoint_number):
        pass


@pytest.mark.parametrize(
    ("finite", "good"), [(21, "ckpt-20"), (20, "ckpt-10"), (10, "none")]
)
def test_a_checkpoint_is_good_once_a_later_loss_was_finite(finite, good):
    counter = callbacks.Steps()
    saver = callbacks.Checkpoints(Manager(), counter)
    counter.variable.assign(finite)
    saver.on_epoch_end(0, {"loss": 1.0})
    counter.variable.assign(30)
    with pytest.raises(callbacks.TrainingDiverged, match=f"30; .*{good}. "):
        saver.on_epoch_end(1, {"loss": float("nan")})


def test_a_checkpoint_brings_back_every_variable(tmp_path):
    model = skipnet_tf.cifar_skipnet(8, input_shape=(8, 8, 3))
    stage = skipnet_tf.HybridReinforce(alpha=0.5)
    model.compile(skipnet_tf.optimizers.SGD(0.1), stage=stage)
    steps = tf.Variable(3, dtype=tf.int64)
    manager = checkpoints.manager(model, steps, str(tmp_path))
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 3))
    labels = np.arange(8)
    model.fit(images, labels, verbose=0)
    manager.save()
    variables = [*model.weights, *model.optimizer.variables]
    before = [variable.numpy() for variable in variables]
    model.fit(images, labels, verbose=0)
    stage.alpha.assign(2.0)
    steps.assign(4)
    manager.checkpoint.restore(manager.latest_checkpoint)
    for variable, value in zip(variables, before):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)
    assert float(stage.alpha) == 0.5
    assert int(steps) == 3
