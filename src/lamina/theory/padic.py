"""Large systems of linear equations in integers, solved digit by digit to a prime base.

One inverse modulo a prime in machine integers, then one matrix-vector product a digit: k³ short
operations and k² long ones a digit, where elimination needs k³ long ones.

References
----------
Dixon 1982, "Exact solution of linear equations using p-adic expansions".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lamina.theory.exact import Integers

_PRIME = 2**31 - 1  # products of two residues fit into int64


def mix(rows: Integers, target: Sequence[int]) -> list[Fraction] | None:
    """Return the weights, of any sign, with ``weights @ rows = target``.

    Parameters
    ----------
    rows : object array (k, m) of int, k ≤ m
    target : m integers

    Returns
    -------
    k Fractions, checked, or None where there are none or the rows depend on each other (also, with
    a chance of about k in 2³¹, where they do not).

    Examples
    --------
    >>> import numpy as np
    >>> mix(np.array([[2, 1, 0], [1, 3, 0]], dtype=object), [1, 0, 0])
    [Fraction(3, 5), Fraction(-1, 5)]
    """
    k = rows.shape[0]
    system = rows.T  # (m, k)
    residues = residues_of(system)
    chosen, pivots = independent(residues)
    if len(pivots) < k:
        return None
    inverse = _inverse(residues[chosen])
    square, right = system[chosen], np.array(target, dtype=object)[chosen]
    # Hadamard's bound on every determinant: numerators and denominators are no longer
    bits = sum(sum(a * a for a in row).bit_length() // 2 + 1 for row in square.tolist())
    bits += max(abs(a) for a in right.tolist()).bit_length() + k.bit_length() + 1
    n_digits = (2 * bits + 2) // 30 + 1
    digits = np.empty((n_digits, k), dtype=object)
    rest = right
    for digit in digits:
        residue = (rest % _PRIME).astype(np.int64)
        digit[:] = (inverse * residue % _PRIME).sum(axis=1) % _PRIME
        rest = (rest - square @ digit) // _PRIME  # exact
    value = np.zeros(k, dtype=object)
    for digit in digits[::-1]:
        value = value * _PRIME + digit
    found = _fractions(value.tolist(), _PRIME**n_digits, 1 << bits)
    if found is None:
        return None
    common = math.lcm(*(w.denominator for w in found))
    whole = np.array([int(w * common) for w in found], dtype=object)
    return found if (system @ whole).tolist() == [common * t for t in target] else None


def residues_of(matrix: Integers) -> NDArray[np.int64]:
    """Return a matrix modulo the prime."""
    result: NDArray[np.int64] = (matrix % _PRIME).astype(np.int64)
    return result


def independent(residues: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Return as many independent rows and columns, modulo the prime, as there are."""
    table = residues.copy()
    free = np.arange(len(table))
    rows, columns = [], []
    for j in range(table.shape[1]):
        found = np.flatnonzero(table[free, j])
        if not found.size:
            continue
        pivot = int(free[found[0]])
        rows.append(pivot)
        columns.append(j)
        free = np.delete(free, found[0])
        factors = table[free, j] * pow(int(table[pivot, j]), -1, _PRIME) % _PRIME
        table[free] = (table[free] - factors[:, np.newaxis] * table[pivot] % _PRIME) % _PRIME
    return rows, columns


def _inverse(square: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the inverse modulo the prime of a matrix that has one."""
    size = len(square)
    table = np.concatenate([square, np.eye(size, dtype=np.int64)], axis=1)
    for j in range(size):
        pivot = j + int(np.flatnonzero(table[j:, j])[0])
        table[[j, pivot]] = table[[pivot, j]]
        table[j] = table[j] * pow(int(table[j, j]), -1, _PRIME) % _PRIME
        factors = table[:, j].copy()
        factors[j] = 0
        table = (table - factors[:, np.newaxis] * table[j] % _PRIME) % _PRIME
    return table[:, size:]


def _fractions(values: list[int], modulus: int, bound: int) -> list[Fraction] | None:
    """Return the fractions whose residues these are, numerators and denominators up to bound."""
    common, result = 1, []
    for value in values:
        top = value * common % modulus
        top = top - modulus if top > modulus // 2 else top
        if abs(top) > bound:
            pair = _fraction(value * common % modulus, modulus, bound)
            if pair is None:
                return None
            top, more = pair
            common *= more
        result.append(Fraction(top, common))
    return result


def _fraction(residue: int, modulus: int, bound: int) -> tuple[int, int] | None:
    """Return a, b with a = b · residue modulo modulus, both up to bound, by Euclid's algorithm."""
    a, b, s, t = modulus, residue, 0, 1
    while b > bound:
        quotient = a // b
        a, b = b, a - quotient * b
        s, t = t, s - quotient * t
    if t == 0 or abs(t) > bound:
        return None
    return (b, t) if t > 0 else (-b, -t)
