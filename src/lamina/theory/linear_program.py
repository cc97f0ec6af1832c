"""Linear programs in integers: the simplex method without rounding, so that it always decides.

Floats only suggest which column enters; every sign that counts is the sign of an integer. The
basis is kept as integers over one determinant (Edmonds 1967; Avis 2000), so a pivot costs m²
products and exact divisions and no greatest common divisors.

References
----------
Edmonds 1967, "Systems of distinct representatives and linear algebra".
Avis 2000, "A revised implementation of the reverse search vertex enumeration algorithm".
Bland 1977, "New finite pivoting rules for the simplex method".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lamina.theory.exact import Integers

_EPS = 2.0**-52


def positive_direction(
    rows: Integers, hints: Iterable[int] = ()
) -> tuple[list[int], None] | tuple[None, dict[int, Fraction]]:
    """Find v with ``rows @ v > 0``, or weights that prove that there is none.

    Gordan's alternative: exactly one of these holds. Either some v has a positive product with
    every row, or some weights, not negative and of sum 1, mix the rows to zero.

    Parameters
    ----------
    rows : object array (n, m) of int, n ≥ 1
    hints : row numbers
        Those likely to carry weight; they are tried first. Any are right.

    Returns
    -------
    (v, None) or (None, weights)
        ``v``: m integers; ``weights``: row number to Fraction, at most m + 1 of them.

    References
    ----------
    Gordan 1873, "Über die Auflösung linearer Gleichungen mit reellen Coefficienten".

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[1, 0], [0, 2]], dtype=object)
    >>> v, _ = positive_direction(rows)
    >>> bool((rows @ v > 0).all())
    True
    >>> positive_direction(np.array([[1], [-2]], dtype=object))
    (None, {0: Fraction(2, 3), 1: Fraction(1, 3)})
    """
    n, m = rows.shape
    columns = np.concatenate([rows, np.ones((n, 1), dtype=object)], axis=1)  # (n, m + 1)
    first = next(iter(hints), 0)
    start = [-a for a in rows[first].tolist()]
    program = _Simplex(columns, [0] * m + [1], [1 if a >= 0 else -1 for a in start] + [1])
    program.pivot(m, first, program.image(first))
    y = program.minimise(hints, stop_at=m)
    if y is None:
        return None, program.solution()
    return [-a for a in y[:m]], None


def in_cone(
    rows: Integers, target: Sequence[int]
) -> tuple[list[int], None] | tuple[None, dict[int, Fraction]]:
    """Write ``target`` as a mix of the rows, or find v that proves that this cannot be.

    Farkas' alternative: either some weights, not negative, have ``weights @ rows = target``, or
    some v has ``rows @ v ≥ 0`` and ``target @ v < 0``.

    Parameters
    ----------
    rows : object array (n, m) of int
    target : m integers

    Returns
    -------
    (v, None) or (None, weights)
        As in `positive_direction`; at most m weights.

    References
    ----------
    Farkas 1902, "Theorie der einfachen Ungleichungen".
    """
    program = _Simplex(rows, target, [1 if a >= 0 else -1 for a in target])
    y = program.minimise(())
    if y is None:
        return None, program.solution()
    return [-a for a in y], None


class _Simplex:
    """Minimise the sum of artificial variables of ``columns.T @ weights = right``, weights ≥ 0.

    ``table`` holds, over the common denominator ``det`` > 0: the inverse of the basis (m, m), the
    basic solution in its last column, and in its last row the dual vector y and the objective.
    """

    def __init__(self, columns: Integers, right: Sequence[int], signs: Sequence[int]) -> None:
        n, m = columns.shape
        self.columns, self.m = columns, m
        longest = [max((abs(a) for a in columns[:, k].tolist()), default=0) for k in range(m)]
        self.bits = [max(a.bit_length(), 1) for a in longest]
        self.floats = np.empty((n, m))  # each coordinate scaled into [-1, 1]
        for k, bits in enumerate(self.bits):
            self.floats[:, k] = [a / (1 << bits) for a in columns[:, k].tolist()]
        lengths = np.sqrt(np.einsum("ij,ij->i", self.floats, self.floats))
        self.lengths = np.where(lengths > 0, lengths, 1.0)
        # Artificial variable k is number k - m, so that on a tie it leaves before a column does.
        self.basis = [k - m for k in range(m)]
        self.det = 1
        self.table = np.zeros((m + 1, m + 1), dtype=object)
        for k, (sign, value) in enumerate(zip(signs, right, strict=True)):
            cost = 1 << (max(self.bits) - self.bits[k])
            self.table[k, k], self.table[k, m] = sign, sign * value
            self.table[m, k] = cost * sign
            self.table[m, m] += cost * sign * value

    def image(self, column: int) -> Integers:
        """Return a column in terms of the basis, times ``det``; last, minus its reduced cost."""
        result: Integers = self.table[:, : self.m] @ self.columns[column]
        return result

    def pivot(self, row: int, column: int, image: Integers) -> None:
        """Have a column take the place of the basic variable of a row; image[row] > 0."""
        kept, new = self.table[row].copy(), image[row]
        self.table = (self.table * new - np.multiply.outer(image, kept)) // self.det
        self.table[row] = kept
        self.det = int(new)
        self.basis[row] = column

    def minimise(self, hints: Iterable[int], stop_at: int | None = None) -> list[int] | None:
        """Pivot until the artificial variables are all zero: None; or cannot be: y.

        y has ``columns @ y ≤ 0`` and ``right @ y > 0``. With ``stop_at`` it is enough that the
        first so many coordinates of y have a negative product with every column.
        """
        few = np.unique(np.fromiter(hints, dtype=np.int64))
        many = np.arange(self.columns.shape[0])
        stalled = 0  # pivots since the objective fell: from 2 m on, Bland's rule ends cycles
        while self.table[-1, -1] != 0:
            cautious = stalled > 2 * self.m
            entering = self._entering(few, cautious) if few.size else None
            if entering is None:
                few = few[:0]
                if stop_at is not None and self._separates(stop_at):
                    return self._dual()
                entering = self._entering(many, cautious)
            if entering is None:
                return self._dual()
            image = self.image(entering)
            row = self._leaving(image)
            stalled = stalled + 1 if self.table[row, -1] == 0 else 0
            self.pivot(row, entering, image)
        return None

    def solution(self) -> dict[int, Fraction]:
        """Return the weights that are not zero, by column."""
        pairs = zip(self.basis, self.table[:-1, -1].tolist(), strict=True)
        return {i: Fraction(a, self.det) for i, a in sorted(pairs) if i >= 0 and a}

    def _dual(self) -> list[int]:
        return [int(a) for a in self.table[-1, :-1]]

    def _float_dual(self) -> NDArray[np.float64]:
        """Return y for `floats`, scaled to at most 1; what rounds to 0 is below any bound."""
        y = self._dual()
        top = max(abs(a).bit_length() + bits for a, bits in zip(y, self.bits, strict=True))
        return np.array([a / (1 << (top - bits)) for a, bits in zip(y, self.bits, strict=True)])

    def _entering(self, among: NDArray[np.int64], cautious: bool) -> int | None:
        """Return a column with a negative reduced cost, y·column > 0; None if there is none."""
        y = self._float_dual()
        products = self.floats[among] @ y
        doubt = (self.m + 4) * _EPS * float(np.abs(y).sum())
        sure = np.flatnonzero(products > doubt)
        if sure.size and not cautious:
            lengths = self.lengths[among[sure]]
            return int(among[sure[np.argmax(products[sure] / lengths)]])
        unsure = np.flatnonzero(np.abs(products) <= doubt)
        if sure.size:  # Bland: the first
            unsure = unsure[unsure < sure[0]]
        for block in _blocks(among[unsure]):
            exact = self.columns[block] @ self.table[-1, :-1]
            positive = np.flatnonzero(exact > 0)
            if positive.size:
                return int(block[positive[0]])
        return int(among[sure[0]]) if sure.size else None

    def _leaving(self, image: Integers) -> int:
        """Return the row whose basic variable reaches zero first; on a tie, the lowest number."""
        best = -1
        values = self.table[:, -1]
        for i in range(self.m):
            if image[i] <= 0:
                continue
            if best >= 0:
                order = values[i] * image[best] - values[best] * image[i]
                if order > 0 or (order == 0 and self.basis[i] > self.basis[best]):
                    continue
            best = i
        return best

    def _separates(self, stop_at: int) -> bool:
        y = self._float_dual()
        y[stop_at:] = 0.0
        doubt = (self.m + 4) * _EPS * float(np.abs(y).sum())
        if not np.all(self.floats @ y <= doubt):
            return False
        y = self.table[-1, :stop_at]
        blocks = _blocks(np.arange(len(self.columns)))
        return all((self.columns[b, :stop_at] @ y < 0).all() for b in blocks)


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows in parts, each twice as long as the last: most searches end in the first."""
    size = 64
    while rows.size:
        yield rows[:size]
        rows, size = rows[size:], 2 * size
