"""Scikit-learn's 1,797 digits, the data of the demo."""

import importlib.util

import numpy as np


def read() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads the digits.

    Returns:
        Images, uint8 `(1797, 8, 8, 3)`, labels, int32 `(1797,)`, and the
        names of the classes.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "name='digits' needs scikit-learn: pip install skipnet_tf[demo]"
        )
    from sklearn import datasets

    found = datasets.load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(images[..., None], 3, axis=-1)
    names = [str(name) for name in found.target_names]
    return images, found.target.astype(np.int32), names


def stratify(labels: np.ndarray) -> dict[str, list[int]]:
    """Splits indices into "train" and "test" (20 %), classes taking turns.

    Every slice of such a split holds about as much of each class.  Scikit-
    learn's order, by writer, is shuffled away first, always in the same way.

    Args:
        labels: Int array `(n,)`.

    Returns:
        Dict from split to the indices of its examples.
    """
    shuffled = np.random.RandomState(0).permutation(len(labels))
    rank = np.zeros(len(labels), np.int64)
    # In parts of the class: the larger classes would be alone at the end.
    progress = np.zeros(len(labels))
    for label in np.unique(labels):
        of_label = shuffled[labels[shuffled] == label]
        rank[of_label] = np.arange(len(of_label))
        progress[of_label] = rank[of_label] / len(of_label)
    indices = np.lexsort((labels, progress))
    test = rank[indices] % 5 == 4
    return {"train": indices[~test].tolist(), "test": indices[test].tolist()}
