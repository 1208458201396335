"""What a SkipNet reports about its own routes while it trains."""

import keras
import tensorflow as tf


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
        sampled_accuracy: Accuracy of the sampled policy in validation, where
            `accuracy` is that of the thresholded one.
    """

    def __init__(self, gates: int):
        self.open_rates = OpenRates(gates)
        self.executed_blocks = keras.metrics.Mean("executed_blocks")
        self.multiply_adds = keras.metrics.Mean("multiply_adds")
        self.policy_loss = keras.metrics.Mean("policy_loss")
        self.mean_reward = keras.metrics.Mean("mean_reward")
        self.sampled_accuracy = keras.metrics.Mean("sampled_accuracy")

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
            self.sampled_accuracy,
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
