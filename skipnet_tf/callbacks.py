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


class Checkpoints(keras.callbacks.Callback):
    """Saves weights, optimizer and stage, every epoch and every N steps.

    A loss that is not a number stops the run before it can be saved.

    Args:
        manager: `tf.train.CheckpointManager` of model and optimizer.
        steps: Int, training steps between checkpoints, 0 for epochs only.
    """

    def __init__(self, manager: tf.train.CheckpointManager, steps: int = 0):
        super().__init__()
        self.manager = manager
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations)
        save = self.steps and step % self.steps == 0
        if save or step % _CHECK_STEPS == 0:
            self._check(step, logs)
        if save:
            self.manager.save(checkpoint_number=step)

    def on_epoch_end(self, epoch, logs=None):
        step = int(self.model.optimizer.iterations)
        self._check(step, logs)
        self.manager.save(checkpoint_number=step)

    def _check(self, step, logs):
        loss = float((logs or {}).get("loss", 0.0))
        if math.isfinite(loss):
            return
        last = self.manager.latest_checkpoint
        raise TrainingDiverged(
            f"the loss is {loss} at step {step}; last good checkpoint: "
            f"{last or 'none'}. Lower the learning rate, then run the same "
            "command again in another --workdir."
        )


class CsvLog(keras.callbacks.Callback):
    """One row of a CSV file for each epoch; a resumed run continues it.

    Args:
        path: String, the file.
    """

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "step": int(self.model.optimizer.iterations),
            "learning_rate": float(self.model.optimizer.learning_rate),
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
    """

    def __init__(self, directory: str):
        super().__init__()
        self.writer = tf.summary.create_file_writer(directory)
        self.history_path = os.path.join(directory, "skip_rates.json")

    def on_epoch_end(self, epoch, logs=None):
        with self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(name, float(value))
            if hasattr(self.model, "route_metrics"):
                # The last pass over the metric was the validation split.
                rates = self.model.route_metrics.open_rates.result().numpy()
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
    """

    def __init__(self, title: str, steps: int, epochs: int):
        super().__init__()
        self.title = title
        self.steps = steps
        self.epochs = epochs
        self.terminal = sys.stderr.isatty()
        self.begin = None

    def on_train_begin(self, logs=None):
        if self.begin is None:
            self.begin = time.monotonic()
            self.first = self.shown = int(self.model.optimizer.iterations)

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations)
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
        step = int(self.model.optimizer.iterations)
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
