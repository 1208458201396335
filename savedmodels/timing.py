"""How long exported networks take, beside one another."""

import statistics
import time
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from skipnet_tf import sessions

_CALLS = 50  # of each network and batch
_WARM_UP = 5  # calls before them


def milliseconds(
    versions: Mapping[str, str],
    images: np.ndarray,
    batch_sizes: Sequence[int],
) -> dict[int, dict[str, float]]:
    """Times networks that take turns, so that a busy moment meets them all.

    Args:
        versions: Mapping from names to folders of versions.
        images: uint8 pixels `(images, height, width, 3)`; too few of them
            are repeated.
        batch_sizes: Sequence of positive ints, images per call.

    Returns:
        Dict from batch size to a dict from name to the median time of a call,
        in milliseconds per image.
    """
    networks = {
        name: sessions.Session(path).callable("serving_default", "images")
        for name, path in versions.items()
    }
    count = max(len(images), *batch_sizes)
    images = np.resize(images, (count, *images.shape[1:]))
    return {
        batch: {
            name: taken / batch
            for name, taken in _medians(networks, images, batch).items()
        }
        for batch in batch_sizes
    }


def _medians(networks, images, batch):
    starts = range(0, len(images) - batch + 1, batch)
    taken = {name: [] for name in networks}
    for call in range(_WARM_UP + _CALLS):
        first = starts[call % len(starts)]
        for name, network in networks.items():
            start = time.perf_counter()
            network(images[first : first + batch])
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: statistics.median(times[_WARM_UP:])
        for name, times in taken.items()
    }
