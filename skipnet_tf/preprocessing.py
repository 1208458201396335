"""From files and pixels to network inputs, the same in training and serving.

Normalisations and augmentations are those of Sec. 4 of the paper and of its
published code.  The functions here use TensorFlow alone, so that an exported
graph can contain them.

Reference:
    - [Wang et al., 2018](https://arxiv.org/abs/1711.09485)
"""

import dataclasses

import tensorflow as tf

from skipnet_tf import image_ops

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
        return image_ops.random_windows(
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
        image = image_ops.decode_any(encoded)
        if self.size is None:
            return image
        if self.augmentation == "resized_crop":
            return image_ops.central_square(image, self.size)
        shape = tf.shape(image)[:2]
        image = tf.cond(
            tf.reduce_all(shape == self.size),
            lambda: image,
            lambda: image_ops.resize(image, (self.size, self.size)),
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
            lambda: self._augment_part(image_ops.decode_any(encoded), seed),
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
        window = image_ops.random_part(
            tf.io.extract_jpeg_shape(encoded), window_seed
        )
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
        part = image_ops.crop_random_part(image, window_seed)
        return self._finish_part(part, flip_seed)

    def _finish_part(self, part, flip_seed):
        # Without anti-aliasing, as is usual in TensorFlow: it costs time,
        # and the part is seldom much larger than the input, unless that is
        # small; then it costs little.
        small = 2 * self.size < image_ops.CROP_SIDE
        image = image_ops.resize(part, (self.size, self.size), antialias=small)
        # Along the columns or along no axis: no conditional.
        mirrored = tf.random.stateless_uniform((), flip_seed) < 0.5
        axes = tf.range(1, 1 + tf.cast(mirrored, tf.int32))
        return tf.ensure_shape(
            tf.reverse(image, axes), (self.size, self.size, 3)
        )


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
