"""Stages of later work: what they add to the loss, and what gates learn."""

import json

import building
import keras
import numpy as np
import pytest
import settings
import tensorflow as tf
from cases import two_replicas
from trainer_cases import parse
from trainer_cases import train
from training_cases import IMAGES
from training_cases import LABELS
from training_cases import fit
from training_cases import network
from training_cases import sgd

import skipnet_tf
from skipnet_tf import peers
from skipnet_tf import policy
from skipnet_tf import schedules

_SEED = tf.constant([1, 2])
_STAGES = {
    "target_rate": lambda: peers.TargetRate(0.4, seed=3),
    "budget": lambda: peers.Budget(0.6, anneal_steps=4, seed=3),
}
_GATES = tf.constant([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])


def _network():
    """Gates that cost little beside the blocks, unlike those of `network`."""
    return network(gate="pool", blocks=(3,), filters=(8,))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("target", -0.1),
        ("target", 1.1),
        ("target", float("nan")),
        ("weight", -1.0),
        ("weight", "high"),
        ("temperature", 0.0),
        ("temperature", "warm"),
        ("anneal_steps", 0),
        ("anneal_steps", 0.33),
    ],
)
def test_numbers_out_of_range_are_refused(argument, value):
    arguments = {"anneal_steps": 9, argument: value}
    with pytest.raises(ValueError, match=f"`{argument}`.*Received: "):
        peers.Budget(**arguments)
    if argument != "anneal_steps":
        with pytest.raises(ValueError, match=f"`{argument}`.*Received: "):
            peers.TargetRate(**{argument: value})


def test_a_target_is_one_number_or_one_for_each_gate():
    with pytest.raises(ValueError, match=r"`target`.*Received: target=\[0.5"):
        peers.TargetRate([0.5, 2.0])
    each = peers.TargetRate((1.0, 0.75))
    # Rates are 1 and 0.25.
    terms = each.policy_terms({"gates": _GATES}, None, 0, _SEED)
    assert float(terms["policy_loss"]) == 0.5**2 / 2
    with pytest.raises(ValueError, match="one per gate, 2"):
        peers.TargetRate([0.5] * 3).policy_terms(
            {"gates": _GATES}, None, 0, _SEED
        )


@pytest.mark.parametrize("name", _STAGES)
def test_noise_ends_with_training(name):
    stage = _STAGES[name]()
    assert stage.policy(_SEED, None) == policy.Gumbel(_SEED, 1.0)
    assert stage.inference_policy(0.5, None) == policy.Thresholded(0.5)
    assert stage.execution == "masked"


@pytest.mark.parametrize(
    "stage",
    [
        peers.TargetRate((0.5, 1.0), 3.0, 0.5, seed=4),
        peers.TargetRate(weight=schedules.Ramp(0.0, 2.0, 10)),
        peers.Budget(0.3, 5.0, anneal_steps=7, temperature=0.66, seed=4),
    ],
)
def test_stages_survive_serialisation(stage):
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(stage)
    )
    assert type(again) is type(stage)
    assert again.get_config() == stage.get_config()
    assert float(again.value("weight", 5)) == float(stage.value("weight", 5))


def test_bounds_loosen_by_a_squared_cosine():
    # The costs meet the budget at rates of (0.6 - 0.2) / 0.8 = 0.5; spent are
    # 0.2 + 0.2 + 0.25 * 0.6 = 0.55. Bounds at step 2 of 6: cos^2(pi / 6).
    stage = peers.Budget(0.6, anneal_steps=6)
    routed = {
        "gates": _GATES,
        "fixed_share": 0.2,
        "block_shares": tf.constant([0.2, 0.6]),
    }
    above = 1 - (1 - 0.75 * 0.5)
    expected = {
        0: (0.5**2 + 0.25**2) / 2,
        2: (above**2 + (0.75 * 0.5 - 0.25) ** 2) / 2,
        6: 0.0,
        9: 0.0,
    }
    for step, blocks in expected.items():
        terms = stage.policy_terms(routed, None, tf.constant(step), _SEED)
        assert float(terms["policy_loss"]) == pytest.approx(
            0.05**2 + blocks, rel=1e-4
        )


def _policy_loss(name, model, gates):
    """Of the stages above, at step 0, written out."""
    rates = tf.reduce_mean(gates, axis=0)
    if name == "target_rate":
        return tf.reduce_mean((rates - 0.4) ** 2)
    count = skipnet_tf.flops.count(model, (4, 4, 3))
    fixed = (count.fixed + count.gates.sum()) / count.dense
    costs = tf.constant(count.blocks / count.dense, tf.float32)
    even = (0.6 - fixed) / (count.blocks.sum() / count.dense)
    spent = fixed + tf.reduce_sum(rates * costs)
    # At step 0 the bounds meet.
    return (spent - 0.6) ** 2 + tf.reduce_mean((rates - even) ** 2)


@pytest.mark.parametrize(
    ("name", "weight"), [("target_rate", 2), ("budget", 10)]
)
def test_a_step_follows_its_equations(name, weight):
    model = _network()
    model.compile(sgd(0.1), stage=_STAGES[name](), run_eagerly=True)
    start = model.get_weights()
    with tf.GradientTape() as tape:
        routed = model.route(IMAGES[:8], training=True)
        surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(
            LABELS[:8], routed["logits"]
        )
        policy_loss = _policy_loss(name, model, routed["gates"])
        loss = tf.reduce_mean(surprise) + weight * policy_loss
    gradients = tape.gradient(loss, model.trainable_variables)
    expected = [
        variable.numpy() - 0.1 * gradient.numpy()
        for variable, gradient in zip(model.trainable_variables, gradients)
    ]
    assert 0 < np.mean(routed["gates"]) < 1
    model.set_weights(start)
    history = fit(model).history
    for variable, value in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)
    assert history["loss"][0] == pytest.approx(float(loss), rel=1e-5)
    assert history["policy_loss"][0] == pytest.approx(
        float(policy_loss), rel=1e-5
    )


@pytest.mark.parametrize("name", _STAGES)
def test_a_stage_logs_its_loss_and_no_reward(name):
    model = _network()
    model.compile(sgd(), stage=_STAGES[name](), run_eagerly=True)
    history = fit(model, validation_data=(IMAGES, LABELS)).history
    shared = {"loss", "executed_blocks", "multiply_adds"}
    routes = {"distinct_paths", "input_dependent_gates"}
    validated = {f"val_{key}" for key in shared | routes}
    assert set(history) == shared | {"policy_loss"} | validated


@pytest.mark.slow
def test_multiply_adds_fall_to_the_budget():
    model = _network()
    count = skipnet_tf.flops.count(model, (4, 4, 3))
    fixed = (count.fixed + count.gates.sum()) / count.dense
    assert fixed < 0.6 < count.total / count.dense
    stage = peers.Budget(0.6, 50.0, anneal_steps=20)
    model.compile(sgd(0.05), stage=stage)
    spent = fit(model, 40).history["multiply_adds"]
    # Gates start open: 0.88 of the decisions.
    assert spent[0] > 0.75
    assert np.mean(spent[-10:]) == pytest.approx(0.6, abs=0.1)


def test_a_budget_that_the_rest_of_the_network_spends_is_refused():
    model = network()
    stage = peers.Budget(0.01, anneal_steps=4)
    model.compile(sgd(), stage=stage, run_eagerly=True)
    with pytest.raises(ValueError, match="`target` must be above.*=0.01"):
        fit(model)


def test_images_of_any_size_have_their_shares():
    model = network(gate="pool")
    found = []

    def shares(images):
        parts = model._shares(images)
        found.append(tf.get_static_value(parts["fixed_share"]))
        return parts

    traced = tf.function(
        shares, input_signature=[tf.TensorSpec((None, None, None, 3))]
    )(IMAGES)
    for key, value in shares(IMAGES).items():
        np.testing.assert_allclose(traced[key], value, rtol=1e-6)
    assert found[0] is None
    assert 0 < found[1] < 1


def test_rates_and_their_gradients_are_those_of_all_replicas():
    strategy = two_replicas()
    stage = peers.TargetRate(0.9)

    @tf.function
    def term():
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.float32)
        gates = tf.fill([2, 1], replica)  # 0 here, 1 there
        with tf.GradientTape() as tape:
            tape.watch(gates)
            terms = stage.policy_terms({"gates": gates}, None, 0, _SEED)
            loss = terms["policy_loss"] / 2
        return terms["policy_loss"], tape.gradient(loss, gates)

    losses, gradients = strategy.run(term)
    for loss in strategy.experimental_local_results(losses):
        assert float(loss) == pytest.approx((0.5 - 0.9) ** 2)
    # 2 (0.5 - 0.9), over the four images of both.
    for gradient in strategy.experimental_local_results(gradients):
        np.testing.assert_allclose(gradient, [[-0.2], [-0.2]], rtol=1e-6)


def _trains(name, **arguments):
    model = _network()
    model.compile(sgd(), stage=_STAGES[name](), **arguments)
    start = model.get_weights()
    history = fit(model, 2).history
    assert np.isfinite(list(history.values())).all()
    assert model.optimizer.iterations.numpy() == 2
    assert not np.array_equal(start[0], model.get_weights()[0])
    opened = [gate.last_weights()[-1].numpy() for gate in _network().gates]
    for before, gate in zip(opened, model.gates):
        assert not np.array_equal(gate.last_weights()[-1], before)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_and_accumulation(precision):
    keras.config.set_dtype_policy(precision)
    _trains("budget", run_eagerly=True, gradient_accumulation=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", _STAGES)
def test_xla_compiles_every_stage(name):
    _trains(name, jit_compile=True, gradient_accumulation=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", _STAGES)
def test_every_stage_trains_on_two_replicas(name):
    with two_replicas().scope():
        _trains(name, gradient_accumulation=2)


def test_the_trainers_start_a_stage_where_it_is_told_to(tmp_path):
    parse(f"--workdir={tmp_path}")
    assert building.first_weights("budget") is None
    parse(f"--workdir={tmp_path}", "--sp_from_base", "--hrl_from=budget")
    base, budget = (
        str(tmp_path / stage / "model.keras") for stage in ("base", "budget")
    )
    for stage in ("target_rate", "budget"):
        assert building.first_weights(stage) == base
    assert building.first_weights("hrl") == budget


def test_work_directories_are_bound_by_the_flags_that_matter(tmp_path):
    def noted(stage, *arguments):
        parse(f"--workdir={tmp_path}", *arguments)
        settings.write(stage, "digits")
        return json.loads((tmp_path / stage / "settings.json").read_text())

    for stage in ("base", "sp", "hrl"):
        assert noted(stage, "--target=0.4") == noted(stage)
    for stage in ("target_rate", "budget"):
        assert noted(stage, "--target=0.4") != noted(stage)
        assert noted(stage, "--alpha=0.4") == noted(stage)
    after = "--hrl_from=budget"
    assert noted("hrl", after, "--target=0.4") != noted("hrl", after)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--stages=target_rate"], {"target": 0.7, "weight": 2.0}),
        (
            ["--stages=budget", "--target=0.9", "--target_weight=3"],
            {"target": 0.9, "weight": 3.0, "anneal_steps": 1},
        ),
        (
            ["--stages=target_rate,hrl", "--hrl_from=target_rate"],
            {"temperature": 1.0},
        ),
    ],
)
def test_the_trainers_run_the_stages(tmp_path, arguments, expected):
    train(tmp_path, *arguments)
    stage = arguments[0].split("=")[1].split(",")[0]
    model = keras.saving.load_model(tmp_path / stage / "model.keras")
    config = model.stage.get_config()
    assert {name: config[name] for name in expected} == expected
    result = json.loads((tmp_path / "result.json").read_text())
    assert stage in result["stages"]
