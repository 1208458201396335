"""Collapse: what counts as one, what is said, what is kept."""

import types

import numpy as np
import pytest

import skipnet_tf
from skipnet_tf import callbacks
from skipnet_tf import collapse
from skipnet_tf import retreats


@pytest.mark.parametrize(
    ("start", "given", "expected"),
    [
        (0.9, None, (0.5, 0.325, True)),  # half-way from 0.1 to 0.9
        (None, None, (0.145, 0.325, False)),  # 0.1 + 5 % of 0.9
        (0.2, None, (0.145, 0.325, False)),  # below 0.1 + 25 % of 0.9
        (0.9, 0.8, (0.8, 0.8, True)),
        (0.7, 0.8, (0.8, 0.8, False)),
        (None, 0.0, (0.0, 0.0, True)),
    ],
)
def test_the_floor_of_ten_classes(start, given, expected):
    floor = collapse.Floor.of(10, start, given)
    assert (floor.accuracy, floor.reached) == pytest.approx(expected[:2])
    assert floor.armed is expected[2]


def test_unknown_actions_and_impossible_floors_are_refused():
    with pytest.raises(ValueError, match="on_collapse='pray'"):
        collapse.Safety("pray")
    with pytest.raises(ValueError, match="accuracy_floor=1.5"):
        collapse.Safety(accuracy_floor=1.5)


class Good:
    """In place of a `tf.train.CheckpointManager`."""

    latest_checkpoint = None

    def save(self, checkpoint_number):
        self.latest_checkpoint = f"good/ckpt-{checkpoint_number}"


def guard(rates=0.5, start=None, epochs=20, stage=None, stop=True):
    """A guard of three gates that are all open for this share of images."""
    watching = collapse.CollapseGuard(
        "hrl",
        callbacks.Steps(),
        epochs,
        collapse.Floor.of(10, start),
        Good(),
        stop,
    )
    watching.set_model(
        types.SimpleNamespace(
            stage=stage or skipnet_tf.HybridReinforce(alpha=0.5),
            optimizer=types.SimpleNamespace(iterations=0),
            route_metrics=types.SimpleNamespace(
                of_gates=lambda: {"open_rate": np.full(3, rates, "float32")}
            ),
        )
    )
    return watching


def end(watching, epoch, accuracy, loss=1.0):
    watching.counter.variable.assign(10 * (epoch + 1))
    watching.on_epoch_end(epoch, {"loss": loss, "val_accuracy": accuracy})


def test_a_fall_below_the_floor_stops_and_names_the_last_good_checkpoint():
    watching = guard(start=0.9)
    end(watching, 0, 0.6)
    end(watching, 1, 0.5)
    with pytest.raises(collapse.TrainingCollapsed) as raised:
        end(watching, 2, 0.49)
    assert raised.value.gentler_helps
    for part in (
        "epoch 3, step 30: validation accuracy 49.0 % is below 50.0 % "
        "(half-way from chance to the 90.0 % before)",
        "Last good checkpoint: good/ckpt-20.",
        "Lower --alpha",
        "--on_collapse=fall_back",
    ):
        assert part in str(raised.value)


def test_a_run_without_a_start_collapses_once_it_has_learnt_something():
    watching = guard()
    for epoch, accuracy in enumerate((0.1, 0.1, 0.33, 0.15)):
        end(watching, epoch, accuracy)
    with pytest.raises(collapse.TrainingCollapsed, match="above chance of 1/1"):
        end(watching, 4, 0.14)
    with pytest.raises(collapse.TrainingCollapsed, match="epoch 10"):
        end(guard(), 9, 0.14)  # or should have


def test_a_loss_that_is_not_a_number_is_left_to_others_and_not_kept():
    watching = guard(start=0.9)
    end(watching, 0, 0.1, loss=float("nan"))
    assert watching.good.latest_checkpoint is None


def test_shut_gates_stop_any_stage():
    for stage, advice in (
        (skipnet_tf.HybridReinforce(), "Lower --alpha"),
        (skipnet_tf.Supervised(), "--gate_init=open"),
    ):
        with pytest.raises(collapse.TrainingCollapsed, match="shut") as raised:
            end(guard(0.0, stage=stage), 0, 0.9)
        assert advice in str(raised.value)


def test_open_gates_stop_late_and_only_where_skipping_is_rewarded():
    free = (skipnet_tf.HybridReinforce(alpha=0.0), skipnet_tf.Supervised())
    for stage in free:
        end(guard(1.0, stage=stage), 19, 0.9)
    end(guard(1.0, epochs=20), 8, 0.9)
    end(guard(1.0, epochs=4), 3, 0.9)  # fewer than five epochs
    with pytest.raises(collapse.TrainingCollapsed, match="Raise --alpha") as e:
        end(guard(1.0, epochs=20), 9, 0.9)
    assert not e.value.gentler_helps


def test_an_ignored_collapse_is_told_when_it_begins(capsys):
    watching = guard(start=0.9, stop=False)
    said = []
    for epoch, accuracy in enumerate((0.9, 0.4, 0.3, 0.9, 0.2)):
        end(watching, epoch, accuracy)
        said.append(capsys.readouterr().err)
    assert [bool(words) for words in said] == [False, True, False, False, True]
    assert said[1].startswith("warning: hrl has collapsed at epoch 2")
    assert watching.good.latest_checkpoint == "good/ckpt-40"


def test_what_has_been_learnt_is_remembered_on_resuming(tmp_path):
    watching = guard()
    watching._note_armed = lambda: retreats.arm(str(tmp_path))
    end(watching, 0, 0.2)
    assert not retreats.read(str(tmp_path)).armed
    end(watching, 1, 0.5)
    assert retreats.read(str(tmp_path)).armed
    again = guard()
    again._armed = retreats.read(str(tmp_path)).armed
    with pytest.raises(collapse.TrainingCollapsed):
        end(again, 2, 0.1)
