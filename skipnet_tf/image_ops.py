"""What preprocessing does to files and pixels (Sec. 4, published code).

TensorFlow alone, so that an exported graph can contain it.
"""

import tensorflow as tf

# Side of the central square over the shorter side of the whole photograph,
# at evaluation: 224 of 256 pixels.
CROP_SIDE = 224
_SHORTER_SIDE = 256

# Far more than any photograph needs; decoded, an image of that many pixels
# takes 192 MiB. A file of a few bytes can claim to hold a thousand times that.
MAX_PIXELS = 2**26


def checked(encoded: tf.Tensor) -> tf.Tensor:
    """A file from anybody, if it is safe to decode by what its header says.

    Args:
        encoded: String scalar.

    Returns:
        `encoded`.

    Raises:
        tf.errors.InvalidArgumentError: When it runs, if it is neither JPEG
            nor PNG or claims to have more than `MAX_PIXELS` pixels.
    """
    # Padded, so that every file has the bytes that are looked at.
    header = tf.strings.substr(encoded, 0, 24) + 24 * "\0"
    is_jpeg = tf.strings.substr(header, 0, 3) == b"\xff\xd8\xff"
    is_png = tf.strings.substr(header, 0, 8) == b"\x89PNG\r\n\x1a\n"
    known = require(is_jpeg | is_png, "images must be JPEG or PNG files")
    with tf.control_dependencies([known]):
        size = tf.cond(
            is_jpeg,
            lambda: tf.io.extract_jpeg_shape(encoded)[:2],
            lambda: _png_size(header),
        )
    # Two 32-bit numbers of a header, which may be anything.
    pixels = tf.reduce_prod(tf.cast(size, tf.float64))
    fits = require(
        (tf.reduce_min(size) > 0) & (pixels <= MAX_PIXELS),
        f"images must have 1 to {MAX_PIXELS} pixels; height, width:",
        size,
    )
    with tf.control_dependencies([fits]):
        return tf.identity(encoded)


def require(condition: tf.Tensor, *message: str | tf.Tensor) -> tf.Operation:
    """An operation that fails with a message unless a condition holds.

    `tf.debugging.assert_*` put theirs in a conditional, which costs time in a
    small network.
    """
    return tf.raw_ops.Assert(
        condition=condition,
        data=[tf.convert_to_tensor(part) for part in message],
    )


def _png_size(header):
    """Height and width, from the 8 bytes that begin the first chunk."""
    # Big-endian, width first.
    bytes_ = tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.uint8)
    digits = tf.reshape(tf.cast(bytes_, tf.int32), (2, 4))
    places = tf.constant([1 << 24, 1 << 16, 1 << 8, 1])
    return tf.reduce_sum(digits * places, axis=1)[::-1]


def decode_any(encoded: tf.Tensor) -> tf.Tensor:
    """uint8 `(height, width, 3)` of a JPEG, PNG, BMP or one-frame GIF file."""
    # `expand_animations=False`: a GIF then has three dimensions, like others.
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def resize(image: tf.Tensor, size, antialias: bool = True) -> tf.Tensor:
    """uint8 image of another `size`, a pair of height and width."""
    # Anti-aliasing makes evaluation agree with the resizing of PIL, with
    # which the published numbers were measured.
    image = tf.image.resize(image, size, antialias=antialias)
    return tf.saturate_cast(tf.round(image), tf.uint8)


def central_square(image: tf.Tensor, size: int) -> tf.Tensor:
    """`size` by `size` pixels, once the shorter side is 256/224 of `size`."""
    shape = tf.shape(image)[:2]
    shorter = round(size * _SHORTER_SIDE / CROP_SIDE)
    # Integer arithmetic: torchvision, too, cuts the longer side to whole
    # pixels.
    resized = shape * shorter // tf.reduce_min(shape)
    image = resize(image, resized)
    top, left = tf.unstack((resized - size) // 2)
    return tf.image.crop_to_bounding_box(image, top, left, size, size)


def random_part(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Top, left, height and width of 8 to 100 % of an image of `shape`."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], axis=0)


def crop_random_part(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """What `random_part` says of an image."""
    top, left, height, width = tf.unstack(random_part(tf.shape(image), seed))
    return tf.image.crop_to_bounding_box(image, top, left, height, width)


def random_windows(
    images: tf.Tensor, padding: int, mirror: bool, seed: tf.Tensor
) -> tf.Tensor:
    """A window of each image, padded before by so many black pixels.

    Args:
        images: uint8 tensor `(batch, height, width, 3)`.
        padding: Int, pixels on every side.
        mirror: Bool, whether half of the windows are mirrored.
        seed: int32 tensor `(2,)`.

    Returns:
        uint8 tensor of the same shape.
    """
    shape = tf.shape(images)
    batch, height, width = shape[0], shape[1], shape[2]
    window_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    # Black, not the mean: the published code pads before it normalises.
    around = [padding, padding]
    padded = tf.pad(images, [[0, 0], around, around, [0, 0]])
    offsets = tf.random.stateless_uniform(
        (2, batch, 1), window_seed, 0, 2 * padding + 1, tf.int32
    )
    rows = offsets[0] + tf.range(height)
    columns = offsets[1] + tf.range(width)
    if mirror:
        flips = tf.random.stateless_uniform((batch, 1), flip_seed) < 0.5
        columns = tf.where(flips, tf.reverse(columns, [1]), columns)
    # One gather of pixels does window and mirror for the whole batch.
    padded_width = width + 2 * padding
    pixels = rows[:, :, None] * padded_width + columns[:, None, :]
    padded = tf.reshape(padded, (batch, -1, 3))
    windows = tf.gather(padded, pixels, batch_dims=1)
    return tf.ensure_shape(windows, images.shape)
