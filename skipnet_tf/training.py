"""The train step of networks with gates (Sec. 3.3, Algorithm 1)."""

import logging
from collections.abc import Sequence

import keras
import tensorflow as tf

from skipnet_tf import losses
from skipnet_tf import metrics as metrics_module
from skipnet_tf.classifier import Classifier
from skipnet_tf.stages import Stage
from skipnet_tf.stages import Supervised

_LOG = logging.getLogger(__name__)


class StagedClassifier(Classifier):
    """A classifier whose blocks are gated, trained stage by stage.

    A subclass gives `backbone`, `route`, `route_with`, `multiply_adds` and
    `dense_multiply_adds`.

    Args:
        groups: Sequence of positive ints, blocks in each group, of which all
            but the very first have a gate.
        name: Optional string.
        dtype: Optional dtype policy.
    """

    def __init__(
        self, groups: Sequence[int], name: str | None = None, dtype=None
    ):
        super().__init__(name=name, dtype=dtype)
        self.groups = tuple(groups)
        self.route_metrics = metrics_module.RouteMetrics(sum(groups) - 1)
        self._tracked_metrics = self.route_metrics.all()
        self.stage = Supervised()
        self.training_execution = self.stage.execution

    def _set_stage(self, stage, distillation, jit_compile):
        stage = Supervised() if stage is None else stage
        if not isinstance(stage, Stage):
            raise ValueError(
                "`stage` must be a stage, Supervised() or another. "
                f"Received: stage={stage!r}"
            )
        taught = stage.supervises and not stage.gates_alone
        if distillation is not None and not taught:
            raise ValueError(
                "`distillation` must be None in pure reinforcement learning "
                "and where gates learn alone: no loss of the prediction is "
                "differentiated. "
                f"Received: stage={stage!r}"
            )
        stage.build(self.groups)
        stage.check_model(self, jit_compile)
        self._freeze(stage)
        self.stage = stage
        self.training_execution = self._possible(stage.execution, jit_compile)
        return stage

    def _freeze(self, stage):
        """What the stage leaves as it is; otherwise it is left to the user."""
        if stage.backbone_alone or self.stage.backbone_alone:
            # Gates that ask the classifier hold it, too.
            learns = self.backbone.classifier.trainable
            for gate in self.gates:
                gate.trainable = not stage.backbone_alone
            self.backbone.classifier.trainable = learns
        if stage.gates_alone or self.stage.gates_alone:
            self.backbone.trainable = not stage.gates_alone

    def _possible(self, execution, jit_compile):
        """How a training step can obey decisions, where it is to run."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        if execution == "masked":
            return execution
        if jit_compile:
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

    def _training_loss(self, batch, part):
        images, labels, weights = batch
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        step, seed = self.step_and_seed(part)
        policy = self.stage.policy(seed, images)
        routed = self.route_with(images, policy, training=True)
        # Keras divides its losses by the number of replicas, because the
        # optimizer sums their gradients; the policy's term is divided here by
        # hand.
        loss = self.compute_loss(
            images, labels, routed["logits"], weights, training=True
        )
        terms = self.stage.policy_terms(
            {
                **routed,
                **self._shares(images),
                **self._reference(images, labels),
            },
            self._per_image(labels, routed["logits"]),
            step,
            seed,
        )
        fed = {"distillation_loss", "executed_blocks", "multiply_adds"}
        if terms:
            term = terms["policy_loss"] / replicas
            loss = self.stage.total(loss, term, step)
            self.route_metrics.update_policy(terms, tf.shape(images)[0])
        return loss, routed, fed.union(terms)

    def _shares(self, images):
        """What the thresholded policy spends follows from.

        Multiply-adds over those of the network without gates: `fixed_share`,
        what every image pays, gates included, and `block_shares` `(gates,)`,
        float32; the `threshold`; and `part`, the share of a step that this
        micro-batch is.
        """
        fixed, blocks, gates = self.multiply_adds(*pixels(images))
        dense = fixed + sum(blocks)
        shares = [block / dense for block in blocks]
        return {
            "fixed_share": tf.cast((fixed + sum(gates)) / dense, tf.float32),
            "block_shares": tf.cast(tf.stack(shares), tf.float32),
            "threshold": self.threshold,
            "part": 1.0 / self.gradient_accumulation,
        }

    def _reference(self, images, labels):
        """What the thresholded policy would do, for a self-critical stage.

        `reference_gates` `(batch, gates)` and `reference_loss` `(batch,)`, of
        inference: it updates no statistics.
        """
        if not self.stage.self_critical:
            return {}
        policy = self.stage.inference_policy(self.threshold, images)
        routed = self.route_with(images, policy, training=False)
        loss = self._per_image(labels, routed["logits"])
        return {
            "reference_gates": tf.stop_gradient(routed["gates"]),
            "reference_loss": tf.stop_gradient(loss),
        }

    def test_step(self, data):
        """Logs of a batch in validation; nothing crosses replicas."""
        batch = images, labels, weights = keras.utils.unpack_x_y_sample_weight(
            data
        )
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        routed = self.route(images, training=False)
        loss = self.compute_loss(
            images, labels, routed["logits"], weights, training=False
        )
        fed = {"executed_blocks", "multiply_adds"}
        fed |= self.route_metrics.update_validation(routed)
        logs = self._report(batch, loss * replicas, routed, fed)
        if not self.stage.samples:
            return logs
        sampled = self.route_metrics.sampled_accuracy
        # Fresh draws for every batch: the metric counts the images so far.
        _, seed = self.step_and_seed(tf.cast(sampled.count, tf.int32))
        logits = self.route_with(
            images, self.stage.policy(seed, images), training=False
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
        loss = losses.single(self.loss)
        function = loss.call if isinstance(loss, keras.losses.Loss) else loss
        return tf.reshape(function(labels, logits), [-1])

    def _occasional_metrics(self):
        return super()._occasional_metrics() + self.route_metrics.scalars()

    def _report(self, batch, loss, outputs, fed):
        dense = self.dense_multiply_adds(batch[0])
        self.route_metrics.update_route(outputs, dense)
        return super()._report(batch, loss, outputs, fed)

    def get_metrics_result(self):
        results = super().get_metrics_result()
        results.pop(self.route_metrics.open_rates.name)
        return results


def pixels(images: tf.Tensor) -> list[int | tf.Tensor]:
    """Height and width of images: ints where known, else int64 scalars."""
    images = tf.convert_to_tensor(images)
    dynamic = tf.shape(images, tf.int64)
    return [
        dynamic[axis] if images.shape[axis] is None else images.shape[axis]
        for axis in (1, 2)
    ]
