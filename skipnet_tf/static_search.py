"""Search for blocks that serve all images, by any loss of a choice.

A choice is a mask, a tuple with 1 for a block that is executed and 0 for one
that is skipped.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping

import numpy as np

Mask = tuple[int, ...]


class Search:
    """Masks that can be paid, and their losses.

    Args:
        costs: Int array `(blocks,)`, what executing each block costs.
        budget: Number, most that the blocks of a mask may cost together.
        measure: Function of a collection of masks that returns a mapping from
            each to its loss. It is never asked about a mask twice.
    """

    def __init__(
        self,
        costs: np.ndarray,
        budget: float,
        measure: Callable[[Collection[Mask]], Mapping[Mask, float]],
    ):
        self._costs = costs
        self._budget = budget
        self._measure = measure
        self._losses = {}

    def affordable(self, mask: Mask) -> bool:
        """Whether the budget is enough."""
        return self._costs @ np.array(mask) <= self._budget

    def best(self, masks: Collection[Mask]) -> Mask:
        """The mask with the least loss, of equal ones the first in order."""
        new = sorted(set(masks) - set(self._losses))
        if new:
            self._losses.update(self._measure(new))
        return min(sorted(masks), key=self._losses.get)

    def fill(self, rates: np.ndarray) -> Mask:
        """The blocks with the highest rates, as many as can be paid."""
        mask = (0,) * len(self._costs)
        for block in np.argsort(-rates, kind="stable"):
            more = _flipped(mask, block)
            mask = more if self.affordable(more) else mask
        return mask

    def eliminate(self) -> Mask:
        """From all blocks, one by one without that which is missed least."""
        mask = (1,) * len(self._costs)
        while not self.affordable(mask):
            kept = np.flatnonzero(mask)
            mask = self.best([_flipped(mask, block) for block in kept])
        return mask

    def improve(self, mask: Mask) -> Mask:
        """The local optimum that `mask` leads to.

        Its neighbours have one block more, one less, or one exchanged.
        """
        while True:
            near = [m for m in _neighbours(mask) if self.affordable(m)]
            better = self.best([mask, *near])
            if self._losses[better] >= self._losses[mask]:
                return mask
            mask = better


def _neighbours(mask):
    for one in range(len(mask)):
        flipped = _flipped(mask, one)
        yield flipped
        for other in range(one):
            if mask[other] != mask[one]:
                yield _flipped(flipped, other)


def _flipped(mask, index):
    return (*mask[:index], 1 - mask[index], *mask[index + 1 :])
