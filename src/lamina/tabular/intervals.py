"""Scores with bootstrap intervals: how far they would move with other rows of the same kind.

Reference: Efron and Tibshirani 1993, "An introduction to the bootstrap", section 13.3 (percentile
intervals).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # counts (r, n) of each row in each resample -> scores (r,)

COVERAGE = 0.95
MOST_RESAMPLES = 1000
LEAST_RESAMPLES = 200
MOST_DRAWS = 20_000_000  # resamples times rows: fewer resamples of many rows, which need fewer
_CHUNK = 4_000_000  # counts held at a time


@dataclass(frozen=True)
class Interval:
    """A score of all rows, and the interval that resampled rows leave it in.

    Parameters
    ----------
    value, low, high : float
    """

    value: float
    low: float
    high: float


def score_intervals(
    statistics: dict[str, Statistic], n: int, rng: np.random.Generator
) -> dict[str, Interval]:
    """Return each score with its 95 % percentile interval.

    Parameters
    ----------
    statistics : dict of str to callable
        Each takes how often each row counts, (r, n) float64, and returns r scores.
    n : int ≥ 1
        Rows.
    rng : numpy.random.Generator

    Notes
    -----
    1,000 resamples, down to 200 for more than 100,000 rows.
    """
    n_resamples = int(np.clip(MOST_DRAWS // n, LEAST_RESAMPLES, MOST_RESAMPLES))
    chunk = max(1, _CHUNK // n)
    drawn: dict[str, list[Floats]] = {name: [] for name in statistics}
    for start in range(0, n_resamples, chunk):
        r = min(chunk, n_resamples - start)
        counts = np.empty((r, n))
        for i in range(r):
            counts[i] = np.bincount(rng.integers(0, n, n), minlength=n)
        for name, statistic in statistics.items():
            drawn[name].append(statistic(counts))
    tail = (1.0 - COVERAGE) / 2.0
    found = {}
    for name, statistic in statistics.items():
        samples = np.concatenate(drawn[name])
        samples = samples[np.isfinite(samples)]  # an AUC of one class only is none
        value = float(statistic(np.ones((1, n)))[0])
        low, high = np.quantile(samples, (tail, 1 - tail)) if samples.size else (np.nan, np.nan)
        found[name] = Interval(value, float(low), float(high))
    return found


def mean_of(values: Floats) -> Statistic:
    """Return the statistic of the mean of a number (n,) a row."""
    return lambda counts: np.asarray(counts @ values / counts.sum(axis=1))


def root_mean_of(values: Floats) -> Statistic:
    """Return the statistic of the root of the mean of a number (n,) ≥ 0 a row."""
    mean = mean_of(values)
    return lambda counts: np.sqrt(mean(counts))


def r2_of(y: Floats, y_pred: Floats) -> Statistic:
    """Return the statistic of 1 - sum (y - y_pred)^2 / sum (y - mean y)^2; NaN where y is constant.

    Of several targets (n, k) the mean.
    """
    y, y_pred = y.reshape(len(y), -1), y_pred.reshape(len(y), -1)
    centred = y - y.mean(axis=0)  # or the squares of large numbers would drown their spread
    squares = (y - y_pred) ** 2

    def r2(counts: Floats) -> Floats:
        n = counts.sum(axis=1, keepdims=True)
        total = counts @ centred**2 - (counts @ centred) ** 2 / n  # (r, k)
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(total > 0, 1.0 - (counts @ squares) / total, np.nan)
        return np.asarray(each.mean(axis=1))

    return r2


def auc_of(positive: NDArray[np.bool_], score: Floats) -> Statistic:
    """Return the statistic of the area under the ROC curve; NaN where a class is absent.

    ::

        AUC = sum over scores u of P(u) (N(below u) + N(u) / 2) / (P N)

    with P and N how often positive and negative rows count.
    """
    order = np.argsort(score, kind="stable")
    first = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # of each different score
    is_positive = positive[order].astype(np.float64)

    def auc(counts: Floats) -> Floats:
        own: NDArray[Any] = counts[:, order]
        p = np.add.reduceat(own * is_positive, first, axis=1)
        q = np.add.reduceat(own * (1.0 - is_positive), first, axis=1)
        below = np.cumsum(q, axis=1) - q
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((p * (below + q / 2)).sum(axis=1) / (p.sum(axis=1) * q.sum(axis=1)))

    return auc
