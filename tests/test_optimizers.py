"""SGD with L2 regularisation inside the momentum."""

import keras
import numpy as np
import pytest

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


def test_a_negative_l2_is_refused():
    with pytest.raises(ValueError, match="`l2`.*Received: l2=-1"):
        optimizers.SGD(l2=-1.0)


def test_optimizers_survive_serialisation():
    rate = schedules.WarmUp(schedules.cosine(0.3, 10), 2)
    optimizer = optimizers.SGD(rate, momentum=0.5, nesterov=True, l2=0.25)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is optimizers.SGD
    assert again.l2 == 0.25
    assert again.get_config() == optimizer.get_config()
