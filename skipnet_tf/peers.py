"""Stages of later work: gates trained without rewards.

Decisions are drawn, and their gradient is that of a relaxed sample
(`policy.Gumbel`), so that gates learn by back-propagation. What a block costs
enters as a term of the loss instead of a reward. At inference the thresholded
policy decides, without noise.
"""

import numbers
from collections.abc import Sequence

import keras
import tensorflow as tf

from skipnet_tf import objectives
from skipnet_tf import policy
from skipnet_tf import schedules
from skipnet_tf.stages import Stage
from skipnet_tf.stages import mean_over_replicas


class GumbelStage(Stage):
    """Base: `loss = L + weight * policy_loss`, under Gumbel decisions.

    Blocks are always masked: a gate learns from what its block would have
    computed for the images that skip it.
    """

    def __init__(self, weight, temperature, seed):
        super().__init__(seed)
        if not _is_number(temperature) or not temperature > 0.0:
            raise ValueError(
                "`temperature` must be a number above 0. "
                f"Received: temperature={temperature!r}"
            )
        self.temperature = float(temperature)
        self._set_hyperparameters(weight=weight)

    def policy(self, seed, images):
        return policy.Gumbel(seed, self.temperature)

    def total(self, supervised, policy_loss, step):
        return supervised + self.value("weight", step) * policy_loss

    def get_config(self):
        return {
            **super().get_config(),
            "target": self.target,
            "temperature": self.temperature,
        }


@keras.saving.register_keras_serializable(package="skipnet_tf")
class TargetRate(GumbelStage):
    """Every block runs for a given share of the images (ConvNet-AIG).

    The policy loss is the mean over gates of `(target - rate)^2`, as in the
    published code; the rate of a gate is its mean decision over the batch of
    all replicas, or over a part of it where gradients are accumulated.

    Args:
        target: Float in [0, 1], share of images that run each block, or a
            sequence of one for each gate. Defaults to `0.7`.
        weight: Float, at least 0, or a schedule, a callable of the training
            step. Defaults to `2.0`, the published value.
        temperature: Float above 0, see `policy.Gumbel`. Defaults to `1.0`,
            the published value.
        seed: Int, of the sampled decisions. Defaults to `0`.

    Raises:
        ValueError: If a number is out of range.

    Reference:
        - [Veit and Belongie, 2018](https://arxiv.org/abs/1711.11503)
    """

    def __init__(
        self,
        target: float | Sequence[float] = 0.7,
        weight=2.0,
        temperature: float = 1.0,
        seed: int = 0,
    ):
        super().__init__(weight, temperature, seed)
        each = [target] if _is_number(target) else list(target)
        if not all(_is_number(rate) and 0.0 <= rate <= 1.0 for rate in each):
            raise ValueError(
                "`target` must be a number in [0, 1], or one for each gate. "
                f"Received: target={target!r}"
            )
        self.target = target if _is_number(target) else each

    def policy_terms(self, routed, cross_entropy, step, seed):
        rates = _rates(routed["gates"])
        loss = objectives.target_rate_loss(rates, self.target)
        return {"policy_loss": loss}


@keras.saving.register_keras_serializable(package="skipnet_tf")
class Budget(GumbelStage):
    """A network spends a given share of its multiply-adds (DynConv).

    The policy loss is `objectives.budget_loss`: the squared distance of the
    network from its budget, and bounds for each block that loosen by a squared
    cosine and are gone after `anneal_steps`. Published for parts of a map,
    here for whole blocks, as LAUDNet does. Rates are means over the batch, see
    `TargetRate`.

    Args:
        target: Float in (0, 1], multiply-adds to spend, gates included,
            relative to the network without gates: the `multiply_adds` that
            training logs. Defaults to `0.5`.
        weight: Float, at least 0, or a schedule, a callable of the training
            step. Defaults to `10.0`, the published value.
        anneal_steps: Positive int, training steps with bounds; published, a
            third of all.
        temperature: Float above 0, see `policy.Gumbel`. Defaults to `1.0`,
            the published value.
        seed: Int, of the sampled decisions. Defaults to `0`.

    Raises:
        ValueError: If a number is out of range, or, at the first training
            step, if more than `target` is spent with all blocks skipped.

    Reference:
        - [Verelst and Tuytelaars, 2020](https://arxiv.org/abs/1912.03203)
    """

    def __init__(
        self,
        target: float = 0.5,
        weight=10.0,
        *,
        anneal_steps: int,
        temperature: float = 1.0,
        seed: int = 0,
    ):
        super().__init__(weight, temperature, seed)
        if not _is_number(target) or not 0.0 < target <= 1.0:
            raise ValueError(
                "`target` must be a number in (0, 1]. "
                f"Received: target={target!r}"
            )
        if not isinstance(anneal_steps, int) or anneal_steps < 1:
            raise ValueError(
                "`anneal_steps` must be a positive int. "
                f"Received: anneal_steps={anneal_steps!r}"
            )
        self.target = target
        self.anneal_steps = anneal_steps
        # (1 + cos x) / 2 is cos^2 (x / 2).
        self.tightness = schedules.cosine(1.0, anneal_steps)

    def policy_terms(self, routed, cross_entropy, step, seed):
        fixed = routed["fixed_share"]
        objectives.check_affordable("target", self.target, fixed)
        loss = objectives.budget_loss(
            _rates(routed["gates"]),
            self.target,
            fixed,
            routed["block_shares"],
            self.tightness(step),
        )
        return {"policy_loss": loss}

    def get_config(self):
        return {**super().get_config(), "anneal_steps": self.anneal_steps}


def _is_number(value):
    return isinstance(value, numbers.Real)


def _rates(gates):
    """Share of images that run each block, over all replicas."""
    # The square of a mean is not the mean of squares: each replica for itself
    # would be punished for the chance of its few images.
    return mean_over_replicas(tf.reduce_mean(gates, axis=0))
