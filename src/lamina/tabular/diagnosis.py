"""Where predictions go wrong: calibration, confusion, the groups of rows with the worst error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

from lamina.tabular.explain import MISSING, date_text
from lamina.tabular.table import CODED, Column, Table

Floats = NDArray[np.float64]

N_BINS = 15
N_RANGES = 5  # of a number or date, with as many rows each
LEAST_GROUP = 20  # rows: an error of fewer is hardly known
MOST_LEVELS = 200  # of a category, the most frequent


@dataclass(frozen=True, eq=False)
class CalibrationBins:
    """Probabilities in bins of as many values each, and what came true.

    Parameters
    ----------
    predicted, share : (n_bins,) float64
        Mean probability and share that came true.
    low, high : (n_bins,) float64
        95 % interval of the share (Clopper and Pearson).
    count : (n_bins,) int
    error : float
        Expected calibration error: sum of count / n · |share - predicted|.
    """

    predicted: Floats
    share: Floats
    low: Floats
    high: Floats
    count: NDArray[np.intp]
    error: float


def calibration_bins(probability: Floats, true: NDArray[np.bool_]) -> CalibrationBins:
    """Put probabilities (n,) in at most `N_BINS` bins of as many values and compare with ``true``.

    Values that are equal may come into two bins.
    """
    n = len(probability)
    parts = np.array_split(np.argsort(probability, kind="stable"), max(1, min(N_BINS, n // 10)))
    count = np.array([len(rows) for rows in parts])
    predicted = np.array([probability[rows].mean() for rows in parts])
    hits = np.array([np.count_nonzero(true[rows]) for rows in parts])
    share = hits / count
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1), count - hits + 1, 0.025), 0.0)
    misses = count - hits
    high = np.where(misses > 0, betaincinv(hits + 1, np.maximum(misses, 1), 0.975), 1.0)
    error = float(np.sum(count * np.abs(share - predicted)) / n)
    return CalibrationBins(predicted, share, low, high, count, error)


def confusion(true: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> NDArray[np.intp]:
    """Return how often class i (row) was predicted as class j (column)."""
    pairs = true.astype(np.intp) * n_classes + predicted.astype(np.intp)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


@dataclass(frozen=True)
class Group:
    """Rows that have a level, or a number in a range, in common.

    Parameters
    ----------
    column, values : str
        The column, and what its cells have in common.
    n_rows : int
    loss : float
        Their mean loss.
    excess : float
        How far it lies above the mean loss of all other rows.
    error : float
        The standard error of the excess.
    """

    column: str
    values: str
    n_rows: int
    loss: float
    excess: float
    error: float


def worst_groups(
    table: Table, losses: Floats, *, most: int = 10, level: float = 0.05
) -> tuple[list[Group], int]:
    """Return the groups with a loss above that of all other rows, beyond chance, worst first.

    ::

        excess > z · error,   z the (1 - level / n_groups) quantile of the normal distribution

    so that in all, by chance, one group is named in ``level`` of all reports (Bonferroni).

    Parameters
    ----------
    table : Table
        The columns as they are learnt from; free text is left out.
    losses : (n,) float64
        One a row.

    Returns
    -------
    groups : list of Group, at most ``most``, by ``excess - z · error``
    n_groups : int
        How many were looked at.
    """
    n, total, squares = len(losses), losses.sum(), (losses**2).sum()
    found = []
    for column, values, rows in _groups(table):
        m = len(rows)
        if m < LEAST_GROUP or n - m < LEAST_GROUP:
            continue
        own, own_squares = losses[rows].sum(), (losses[rows] ** 2).sum()
        mean, rest = own / m, (total - own) / (n - m)
        spread = max(own_squares / m - mean**2, 0.0) / (m - 1)
        spread += max((squares - own_squares) / (n - m) - rest**2, 0.0) / (n - m - 1)
        found.append(Group(column, values, m, float(mean), float(mean - rest), float(spread**0.5)))
    z = float(ndtri(1.0 - level / max(len(found), 1)))
    bad = [group for group in found if group.excess > z * group.error]
    bad.sort(key=lambda group: z * group.error - group.excess)
    return bad[:most], len(found)


def _groups(table: Table) -> Iterator[tuple[str, str, NDArray[np.intp]]]:
    """Yield (column, what the cells have in common, rows)."""
    for column in table:
        column = column.finite
        missing = np.flatnonzero(column.missing)
        if len(missing):
            yield column.name, MISSING, missing
        known = np.flatnonzero(~column.missing)
        if not len(known):
            continue
        if column.kind in CODED:
            yield from _levels(column, known)
        elif column.kind in ("number", "date"):
            yield from _ranges(column, known)


def _levels(column: Column, known: NDArray[np.intp]) -> Iterator[tuple[str, str, Any]]:
    codes = column.values[known]
    order = known[np.argsort(codes, kind="stable")]
    counts = np.bincount(codes, minlength=len(column.levels))
    ends = np.cumsum(counts)
    for code in np.argsort(-counts, kind="stable")[:MOST_LEVELS]:
        yield column.name, column.levels[code], order[ends[code] - counts[code] : ends[code]]


def _ranges(column: Column, known: NDArray[np.intp]) -> Iterator[tuple[str, str, Any]]:
    values = column.values[known]
    inner = np.linspace(0.0, 1.0, N_RANGES + 1)[1:-1]
    edges = np.unique(np.quantile(values, inner, method="nearest"))
    place = np.searchsorted(edges, values)  # up to each edge, and beyond the last
    show = date_text if column.kind == "date" else lambda value: f"{value:.6g}"
    for k in range(len(edges) + 1):
        rows = known[place == k]
        if not len(rows):
            continue
        own = column.values[rows]
        low, high = show(float(own.min())), show(float(own.max()))
        yield column.name, low if low == high else f"{low} to {high}", rows
