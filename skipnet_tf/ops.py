"""Operations with gradients of their own (Sec. 3.1 and 3.3, Eq. 1 and 7).

`straight_through` changes what the gradient is. The others compute the exact
gradient of what they do, in fewer passes over the maps than TensorFlow would
make: on a processor, memory is what gates cost in training.
"""

import tensorflow as tf

# How blocks obey decisions: by `Rows`, or by `mix`.
EXECUTIONS = ("conditional", "masked")


def check_execution(execution: str) -> str:
    """Raises `ValueError` for an unknown `execution`."""
    if execution not in EXECUTIONS:
        raise ValueError(
            f"`execution` must be one of {EXECUTIONS}. "
            f"Received: execution={execution!r}"
        )
    return execution


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


def spatial_mean(features: tf.Tensor) -> tf.Tensor:
    """Mean over height and width, what gates and classifiers read.

    TensorFlow sums half precision in float32; to convert the map first would
    take longer than the sum.

    Args:
        features: Float tensor `(batch, height, width, channels)`.

    Returns:
        Float32 tensor `(batch, channels)`.
    """
    return tf.cast(tf.reduce_mean(features, axis=(1, 2)), tf.float32)


def tap(features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The features and their spatial mean, for a gate before a block.

    The gradients of all gates are known early in the backward pass, before
    those of the blocks: spread over maps, they would wait in memory. Here they
    stay vectors until they are added to what comes from the block.

    Args:
        features: Float tensor `(batch, height, width, channels)`.

    Returns:
        `(features, means)`: what everything after the gate is to read, and
        float32 `(batch, channels)`.
    """
    shape, dtype = tf.shape(features), features.dtype

    @tf.custom_gradient
    def tapped(maps):
        def gradient(to_maps, to_means):
            pixels = tf.cast(shape[1] * shape[2], to_means.dtype)
            share = tf.cast(to_means / pixels, dtype)
            return to_maps + share[:, None, None, :]

        return (tf.identity(maps), spatial_mean(maps)), gradient

    return tapped(features)


def mix(
    outputs: tf.Tensor, shortcut: tf.Tensor, decisions: tf.Tensor
) -> tf.Tensor:
    """`decisions * outputs + (1 - decisions) * shortcut`, row by row (Eq. 1).

    Rows of hard decisions are copied and not multiplied, and nothing is
    copied where every decision is 1. The gradient of a decision is the sum of
    `(outputs - shortcut)` times what comes from above, at hard decisions too.

    Args:
        outputs: Float tensor `(batch, height, width, channels)`, `F(x)`.
        shortcut: Float tensor, shape and dtype of `outputs`.
        decisions: Float tensor `(batch,)` in [0, 1], `G(x)`.

    Returns:
        Float tensor, shape and dtype of `outputs`.

    Reference:
        - [Wang et al., 2018](https://arxiv.org/abs/1711.09485), Eq. 1
    """
    runs = decisions == 1
    every = tf.reduce_all(runs)
    hard = tf.reduce_all(runs | (decisions == 0))
    # 0: every row runs, 1: each row runs or not, 2: something between.
    case = tf.where(every, 0, tf.where(hard, 1, 2))
    share = tf.cast(decisions, outputs.dtype)[:, None, None, None]

    def choose(yes, no):
        return tf.raw_ops.Select(condition=runs, x=yes, y=no)

    @tf.custom_gradient
    def mixed(outputs, shortcut, decisions):
        def gradient(upstream):
            zeros = tf.zeros_like(upstream)
            to_outputs, to_shortcut = tf.switch_case(
                case,
                [
                    lambda: (upstream, zeros),
                    lambda: (choose(upstream, zeros), choose(zeros, upstream)),
                    lambda: (share * upstream, (1 - share) * upstream),
                ],
            )
            gain = tf.reduce_sum((outputs - shortcut) * upstream, (1, 2, 3))
            return to_outputs, to_shortcut, tf.cast(gain, decisions.dtype)

        result = tf.switch_case(
            case,
            [
                lambda: outputs,
                lambda: choose(outputs, shortcut),
                lambda: share * outputs + (1 - share) * shortcut,
            ],
        )
        return result, gradient

    return mixed(outputs, shortcut, decisions)


class Rows:
    """Takes the rows that run out of a batch, and puts results back (Eq. 1).

    `kept, rest = rows.split(inputs)` and `rows.merge(rest, outputs)` belong
    together: the gradient of `merge` leaves in `rest` what the gradient of
    `split` overwrites, so that no map of zeros is made and added. Where every
    row runs, nothing is copied.

    Args:
        runs: Bool tensor `(batch,)`, the rows that run.
    """

    def __init__(self, runs: tf.Tensor):
        self._every = tf.reduce_all(runs)
        self._indices = tf.cast(tf.where(runs)[:, 0], tf.int32)

    def split(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows that run, and `rest`, of use for `merge` only.

        Args:
            inputs: Tensor `(batch, ...)`.

        Returns:
            `(kept, rest)`: a tensor `(rows, ...)`, and one of the shape of
            `inputs`.
        """

        @tf.custom_gradient
        def split(values):
            def gradient(to_kept, to_rest):
                return self._put(to_rest, to_kept)

            return (self._take(values), tf.identity(values)), gradient

        return split(inputs)

    def merge(self, rest: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Puts `outputs` of the rows that run in their places in `rest`.

        Args:
            rest: Tensor `(batch, ...)`, from `split`.
            outputs: Tensor `(rows, ...)`.

        Returns:
            Tensor, the shape of `rest`.
        """

        @tf.custom_gradient
        def merge(rest, outputs):
            def gradient(upstream):
                return upstream, self._take(upstream)

            return self._put(rest, outputs), gradient

        return merge(rest, outputs)

    def _take(self, values):
        return tf.cond(
            self._every,
            lambda: values,
            lambda: tf.gather(values, self._indices),
        )

    def _put(self, values, rows):
        return tf.cond(
            self._every,
            lambda: rows,
            lambda: _update_rows(values, self._indices, rows),
        )


def _update_rows(values, indices, rows):
    """As `tf.tensor_scatter_nd_update`, which copies `values` every time.

    Replacing nothing copies if, and only if, somebody else still holds the
    tensor. What it returns belongs to nobody, and may be changed in place.
    """
    shape, dtype = tf.shape(values), values.dtype
    nothing = tf.zeros(tf.concat([[0], shape[1:]], axis=0), dtype)
    # Not before the rows are there: they were gathered from `values`. The
    # identity is an operation of this graph, which the branch of a condition
    # can wait for.
    rows = tf.identity(rows)
    with tf.control_dependencies([rows, shape]):
        own = tf.raw_ops.TensorStridedSliceUpdate(
            input=values, begin=[0], end=[0], strides=[1], value=nothing
        )
    if dtype.size == 2 and values.shape[-1] % 2 == 0:
        # Half precision is copied number by number; in pairs it is as fast.
        own, rows = _in_pairs(own), _in_pairs(rows)
    updated = tf.raw_ops.InplaceUpdate(x=own, i=indices, v=rows)
    return tf.reshape(tf.bitcast(updated, dtype), shape)


def _in_pairs(maps):
    count, height, width, channels = tf.unstack(tf.shape(maps))
    pairs = tf.reshape(maps, [count, height, width, channels // 2, 2])
    return tf.bitcast(pairs, tf.float32)
