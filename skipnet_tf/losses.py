"""Losses on logits (Sec. 3.3)."""

import inspect

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="skipnet_tf")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of class numbers whose labels are smoothed.

    The target is `1 - smoothing + smoothing / classes` for the class of the
    label and `smoothing / classes` for each other one. Keras smooths one-hot
    labels only. In a reward (Eq. 5) this loss stands for L, like any other.

    Args:
        smoothing: Float in [0, 1), share of the target that is spread evenly
            over all classes. Defaults to `0.1`.
        reduction: See `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`, the mean over images.
        name: String. Defaults to `"smoothed_cross_entropy"`.
        dtype: Optional dtype policy. Defaults to `None`, float32.

    Call arguments:
        y_true: Int tensor `(batch,)` or `(batch, 1)`, class numbers.
        y_pred: Float tensor `(batch, classes)`, logits.

    Returns:
        Float32 loss in nats: a scalar, or `(batch,)` unreduced.

    Raises:
        ValueError: If `smoothing` is out of range or labels are one-hot.

    Reference:
        - [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), Sec. 7
    """

    def __init__(
        self,
        smoothing: float = 0.1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "smoothed_cross_entropy",
        dtype=None,
    ):
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(
                f"`smoothing` must lie in [0, 1). Received: {smoothing=}"
            )
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        """Loss of each image, float32 `(batch,)`."""
        logits = tf.cast(y_pred, tf.float32)
        labels = tf.convert_to_tensor(y_true)
        if labels.shape.rank == 2 and labels.shape[1] not in (None, 1):
            raise ValueError(
                "`y_true` must hold class numbers, (batch,) or (batch, 1); "
                "for one-hot labels use keras.losses.CategoricalCrossentropy. "
                f"Received: y_true of shape {labels.shape}"
            )
        labels = tf.cast(tf.reshape(labels, [-1]), tf.int64)
        sharp = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        even = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=1)
        return (1.0 - self.smoothing) * sharp + self.smoothing * even

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "smoothing": self.smoothing}


def single(loss):
    """The callable of what `compile` takes for a network of one output.

    Args:
        loss: Keras loss, function, name of one, or a list of one of these.

    Returns:
        Keras loss or function of labels and logits.

    Raises:
        ValueError: If there are several, or Keras knows no such loss.
    """
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        loss = loss[0]
    if isinstance(loss, (list, tuple, dict)):
        raise ValueError(
            "`loss` must be one loss: the network has one output. "
            f"Received: loss={loss!r}"
        )
    return keras.losses.get(loss)


def check_takes_logits(loss) -> None:
    """Raises `ValueError` if a Keras loss expects probabilities."""
    found = single(loss)
    if isinstance(found, keras.losses.Loss):
        from_logits = found.get_config().get("from_logits", True)
    else:
        parameter = inspect.signature(found).parameters.get("from_logits")
        from_logits = parameter is None or parameter.default
    if not from_logits:
        raise ValueError(
            "`loss` must take logits, which is what the network returns; pass "
            "a cross-entropy with from_logits=True, or leave `loss` out. "
            f"Received: loss={loss!r}"
        )
