"""Gates that ask the classifier, and the stage in which gates learn alone."""

import json

import keras
import numpy as np
import pytest
import saved_stages
import settings
import tensorflow as tf
from cases import images
from cases import skipnet
from cases import trained
from trainer_cases import parse
from trainer_cases import train
from training_cases import fit
from training_cases import network
from training_cases import sgd

import skipnet_tf
from skipnet_tf import confidence

# Differences of logits of ln 9, ln 99 and ln 999 are 9 to 1, 99 to 1, 999 to 1.
_LOGITS = tf.constant([[np.log(9), 0], [0, np.log(99)], [-1, np.log(999) - 1]])


def _gate(**arguments):
    classifier = keras.layers.Dense(3)
    gate = confidence.ConfidenceGate(classifier, **arguments)
    gate.build((None, None, None, 4))
    return gate


def test_doubt_is_counted_in_digits():
    doubts = confidence.doubt(tf.cast(_LOGITS, tf.float32))
    # 2 + log10(0.1), 2 + log10(0.01), 2 + log10(0.001)
    np.testing.assert_allclose(doubts, [1, 0, -1], atol=1e-5)


def test_doubt_keeps_its_digits_where_probabilities_round_to_one():
    logits = tf.constant([[30.0, 0.0, 0.0], [60.0, 0.0, -60.0]])
    # 1 - p = 2 exp(-30) and exp(-60)
    expected = [2 + (np.log(2) - 30) / np.log(10), 2 - 60 / np.log(10)]
    np.testing.assert_allclose(confidence.doubt(logits), expected, rtol=1e-6)


def test_the_logit_is_a_line_of_the_doubt_of_the_spatial_mean():
    gate = _gate()
    gate.slope.assign([1.5])
    gate.bias.assign([-0.25])
    features = images(5, 4, 6, 4)
    logits, _ = gate(features)
    classes = features.mean((1, 2)) @ gate.classifier.kernel
    p = np.exp(classes) / np.exp(classes).sum(1, keepdims=True)
    expected = 1.5 * (2 + np.log10(1 - p.max(1))) - 0.25
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    # 4 * 3 + 1
    assert gate.multiply_adds(4, 6) == gate.multiply_adds(9, 9) == 13


def test_a_gate_without_classifier_is_its_bias():
    gate = confidence.ConfidenceGate()
    logits, _ = gate(images(5, 4, 6, 4))
    np.testing.assert_array_equal(logits, [2.0] * 5)
    assert len(gate.trainable_variables) == 1
    assert gate.multiply_adds(4, 6) == 0


def test_no_gradient_reaches_what_the_gate_reads():
    gate = _gate(init="published")
    features = tf.constant(images(5, 4, 6, 4))
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = tf.reduce_sum(gate(features)[0])
    watched = [features, *gate.classifier.trainable_variables]
    gradients = tape.gradient(loss, [*watched, gate.slope, gate.bias])
    assert gradients[:3] == [None] * 3
    assert gradients[3] != 0
    assert gradients[4] == 5  # the number of images


def test_gates_of_the_last_group_ask_the_classifier_of_the_network():
    model = skipnet("confidence", blocks=(2, 3), filters=(4, 4))
    asked = [gate.classifier for gate in model.gates]
    # Before blocks 1 and 2 the features are those of the first group.
    assert asked[:2] == [None, None]
    assert asked[2] is asked[3] is model.backbone.classifier


def test_a_last_group_without_anyone_to_ask_is_refused():
    with pytest.raises(ValueError, match="`gate=.*two blocks or more"):
        skipnet("confidence", blocks=(2, 1))


def test_the_last_gate_doubts_what_the_network_without_its_block_would_say():
    pixels = images(6, 8, 8, 3)
    model = trained(skipnet("confidence"), pixels)
    gate = model.gates[-1]
    skipped = np.ones((6, 3))
    skipped[:, -1] = 0
    routed = model.route(pixels, actions=skipped)
    expected = gate.slope * confidence.doubt(routed["logits"]) + gate.bias
    np.testing.assert_allclose(
        routed["gate_logits"][:, -1], expected, rtol=1e-5, atol=1e-5
    )


def test_frozen_blocks_stay_as_they_are_while_gates_learn():
    model = network("confidence", blocks=(2, 2))
    stage = skipnet_tf.HybridReinforce(gates_alone=True)
    model.compile(sgd(), stage=stage, run_eagerly=True)
    before = [weight.numpy() for weight in model.backbone.weights]
    gates = [gate.bias.numpy() for gate in model.gates]
    fit(model)
    for old, now in zip(before, model.backbone.weights, strict=True):
        np.testing.assert_array_equal(old, now)
    for old, gate in zip(gates, model.gates):
        assert not np.array_equal(old, gate.bias)
    model.compile(sgd(), stage=skipnet_tf.HybridReinforce(), run_eagerly=True)
    fit(model)
    moved = model.backbone.stem_conv.kernel
    assert not np.array_equal(before[0], moved)


def test_gates_learn_alone_whatever_was_frozen_before():
    model = network()
    alone = skipnet_tf.HybridReinforce(gates_alone=True)
    for _ in range(2):
        model.compile(sgd(), stage=alone)
        assert not model.backbone.trainable_variables
        model.trainable = True
    model.compile(sgd())
    model.backbone.stem_conv.trainable = False
    model.compile(sgd(), stage=skipnet_tf.Supervised())
    assert not model.backbone.stem_conv.trainable  # as the user wants it
    teacher = skipnet_tf.Distillation(network())
    with pytest.raises(ValueError, match="`distillation`.*gates learn alone"):
        model.compile(sgd(), stage=alone, distillation=teacher)


def test_work_directories_of_hrl_are_bound_by_the_stage_of_gates(tmp_path):
    def noted(stage, *arguments):
        parse(f"--workdir={tmp_path}", *arguments)
        settings.write(stage, "digits")
        return json.loads((tmp_path / stage / "settings.json").read_text())

    longer, after = "--gates_steps=7", "--hrl_from=gates"
    for stage in ("base", "sp", "elastic", "hrl"):
        assert noted(stage, longer) == noted(stage)
    assert noted("gates", longer) != noted("gates")
    assert noted("gates", after, "--hrl_steps=3") == noted("gates")
    assert noted("hrl", after, longer) != noted("hrl", after)
    # Whatever gates will follow, depths are drawn without them.
    for flag in ("--gate=pool", "--gate_init=published"):
        assert noted("elastic", flag) == noted("elastic")
    for flag in ("--min_blocks=2", "--target=0.4"):
        assert noted("gates", flag) != noted("gates")
        assert noted("hrl", after, flag) != noted("hrl", after)
        by_sp = "--gates_from=sp"
        assert noted("gates", by_sp, flag) == noted("gates", by_sp)


def test_gates_that_would_not_be_used_are_refused(tmp_path):
    stages = ["--stages=sp,gates,hrl", "--gates_from=sp"]
    for flags in ([], ["--hrl_from=gates", "--from_scratch"]):
        with pytest.raises(ValueError, match="give --hrl_from=gates"):
            train(tmp_path, *stages, *flags)
    with pytest.raises(ValueError, match="stage gates has no weights") as info:
        train(tmp_path, "--stages=gates")
    assert "--from_scratch" not in str(info.value)


def test_a_price_that_was_not_adapted_is_none_to_go_on_at(tmp_path):
    model = network()
    stage = skipnet_tf.HybridReinforce(skipnet_tf.schedules.Ramp(0, 1, 5))
    model.compile(sgd(), stage=stage)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="--target_macs.*gates too"):
        saved_stages.price(str(tmp_path / "model.keras"))


@pytest.mark.slow
def test_trainers_teach_gates_alone_and_go_on_at_their_price(tmp_path):
    few = ["--sp_steps=1", "--gates_steps=4", "--min_blocks=1"]
    train(tmp_path, "--depth=14", "--stages=elastic", *few)
    train(
        tmp_path,
        "--depth=14",
        "--stages=gates,hrl",
        "--gate=confidence",  # where depths were drawn there were others
        "--hrl_from=gates",
        "--target_macs=0.9",
        "--alpha=0.5",
        "--gate_rate=50",
        *few,
    )
    elastic, gates, hrl = (
        keras.saving.load_model(tmp_path / stage / "model.keras")
        for stage in ("elastic", "gates", "hrl")
    )
    assert (elastic.gate, gates.gate) == ("rnn", "confidence")
    for before, now in zip(elastic.backbone.weights, gates.backbone.weights):
        np.testing.assert_array_equal(before, now)
    assert hrl.backbone.trainable and not gates.backbone.trainable
    assert gates.gates[0].bias != 2.0  # where it started
    assert gates.gates[-1].slope != 0.0
    # While all blocks run, at 1 > 0.9, the price rises: by 0.04 * (1 - 0.9)
    # and what the gates cost, in each of four steps.
    prices = [0.5, *(float(each.stage.alpha) for each in (gates, hrl))]
    np.testing.assert_allclose(np.diff(prices), [0.016, 0.016], rtol=0.1)
    assert float(gates.stage.entropy_weight(0)) == pytest.approx(0.03)
    assert float(hrl.stage.entropy_weight) == 0.0
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["stages"]) == ["elastic", "gates", "hrl"]
    for stage, model in (("gates", gates), ("hrl", hrl)):
        assert result["stages"][stage]["threshold"] == model.threshold


@pytest.mark.slow
def test_gates_of_another_kind_start_from_a_given_file_of_elastic(tmp_path):
    train(tmp_path, "--stages=elastic", "--sp_steps=1", "--min_blocks=1")
    file = tmp_path / "elastic" / "model.keras"
    other = tmp_path / "other"
    train(
        other,
        "--stages=gates",
        "--gates_steps=1",
        "--gate=pool",
        f"--init_from={file}",
    )
    elastic, gates = (
        keras.saving.load_model(path)
        for path in (file, other / "gates" / "model.keras")
    )
    assert gates.gate == "pool"
    for before, now in zip(elastic.backbone.weights, gates.backbone.weights):
        np.testing.assert_array_equal(before, now)
