"""How a stage is cut into calls of `fit`, and the images among processes."""

import pytest
import tensorflow as tf

from skipnet_tf import fitting
from skipnet_tf import splits


def as_tuples(*arguments):
    return [
        (part.first_step, part.epoch, part.last_epoch, part.steps)
        for part in fitting.segments(*arguments)
    ]


def test_whole_epochs_are_one_segment():
    assert as_tuples(0, 30, 10) == [(0, 0, 3, 10)]


def test_a_broken_epoch_is_finished_before_the_whole_ones():
    # Step 13 is the fourth of epoch 1: 7 steps are left of it, then one whole
    # epoch, then 5 steps of the last.
    assert as_tuples(13, 35, 10) == [
        (13, 1, 2, 7),
        (20, 2, 3, 10),
        (30, 3, 4, 5),
    ]


def test_a_finished_stage_has_no_segment():
    assert as_tuples(30, 30, 10) == []


def test_a_stage_shorter_than_an_epoch_is_one_short_segment():
    assert as_tuples(0, 4, 10) == [(0, 0, 1, 4)]


@pytest.mark.parametrize(
    ("steps", "most", "together"), [(351, 10, 9), (351, 1, 1), (7, 5, 1)]
)
def test_steps_executed_together_divide_an_epoch(steps, most, together):
    assert fitting.executed_together(steps, most) == together


def test_the_last_evaluation_batch_leaves_no_replica_empty():
    assert splits.evaluation_batch(5000) == 500  # nothing left over
    assert splits.evaluation_batch(40) == 40
    # 501 = 437 + 64: the first remainder that gives 64 replicas an image.
    assert splits.evaluation_batch(501) == 437


def test_processes_evaluate_the_same_number_of_batches():
    # 1001 images are 501 and 500: with 500 a batch, two batches and one; with
    # 437, 437 + 64 and 437 + 63, and 63 are too few for 64 replicas.
    assert splits.evaluation_batch(1001, 2) == 436
    assert splits.evaluation_batch(81, 2) == 41  # 41 and 40: one batch each


def test_a_batch_is_cut_into_one_piece_for_each_replica():
    batches = tf.data.Dataset.range(16).map(lambda n: (n, -n)).batch(9)
    pieces = [images.numpy() for images, _ in fitting.cut(batches, 2)]
    assert [len(piece) for piece in pieces] == [5, 4, 4, 3]
    assert [n for piece in pieces for n in piece] == list(range(16))
