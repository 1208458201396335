"""What a server calls: pixels or files to classes, gates and multiply-adds."""

from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf

from skipnet_tf import policy
from skipnet_tf.frozen import FrozenNetwork
from skipnet_tf.image_ops import checked
from skipnet_tf.image_ops import require
from skipnet_tf.preprocessing import Preprocessing
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet

_PIXELS = tf.TensorSpec((None, None, None, 3), tf.uint8, "images")
_FILES = tf.TensorSpec((None,), tf.string, "bytes")
_THRESHOLD = tf.TensorSpec((None,), tf.float32, "threshold")


class Signatures:
    """Signatures around one traced network that they share.

    Args:
        frozen: The network as it is served.
        network: The `SkipNet` or `ResNet` that it was made from; says how to
            decide at inference.
        recipe: `Preprocessing` of the images.
        class_names: Sequence of strings, or `()`.
        top: Positive int, classes to return, at most all.
    """

    def __init__(
        self,
        frozen: FrozenNetwork,
        network: ResNet | SkipNet,
        recipe: Preprocessing,
        class_names: Sequence[str],
        top: int,
    ):
        self._gates = frozen.gates
        self._network = network
        self._recipe = recipe
        self._class_names = tuple(class_names)
        self._top = min(top, network.num_classes)
        normalised = tf.TensorSpec(_PIXELS.shape, tf.float32)
        cutoffs = tf.TensorSpec((None, frozen.gates), tf.float32)
        self._route = _function(frozen, normalised, cutoffs)

    def functions(self, forced: bool) -> dict[str, Callable]:
        """Functions of the graph, by the names of the signatures."""
        functions = {
            "serving_default": _function(self._from_pixels, _PIXELS),
            "image_bytes": _function(self._from_files, _FILES),
        }
        if self._gates:
            functions["tunable"] = _function(self._tunable, _PIXELS, _THRESHOLD)
        if forced:
            actions = tf.TensorSpec((None, self._gates), tf.float32, "actions")
            functions["forced"] = _function(self._forced, _PIXELS, actions)
        return functions

    def _from_pixels(self, images):
        images = self._normalised(images)
        if not self._gates:
            return self._answer(images, tf.zeros([tf.shape(images)[0], 0]))
        network = self._network
        decide = network.stage.inference_policy(network.threshold, images)
        return self._decided(images, decide)

    def _from_files(self, files):
        files = _checked(files, tf.size(files) > 0, "`bytes` must not be empty")
        size = self._recipe.size
        # Decoders and resizing take one image.
        pixels = tf.map_fn(
            lambda file: self._recipe.decode(checked(file)),
            files,
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
        )
        return self._from_pixels(pixels)

    def _tunable(self, images, threshold):
        images = self._normalised(images)
        # The comparisons fail for what is no number.
        inside = tf.reduce_all((threshold >= 0.0) & (threshold <= 1.0))
        threshold = _checked(
            threshold, inside, "`threshold` must lie in [0, 1]:", threshold
        )
        threshold = _one_for_each(images, threshold, "threshold")
        return self._decided(images, policy.Thresholded(threshold))

    def _forced(self, images, actions):
        images = self._normalised(images)
        inside = tf.reduce_all((actions >= 0.0) & (actions <= 1.0))
        actions = _checked(actions, inside, "`actions` must be 0 or 1")
        actions = _one_for_each(images, actions, "actions")
        return self._decided(images, policy.Forced(actions))

    def _normalised(self, images):
        # Servers do not check the shapes that a signature states.
        images = tf.raw_ops.EnsureShape(input=images, shape=_PIXELS.shape)
        images = _checked(
            images,
            tf.size(images, tf.int64) > 0,
            "`images` must hold one image or more, and pixels; shape:",
            tf.shape(images),
        )
        return self._recipe.normalise(images)

    def _decided(self, images, decide):
        batch = tf.shape(images)[0]
        return self._answer(images, decide.cutoffs(batch, self._gates))

    def _answer(self, images, cutoffs):
        routed = self._route(images, cutoffs)
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


def _checked(tensor, condition, *message):
    """`tensor`, or a failed request. A mere side effect might be left out."""
    with tf.control_dependencies([require(condition, *message)]):
        return tf.identity(tensor)


def _one_for_each(images, tensor, name):
    count, rows = tf.shape(images)[0], tf.shape(tensor)[0]
    return _checked(
        tensor,
        tf.equal(count, rows),
        f"`{name}` must have one row for each image; images, rows:",
        count,
        rows,
    )
