"""Gates that ask the classifier, beyond the paper (compare Sec. 3.1).

Blocks of the last group refine what the classifier reads in the end: before
each of them it can be asked how sure it would be if this were all. An easy
image is sure early, and its later blocks are skipped.
"""

import math

import keras
import tensorflow as tf

from skipnet_tf import ops
from skipnet_tf.gate_form import FeedForwardGate
from skipnet_tf.layers import OPEN_LOGIT
from skipnet_tf.layers import normal


def doubt(class_logits: tf.Tensor) -> tf.Tensor:
    """Digits of doubt: `2 + log10(1 - p)`, p the largest probability.

    It is 1 at p = 0.9, 0 at 0.99 and -1 at 0.999. The difference 1 - p is never
    formed: it would have lost all digits at 0.9999999.

    Args:
        class_logits: Float32 tensor `(batch, classes)`.

    Returns:
        Float32 tensor `(batch,)`.
    """
    classes = class_logits.shape[1]
    likeliest = tf.one_hot(tf.argmax(class_logits, axis=1), classes)
    others = class_logits - likeliest * 1e9
    rest = tf.reduce_logsumexp(others, axis=1)
    rest -= tf.reduce_logsumexp(class_logits, axis=1)
    return 2.0 + rest / math.log(10.0)


@keras.saving.register_keras_serializable(package="skipnet_tf")
class ConfidenceGate(FeedForwardGate):
    """How much the classifier doubts, times a slope, plus a bias.

    The spatial mean of the features goes through the network's own
    classifier: `logit = slope * doubt + bias`, see `doubt`. Two numbers are
    learnt; no gradient reaches classifier or features. In the groups before
    the last, whose features the classifier cannot read, the gate is its bias,
    the same decision for all images.

    Args:
        classifier: Optional `keras.layers.Dense`, features to logits of
            classes, shared with the network and its other gates. Defaults to
            `None`: the gate is a bias.
        init: `"open"` (every block runs at the start) or `"published"`
            (random, as the last layers of other gates). Defaults to `"open"`.
        name: Optional string.

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`.
        state: Ignored. Defaults to `None`.
        training: Ignored. Defaults to `False`.

    Returns:
        `(logits, state)`: float32 logits `(batch,)`, positive where the block
        should run, and `state` as it came.

    Raises:
        ValueError: If `init` is unknown.

    Reference:
        - [Teerapittayanon et al., 2016](https://arxiv.org/abs/1709.01686),
          confidence as the rule of early exits
    """

    def __init__(
        self, classifier=None, init="open", name=None, dtype="float32"
    ):
        super().__init__(init, name=name, dtype=dtype)
        self.autocast = False  # features stay in half precision to their mean
        self.classifier = classifier

    def build(self, input_shape):
        slope, bias = normal(math.sqrt(2.0)), "zeros"
        if self.init == "open":
            slope, bias = "zeros", keras.initializers.Constant(OPEN_LOGIT)
        self.bias = self.add_weight((1,), bias, name="bias")
        if self.classifier is None:
            return
        self.slope = self.add_weight((1,), slope, name="slope")
        if not self.classifier.built:
            self.classifier.build((None, input_shape[-1]))

    def call(self, features, state=None, training=False):
        return self.decide(ops.spatial_mean(features), state)

    def decide(self, means, state=None):
        """`call` on spatial means, float32 `(batch, channels)`."""
        bias = tf.convert_to_tensor(self.bias)
        if self.classifier is None:
            return tf.broadcast_to(bias, tf.shape(means)[:1]), state
        doubts = tf.stop_gradient(doubt(self.classifier(means)))
        return self.slope * doubts + bias, state

    def last_weights(self):
        """Slope and bias: what the logit is proportional to."""
        slope = [] if self.classifier is None else [self.slope]
        return [*slope, self.bias]

    def multiply_adds(self, height, width):
        """Multiply-adds; the same for every size of the feature map."""
        if self.classifier is None:
            return 0
        inputs, classes = self.classifier.kernel.shape
        return inputs * classes + 1

    def get_config(self):
        classifier = keras.saving.serialize_keras_object(self.classifier)
        return {**super().get_config(), "classifier": classifier}

    @classmethod
    def from_config(cls, config):
        classifier = keras.saving.deserialize_keras_object(config["classifier"])
        return cls(**{**config, "classifier": classifier})
