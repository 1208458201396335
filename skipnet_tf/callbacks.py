"""Keras callbacks that count steps and save checkpoints."""

import math

import keras
import tensorflow as tf

_CHECK_STEPS = 10  # steps between looks at the loss


class TrainingDiverged(ValueError):
    """The loss is not a number any more."""


class Steps(keras.callbacks.Callback):
    """Counts training steps, over resumed runs too.

    The optimizer's own count leaves out steps whose gradients overflowed in
    float16, and would then repeat data after resuming.

    Attributes:
        variable: Int64 `tf.Variable`, to be saved with every checkpoint.
    """

    def __init__(self):
        super().__init__()
        self.variable = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def done(self) -> int:
        """Steps of this stage so far."""
        return int(self.variable.numpy())

    def on_epoch_begin(self, epoch, logs=None):
        self._before = self.done

    def on_train_batch_end(self, batch, logs=None):
        # Not one by one: several steps may run without a callback.
        self.variable.assign(self._before + batch + 1)


class Checkpoints(keras.callbacks.Callback):
    """Saves weights, optimizer and stage, every epoch and every N steps.

    A loss that is not a number stops the run before it can be saved.

    Args:
        manager: `tf.train.CheckpointManager` of model and optimizer, or
            `None` where another process saves.
        counter: `Steps`.
        every: Int, training steps between checkpoints, 0 for epochs only.
    """

    def __init__(
        self,
        manager: tf.train.CheckpointManager | None,
        counter: Steps,
        every: int = 0,
    ):
        super().__init__()
        self.manager = manager
        self.counter = counter
        self.every = every
        self.finite = 0  # the last step seen with a finite loss
        self._seen = 0

    def on_train_batch_end(self, batch, logs=None):
        step, before = self.counter.done, self._seen
        self._seen = step
        # The last step of an epoch is saved after its validation and log.
        last = batch + 1 == self.params["steps"]
        save = self.every and step // self.every > before // self.every
        save = save and not last
        if save or step // _CHECK_STEPS > before // _CHECK_STEPS:
            self._check(step, logs)
        if save:
            self._save(step)

    def on_epoch_begin(self, epoch, logs=None):
        self._seen = self.counter.done

    def on_epoch_end(self, epoch, logs=None):
        step = self.counter.done
        self._check(step, logs)
        self._save(step)

    def _save(self, step):
        if self.manager is not None:
            self.manager.save(checkpoint_number=step)

    def _check(self, step, logs):
        loss = float((logs or {}).get("loss", 0.0))
        if math.isfinite(loss):
            self.finite = step
            return
        # The loss of a step is that of the weights before it: those saved
        # after the last finite loss may be the bad ones already.
        good = [
            path
            for path in getattr(self.manager, "checkpoints", ())
            if int(path.rsplit("-", 1)[1]) < self.finite
        ]
        raise TrainingDiverged(
            f"the loss is {loss} at step {step}; last good checkpoint: "
            f"{good[-1] if good else 'none'}. Start again in another --workdir "
            "with a lower learning rate."
        )
