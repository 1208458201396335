"""`compile` and the train step of all networks (Sec. 3.3, Algorithm 1)."""

import contextlib
import functools
import inspect
import logging

import keras
import tensorflow as tf

from skipnet_tf import metrics as metrics_module
from skipnet_tf.stages import Stage
from skipnet_tf.stages import Supervised

_LOG = logging.getLogger(__name__)

# Begins the sentence about labels out of range, to be found in an error.
_LABELS = "labels must lie in"


@contextlib.contextmanager
def _plain_label_errors():
    """Turns the page that TensorFlow prints into the one sentence in it."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        start = error.message.find(_LABELS)
        if start < 0:
            raise
        sentence = error.message[start:].split("]")[0].split("\n")[0]
        raise ValueError(sentence) from None


class Classifier(keras.Model):
    """An image classifier that returns logits, trained by cross-entropy."""

    num_classes: int

    def __init__(self, name: str | None = None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        # Keras's default, "auto", is XLA wherever there is a GPU, and XLA
        # computes skipped blocks.
        self.jit_compile = False

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile=False,
        auto_scale_loss=True,
    ):
        """Configures training, as `keras.Model.compile` does.

        Args:
            optimizer: Keras optimizer or its name.
            loss: Keras loss on logits. Defaults to `None`, sparse categorical
                cross-entropy.
            metrics: List of Keras metrics. Defaults to `None`.
            weighted_metrics: List of Keras metrics. Defaults to `None`.
            run_eagerly: Bool. Defaults to `False`.
            steps_per_execution: Positive int. Defaults to `1`.
            jit_compile: Bool, compile steps with XLA, which computes skipped
                blocks too: XLA has no shapes that depend on decisions.
                Defaults to `False`.
            auto_scale_loss: Bool. Defaults to `True`.

        Raises:
            ValueError: If the loss expects probabilities.
        """
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        _check_loss(loss)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        # Now, not at the first step: a checkpoint or file made before that
        # step could not be restored into variables that exist.
        self.optimizer.build(self.trainable_variables)
        self._compile_arguments = {
            "optimizer": self.optimizer,
            "loss": loss,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        with _plain_label_errors():
            return super().fit(*args, **kwargs)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        with _plain_label_errors():
            return super().evaluate(*args, **kwargs)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if y is not None and y_pred is not None:
            self._check_labels(y)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _check_labels(self, labels):
        if labels.shape.rank == 2 and labels.shape[1] not in (None, 1):
            return  # one-hot: the loss checks the width
        message = (
            f"{_LABELS} [0, {self.num_classes}), the network has "
            f"{self.num_classes} classes: check `num_classes` and the data set"
        )
        labels = tf.cast(labels, tf.int64)
        tf.debugging.assert_less(
            labels, tf.cast(self.num_classes, tf.int64), message
        )
        tf.debugging.assert_non_negative(labels, message)

    def get_compile_config(self):
        """The arguments of `compile` as they stand now, or `None`."""
        if not self.compiled:
            return None
        return keras.saving.serialize_keras_object(self._compile_arguments)

    def compile_from_config(self, config):
        """Compiles as the saved model was, ready to go on training."""
        self.compile(**keras.saving.deserialize_keras_object(config))


class StagedClassifier(Classifier):
    """A classifier whose blocks are gated, trained stage by stage.

    A subclass gives `route`, `route_with` and `dense_multiply_adds`.

    Args:
        gates: Positive int, number of gates.
        name: Optional string.
        dtype: Optional dtype policy.
    """

    def __init__(self, gates: int, name: str | None = None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.route_metrics = metrics_module.RouteMetrics(gates)
        self._tracked_metrics = self.route_metrics.all()
        self.stage = Supervised()
        self.training_execution = self.stage.execution

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        metrics=None,
        stage: Stage | None = None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile=False,
        auto_scale_loss=True,
    ):
        """Configures one stage of training.

        Args:
            optimizer: Keras optimizer or its name.
            loss: Keras loss on logits. Defaults to `None`, sparse categorical
                cross-entropy.
            metrics: List of Keras metrics. Defaults to `None`.
            stage: `Supervised`, `HybridReinforce` or `Reinforce`. Defaults
                to `None`, `Supervised()`.
            weighted_metrics: List of Keras metrics. Defaults to `None`.
            run_eagerly: Bool. Defaults to `False`.
            steps_per_execution: Positive int. Defaults to `1`.
            jit_compile: Bool, compile steps with XLA, which computes skipped
                blocks too. Defaults to `False`.
            auto_scale_loss: Bool. Defaults to `True`.

        Raises:
            ValueError: If the loss expects probabilities or `stage` is not a
                stage.
        """
        stage = Supervised() if stage is None else stage
        if not isinstance(stage, Stage):
            raise ValueError(
                "`stage` must be Supervised(), HybridReinforce() or "
                f"Reinforce(). Received: stage={stage!r}"
            )
        self.stage = stage
        super().compile(
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        self._compile_arguments["stage"] = stage
        self.training_execution = self._possible(stage.execution)

    def _possible(self, execution):
        """How a training step can obey decisions, where it is to run."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        if execution == "masked":
            return execution
        if self.jit_compile:
            reason = "XLA has no shapes that depend on decisions"
        elif replicas > 1:
            reason = (
                f"batch normalisation is synchronised over {replicas} "
                "replicas, and each selects images of its own"
            )
        else:
            return execution
        _LOG.warning("computing skipped blocks in training: %s", reason)
        return "masked"

    def train_step(self, data):
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        step, seed = self.step_and_seed()
        with tf.GradientTape() as tape:
            routed = self.route_with(
                images, self.stage.policy(seed), training=True
            )
            # Keras divides its losses by the number of replicas, because the
            # optimizer sums their gradients; the policy's term is divided
            # here by hand.
            loss = self.compute_loss(
                images, labels, routed["logits"], weights, training=True
            )
            terms = self.stage.policy_terms(
                routed, self._per_image(labels, routed["logits"]), step, seed
            )
            if terms is not None:
                loss = self.stage.total(loss, terms[0] / replicas, step)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        # Random decisions leave the gates without any gradient.
        gradients = [
            tf.zeros(variable.shape) if gradient is None else gradient
            for gradient, variable in zip(
                tape.gradient(scaled, variables), variables
            )
        ]
        self.optimizer.apply_gradients(zip(gradients, variables))
        return self._report(
            images, labels, weights, routed, loss * replicas, terms
        )

    def test_step(self, data):
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        routed = self.route(images, training=False)
        loss = self.compute_loss(
            images, labels, routed["logits"], weights, training=False
        )
        logs = self._report(
            images, labels, weights, routed, loss * replicas, None
        )
        if not self.stage.samples:
            return logs
        sampled = self.route_metrics.sampled_accuracy
        # Fresh draws for every batch: the metric counts the images so far.
        _, seed = self.step_and_seed(tf.cast(sampled.count, tf.int32))
        logits = self.route_with(
            images, self.stage.policy(seed), training=False
        )["logits"]
        sampled.update_state(metrics_module.is_correct(labels, logits))
        return {**logs, "sampled_accuracy": sampled.result()}

    def step_and_seed(self, offset=0):
        """Training step, int64, and the seed of this replica's decisions."""
        context = tf.distribute.get_replica_context()
        # No context while Keras traces outside a replica.
        replica = 0 if context is None else context.replica_id_in_sync_group
        step = tf.constant(0, tf.int64)
        if getattr(self, "optimizer", None) is not None:
            step = tf.cast(self.optimizer.iterations, tf.int64)
        seed = self.stage.step_seed(step, replica)
        return step, tf.random.experimental.stateless_fold_in(seed, offset)

    def _per_image(self, labels, logits):
        loss = keras.losses.get(self.loss)
        function = loss.call if isinstance(loss, keras.losses.Loss) else loss
        return tf.reshape(function(labels, logits), [-1])

    def _report(self, images, labels, weights, routed, loss, terms):
        count = tf.shape(images)[0]
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=count)
        route = self.route_metrics
        route.update_route(routed, self.dense_multiply_adds(images))
        active = {"executed_blocks", "multiply_adds"}
        if terms is not None:
            route.update_policy(*terms, count)
            active |= {"policy_loss", "mean_reward"}
        logs = self.compute_metrics(images, labels, routed["logits"], weights)
        idle = {metric.name for metric in route.scalars()} - active
        return {key: logs[key] for key in logs if key not in idle}

    def get_metrics_result(self):
        results = super().get_metrics_result()
        results.pop(self.route_metrics.open_rates.name)
        if not tf.executing_eagerly():
            return results
        # Between epochs Keras asks for all metrics; those this stage does not
        # feed would be logged as zeros.
        for metric in self.route_metrics.scalars():
            if float(tf.convert_to_tensor(metric.count)) == 0:
                results.pop(metric.name, None)
        return results


def _check_loss(loss):
    found = keras.losses.get(loss) if isinstance(loss, str) else loss
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
