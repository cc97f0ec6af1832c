"""Linear programs in whole numbers: the simplex method without a rounding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Optimum:
    """``x`` maximises the objective; ``prices``, one a row, minimise that of the dual program."""

    x: tuple[Fraction, ...]
    prices: tuple[Fraction, ...]
    value: Fraction


@dataclass(frozen=True)
class Ray:
    """A direction x >= 0 with A x <= 0 along which the objective grows for ever."""

    x: tuple[Fraction, ...]


def maximise(objective: NDArray[Any], matrix: NDArray[Any], limits: NDArray[Any]) -> Optimum | Ray:
    """Maximise ``objective @ x`` where ``matrix @ x <= limits`` and x >= 0, in whole numbers.

    Parameters
    ----------
    objective : array of int (n,)
    matrix : array of int (m, n)
    limits : array of int (m,), not negative
        So that x = 0 is allowed, and the method can start there.

    Notes
    -----
    Entries are kept as integers over one common denominator, the last pivot (Edmonds 1967): each
    is a minor of the original matrix, and so is never longer than that. The steepest column
    enters; after many steps the first one, which never cycles (Bland 1977).
    """
    m, n = matrix.shape
    table = np.zeros((m + 1, n + m + 1), object)
    table[:m, :n] = matrix.astype(object)
    table[np.arange(m), n + np.arange(m)] = 1
    table[:m, -1] = limits.astype(object)
    table[m, :n] = -objective.astype(object)
    basis = list(range(n, n + m))
    denominator = 1
    steps = 0
    while True:
        costs = table[m, :-1]
        entering = np.flatnonzero(costs < 0)
        if not len(entering):
            break
        steps += 1
        column = int(entering[0] if steps > 20 * (m + 1) else entering[costs[entering].argmin()])
        rows = [i for i in range(m) if table[i, column] > 0]
        if not rows:
            x = [Fraction(0)] * (n + m)
            x[column] = Fraction(1)
            for i, b in enumerate(basis):
                x[b] = Fraction(-int(table[i, column]), denominator)
            return Ray(tuple(x[:n]))
        row = min(
            rows, key=lambda i: (Fraction(int(table[i, -1]), int(table[i, column])), basis[i])
        )
        pivot = table[row, column]
        kept = table[row].copy()
        table = (table * pivot - np.outer(table[:, column], kept)) // denominator
        table[row] = kept
        basis[row] = column
        denominator = int(pivot)
    x = [Fraction(0)] * (n + m)
    for i, b in enumerate(basis):
        x[b] = Fraction(int(table[i, -1]), denominator)
    prices = tuple(Fraction(int(v), denominator) for v in table[m, n : n + m])
    return Optimum(tuple(x[:n]), prices, Fraction(int(table[m, -1]), denominator))
