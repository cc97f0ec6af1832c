"""Metric: where rows of x lie so that near ones have like targets, learnt from the rows.

Each numeric cell's values are made normal by ranks and scaled by a weight. The weights are those
with which a kernel mean of other rows' targets predicts a row's own best.

References: Goldberger et al. 2004, "Neighbourhood components analysis" (NeurIPS); Ye et al. 2024,
"Revisiting nearest neighbor for tabular data" (ModernNCA), arXiv:2407.03257.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

MOST_NORMAL: Final = 2.5  # scores beyond are cut: a lone extreme is not far from all
LEAST_WEIGHT: Final = 0.3  # cells below hardly change the kernel between two usual rows
MOST_CELLS: Final = 16  # with more a tree of rows finds nothing faster than a full search
# Of the descent: 60 to 100 steps gave the same held-out errors on casp and california within 1 %.
N_STEPS: Final = 100
BATCH_ROWS: Final = 256
N_CANDIDATES: Final = 2048
RATE: Final = 0.1
# First weights, all alike: many columns need small ones, or the kernel holds one row and descent
# goes astray. Each is tried for some steps, the best goes on.
FIRST_SCALES: Final = (4.0, 2.0, 1.0, 0.5)
N_TRIAL: Final = 12


@dataclass(frozen=True, eq=False)
class Metric:
    """Coordinates of rows of x: piecewise linear in u for each cell that it reads.

    Parameters
    ----------
    cells : tuple of k int
        The columns of x that it reads, increasing.
    places : tuple of k float64 arrays
        The coordinate at u = 0, 1/c, … 1.
    """

    cells: tuple[int, ...]
    places: tuple[Floats, ...]

    @classmethod
    def fit(
        cls, x: Array, cells: Sequence[int], targets: Array, rng: np.random.Generator
    ) -> Metric | None:
        """Learn weights from rows x (n, d_in) and their targets (n, d).

        Parameters
        ----------
        cells : of all d_in columns, as `ColumnEmbeddings` takes them

        Returns
        -------
        Metric, or None if no cell is numeric

        Notes
        -----
        Cost: 1.4 `N_STEPS` * `BATCH_ROWS` * `N_CANDIDATES` distances, about 0.4 s.
        """
        numeric = [j for j, c in enumerate(cells) if c > 0]
        if not numeric:
            return None
        normal = cls(tuple(numeric), tuple(_normal_scores(x[:, j], cells[j]) for j in numeric))
        weights = find_weights(normal(x), np.asarray(targets, np.float32), rng)
        least = max(min(LEAST_WEIGHT, weights.max()), np.sort(weights)[-MOST_CELLS:][0])
        used = np.flatnonzero(weights >= least)[:MOST_CELLS]
        return cls(
            tuple(numeric[i] for i in used), tuple(normal.places[i] * weights[i] for i in used)
        )

    def __call__(self, x: Array) -> NDArray[np.float32]:
        """Return coordinates (n, k) of rows of x (n, d_in)."""
        found = np.empty((len(x), len(self.cells)), np.float32)
        for i, (j, place) in enumerate(zip(self.cells, self.places, strict=True)):
            found[:, i] = np.interp(x[:, j], np.linspace(0.0, 1.0, len(place)), place)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, with the array of `arrays`."""
        return {"cells": list(self.cells)}

    def arrays(self) -> dict[str, Array]:
        """Return the places, one after the other, float64."""
        return {"neighbours.places": np.concatenate(self.places)}

    @classmethod
    def from_json(cls, state: Any, arrays: Mapping[str, Array], cells: Sequence[int]) -> Metric:
        """Rebuild for rows of x of those cells; ValueError and such if it makes no sense."""
        own, numbers = state["cells"], arrays["neighbours.places"]
        if not (isinstance(own, list) and own and all(type(j) is int for j in own)):
            raise ValueError("no cells to be near by")
        if own != sorted(set(own)) or own[0] < 0 or own[-1] >= len(cells):
            raise ValueError("cells that x has not")
        sizes = [cells[j] + 1 for j in own]
        if min(sizes) < 2:
            raise ValueError("cells that are not numeric")
        good = numbers.dtype == np.float64 and numbers.shape == (sum(sizes),)
        if not good or not np.isfinite(numbers).all():
            raise ValueError("places of another form")
        return cls(tuple(own), tuple(np.split(numbers, np.cumsum(sizes)[:-1])))


def _normal_scores(u: Array, n_cells: int) -> Floats:
    """Return the normal score of each knot's rank among the values u (n,) of a cell."""
    from scipy.special import ndtri

    knots, ordered = np.linspace(0.0, 1.0, n_cells + 1), np.sort(u.astype(np.float64))
    # The middle of the ranks of equals
    rank = np.searchsorted(ordered, knots, "left") + np.searchsorted(ordered, knots, "right")
    share = np.clip(rank / (2.0 * len(u)), 1e-9, 1.0 - 1e-9)
    return np.asarray(np.clip(ndtri(share), -MOST_NORMAL, MOST_NORMAL))


def find_weights(
    places: NDArray[np.float32], targets: NDArray[np.float32], rng: np.random.Generator
) -> Floats:
    """Return the weights w (k,) that minimise the error of a kernel mean that leaves itself out.

    ::

        y_i ~ sum_j p_ij y_j,   p_ij = softmax_j(-|w * (c_i - c_j)|^2),   j != i

    Parameters
    ----------
    places : (n, k)
        c, unweighted.
    targets : (n, d)
        y; the error is the sum of squares over the d.

    Notes
    -----
    Adam on log w. With e_i the error and g_ij = e_i · y_j, the gradient by the
    squared distance is ``-2 p_ij (g_ij - sum_j p_ij g_ij)``; by log w_k of that 2 w_k^2
    (c_ik - c_jk)^2.
    """
    trials = [
        _descend(places, targets, np.full(places.shape[1], np.log(scale)), N_TRIAL, rng)
        for scale in FIRST_SCALES
    ]
    rows, others = _draw(len(places), 2 * BATCH_ROWS, rng)
    errors = [
        float((_kernel(places[rows] * w, places[others] * w, targets, rows, others)[1] ** 2).sum())
        for w in (np.exp(log_w).astype(np.float32) for log_w in trials)
    ]
    best = trials[int(np.argmin(errors))]
    return np.asarray(np.exp(_descend(places, targets, best, N_STEPS - N_TRIAL, rng)))


def _descend(
    places: Array, targets: Array, log_w: Floats, n_steps: int, rng: np.random.Generator
) -> Floats:
    """Return log w (k,) after so many steps of Adam."""
    log_w = log_w.copy()
    mean, square = np.zeros_like(log_w), np.zeros_like(log_w)
    for step in range(1, n_steps + 1):
        rows, others = _draw(len(places), BATCH_ROWS, rng)
        w = np.exp(log_w).astype(np.float32)
        gradient = _gradient(places[rows] * w, places[others] * w, targets, rows, others)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        corrected = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.95**step)) + 1e-8)
        log_w -= RATE * corrected
    return log_w


def _draw(
    n: int, n_rows: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which rows to predict, and which others their kernels may hold."""
    return rng.integers(n, size=min(n_rows, n)), rng.permutation(n)[:N_CANDIDATES]


def _kernel(
    a: Array, b: Array, targets: Array, rows: NDArray[np.intp], others: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Return p (n, m) and the errors (n, d) for rows at a (n, k) and candidates at b (m, k)."""
    distance = (a * a).sum(axis=1)[:, np.newaxis] + (b * b).sum(axis=1) - 2.0 * a @ b.T  # (n, m)
    distance[rows[:, np.newaxis] == others] = np.inf
    p = np.exp(distance.min(axis=1, keepdims=True) - distance)
    p /= p.sum(axis=1, keepdims=True)
    return p, p @ targets[others] - targets[rows]


def _gradient(
    a: Array, b: Array, targets: Array, rows: NDArray[np.intp], others: NDArray[np.intp]
) -> Floats:
    """Return the gradient by log w (k,) for rows at a (n, k) and candidates at b (m, k)."""
    p, off = _kernel(a, b, targets, rows, others)
    g = off @ targets[others].T  # (n, m)
    by_distance = -2.0 * p * (g - (p * g).sum(axis=1, keepdims=True))
    of_rows, of_others = by_distance.sum(axis=1), by_distance.sum(axis=0)
    crossed = ((by_distance @ b) * a).sum(axis=0)
    total = of_rows @ (a * a) + of_others @ (b * b) - 2.0 * crossed
    return np.asarray(2.0 * total / len(rows), np.float64)
