"""What a step of every stage learns, and what it logs."""

import numpy as np
import pytest
import tensorflow as tf
from training_cases import HYBRID
from training_cases import IMAGES
from training_cases import LABELS
from training_cases import fit
from training_cases import network
from training_cases import same
from training_cases import sgd

import skipnet_tf
from skipnet_tf import objectives
from skipnet_tf import training

_ROUTE = {"executed_blocks", "multiply_adds"}
_LOGGED = {"loss", "accuracy"} | _ROUTE
_SAMPLED = {"policy_loss", "mean_reward", "price"}
_VALIDATED = _LOGGED | {"distinct_paths", "input_dependent_gates"}


@pytest.mark.parametrize(
    ("stage", "logged", "validated"),
    [
        (skipnet_tf.Supervised(), _LOGGED, _VALIDATED),
        (
            skipnet_tf.HybridReinforce(),
            _LOGGED | _SAMPLED,
            _VALIDATED | {"sampled_accuracy"},
        ),
        (
            skipnet_tf.Reinforce(),
            _LOGGED | _SAMPLED,
            _VALIDATED | {"sampled_accuracy"},
        ),
    ],
)
def test_every_stage_logs_what_it_measures(stage, logged, validated):
    model = network()
    # Eagerly where the graph would be that of the stage before.
    eagerly = isinstance(stage, skipnet_tf.Reinforce)
    model.compile(sgd(), metrics=["accuracy"], stage=stage, run_eagerly=eagerly)
    history = model.fit(
        IMAGES,
        LABELS,
        batch_size=8,
        verbose=0,
        validation_data=(IMAGES, LABELS),
        validation_batch_size=8,
    ).history
    assert set(history) == logged | {f"val_{name}" for name in validated}
    assert np.isfinite(list(history.values())).all()
    evaluated = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert set(evaluated) == validated
    # Validation runs by the thresholded policy, and gates start open.
    routed = model.route(IMAGES)
    assert evaluated["executed_blocks"] == pytest.approx(
        (np.mean(np.sum(routed["gates"], 1)) + 1) / 3
    )
    dense = skipnet_tf.flops.count(model, (4, 4, 3)).dense
    assert evaluated["multiply_adds"] == pytest.approx(
        np.mean(routed["macs"]) / dense, rel=1e-6
    )
    logits = model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(logits, routed["logits"], rtol=1e-4, atol=1e-5)
    assert evaluated["accuracy"] == pytest.approx(
        np.mean(np.argmax(logits, 1) == LABELS)
    )


def test_a_hybrid_step_follows_its_equations():
    model = network()
    stage = skipnet_tf.HybridReinforce(0.5, 0.8, rl_weight=1.5, seed=3)
    model.compile(sgd(0.1), stage=stage)
    start = model.get_weights()
    with tf.GradientTape() as tape:
        routed = model.route(IMAGES[:8], training=True)
        surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(
            LABELS[:8], routed["logits"]
        )
        rewards = objectives.returns(routed["gates"], surprise, 0.5, 0.8)
        policy_loss = objectives.policy_gradient_loss(
            routed["gate_logits"], routed["gates"], rewards
        )
        loss = tf.reduce_mean(surprise) + 1.5 * policy_loss
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
    assert history["mean_reward"][0] == pytest.approx(
        np.mean(rewards[:, 0]), rel=1e-5
    )


def test_an_assigned_alpha_changes_the_update_without_compiling_again():
    model = network()
    stage = skipnet_tf.HybridReinforce(**HYBRID)
    model.compile(sgd(), stage=stage)
    start, results = model.get_weights(), []
    compiled = None
    for alpha in (0.5, 8.0, 0.5):
        model.set_weights(start)
        model.optimizer.iterations.assign(0)
        stage.alpha.assign(alpha)
        fit(model)
        results.append(model.gates[0].recurrence.decision.bias.numpy())
        assert compiled in (None, model.train_function)
        compiled = model.train_function
    assert not np.allclose(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_pure_reinforcement_gets_no_gradient_of_the_cross_entropy():
    model = network()
    start = [v.numpy() for v in model.trainable_variables]
    for beta in (0.0, 1.0):
        stage = skipnet_tf.Reinforce(alpha=0.0, beta=beta)
        model.compile(sgd(), stage=stage, run_eagerly=True)
        fit(model)
        same = [
            np.array_equal(old, new)
            for old, new in zip(start, model.trainable_variables)
        ]
        # Nothing is left to learn from without a reward.
        assert all(same) if beta == 0 else not any(same[:3])


def test_random_skipping_trains_the_blocks_and_leaves_the_gates():
    model = network()
    gates = [w.numpy() for g in model.gates for w in g.trainable_variables]
    stem = model.backbone.stem_conv.kernel.numpy()
    model.compile(
        sgd(), stage=skipnet_tf.Supervised("random", 0.5), run_eagerly=True
    )
    fit(model)
    after = [w for g in model.gates for w in g.trainable_variables]
    for old, new in zip(gates, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert not np.array_equal(stem, model.backbone.stem_conv.kernel)


def test_a_conditional_step_is_a_masked_one_where_all_blocks_run():
    results = []
    start = network().get_weights()
    for execution in ("masked", "conditional"):
        model = network()
        model.set_weights(start)
        # Log-odds of 30: samples are ones.
        model.gates[0].recurrence.decision.bias.assign([30.0])
        stage = skipnet_tf.HybridReinforce(**HYBRID, execution=execution)
        model.compile(sgd(), stage=stage)
        assert fit(model, 2).history["executed_blocks"] == [1.0, 1.0]
        results.append(model)
    assert same(*results, atol=1e-5)


def test_a_conditional_step_leaves_closed_blocks_alone():
    model = network()
    model.gates[0].recurrence.decision.bias.assign([-30.0])
    model.compile(
        sgd(), stage=skipnet_tf.HybridReinforce(execution="conditional")
    )
    first, *others = model.backbone.blocks
    start = [[w.numpy() for w in b.weights] for b in (first, *others)]
    executed = fit(model, 2).history["executed_blocks"]
    assert executed == pytest.approx([1 / 3, 1 / 3])
    for block, weights in zip(others, start[1:], strict=True):
        for now, before in zip(block.weights, weights, strict=True):
            # The shortcut's projection runs for all.
            same = np.array_equal(now, before)
            assert same == ("projection" not in now.path), now.path
    assert not np.array_equal(first.weights[0], start[0][0])


def test_several_steps_per_execution_are_the_same_steps():
    results = []
    start = network().get_weights()
    for steps in (1, 2):
        model = network()
        model.set_weights(start)
        model.compile(
            sgd(),
            stage=skipnet_tf.HybridReinforce(**HYBRID),
            steps_per_execution=steps,
        )
        model.fit(IMAGES, LABELS, 8, verbose=0, shuffle=False)
        results.append(model)
    assert int(results[1].optimizer.iterations) == 2
    assert same(*results, atol=1e-6)


def test_the_base_class_is_for_networks_with_and_without_gates():
    assert issubclass(skipnet_tf.ResNet, training.Classifier)
    assert issubclass(skipnet_tf.SkipNet, training.StagedClassifier)
