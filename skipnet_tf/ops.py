"""The straight-through relaxation of a gate (Sec. 3.3, Eq. 7)."""

import tensorflow as tf


def straight_through(
    probabilities: tf.Tensor, threshold: float | tf.Tensor = 0.5
) -> tf.Tensor:
    """Rounds forward, passes gradients unchanged backward (Eq. 7).

    `G(x) = I(S(x) >= threshold)` forward, `dG/dS = 1` backward.

    Args:
        probabilities: Float tensor of any shape, `S(x)` in Eq. 7.
        threshold: Float or tensor that broadcasts against `probabilities`.
            Defaults to `0.5`, as in the paper.

    Returns:
        Tensor of zeros and ones, shape and dtype of `probabilities`.

    Reference:
        - [Wang et al., 2018](https://arxiv.org/abs/1711.09485), Eq. 7
    """

    @tf.custom_gradient
    def rounded(values):
        hard = tf.cast(values >= tf.cast(threshold, values.dtype), values.dtype)
        return hard, lambda upstream: upstream

    return rounded(tf.convert_to_tensor(probabilities))
