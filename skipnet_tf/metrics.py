"""What a SkipNet reports about its own routes while it trains."""

import keras
import numpy as np
import tensorflow as tf

_DEPENDENT = 0.01  # of the images go against a gate that depends on them
_BUCKETS = 2**18
_PRIME = 2**31 - 1


@keras.saving.register_keras_serializable(package="skipnet_tf")
class OpenRates(keras.metrics.Metric):
    """Share of images for which each gate runs its block.

    Args:
        gates: Positive int, number of gates.
        name: String. Defaults to `"open_rates"`.

    Returns:
        Float32 tensor `(gates,)`.
    """

    def __init__(self, gates: int, name: str = "open_rates"):
        super().__init__(name=name)
        self.gates = gates
        self.open = self.add_variable((gates,), "zeros", name="open")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, gates):
        """Adds decisions `(batch, gates)`."""
        gates = tf.cast(gates, tf.float32)
        self.open.assign_add(tf.reduce_sum(gates, axis=0))
        self.count.assign_add(tf.cast(tf.shape(gates)[0], tf.float32))

    def result(self):
        """Means over the images so far."""
        return tf.math.divide_no_nan(
            tf.convert_to_tensor(self.open), tf.convert_to_tensor(self.count)
        )

    def get_config(self):
        """Constructor arguments."""
        return {"gates": self.gates, "name": self.name}


@keras.saving.register_keras_serializable(package="skipnet_tf")
class DependentGates(keras.metrics.Metric):
    """Share of gates that decide by the image, by how much each of them does.

    The dependence of a gate is the share of images that go against its
    majority: 0 if it decides alike for all of them, 0.5 at most. From 0.01 on
    it counts as dependent.

    Args:
        gates: Positive int, number of gates.
        name: String. Defaults to `"input_dependent_gates"`.

    Returns:
        Float32 scalar.
    """

    def __init__(self, gates: int, name: str = "input_dependent_gates"):
        super().__init__(name=name)
        self.gates = gates
        self.open = self.add_variable((gates,), "zeros", name="open")
        self.total = self.add_variable((gates,), "zeros", name="total")
        self.squares = self.add_variable((gates,), "zeros", name="squares")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, gates, probabilities):
        """Adds decisions and probabilities of executing `(batch, gates)`."""
        gates = tf.cast(gates, tf.float32)
        self.open.assign_add(tf.reduce_sum(gates, axis=0))
        self.total.assign_add(tf.reduce_sum(probabilities, axis=0))
        self.squares.assign_add(tf.reduce_sum(probabilities**2, axis=0))
        self.count.assign_add(tf.cast(tf.shape(gates)[0], tf.float32))

    def result(self):
        """Share of dependent gates among the images so far."""
        dependent = self.dependence() >= _DEPENDENT
        return tf.reduce_mean(tf.cast(dependent, tf.float32))

    def dependence(self) -> tf.Tensor:
        """Of each gate, float32 `(gates,)`."""
        shut = tf.convert_to_tensor(self.count) - self.open
        return self._mean(tf.minimum(tf.convert_to_tensor(self.open), shut))

    def deviations(self) -> tf.Tensor:
        """Standard deviation over images of each probability, `(gates,)`."""
        variance = self._mean(self.squares) - self._mean(self.total) ** 2
        return tf.sqrt(tf.maximum(variance, 0.0))

    def _mean(self, total):
        return tf.math.divide_no_nan(
            tf.convert_to_tensor(total), tf.convert_to_tensor(self.count)
        )

    def get_config(self):
        """Constructor arguments."""
        return {"gates": self.gates, "name": self.name}


@keras.saving.register_keras_serializable(package="skipnet_tf")
class DistinctPaths(keras.metrics.Metric):
    """How many different routes the images take.

    Routes are hashed into 262,144 buckets, and what collided is estimated
    from how many are full: as a rule right to the route for hundreds of them,
    and to within half a percent for thousands.

    Args:
        name: String. Defaults to `"distinct_paths"`.

    Returns:
        Float32 scalar, a whole number.

    Reference:
        - [Whang et al., 1990](https://doi.org/10.1145/78922.78925), linear
          counting
    """

    def __init__(self, name: str = "distinct_paths"):
        super().__init__(name=name)
        self.full = self.add_variable((_BUCKETS,), "zeros", name="full")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, gates):
        """Adds decisions `(batch, gates)`."""
        found = _bucket(gates)
        full = tf.convert_to_tensor(self.full)
        self.full.assign(
            tf.tensor_scatter_nd_max(
                full, found[:, None], tf.ones_like(found, full.dtype)
            )
        )
        self.count.assign_add(tf.cast(tf.shape(gates)[0], tf.float32))

    def result(self):
        """Number of routes so far."""
        # Of several replicas the sum is read.
        full = tf.cast(tf.convert_to_tensor(self.full) > 0.0, tf.float32)
        share = tf.minimum(tf.reduce_mean(full), 1.0 - 1.0 / _BUCKETS)
        return tf.round(-_BUCKETS * tf.math.log1p(-share))


def _bucket(gates):
    """The bucket of each image's route, int64 `(batch,)`."""
    weights = np.random.default_rng(0).integers(_PRIME, size=gates.shape[1])
    key = tf.reduce_sum(tf.cast(gates, tf.int64) * weights, axis=1) % _PRIME
    # A square, since sums of weights alone would let one collision be that of
    # all routes which differ likewise.
    return key * key % _PRIME % _BUCKETS


class RouteMetrics:
    """Running means over the images of an epoch.

    Args:
        gates: Positive int, number of gates.

    Attributes:
        open_rates: Share of images that run each block, a vector, which
            Keras's logs cannot hold.
        executed_blocks: Share of blocks executed, block 0 included: the
            published "computation percentage" as a fraction.
        multiply_adds: Multiply-adds spent, gates included, relative to the
            same network without gates.
        policy_loss: What the stage adds to the loss, before its weight. Of
            REINFORCE it is a surrogate: its gradient has a meaning, its value
            has none.
        mean_reward: Return of the first gate, the reward of the whole route.
        price: Alpha of the reward, which a target of multiply-adds adapts.
        sampled_accuracy: Accuracy of the sampled policy in validation, where
            `accuracy` is that of the thresholded one.
        distinct_paths: Number of different routes in validation.
        dependent_gates: Share of gates that decide by the image in
            validation, logged as `input_dependent_gates`.
    """

    def __init__(self, gates: int):
        self.open_rates = OpenRates(gates)
        self.executed_blocks = keras.metrics.Mean("executed_blocks")
        self.multiply_adds = keras.metrics.Mean("multiply_adds")
        self.policy_loss = keras.metrics.Mean("policy_loss")
        self.mean_reward = keras.metrics.Mean("mean_reward")
        self.price = keras.metrics.Mean("price")
        self.sampled_accuracy = keras.metrics.Mean("sampled_accuracy")
        self.distinct_paths = DistinctPaths()
        self.dependent_gates = DependentGates(gates)

    def all(self) -> list[keras.metrics.Metric]:
        """The metrics, for Keras to find and reset."""
        return [self.open_rates, *self.scalars()]

    def scalars(self) -> list[keras.metrics.Metric]:
        """The metrics that logs can hold."""
        return [
            self.executed_blocks,
            self.multiply_adds,
            self.policy_loss,
            self.mean_reward,
            self.price,
            self.sampled_accuracy,
            self.distinct_paths,
            self.dependent_gates,
        ]

    def update_route(self, routed: dict, dense: tf.Tensor) -> None:
        """Adds a batch routed through the network.

        Args:
            routed: What `SkipNet.route` returns.
            dense: Int64 scalar, multiply-adds of one image without gates.
        """
        self.open_rates.update_state(routed["gates"])
        blocks = tf.cast(tf.shape(routed["gates"])[1] + 1, tf.float32)
        executed = tf.reduce_sum(routed["gates"], axis=1) + 1.0
        self.executed_blocks.update_state(executed / blocks)
        # float64: multiply-adds exceed what float32 counts exactly.
        spent = tf.cast(routed["macs"], tf.float64)
        self.multiply_adds.update_state(spent / tf.cast(dense, tf.float64))

    def update_validation(self, routed: dict) -> set[str]:
        """Adds what only validation is to know, under the inference policy.

        Args:
            routed: What `SkipNet.route` returns.

        Returns:
            Names of the metrics.
        """
        self.distinct_paths.update_state(routed["gates"])
        self.dependent_gates.update_state(
            routed["gates"], routed["probabilities"]
        )
        return {self.distinct_paths.name, self.dependent_gates.name}

    def of_gates(self) -> dict[str, np.ndarray]:
        """What each gate did in the last pass, if that was validation.

        Returns:
            Dict of float arrays `(gates,)`: `open_rate`, the share of images
            that run the block, and `dependence` and `deviation`, see
            `DependentGates`.
        """
        return {
            "open_rate": self.open_rates.result().numpy(),
            "dependence": self.dependent_gates.dependence().numpy(),
            "deviation": self.dependent_gates.deviations().numpy(),
        }

    def update_policy(self, terms: dict, images: tf.Tensor) -> None:
        """Adds what a stage returned as its `policy_terms`.

        Args:
            terms: Dict from names of metrics to scalars.
            images: Int scalar, number of images.
        """
        for name, value in terms.items():
            getattr(self, name).update_state(value, sample_weight=images)


def is_correct(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Whether the first choice is right.

    Args:
        labels: Int tensor `(batch,)` or `(batch, 1)`, or one-hot
            `(batch, classes)`.
        logits: Float tensor `(batch, classes)`.

    Returns:
        Float32 tensor `(batch,)` of zeros and ones.
    """
    if labels.shape.rank == 2:
        one_hot = labels.shape[1] != 1
        labels = tf.argmax(labels, 1) if one_hot else labels[:, 0]
    chosen = tf.argmax(logits, axis=1)
    return tf.cast(tf.cast(labels, tf.int64) == chosen, tf.float32)
