"""Certificates solved directly on the few rows that floats name: fast where columns are many.

None of it is trusted: weights come from an exact solution, and one that is negative or does not
exist leaves the question to the simplex method, which always decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lamina.theory.exact import Integers, to_integers
from lamina.theory.padic import independent, mix, residues_of

Floats = NDArray[np.float64]
_SMALL = 1e-9  # below it a singular value or a weight is taken for 0


def mix_to_zero(
    rows: Integers, floats: Floats, guess: Mapping[int, float]
) -> dict[int, Fraction] | None:
    """Return weights of sum 1 that mix some of the rows to zero; None if the guess is of no use.

    Parameters
    ----------
    rows, floats : arrays (n, m)
        The exact rows, and the same to rounding, of the order of 1.
    guess : dict of row number to weight
    """
    chosen = np.array(sorted(guess))
    weights = np.array([guess[int(i)] for i in chosen])
    _, sizes, directions = np.linalg.svd(floats[chosen].T)
    null = directions[int((sizes > _SMALL * sizes[0]).sum()) :]  # (q, k): mixes of nothing
    while len(null) > 1:  # Carathéodory: until the rows depend on each other in one way only
        direction = null[0] if null[0].max() > 0 else -null[0]
        rising = direction > _SMALL
        steps = np.where(rising, weights / np.where(rising, direction, 1.0), np.inf)
        gone = int(np.argmin(steps))
        if not np.isfinite(steps[gone]):
            return None
        weights = weights - steps[gone] * direction
        weights[gone] = 0.0
        pivot = int(np.argmax(np.abs(null[:, gone])))
        null = null - np.multiply.outer(null[:, gone] / null[pivot, gone], null[pivot])
        null = np.delete(null, pivot, axis=0)
    chosen = chosen[weights > _SMALL]
    if not 1 < chosen.size <= rows.shape[1] + 1:
        return None
    last = rows[chosen[-1]]
    found = mix(rows[chosen[:-1]], (-last).tolist())
    if found is None or min(found) < 0:
        return None
    total = sum(found, Fraction(1))
    exact = zip(chosen.tolist(), [*found, Fraction(1)], strict=True)
    return {i: w / total for i, w in exact if w}


def in_cone_of_many(
    rows: Integers, floats: Floats, target: Sequence[int], target_floats: Floats
) -> tuple[list[int], None] | tuple[None, dict[int, Fraction]] | None:
    """Answer as `linear_program.in_cone`; None if floats do not lead to an exact answer."""
    chosen, rest = _active(floats, target_floats)
    if 0 < chosen.size <= rows.shape[1]:
        found = mix(rows[chosen], target)
        if found is not None and min(found) >= 0:
            return None, {int(i): w for i, w in zip(chosen, found, strict=True) if w}
    v = _touching(rows, floats, -rest)
    if v is None or sum(a * b for a, b in zip(target, v, strict=True)) >= 0:
        return None
    return (v, None) if all(a >= 0 for a in rows @ np.array(v, dtype=object)) else None


def _touching(rows: Integers, floats: Floats, direction: Floats) -> list[int] | None:
    """Return the vector nearest to a direction, by and large, that is orthogonal to rows nearly so.

    Its coordinates are those of the direction where the rows leave them free; the others solve the
    equations that say so.
    """
    scale = np.abs(floats @ direction).max(initial=0.0)
    if scale == 0:
        return None
    zero = rows[np.abs(floats @ direction) <= 1e-7 * scale]
    # floats are rows with each column divided by its own number
    largest = [max(map(abs, column)) or 1 for column in rows.T.tolist()]
    units = [Fraction(u) or Fraction(1) for u in np.abs(floats).max(axis=0).tolist()]
    short = direction * [float(u / top) for u, top in zip(units, largest, strict=True)]
    if not np.abs(short).max() > 0:
        return None
    short = np.round(short / np.abs(short).max() * 2.0**53)
    v = [Fraction(int(a)) for a in short.tolist()]
    chosen, pivots = independent(residues_of(zero))
    if pivots:
        free = np.delete(np.arange(rows.shape[1]), pivots)
        known = np.array([int(short[j]) for j in free], dtype=object)
        right = -(zero[chosen][:, free] @ known) if free.size else []
        solved = mix(zero[chosen][:, pivots].T, list(right)) if free.size else None
        if solved is None:
            return None
        for j, value in zip(pivots, solved, strict=True):
            v[j] = value
    return to_integers(v)


def _active(floats: Floats, target: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the rows that carry weight in the nearest mix to a target, and what it lacks.

    References
    ----------
    Lawson and Hanson 1974, "Solving least squares problems", chapter 23.
    """
    rows = floats / np.linalg.norm(floats, axis=1)[:, np.newaxis]
    weights = np.zeros(len(rows))
    active: list[int] = []
    for _ in range(10 * rows.shape[1]):
        gains = rows @ (target - weights @ rows)
        gains[active] = -np.inf
        best = int(np.argmax(gains))
        if gains[best] <= _SMALL * np.linalg.norm(target) or len(active) == rows.shape[1]:
            break
        active.append(best)
        while True:
            wanted = np.linalg.lstsq(rows[active].T, target, rcond=None)[0]
            if wanted.min() > 0:
                weights[:] = 0.0
                weights[active] = wanted
                break
            own = weights[active]
            falling = wanted <= 0
            steps = own[falling] / np.maximum(own[falling] - wanted[falling], 1e-300)
            own = own + steps.min() * (wanted - own)
            own[np.flatnonzero(falling)[int(np.argmin(steps))]] = 0.0
            weights[active] = own
            active = [i for i, w in zip(active, own, strict=True) if w > 0]
            if not active:
                break
    return np.array(active, dtype=np.int64), target - weights @ rows
