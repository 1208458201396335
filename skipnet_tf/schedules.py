"""Schedules of learning rates and prices over training steps (Sec. 4).

All are Keras learning-rate schedules, callables of the step, so that they
serve for an optimizer as well as for a hyper-parameter of a stage.
"""

import keras
import tensorflow as tf

Schedule = keras.optimizers.schedules.LearningRateSchedule


def step_decay(
    learning_rate: float, steps: int, milestones: tuple[float, ...]
) -> Schedule:
    """Divides the learning rate by ten at every milestone.

    Args:
        learning_rate: Float, the first learning rate.
        steps: Int, training steps in all.
        milestones: Tuple of fractions of `steps`; the paper's CIFAR runs have
            `(0.5, 0.75)`, 32k and 48k of 64k steps.

    Returns:
        A Keras schedule.
    """
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [int(steps * fraction) for fraction in milestones],
        [learning_rate * 0.1**drop for drop in range(len(milestones) + 1)],
    )


def cosine(learning_rate: float, steps: int) -> Schedule:
    """Half a cosine from `learning_rate` down to 0.

    Args:
        learning_rate: Float, the first learning rate.
        steps: Int, training steps in all.

    Returns:
        A Keras schedule.
    """
    return keras.optimizers.schedules.CosineDecay(learning_rate, steps)


@keras.saving.register_keras_serializable(package="skipnet_tf")
class WarmUp(Schedule):
    """A constant or linear start before another schedule.

    Args:
        after: Schedule, a callable of the global step, or a float.
        steps: Int, length of the start in training steps.
        constant: Optional float, the value during the start; the published
            CIFAR code has 0.01 for 400 steps. Defaults to `None`, a line from
            0 to what `after` gives.
    """

    def __init__(self, after, steps: int, constant: float | None = None):
        super().__init__()
        self.after = after
        self.steps = steps
        self.constant = constant

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        after = self.after(step) if callable(self.after) else self.after
        if self.constant is None:
            early = after * (step + 1.0) / max(self.steps, 1)
        else:
            early = tf.constant(self.constant, tf.float32)
        return tf.where(step < self.steps, early, after)

    def get_config(self):
        """Constructor arguments."""
        return {
            "after": keras.saving.serialize_keras_object(self.after),
            "steps": self.steps,
            "constant": self.constant,
        }

    @classmethod
    def from_config(cls, config):
        """A schedule equal to the one that gave `config`."""
        after = keras.saving.deserialize_keras_object(config["after"])
        return cls(**{**config, "after": after})


@keras.saving.register_keras_serializable(package="skipnet_tf")
class Ramp(Schedule):
    """A line from one value to another, constant afterwards.

    Args:
        start: Float, value at step 0.
        end: Float, value from step `steps` on.
        steps: Positive int, training steps.
    """

    def __init__(self, start: float, end: float, steps: int):
        super().__init__()
        self.start = start
        self.end = end
        self.steps = steps

    def __call__(self, step):
        share = tf.cast(step, tf.float32) / self.steps
        share = tf.clip_by_value(share, 0.0, 1.0)
        return self.start + (self.end - self.start) * share

    def get_config(self):
        """Constructor arguments."""
        return {"start": self.start, "end": self.end, "steps": self.steps}
