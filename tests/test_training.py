"""`compile`, `fit`, `evaluate` and what is saved in between."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import images
from cases import labels
from cases import skipnet
from cases import two_replicas

import skipnet_tf
from skipnet_tf import objectives
from skipnet_tf import policy
from skipnet_tf import training

_IMAGES, _LABELS = images(16, 4, 4, 3), labels(16)
_HYBRID = {"alpha": 0.5, "rl_weight": 1.0}


def _network(**arguments):
    """Three blocks, two gates: small, for every `fit` traces a graph."""
    return skipnet(**{"blocks": (1, 2), "filters": (4, 4), **arguments})


def _sgd(rate=0.1, momentum=0.0):
    return skipnet_tf.optimizers.SGD(rate, momentum=momentum, l2=0.0)


def _fit(model, steps=1, **arguments):
    """Each step sees the same batch of eight images."""
    arguments = {"epochs": steps, "shuffle": False, **arguments}
    return model.fit(_IMAGES[:8], _LABELS[:8], 8, verbose=0, **arguments)


def _same(one, other, **tolerance):
    pairs = list(zip(one.get_weights(), other.get_weights(), strict=True))
    if not tolerance:
        return all(np.array_equal(a, b) for a, b in pairs)
    return all(np.allclose(a, b, **tolerance) for a, b in pairs)


_ROUTE = {"executed_blocks", "multiply_adds"}
_LOGGED = {"loss", "accuracy"} | _ROUTE
_SAMPLED = {"policy_loss", "mean_reward"}


@pytest.mark.parametrize(
    ("stage", "logged", "validated"),
    [
        (skipnet_tf.Supervised(), _LOGGED, _LOGGED),
        (
            skipnet_tf.HybridReinforce(),
            _LOGGED | _SAMPLED,
            _LOGGED | {"sampled_accuracy"},
        ),
        (
            skipnet_tf.Reinforce(),
            _LOGGED | _SAMPLED,
            _LOGGED | {"sampled_accuracy"},
        ),
    ],
)
def test_every_stage_logs_what_it_measures(stage, logged, validated):
    model = _network()
    # Eagerly where the graph would be that of the stage before.
    eagerly = isinstance(stage, skipnet_tf.Reinforce)
    model.compile(
        _sgd(), metrics=["accuracy"], stage=stage, run_eagerly=eagerly
    )
    history = model.fit(
        _IMAGES,
        _LABELS,
        batch_size=8,
        verbose=0,
        validation_data=(_IMAGES, _LABELS),
        validation_batch_size=8,
    ).history
    assert set(history) == logged | {f"val_{name}" for name in validated}
    assert np.isfinite(list(history.values())).all()
    evaluated = model.evaluate(_IMAGES, _LABELS, verbose=0, return_dict=True)
    assert set(evaluated) == validated
    # Validation runs by the thresholded policy, and gates start open.
    routed = model.route(_IMAGES)
    assert evaluated["executed_blocks"] == pytest.approx(
        (np.mean(np.sum(routed["gates"], 1)) + 1) / 3
    )
    dense = skipnet_tf.flops.count(model, (4, 4, 3)).dense
    assert evaluated["multiply_adds"] == pytest.approx(
        np.mean(routed["macs"]) / dense, rel=1e-6
    )
    logits = model.predict(_IMAGES, verbose=0)
    np.testing.assert_allclose(logits, routed["logits"], rtol=1e-4, atol=1e-5)
    assert evaluated["accuracy"] == pytest.approx(
        np.mean(np.argmax(logits, 1) == _LABELS)
    )


def test_a_hybrid_step_follows_its_equations():
    model = _network()
    stage = skipnet_tf.HybridReinforce(0.5, 0.8, rl_weight=1.5, seed=3)
    model.compile(_sgd(0.1), stage=stage)
    start = model.get_weights()
    with tf.GradientTape() as tape:
        routed = model.route(_IMAGES[:8], training=True)
        surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(
            _LABELS[:8], routed["logits"]
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
    history = _fit(model).history
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
    model = _network()
    stage = skipnet_tf.HybridReinforce(**_HYBRID)
    model.compile(_sgd(), stage=stage)
    start, results = model.get_weights(), []
    compiled = None
    for alpha in (0.5, 8.0, 0.5):
        model.set_weights(start)
        model.optimizer.iterations.assign(0)
        stage.alpha.assign(alpha)
        _fit(model)
        results.append(model.gates[0].recurrence.decision.bias.numpy())
        assert compiled in (None, model.train_function)
        compiled = model.train_function
    assert not np.allclose(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_training_goes_on_from_a_file_saved_in_the_middle(tmp_path):
    model = _network()
    model.compile(
        _sgd(momentum=0.9),
        metrics=["accuracy"],
        stage=skipnet_tf.HybridReinforce(**_HYBRID, seed=7),
    )
    _fit(model, 2)
    model.stage.alpha.assign(0.25)
    model.save(tmp_path / "middle.keras")
    loaded = keras.saving.load_model(tmp_path / "middle.keras")
    assert type(loaded.stage) is skipnet_tf.HybridReinforce
    assert float(loaded.stage.alpha) == 0.25
    assert loaded.stage.seed == 7
    assert int(loaded.optimizer.iterations) == 2
    assert _same(model, loaded)
    middle = loaded.get_weights()
    for network in (model, loaded):
        _fit(network, 2)
    assert _same(model, loaded, atol=1e-6)
    assert not np.allclose(middle[0], loaded.get_weights()[0], atol=1e-5)


def test_weights_move_from_stage_to_stage(tmp_path):
    first = _network()
    first.compile(_sgd(), stage=skipnet_tf.Supervised())
    _fit(first)
    first.save_weights(tmp_path / "supervised.weights.h5")
    second = _network()
    second.compile(_sgd(), stage=skipnet_tf.HybridReinforce(**_HYBRID))
    assert not _same(first, second)
    second.load_weights(tmp_path / "supervised.weights.h5")
    assert _same(first, second)
    # In one network, the stage changes by compiling again.
    second.compile(_sgd(), stage=skipnet_tf.Supervised())
    assert _same(first, second)


def test_a_dense_networks_weights_move_into_the_backbone(tmp_path):
    dense = skipnet_tf.ResNet((1, 2), (4, 4), num_classes=3)
    dense.compile(_sgd(), metrics=["accuracy"])
    history = _fit(dense).history
    assert set(history) == {"loss", "accuracy"}
    dense.save_weights(tmp_path / "dense.weights.h5")
    gated = _network()
    gated.backbone.load_weights(tmp_path / "dense.weights.h5")
    assert _same(dense, gated.backbone)
    opened = gated.route(_IMAGES, actions=np.ones((16, 2)))["logits"]
    np.testing.assert_allclose(opened, dense(_IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "categorical_crossentropy",
        keras.losses.SparseCategoricalCrossentropy(),
        keras.losses.CategoricalCrossentropy(from_logits=False),
        keras.losses.sparse_categorical_crossentropy,
    ],
)
def test_losses_on_probabilities_are_refused(loss):
    for model in (_network(), skipnet_tf.ResNet((1, 1), (4, 4))):
        with pytest.raises(ValueError, match="`loss`.*from_logits=True"):
            model.compile("sgd", loss=loss)


def test_a_stage_that_is_none_is_refused():
    with pytest.raises(ValueError, match="`stage`.*Received: stage='hrl'"):
        _network().compile("sgd", stage="hrl")


@pytest.mark.parametrize("bad", [3, -1])
def test_labels_out_of_range_name_the_number_of_classes(bad):
    model = _network()
    model.compile(_sgd(), stage=skipnet_tf.Supervised(), run_eagerly=True)
    wrong = _LABELS.copy()
    wrong[5] = bad
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="3 classes"):
            run(_IMAGES, wrong, verbose=0)


def test_one_hot_labels_train_like_class_numbers():
    results = []
    start = _network().get_weights()
    for loss, targets in (
        (None, _LABELS),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True),
            np.eye(3, dtype="float32")[_LABELS],
        ),
    ):
        model = _network()
        model.set_weights(start)
        model.compile(
            _sgd(),
            loss=loss,
            metrics=["accuracy"],
            stage=skipnet_tf.HybridReinforce(**_HYBRID),
            run_eagerly=True,
        )
        model.fit(_IMAGES, targets, 16, verbose=0, shuffle=False)
        results.append(model)
    assert _same(*results, atol=1e-6)


def test_pure_reinforcement_gets_no_gradient_of_the_cross_entropy():
    model = _network()
    start = [v.numpy() for v in model.trainable_variables]
    for beta in (0.0, 1.0):
        stage = skipnet_tf.Reinforce(alpha=0.0, beta=beta)
        model.compile(_sgd(), stage=stage, run_eagerly=True)
        _fit(model)
        same = [
            np.array_equal(old, new)
            for old, new in zip(start, model.trainable_variables)
        ]
        # Nothing is left to learn from without a reward.
        assert all(same) if beta == 0 else not any(same[:3])


def test_random_skipping_trains_the_blocks_and_leaves_the_gates():
    model = _network()
    gates = [w.numpy() for g in model.gates for w in g.trainable_variables]
    stem = model.backbone.stem_conv.kernel.numpy()
    model.compile(
        _sgd(), stage=skipnet_tf.Supervised("random", 0.5), run_eagerly=True
    )
    _fit(model)
    after = [w for g in model.gates for w in g.trainable_variables]
    for old, new in zip(gates, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert not np.array_equal(stem, model.backbone.stem_conv.kernel)


class Imposed(skipnet_tf.SkipNet):
    """Decisions read off the image, so that they travel with their row."""

    def route_with(self, images, policy_, training=False):
        actions = tf.cast(images[:, 0, 0, : len(self.gates)] > 0, tf.float32)
        return super().route_with(images, policy.Forced(actions), training)


def _imposed():
    model = Imposed((1, 2), (4, 4), num_classes=3)
    # beta 2 and a batch of two halves: a policy loss that was summed instead
    # of averaged over replicas would show.
    stage = skipnet_tf.HybridReinforce(2.0, 2.0, rl_weight=1.0)
    model.compile(_sgd(0.05, momentum=0.9), metrics=["accuracy"], stage=stage)
    return model


def test_two_replicas_train_to_the_weights_of_one():
    single = _imposed()
    strategy = two_replicas()
    with strategy.scope():
        mirrored = _imposed()
    mirrored.set_weights(single.get_weights())
    start = single.get_weights()
    one, two = (_fit(model, 3).history for model in (single, mirrored))
    assert 0 < (_IMAGES[:8, 0, 0, :2] > 0).mean() < 1
    # Moving statistics too: batch normalisation is synchronised.
    for old, ours, theirs in zip(
        start, single.get_weights(), mirrored.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
        assert not np.array_equal(old, ours) or ours.dtype.kind == "i"
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4)
    for variable in mirrored.variables:
        copies = strategy.experimental_local_results(variable.value)
        assert len(copies) == 2
        np.testing.assert_array_equal(*copies)


def test_replicas_draw_decisions_of_their_own():
    strategy = two_replicas()
    with strategy.scope():
        model = _network()
        model.compile(_sgd(), stage=skipnet_tf.HybridReinforce())

    @tf.function
    def draw():
        return model.stage.policy(model.step_and_seed()[1])(tf.zeros([64]), 0)

    first, second = strategy.experimental_local_results(strategy.run(draw))
    assert not np.array_equal(first, second)
    assert 0 < np.mean(first) < 1


def test_xla_takes_the_same_supervised_step():
    results = []
    start = _network().get_weights()
    for arguments in ({"run_eagerly": True}, {"jit_compile": True}):
        model = _network()
        model.set_weights(start)
        model.compile(_sgd(), stage=skipnet_tf.Supervised(), **arguments)
        _fit(model)
        results.append(model)
    assert _same(*results, rtol=1e-3, atol=1e-5)


def test_a_conditional_step_is_a_masked_one_where_all_blocks_run():
    results = []
    start = _network().get_weights()
    for execution in ("masked", "conditional"):
        model = _network()
        model.set_weights(start)
        # Log-odds of 30: samples are ones.
        model.gates[0].recurrence.decision.bias.assign([30.0])
        stage = skipnet_tf.HybridReinforce(**_HYBRID, execution=execution)
        model.compile(_sgd(), stage=stage)
        assert _fit(model, 2).history["executed_blocks"] == [1.0, 1.0]
        results.append(model)
    assert _same(*results, atol=1e-5)


def test_a_conditional_step_leaves_closed_blocks_alone():
    model = _network()
    model.gates[0].recurrence.decision.bias.assign([-30.0])
    model.compile(
        _sgd(), stage=skipnet_tf.HybridReinforce(execution="conditional")
    )
    first, *others = model.backbone.blocks
    start = [[w.numpy() for w in b.weights] for b in (first, *others)]
    executed = _fit(model, 2).history["executed_blocks"]
    assert executed == pytest.approx([1 / 3, 1 / 3])
    for block, weights in zip(others, start[1:], strict=True):
        for now, before in zip(block.weights, weights, strict=True):
            # The shortcut's projection runs for all.
            same = np.array_equal(now, before)
            assert same == ("projection" not in now.path), now.path
    assert not np.array_equal(first.weights[0], start[0][0])


@pytest.mark.parametrize("where", ["XLA", "replicas"])
def test_what_cannot_skip_in_training_says_why(where, caplog):
    scope = contextlib.nullcontext()
    if where == "replicas":
        scope = two_replicas().scope()
    with scope:
        model = _network()
    for execution in ("masked", "conditional"):
        assert not caplog.records  # masked is as asked for
        stage = skipnet_tf.HybridReinforce(execution=execution)
        model.compile(_sgd(), stage=stage, jit_compile=where == "XLA")
        assert model.training_execution == "masked"
    assert where in caplog.text


@pytest.mark.slow
def test_xla_compiles_a_hybrid_step():
    # XLA draws other numbers from the same seed: nothing to compare.
    model = _network()
    stage = skipnet_tf.HybridReinforce(**_HYBRID)
    model.compile(_sgd(), stage=stage, jit_compile=True)
    start = model.get_weights()
    history = _fit(model).history
    assert np.isfinite(list(history.values())).all()
    assert not np.array_equal(start[0], model.get_weights()[0])


@pytest.mark.parametrize("gate", ["rnn", "ff2"])
def test_half_precision_trains_in_float32_where_it_matters(gate):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = _network(gate=gate)
    model.compile(_sgd(), stage=skipnet_tf.HybridReinforce(**_HYBRID))
    start = model.get_weights()
    history = _fit(model, 2).history
    assert np.isfinite(list(history.values())).all()
    routed = model.route(_IMAGES)
    for key in ("logits", "gate_logits", "probabilities", "gates"):
        assert routed[key].dtype == tf.float32
    features = model.backbone.stem(_IMAGES)
    assert features.dtype == tf.bfloat16
    for variable in model.trainable_variables:
        assert variable.dtype == "float32"
        assert np.isfinite(variable).all()
    assert not np.array_equal(start[0], model.get_weights()[0])


def test_several_steps_per_execution_are_the_same_steps():
    results = []
    start = _network().get_weights()
    for steps in (1, 2):
        model = _network()
        model.set_weights(start)
        model.compile(
            _sgd(),
            stage=skipnet_tf.HybridReinforce(**_HYBRID),
            steps_per_execution=steps,
        )
        model.fit(_IMAGES, _LABELS, 8, verbose=0, shuffle=False)
        results.append(model)
    assert int(results[1].optimizer.iterations) == 2
    assert _same(*results, atol=1e-6)


def test_the_base_class_is_for_networks_with_and_without_gates():
    assert issubclass(skipnet_tf.ResNet, training.Classifier)
    assert issubclass(skipnet_tf.SkipNet, training.StagedClassifier)
