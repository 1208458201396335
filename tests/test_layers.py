"""Convolution and batch normalisation, number by number."""

import numpy as np
import pytest
from cases import images

from skipnet_tf import layers


def _convolved(inputs, kernel, stride):
    """A convolution in loops that pads half its kernel on every side."""
    margin = kernel.shape[0] // 2
    around = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded = np.pad(inputs, around)
    size = kernel.shape[0]
    rows = range(0, inputs.shape[1], stride)
    columns = range(0, inputs.shape[2], stride)
    return np.stack(
        [
            np.stack(
                [
                    np.tensordot(
                        padded[:, top : top + size, left : left + size],
                        kernel,
                        axes=3,
                    )
                    for left in columns
                ],
                axis=1,
            )
            for top in rows
        ],
        axis=1,
    )


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 2)])
@pytest.mark.parametrize(
    ("kernel", "strides"), [(3, 1), (3, 2), (1, 1), (1, 2), (7, 2)]
)
def test_convolutions_pad_half_their_kernel_on_every_side(
    kernel, strides, size
):
    layer = layers.Convolution(4, kernel, strides)
    inputs = images(2, *size, 3)
    outputs = layer(inputs)
    expected = _convolved(inputs, layer.kernel.numpy(), strides)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    # One product for each pixel, kernel position, input and output channel.
    _, height, width, filters = expected.shape
    by_hand = height * width * kernel * kernel * 3 * filters
    assert layer.multiply_adds(*size) == by_hand


def test_convolutions_start_with_the_published_variance():
    layer = layers.Convolution(64, 3)
    layer.build((None, None, None, 64))
    # sqrt(2 / (3 * 3 * 64)) = 0.0589; 36,864 draws: 1 % is 2.7 deviations.
    assert np.std(layer.kernel) == pytest.approx(0.0589, rel=0.015)
    assert np.abs(layer.kernel).max() > 3 * 0.0589  # not truncated


def test_batch_normalization_by_hand():
    # One channel: 1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5,
    # unbiased 14 / 3.
    layer = layers.BatchNormalization()
    inputs = np.array([1, 2, 3, 6], "float32").reshape(2, 2, 1, 1)
    outputs = layer(inputs, training=True)
    expected = (inputs - 3) / np.sqrt(3.5 + 1e-5)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)
    # Momentum 0.9 from 0 and 1: 0.1 * 3 and 0.9 + 0.1 * 14 / 3.
    np.testing.assert_allclose(layer.moving_mean, [0.3], rtol=1e-6)
    np.testing.assert_allclose(
        layer.moving_variance, [0.9 + 1.4 / 3], rtol=1e-6
    )


def test_batch_normalization_uses_moving_statistics_at_inference():
    layer = layers.BatchNormalization()
    layer.build((None, None, None, 2))
    layer.gamma.assign([2, 3])
    layer.beta.assign([1, -1])
    layer.moving_mean.assign([4, 5])
    layer.moving_variance.assign([9, 16])
    before = layer.get_weights()
    inputs = np.array([[[[7, 1]]]], "float32")
    # (7 - 4) / 3 * 2 + 1 and (1 - 5) / 4 * 3 - 1
    np.testing.assert_allclose(layer(inputs)[0, 0, 0], [3, -4], rtol=1e-5)
    for old, new in zip(before, layer.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_frozen_batch_normalization_trains_as_it_infers():
    layer = layers.BatchNormalization()
    layer.build((None, None, None, 1))
    layer.moving_mean.assign([4])
    inputs = np.array([1, 2, 3, 6], "float32").reshape(2, 2, 1, 1)
    layer.trainable = False
    outputs = layer(inputs, training=True)
    # The moving variance is 1 to begin with.
    np.testing.assert_allclose(outputs, inputs - 4, rtol=1e-4)
    np.testing.assert_array_equal(layer.moving_mean, [4])


def test_scale_and_offset_are_batch_normalization_at_inference():
    layer = layers.BatchNormalization()
    layer.build((None, None, None, 2))
    layer.set_weights(np.array([[2, 3], [1, -1], [4, 5], [9, 16]]))
    scale, offset = layer.scale_and_offset()
    # (x - 4) / 3 * 2 + 1 and (x - 5) / 4 * 3 - 1; 1e-5 is added to 9 and 16.
    np.testing.assert_allclose(scale, [2 / 3, 3 / 4], rtol=1e-5)
    np.testing.assert_allclose(offset, [-5 / 3, -19 / 4], rtol=1e-5)
    assert scale.dtype == offset.dtype == np.float64


def test_a_single_pixel_has_no_variance_and_stays_finite():
    layer = layers.BatchNormalization()
    outputs = layer(np.full((1, 1, 1, 2), 5, "float32"), training=True)
    np.testing.assert_array_equal(outputs, np.zeros((1, 1, 1, 2)))
    assert np.isfinite(layer.moving_variance).all()
