"""From files and pixels to network inputs, the same in training and serving.

Normalisations and augmentations are those of Sec. 4 of the paper and of its
published code.  The functions here use TensorFlow alone, so that an exported
graph can contain them.

Reference:
    - [Wang et al., 2018](https://arxiv.org/abs/1711.09485)
"""

import dataclasses

import tensorflow as tf

# Side of the central square over the shorter side of the whole photograph,
# at evaluation: 224 of 256 pixels.
_CROP_SIDE = 224
_SHORTER_SIDE = 256

# Far more than any photograph needs; decoded, an image of that many pixels
# takes 192 MiB. A file of a few bytes can claim to hold a thousand times that.
MAX_PIXELS = 2**26

# Black pixels put around an image before a window of its own size is drawn.
_PADDING = {"crop_flip": 4, "shift": 1}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What happens to the images of one data set.

    Args:
        name: String, the data set.
        mean: Tuple of 3 floats, mean of each channel in units of pixel/255.
        std: Tuple of 3 floats, standard deviation in units of pixel/255.
        size: Int, height and width of the network input in pixels; `None`
            leaves images as they are.
        augmentation: String.  `"crop_flip"` draws a window of the image
            padded by 4 and mirrors half of them, `"shift"` draws a window of
            the image padded by 1, `"resized_crop"` resizes a random part of
            a photograph and mirrors half of them, `"none"` does nothing.
        num_classes: Int, or `None` if it depends on the data.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int | None
    augmentation: str
    num_classes: int | None

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """Subtracts the mean and divides by the standard deviation.

        Args:
            images: uint8 or float tensor `(..., height, width, 3)`, pixels
                from 0 to 255, of any height and width.

        Returns:
            float32 tensor of the same shape.
        """
        images = tf.cast(images, tf.float32)
        mean = tf.constant([255.0 * mean for mean in self.mean])
        scale = tf.constant([1.0 / (255.0 * std) for std in self.std])
        return (images - mean) * scale

    def augment(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws one augmentation of every image, independently.

        Args:
            images: uint8 tensor `(batch, height, width, 3)`.
            seed: int32 tensor `(2,)`.  The same seed gives the same result.

        Returns:
            uint8 tensor of the same shape.

        Raises:
            ValueError: If the augmentation is `"resized_crop"`, which works
                on encoded photographs of different sizes.
        """
        if self.augmentation == "none":
            return images
        if self.augmentation == "resized_crop":
            raise ValueError(
                "`augment` expected a preprocessing of equally large images; "
                "photographs are augmented by `decode_training`. "
                f"Received: augmentation={self.augmentation!r}"
            )
        mirror = self.augmentation == "crop_flip"
        return _random_windows(
            images, _PADDING[self.augmentation], mirror, seed
        )

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes one image for evaluation and serving.

        Photographs are resized until their shorter side is 256/224 of `size`
        and the central square is kept; small images are resized to `size` by
        `size` if they are not that large already.

        Args:
            encoded: String scalar, a JPEG, PNG, BMP or one-frame GIF file.

        Returns:
            uint8 tensor `(size, size, 3)`.
        """
        image = _decode_any(encoded)
        if self.size is None:
            return image
        if self.augmentation == "resized_crop":
            return _central_square(image, self.size)
        shape = tf.shape(image)[:2]
        image = tf.cond(
            tf.reduce_all(shape == self.size),
            lambda: image,
            lambda: _resize(image, (self.size, self.size)),
        )
        return tf.ensure_shape(image, (self.size, self.size, 3))

    def decode_training(self, encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Decodes a random part of one photograph, mirrored half the time.

        The part covers 8 to 100 % of the area, with an aspect ratio from 3/4
        to 4/3.

        Args:
            encoded: String scalar, an image file.
            seed: int32 tensor `(2,)`.  The same seed gives the same result.

        Returns:
            uint8 tensor `(size, size, 3)`.

        Raises:
            ValueError: If the augmentation is not `"resized_crop"`.
        """
        self._check_photographs("decode_training")
        return tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: self.decode_training_jpeg(encoded, seed),
            lambda: self._augment_part(_decode_any(encoded), seed),
        )

    def decode_training_jpeg(
        self, encoded: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """What `decode_training` does, for JPEG files alone.

        Without a conditional, which costs much where a graph is not lowered.

        Args:
            encoded: String scalar, a JPEG file.
            seed: int32 tensor `(2,)`.  The same seed gives the same result.

        Returns:
            uint8 tensor `(size, size, 3)`.

        Raises:
            ValueError: If the augmentation is not `"resized_crop"`.
        """
        self._check_photographs("decode_training_jpeg")
        window_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
        # The window alone is decoded, in one op: most of the time of a whole
        # photograph goes into pixels that are thrown away.
        window = _random_part(tf.io.extract_jpeg_shape(encoded), window_seed)
        part = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        return self._finish_part(part, flip_seed)

    def _check_photographs(self, method):
        if self.augmentation != "resized_crop":
            raise ValueError(
                f"`{method}` expected augmentation='resized_crop'. "
                f"Received: augmentation={self.augmentation!r}"
            )

    def _augment_part(self, image, seed):
        window_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
        part = _crop_random_part(image, window_seed)
        return self._finish_part(part, flip_seed)

    def _finish_part(self, part, flip_seed):
        # Without anti-aliasing, as is usual in TensorFlow: it costs time,
        # and the part is seldom much larger than the input, unless that is
        # small; then it costs little.
        small = 2 * self.size < _CROP_SIDE
        image = _resize(part, (self.size, self.size), antialias=small)
        # Along the columns or along no axis: no conditional.
        mirrored = tf.random.stateless_uniform((), flip_seed) < 0.5
        axes = tf.range(1, 1 + tf.cast(mirrored, tf.int32))
        return tf.ensure_shape(
            tf.reverse(image, axes), (self.size, self.size, 3)
        )


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


def _decode_any(encoded):
    # `expand_animations=False`: a GIF then has three dimensions, like others.
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def _resize(image, size, antialias=True):
    # Anti-aliasing makes evaluation agree with the resizing of PIL, with
    # which the published numbers were measured.
    image = tf.image.resize(image, size, antialias=antialias)
    return tf.saturate_cast(tf.round(image), tf.uint8)


def _central_square(image, size):
    shape = tf.shape(image)[:2]
    shorter = round(size * _SHORTER_SIDE / _CROP_SIDE)
    # Integer arithmetic: torchvision, too, cuts the longer side to whole
    # pixels.
    resized = shape * shorter // tf.reduce_min(shape)
    image = _resize(image, resized)
    top, left = tf.unstack((resized - size) // 2)
    return tf.image.crop_to_bounding_box(image, top, left, size, size)


def _random_part(shape, seed):
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


def _crop_random_part(image, seed):
    top, left, height, width = tf.unstack(_random_part(tf.shape(image), seed))
    return tf.image.crop_to_bounding_box(image, top, left, height, width)


def _random_windows(images, padding, mirror, seed):
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


CIFAR10 = Preprocessing(
    name="cifar10",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    size=32,
    augmentation="crop_flip",
    num_classes=10,
)

# The published code normalises CIFAR-100 by the numbers of CIFAR-10.
CIFAR100 = dataclasses.replace(CIFAR10, name="cifar100", num_classes=100)

# One normalisation for all splits; the published code has one per split,
# which would move the test images relative to the training images.
SVHN = Preprocessing(
    name="svhn_cropped",
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    size=32,
    augmentation="none",
    num_classes=10,
)

IMAGENET = Preprocessing(
    name="imagenet2012",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    size=224,
    augmentation="resized_crop",
    num_classes=1000,
)

# What the ResNets of `keras.applications` were trained on: pixels less their
# mean. Their channels were in the order BGR, see `interop.load_keras_weights`.
CAFFE = dataclasses.replace(
    IMAGENET,
    name="caffe",
    mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
)

# Mean and standard deviation of all pixels of scikit-learn's `load_digits`,
# round(image * 255 / 16) / 255.  Never mirrored: a mirrored digit is another
# symbol.
DIGITS = Preprocessing(
    name="digits",
    mean=(0.3053, 0.3053, 0.3053),
    std=(0.3759, 0.3759, 0.3759),
    size=8,
    augmentation="shift",
    num_classes=10,
)

_KNOWN = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "svhn_cropped": SVHN,
    "imagenet2012": IMAGENET,
    "imagenet": IMAGENET,
    "caffe": CAFFE,
    "digits": DIGITS,
}


def get(name: str) -> Preprocessing:
    """Returns the preprocessing of a data set of the paper, or of the demo.

    Args:
        name: String, one of `"cifar10"`, `"cifar100"`, `"svhn_cropped"`,
            `"imagenet2012"` (or `"imagenet"`) and `"digits"`, or `"caffe"`
            for the weights of `keras.applications`.

    Returns:
        A `Preprocessing`.

    Raises:
        ValueError: If `name` is none of these.
    """
    if name not in _KNOWN:
        raise ValueError(
            f"`name` expected one of {sorted(_KNOWN)}. Received: name={name!r}"
        )
    return _KNOWN[name]
