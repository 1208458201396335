"""Stages whose gates learn by REINFORCE (Sec. 3.2, 3.3 and 4.3).

Beyond the paper, each an argument of its own: a baseline for the rewards,
an entropy bonus, bounded probabilities, and a price of computation that finds
itself, so that a run ends at the multiply-adds it is asked for.
"""

import numbers

import keras
import tensorflow as tf

from skipnet_tf import objectives
from skipnet_tf import ops
from skipnet_tf import policy
from skipnet_tf.stages import Stage
from skipnet_tf.stages import mean_over_replicas
from skipnet_tf.stages import variable

BASELINES = ("none", "moving", "self_critical")
# Share that one step's mean has in the moving baseline.
_MOVING_SHARE = 0.05
# Price of computation per unit of multiply-adds over the target: at once, and
# added up over the steps.
_AT_ONCE = 5.0
_A_STEP = 0.04


@keras.saving.register_keras_serializable(package="skipnet_tf")
class HybridReinforce(Stage):
    """Hybrid reinforcement learning (HRL, Sec. 3.2 and 3.3, Eq. 5 and 6).

    Decisions are sampled; the network learns from the cross-entropy of the
    sampled path, the gates from REINFORCE:
    `loss = L + rl_weight * policy_gradient_loss`. Every number may also be a
    schedule, a callable of the training step. The defaults are the published
    method.

    Args:
        alpha: Float, at least 0 unless `target_macs` adapts it, price of
            computation: the reward of skipping every block. Defaults to
            `0.1`, the published CIFAR value.
        beta: Float, weight of the prediction loss in the reward, or
            `"alpha/N"`, the paper's choice for ImageNet, which an adapted
            price would turn against being right. Defaults to `1.0`.
        gamma: Float in [0, 1], discount from gate to gate. Defaults to `1.0`.
        rl_weight: Float, weight of the policy loss, a mean over images.
            Defaults to `1.28`: the published 0.01 weighs a sum over 128.
        costs: Optional sequence of N floats, relative cost C_i of each block.
            Defaults to `None`, all equal as in the paper.
        seed: Int, of the sampled decisions. Defaults to `0`.
        execution: `"masked"`, every block is computed for every image, or
            `"conditional"`, a skipped block costs neither forward nor
            backward, and batch statistics come from the images that run it.
            XLA and several replicas, whose statistics are synchronised, fall
            back to `"masked"`. Defaults to `"masked"`, as published.
        target_macs: Float in (0, 1], or a schedule, multiply-adds that the
            thresholded policy is to spend, gates included, relative to the
            network without gates. `alpha` is then only the price to begin
            with: it rises while more is spent and falls, below 0 if need be,
            while less is. Defaults to `None`, a fixed price.
        baseline: What is subtracted from the returns, which changes their
            variance and not the expected gradient: `"none"`;
            `"moving"`, the return at the moving averages of rates and loss;
            or `"self_critical"`, the return of the thresholded policy for the
            same image, at the price of one more forward pass. Defaults to
            `"none"`, as published.
        entropy_weight: Float, at least 0, reward for undecided gates: the
            policy loss falls by so much for each nat of entropy, summed over
            gates. Defaults to `0.0`.
        min_probability: Float in [0, 0.5), probability that both decisions
            keep when they are sampled: p becomes
            `min_probability + (1 - 2 * min_probability) * p`. Defaults to
            `0.0`.
        gates_alone: Bool, the backbone stays as it is, statistics of
            normalisation included: steps then take a fraction of the time.
            `compile` freezes it, and with the next stage all of it learns
            again. Defaults to `False`.

    Raises:
        ValueError: If an argument is not as described, or, at the first
            training step, if more than `target_macs` is spent with all
            blocks skipped.

    Reference:
        - [Wang et al., 2018](https://arxiv.org/abs/1711.09485), Eq. 5, 6
        - [Rennie et al., 2017](https://arxiv.org/abs/1612.00563), the
          self-critical baseline
        - [Wu et al., 2018](https://arxiv.org/abs/1711.08393), the same for
          blocks, and bounded probabilities
    """

    samples = True

    def __init__(
        self,
        alpha=0.1,
        beta=1.0,
        gamma=1.0,
        rl_weight=1.28,
        costs=None,
        seed: int = 0,
        execution: str = "masked",
        target_macs=None,
        baseline: str = "none",
        entropy_weight=0.0,
        min_probability: float = 0.0,
        gates_alone: bool = False,
    ):
        super().__init__(seed)
        _check(beta, gamma, baseline, min_probability, gates_alone)
        _check_target(target_macs, alpha, beta)
        self.gates_alone = gates_alone
        self.execution = ops.check_execution(execution)
        values = {
            "alpha": alpha,
            "gamma": gamma,
            "rl_weight": rl_weight,
            "entropy_weight": entropy_weight,
        }
        if isinstance(beta, str):
            self.beta = beta
        else:
            values["beta"] = beta
        # An adapted price may have fallen below 0 when it was saved.
        signed = () if target_macs is None else ("alpha",)
        self._set_hyperparameters(signed, **values)
        self.costs = None if costs is None else [float(c) for c in costs]
        if self.costs is not None and min(self.costs) <= 0:
            raise ValueError(f"`costs` must be positive. Received: {costs}")
        if isinstance(target_macs, dict):
            target_macs = keras.saving.deserialize_keras_object(target_macs)
        self.target_macs = target_macs
        self.baseline = baseline
        self.min_probability = float(min_probability)

    @property
    def self_critical(self) -> bool:
        """Whether training runs the thresholded policy too."""
        return self.baseline == "self_critical"

    def build(self, groups):
        self.state = []
        if self.baseline == "moving":
            self.state = [
                variable(tf.zeros([sum(groups) - 1]), "moving_skips"),
                variable(0.0, "moving_loss"),
                variable(0.0, "moving_weight"),
            ]

    def policy(self, seed, images):
        return policy.Sampled(seed, self.min_probability)

    def policy_terms(self, routed, cross_entropy, step, seed):
        price = self._price(routed, step)
        rewards = self._returns(routed["gates"], cross_entropy, price, step)
        reward = tf.reduce_mean(rewards[:, 0])
        reference = self._reference(routed, cross_entropy)
        if reference is not None:
            rewards -= self._returns(*reference, price, step)
        logits = policy.bounded(routed["gate_logits"], self.min_probability)
        loss = objectives.policy_gradient_loss(logits, routed["gates"], rewards)
        entropy = objectives.entropy(routed["gate_logits"])
        loss -= self.value("entropy_weight", step) * entropy
        return {"policy_loss": loss, "mean_reward": reward, "price": price}

    def _returns(self, gates, cross_entropy, price, step):
        return objectives.returns(
            gates,
            cross_entropy,
            alpha=price,
            beta=self._beta(gates, price, step),
            gamma=self.value("gamma", step),
            costs=self.costs,
        )

    def _beta(self, gates, price, step):
        if isinstance(self.beta, str):
            return price / gates.shape[1]
        return self.value("beta", step)

    def _price(self, routed, step):
        """Alpha of this step; where there is a target, adapted to it."""
        if self.target_macs is None:
            return self.value("alpha", step)
        fixed, target = routed["fixed_share"], self.target_macs
        if callable(target):
            target = target(step)
        else:
            objectives.check_affordable("target_macs", target, fixed)

        def over(runs):
            rates = mean_over_replicas(tf.reduce_mean(runs, axis=0))
            spent = fixed + tf.reduce_sum(rates * routed["block_shares"])
            return spent - target

        # Thresholded decisions are what is asked for, but they jump: what the
        # probabilities spend says earlier where they are going.
        probabilities = tf.sigmoid(routed["gate_logits"])
        runs = probabilities >= routed["threshold"]
        jumps = over(tf.cast(runs, tf.float32))
        smooth = over(probabilities)
        self.alpha.assign_add(_A_STEP * routed["part"] * jumps)
        return self.alpha + _AT_ONCE * smooth

    def _reference(self, routed, cross_entropy):
        """Decisions and loss that a route is compared with, or `None`."""
        if self.baseline == "self_critical":
            return routed["reference_gates"], routed["reference_loss"]
        if self.baseline == "none":
            return None
        skips, loss, weight = self.state
        # Skips, not rates: before the first step there is then no reward.
        before = (
            1.0 - tf.math.divide_no_nan(tf.identity(skips), weight)[None],
            tf.math.divide_no_nan(tf.identity(loss), weight)[None],
        )
        for total, now in (
            (skips, 1.0 - tf.reduce_mean(routed["gates"], axis=0)),
            (loss, tf.reduce_mean(tf.cast(cross_entropy, tf.float32))),
            (weight, tf.constant(1.0)),
        ):
            now = mean_over_replicas(tf.stop_gradient(now))
            total.assign_add(_MOVING_SHARE * routed["part"] * (now - total))
        return before

    def total(self, supervised, policy_loss, step):
        return supervised + self.value("rl_weight", step) * policy_loss

    def get_config(self):
        return {
            "beta": self.beta,
            **super().get_config(),
            "costs": self.costs,
            "execution": self.execution,
            "target_macs": keras.saving.serialize_keras_object(
                self.target_macs
            ),
            "baseline": self.baseline,
            "min_probability": self.min_probability,
            "gates_alone": self.gates_alone,
        }


@keras.saving.register_keras_serializable(package="skipnet_tf")
class Reinforce(HybridReinforce):
    """Pure reinforcement learning, the paper's baseline "RL" (Sec. 4.3).

    No gradient of the cross-entropy: the class prediction is one more sampled
    action, rewarded with minus the loss, like every gate; baselines are
    subtracted from the rewards of the gates alone. The paper reports about
    10 % accuracy on CIFAR-10, which is chance.

    Args:
        alpha: See `HybridReinforce`. Defaults to `0.1`.
        beta: See `HybridReinforce`. Defaults to `1.0`.
        gamma: See `HybridReinforce`. Defaults to `1.0`.
        rl_weight: See `HybridReinforce`. Defaults to `1.28`.
        costs: See `HybridReinforce`. Defaults to `None`.
        seed: Int, of the sampled decisions. Defaults to `0`.
        execution: See `HybridReinforce`. Defaults to `"masked"`.
        target_macs: See `HybridReinforce`. Defaults to `None`.
        baseline: See `HybridReinforce`. Defaults to `"none"`.
        entropy_weight: See `HybridReinforce`. Defaults to `0.0`.
        min_probability: See `HybridReinforce`. Defaults to `0.0`.
        gates_alone: See `HybridReinforce`. Defaults to `False`.
    """

    supervises = False

    def policy_terms(self, routed, cross_entropy, step, seed):
        terms = super().policy_terms(routed, cross_entropy, step, seed)
        gates, logits = routed["gates"], routed["logits"]
        # The prediction is action N + 1; gate indices stop at N.
        classes = tf.random.stateless_categorical(
            logits,
            1,
            tf.random.experimental.stateless_fold_in(seed, gates.shape[1] + 1),
            dtype=tf.int32,
        )[:, 0]
        beta = self._beta(gates, terms["price"], step)
        loss = objectives.class_action_loss(
            logits, classes, -beta * cross_entropy
        )
        return {**terms, "policy_loss": terms["policy_loss"] + loss}

    def total(self, supervised, policy_loss, step):
        return self.value("rl_weight", step) * policy_loss


def _check(beta, gamma, baseline, min_probability, gates_alone):
    if not isinstance(gates_alone, bool):
        raise ValueError(
            "`gates_alone` must be True or False. "
            f"Received: gates_alone={gates_alone!r}"
        )
    if isinstance(gamma, numbers.Real) and gamma > 1:
        raise ValueError(f"`gamma` must be at most 1. Received: gamma={gamma}")
    if isinstance(beta, str) and beta != "alpha/N":
        raise ValueError(
            f'`beta` must be a number or "alpha/N". Received: beta={beta!r}'
        )
    if baseline not in BASELINES:
        raise ValueError(
            f"`baseline` must be one of {BASELINES}. "
            f"Received: baseline={baseline!r}"
        )
    bound = min_probability
    if not isinstance(bound, numbers.Real) or not 0.0 <= bound < 0.5:
        raise ValueError(
            "`min_probability` must be a number in [0, 0.5). "
            f"Received: min_probability={bound!r}"
        )


def _check_target(target, alpha, beta):
    if target is None:
        return
    known = isinstance(target, numbers.Real)
    schedule = callable(target) or isinstance(target, dict)  # of a file
    if not schedule and not (known and 0.0 < target <= 1.0):
        raise ValueError(
            "`target_macs` must be a number in (0, 1] or a schedule. "
            f"Received: target_macs={target!r}"
        )
    if not isinstance(alpha, numbers.Real):
        raise ValueError(
            "`alpha` must be a number where `target_macs` adapts it. "
            f"Received: alpha={alpha!r}"
        )
    if isinstance(beta, str):
        raise ValueError(
            "`beta` must be a number where `target_macs` adapts the price, "
            f"which may fall below 0. Received: beta={beta!r}"
        )
