"""The threshold at which a policy spends what it is asked to (Sec. 3.2).

Adapting alpha brings a policy near its target. What is left, because learning
ended or because images of training are not those of inference, one number makes
up for: the probability from which on blocks run.
"""

import math

import tensorflow as tf

from skipnet_tf import evaluation
from skipnet_tf import policy
from skipnet_tf.skipnet import SkipNet

_CLOSE = 0.01  # of the multiply-adds without gates
# Log-odds of the thresholds that are tried, 0.05 to 0.95: what gates are surer
# of is not turned into its opposite.
_WIDEST = math.log(0.95 / 0.05)
_HALVINGS = 8


def threshold_for(
    model: SkipNet, dataset: tf.data.Dataset, macs: float, images: int = 1000
) -> float:
    """Finds a threshold at which `model` spends about `macs`.

    Args:
        model: A `SkipNet`; its `threshold` stays what it is.
        dataset: Batches of normalised images like those of inference, and
            labels, which are not read.
        macs: Float in (0, 1], multiply-adds to spend on average, gates
            included, relative to the network without gates.
        images: Positive int, the first so many images of `dataset` are used.
            Defaults to `1000`.

    Returns:
        Float threshold: 0.5 if what is spent there is within 0.01 of `macs`,
        otherwise the one between 0.05 and 0.95 that was found to come
        closest.

    Raises:
        ValueError: If `macs` or `images` is out of range, `dataset` empty, or
            `model` does not decide by its threshold.
    """
    if not isinstance(model, SkipNet):
        raise ValueError(f"`model` must be a SkipNet. Received: {model!r}")
    if not 0.0 < macs <= 1.0:
        raise ValueError(f"`macs` must lie in (0, 1]. Received: macs={macs}")
    batches = list(evaluation.some_images(dataset, images))
    if not batches:
        raise ValueError(
            "`dataset` must hold at least one image. Received: an empty one"
        )
    decide = model.stage.inference_policy(model.threshold, batches[0][0])
    if not isinstance(decide, policy.Thresholded):
        raise ValueError(
            "`model` must decide by its threshold at inference. Received: one "
            f"whose stage decides by {type(decide).__name__}"
        )
    spent = _spending(model, batches)
    tried = {0.0: spent(0.0)}
    low, high = -_WIDEST, _WIDEST
    middle = 0.0
    for _ in range(_HALVINGS):
        if abs(tried[middle] - macs) <= _CLOSE:
            break
        # The higher the threshold, the less is spent, but for gates that see
        # other features behind a block that was skipped.
        if tried[middle] > macs:
            low = middle
        else:
            high = middle
        middle = (low + high) / 2
        tried[middle] = spent(middle)
    best = min(tried, key=lambda log_odds: abs(tried[log_odds] - macs))
    return _threshold(best)


def _threshold(log_odds):
    return 1 / (1 + math.exp(-log_odds))


def _spending(model, batches):
    """Function of log-odds of a threshold: mean share of multiply-adds."""

    @tf.function(autograph=False, reduce_retracing=True)
    def run(images, threshold):
        routed = model.route_with(images, policy.Thresholded(threshold))
        dense = model.dense_multiply_adds(images)
        return tf.reduce_sum(routed["macs"] / dense)

    def spent(log_odds):
        threshold = tf.constant(_threshold(log_odds), tf.float32)
        total = sum(float(run(images, threshold)) for images, _ in batches)
        return total / sum(len(labels) for _, labels in batches)

    return spent
