"""Beyond the paper: baselines, exploration, and a price that finds itself."""

import building
import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import slow
from cases import two_replicas
from trainer_cases import parse
from training_cases import fit
from training_cases import network
from training_cases import sgd

import skipnet_tf
from skipnet_tf import data
from skipnet_tf import flops
from skipnet_tf import policy
from skipnet_tf import schedules

_SEED = tf.constant([1, 2])
_ROUTED = {
    "part": 1.0,
    "gate_logits": tf.constant([[0.3, -0.2, 1.0], [0.1, 2.0, -1.0]]),
    "gates": tf.constant([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]),
    "fixed_share": tf.constant(0.2),
    "block_shares": tf.constant([0.4, 0.3, 0.2]),
    "threshold": 0.5,
}
_LOSS = tf.constant([0.5, 2.0])


def _surprise():
    """-log of the probability of each decision."""
    p = 1 / (1 + np.exp(-_ROUTED["gate_logits"].numpy()))
    gates = _ROUTED["gates"].numpy()
    return -np.log(np.where(gates == 1, p, 1 - p))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("baseline", "critic"),
        ("entropy_weight", -0.1),
        ("min_probability", 0.5),
        ("min_probability", -0.1),
        ("target_macs", 0.0),
        ("target_macs", 1.2),
        ("target_macs", "half"),
        ("target_macs", [0.9]),
        ("gates_alone", "no"),
    ],
)
def test_bad_arguments_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*Received: "):
        skipnet_tf.HybridReinforce(**{argument: value})


def test_a_target_adapts_a_number_not_a_schedule():
    with pytest.raises(ValueError, match="`alpha`.*Received: alpha=<"):
        skipnet_tf.HybridReinforce(schedules.Ramp(0.0, 1.0, 5), target_macs=0.5)


def test_a_price_below_0_never_weighs_the_loss():
    with pytest.raises(ValueError, match="`beta`.*Received: beta='alpha/N'"):
        skipnet_tf.HybridReinforce(beta="alpha/N", target_macs=0.5)


def test_a_self_critical_stage_subtracts_the_thresholded_return():
    stage = skipnet_tf.HybridReinforce(0.3, baseline="self_critical")
    reference = {
        "reference_gates": tf.constant([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]),
        "reference_loss": tf.constant([0.4, 2.5]),
    }
    terms = stage.policy_terms({**_ROUTED, **reference}, _LOSS, 0, _SEED)
    # Returns by hand, 0.1 for each block skipped from here on, minus the
    # loss: of the samples, then of the reference.
    sampled = np.array([[-0.4, -0.4, -0.5], [-1.8, -1.9, -2.0]])
    thresholded = np.array([[-0.2, -0.2, -0.3], [-2.4, -2.4, -2.4]])
    expected = np.mean(np.sum(_surprise() * (sampled - thresholded), axis=1))
    assert float(terms["policy_loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["mean_reward"]) == pytest.approx(-1.1)


def test_the_moving_baseline_is_what_earlier_steps_saw():
    stage = skipnet_tf.HybridReinforce(0.3, baseline="moving")
    plain = skipnet_tf.HybridReinforce(0.3)
    stage.build((2, 2))
    losses = [
        float(s.policy_terms(_ROUTED, _LOSS, 0, _SEED)["policy_loss"])
        for s in (plain, stage, stage)
    ]
    # Nothing was seen before the first step.
    assert losses[1] == pytest.approx(losses[0])
    # Then rates of 0.5, 0 and 1 and a loss of 1.25.
    sampled = np.array([[-0.4, -0.4, -0.5], [-1.8, -1.9, -2.0]])
    before = np.array([0.05 + 0.1 - 1.25, 0.1 - 1.25, -1.25])
    expected = np.mean(np.sum(_surprise() * (sampled - before), axis=1))
    assert losses[2] == pytest.approx(expected, rel=1e-5)
    assert len(stage.variables) == 5 + 3


def test_undecided_gates_are_rewarded():
    plain = skipnet_tf.HybridReinforce(0.3)
    stage = skipnet_tf.HybridReinforce(0.3, entropy_weight=0.7)
    losses = [
        float(s.policy_terms(_ROUTED, _LOSS, 0, _SEED)["policy_loss"])
        for s in (plain, stage)
    ]
    p = 1 / (1 + np.exp(-_ROUTED["gate_logits"].numpy()))
    entropy = -np.sum(p * np.log(p) + (1 - p) * np.log(1 - p), axis=1)
    assert losses[0] - losses[1] == pytest.approx(0.7 * np.mean(entropy))


def test_bounded_samples_are_credited_with_their_bounded_probability():
    stage = skipnet_tf.HybridReinforce(0.3, min_probability=0.1)
    assert stage.policy(_SEED, None) == policy.Sampled(_SEED, 0.1)
    terms = stage.policy_terms(_ROUTED, _LOSS, 0, _SEED)
    p = 0.1 + 0.8 / (1 + np.exp(-_ROUTED["gate_logits"].numpy()))
    surprise = -np.log(np.where(_ROUTED["gates"].numpy() == 1, p, 1 - p))
    sampled = np.array([[-0.4, -0.4, -0.5], [-1.8, -1.9, -2.0]])
    expected = np.mean(np.sum(surprise * sampled, axis=1))
    assert float(terms["policy_loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("threshold", "thresholded"),
    [
        # Logits of 0 and more: all gates 0, half of gates 1 and of gates 2.
        (0.5, 0.2 + 0.4 + 0.15 + 0.1),
        # Of log(1.5) = 0.41 and more: half of gates 1 and of gates 2.
        (0.6, 0.2 + 0.15 + 0.1),
    ],
)
def test_the_price_follows_what_is_spent(threshold, thresholded):
    stage = skipnet_tf.HybridReinforce(0.3, target_macs=0.5)
    routed = {**_ROUTED, "threshold": threshold}
    terms = stage.policy_terms(routed, _LOSS, 0, _SEED)
    p = 1 / (1 + np.exp(-_ROUTED["gate_logits"].numpy()))
    probable = 0.2 + float(np.mean(p, axis=0) @ [0.4, 0.3, 0.2])
    alpha = 0.3 + 0.04 * (thresholded - 0.5)
    assert float(stage.alpha) == pytest.approx(alpha)
    assert float(terms["price"]) == pytest.approx(
        alpha + 5.0 * (probable - 0.5)
    )


def test_a_target_may_fall_with_the_steps():
    stage = skipnet_tf.HybridReinforce(
        0.3, target_macs=schedules.Ramp(1.0, 0.5, 10)
    )
    stage = type(stage).from_config(stage.get_config())
    stage.policy_terms(_ROUTED, _LOSS, 4, _SEED)
    # 0.85 is spent, see above, where 0.8 is asked for at step 4.
    assert float(stage.alpha) == pytest.approx(0.3 + 0.04 * 0.05)


def test_a_price_may_fall_below_zero():
    stage = skipnet_tf.HybridReinforce(0.0, target_macs=1.0)
    terms = stage.policy_terms(_ROUTED, _LOSS, 0, _SEED)
    assert float(stage.alpha) < 0 > float(terms["price"])
    again = type(stage).from_config(stage.get_config())
    assert float(again.alpha) == float(stage.alpha)


def test_a_target_below_what_every_image_pays_is_refused():
    stage = skipnet_tf.HybridReinforce(target_macs=0.1)
    with pytest.raises(ValueError, match="`target_macs`.*0.200 of the"):
        stage.policy_terms(_ROUTED, _LOSS, 0, _SEED)


def _trained(stage, steps=3, **arguments):
    model = network(**arguments)
    model.compile(sgd(), stage=stage)
    return model, fit(model, steps)


@pytest.mark.parametrize("baseline", [slow("moving"), "self_critical"])
def test_baselines_train_a_network_and_survive_saving(baseline, tmp_path):
    model, logs = _trained(
        skipnet_tf.HybridReinforce(
            baseline=baseline, target_macs=0.95, min_probability=0.1
        )
    )
    assert np.isfinite(logs.history["policy_loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.stage.get_config() == model.stage.get_config()
    assert loaded.stage.target_macs == 0.95
    fit(loaded)


def test_the_reference_leaves_statistics_alone():
    seen = {}
    for baseline in ("none", "self_critical"):
        keras.utils.set_random_seed(0)
        model, _ = _trained(skipnet_tf.HybridReinforce(baseline=baseline), 1)
        seen[baseline] = [
            weight.numpy()
            for weight in model.non_trainable_variables
            if "moving" in weight.path
        ]
        assert seen[baseline]
    for one, other in zip(*seen.values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_replicas_agree_on_price_and_baseline():
    with two_replicas().scope():
        model, _ = _trained(
            skipnet_tf.HybridReinforce(baseline="moving", target_macs=0.95)
        )
    for value in model.stage.variables:
        copies = [copy.numpy() for copy in value.values]
        np.testing.assert_array_equal(*copies)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--alpha=0.4", "--price_ramp=0.5"], {"alpha": [0.0, 0.2, 0.4]}),
        (
            ["--target_macs=0.9", "--price_ramp=0.5", "--gate_init=published"],
            {"alpha": [0.1] * 3, "target_macs": [1.0, 0.95, 0.9]},
        ),
        (["--entropy_weight=0.2"], {"entropy_weight": [0.2, 0.15, 0.1]}),
    ],
)
def test_trainers_make_schedules(arguments, expected):
    parse("--workdir=w", *arguments)
    info = data.describe("digits", "train[:10]")
    model = network()
    stage = building._late_stage("hrl", model, info, steps=8, gentle=1.0)
    for name, values in expected.items():
        value = getattr(stage, name)
        found = [value(s) if callable(value) else value for s in (0, 2, 4)]
        np.testing.assert_allclose(found, values, rtol=1e-6)


def test_a_ramp_begins_at_what_new_gates_spend_when_they_are_sampled(tmp_path):
    model = network()
    count = flops.count(model, (32, 32, 3))
    always = count.fixed + count.gates.sum()
    sampled = always + count.blocks.sum() / (1 + np.exp(-2.0))
    model.compile(sgd(), stage=skipnet_tf.Supervised())
    learnt = str(tmp_path / "model.keras")
    model.save(learnt)
    for given, begin in (
        ("dense.pth", sampled / count.dense),
        (learnt, 1.0),  # who knows what these spend
    ):
        parse("--workdir=w", "--stages=gates", f"--init_from={given}")
        found = building._sampled_share("gates", count)
        assert found == pytest.approx(begin)


def test_trainers_refuse_a_target_out_of_reach_of_their_network():
    parse("--workdir=w", "--target_macs=0.5", "--price_ramp=0.5")
    info = data.describe("digits", "train[:10]")
    # Stem, first block and gates of this network are more than that.
    with pytest.raises(ValueError, match="--target_macs.* must be above"):
        building._late_stage("hrl", network(), info, steps=8, gentle=1.0)


def test_the_price_moves_once_a_step_whatever_its_parts():
    prices = []
    for parts in (1, 4):
        model = network()
        model.compile(
            sgd(0.0),
            stage=skipnet_tf.HybridReinforce(0.0, target_macs=0.95),
            gradient_accumulation=parts,
            run_eagerly=True,
        )
        fit(model)
        prices.append(float(model.stage.alpha))
    # All gates are open: 0.04 times what that is above 0.95, gates included.
    assert prices[0] == pytest.approx(prices[1], rel=1e-5)
    assert prices[0] > 0.04 * (1.0 - 0.95)


def test_a_retreat_is_gentler():
    parse("--workdir=w", "--alpha=0.4", "--rl_weight=0.8")
    info = data.describe("digits", "train[:10]")
    stage = building._late_stage("hrl", network(), info, steps=8, gentle=0.5)
    assert float(stage.alpha) == pytest.approx(0.2)
    assert float(stage.rl_weight) == pytest.approx(0.4)
