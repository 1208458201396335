"""The stages of training (Sec. 3.3, Algorithm 1): policy and loss of each.

A stage belongs to `compile`, not to the network: what it anneals is kept in
its own variables, so that weights move freely from stage to stage.
"""

import math
import numbers
from collections.abc import Sequence

import keras
import tensorflow as tf

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
    self_critical = False  # Is the thresholded policy run in training too?
    supervises = True  # Is the loss of the prediction differentiated?
    gates_alone = False  # Do all other weights stay as they are?
    backbone_alone = False  # Do the gates stay as they are?
    # How blocks obey decisions in training, see `blocks.GatedBlock`.
    execution = "masked"

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.state = []

    def build(self, groups: Sequence[int]) -> None:
        """Fits the stage to a network; called by `compile`.

        Makes the variables of `state`, which training steps change.

        Args:
            groups: Sequence of positive ints, blocks in each group, of which
                all but the very first have a gate.
        """

    def check_model(self, network, jit_compile: bool) -> None:
        """Raises `ValueError` if the stage cannot train a network.

        Args:
            network: `SkipNet` that is being compiled.
            jit_compile: Bool, whether its steps are compiled with XLA.
        """

    def policy(self, seed, images):
        """The policy of one training step on one replica.

        Args:
            seed: Int32 tensor `(2,)`.
            images: Normalised float tensor `(batch, height, width, channels)`.
        """
        raise NotImplementedError  # no stage trains without one of its own

    def inference_policy(self, threshold, images):
        """The policy of inference on a batch of images."""
        return policy.Thresholded(threshold)

    def policy_terms(self, routed, cross_entropy, step, seed):
        """What the stage adds to the loss, and metrics to log with it.

        Args:
            routed: What `SkipNet.route` returns, and `fixed_share`,
                `block_shares`, `threshold`, `part` and, if the stage is
                `self_critical`, `reference_gates` and `reference_loss`, see
                `StagedClassifier`.
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
        """What a checkpoint keeps: hyper-parameters and `state`."""
        values = (getattr(self, name) for name in self.hyperparameters)
        return [value for value in values if not callable(value)] + self.state

    def _set_hyperparameters(self, signed=(), **values):
        self.hyperparameters = tuple(values)
        for name, value in values.items():
            if isinstance(value, dict):
                value = keras.saving.deserialize_keras_object(value)
            if not callable(value):
                low = -math.inf if name in signed else 0.0
                _check_number(name, value, low)
                value = variable(float(value), name)
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


def variable(value, name: str) -> tf.Variable:
    """A variable that every replica sets to the same value."""
    return tf.Variable(
        value,
        trainable=False,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def mean_over_replicas(values: tf.Tensor) -> tf.Tensor:
    """The mean of what each replica of a training step holds."""
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values) / replicas


def _check_number(name, value, low):
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

    def policy(self, seed, images):
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
