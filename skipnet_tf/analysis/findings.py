"""What the decisions of a network say, as numbers (Sec. 4.2).

Pure functions of arrays.  Intervals hold with 95 % confidence.
"""

import numpy as np

_Z = 1.959964  # standard deviations around the mean that hold 95 %
_LUMA = np.array([0.299, 0.587, 0.114])


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


def rank_correlation(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Spearman's rank correlation with its interval (Fig. 9a).

    Args:
        first: Array `(n,)`.
        second: Array `(n,)`.

    Returns:
        Dict with `rho` and its interval `low` to `high`; NaN where one of the
        two does not vary, or there are fewer than four values.

    Reference:
        - [Bonett and Wright, 2000](https://doi.org/10.1007/BF02294183)
    """
    rho, count = float(spearman(first, second)), len(first)
    if np.isnan(rho) or count < 4:
        return {"rho": np.nan, "low": np.nan, "high": np.nan}
    # A perfect order has no finite interval: as if two neighbours had changed
    # places.
    most = 1 - 12 / (count**3 - count)
    inside = np.clip(rho, -most, most)
    error = np.sqrt((1 + inside**2 / 2) / (count - 3))
    low, high = np.tanh(np.arctanh(inside) + _Z * error * np.array([-1, 1]))
    return {
        "rho": rho,
        "low": min(float(low), rho),
        "high": max(float(high), rho),
    }


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean and its interval, normal approximation.

    Args:
        values: Array `(n,)`.

    Returns:
        Three floats: low, mean, high; all the mean for a single value.
    """
    mean = float(values.mean())
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    margin = float(_Z * spread / np.sqrt(len(values)))
    return mean - margin, mean, mean + margin


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
