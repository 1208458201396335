"""Elastic depth: what is drawn, what learns, and how trainers run it."""

import json

import keras
import numpy as np
import pytest
import settings
import tensorflow as tf
from trainer_cases import parse
from trainer_cases import train
from training_cases import IMAGES
from training_cases import fit
from training_cases import network
from training_cases import sgd

import skipnet_tf
from skipnet_tf import policy

_SEED = tf.constant([1, 2])
_DEPTHS = ((1, 3), (2, 2), (2, 4))


def _decisions(seed=_SEED, images=6000):
    drawn = policy.Elastic(_DEPTHS, seed)
    unread = tf.zeros([images])
    return np.stack([drawn(unread, gate) for gate in range(8)], axis=1)


def test_images_run_the_first_blocks_of_every_group():
    # Block 0 has no gate: groups of 3, 2 and 4 blocks have 2, 2 and 4 gates.
    first, second, third = np.split(_decisions(), [2, 4], axis=1)
    for group in (first, second, third):
        assert (np.diff(group, axis=1) <= 0).all()
    assert (second == 1).all()
    for group, depths in ((1 + first.sum(1), 3), (third.sum(1) - 1, 3)):
        counts = np.bincount(group.astype(int), minlength=depths + 1)[1:]
        # 6000 / 3, four deviations of sqrt(6000 * 1/3 * 2/3) = 36.5
        np.testing.assert_allclose(counts, [2000] * 3, atol=146)


def test_depths_of_groups_and_of_steps_have_nothing_in_common():
    drawn = _decisions()
    depths = drawn[:, :2].sum(1), drawn[:, 4:].sum(1)
    assert abs(np.corrcoef(*depths)[0, 1]) < 0.05  # deviation 1/sqrt(6000)
    np.testing.assert_array_equal(drawn, _decisions())
    other = _decisions(tf.constant([1, 3]))
    assert (drawn[:, 0] != other[:, 0]).mean() > 0.3


@pytest.mark.parametrize("execution", ["masked", "conditional"])
def test_blocks_learn_and_gates_do_not(execution):
    model = network(blocks=(2, 3))
    stage = skipnet_tf.Elastic([1, 2], execution=execution)
    # Decay would move what has no gradient.
    decaying = skipnet_tf.optimizers.SGD(0.1, l2=1e-2)
    model.compile(decaying, stage=stage, run_eagerly=True)
    blocks, gates = (
        [v.numpy() for v in variables]
        for variables in (
            model.backbone.trainable_variables,
            [v for gate in model.gates for v in gate.weights],
        )
    )
    executed = fit(model).history["executed_blocks"][0]
    # 1 or 2 of 2 blocks, 2 or 3 of 3.
    assert 3 / 5 <= executed < 1
    for before, now in zip(
        gates, [v for g in model.gates for v in g.weights], strict=True
    ):
        np.testing.assert_array_equal(before, now)
    moved = [
        not np.array_equal(before, now)
        for before, now in zip(blocks, model.backbone.trainable_variables)
    ]
    assert all(moved)


def test_gates_learn_again_in_the_next_stage():
    model = network("confidence")
    learning = len(model.trainable_variables)
    model.compile(sgd(), stage=skipnet_tf.Elastic())
    # The classifier, which the last gates ask, goes on learning.
    assert not any(gate.bias.trainable for gate in model.gates)
    assert model.backbone.classifier.kernel.trainable
    model.compile(sgd(), stage=skipnet_tf.HybridReinforce(gates_alone=True))
    assert not model.backbone.classifier.kernel.trainable
    model.compile(sgd(), stage=skipnet_tf.Supervised())
    assert len(model.trainable_variables) == learning


def test_inference_is_that_of_the_gates():
    model = network()
    model.compile(sgd(), stage=skipnet_tf.Elastic())
    assert (model.route(IMAGES)["gates"].numpy() == 1).all()


def test_depths_that_do_not_fit_are_refused():
    for value in (0, [], [1, 0], 1.5, "2"):
        with pytest.raises(ValueError, match="`min_blocks`.*Received: "):
            skipnet_tf.Elastic(value)
    with pytest.raises(ValueError, match="`execution`"):
        skipnet_tf.Elastic(execution="sparse")
    for value in ([1], [1, 3], 3):
        with pytest.raises(ValueError, match=r"of each group, \[1, 2\]"):
            network().compile(sgd(), stage=skipnet_tf.Elastic(value))


def test_a_stage_is_saved_with_its_network(tmp_path):
    model = network()
    stage = skipnet_tf.Elastic([1, 2], seed=3, execution="conditional")
    model.compile(sgd(), stage=stage)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.stage.get_config() == stage.get_config()


def test_work_directories_are_bound_by_the_depths_that_matter(tmp_path):
    def noted(stage, *arguments):
        parse(f"--workdir={tmp_path}", *arguments)
        settings.write(stage, "digits")
        return json.loads((tmp_path / stage / "settings.json").read_text())

    fewest = "--min_blocks=2,2,1"
    for stage in ("base", "sp", "hrl"):
        assert noted(stage, fewest) == noted(stage)
    assert noted("elastic", fewest) != noted("elastic")
    assert noted("elastic", "--alpha=0.4") == noted("elastic")
    assert noted("hrl", "--hrl_from=elastic", fewest)["min_blocks"] == [
        "2",
        "2",
        "1",
    ]


@pytest.mark.slow
def test_the_trainers_start_hrl_from_it(tmp_path):
    train(
        tmp_path,
        "--depth=14",
        "--stages=elastic,hrl",
        "--hrl_from=elastic",
        "--min_blocks=2,1,1",
    )
    model = keras.saving.load_model(tmp_path / "elastic" / "model.keras")
    assert model.stage.get_config()["min_blocks"] == [2, 1, 1]
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["stages"]) == ["elastic", "hrl"]
