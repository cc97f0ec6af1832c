"""Scores of predictions, in plain NumPy: what a report quotes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def accuracy(y: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return the weighted share of rows whose labels are all equal.

    Parameters
    ----------
    y, y_pred : array (n,) or (n, k)
        Labels, or k labels a row.
    sample_weight : array (n,), optional
    """
    right = np.asarray(y) == np.asarray(y_pred)
    if right.ndim > 1:
        right = right.all(axis=tuple(range(1, right.ndim)))  # (n,)
    return float(np.average(right, weights=sample_weight))


def log_loss(y: Array, probabilities: Array, sample_weight: Array | None = None) -> float:
    """Return the mean of -log p of the true class, p clipped to [eps, 1].

    Parameters
    ----------
    y : int array (n,)
        Class indices.
    probabilities : array (n, n_classes)
        Rows that sum to 1.
    sample_weight : array (n,), optional
    """
    p = np.asarray(probabilities)
    true = np.take_along_axis(p, np.asarray(y, np.intp)[:, np.newaxis], axis=1)[:, 0]  # (n,)
    clipped = np.clip(true, np.finfo(p.dtype).eps, 1.0)
    return float(np.average(-np.log(clipped.astype(np.float64)), weights=sample_weight))


def expected_calibration_error(
    y: Array, probabilities: Array, n_bins: int = 15, sample_weight: Array | None = None
) -> float:
    """Return how far confidence is from accuracy, over bins of equal mass.

    ::

        sum_b (w_b / w) |accuracy_b - confidence_b|

    Rows are put in order of their confidence, the probability of their most probable class, and
    cut into bins of equal weight; accuracy and confidence are a bin's weighted means.

    Parameters
    ----------
    y : int array (n,)
        Class indices.
    probabilities : array (n, n_classes)
        Rows that sum to 1.
    n_bins : int ≥ 1, default 15
        Fewer for tables of few rows: within a bin of m rows chance alone makes about 0.4 / sqrt(m).
    sample_weight : array (n,), optional

    References
    ----------
    Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599, eq. 3; bins of
    equal mass: Nixon et al. 2019, "Measuring calibration in deep learning", arXiv:1904.01685.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> round(expected_calibration_error(np.array([0, 0]), p, n_bins=1), 6)
    0.3
    """
    p = np.asarray(probabilities, np.float64)
    order = np.argsort(p.max(axis=1), kind="stable")
    w = np.ones(len(p)) if sample_weight is None else np.asarray(sample_weight, np.float64)[order]
    confidence = p.max(axis=1)[order]
    right = (np.argmax(p, axis=1) == np.asarray(y))[order]
    middle = (np.cumsum(w) - w / 2) / w.sum()
    bins = np.minimum((middle * n_bins).astype(np.intp), n_bins - 1)
    gaps = np.bincount(bins, weights=w * (right - confidence), minlength=n_bins)  # (n_bins,)
    return float(np.abs(gaps).sum() / w.sum())


def mse(y: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return the mean of (y - y_pred)^2 over rows and outputs; parameters as for `r2`."""
    return _mean((_float(y) - _float(y_pred)) ** 2, sample_weight)


def rmse(y: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return the square root of `mse`."""
    return float(np.sqrt(mse(y, y_pred, sample_weight)))


def mae(y: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return the mean of |y - y_pred| over rows and outputs; parameters as for `r2`."""
    return _mean(np.abs(_float(y) - _float(y_pred)), sample_weight)


def r2(y: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return 1 - sum (y - y_pred)^2 / sum (y - mean y)^2, the mean over outputs.

    A constant output scores 1 where it is met exactly and 0 where it is not.

    Parameters
    ----------
    y, y_pred : array (n,) or (n, d_out)
    sample_weight : array (n,), optional
    """
    y, y_pred = _float(y), _float(y_pred)  # (n, d_out)
    w = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    residual = w @ (y - y_pred) ** 2  # (d_out,)
    total = w @ (y - np.average(y, axis=0, weights=w)) ** 2
    varies = total > 0
    scores = np.where(residual > 0, 0.0, 1.0)
    scores[varies] = 1.0 - residual[varies] / total[varies]
    return float(scores.mean())


def _float(y: Array) -> npt.NDArray[np.float64]:
    y = np.asarray(y, np.float64)
    return y[:, np.newaxis] if y.ndim == 1 else y


def _mean(values: npt.NDArray[np.float64], sample_weight: Array | None) -> float:
    return float(np.average(values.mean(axis=1), weights=sample_weight))
