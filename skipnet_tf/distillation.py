"""Training that also follows a teacher's predictions."""

import keras
import tensorflow as tf

from skipnet_tf import objectives


class Distillation:
    """A trained network whose softened predictions a student learns.

    The loss of a training step becomes
    `(1 - weight) * loss + weight * objectives.distillation_loss(...)`, the
    second term a mean over images, whatever their weights. The rewards of
    REINFORCE keep the plain loss, and so does validation.

    The teacher is used as in inference. Its weights are not the student's:
    they are neither trained nor saved nor counted. Under a `tf.distribute`
    strategy, make teacher and `Distillation` in its scope, as the optimizer.

    Args:
        teacher: `ResNet` or `SkipNet` for the student's classes and channels.
        weight: Float in [0, 1], share of the teacher. Defaults to `0.5`.
        temperature: Float above 0, divides the logits of both networks.
            Defaults to `4.0`.

    Raises:
        ValueError: If the teacher is none or a number out of range.

    Reference:
        - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531)
    """

    def __init__(
        self,
        teacher: keras.Model,
        weight: float = 0.5,
        temperature: float = 4.0,
    ):
        if not hasattr(teacher, "num_classes"):
            raise ValueError(
                "`teacher` must be a ResNet or SkipNet. "
                f"Received: teacher={teacher!r}"
            )
        if not 0.0 <= weight <= 1.0:
            raise ValueError(
                f"`weight` must lie in [0, 1]. Received: {weight=}"
            )
        if not temperature > 0.0:
            raise ValueError(
                f"`temperature` must be above 0. Received: {temperature=}"
            )
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature
        # Not an attribute of the model: Keras would log it with every other.
        self.metric = keras.metrics.Mean("distillation_loss")

    def check_student(self, student: keras.Model, jit_compile: bool) -> None:
        """Raises `ValueError` unless `student` can learn from the teacher."""
        ours, theirs = _interface(student), _interface(self.teacher)
        if ours != theirs:
            raise ValueError(
                "`distillation` must have a teacher for {} classes and images "
                "of {} channels. Received: a teacher for {} classes and {} "
                "channels".format(*ours, *theirs)
            )
        execution = getattr(self.teacher, "execution", "masked")
        if jit_compile and execution == "conditional":
            raise ValueError(
                '`distillation` must have a teacher with execution="masked" '
                "under XLA, which has no shapes that depend on decisions. "
                f"Received: {jit_compile=} and {execution=}"
            )

    def mix(
        self, loss: tf.Tensor, images: tf.Tensor, logits: tf.Tensor
    ) -> tf.Tensor:
        """The loss of a student on one replica, together with its teacher.

        Args:
            loss: Float scalar, divided by the number of replicas.
            images: Normalised float tensor `(batch, height, width, channels)`.
            logits: Float tensor `(batch, classes)`, the student's.

        Returns:
            Float32 scalar, divided by the number of replicas.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        term = objectives.distillation_loss(
            logits, self.teacher(images, training=False), self.temperature
        )
        self.metric.update_state(term, sample_weight=tf.shape(images)[0])
        return (1.0 - self.weight) * loss + self.weight * term / replicas


def _interface(network):
    """Numbers of classes and of input channels."""
    config = network.get_config()
    return config["num_classes"], config["input_shape"][-1]
