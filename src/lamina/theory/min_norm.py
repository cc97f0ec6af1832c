"""The point of a polytope that is nearest to the origin, in floats and in fractions.

Of the differences of two point sets it is the shortest line between their convex hulls, whose
perpendicular bisector is the hyperplane of maximum margin (Rosenblatt's question, Vapnik's answer).

References
----------
Wolfe 1976, "Finding the nearest point in a polytope".
Bennett and Bredensteiner 2000, "Duality and geometry in SVM classifiers".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.theory.exact import solve, to_integers

Floats = NDArray[np.float64]
Corner = tuple[int, ...]
"""What names a corner: (i,) of one point set, (i, j) of differences x⁺ᵢ - x⁻ⱼ."""


@dataclass(frozen=True)
class Nearest:
    """The nearest point as a mix of corners, weights all positive and of sum 1."""

    corners: tuple[Corner, ...]
    weights: tuple[Any, ...]  # floats or Fractions
    point: tuple[Any, ...]


def nearest_float(lowest: Callable[[Floats], tuple[Corner, Floats]], d: int) -> Nearest:
    """Return the nearest point to rounding; wrong where the polytope is nearly degenerate.

    Parameters
    ----------
    lowest : function of a direction (d,)
        Returns the corner whose product with the direction is lowest: its name and coordinates,
        which are of the order of 1.
    d : int
    """
    name, first = lowest(np.zeros(d))
    names, points, weights = [name], first[np.newaxis], np.ones(1)  # points: (k, d)
    for _ in range(100 * (d + 10)):
        x = weights @ points
        name, corner = lowest(x)
        if name in names or x @ x - x @ corner <= 1e-13 * max(1.0, float(corner @ corner)):
            break
        names, points = [*names, name], np.vstack([points, corner])
        weights = np.append(weights, 0.0)
        while True:
            wanted = _affine_float(points)
            if wanted.min() > 1e-12:
                weights = wanted
                break
            falling = wanted <= 1e-12
            steps = weights[falling] / np.maximum(weights[falling] - wanted[falling], 1e-300)
            weights = weights + min(1.0, float(steps.min())) * (wanted - weights)
            kept = weights > 1e-12
            kept[int(np.argmin(np.where(falling, weights, np.inf)))] = False
            names = [n for n, keep in zip(names, kept, strict=True) if keep]
            points, weights = points[kept], weights[kept] / weights[kept].sum()
    return Nearest(tuple(names), tuple(weights.tolist()), tuple((weights @ points).tolist()))


def nearest_exact(
    lowest: Callable[[Sequence[int]], tuple[Corner, Sequence[int]]],
    coordinates: Callable[[Corner], Sequence[int]],
    d: int,
    start: Nearest | None = None,
) -> Nearest:
    """Return the nearest point in Fractions; it always ends.

    Parameters
    ----------
    lowest : function of a direction, d integers
        As in `nearest_float`, in integers.
    coordinates : function of a corner's name
    d : int
    start : Nearest, optional
        A good guess, such as `nearest_float` gives.
    """
    names, weights = _start(start, lowest, d)
    points = [coordinates(name) for name in names]
    if len(names) > 1 and _affine(points) is None:  # the guess has more corners than dimensions
        names, weights, points = names[:1], [Fraction(1)], points[:1]
    fresh = len(names) == 1
    while True:
        if fresh:
            x = _mix(weights, points)
            direction = to_integers(x)
            name, corner = lowest(direction)
            along = sum(a * b for a, b in zip(x, corner, strict=True))
            if along >= sum(a * a for a in x):
                return Nearest(tuple(names), tuple(weights), tuple(x))
            names, points, weights = [*names, name], [*points, corner], [*weights, Fraction(0)]
        fresh = True
        while True:
            wanted = _affine(points)
            if wanted is None:
                raise AssertionError("corners of a Wolfe step are affinely independent")
            if min(wanted) > 0:
                weights = wanted
                break
            step = min(w / (w - v) for w, v in zip(weights, wanted, strict=True) if v <= 0)
            weights = [w + step * (v - w) for w, v in zip(weights, wanted, strict=True)]
            names = [n for n, w in zip(names, weights, strict=True) if w > 0]
            points = [p for p, w in zip(points, weights, strict=True) if w > 0]
            weights = [w for w in weights if w > 0]


def _start(
    guess: Nearest | None, lowest: Callable[[Sequence[int]], tuple[Corner, Sequence[int]]], d: int
) -> tuple[list[Corner], list[Fraction]]:
    if guess is None or not guess.corners:
        return [lowest([0] * d)[0]], [Fraction(1)]
    weights = [Fraction(w) for w in guess.weights]
    total = sum(weights)
    return list(guess.corners), [w / total for w in weights]


def _mix(weights: Sequence[Fraction], points: Sequence[Sequence[int]]) -> list[Fraction]:
    return [
        sum((w * a for w, a in zip(weights, c, strict=True)), Fraction(0))
        for c in zip(*points, strict=True)
    ]


def _affine_float(points: Floats) -> Floats:
    """Return the weights of sum 1, of any sign, whose mix of the points is nearest to 0."""
    sides = points[1:] - points[0]
    rest = np.linalg.lstsq(sides.T, -points[0], rcond=None)[0]
    return np.concatenate([[1.0 - rest.sum()], rest])


def _affine(points: Sequence[Sequence[int]]) -> list[Fraction] | None:
    """Do as `_affine_float`, exactly; None where the points are affinely dependent."""
    if len(points) == 1:
        return [Fraction(1)]
    table = np.array([list(p) for p in points], dtype=object)
    sides = table[1:] - table[0]
    rest = solve((sides @ sides.T).tolist(), (-(sides @ table[0])).tolist())
    return None if rest is None else [1 - sum(rest, Fraction(0)), *rest]
