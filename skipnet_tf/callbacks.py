"""Keras callbacks of every run: checkpoints, logs, progress, safety."""

import csv
import json
import math
import os
import sys
import time

import keras
import numpy as np
import tensorflow as tf

_CELL = 8  # pixels of one cell of the skip-rate picture
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


class CsvLog(keras.callbacks.Callback):
    """One row of a CSV file for each epoch; a resumed run continues it.

    Args:
        path: String, the file.
        counter: `Steps`.
    """

    def __init__(self, path: str, counter: Steps):
        super().__init__()
        self.path = path
        self.counter = counter

    def on_epoch_end(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        row = {
            "epoch": epoch + 1,
            "step": self.counter.done,
            "learning_rate": float(keras.ops.convert_to_numpy(rate)),
            **{name: float(value) for name, value in sorted(logs.items())},
        }
        rows = [r for r in self._rows() if int(r["epoch"]) <= epoch] + [row]
        with open(self.path + ".tmp", "w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows(
                {name: r.get(name, "") for name in row} for r in rows
            )
        os.replace(self.path + ".tmp", self.path)

    def _rows(self):
        if not os.path.exists(self.path):
            return []
        with open(self.path, newline="") as file:
            return list(csv.DictReader(file))


class TensorBoardLog(keras.callbacks.Callback):
    """Scalars, and a picture of skip rates: a row an epoch, a column a block.

    Args:
        directory: String, the folder TensorBoard is pointed at.
        write: Bool, whether this process writes; the others of a cluster
            must take part where metrics are summed. Defaults to `True`.
    """

    def __init__(self, directory: str, write: bool = True):
        super().__init__()
        self.writer = None
        if write:
            self.writer = tf.summary.create_file_writer(directory)
        self.history_path = os.path.join(directory, "skip_rates.json")

    def on_epoch_end(self, epoch, logs=None):
        rates = None
        if hasattr(self.model, "route_metrics"):
            # The last pass over the metric was the validation split.
            rates = self.model.route_metrics.open_rates.result().numpy()
        if self.writer is None:
            return
        with self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(name, float(value))
            if rates is not None:
                history = self._history(epoch, 1.0 - rates)
                tf.summary.image("skip_rate_per_block", _picture(history))
        self.writer.flush()

    def _history(self, epoch, rates):
        history = []
        if os.path.exists(self.history_path):
            with open(self.history_path) as file:
                history = json.load(file)[:epoch]
        history.append([round(float(rate), 4) for rate in rates])
        with open(self.history_path, "w") as file:
            json.dump(history, file)
        return np.array(history)


def _picture(rates):
    pixels = np.kron(255 * rates, np.ones((_CELL, _CELL)))
    return pixels.astype(np.uint8)[None, :, :, None]


class Progress(keras.callbacks.Callback):
    """A bar with the time left in the stage, and a line for each epoch.

    Args:
        title: String, the stage.
        steps: Int, training steps of the stage.
        epochs: Int, epochs of the stage.
        counter: `Steps`.
    """

    def __init__(self, title: str, steps: int, epochs: int, counter: Steps):
        super().__init__()
        self.title = title
        self.counter = counter
        self.steps = steps
        self.epochs = epochs
        self.terminal = sys.stderr.isatty()
        self.begin = None

    def on_train_begin(self, logs=None):
        if self.begin is None:
            self.begin = time.monotonic()
            self.first = self.shown = self.counter.done

    def on_train_batch_end(self, batch, logs=None):
        step = self.counter.done
        if not self.terminal or step - self.shown < self.steps / 500:
            return
        self.shown = step
        done = int(30 * step / self.steps)
        bar = "#" * done + "." * (30 - done)
        loss, accuracy = (
            float(logs.get(name, math.nan)) for name in ("loss", "accuracy")
        )
        sys.stderr.write(
            f"\r{self.title} [{bar}] step {step}/{self.steps} "
            f"loss {loss:.3f} accuracy {accuracy:.3f} {self._left(step)} "
        )
        sys.stderr.flush()

    def on_epoch_end(self, epoch, logs=None):
        step = self.counter.done
        values = " ".join(
            f"{name} {float(value):.4g}" for name, value in logs.items()
        )
        start = "\r\x1b[K" if self.terminal else ""
        print(
            f"{start}{self.title} epoch {epoch + 1}/{self.epochs} {values} "
            f"{self._left(step)}",
            flush=True,
        )

    def _left(self, step):
        share = (step - self.first) / (self.steps - self.first)
        passed = time.monotonic() - self.begin
        left = int(passed / share - passed)
        return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
