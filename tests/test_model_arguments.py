"""Arguments of the networks: their checks, and their way through files."""

import inspect

import keras
import numpy as np
import pytest
from cases import GATES
from cases import divide_opinions
from cases import images
from cases import skipnet

import skipnet_tf
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet


def test_a_bad_argument_is_named():
    for name, call in {
        "gate": lambda: skipnet_tf.cifar_skipnet(38, "lstm"),
        "depth": lambda: skipnet_tf.cifar_skipnet(40),
        "stem": lambda: skipnet(stem="mnist"),
        "execution": lambda: skipnet(execution="sparse"),
        "init": lambda: skipnet(gate_init="shut"),
        "num_classes": lambda: skipnet(num_classes=0),
        "blocks": lambda: skipnet(blocks=(2, 0)),
        "filters": lambda: skipnet(filters=(4,)),
        "input_shape": lambda: skipnet(input_shape=(None, None, None)),
        "stride_on": lambda: skipnet_tf.imagenet_skipnet(18, stride_on="1x1"),
    }.items():
        with pytest.raises(ValueError, match=f"`{name}`.*Received: "):
            call()
    for call in (
        lambda: skipnet_tf.cifar_resnet(2),
        lambda: skipnet_tf.imagenet_resnet(20),
        lambda: skipnet_tf.imagenet_skipnet(35),
    ):
        with pytest.raises(ValueError, match="`depth`.*Received: "):
            call()
    with pytest.raises(ValueError, match="`gate`.*Received: "):
        skipnet("ff")  # the paper's choice needs a depth


@pytest.mark.parametrize(
    "shape", [(8, 8, 3), (2, 8, 8, 1), (2, 8, 8, 4), (2, 3, 8, 8, 3)]
)
def test_images_of_the_wrong_shape_are_refused(shape):
    model = skipnet()
    for function in (model.route, model.backbone.stem):
        with pytest.raises(ValueError, match="`images`"):
            function(np.zeros(shape, "float32"))


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 4), (3, 3), (4, 3, 1)])
def test_actions_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match="`actions`"):
        skipnet().route(images(4, 8, 8, 3), actions=np.ones(shape))


# Every argument of a dense network, none of them its default.
_BACKBONE = {
    "blocks": (1, 2),
    "filters": (4, 8),
    "bottleneck": True,
    "stem": "imagenet",
    "num_classes": 7,
    "input_shape": (40, None, 1),
    "stride_on": "1x1",
    "name": "everything",
}


def _arguments(model):
    return set(inspect.signature(type(model).__init__).parameters) - {"self"}


@pytest.mark.parametrize(
    "model",
    [
        lambda: SkipNet(
            **_BACKBONE,
            gate="ff2",
            gate_init="published",
            threshold=0.4,
            execution="masked",
        ),
        lambda: ResNet(**_BACKBONE),
    ],
)
def test_a_saved_network_keeps_every_constructor_argument(model, tmp_path):
    model = model()
    default = {
        name: parameter.default
        for name, parameter in inspect.signature(
            type(model).__init__
        ).parameters.items()
    }
    config = model.get_config()
    assert set(config) == _arguments(model)
    # Every argument differs from its default, or this would prove little.
    assert all(config[name] != default[name] for name in config)
    model.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert type(loaded) is type(model)
    assert loaded.get_config() == config
    pixels = images(3, 33, 40, 1)
    np.testing.assert_array_equal(loaded(pixels), model(pixels))
    for ours, theirs in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("gate", GATES)
def test_saved_networks_route_as_before(gate, tmp_path):
    pixels = images(4, 8, 8, 3)
    model = divide_opinions(skipnet(gate), pixels)
    model.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    expected = model.route(pixels)
    for key, value in loaded.route(pixels).items():
        np.testing.assert_array_equal(value, expected[key])


def test_all_recurrent_gates_share_one_lstm():
    model = skipnet()
    assert len({id(gate.recurrence) for gate in model.gates}) == 1
    # Before and after a copy; 3 embeddings, LSTM (3), decision (2).
    for network in (model, SkipNet.from_config(model.get_config())):
        own = [v for v in network.trainable_variables if "_gate" in v.path]
        assert len(own) == 3 * 2 + 3 + 2
