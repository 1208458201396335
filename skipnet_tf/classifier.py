"""`compile` and the train step of all networks (Sec. 3.3)."""

import contextlib
import functools
import types
from collections.abc import Iterator

import keras
import tensorflow as tf

from skipnet_tf import losses
from skipnet_tf import optimizers
from skipnet_tf import photographs
from skipnet_tf.distillation import Distillation
from skipnet_tf.stages import Stage

# Begin the sentences about data, to be found in an error.
_LABELS = "labels must lie in"
_PARTS = "`gradient_accumulation` must divide"


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turns the page that TensorFlow prints into the one sentence in it."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        for beginning in (_LABELS, _PARTS, *photographs.SENTENCES):
            start = error.message.find(beginning)
            if start >= 0:
                break
        else:
            raise
        sentence = error.message[start:].split("\n")[0]
        if beginning in photographs.SENTENCES:
            sentence = sentence.replace("] [", " ")
        raise ValueError(sentence.split("]")[0]) from None


class Classifier(keras.Model):
    """An image classifier that returns logits, trained by cross-entropy."""

    num_classes: int
    gradient_accumulation = 1
    # Neither layer nor list: Keras does not take the teacher for a part.
    distillation: Distillation | None = None

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
        stage: Stage | None = None,
        weighted_metrics=None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool = False,
        auto_scale_loss: bool = True,
        gradient_accumulation: int = 1,
        distillation: Distillation | None = None,
    ):
        """Configures training, as `keras.Model.compile` does.

        Args:
            optimizer: Keras optimizer or its name.
            loss: Keras loss on logits. Defaults to `None`, sparse categorical
                cross-entropy.
            metrics: Keras metrics, objects, functions or names, in any
                structure that Keras takes. Defaults to `None`.
            stage: `Supervised`, `Elastic`, `Imitation`, `HybridReinforce`,
                `Reinforce`, `TargetRate` or `Budget`, for networks with gates.
                Defaults to `None`, `Supervised()` where there are gates.
            weighted_metrics: Likewise, with weights of samples. Defaults to
                `None`.
            run_eagerly: Bool. Defaults to `False`.
            steps_per_execution: Positive int. Defaults to `1`.
            jit_compile: Bool, compile steps with XLA, which computes skipped
                blocks too: XLA has no shapes that depend on decisions. Not
                with several replicas, for which TensorFlow cannot compile.
                Defaults to `False`.
            auto_scale_loss: Bool. Defaults to `True`.
            gradient_accumulation: Positive int, micro-batches of a step. A
                replica's batch is cut into so many equal parts that go
                forward and backward one after the other, in the memory of
                one; the mean of their gradients is applied once. Each part is
                normalised by statistics of its own and draws its own
                decisions. Defaults to `1`.
            distillation: `Distillation` from a teacher, which is no part of
                what is saved: a reloaded model trains on without. Defaults to
                `None`.

        Raises:
            ValueError: If the loss expects probabilities, or another argument
                is not as described.
        """
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        losses.check_takes_logits(loss)
        self._check_step(jit_compile, gradient_accumulation)
        self._check_distillation(distillation, jit_compile)
        stage = self._set_stage(stage, distillation, jit_compile)
        self.gradient_accumulation = gradient_accumulation
        self.distillation = distillation
        arguments = {
            "optimizer": optimizer,
            "loss": loss,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }
        super().compile(**arguments)
        # Keras resets metrics only from the second epoch on: what one has seen
        # before would enter the first.
        for metric in keras.tree.flatten((metrics, weighted_metrics)):
            if isinstance(metric, keras.metrics.Metric):
                metric.reset_state()
        # Now, not at the first step: a checkpoint or file made before that
        # step could not be restored into variables that exist.
        self.optimizer.build(self.trainable_variables)
        # No dict: Keras would look into it for metrics, and refuse those that
        # come after the network is built.
        self._compile_arguments = types.SimpleNamespace(
            **{**arguments, "optimizer": self.optimizer},
            stage=stage,
            gradient_accumulation=gradient_accumulation,
        )

    def _check_step(self, jit_compile, gradient_accumulation):
        replicas = self.distribute_strategy.num_replicas_in_sync
        if jit_compile and replicas > 1:
            raise ValueError(
                "`jit_compile` must be False with several replicas: "
                "TensorFlow cannot compile their step. Received: "
                f"jit_compile={jit_compile} and {replicas} replicas"
            )
        parts = gradient_accumulation
        if not isinstance(parts, int) or isinstance(parts, bool) or parts < 1:
            raise ValueError(
                "`gradient_accumulation` must be a positive int. "
                f"Received: gradient_accumulation={parts!r}"
            )

    def _check_distillation(self, distillation, jit_compile):
        if distillation is None:
            return
        if not isinstance(distillation, Distillation):
            raise ValueError(
                "`distillation` must be a Distillation(teacher). "
                f"Received: distillation={distillation!r}"
            )
        distillation.check_student(self, jit_compile)

    def _set_stage(self, stage, distillation, jit_compile):
        if stage is not None:
            raise ValueError(
                "`stage` must be None for a network without gates. "
                f"Received: stage={stage!r}"
            )

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        with plain_errors():
            return super().fit(*args, **kwargs)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        with plain_errors():
            return super().evaluate(*args, **kwargs)

    def _make_functions_again(self):
        """For a number that was traced into them; `fit` may be running."""
        if self.train_function is not None:
            self.make_train_function(force=True)
        if self.test_function is not None:
            self.make_test_function(force=True)
        if self.predict_function is not None:
            self.make_predict_function(force=True)

    def train_step(self, data):
        """One update of the weights, from one or several micro-batches."""
        gradients = []
        for part, batch in enumerate(
            _micro_batches(data, self.gradient_accumulation)
        ):
            images, labels, weights = batch
            # Waits for the gradients so far: otherwise TensorFlow would hold
            # the activations of several micro-batches at a time.
            with tf.control_dependencies(gradients):
                images = tf.identity(images)
            more, logs = self._gradients((images, labels, weights), part)
            gradients = [a + b for a, b in zip(gradients, more)] or more
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = optimizers.share_overflow(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return logs

    def _gradients(self, batch, part):
        """Gradients of a micro-batch, its share of the step's, and logs."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            loss, outputs, fed = self._training_loss(batch, part)
            share = loss / self.gradient_accumulation
            scaled = self.optimizer.scale_loss(share)
        variables = self.trainable_variables
        # Random decisions leave the gates without any gradient.
        gradients = [
            tf.zeros(variable.shape) if gradient is None else gradient
            for gradient, variable in zip(
                tape.gradient(scaled, variables), variables
            )
        ]
        return gradients, self._report(batch, loss * replicas, outputs, fed)

    def _training_loss(self, batch, part):
        """Loss over replicas, what the network returned, metrics it fed."""
        images, labels, weights = batch
        logits = self(images, training=True)
        loss = self.compute_loss(images, labels, logits, weights, training=True)
        return loss, {"logits": logits}, {"distillation_loss"}

    def test_step(self, data):
        """Logs of a batch in validation; nothing crosses replicas."""
        batch = images, labels, weights = keras.utils.unpack_x_y_sample_weight(
            data
        )
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        logits = self(images, training=False)
        loss = self.compute_loss(
            images, labels, logits, weights, training=False
        )
        return self._report(batch, loss * replicas, {"logits": logits}, set())

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Loss of a batch divided by the number of replicas, a scalar."""
        if y is not None and y_pred is not None:
            self._check_labels(y)
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training and self.distillation is not None:
            loss = self.distillation.mix(loss, x, y_pred)
        return loss

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

    @property
    def metrics(self):
        own = super().metrics
        return own + [self.distillation.metric] if self.distillation else own

    def _occasional_metrics(self):
        """Means that not every step feeds."""
        return [self.distillation.metric] if self.distillation else []

    def _report(self, batch, loss, outputs, fed):
        """Updates all metrics; logs of those that a step of its kind feeds."""
        images, labels, weights = batch
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=tf.shape(images)[0])
        logs = self.compute_metrics(images, labels, outputs["logits"], weights)
        idle = {metric.name for metric in self._occasional_metrics()} - fed
        return {key: logs[key] for key in logs if key not in idle}

    def get_metrics_result(self):
        results = super().get_metrics_result()
        if not tf.executing_eagerly():
            return results
        # Between epochs Keras asks for all metrics; those that nothing fed
        # would be logged as zeros.
        for metric in self._occasional_metrics():
            if float(tf.convert_to_tensor(metric.count)) == 0:
                results.pop(metric.name, None)
        return results

    def get_compile_config(self):
        """The arguments of `compile` as they stand now, or `None`.

        Without `distillation`, whose teacher would be saved with them.
        """
        if not self.compiled:
            return None
        return keras.saving.serialize_keras_object(
            vars(self._compile_arguments)
        )

    def compile_from_config(self, config):
        """Compiles as the saved model was, ready to go on training."""
        self.compile(**keras.saving.deserialize_keras_object(config))


def _micro_batches(data, parts):
    """`parts` equal tuples of images, labels and weights or `None`."""
    batch = keras.utils.unpack_x_y_sample_weight(data)
    if parts == 1:
        return [batch]
    images = batch[0]
    count = images.shape[0]
    count = tf.shape(images)[0] if count is None else count
    divided = tf.debugging.assert_equal(
        count % parts,
        0,
        f"{_PARTS} the images of every batch on a replica (drop the "
        f"remainder). Received: gradient_accumulation={parts}",
    )
    with tf.control_dependencies([divided]):
        columns = [
            [None] * parts if values is None else tf.split(values, parts)
            for values in batch
        ]
    return list(zip(*columns))
