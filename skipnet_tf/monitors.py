"""Warnings in words, from what validation says of the gates."""

import keras
import numpy as np

from skipnet_tf.collapse import percent
from skipnet_tf.collapse import warn

_STUCK_EPOCHS = 2
_APART = 0.1  # between sampled and thresholded accuracy


class GateMonitor(keras.callbacks.Callback):
    """Says once, in words, when skipping stops to depend on the image.

    A gate is stuck that decided alike for every validation image two epochs
    in a row. Gates start open, so that open ones count only if decisions are
    sampled or another gate is shut.

    Args:
        title: String, the stage.
        write: Bool, whether this process prints, see `TensorBoardLog`.
            Defaults to `True`.
    """

    def __init__(self, title: str, write: bool = True):
        super().__init__()
        self.title = title
        self.write = write
        self._alike = np.zeros((), int)
        self._stuck = np.zeros((), bool)
        self._apart = False

    def on_epoch_end(self, epoch, logs=None):
        rates = self.model.route_metrics.of_gates()["open_rate"]
        sentences = [*self._of_gates(rates), *self._of_sampling(logs)]
        if self.write:
            for sentence in sentences:
                warn(f"{self.title} epoch {epoch + 1}: {sentence}")

    def _of_gates(self, rates):
        sides = (rates == 1.0).astype(int) - (rates == 0.0)
        # Epochs in a row, negative where shut; one that changes begins anew.
        same = np.sign(self._alike) == sides
        self._alike = np.where(same, self._alike, 0) + sides
        stuck = np.abs(self._alike) >= _STUCK_EPOCHS
        if not self.model.stage.samples and not (stuck & (sides < 0)).any():
            stuck[:] = False
        before, self._stuck = self._stuck, stuck
        if not (stuck & ~before).any():
            return
        if stuck.all():
            yield (
                "every image takes the same path, gates "
                f"{_told(stuck, sides)}: this is a static network, not "
                "dynamic inference"
            )
        else:
            yield (
                "gates that decide alike for every validation image: "
                f"{_told(stuck & ~before, sides)}"
            )

    def _of_sampling(self, logs):
        sampled, kept = (
            logs.get(name) for name in ("val_sampled_accuracy", "val_accuracy")
        )
        if sampled is None or kept is None:
            return
        before, self._apart = self._apart, abs(sampled - kept) > _APART
        if self._apart and not before:
            yield (
                f"sampled decisions have {percent(sampled)} accuracy and "
                f"thresholded ones {percent(kept)}: what is trained is not "
                "what will be served; --sharpen brings them together"
            )


def _told(gates, sides):
    """`1-3, 5 always open; 4 always shut`."""
    return "; ".join(
        f"{_numbers(np.flatnonzero(gates & (sides == side)) + 1)} always {word}"
        for side, word in ((1, "open"), (-1, "shut"))
        if (gates & (sides == side)).any()
    )


def _numbers(gates):
    """`1-3, 5` of 1, 2, 3 and 5."""
    runs = []
    for gate in gates:
        if runs and gate == runs[-1][1] + 1:
            runs[-1][1] = gate
        else:
            runs.append([gate, gate])
    return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in runs)
