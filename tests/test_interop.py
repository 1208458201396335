"""Weights of published SkipNets, PyTorch's and Keras's ResNets."""

import json
import pathlib

import numpy as np
import pytest
from cases import skipnet
from golden import formula

import skipnet_tf

_SHAPES = json.loads(
    (pathlib.Path(__file__).parent / "golden" / "state_dicts.json").read_text()
)


def _weights(network):
    return {
        name: formula.weight(name, tuple(shape))
        for name, shape in _SHAPES[network].items()
    }


@pytest.fixture(scope="module")
def model():
    return skipnet_tf.cifar_skipnet(38)


@pytest.fixture
def state_dict():
    return _weights("cifar10_rnn_gate_38")


@pytest.fixture(scope="module")
def expected(model):
    skipnet_tf.load_pytorch_weights(model, _weights("cifar10_rnn_gate_38"))
    return model.get_weights()


def _equal(model, expected):
    pairs = zip(model.get_weights(), expected, strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def _clear(model):
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])


def test_entries_arrive_in_our_layouts(model, state_dict, expected):
    stem = model.backbone.stem_conv.kernel.numpy()
    # (out, in, height, width) to (height, width, in, out)
    assert stem[2, 1, 0, 5] == state_dict["conv1.weight"][5, 0, 2, 1]
    classifier = model.backbone.classifier.kernel.numpy()
    assert classifier[63, 4] == state_dict["fc.weight"][4, 63]
    bias = model.gates[0].recurrence.cell.bias.numpy()
    total = (
        state_dict["control.rnn.bias_ih_l0"]
        + state_dict["control.rnn.bias_hh_l0"]
    )
    np.testing.assert_array_equal(bias, total)


def test_a_module_prefix_and_batch_counts_are_ignored(
    model, state_dict, expected
):
    given = {f"module.{name}": value for name, value in state_dict.items()}
    given["module.bn1.num_batches_tracked"] = np.array(7)
    _clear(model)
    skipnet_tf.load_pytorch_weights(model, given)
    assert _equal(model, expected)


def test_the_gate_after_the_last_block_is_ignored(model, state_dict, expected):
    last = [n for n in state_dict if n.startswith("group3_gate5.")]
    assert last
    for name in last:
        del state_dict[name]
    _clear(model)
    skipnet_tf.load_pytorch_weights(model, state_dict)
    assert _equal(model, expected)


def test_of_two_copies_of_a_projection_downsample_wins(
    model, state_dict, expected
):
    copies = [n for n in state_dict if "_ds" in n]
    assert len(copies) >= 10
    for name in copies:
        state_dict[name] = np.full_like(state_dict[name], 9)
    for given in (state_dict, dict(reversed(state_dict.items()))):
        _clear(model)
        skipnet_tf.load_pytorch_weights(model, given)
        assert _equal(model, expected)


def test_the_other_copy_of_a_projection_is_enough(model, state_dict, expected):
    for name in [n for n in state_dict if ".downsample." in n]:
        group, rest = name.split("_layer0.downsample.")
        state_dict[f"{group}_ds0.{rest}"] = state_dict.pop(name)
    _clear(model)
    skipnet_tf.load_pytorch_weights(model, state_dict)
    assert _equal(model, expected)


def _renamed(given):
    given["group1_layer2.convolution1.weight"] = given.pop(
        "group1_layer2.conv1.weight"
    )


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda given: given.pop("fc.bias"), "missing.*fc.bias"),
        (
            lambda given: given.update(surplus=np.zeros(3)),
            "does not have.*surplus",
        ),
        (
            _renamed,
            "group1_layer2.convolution1.weight .for group1_layer2.conv1.weight",
        ),
        (
            lambda given: given.update({"fc.bias": np.zeros(100)}),
            r"shape.*fc.bias \(100,\)",
        ),
        (
            lambda given: given.update({"conv1.weight": np.zeros(16)}),
            r"shape.*conv1.weight \(16,\)",
        ),
        (
            lambda given: given.update({"control.rnn.bias_hh_l0": np.zeros(3)}),
            r"shape.*control.rnn.bias_hh_l0 \(3,\), expected \(40,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(
    model, state_dict, expected, spoil, named
):
    spoil(state_dict)
    model.set_weights(expected)
    # Another value everywhere: a partial load would show.
    state_dict = {name: value + 1 for name, value in state_dict.items()}
    with pytest.raises(ValueError, match=f"`state_dict`.*{named}"):
        skipnet_tf.load_pytorch_weights(model, state_dict)
    assert _equal(model, expected)


def test_weights_of_another_architecture_are_refused(model, expected):
    model.set_weights(expected)
    for network, named in (
        ("cifar10_rnn_gate_110", "does not have.*group1_"),
        ("cifar10_feedforward_38", "missing.*control"),
        ("resnet18", "missing"),
    ):
        given = {
            name: np.zeros(shape) for name, shape in _SHAPES[network].items()
        }
        with pytest.raises(ValueError, match=named):
            skipnet_tf.load_pytorch_weights(model, given)
    assert _equal(model, expected)


def test_a_gate_that_was_never_published_is_refused():
    with pytest.raises(ValueError, match="`model`.*Received: gate='pool'"):
        skipnet_tf.load_pytorch_weights(skipnet("pool"), {})


@pytest.mark.parametrize(
    ("network", "make"),
    [
        ("resnet18", lambda: skipnet_tf.imagenet_resnet(18)),
        ("resnet50", lambda: skipnet_tf.imagenet_resnet(50)),
    ],
)
def test_torchvisions_names_load_into_dense_networks(network, make):
    dense = make()
    given = {
        name: np.full(shape, index, "float32")
        for index, (name, shape) in enumerate(_SHAPES[network].items())
    }
    skipnet_tf.load_pytorch_weights(dense, given)
    # Every entry found its variable.
    loaded = {float(w.flat[0]) for w in dense.get_weights()}
    used = {
        float(index)
        for index, name in enumerate(given)
        if not name.endswith("num_batches_tracked")
    }
    assert loaded == used
    assert len(dense.get_weights()) == len(used)


def test_published_cifar_resnets_load_into_dense_networks():
    dense = skipnet_tf.cifar_resnet(38)
    given = _weights("cifar10_resnet_38")
    skipnet_tf.load_pytorch_weights(dense, given)
    np.testing.assert_array_equal(dense.classifier.kernel, given["fc.weight"].T)
    np.testing.assert_array_equal(
        dense.blocks[-1].norms[1].moving_variance,
        next(v for n, v in reversed(given.items()) if "running_var" in n),
    )
