"""The published networks, held against outputs of their PyTorch code.

Weights and images come from `golden/formula.py`; the expected numbers were
computed once by the published code and are never to be regenerated.
"""

import json
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from golden import formula

import skipnet_tf
from skipnet_tf import objectives

_FOLDER = pathlib.Path(__file__).parent / "golden"
_NETWORKS = {
    "cifar10_rnn_gate_38": lambda: skipnet_tf.cifar_skipnet(38, "rnn"),
    "cifar10_feedforward_38": lambda: skipnet_tf.cifar_skipnet(38, "ff1"),
    "cifar10_feedforward_110": lambda: skipnet_tf.cifar_skipnet(110, "ff2"),
    "imagenet_rnn_gate_18": lambda: skipnet_tf.imagenet_skipnet(18, "rnn"),
}


@pytest.fixture(scope="module", params=list(_NETWORKS))
def case(request):
    """One network with its published weights and what it computes."""
    golden = dict(np.load(_FOLDER / f"{request.param}.npz"))
    shapes = json.loads((_FOLDER / "state_dicts.json").read_text())
    shapes = shapes[request.param]
    model = _NETWORKS[request.param]()
    weights = {
        name: formula.weight(name, tuple(shapes[name])) for name in shapes
    }
    skipnet_tf.load_pytorch_weights(model, weights)
    count, size = (4, 224) if "imagenet" in request.param else (8, 32)
    images = formula.images(count, size, int(golden["image_seed"]))
    case = types.SimpleNamespace(
        golden=golden, shapes=shapes, model=model, images=images
    )
    case.inference = model.route(images)
    loaded = model.get_weights()
    case.supervised = _supervised(case)
    model.set_weights(loaded)
    case.hybrid = _hybrid(case)
    model.set_weights(loaded)
    return case


def _cross_entropy(case, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        case.golden["labels"], logits
    )


def _supervised(case):
    with tf.GradientTape() as tape:
        routed = case.model.route(case.images, training=True)
        loss = tf.reduce_mean(_cross_entropy(case, routed["logits"]))
    return types.SimpleNamespace(
        routed=routed, loss=loss, gradients=_gradients(case, tape, loss)
    )


def _hybrid(case):
    alpha, beta, gamma, weight = map(float, case.golden["hrl_settings"])
    actions = case.golden["hrl_actions"]
    with tf.GradientTape() as tape:
        routed = case.model.route(case.images, training=True, actions=actions)
        surprise = _cross_entropy(case, routed["logits"])
        returns = objectives.returns(
            routed["gates"], surprise, alpha, beta, gamma
        )
        policy_loss = objectives.policy_gradient_loss(
            routed["gate_logits"], routed["gates"], returns
        )
        loss = tf.reduce_mean(surprise)
        total = loss + weight * policy_loss
    return types.SimpleNamespace(
        loss=loss,
        returns=returns,
        policy_loss=policy_loss,
        gradients=_gradients(case, tape, total),
    )


def _gradients(case, tape, loss):
    return [
        gradient.numpy()
        for gradient in tape.gradient(
            loss,
            case.model.trainable_variables,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
    ]


def _expected_gradients(case, kind):
    """The published gradients in the order and layouts of our variables.

    Loading them as if they were weights transposes them like weights. What
    the golden file does not list comes out as NaN.
    """
    listed = {
        name: case.golden.get(
            f"{kind}_grad/{name}", np.full(shape, np.nan, "float32")
        )
        for name, shape in case.shapes.items()
        # The golden files list a projection under its other name, `_ds`.
        if ".downsample." not in name
    }
    # PyTorch has two biases in its LSTM, whose gradients are equal; one is
    # listed, and weights are loaded as their sum.
    if "control.rnn.bias_hh_l0" in listed:
        listed["control.rnn.bias_hh_l0"] = np.zeros(40, "float32")
    before = case.model.get_weights()
    skipnet_tf.load_pytorch_weights(case.model, listed)
    expected = [v.numpy() for v in case.model.trainable_variables]
    case.model.set_weights(before)
    return expected


def _errors(case, kind, gradients):
    """`(path, relative error, gate?)` of every variable that is listed."""
    gates = {
        id(variable)
        for gate in case.model.gates
        for variable in gate.trainable_variables
    }
    rows = zip(
        case.model.trainable_variables,
        gradients,
        _expected_gradients(case, kind),
    )
    errors = []
    for variable, got, expected in rows:
        if np.isnan(expected).any():
            continue
        norm = np.linalg.norm(expected)
        if norm == 0:
            error = 0.0 if np.all(got == 0) else np.inf
        else:
            error = np.linalg.norm(got - expected) / norm
        errors.append((variable.path, error, id(variable) in gates))
    listed = [name for name in case.golden if name.startswith(f"{kind}_grad/")]
    assert len(errors) == len(listed) >= 10
    return errors


def test_inference_agrees_with_the_published_code(case):
    logits, golden = case.inference["logits"], case.golden
    error = np.abs(logits - golden["logits"]).max()
    assert error < 1e-4 * np.abs(golden["logits"]).max()
    probabilities = case.inference["probabilities"]
    np.testing.assert_allclose(probabilities, golden["probs"], atol=1e-5)
    np.testing.assert_array_equal(case.inference["gates"], golden["masks"])
    assert 0 < golden["masks"].mean() < 1


def test_masked_execution_gives_the_very_same_numbers(case):
    case.model.execution = "masked"
    masked = case.model.route(case.images)
    case.model.execution = "conditional"
    for key, value in case.inference.items():
        np.testing.assert_array_equal(masked[key], value)


def test_imposing_its_own_decisions_changes_nothing(case):
    own = case.inference["gates"]
    forced = case.model.route(case.images, actions=own)
    for key, value in case.inference.items():
        np.testing.assert_array_equal(forced[key], value)


def test_supervised_stage_agrees_with_the_published_code(case):
    golden, routed = case.golden, case.supervised.routed
    np.testing.assert_allclose(
        case.supervised.loss, golden["sp_loss"], rtol=1e-4
    )
    np.testing.assert_allclose(
        routed["probabilities"], golden["sp_probs"], atol=1e-5
    )
    np.testing.assert_array_equal(routed["gates"], golden["sp_masks"])


def test_supervised_gradients_agree_with_the_published_code(case):
    for path, error, _ in _errors(case, "sp", case.supervised.gradients):
        assert error < 1e-3, (path, error)


def test_hybrid_losses_agree_with_the_published_code(case):
    golden, hybrid = case.golden, case.hybrid
    np.testing.assert_allclose(hybrid.loss, golden["hrl_loss"], rtol=1e-4)
    np.testing.assert_allclose(
        hybrid.returns, golden["hrl_returns"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        hybrid.policy_loss, golden["hrl_policy_loss"], rtol=1e-4
    )


def test_hybrid_gradients_agree_with_the_published_code(case):
    # The trunk is looser: some activations lie on a ReLU's kink over whole
    # flat patches, where float32 rounding decides their side.
    for path, error, gate in _errors(case, "hrl", case.hybrid.gradients):
        assert error < (1e-4 if gate else 1e-2), (path, error)
