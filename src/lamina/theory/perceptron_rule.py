"""The perceptron rule in integers, with the bound on its mistakes that Novikoff proved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from lamina.core.checks import check_count
from lamina.core.errors import DataError, ShapeError
from lamina.theory.exact import ExactVector, Integers, Points, as_points, fraction
from lamina.theory.labels import as_labels
from lamina.theory.min_norm import Corner, Nearest, nearest_exact, nearest_float

_BLOCK = 64  # rows looked at together for the next mistake


@dataclass(frozen=True, eq=False, repr=False)
class PerceptronRun:
    """What the perceptron rule did.

    Attributes
    ----------
    weights, bias : ExactVector (d,), Fraction
        Where it ended.
    converged : bool
        Whether a whole epoch passed without a mistake.
    mistakes : tuple of int
        The row of each mistake, in order; each one moved the weights by s·x, the bias by s.
    mistakes_by_epoch : tuple of int
        How many there were in each pass over the rows.
    cycle : (int, int) or None
        The first epoch e, from 1, after which the weights are those of the later epoch: from then
        on the rule repeats itself for ever. Seen on rows that are not separable.
    radius_squared, margin_squared : Fraction
        R² = max ‖(x, 1)‖², and γ² of the best unit vector (w, b), γ = min s·(w·x + b): 0 where the
        rows are not separable.
    bound : Fraction or None
        R²/γ²: no order of the rows makes the rule err more often. None where γ = 0.
    """

    weights: ExactVector
    bias: Fraction
    converged: bool
    mistakes: tuple[int, ...]
    mistakes_by_epoch: tuple[int, ...]
    cycle: tuple[int, int] | None
    radius_squared: Fraction
    margin_squared: Fraction
    best: ExactVector = field(repr=False)  # (w, b), not normalised
    points: Points = field(repr=False)
    signs: tuple[int, ...] = field(repr=False)

    def __repr__(self) -> str:
        end = "converged" if self.converged else "not converged"
        return f"PerceptronRun({self.n_mistakes} mistakes, {end})"

    @property
    def n_mistakes(self) -> int:
        """The number of mistakes."""
        return len(self.mistakes)

    @property
    def bound(self) -> Fraction | None:
        """Novikoff's bound R²/γ² on the number of mistakes, or None."""
        return self.radius_squared / self.margin_squared if self.margin_squared else None

    @property
    def history(self) -> list[tuple[ExactVector, Fraction]]:
        """The weights and bias after each mistake; the first pair is that of the start, zeros."""
        w, result = [Fraction(0)] * (self.points.d + 1), []
        result.append((ExactVector(w[:-1]), w[-1]))
        for i in self.mistakes:
            w = [a + self.signs[i] * b for a, b in zip(w, self._row(i), strict=True)]
            result.append((ExactVector(w[:-1]), w[-1]))
        return result

    def _row(self, i: int) -> list[Fraction]:
        return [*(fraction(v) for v in self.points.values[i]), Fraction(1)]

    def verify(self) -> bool:
        """Check in fractions: each mistake was one, they sum to the weights, the bound holds."""
        w = [Fraction(0)] * (self.points.d + 1)
        for i in self.mistakes:
            row = self._row(i)
            if self.signs[i] * _dot(w, row) > 0:
                return False
            w = [a + self.signs[i] * b for a, b in zip(w, row, strict=True)]
        if (*w[:-1],) != (*self.weights,) or w[-1] != self.bias:
            return False
        rows = [self._row(i) for i in range(self.points.n)]
        if max(_dot(row, row) for row in rows) != self.radius_squared:
            return False
        if self.converged and not all(
            s * _dot(w, row) > 0 for s, row in zip(self.signs, rows, strict=True)
        ):
            return False
        if self.bound is None:
            return not self.converged
        lowest = min(s * _dot(self.best, row) for s, row in zip(self.signs, rows, strict=True))
        is_margin = lowest > 0 and lowest**2 == self.margin_squared * _dot(self.best, self.best)
        return is_margin and self.n_mistakes <= self.bound


def perceptron(x: object, y: object, *, max_epochs: int = 1000) -> PerceptronRun:
    """Run the perceptron rule in exact arithmetic, and bound its mistakes.

    From w = 0, b = 0, over the rows in their order: where ``s·(w·x + b) ≤ 0``, with s = ±1 the
    class, ``w += s·x`` and ``b += s``; until a whole epoch is without a mistake. On separable rows
    it errs at most R²/γ² times; on others it never ends, but its weights stay bounded.

    Parameters
    ----------
    x : array-like (n, d)
        As in `separability`.
    y : array-like (n,)
        Two classes; the higher one is positive.
    max_epochs : int ≥ 1, default 1000
        Where to stop on rows that are not separable, or hardly.

    Returns
    -------
    PerceptronRun

    Raises
    ------
    SpecError, ShapeError, DataError
        ``max_epochs`` is no count; as in `separability`.

    References
    ----------
    Rosenblatt 1958, "The perceptron". Novikoff 1962, "On convergence proofs for perceptrons".
    Block and Levin 1970, "On the boundedness of an iterative procedure for solving a system of
    linear inequalities".

    Examples
    --------
    >>> from lamina import theory
    >>> corners = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> run = theory.perceptron(corners, [0, 0, 0, 1])  # and
    >>> run.converged, run.n_mistakes, run.bound, run.verify()
    (True, 18, Fraction(51, 1), True)
    >>> theory.perceptron(corners, [0, 1, 1, 0]).cycle is None  # exclusive or
    False
    """
    where = "perceptron"
    check_count(max_epochs, "max_epochs", where)
    points = as_points(x, "x", where)
    if points.d == 0:
        raise ShapeError(f"{where}: expected x with at least 1 column, got 0. Add a column.")
    classes, codes = as_labels(y, points.n, where)
    if len(classes) > 2:
        raise DataError(
            f"{where}: expected two classes in y, got {len(classes)}. Pass the rows of two, or "
            "y == label for one against the rest."
        )
    signs = np.where(codes == 1, 1, -1)
    unit = math.lcm(*points.scale)  # all numbers as integers of 1/unit
    rows = np.empty((points.n, points.d + 1), dtype=object)
    for j, (shift, scale) in enumerate(zip(points.shift, points.scale, strict=True)):
        rows[:, j] = (points.integers[:, j] + shift) * (unit // scale)
    rows[:, -1] = unit
    rows = rows * signs.astype(object)[:, np.newaxis]
    radius = max(int(a) for a in (rows * rows).sum(axis=1))
    nearest = _nearest(rows)
    run = _run(rows, max_epochs)
    w = [Fraction(int(a), unit) for a in run[0]]
    return PerceptronRun(
        ExactVector(w[:-1]),
        w[-1],
        run[3] is None and run[2][-1] == 0,
        tuple(run[1]),
        tuple(run[2]),
        run[3],
        Fraction(radius, unit**2),
        sum((a * a for a in nearest.point), Fraction(0)) / unit**2,
        ExactVector(nearest.point),
        points,
        tuple(signs.tolist()),
    )


def _run(
    rows: Integers, max_epochs: int
) -> tuple[Integers, list[int], list[int], tuple[int, int] | None]:
    """Return the weights, the mistakes, their number by epoch, and a cycle if one is seen."""
    w = np.zeros(rows.shape[1], dtype=object)
    mistakes: list[int] = []
    by_epoch: list[int] = []
    seen = {tuple(w): 0}
    for epoch in range(1, max_epochs + 1):
        before, at = len(mistakes), 0
        while at < len(rows):
            block = rows[at : at + _BLOCK] @ w
            wrong = np.flatnonzero(block <= 0)
            if not wrong.size:
                at += _BLOCK
                continue
            at += int(wrong[0])
            w = w + rows[at]
            mistakes.append(at)
            at += 1
        by_epoch.append(len(mistakes) - before)
        if by_epoch[-1] == 0:
            return w, mistakes, by_epoch, None
        if tuple(w) in seen:
            return w, mistakes, by_epoch, (seen[tuple(w)], epoch)
        seen[tuple(w)] = epoch
    return w, mistakes, by_epoch, None


def _nearest(rows: Integers) -> Nearest:
    """Return the point of the rows' hull that is nearest to 0: its length is γ."""
    reach = max(max(map(abs, column)) for column in rows.T.tolist())
    floats = np.array([[a / reach for a in row] for row in rows.tolist()])  # in [-1, 1]

    def lowest_float(direction: Any) -> tuple[Corner, Any]:
        i = int(np.argmin(floats @ direction))
        return (i,), floats[i]

    def lowest(direction: Sequence[int]) -> tuple[Corner, Sequence[int]]:
        i = int(np.argmin(rows @ np.array(direction, dtype=object)))
        return (i,), rows[i].tolist()

    def coordinates(corner: Corner) -> Sequence[int]:
        result: list[int] = rows[corner[0]].tolist()
        return result

    d = rows.shape[1]
    return nearest_exact(lowest, coordinates, d, nearest_float(lowest_float, d))


def _dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))
