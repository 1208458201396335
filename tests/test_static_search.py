"""The search for a choice of blocks, on tables of losses."""

import itertools

import numpy as np
import pytest

from skipnet_tf.static_search import Search

COSTS = np.array([3, 2, 3, 1, 2])
MASKS = list(itertools.product((0, 1), repeat=5))


def table(seed):
    """A loss for every mask, not monotonous: blocks disturb one another."""
    losses = np.random.default_rng(seed).normal(size=len(MASKS))
    return dict(zip(MASKS, losses))


def search(losses, budget, asked=None):
    def measure(masks):
        if asked is not None:
            asked.extend(masks)
        return {mask: losses[mask] for mask in masks}

    return Search(COSTS, budget, measure)


def distance(one, other):
    return sum(a != b for a, b in zip(one, other))


def test_blocks_are_taken_away_in_the_order_in_which_they_are_not_missed():
    # The loss is the sum of what is missing: 5, 1, 4, 2, 3.
    worth = np.array([5, 1, 4, 2, 3])
    losses = {m: float(worth @ (1 - np.array(m))) for m in MASKS}
    # Without blocks 1 and 3 the cost is 8, without 4 it is 6.
    assert search(losses, 11).eliminate() == (1, 1, 1, 1, 1)
    assert search(losses, 9).eliminate() == (1, 0, 1, 1, 1)
    assert search(losses, 8).eliminate() == (1, 0, 1, 0, 1)
    assert search(losses, 7).eliminate() == (1, 0, 1, 0, 0)
    # The last step took 2 where 1 was enough: there is room for one back.
    assert search(losses, 7).improve((1, 0, 1, 0, 0)) == (1, 0, 1, 1, 0)
    assert search(losses, 0).eliminate() == (0, 0, 0, 0, 0)


def test_the_blocks_executed_most_that_can_be_paid():
    rates = np.array([0.9, 0.5, 0.8, 0.4, 0.5])
    # 3, then not 3 more, then 2; of equal rates the first.
    assert search({}, 5).fill(rates) == (1, 1, 0, 0, 0)
    assert search({}, 6).fill(rates) == (1, 0, 1, 0, 0)
    assert search({}, 11).fill(rates) == (1, 1, 1, 1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_improvement_ends_where_no_neighbour_is_better(seed):
    losses, start, asked = table(seed), (0, 1, 0, 1, 0), []
    searching = search(losses, 6, asked)
    end = searching.improve(start)
    assert losses[end] <= losses[start] and COSTS @ np.array(end) <= 6
    for mask in MASKS:
        swapped = distance(mask, end) == 2 and sum(mask) == sum(end)
        if COSTS @ np.array(mask) <= 6 and (
            distance(mask, end) == 1 or swapped
        ):
            assert losses[mask] > losses[end]
            assert mask in asked
    assert len(asked) == len(set(asked))
    assert all(COSTS @ np.array(mask) <= 6 for mask in asked)
