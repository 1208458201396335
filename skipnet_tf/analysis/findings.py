"""What the decisions of a network say, as numbers (Sec. 4.2).

Pure functions of arrays.  Intervals hold with 95 % confidence.
"""

import numpy as np

_Z = 1.959964  # standard deviations around the mean that hold 95 %
_LUMA = np.array([0.299, 0.587, 0.114])
_RESAMPLES = 1000


def policy_entropy(gates: np.ndarray) -> float:
    """Entropy in bits of the paths that images take.

    Args:
        gates: Array `(images, gates)`, 1 executed, 0 skipped.

    Returns:
        Float from 0, one path for all, to the number of gates.
    """
    _, counts = np.unique(gates, axis=0, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no minus zero


def input_dependent(gates: np.ndarray) -> float:
    """Share of gates that do not decide the same for every image.

    Args:
        gates: Array `(images, gates)`, 1 executed, 0 skipped.

    Returns:
        Float from 0, a smaller static network, to 1.
    """
    return float((gates != gates[:1]).any(axis=0).mean())


def image_statistics(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Brightness, contrast and sharpness of every image.

    Args:
        pixels: uint8 array `(images, height, width, 3)`.

    Returns:
        Dict of float arrays `(images,)`: `brightness` and `contrast`, mean
        and standard deviation of the luma in grey levels, and `sharpness`,
        the variance of its Laplacian in squared grey levels.
    """
    luma = pixels @ _LUMA
    inner = luma[:, 1:-1, 1:-1]
    laplacian = (
        luma[:, :-2, 1:-1]
        + luma[:, 2:, 1:-1]
        + luma[:, 1:-1, :-2]
        + luma[:, 1:-1, 2:]
        - 4 * inner
    )
    return {
        "brightness": luma.mean(axis=(1, 2)),
        "contrast": luma.std(axis=(1, 2)),
        "sharpness": laplacian.var(axis=(1, 2)),
    }


def easy_and_hard(executed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images that run fewest and most blocks, about a tenth each.

    Images that run as many blocks as the last of a tenth belong to it.

    Args:
        executed: Int array `(images,)`, blocks executed.

    Returns:
        Two boolean arrays `(images,)` that share no image, or are empty
        where all images run as many blocks.
    """
    low, high = np.quantile(executed, (0.1, 0.9))
    if low == high:
        low, high = executed.min(), executed.max()
    if low == high:
        nobody = np.zeros(len(executed), bool)
        return nobody, nobody
    return executed <= low, executed >= high


def difference(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Compares the means of two groups.

    Args:
        first: Array `(images,)`, at least two values.
        second: Array `(others,)`, at least two values.

    Returns:
        Dict with the means `first` and `second`, their `difference`, the
        interval `low` to `high` of the difference (normal approximation,
        variances of their own) and `deviation`, the pooled standard
        deviation, to which the others can be compared.
    """
    variances = first.var(ddof=1), second.var(ddof=1)
    error = np.sqrt(variances[0] / len(first) + variances[1] / len(second))
    gap = first.mean() - second.mean()
    return {
        "first": float(first.mean()),
        "second": float(second.mean()),
        "difference": float(gap),
        "low": float(gap - _Z * error),
        "high": float(gap + _Z * error),
        "deviation": float(np.sqrt(np.mean(variances))),
    }


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 along the last axis; equal values share their mean rank.

    Args:
        values: Array `(..., n)`.

    Returns:
        Float array of the same shape.
    """
    below = (values[..., None, :] < values[..., None]).sum(axis=-1)
    equal = (values[..., None, :] == values[..., None]).sum(axis=-1)
    return below + (equal - 1) / 2


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis; NaN where values do not vary.

    Args:
        first: Array `(..., n)`.
        second: Array `(..., n)`.

    Returns:
        Float array `(...)` from -1 to 1.
    """
    return pearson(ranks(first), ranks(second))


def pearson(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Linear correlation along the last axis; NaN where values do not vary.

    Args:
        first: Array `(..., n)`.
        second: Array `(..., n)`.

    Returns:
        Float array `(...)` from -1 to 1.
    """
    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    product = (first * second).sum(axis=-1)
    return np.divide(
        product, scale, out=np.full(np.shape(scale), np.nan), where=scale > 0
    )


def class_correlation(
    labels: np.ndarray, correct: np.ndarray, skipped: np.ndarray
) -> dict[str, float]:
    """Whether classes with a higher accuracy skip more blocks (Fig. 9a).

    Args:
        labels: Int array `(images,)`.
        correct: Boolean array `(images,)`.
        skipped: Int array `(images,)`, blocks skipped.

    Returns:
        Dict with `rho`, Spearman's rank correlation over classes of accuracy
        and median of blocks skipped, and its interval `low` to `high`, from
        1000 bootstrap samples of the images of each class; NaN where one of
        the two is the same for all classes.
    """
    random = np.random.default_rng(0)
    accuracy, medians = [], []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        drawn = random.choice(of_class, (_RESAMPLES, len(of_class)))
        # In front of the samples: the class as it is.
        drawn = np.concatenate([of_class[None], drawn])
        accuracy.append(correct[drawn].mean(axis=1))
        medians.append(np.median(skipped[drawn], axis=1))
    rho = np.stack(
        [
            spearman(*pair)
            for pair in zip(np.transpose(accuracy), np.transpose(medians))
        ]
    )
    known = rho[1:][~np.isnan(rho[1:])]
    if np.isnan(rho[0]) or not len(known):
        return {"rho": np.nan, "low": np.nan, "high": np.nan}
    low, high = np.quantile(known, (0.025, 0.975))
    return {"rho": float(rho[0]), "low": float(low), "high": float(high)}


def fit_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the least squares line; `x` must vary.

    Args:
        x: Array `(n,)`.
        y: Array `(n,)`.

    Returns:
        Two floats.
    """
    slope = np.cov(x, y)[0, 1] / np.var(x, ddof=1)
    return float(slope), float(y.mean() - slope * x.mean())
