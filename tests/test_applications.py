"""The ResNets of `keras.applications` as ours."""

import keras
import numpy as np
import pytest
from cases import images
from cases import trained
from keras.src.applications import resnet as applications

import skipnet_tf
from skipnet_tf import interop
from skipnet_tf.resnet import ResNet


def _application():
    """Two groups of a network of `keras.applications`, weights redrawn."""

    def stacks(x):
        x = applications.stack_residual_blocks_v1(x, 64, 2, 1, "conv2")
        return applications.stack_residual_blocks_v1(x, 4, 1, 2, "conv3")

    network = applications.ResNet(
        stacks,
        preact=False,
        use_bias=True,
        weights=None,
        input_shape=(32, 32, 3),
        classes=5,
        classifier_activation=None,
    )
    return trained(network, None)


def _ours(gate=None, classes=5, **arguments):
    arguments = {
        "blocks": (2, 1),
        "filters": (64, 4),
        "bottleneck": True,
        "stem": "imagenet",
        "num_classes": classes,
        "stride_on": "1x1",
        **arguments,
    }
    if gate:
        return skipnet_tf.SkipNet(gate=gate, **arguments)
    return ResNet(**arguments)


@pytest.fixture(scope="module")
def application():
    return _application()


@pytest.mark.parametrize("gate", [None, "ff1"])
def test_logits_of_a_keras_application_are_reproduced(application, gate):
    model, pixels = _ours(gate), images(3, 32, 32, 3)
    interop.load_keras_weights(model, application)
    expected = application(pixels)
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-4, atol=1e-4)
    interop.load_keras_weights(model, application, rgb=True)
    reversed_ = np.ascontiguousarray(pixels[..., ::-1])
    np.testing.assert_allclose(model(reversed_), expected, 1e-4, 1e-4)


@pytest.mark.slow
def test_logits_of_resnet50_are_reproduced():
    application = trained(
        keras.applications.ResNet50(weights=None, classifier_activation=None),
        None,
    )
    model = skipnet_tf.imagenet_resnet(50, stride_on="1x1")
    interop.load_keras_weights(model, application)
    pixels = images(2, 224, 224, 3)
    expected = application(pixels).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        model(pixels) / scale, expected / scale, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"stride_on": "3x3"}, "`model`.*stride_on=.1x1.*Received: "),
        ({"blocks": (1, 2)}, r"`application`.*\[1, 2\].*Received: .*\[2, 1\]"),
        ({"classes": 4}, "`application`.*5 classes.*has 4"),
        ({"filters": (64, 8)}, "`application`.*shape.*expected"),
    ],
)
def test_another_application_is_refused(application, arguments, named):
    model = _ours(**arguments)
    before = model.get_weights()
    with pytest.raises(ValueError, match=named):
        interop.load_keras_weights(model, application)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_application_can_lend_all_but_its_classifier(application):
    model = _ours(classes=4)
    interop.load_keras_weights(model, application, new_classifier=True)
    kernel = application.get_layer("conv1_conv").kernel
    np.testing.assert_array_equal(model.stem_conv.kernel, kernel)
