"""From gate logits to decisions (Sec. 3.2 and 3.3).

A policy is called once per gate, in the order of the blocks:
`policy(logits, gate)` with float32 logits `(batch,)` of running the block and
the gate's index. It returns float32 decisions `(batch,)`: 1 runs the block,
0 skips it, and only `Soft` gives anything between.

The policies of inference can also say all their decisions in advance:
`cutoffs(batch, gates)`, float32 `(batch, gates)`, the logits from which on a
block runs. Minus infinity always runs it, plus infinity never.
"""

import dataclasses

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from skipnet_tf import ops


@dataclasses.dataclass(frozen=True)
class Relaxed:
    """Hard decisions with a straight-through gradient (Eq. 7)."""

    def __call__(self, logits: tf.Tensor, gate: int) -> tf.Tensor:
        return ops.straight_through(tf.sigmoid(logits))


@dataclasses.dataclass(frozen=True)
class Soft:
    """Probabilities as mixing weights ("soft gating", Table 3)."""

    def __call__(self, logits: tf.Tensor, gate: int) -> tf.Tensor:
        return tf.sigmoid(logits)


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Bernoulli samples, the stochastic policy of REINFORCE (Sec. 3.2).

    Args:
        seed: Int32 tensor `(2,)`: equal seeds draw equal decisions.
        min_probability: Float in [0, 0.5), see `bounded`. Defaults to `0.0`.
    """

    seed: tf.Tensor
    min_probability: float = 0.0

    def __call__(self, logits: tf.Tensor, gate: int) -> tf.Tensor:
        seed = tf.random.experimental.stateless_fold_in(self.seed, gate)
        logits = bounded(logits, self.min_probability)
        bernoulli = tfp.distributions.Bernoulli(logits, dtype=tf.float32)
        return tf.stop_gradient(bernoulli.sample(seed=seed))


def bounded(logits: tf.Tensor, min_probability: float) -> tf.Tensor:
    """Log-odds of `m + (1 - 2m) * p`, which leave every decision a chance.

    Args:
        logits: Float tensor, log-odds of p.
        min_probability: Float m in [0, 0.5).

    Returns:
        Float tensor of the same shape.
    """
    if not min_probability:
        return logits
    spread = 1.0 - 2.0 * min_probability
    runs = min_probability + spread * tf.sigmoid(logits)
    skips = min_probability + spread * tf.sigmoid(-logits)
    return tf.math.log(runs) - tf.math.log(skips)


@dataclasses.dataclass(frozen=True)
class Gumbel:
    """Bernoulli samples with the gradient of a relaxed sample.

    Forward the decisions are those of `Sampled`, whatever the temperature:
    noise from the logistic distribution is added to the logits, and a block
    runs where the sum is not negative. Backward they are
    `sigmoid((logits + noise) / temperature)`.

    Args:
        seed: Int32 tensor `(2,)`: equal seeds draw equal decisions.
        temperature: Float above 0: the lower, the steeper the relaxation and
            the rarer a gradient that is not nearly 0. Defaults to `1.0`.

    Reference:
        - [Jang et al., 2017](https://arxiv.org/abs/1611.01144), Sec. 2.2
        - [Maddison et al., 2017](https://arxiv.org/abs/1611.00712)
    """

    seed: tf.Tensor
    temperature: float = 1.0

    def __call__(self, logits: tf.Tensor, gate: int) -> tf.Tensor:
        seed = tf.random.experimental.stateless_fold_in(self.seed, gate)
        concrete = tfp.distributions.RelaxedBernoulli(
            self.temperature, logits=logits
        )
        return ops.straight_through(concrete.sample(seed=seed))


@dataclasses.dataclass(frozen=True)
class Thresholded:
    """Deterministic decisions for inference.

    Args:
        threshold: Float or float tensor `(batch,)`: a block runs where its
            probability is at least this. Defaults to `0.5`.
    """

    threshold: float | tf.Tensor = 0.5

    def __call__(self, logits: tf.Tensor, gate: int) -> tf.Tensor:
        runs = tf.sigmoid(logits) >= tf.cast(self.threshold, logits.dtype)
        return tf.cast(runs, logits.dtype)

    def cutoffs(self, batch: tf.Tensor, gates: int) -> tf.Tensor:
        """The threshold's log-odds: cheaper to compare than probabilities.

        No logit reaches a threshold of 1, whose probability a large one does
        reach once it is rounded.
        """
        threshold = tf.cast(self.threshold, tf.float64)
        log_odds = tf.math.log(threshold) - tf.math.log1p(-threshold)
        columns = tf.reshape(tf.cast(log_odds, tf.float32), [-1, 1])
        return tf.broadcast_to(columns, [batch, gates])


@dataclasses.dataclass(frozen=True)
class Random:
    """Skips blocks at a fixed rate, whatever the image (SDV, Sec. 4.1).

    Args:
        rate: Float in [0, 1], the share of skipped blocks.
        seed: Int32 tensor `(2,)`: equal seeds draw equal decisions.
        whole_batch: Bool, one draw for all images of a batch, as stochastic
            depth does in training, instead of one for each image.
        images: Optional float tensor `(batch, height, width, channels)`: an
            image then draws the same decisions in whatever batch it comes.
    """

    rate: float | tf.Tensor
    seed: tf.Tensor
    whole_batch: bool = False
    images: tf.Tensor | None = None

    def __call__(self, logits: tf.Tensor, gate: int) -> tf.Tensor:
        seed = tf.random.experimental.stateless_fold_in(self.seed, gate)
        if self.images is not None:
            uniform = _uniform_of(self.images, seed)
        else:
            draws = [1] if self.whole_batch else tf.shape(logits)
            uniform = tf.random.stateless_uniform(draws, seed)
        runs = tf.cast(uniform >= self.rate, logits.dtype)
        return tf.broadcast_to(runs, tf.shape(logits))

    def cutoffs(self, batch: tf.Tensor, gates: int) -> tf.Tensor:
        """Infinite: the logits have no say."""
        unread = tf.zeros([batch])
        decisions = [self(unread, gate) for gate in range(gates)]
        return _imposed(tf.stack(decisions, axis=1))


@dataclasses.dataclass(frozen=True)
class Elastic:
    """Runs the first blocks of every group, as many as are drawn.

    Args:
        depths: Tuple of a pair for each group: fewest blocks that run, and all.
        seed: Int32 tensor `(2,)`: equal seeds draw equal depths.
    """

    depths: tuple[tuple[int, int], ...]
    seed: tf.Tensor

    def __call__(self, logits: tf.Tensor, gate: int) -> tf.Tensor:
        group, place = self._place(gate)
        least, most = self.depths[group]
        drawn = tf.random.stateless_uniform(
            tf.shape(logits),
            tf.random.experimental.stateless_fold_in(self.seed, group),
            least,
            most + 1,
            tf.int32,
        )
        return tf.cast(place < drawn, logits.dtype)

    def _place(self, gate):
        """Group of the gate's block, and its place in there."""
        firsts = np.cumsum([0] + [blocks for _, blocks in self.depths])
        block = gate + 1  # the first block has no gate
        group = int(np.searchsorted(firsts, block, "right")) - 1
        return group, block - int(firsts[group])


@dataclasses.dataclass(frozen=True)
class Forced:
    """Imposed decisions.

    Args:
        actions: Tensor `(batch, gates)`, 1 runs a block, 0 skips it.
    """

    actions: tf.Tensor

    def __call__(self, logits: tf.Tensor, gate: int) -> tf.Tensor:
        return tf.cast(self.actions[:, gate], logits.dtype)

    def cutoffs(self, batch: tf.Tensor, gates: int) -> tf.Tensor:
        """Infinite: the logits have no say."""
        return _imposed(tf.cast(self.actions, tf.float32))


def _imposed(decisions):
    infinity = tf.constant(float("inf"))
    return tf.where(decisions >= 0.5, -infinity, infinity)


def _uniform_of(images, seed):
    """Float32 `(batch,)` in [0, 1), a hash of each image's pixels."""
    bits = tf.bitcast(tf.cast(images, tf.float32), tf.uint32)
    bits = tf.reduce_sum(tf.cast(bits, tf.uint64), axis=(1, 2, 3))
    # The finaliser of MurmurHash3, 64 bits (public domain).
    value = bits + tf.cast(tf.bitcast(seed, tf.uint64), tf.uint64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = tf.bitwise.bitwise_xor(value, _shifted(value, 33))
        value *= tf.constant(factor, tf.uint64)
    return tf.cast(_shifted(value, 40), tf.float32) / 2.0**24


def _shifted(value, bits):
    return tf.bitwise.right_shift(value, tf.constant(bits, tf.uint64))
