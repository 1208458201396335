"""The stages of training (Sec. 3.3, Algorithm 1): policy and loss of each.

A stage belongs to `compile`, not to the network: what it anneals is kept in
its own variables, so that weights move freely from stage to stage.
"""

import math
import numbers

import keras
import tensorflow as tf

from skipnet_tf import objectives
from skipnet_tf import ops
from skipnet_tf import policy

# Decisions of the random baseline at inference; any constant would do.
_INFERENCE_SEED = (1, 1)


class Stage:
    """Base of the stages: seeds, hyper-parameters and the plain defaults.

    A hyper-parameter is a number, held in a `tf.Variable` so that it can be
    assigned while training runs (`stage.alpha.assign(0.2)`), or a schedule,
    a callable of the training step.
    """

    # Names of the hyper-parameters; set by `_set_hyperparameters`.
    hyperparameters: tuple[str, ...] = ()
    samples = False  # Is the sampled policy validated too?
    supervises = True  # Is the loss of the prediction differentiated?
    # How blocks obey decisions in training, see `blocks.GatedBlock`.
    execution = "masked"

    def __init__(self, seed: int = 0):
        self.seed = seed

    def policy(self, seed):
        """The policy of one training step on one replica."""
        raise NotImplementedError

    def inference_policy(self, threshold, images):
        """The policy of inference on a batch of images."""
        return policy.Thresholded(threshold)

    def policy_terms(self, routed, cross_entropy, step, seed):
        """What the stage adds to the loss, and metrics to log with it.

        Args:
            routed: What `SkipNet.route` returns, and `fixed_share` and
                `block_shares`, see `StagedClassifier`.
            cross_entropy: Float tensor `(batch,)`, in nats.
            step: Int64 scalar, the training step.
            seed: Int32 tensor `(2,)`, the seed that `policy` was given.

        Returns:
            Dict of scalars of this replica, by names of `RouteMetrics`:
            `policy_loss`, and others; or empty.
        """
        return {}

    def total(self, supervised, policy_loss, step):
        """The loss to be minimised, from its two parts."""
        return supervised

    def value(self, name: str, step):
        """Value of hyper-parameter `name` at training step `step`."""
        value = getattr(self, name)
        return value(step) if callable(value) else tf.identity(value)

    @property
    def variables(self) -> list[tf.Variable]:
        """The hyper-parameters that are variables."""
        values = (getattr(self, name) for name in self.hyperparameters)
        return [value for value in values if not callable(value)]

    def _set_hyperparameters(self, **values):
        self.hyperparameters = tuple(values)
        for name, value in values.items():
            if isinstance(value, dict):
                value = keras.saving.deserialize_keras_object(value)
            if not callable(value):
                _check_number(name, value)
                value = tf.Variable(
                    float(value),
                    trainable=False,
                    name=name,
                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                )
            setattr(self, name, value)

    def step_seed(self, step, replica):
        """Int32 seed `(2,)` of all that is drawn in a step on a replica."""
        seed = tf.stack([self.seed, tf.cast(step, tf.int32)])
        return tf.random.experimental.stateless_fold_in(seed, replica)

    def get_config(self):
        """Constructor arguments, with the present value of each variable."""
        config = {"seed": self.seed}
        for name in self.hyperparameters:
            value = getattr(self, name)
            config[name] = (
                keras.saving.serialize_keras_object(value)
                if callable(value)
                else float(value.numpy())
            )
        return config

    @classmethod
    def from_config(cls, config):
        """A stage equal to the one that gave `config`."""
        return cls(**config)


def _check_number(name, value, low=0.0):
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(
            f"`{name}` must be a number or a schedule. "
            f"Received: {name}={value!r}"
        )
    if value < low:
        raise ValueError(
            f"`{name}` must be at least {low:g}. Received: {name}={value}"
        )


@keras.saving.register_keras_serializable(package="skipnet_tf")
class Supervised(Stage):
    """Supervised pre-training (SP, Sec. 3.3) with cross-entropy alone.

    Args:
        gating: `"hard"`, decisions rounded forward and straight-through
            backward (Eq. 7); `"soft"`, probabilities as mixing weights,
            rounded at inference (Table 3); or `"random"`, blocks skipped at
            `skip_rate` in training and inference (the stochastic-depth
            variant SDV, Sec. 4.1). Defaults to `"hard"`.
        skip_rate: Float in [0, 1], share of skipped blocks of `"random"`.
            Defaults to `0.0`.
        seed: Int, of the random decisions. Defaults to `0`.

    Raises:
        ValueError: If `gating` is unknown or `skip_rate` out of range.
    """

    def __init__(
        self, gating: str = "hard", skip_rate: float = 0.0, seed: int = 0
    ):
        super().__init__(seed)
        if gating not in ("hard", "soft", "random"):
            raise ValueError(
                '`gating` must be "hard", "soft" or "random". '
                f"Received: gating={gating!r}"
            )
        if not 0.0 <= skip_rate <= 1.0:
            raise ValueError(
                "`skip_rate` must lie in [0, 1]. "
                f"Received: skip_rate={skip_rate}"
            )
        self.gating = gating
        self.skip_rate = skip_rate

    def policy(self, seed):
        if self.gating == "hard":
            return policy.Relaxed()
        if self.gating == "soft":
            return policy.Soft()
        return policy.Random(self.skip_rate, seed, whole_batch=True)

    def inference_policy(self, threshold, images):
        if self.gating == "random":
            seed = tf.constant(_INFERENCE_SEED)
            return policy.Random(self.skip_rate, seed, images=images)
        return super().inference_policy(threshold, images)

    def get_config(self):
        return {
            **super().get_config(),
            "gating": self.gating,
            "skip_rate": self.skip_rate,
        }


@keras.saving.register_keras_serializable(package="skipnet_tf")
class HybridReinforce(Stage):
    """Hybrid reinforcement learning (HRL, Sec. 3.2 and 3.3, Eq. 5 and 6).

    Decisions are sampled; the network learns from the cross-entropy of the
    sampled path, the gates from REINFORCE:
    `loss = L + rl_weight * policy_gradient_loss`. Every number may also be a
    schedule, a callable of the training step.

    Args:
        alpha: Float, at least 0, price of computation: the reward of skipping
            every block. Defaults to `0.1`, the published CIFAR value.
        beta: Float, weight of the prediction loss in the reward, or
            `"alpha/N"`, the paper's choice for ImageNet. Defaults to `1.0`.
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

    Raises:
        ValueError: If a number is out of range or `execution` is unknown.

    Reference:
        - [Wang et al., 2018](https://arxiv.org/abs/1711.09485), Eq. 5, 6
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
    ):
        super().__init__(seed)
        self.execution = ops.check_execution(execution)
        values = {"alpha": alpha, "gamma": gamma, "rl_weight": rl_weight}
        if isinstance(gamma, numbers.Real) and gamma > 1:
            raise ValueError(
                f"`gamma` must be at most 1. Received: gamma={gamma}"
            )
        if isinstance(beta, str):
            if beta != "alpha/N":
                raise ValueError(
                    '`beta` must be a number or "alpha/N". '
                    f"Received: beta={beta!r}"
                )
            self.beta = beta
        else:
            values["beta"] = beta
        self._set_hyperparameters(**values)
        self.costs = None if costs is None else [float(c) for c in costs]
        if self.costs is not None and min(self.costs) <= 0:
            raise ValueError(f"`costs` must be positive. Received: {costs}")

    def policy(self, seed):
        return policy.Sampled(seed)

    def policy_terms(self, routed, cross_entropy, step, seed):
        rewards = objectives.returns(
            routed["gates"],
            cross_entropy,
            alpha=self.value("alpha", step),
            beta=self.beta_value(routed["gates"], step),
            gamma=self.value("gamma", step),
            costs=self.costs,
        )
        loss = objectives.policy_gradient_loss(
            routed["gate_logits"], routed["gates"], rewards
        )
        reward = tf.reduce_mean(rewards[:, 0])
        return {"policy_loss": loss, "mean_reward": reward}

    def beta_value(self, gates, step):
        """Weight of the prediction loss in the reward, a scalar."""
        if isinstance(self.beta, str):
            return self.value("alpha", step) / gates.shape[1]
        return self.value("beta", step)

    def total(self, supervised, policy_loss, step):
        return supervised + self.value("rl_weight", step) * policy_loss

    def get_config(self):
        return {
            "beta": self.beta,
            **super().get_config(),
            "costs": self.costs,
            "execution": self.execution,
        }


@keras.saving.register_keras_serializable(package="skipnet_tf")
class Reinforce(HybridReinforce):
    """Pure reinforcement learning, the paper's baseline "RL" (Sec. 4.3).

    No gradient of the cross-entropy: the class prediction is one more sampled
    action, rewarded with minus the loss, like every gate. The paper reports
    about 10 % accuracy on CIFAR-10, which is chance.

    Args:
        alpha: See `HybridReinforce`. Defaults to `0.1`.
        beta: See `HybridReinforce`. Defaults to `1.0`.
        gamma: See `HybridReinforce`. Defaults to `1.0`.
        rl_weight: See `HybridReinforce`. Defaults to `1.28`.
        costs: See `HybridReinforce`. Defaults to `None`.
        seed: Int, of the sampled decisions. Defaults to `0`.
        execution: See `HybridReinforce`. Defaults to `"masked"`.
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
        reward = -self.beta_value(gates, step) * cross_entropy
        loss = objectives.class_action_loss(logits, classes, reward)
        return {**terms, "policy_loss": terms["policy_loss"] + loss}

    def total(self, supervised, policy_loss, step):
        return self.value("rl_weight", step) * policy_loss
