"""What a run writes down and prints, epoch by epoch."""

import csv
import json
import math
import os
import sys
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from skipnet_tf.callbacks import Steps

_CELL = 8  # pixels of one cell of the skip-rate picture


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
        _continue_table(self.path, epoch, [row])


class GateLog(keras.callbacks.Callback):
    """A CSV file with one row for each epoch and gate, from validation.

    Gates are numbered like the blocks they decide on, from 1.

    Args:
        path: String, the file.
        counter: `Steps`.
        write: Bool, whether this process writes, see `TensorBoardLog`.
            Defaults to `True`.
    """

    def __init__(self, path: str, counter: Steps, write: bool = True):
        super().__init__()
        self.path = path
        self.counter = counter
        self.write = write

    def on_epoch_end(self, epoch, logs=None):
        vectors = self.model.route_metrics.of_gates()
        if not self.write:
            return
        rows = [
            {
                "epoch": epoch + 1,
                "step": self.counter.done,
                "gate": gate,
                **{
                    name: round(float(vector[gate - 1]), 5)
                    for name, vector in vectors.items()
                },
            }
            for gate in range(1, len(vectors["open_rate"]) + 1)
        ]
        _continue_table(self.path, epoch, rows)


class TensorBoardLog(keras.callbacks.Callback):
    """Scalars, and a picture of skip rates: a row an epoch, a column a block.

    Beside what is logged there is a scalar for each gate and each of what
    `RouteMetrics.of_gates` returns.

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
        vectors = {}
        if hasattr(self.model, "route_metrics"):
            # The last pass over the metrics was the validation split.
            vectors = self.model.route_metrics.of_gates()
        if self.writer is None:
            return
        with self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(name, float(value))
            for name, vector in vectors.items():
                for gate, value in enumerate(vector, start=1):
                    tf.summary.scalar(f"{name}/gate_{gate}", value)
            if vectors:
                history = self._history(epoch, 1.0 - vectors["open_rate"])
                tf.summary.image("skip_rate_per_block", _picture(history))
        self.writer.flush()

    def _history(self, epoch, rates):
        history = []
        if os.path.exists(self.history_path):
            with open(self.history_path) as file:
                history = json.load(file)[:epoch]
        history.append([round(float(rate), 4) for rate in rates])
        write_json(self.history_path, history)
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


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file in one step: a reader never sees half of it."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    os.replace(path + ".tmp", path)


def _continue_table(path, epoch, new):
    """Writes a CSV file anew: rows of the epochs before, then `new`."""
    old = []
    if os.path.exists(path):
        with open(path, newline="") as file:
            old = [r for r in csv.DictReader(file) if int(r["epoch"]) <= epoch]
    with open(path + ".tmp", "w", newline="") as file:
        writer = csv.DictWriter(file, list(new[0]))
        writer.writeheader()
        writer.writerows(
            {name: row.get(name, "") for name in new[0]} for row in old + new
        )
    os.replace(path + ".tmp", path)
