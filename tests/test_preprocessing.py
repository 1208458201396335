"""Normalisation, augmentation and decoding against plain numpy."""

import dataclasses
import struct

import numpy as np
import pytest
import tensorflow as tf

from skipnet_tf import image_ops
from skipnet_tf import preprocessing


def _noise(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, shape, dtype=np.uint8)


def _seed(number):
    return tf.constant([number, 0])


def _windows(image, padding):
    """Every window of the padded image, by slicing."""
    height, width, _ = image.shape
    around = ((padding, padding), (padding, padding), (0, 0))
    padded = np.pad(image, around)
    return [
        padded[top : top + height, left : left + width]
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    ]


def _position(image, candidates):
    matches = [i for i, c in enumerate(candidates) if np.array_equal(image, c)]
    assert len(matches) == 1
    return matches[0]


def test_normalisation_matches_hand_computed_numbers():
    pixels = np.array([[[0, 255, 51]]], np.uint8)
    got = preprocessing.CIFAR10.normalise(pixels)
    # (0 - .4914) / .2023, (1 - .4822) / .1994, (.2 - .4465) / .2010
    expected = [[[-2.429066, 2.596790, -1.226368]]]
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_normalisation_accepts_float_pixels_and_unknown_sizes():
    recipe = preprocessing.IMAGENET
    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    traced = tf.function(recipe.normalise, input_signature=[spec])
    pixels = _noise(2, 5, 7, 3)
    got = traced(tf.cast(pixels, tf.float32))
    expected = (pixels / 255 - recipe.mean) / recipe.std
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_digits_have_zero_mean_and_unit_deviation_after_normalisation():
    datasets = pytest.importorskip("sklearn.datasets")
    images = np.round(datasets.load_digits().images * (255 / 16))
    images = np.repeat(images[..., None], 3, axis=-1)
    got = preprocessing.DIGITS.normalise(images).numpy()
    assert abs(got.mean()) < 1e-3
    assert abs(got.std() - 1) < 1e-3


def test_every_cifar_augmentation_is_a_window_of_the_black_padded_image():
    images = _noise(300, 32, 32, 3)
    got = preprocessing.CIFAR10.augment(images, _seed(3)).numpy()
    windows, mirrored = [], 0
    for image, augmented in zip(images, got):
        straight = _windows(image, 4)
        candidates = straight + [window[:, ::-1] for window in straight]
        drawn = _position(augmented, candidates)
        mirrored += drawn >= 81
        windows.append(drawn % 81)
    # Half of 300, with 4 standard deviations of sqrt(300) / 2 = 8.7 around.
    assert 115 < mirrored < 185
    # 300 draws of 81 windows leave out 81 * (80 / 81) ** 300 = 2 on average.
    assert len(set(windows)) > 70
    assert {window // 9 for window in windows} == set(range(9))
    assert {window % 9 for window in windows} == set(range(9))


def test_digits_are_shifted_by_one_pixel_at_most_and_never_mirrored():
    images = _noise(90, 8, 8, 3)
    got = preprocessing.DIGITS.augment(images, _seed(1)).numpy()
    drawn = {
        _position(augmented, _windows(image, 1))
        for image, augmented in zip(images, got)
    }
    assert drawn == set(range(9))


def test_the_same_seed_repeats_an_augmentation_and_another_does_not():
    images = _noise(16, 32, 32, 3)
    once = preprocessing.CIFAR100.augment(images, _seed(7))
    again = preprocessing.CIFAR100.augment(images, _seed(7))
    other = preprocessing.CIFAR100.augment(images, _seed(8))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def test_street_view_digits_are_not_augmented():
    images = _noise(4, 32, 32, 3)
    got = preprocessing.SVHN.augment(images, _seed(0))
    np.testing.assert_array_equal(got, images)


def test_small_images_of_the_right_size_are_decoded_unchanged():
    image = _noise(32, 32, 3)
    got = preprocessing.CIFAR10.decode(tf.io.encode_png(image))
    np.testing.assert_array_equal(got, image)


def test_small_images_of_another_size_are_resized():
    image = np.full((50, 40, 3), 77, np.uint8)
    got = preprocessing.CIFAR10.decode(tf.io.encode_png(image))
    assert got.dtype == tf.uint8
    np.testing.assert_array_equal(got, np.full((32, 32, 3), 77))


def test_grey_images_get_three_equal_channels():
    image = _noise(8, 8, 1)
    got = preprocessing.DIGITS.decode(tf.io.encode_png(image))
    np.testing.assert_array_equal(got, np.repeat(image, 3, axis=-1))


def test_photographs_keep_the_central_square_of_the_shorter_side_at_256():
    # The shorter side is 256 already, so only the crop is left:
    # rows (256 - 224) / 2 = 16, columns (300 - 224) / 2 = 38.
    image = _noise(256, 300, 3)
    got = preprocessing.IMAGENET.decode(tf.io.encode_png(image))
    np.testing.assert_array_equal(got, image[16:240, 38:262])


def test_photographs_are_resized_to_the_shorter_side_before_the_crop():
    # Left half black, right half white: 512 x 1024 becomes 256 x 512, of
    # which columns 144 to 368 remain, with the edge at 256 - 144 = 112.
    image = np.zeros((512, 1024, 3), np.uint8)
    image[:, 512:] = 255
    got = preprocessing.IMAGENET.decode(tf.io.encode_png(image)).numpy()
    assert got.shape == (224, 224, 3)
    assert got[:, :110].max() == 0
    assert got[:, 114:].min() == 255


def test_photographs_without_a_size_are_left_as_they_are():
    recipe = dataclasses.replace(preprocessing.IMAGENET, size=None)
    image = _noise(5, 9, 3)
    np.testing.assert_array_equal(recipe.decode(tf.io.encode_png(image)), image)


def test_decoding_works_in_a_graph_over_a_batch_of_files():
    recipe = dataclasses.replace(preprocessing.IMAGENET, size=16)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def serve(files):
        pixels = tf.map_fn(recipe.decode, files, fn_output_signature=tf.uint8)
        return recipe.normalise(pixels)

    files = [
        tf.io.encode_jpeg(_noise(20, 30, 3)),
        tf.io.encode_png(_noise(40, 17, 3)),
    ]
    assert serve(tf.stack(files)).shape == (2, 16, 16, 3)


@pytest.mark.parametrize("encode", [tf.io.encode_jpeg, tf.io.encode_png])
def test_training_photographs_are_parts_of_8_to_100_percent(encode):
    # Red grows down the rows and green along the columns, so that the
    # corners of a part tell where it was cut out, to a few pixels.
    grey = np.linspace(0, 255, 128).round().astype(np.uint8)
    image = np.zeros((128, 128, 3), np.uint8)
    image[..., 0] = grey[:, None]
    image[..., 1] = grey[None, :]
    encoded = encode(image)
    recipe = dataclasses.replace(preprocessing.IMAGENET, size=32)
    decode = tf.function(recipe.decode_training)
    areas, mirrored = [], 0
    for number in range(60):
        part = decode(encoded, _seed(number)).numpy().astype(int)
        assert part.shape == (32, 32, 3)
        rows = (part[-1, 16, 0] - part[0, 16, 0]) / 255
        columns = (part[16, -1, 1] - part[16, 0, 1]) / 255
        mirrored += columns < 0
        # 31 of the 32 steps lie between the first and the last pixel.
        rows, columns = rows * 32 / 31, abs(columns) * 32 / 31
        areas.append(rows * columns)
        assert 0.7 < columns / rows < 1.4
    assert 0.05 < min(areas) < 0.2
    assert 0.8 < max(areas) < 1.05
    assert 15 < mirrored < 45


def test_the_same_seed_repeats_a_training_photograph():
    recipe = dataclasses.replace(preprocessing.IMAGENET, size=16)
    encoded = tf.io.encode_jpeg(_noise(64, 48, 3))
    once = recipe.decode_training(encoded, _seed(5))
    again = recipe.decode_training(encoded, _seed(5))
    other = recipe.decode_training(encoded, _seed(6))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def test_small_parts_of_photographs_are_averaged_not_picked():
    # Lines of one pixel, black and white: grey once four of them are one.
    image = np.zeros((512, 512, 3), np.uint8)
    image[::2] = 255
    recipe = dataclasses.replace(preprocessing.IMAGENET, size=32)
    part = recipe.decode_training(tf.io.encode_png(image), _seed(2))
    np.testing.assert_allclose(part, 127.5, atol=16)


def test_augmentations_of_the_other_kind_are_refused():
    with pytest.raises(ValueError, match="Received: augmentation='resized"):
        preprocessing.IMAGENET.augment(_noise(1, 8, 8, 3), _seed(0))
    with pytest.raises(ValueError, match="Received: augmentation='crop_flip"):
        preprocessing.CIFAR10.decode_training(b"", _seed(0))


def test_weights_of_keras_applications_see_pixels_less_their_mean():
    # What keras.applications.resnet.preprocess_input does, in its channels'
    # order: 103.939, 116.779 and 123.68 off blue, green and red.
    rgb = np.array([[[10, 20, 30]]], "uint8")
    seen = preprocessing.get("caffe").normalise(rgb).numpy()[0, 0]
    np.testing.assert_allclose(
        seen[::-1], [30 - 103.939, 20 - 116.779, 10 - 123.68], rtol=1e-5
    )


def test_names_find_their_preprocessing():
    assert preprocessing.get("imagenet") is preprocessing.IMAGENET
    assert preprocessing.get("cifar100").num_classes == 100
    assert preprocessing.get("cifar100").mean == preprocessing.CIFAR10.mean
    with pytest.raises(ValueError, match="cifar10.*Received: name='mnist'"):
        preprocessing.get("mnist")


def _png_claiming(width, height):
    """The beginning of a PNG, which is all that is looked at."""
    size = struct.pack(">II", width, height)
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + size


def _jpeg_claiming(width, height):
    """A JPEG of 8 x 8 pixels whose frame says something else."""
    encoded = tf.io.encode_jpeg(_noise(8, 8, 3)).numpy()
    # Marker, length of 17, bits of a sample; then height and width.
    before, frame, after = encoded.partition(b"\xff\xc0\0\x11\x08")
    assert after[:4] == b"\0\x08\0\x08"
    return before + frame + struct.pack(">HH", height, width) + after[4:]


@pytest.mark.parametrize("encode", [tf.io.encode_jpeg, tf.io.encode_png])
def test_photographs_that_are_safe_to_decode_pass_unchanged(encode):
    encoded = encode(_noise(30, 20, 3))
    assert image_ops.checked(encoded) == encoded


@pytest.mark.parametrize(
    "encoded",
    [
        _png_claiming(8192, 8192),  # 2**26, the most
        _png_claiming(1, 1),
        _jpeg_claiming(8192, 8192),
    ],
    ids=["png", "pixel", "jpeg"],
)
def test_the_header_alone_decides_whether_a_file_passes(encoded):
    # None of them could be decoded.
    assert image_ops.checked(tf.constant(encoded)) == encoded


_NEITHER = "must be JPEG or PNG"
_SIZE = "must have 1 to 67108864 pixels"
_HOSTILE = {
    "empty": (b"", _NEITHER),
    "text": (b"not an image, and long enough to have a header", _NEITHER),
    "bmp": (tf.io.decode_base64("Qk06AAAAAAAAADYAAAAoAAAA").numpy(), _NEITHER),
    "gif": (
        b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff"
        + 2 * b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
        + b";",
        _NEITHER,
    ),
    "signature of a png": (_png_claiming(8, 8)[:8], _SIZE),
    "half a header of a png": (_png_claiming(8, 8)[:20], _SIZE),
    "signature of a jpeg": (b"\xff\xd8\xff", "JPEG"),
    "header of a jpeg": (_jpeg_claiming(8, 8)[:30], "JPEG"),
    "png of no columns": (_png_claiming(0, 8), _SIZE),
    "png of no rows": (_png_claiming(8, 0), _SIZE),
    "png of negative size": (_png_claiming(2**31, 2**31), _SIZE),
    "large png": (_png_claiming(20_000, 20_000), _SIZE),
    "one pixel row too many": (_png_claiming(8192, 8193), _SIZE),
    # 65,536 * 65,536 is 0 in 32 bits.
    "png of 2**32 pixels": (_png_claiming(2**16, 2**16), _SIZE),
    "large jpeg": (_jpeg_claiming(20_000, 20_000), _SIZE),
    "jpeg of no columns": (_jpeg_claiming(0, 8), "JPEG"),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_files_are_refused_without_decoding(name):
    encoded, message = _HOSTILE[name]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        image_ops.checked(tf.constant(encoded))


def test_a_graph_that_checks_files_has_no_decoder():
    checked = tf.function(image_ops.checked, autograph=False)
    concrete = checked.get_concrete_function(tf.TensorSpec([], tf.string))
    definition = concrete.graph.as_graph_def()
    functions = definition.library.function
    nodes = [*definition.node, *(n for f in functions for n in f.node_def)]
    ops = {node.op for node in nodes}
    assert "ExtractJpegShape" in ops
    assert not {op for op in ops if op.startswith("Decode")} - {"DecodeRaw"}
