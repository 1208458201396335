"""When a run has collapsed, and what happens then."""

import dataclasses
import math
import sys
from collections.abc import Callable

import keras
import tensorflow as tf

from skipnet_tf.callbacks import Steps

ACTIONS = ("stop", "fall_back", "ignore")

# Of the way from chance to being always right.
_LEARNT = 0.25
_ABOVE_CHANCE = 0.05
_PATIENCE = 10  # epochs after which a run is to have learnt something
_OPEN_EPOCHS = 5  # before all gates open counts against a run


class TrainingCollapsed(ValueError):
    """Training has destroyed what the network knew, or all skipping.

    Args:
        message: String.
        gentler_helps: Bool, whether gentler settings may prevent it. Defaults
            to `True`.
    """

    def __init__(self, message: str, gentler_helps: bool = True):
        super().__init__(message)
        self.gentler_helps = gentler_helps


@dataclasses.dataclass(frozen=True)
class Safety:
    """What happens to a run that collapses.

    Args:
        on_collapse: `"stop"`; `"fall_back"`, go on from the last good
            checkpoint with gentler settings; or `"ignore"`, warn only.
            Defaults to `"stop"`.
        accuracy_floor: Optional float in [0, 1], validation accuracy below
            which a run has collapsed. Defaults to `None`, see `Floor.of`.

    Raises:
        ValueError: If an argument is not as described.
    """

    on_collapse: str = "stop"
    accuracy_floor: float | None = None

    def __post_init__(self):
        if self.on_collapse not in ACTIONS:
            raise ValueError(
                f"`on_collapse` must be one of {ACTIONS}. "
                f"Received: on_collapse={self.on_collapse!r}"
            )
        floor = self.accuracy_floor
        if floor is not None and not 0.0 <= floor <= 1.0:
            raise ValueError(
                "`accuracy_floor` must lie in [0, 1]. "
                f"Received: accuracy_floor={floor}"
            )


@dataclasses.dataclass(frozen=True)
class Floor:
    """Validation accuracy below which a run has collapsed.

    Args:
        accuracy: Float.
        reached: Float, the accuracy that arms it: a run that has not learnt
            anything yet has not collapsed. Ten epochs arm it too.
        armed: Bool, whether the stage started there.
        reason: String, where the floor comes from.
    """

    accuracy: float
    reached: float
    armed: bool
    reason: str

    @classmethod
    def of(
        cls, classes: int, start: float | None, given: float | None = None
    ) -> "Floor":
        """The floor of a stage.

        Half-way from chance to the accuracy that the stage started with; if
        that was a quarter of the way from chance to 1 or less, 5 % of this
        way, armed by a quarter of it. A given floor is armed by itself.

        Args:
            classes: Positive int.
            start: Optional float, accuracy before the first step.
            given: Optional float, the floor itself. Defaults to `None`.
        """
        chance = 1.0 / classes
        learnt = chance + _LEARNT * (1.0 - chance)
        known = 0.0 if start is None else start
        if given is not None:
            return cls(given, given, known >= given, "--accuracy_floor")
        if known >= learnt:
            reason = f"half-way from chance to the {percent(known)} before"
            return cls((chance + known) / 2, learnt, True, reason)
        floor = chance + _ABOVE_CHANCE * (1.0 - chance)
        return cls(floor, learnt, False, f"little above chance of 1/{classes}")


class CollapseGuard(keras.callbacks.Callback):
    """Keeps the last good checkpoint, and stops a run that has collapsed.

    A run has collapsed if, in validation,

    - accuracy is below the floor;
    - all gates are shut for every image;
    - all gates are open for every image although skipping is rewarded, after
      five epochs and half of the stage.

    To be called before the checkpoint of an epoch is saved.

    Args:
        title: String, the stage.
        counter: `Steps`.
        epochs: Int, epochs of the stage.
        floor: `Floor`.
        good: `tf.train.CheckpointManager` of the last good one, or `None`
            where another process saves.
        stop: Bool, raise `TrainingCollapsed`; otherwise only warn. Defaults to
            `True`.
        armed: Function called when accuracy reaches what it must not fall
            below, to be remembered when the stage is resumed. Defaults to
            one that does nothing.
    """

    def __init__(
        self,
        title: str,
        counter: Steps,
        epochs: int,
        floor: Floor,
        good: tf.train.CheckpointManager | None,
        stop: bool = True,
        armed: Callable[[], None] = lambda: None,
    ):
        super().__init__()
        self.title = title
        self.counter = counter
        self.epochs = epochs
        self.floor = floor
        self.good = good
        self.stop = stop
        self._armed = floor.armed
        self._note_armed = armed
        self._warned = False

    def on_epoch_end(self, epoch, logs=None):
        losses = (logs.get(name, 0.0) for name in ("loss", "val_loss"))
        if not all(map(math.isfinite, losses)):
            return  # for `Checkpoints` to tell
        seen = self._in_accuracy(epoch, logs) or self._in_gates(epoch)
        if seen is None:
            if self.good is not None:
                self.good.save(checkpoint_number=self.counter.done)
            self._warned = False
            return
        symptom, advice, gentler_helps = seen
        message = (
            f"{self.title} has collapsed at epoch {epoch + 1}, step "
            f"{self.counter.done}: {symptom}. "
        )
        if self.stop:
            path = self.good.latest_checkpoint if self.good else None
            kept = path or "none but the start of the stage"
            message += f"Last good checkpoint: {kept}. "
            raise TrainingCollapsed(message + advice, gentler_helps)
        if not self._warned and self.good is not None:
            warn(message + advice)
        self._warned = True

    def _in_accuracy(self, epoch, logs):
        accuracy = logs.get("val_accuracy")
        if accuracy is None:
            return None
        late = epoch + 1 >= _PATIENCE
        if not self._armed and (accuracy >= self.floor.reached or late):
            self._armed = True
            self._note_armed()
        if not self._armed or accuracy >= self.floor.accuracy:
            return None
        symptom = (
            f"validation accuracy {percent(accuracy)} is below "
            f"{percent(self.floor.accuracy)} ({self.floor.reason})"
        )
        return symptom, self._advice(), True

    def _in_gates(self, epoch):
        if not hasattr(self.model, "route_metrics"):
            return None
        rates = self.model.route_metrics.of_gates()["open_rate"]
        if not rates.any():
            symptom = "all gates are shut for every validation image"
            return symptom, self._advice(), True
        late = epoch + 1 >= max(_OPEN_EPOCHS, self.epochs / 2)
        if late and (rates == 1.0).all() and self._price() > 0.0:
            return (
                "all gates are open for every validation image",
                "Raise --alpha, the price of computation, or --rl_weight, or "
                "train longer, in another --workdir; --on_collapse=ignore "
                "goes on.",
                False,
            )
        return None

    def _advice(self):
        helps = "Lower the learning rate, or warm it up"
        if hasattr(self.model, "route_metrics"):
            helps = (
                "Lower the learning rate, or begin with more training or with "
                "gates that run (--gate_init=open)"
            )
        if self._price() > 0.0:
            helps = (
                "Lower --alpha, for skipping pays more than being right, or "
                "--hrl_learning_rate; begin with a longer sp or with --sharpen"
            )
        return (
            f"{helps}, in another --workdir. --on_collapse=fall_back goes on "
            "from the last good checkpoint with gentler settings, "
            "--on_collapse=ignore as if nothing were."
        )

    def _price(self):
        stage = getattr(self.model, "stage", None)
        if stage is None or "alpha" not in stage.hyperparameters:
            return 0.0
        steps = tf.convert_to_tensor(self.model.optimizer.iterations)
        return float(stage.value("alpha", tf.cast(steps, tf.int64)))


def warn(sentence: str) -> None:
    """Prints a warning where results are not looked for."""
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


def percent(share: float) -> str:
    """A share as it is printed."""
    return f"{100 * share:.1f} %"
