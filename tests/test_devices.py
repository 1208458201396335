"""Training on several replicas, by XLA and in half precision."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import two_replicas
from training_cases import HYBRID
from training_cases import IMAGES
from training_cases import LABELS
from training_cases import fit
from training_cases import network
from training_cases import same
from training_cases import sgd

import skipnet_tf
from skipnet_tf import distillation
from skipnet_tf import policy


class Imposed(skipnet_tf.SkipNet):
    """Decisions read off the image, so that they travel with their row."""

    def route_with(self, images, policy_, training=False):
        actions = tf.cast(images[:, 0, 0, : len(self.gates)] > 0, tf.float32)
        return super().route_with(images, policy.Forced(actions), training)


def _imposed(blocks=(1, 2), gate="rnn", **arguments):
    model = Imposed(blocks, (4, 4), num_classes=3, gate=gate)
    # beta 2 and a batch of two halves: a policy loss that was summed instead
    # of averaged over replicas would show.
    stage = skipnet_tf.HybridReinforce(2.0, 2.0, rl_weight=1.0)
    model.compile(
        sgd(0.05, momentum=0.9),
        metrics=["accuracy"],
        stage=stage,
        **arguments,
    )
    return model


def _accumulating(**arguments):
    """An imposed network in micro-batches under a teacher, always the same."""
    teacher = skipnet_tf.ResNet((1, 1), (4, 4), num_classes=3)
    random = np.random.default_rng(0)
    teacher.set_weights(
        [random.uniform(0.5, 1.0, w.shape) for w in teacher.get_weights()]
    )
    return _imposed(
        (1, 1),
        "pool",
        gradient_accumulation=2,
        distillation=distillation.Distillation(teacher),
        **arguments,
    )


@pytest.mark.parametrize(
    ("make", "order"),
    [
        (_imposed, range(8)),
        # The second micro-batch is the last half of each replica's rows.
        pytest.param(
            _accumulating,
            [0, 1, 4, 5, 2, 3, 6, 7],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_replicas_train_to_the_weights_of_one(make, order):
    single = make(run_eagerly=True)
    strategy = two_replicas()
    with strategy.scope():
        mirrored = make()
    mirrored.set_weights(single.get_weights())
    start = single.get_weights()
    two = fit(mirrored, 3).history
    order = np.array(order)
    one = single.fit(
        IMAGES[order], LABELS[order], 8, 3, verbose=0, shuffle=False
    ).history
    assert 0 < (IMAGES[:8, 0, 0, :2] > 0).mean() < 1
    # Moving statistics too: batch normalisation is synchronised.
    for old, ours, theirs in zip(
        start, single.get_weights(), mirrored.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
        assert not np.array_equal(old, ours) or ours.dtype.kind == "i"
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4)
    for variable in mirrored.variables:
        copies = strategy.experimental_local_results(variable.value)
        assert len(copies) == 2
        np.testing.assert_array_equal(*copies)


def test_validation_needs_no_other_replica(monkeypatch):
    """A worker may so run out of batches before the others do."""

    def refuse(*_, **__):
        raise AssertionError("replicas met")

    strategy = two_replicas()
    with strategy.scope():
        model = _imposed(run_eagerly=True)
    batch = tf.constant(IMAGES[:2]), tf.constant(LABELS[:2])
    with monkeypatch.context() as patch:
        patch.setattr(tf.distribute.ReplicaContext, "all_reduce", refuse)
        patch.setattr(tf.distribute.ReplicaContext, "merge_call", refuse)
        logs = strategy.run(model.test_step, args=(batch,))
        with pytest.raises(AssertionError, match="replicas met"):
            strategy.run(model.train_step, args=(batch,))
    expected = model.evaluate(
        IMAGES[:2], LABELS[:2], 2, verbose=0, return_dict=True
    )
    losses = strategy.experimental_local_results(logs["loss"])
    np.testing.assert_allclose(losses, [expected["loss"]] * 2, rtol=1e-5)


def test_replicas_draw_decisions_of_their_own():
    strategy = two_replicas()
    with strategy.scope():
        model = network()
        model.compile(sgd(), stage=skipnet_tf.HybridReinforce())

    @tf.function
    def draw():
        return model.stage.policy(model.step_and_seed()[1], None)(
            tf.zeros([64]), 0
        )

    first, second = strategy.experimental_local_results(strategy.run(draw))
    assert not np.array_equal(first, second)
    assert 0 < np.mean(first) < 1


@pytest.mark.slow
def test_xla_takes_the_same_hybrid_step():
    # Imposed, for XLA draws other numbers from the same seed.
    results = []
    start = _imposed().get_weights()
    for arguments in ({"run_eagerly": True}, {"jit_compile": True}):
        model = _imposed(**arguments)
        model.set_weights(start)
        fit(model)
        results.append(model)
    assert same(*results, rtol=1e-3, atol=1e-5)
    assert not np.array_equal(start[0], results[1].get_weights()[0])


_STAGES = {
    "base": None,
    "sp": skipnet_tf.Supervised,
    "hrl": skipnet_tf.HybridReinforce,
    "rl": skipnet_tf.Reinforce,
}


def _train(stage, **arguments):
    """Two steps of a stage; the network, which must have learnt."""
    if stage == "base":
        model = skipnet_tf.ResNet((1, 2), (4, 4), num_classes=3)
    else:
        model = network()
        arguments["stage"] = _STAGES[stage]()
    model.compile(sgd(), metrics=["accuracy"], **arguments)
    start = model.get_weights()
    history = fit(model, 2).history
    assert np.isfinite(list(history.values())).all()
    assert int(model.optimizer.iterations) == 2
    for before, after in zip(start, model.get_weights()):
        assert np.isfinite(after).all()
    # The stem, the first of the weights, learns in every stage.
    assert not np.array_equal(start[0], model.get_weights()[0])
    return model


@pytest.mark.slow
@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("stage", _STAGES)
def test_xla_compiles_every_stage(stage, accumulated):
    model = _train(stage, jit_compile=True, gradient_accumulation=accumulated)
    assert model.jit_compile


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("stage", _STAGES)
def test_every_stage_trains_in_half_precision(stage, precision):
    keras.config.set_dtype_policy(precision)
    model = _train(stage, run_eagerly=True, gradient_accumulation=2)
    scaled = hasattr(model.optimizer, "inner_optimizer")
    assert scaled == (precision == "mixed_float16")
    assert {v.dtype for v in model.trainable_variables} == {"float32"}


class Overflowing(skipnet_tf.ResNet):
    """Has one infinite gradient, on the second replica alone."""

    def _gradients(self, batch, part):
        gradients, logs = super()._gradients(batch, part)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        factor = tf.where(replica == 1, float("inf"), 1.0)
        return [*gradients[:-1], gradients[-1] * factor], logs


def test_an_overflow_on_one_replica_stops_the_step_of_all():
    keras.config.set_dtype_policy("mixed_float16")
    with two_replicas().scope():
        model = Overflowing((1, 1), (4, 4), num_classes=3)
        model.compile(sgd())
    start = [w.numpy() for w in model.trainable_variables]
    scale = float(model.optimizer.dynamic_scale.numpy())
    fit(model)
    for before, after in zip(start, model.trainable_variables):
        np.testing.assert_array_equal(before, after.numpy())
    assert float(model.optimizer.dynamic_scale.numpy()) == scale / 2


def test_xla_is_refused_with_several_replicas():
    with two_replicas().scope():
        model = network()
    expected = "`jit_compile` must be False.*Received: jit_compile=True and 2"
    with pytest.raises(ValueError, match=expected):
        model.compile(sgd(), jit_compile=True)


@pytest.mark.parametrize("where", ["XLA", "replicas"])
def test_what_cannot_skip_in_training_says_why(where, caplog):
    scope = contextlib.nullcontext()
    if where == "replicas":
        scope = two_replicas().scope()
    with scope:
        model = network()
    for execution in ("masked", "conditional"):
        assert not caplog.records  # masked is as asked for
        stage = skipnet_tf.HybridReinforce(execution=execution)
        model.compile(sgd(), stage=stage, jit_compile=where == "XLA")
        assert model.training_execution == "masked"
    assert where in caplog.text


@pytest.mark.parametrize("gate", ["rnn", "ff2"])
def test_half_precision_trains_in_float32_where_it_matters(gate):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = network(gate=gate)
    model.compile(sgd(), stage=skipnet_tf.HybridReinforce(**HYBRID))
    start = model.get_weights()
    history = fit(model, 2).history
    assert np.isfinite(list(history.values())).all()
    routed = model.route(IMAGES)
    for key in ("logits", "gate_logits", "probabilities", "gates"):
        assert routed[key].dtype == tf.float32
    features = model.backbone.stem(IMAGES)
    assert features.dtype == tf.bfloat16
    for variable in model.trainable_variables:
        assert variable.dtype == "float32"
        assert np.isfinite(variable).all()
    assert not np.array_equal(start[0], model.get_weights()[0])
