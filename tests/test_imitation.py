"""Imitation: what gates are shown, what learns, and how trainers run it."""

import json

import building
import cases
import keras
import numpy as np
import pytest
import settings
import shared
from trainer_cases import TINY
from trainer_cases import parse
from trainer_cases import train
from training_cases import IMAGES
from training_cases import fit
from training_cases import network
from training_cases import sgd

import skipnet_tf
from skipnet_tf import imitation


def divided(gate="pool", **arguments):
    """A network that runs each block for some of the images."""
    return cases.divide_opinions(network(gate, **arguments), IMAGES)


def compiled(model, teacher, rate=0.1, **arguments):
    stage = skipnet_tf.Imitation(teacher, **arguments)
    model.compile(sgd(rate), stage=stage, run_eagerly=True)
    return model


def test_the_loss_is_that_of_the_teachers_decisions():
    teacher = divided()
    model = compiled(network("rnn"), teacher)
    decisions = teacher.route(IMAGES[:8])["gates"].numpy()
    assert 0 < decisions.mean() < 1
    # The logits met on the teacher's path, with this network's own blocks.
    routed = model.route(IMAGES[:8], actions=decisions)
    runs = 1 / (1 + np.exp(-routed["gate_logits"].numpy()))
    likely = np.where(decisions == 1, runs, 1 - runs)
    expected = -np.log(likely).sum(axis=1).mean()
    found = fit(model).history
    assert found["policy_loss"][0] == pytest.approx(expected, rel=1e-5)
    assert found["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert found["executed_blocks"][0] == pytest.approx(
        (1 + decisions.sum(axis=1)).mean() / 3
    )


@pytest.mark.parametrize("execution", ["masked", "conditional"])
def test_gates_learn_the_decisions_and_nothing_else_moves(execution):
    teacher = divided("rnn", threshold=0.6)
    model = network("pool")
    model.backbone.set_weights(teacher.backbone.get_weights())
    backbone = model.backbone.get_weights()
    stage = skipnet_tf.Imitation(teacher, execution=execution)
    model.compile(sgd(0.5), stage=stage)
    decisions = teacher.route(IMAGES[:8])["gates"].numpy()
    assert (model.route(IMAGES[:8])["gates"].numpy() == 1).all()
    many = np.tile(IMAGES[:8], (200, 1, 1, 1))
    model.fit(many, np.zeros(len(many)), 8, verbose=0)
    learnt = model.route(IMAGES[:8])["gates"].numpy()
    np.testing.assert_array_equal(learnt, decisions)
    for before, now in zip(backbone, model.backbone.get_weights()):
        np.testing.assert_array_equal(before, now)


def test_the_next_stage_trains_all_of_it_again():
    model = compiled(network(), divided())
    assert not any(
        "backbone" in weight.path for weight in model.trainable_variables
    )
    model.compile(sgd(), stage=skipnet_tf.HybridReinforce())
    assert model.backbone.stem_conv.trainable


def test_the_teacher_is_not_saved(tmp_path):
    model = compiled(network(), divided(), seed=3, execution="conditional")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.stage.get_config() == {"seed": 3, "execution": "conditional"}
    assert len(loaded.weights) == len(model.weights)
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    with pytest.raises(ValueError, match="`teacher` must be given to train"):
        fit(loaded)


@pytest.mark.slow
def test_a_replica_learns_what_its_images_show():
    with cases.two_replicas().scope():
        teacher = divided()
        model = network("rnn")
        model.compile(sgd(), stage=skipnet_tf.Imitation(teacher))
    alone = network("rnn")
    alone.set_weights(model.get_weights())
    compiled(alone, teacher)
    for other in (model, alone):
        fit(other)
    for ours, theirs in zip(model.get_weights(), alone.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_teachers_that_do_not_fit_are_refused():
    model = network()
    for teacher, received in (
        (network(blocks=(2, 2)), "3 gates for 3 channels"),
        (skipnet_tf.ResNet((1, 2), (4, 4)), "0 gates"),
        (network(input_shape=(None, None, 1)), "for 1 channels"),
    ):
        with pytest.raises(ValueError, match=f"`teacher`.*: .*{received}"):
            compiled(model, teacher)
    stage = skipnet_tf.Imitation(network())
    with pytest.raises(ValueError, match="`teacher`.*XLA"):
        model.compile(sgd(), stage=stage, jit_compile=True)
    distillation = skipnet_tf.Distillation(network())
    with pytest.raises(ValueError, match="`distillation` must be None"):
        model.compile(sgd(), stage=stage, distillation=distillation)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages=sp"], "--imitate is for the stage gates"),
        (["--stages=sp,gates"], "begin --stages with gates"),
        (["--stages=gates", "--init_from=a.keras"], "leave out --init_from"),
        (["--stages=gates"], "example.keras, which does not exist"),
    ],
)
def test_flags_that_contradict_it_are_refused(tmp_path, arguments, message):
    path = tmp_path / "example.keras"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, f"--imitate={path}", *arguments)


def test_files_without_gates_are_refused(tmp_path):
    skipnet_tf.cifar_resnet(8).save(tmp_path / "dense.keras")
    (tmp_path / "text.keras").write_text("none")
    for name, message in (
        ("dense", "--imitate must be a .keras file of a network with gates"),
        ("text", "text.keras"),
    ):
        path = tmp_path / f"{name}.keras"
        with pytest.raises(ValueError, match=message):
            train(tmp_path, "--stages=gates", f"--imitate={path}")


@pytest.fixture
def example(tmp_path):
    """The file of a network that skips all of its gated blocks."""
    network = skipnet_tf.cifar_skipnet(14, "pool", input_shape=(8, 8, 3))
    network.threshold = 0.95  # new gates are less sure
    stage = skipnet_tf.HybridReinforce(0.25, target_macs=0.9)
    network.compile(sgd(), stage=stage)
    network.save(tmp_path / "example.keras")
    return str(tmp_path / "example.keras")


def flags_of(example):
    return [
        "--depth=14",
        f"--imitate={example}",
        "--stages=gates,hrl",
        "--hrl_from=gates",
        "--target_macs=0.9",
        "--price_ramp=0.5",
        "--sharpen=3",
    ]


def test_hrl_goes_on_at_the_price_of_the_example(tmp_path, example):
    parse(f"--workdir={tmp_path}", *TINY, *flags_of(example))
    digits = shared._splits("digits")
    gates = building.plan("gates", "cifar", digits).make(0)
    assert isinstance(gates.stage, skipnet_tf.Imitation)
    assert gates.stage.teacher.threshold == 0.95
    assert (gates.gate, gates.threshold) == ("rnn", 0.5)
    before = keras.saving.load_model(example).backbone.get_weights()
    for ours, theirs in zip(gates.backbone.get_weights(), before):
        np.testing.assert_array_equal(ours, theirs)
    # The last of 5 gates is between blocks of the last group.
    half = 0.5 * gates.backbone.classifier.kernel.numpy()
    np.testing.assert_allclose(gates.gates[4].projection.kernel, half)
    (tmp_path / "gates").mkdir()
    gates.gates[0].embedding.bias.assign(np.arange(10.0))
    gates.save(tmp_path / "gates" / "model.keras")
    hrl = building.plan("hrl", "cifar", digits).make(0)
    assert float(hrl.stage.alpha) == 0.25
    assert hrl.stage.target_macs == 0.9
    assert float(hrl.stage.entropy_weight) == 0.0
    for ours, theirs in zip(hrl.get_weights(), gates.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_reading_the_classifier_can_be_left_out(tmp_path, example):
    arguments = [*flags_of(example), "--noread_classifier"]
    parse(f"--workdir={tmp_path}", *TINY, *arguments)
    plan = building.plan("gates", "cifar", shared._splits("digits"))
    model = plan.make(0)
    half = 0.5 * model.backbone.classifier.kernel.numpy()
    assert not np.allclose(model.gates[4].projection.kernel, half)


@pytest.mark.slow
def test_trainers_imitate_and_go_on(tmp_path, example):
    # All gates are shut, as they were told to be.
    train(tmp_path, *flags_of(example), "--on_collapse=ignore")
    log = (tmp_path / "gates" / "log.csv").read_text().splitlines()
    # The example runs block 0 of 6.
    executed = log[0].split(",").index("executed_blocks")
    assert float(log[1].split(",")[executed]) == pytest.approx(1 / 6)
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["stages"]) == ["gates", "hrl"]


def test_work_directories_are_bound_by_the_example(tmp_path):
    def noted(stage, *arguments):
        parse(f"--workdir={tmp_path}", *arguments)
        return settings.of_stage(stage, "digits")

    for stage in ("base", "sp", "hrl"):
        assert "imitate" not in noted(stage, "--imitate=a.keras")
    assert noted("gates", "--imitate=a.keras")["imitate"] == "a.keras"
    hrl = noted("hrl", "--imitate=a.keras", "--hrl_from=gates")
    assert hrl["imitate"] == "a.keras"


@pytest.mark.parametrize("gate", ["rnn", "pool"])
def test_gates_of_the_last_group_read_the_classifier(gate):
    model = cases.trained(network(gate, blocks=(2, 3)), IMAGES)
    before = [gate.projection.get_weights() for gate in model.gates]
    # Of 4 gates the last 2 are between blocks of the last group.
    assert imitation.read_classifier(model, scale=0.25) == 2
    classifier = model.backbone.classifier
    features = cases.images(5, 4)
    scores = classifier(features).numpy()
    for gate, (kernel, bias) in zip(model.gates[2:], before[2:]):
        read = gate.projection.kernel.numpy(), gate.projection.bias.numpy()
        np.testing.assert_allclose(
            (features @ read[0] + read[1])[:, :3], 0.25 * scores, rtol=1e-5
        )
        np.testing.assert_array_equal(read[0][:, 3:], kernel[:, 3:])
        np.testing.assert_array_equal(read[1][3:], bias[3:])
    for gate, weights in zip(model.gates[:2], before[:2]):
        for ours, theirs in zip(gate.projection.get_weights(), weights):
            np.testing.assert_array_equal(ours, theirs)


def test_gates_that_cannot_read_the_classifier_stay_as_they_are():
    for model in (
        network("ff2", blocks=(1, 3)),
        network("confidence", blocks=(1, 3)),
        network("rnn", blocks=(1, 3), num_classes=11),
        network("rnn", blocks=(3, 1)),
    ):
        before = model.get_weights()
        assert imitation.read_classifier(model) == 0
        for ours, theirs in zip(model.get_weights(), before):
            np.testing.assert_array_equal(ours, theirs)
