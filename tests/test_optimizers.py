"""SGD with L2 regularisation inside the momentum, and moving averages."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
from cases import skipnet
from cases import two_replicas

import skipnet_tf
from skipnet_tf import optimizers
from skipnet_tf import schedules


def test_l2_enters_the_momentum():
    # w = 1, gradient 0.5 each step, l2 0.1, momentum 0.9, rate 0.2.
    # g = 0.5 + 0.1 * 1 = 0.6       v = 0.6                w = 1 - 0.12 = 0.88
    # g = 0.5 + 0.1 * 0.88 = 0.588  v = 0.54 + 0.588 = 1.128
    #                                                w = 0.88 - 0.2256 = 0.6544
    weight = keras.Variable([1.0])
    optimizer = optimizers.SGD(0.2, momentum=0.9, l2=0.1)
    for expected in (0.88, 0.6544):
        optimizer.apply([np.array([0.5], "float32")], [weight])
        np.testing.assert_allclose(weight, [expected], rtol=1e-6)


def test_nesterov_looks_ahead_along_the_regularised_gradient():
    # g = 0.6 as above, v = 0.6; w = 1 - 0.2 * (0.6 + 0.9 * 0.6) = 0.772
    weight = keras.Variable([1.0])
    optimizer = optimizers.SGD(0.2, momentum=0.9, nesterov=True, l2=0.1)
    optimizer.apply([np.array([0.5], "float32")], [weight])
    np.testing.assert_allclose(weight, [0.772], rtol=1e-6)


def test_the_defaults_are_the_papers():
    config = optimizers.SGD().get_config()
    assert config["l2"] == 1e-4
    assert config["momentum"] == 0.9
    assert config["learning_rate"] == pytest.approx(0.1)
    assert config["nesterov"] is False


@pytest.mark.parametrize("argument", ["l2", "gate_rate", "gate_l2"])
def test_negative_numbers_are_refused(argument):
    with pytest.raises(ValueError, match=f"`{argument}`.*d: {argument}=-1"):
        optimizers.SGD(**{argument: -1.0})


def test_gates_have_a_learning_rate_and_a_regularisation_of_their_own():
    with keras.name_scope("block1_gate"):
        gate = keras.Variable([1.0])
    weight = keras.Variable([1.0])
    optimizer = optimizers.SGD(0.2, l2=0.1, gate_rate=0.5, gate_l2=0.0)
    gradient = np.array([0.5], "float32")
    optimizer.apply([gradient, gradient], [gate, weight])
    # 1 - 0.2 * 0.5 * 0.5, and 1 - 0.2 * (0.5 + 0.1).
    np.testing.assert_allclose(gate, [0.95], rtol=1e-6)
    np.testing.assert_allclose(weight, [0.88], rtol=1e-6)


@pytest.mark.parametrize("gate", skipnet_tf.skipnet.GATES)
def test_all_weights_of_gates_are_found(gate):
    model = skipnet(gate=gate)
    optimizer = optimizers.SGD(0.1, l2=0.0, gate_rate=0.0)
    before = [weight.numpy() for weight in model.trainable_variables]
    ones = [np.ones_like(weight) for weight in before]
    optimizer.apply(ones, model.trainable_variables)
    of_gates = {
        id(weight)
        for each in model.gates
        for weight in each.trainable_variables
    } - {id(weight) for weight in model.backbone.weights}  # the classifier
    for weight, old in zip(model.trainable_variables, before, strict=True):
        stays = np.array_equal(weight, old)
        assert stays == (id(weight) in of_gates), weight.path


def test_optimizers_survive_serialisation():
    rate = schedules.WarmUp(schedules.cosine(0.3, 10), 2)
    optimizer = optimizers.SGD(
        rate,
        momentum=0.5,
        nesterov=True,
        l2=0.25,
        use_ema=True,
        ema_momentum=0.75,
        gate_rate=0.5,
        gate_l2=0.0,
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is optimizers.SGD
    assert again.l2 == 0.25
    assert again.use_ema is True
    assert again.ema_momentum == 0.75
    assert again.get_config() == optimizer.get_config()


_INPUTS = np.array([[1.0, 2.0], [3.0, -1.0]], "float32")
_TARGETS = np.array([[1.0], [0.0]], "float32")


def _line(**arguments):
    """A linear model whose optimizer moves its averages by a quarter."""
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, dtype="float32")]
    )
    arguments = {"use_ema": True, "ema_momentum": 0.75, **arguments}
    optimizer = optimizers.SGD(0.05, momentum=0.0, l2=0.0, **arguments)
    model.compile(optimizer, loss="mse", jit_compile=False)
    return model


def test_averages_follow_the_weights():
    # Gradient 0.5 and rate 0.2: the weight goes 1, 0.9, 0.8, 0.7.
    # Average 0.9, 0.75 * 0.9 + 0.25 * 0.8 = 0.875,
    # 0.75 * 0.875 + 0.25 * 0.7 = 0.83125.
    weight = keras.Variable([1.0])
    optimizer = optimizers.SGD(
        0.2, momentum=0.0, l2=0.0, use_ema=True, ema_momentum=0.75
    )
    for expected in (0.9, 0.875, 0.83125):
        optimizer.apply([np.array([0.5], "float32")], [weight])
        (average,) = (v for v in optimizer.variables if "average" in v.path)
        np.testing.assert_allclose(average, [expected], rtol=1e-6)
    np.testing.assert_allclose(weight, [0.7], rtol=1e-6)


@pytest.mark.parametrize(
    ("replicas", "precision"),
    [
        (1, "float32"),
        pytest.param(2, "mixed_float16", marks=pytest.mark.slow),
        pytest.param(1, "mixed_float16", marks=pytest.mark.slow),
        pytest.param(2, "float32", marks=pytest.mark.slow),
    ],
)
def test_fit_keeps_the_weights_and_validates_their_averages(
    replicas, precision
):
    keras.config.set_dtype_policy(precision)
    scope = two_replicas().scope() if replicas == 2 else nullcontext()
    with scope:
        model = _line()
    assert hasattr(model.optimizer, "inner_optimizer") == (
        precision == "mixed_float16"
    )
    weights, average = [], None
    for _ in range(3):
        history = model.fit(
            _INPUTS,
            _TARGETS,
            verbose=0,
            shuffle=False,
            validation_data=(_INPUTS, _TARGETS),
            callbacks=[keras.callbacks.SwapEMAWeights()],
        ).history
        weights.append(model.get_weights())
        average = [
            new if average is None else 0.75 * old + 0.25 * new
            for old, new in zip(average or weights[0], weights[-1])
        ]
    # Without what `fit` would overwrite, the weights are plain SGD's.
    plain = _line(use_ema=False)
    plain.set_weights(weights[0])
    plain.fit(_INPUTS, _TARGETS, epochs=2, verbose=0, shuffle=False)
    for ours, theirs in zip(weights[-1], plain.get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    optimizers.assign_averages(model)
    for ours, expected in zip(model.get_weights(), average):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    # What the callback let validation see.
    loss = np.mean((_INPUTS @ average[0] + average[1] - _TARGETS) ** 2)
    np.testing.assert_allclose(history["val_loss"], [loss], rtol=1e-4)


def test_averages_are_saved_with_the_optimizer(tmp_path):
    model = _line()
    model.fit(_INPUTS, _TARGETS, epochs=3, verbose=0)
    model.save(tmp_path / "line.keras")
    loaded = keras.saving.load_model(tmp_path / "line.keras")
    for each in (model, loaded):
        before = each.get_weights()
        optimizers.assign_averages(each)
        assert not np.array_equal(before[0], each.get_weights()[0])
    for ours, theirs in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_there_must_be_averages_to_assign():
    model = _line(use_ema=False)
    with pytest.raises(ValueError, match="Received: use_ema=False"):
        optimizers.assign_averages(model)
    model = _line()
    with pytest.raises(ValueError, match="after 0 steps"):
        optimizers.assign_averages(model)
    with pytest.raises(ValueError, match="`ema_momentum`.*Received"):
        optimizers.SGD(use_ema=True, ema_momentum=1.5)
