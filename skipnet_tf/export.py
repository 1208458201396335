"""SavedModels that skip: for TF Serving and every other TensorFlow program.

The exported network takes pixels or encoded images and computes, image by
image, only the blocks it decides to execute (Eq. 1). A version appears
complete and compared with the Keras model, or not at all.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from skipnet_tf import evaluation
from skipnet_tf import preprocessing as preprocessings
from skipnet_tf.preprocessing import Preprocessing
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet

# Versions being written; TF Serving ignores names that are not integers.
_WRITING = ".writing"

_CHECKED_IMAGES = 3
_CHECKED_SIZE = 32  # pixels, where the preprocessing has no size of its own
_LOGIT_TOLERANCE = 1e-4  # of the largest logit
_CLOSE_TO_THRESHOLD = 1e-5  # such a decision may turn with the last digit


def export_saved_model(
    model: ResNet | SkipNet,
    directory: str,
    preprocessing: str | Preprocessing,
    forced: bool = False,
    class_names: Sequence[str] = (),
    top: int = 5,
) -> str:
    """Writes the next version of a SavedModel.

    Signatures, outputs of each with the batch first:

    - `serving_default`: `images`, uint8 pixels `(batch, height, width, 3)`,
      normalised, never resized.
    - `image_bytes`: `bytes`, encoded images `(batch,)`, decoded, resized and
      cropped as in evaluation.
    - `forced`: `images`, and `actions` float32 `(batch, gates)`, decisions to
      impose, 1 executes a block.

    Outputs: `logits` and `probabilities` `(batch, classes)`, `classes` int64
    `(batch, top)`, `class_names` `(batch, top)` where known,
    `gate_probabilities` and `gates` `(batch, gates)`, `macs` int64 `(batch,)`,
    multiply-adds spent on each image, gates included.

    The network is exported in float32 and with conditional execution,
    whatever it was trained with.

    Args:
        model: A `SkipNet` or dense `ResNet`.
        directory: String, folder of the versions; made if missing.
        preprocessing: Name of a data set, see `preprocessing.get`, or a
            `Preprocessing`.
        forced: Bool, add the signature `forced`. Defaults to `False`.
        class_names: Sequence of strings, one for each class. Defaults to
            `()`, unknown.
        top: Positive int, classes to return, at most all. Defaults to `5`.

    Returns:
        String, the folder of the new version.

    Raises:
        ValueError: If an argument is not as described.
        RuntimeError: If the exported network and the Keras model disagree;
            then there is no new version.
    """
    _check_arguments(model, forced, class_names, top)
    recipe = _find_preprocessing(preprocessing)
    network = _float32(model)
    served = _Served(network, recipe, tuple(class_names), top)
    signatures = {
        "serving_default": served.images,
        "image_bytes": served.image_bytes,
    }
    if forced:
        signatures["forced"] = served.forced
    with _new_version(directory) as (folder, version):
        tf.saved_model.save(served, folder, signatures=signatures)
        _compare(folder, network, recipe)
    return version


class _Served(tf.Module):
    """The signatures, around one traced network that they share."""

    def __init__(self, network, recipe, class_names, top):
        super().__init__(name="served")
        self._recipe = recipe
        self._class_names = class_names
        self._top = min(top, network.num_classes)
        # The variables alone: a checkpoint without Keras's metrics.
        self.weights = [weight.value for weight in network.weights]
        pixels = tf.TensorSpec((None, None, None, 3), tf.uint8, "images")
        encoded = tf.TensorSpec((None,), tf.string, "bytes")
        normalised = tf.TensorSpec((None, None, None, 3), tf.float32)
        # Traced once for all signatures. A closure, because a Keras model
        # as an attribute would be saved with everything it has.
        route = functools.partial(evaluation.route, network)
        self._decided = _function(route, normalised)
        self.images = _function(self._from_pixels, pixels)
        self.image_bytes = _function(self._from_bytes, encoded)
        if isinstance(network, SkipNet):
            actions = tf.TensorSpec(
                (None, len(network.gates)), tf.float32, "actions"
            )
            self._imposed = _function(route, normalised, actions)
            self.forced = _function(self._from_pixels, pixels, actions)

    def _from_bytes(self, encoded):
        # Decoders and resizing take one image.
        size = self._recipe.size
        pixels = tf.map_fn(
            self._recipe.decode,
            encoded,
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
        )
        return self._from_pixels(pixels)

    def _from_pixels(self, images, actions=None):
        normalised = self._recipe.normalise(images)
        if actions is None:
            return self._answer(self._decided(normalised))
        return self._answer(self._imposed(normalised, actions))

    def _answer(self, routed):
        classes = tf.math.top_k(routed["logits"], self._top).indices
        answer = {
            "logits": routed["logits"],
            "probabilities": tf.nn.softmax(routed["logits"]),
            "classes": tf.cast(classes, tf.int64),
            "gate_probabilities": routed["probabilities"],
            "gates": routed["gates"],
            "macs": routed["macs"],
        }
        if self._class_names:
            names = tf.constant(self._class_names)
            answer["class_names"] = tf.gather(names, classes)
        return answer


def _function(python_function, *signature):
    # XLA has no shapes that depend on decisions, and TF Serving refuses it.
    return tf.function(
        python_function,
        input_signature=signature,
        autograph=False,
        jit_compile=False,
    )


def _float32(model):
    """A copy that computes in float32 and never what it skips."""
    config = {**model.get_config(), "dtype": "float32"}
    if isinstance(model, SkipNet):
        config["execution"] = "conditional"
    copy = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    if isinstance(model, SkipNet):
        copy.stage = model.stage  # a stage may have an inference policy
    return copy


@contextlib.contextmanager
def _new_version(directory: str) -> Iterator[tuple[str, str]]:
    """Yields a temporary folder and the name it gets if all goes well."""
    try:
        os.makedirs(directory, exist_ok=True)
        temporary, version = _reserve(directory)
    except OSError as error:
        raise ValueError(
            "`directory` must be a folder that can be written. "
            f"Received: directory={directory} ({error.strerror})"
        ) from error
    try:
        yield temporary, version
        os.rename(temporary, version)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _reserve(directory):
    while True:
        names = [n.removesuffix(_WRITING) for n in os.listdir(directory)]
        number = 1 + max((int(n) for n in names if n.isdecimal()), default=0)
        version = os.path.join(directory, str(number))
        temporary = version + _WRITING
        try:
            os.mkdir(temporary)
        except FileExistsError:
            continue  # another export took this number just now
        if not os.path.exists(version):
            return temporary, version
        os.rmdir(temporary)  # ... and has even finished


def _compare(folder, network, recipe):
    """Loads a SavedModel and raises if it is another network."""
    size = recipe.size or _CHECKED_SIZE
    shape = (_CHECKED_IMAGES, size, size, 3)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, shape, np.uint8)
    check = functools.partial(_check_same, getattr(network, "threshold", 0.5))
    with tf.device("CPU:0"):  # accelerators round as they please
        signatures = tf.saved_model.load(folder).signatures
        normalised = recipe.normalise(images)
        expected = evaluation.route(network, normalised)
        check(expected, signatures["serving_default"](images=images))
        encoded = tf.stack([tf.io.encode_png(image) for image in images])
        decoded = tf.stack([recipe.decode(image) for image in encoded])
        check(
            evaluation.route(network, recipe.normalise(decoded)),
            signatures["image_bytes"](bytes=encoded),
        )
        if "forced" in signatures:
            actions = random.integers(0, 2, expected["gates"].shape)
            actions = tf.constant(actions, tf.float32)
            check(
                evaluation.route(network, normalised, actions),
                signatures["forced"](images=images, actions=actions),
            )


def _check_same(threshold, expected, got):
    margin = np.abs(expected["probabilities"].numpy() - threshold)
    sure = (margin >= _CLOSE_TO_THRESHOLD).all(axis=1)
    logits = expected["logits"].numpy()
    largest = np.abs(logits).max()
    difference = np.abs(got["logits"].numpy() - logits)[sure].max(initial=0)
    # Not `>`: a comparison with NaN must fail.
    if not difference <= _LOGIT_TOLERANCE * largest:
        raise RuntimeError(
            "the exported network does not compute what the Keras model "
            f"does: logits differ by {difference:.2g}, the largest is "
            f"{largest:.2g}"
        )
    for name in ("gates", "macs"):
        different = expected[name].numpy() != got[name].numpy()
        if different[sure].any():
            raise RuntimeError(
                "the exported network does not decide what the Keras model "
                f"does: {name} differ"
            )


def _check_arguments(model, forced, class_names, top):
    ours = isinstance(model, (ResNet, SkipNet))
    _expect(ours, "`model` must be a SkipNet or ResNet", model)
    channels = model.get_config()["input_shape"][-1]
    _expect(channels == 3, "`model` must take 3 channels (RGB)", channels)
    gated = isinstance(model, SkipNet)
    _expect(gated or not forced, "`forced` needs a network with gates", forced)
    _expect(
        len(class_names) in (0, model.num_classes),
        f"`class_names` must hold {model.num_classes} names, one per class",
        class_names,
    )
    positive = isinstance(top, int) and top > 0
    _expect(positive, "`top` must be a positive int", top)
    outside = not tf.distribute.has_strategy()
    _expect(outside, "export outside of a strategy's scope", "a call inside")


def _expect(correct, expected, received):
    if not correct:
        raise ValueError(f"{expected}. Received: {received!r}")


def _find_preprocessing(preprocessing):
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    try:
        return preprocessings.get(preprocessing)
    except ValueError as error:
        raise ValueError(
            f"`preprocessing` must be a data set's name; {error}"
        ) from error
