"""Neighbours: the targets of the training rows nearest to a row, as further columns of x.

A network is smooth; where the target changes from place to place (a house's price), what the
nearest known rows had says more. The columns added are means of the targets of the nearest rows,
nearer ones counting more, a training row itself always left out, so that they mean the same in
fit and in prediction. `pilot` decides whether a table gets them.

References: Gorishniy et al. 2023, "TabR: tabular deep learning meets nearest neighbors",
arXiv:2307.14338; Ye et al. 2024 (ModernNCA), arXiv:2407.03257.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.engine import default_n_threads
from lamina.core.errors import ModelFileError
from lamina.tabular.inputs import NumberInput
from lamina.tabular.metric import Metric

Array = NDArray[Any]
Floats = NDArray[np.float64]

# DIFF(Gorishniy 2023, section 3): the metric is fixed before the network learns, so that a row's
# neighbours are looked up once and not in every step.
LEVELS: Final = (8, 24)  # rows that a mean target is of
MOST_ROWS: Final = 50_000  # kept: bounds the model file and the time of a look-up
MOST_ADDED: Final = 32  # columns added to x: more cost more than they say
BATCH_ROWS: Final = 1 << 14  # looked up at a time: bounds the memory
LEAST_SHARE: Final = 1e-6  # of a row at the edge: nearly none, but all alike where all are there


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Training rows, and how their targets become further columns of x.

    Parameters
    ----------
    metric : Metric
        Which rows are near.
    rows : (m, k) float32
        Its coordinates of the training rows that are kept.
    targets : (m, d) float32
        What means are taken of: y, or an indicator of each class.
    columns : tuple of NumberInput
        How each mean becomes a column of x: d of the first level, d of the next.
    levels : tuple of int, increasing
        Rows that a mean is of, at most m.
    """

    metric: Metric
    rows: NDArray[np.float32]
    targets: NDArray[np.float32]
    columns: tuple[NumberInput, ...]
    levels: tuple[int, ...]

    @classmethod
    def fit(
        cls,
        metric: Metric,
        x: Array,
        targets: NDArray[np.float32],
        kept: NDArray[np.intp],
        n_threads: int | None = None,
    ) -> tuple[Neighbours, NDArray[np.float32]]:
        """Keep some rows of x (n, d_in) and their targets (n, d).

        Parameters
        ----------
        kept : (m,) intp
            Which rows; more than the largest of `LEVELS`.

        Returns
        -------
        neighbours : Neighbours
        wider : (n, d_in + n_added) float32
            x with the columns added, no row counting as its own neighbour.
        """
        levels = LEVELS if targets.shape[1] * len(LEVELS) <= MOST_ADDED else LEVELS[-1:]
        bare = cls(metric, metric(x[kept]), np.asarray(targets[kept], np.float32), (), levels)
        own = np.full(len(x), -1, np.intp)
        own[kept] = np.arange(len(kept))
        means = bare.means(x, own, n_threads)
        columns = tuple(_mean_column(means[:, i]) for i in range(means.shape[1]))
        fitted = cls(metric, bare.rows, bare.targets, columns, levels)
        return fitted, fitted._written(x, means)

    @property
    def cells(self) -> tuple[int, ...]:
        """Of the columns that it adds, as `ColumnEmbeddings` takes them."""
        return tuple(c for column in self.columns for c in column.cells)

    def widen(self, x: Array, n_threads: int | None = None) -> NDArray[np.float32]:
        """Return rows x (n, d_in) with their neighbours' columns, (n, d_in + n_added).

        Notes
        -----
        Cost: a look-up in a k-d tree, 10 to 20 us a row for 10,000 rows kept by 3 to 9 cells.
        """
        return self._written(x, self.means(x, None, n_threads))

    def means(
        self, x: Array, own: NDArray[np.intp] | None = None, n_threads: int | None = None
    ) -> Floats:
        """Return the mean targets (n, n_levels * d) of the rows nearest to rows of x.

        Parameters
        ----------
        own : (n,) intp, optional
            Which kept row each row is, -1 for none: that one does not count.
        """
        parts = [
            self._means(
                x[start : start + BATCH_ROWS],
                None if own is None else own[start : start + BATCH_ROWS],
                n_threads,
            )
            for start in range(0, max(len(x), 1), BATCH_ROWS)
        ]
        return np.concatenate(parts)

    def _means(self, x: Array, own: NDArray[np.intp] | None, n_threads: int | None) -> Floats:
        most = self.levels[-1]
        n_near = most + (own is not None)
        places = self.metric(x).astype(np.float64)
        workers = default_n_threads(n_threads)
        distance, near = self._tree.query(places, k=np.arange(1, n_near + 1), workers=workers)
        if own is not None:
            # The others in their order; where the row itself is not among them, the nearest
            others = np.argsort(near == own[:, np.newaxis], axis=1, kind="stable")[:, :most]
            distance = np.take_along_axis(distance, others, axis=1)
            near = np.take_along_axis(near, others, axis=1)
        targets = self.targets[near].astype(np.float64)  # (n, most, d)
        found = []
        for level in self.levels:
            reach = np.maximum(distance[:, level - 1 : level], 1e-12)
            share = np.maximum(1.0 - (distance[:, :level] / reach) ** 2, LEAST_SHARE)
            share /= share.sum(axis=1, keepdims=True)
            found.append(np.einsum("nk,nkd->nd", share, targets[:, :level]))
        return np.concatenate(found, axis=1)

    def _written(self, x: Array, means: Floats) -> NDArray[np.float32]:
        d_in = x.shape[1]
        wider = np.empty((len(x), d_in + len(self.columns)), np.float32)
        wider[:, :d_in] = x
        for i, column in enumerate(self.columns):
            column.write(means[:, i], wider[:, d_in + i : d_in + i + 1])
        return wider

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.rows.astype(np.float64))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_tree"}  # made anew when asked

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, with the arrays of `arrays`."""
        n_knots = [len(column.knots) for column in self.columns]
        return {**self.metric.to_json(), "levels": list(self.levels), "n_knots": n_knots}

    def arrays(self) -> dict[str, Array]:
        """Return all numbers but those of `to_json`."""
        return {
            **self.metric.arrays(),
            "neighbours.rows": self.rows,
            "neighbours.targets": self.targets,
            "neighbours.knots": np.concatenate([column.knots for column in self.columns]),
        }

    @classmethod
    def from_json(cls, state: Any, arrays: Mapping[str, Array], cells: Sequence[int]) -> Neighbours:
        """Rebuild for rows of x of those cells; `ModelFileError` if it makes no sense."""
        try:
            metric = Metric.from_json(state, arrays, cells)
            return cls._rebuild(metric, state, arrays)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"load: expected the neighbours of a table model, got {error!s:.80}. "
                "The file is damaged; fit the model again."
            ) from error

    @classmethod
    def _rebuild(
        cls, metric: Metric, state: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Neighbours:
        rows, targets = arrays["neighbours.rows"], arrays["neighbours.targets"]
        knots, levels = arrays["neighbours.knots"], state["levels"]
        for numbers in (rows, targets):
            if numbers.dtype != np.float32 or numbers.ndim != 2 or not np.isfinite(numbers).all():
                raise ValueError("rows of another form")
        if rows.shape[1] != len(metric.cells) or len(targets) != len(rows):
            raise ValueError("rows of another form")
        counts = isinstance(levels, list) and levels and all(type(k) is int for k in levels)
        if not counts or levels != sorted(set(levels)) or not levels[0] >= 1:
            raise ValueError("levels that do not increase")
        if levels[-1] > len(rows) or levels[-1] > LEVELS[-1]:
            raise ValueError("levels of more rows than there are")
        n_knots = state["n_knots"]
        if not all(type(n) is int and n >= 2 for n in n_knots) or sum(n_knots) != len(knots):
            raise ValueError("knots of another number")
        if not n_knots or len(n_knots) != len(levels) * targets.shape[1]:
            raise ValueError("columns of another number")
        good = knots.dtype == np.float64 and knots.ndim == 1 and np.isfinite(knots).all()
        each = np.split(knots, np.cumsum(n_knots)[:-1])
        if not good or not all((np.diff(own) > 0).all() for own in each):
            raise ValueError("knots that do not increase")
        columns = tuple(NumberInput("neighbours", "", own, 0.0, False) for own in each)
        return cls(metric, rows, targets, columns, tuple(levels))


def local_targets(y: Array, d_out: int) -> NDArray[np.float32]:
    """Return what means are taken of, (n, d): y, or indicators of the classes y (n,).

    Of two classes the second says all.
    """
    if y.ndim == 2:
        return np.asarray(y, np.float32)
    first = 1 if d_out == 2 else 0
    return np.asarray(y[:, np.newaxis] == np.arange(first, d_out), np.float32)


def _mean_column(means: Floats) -> NumberInput:
    """Return how means (n,) become a column of x."""
    found = NumberInput.fit("neighbours", "", means)
    if found is not None:
        return NumberInput("neighbours", "", found.knots, 0.0, False)
    return NumberInput("neighbours", "", means[0] + np.array([-1.0, 1.0]), 0.0, False)
