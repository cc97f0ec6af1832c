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

_PLACES = 256  # binary places of the rounded search
_WORTH = 1 << 60  # a step of it must lower the squared length by one part in so many
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

    A first search rounds to 256 binary places, which is many times faster than fractions whose
    digits are a determinant's; a second one, exact, starts from what that found and is mostly done
    at once.

    Parameters
    ----------
    lowest : function of a direction, d integers
        As in `nearest_float`, in integers.
    coordinates : function of a corner's name
    d : int
    start : Nearest, optional
        A good guess, such as `nearest_float` gives.
    """
    if start is None or not start.corners:
        start = Nearest((lowest([0] * d)[0],), (1,), ())
    weights = [Fraction(w) for w in start.weights]
    total = sum(weights)
    search = _Search(lowest, list(start.corners), [w / total for w in weights], coordinates)
    search.run(_affine_rounded, most_steps=50 * (d + 10))
    while not search.run(_affine):  # corners that depend on each other: without the lightest
        lightest = min(range(len(search.names)), key=search.weights.__getitem__)
        names = [n for i, n in enumerate(search.names) if i != lightest]
        weights = [w for i, w in enumerate(search.weights) if i != lightest]
        total = sum(weights)
        search = _Search(lowest, names, [w / total for w in weights], coordinates)
    x = _mix(search.weights, search.points)
    return Nearest(tuple(search.names), tuple(search.weights), tuple(x))


class _Search:
    """Wolfe's method: corners whose mix is the nearest point of their own hull, one step at a time.

    Each step adds the corner that is furthest towards the origin and drops those of weight zero.
    """

    def __init__(
        self,
        lowest: Callable[[Sequence[int]], tuple[Corner, Sequence[int]]],
        names: list[Corner],
        weights: list[Fraction],
        coordinates: Callable[[Corner], Sequence[int]],
    ) -> None:
        self.lowest = lowest
        self.names, self.weights = names, weights
        self.points = [coordinates(name) for name in names]

    def run(
        self,
        affine: Callable[[Sequence[Sequence[int]]], list[Fraction] | None],
        most_steps: int | None = None,
    ) -> bool:
        """Search until no corner is nearer; False if the corners are affinely dependent.

        With ``most_steps`` the weights are rounded: a step that gains next to nothing is the last.
        """
        if not self._shrink(affine):
            return False
        x = _mix(self.weights, self.points)
        steps = 0
        while most_steps is None or steps < most_steps:
            steps += 1
            name, corner = self.lowest(to_integers(x))
            gain = sum(a * (a - b) for a, b in zip(x, corner, strict=True))
            if gain <= 0:
                return True
            before = x, list(self.names), list(self.points), list(self.weights)
            self.names.append(name)
            self.points.append(corner)
            self.weights.append(Fraction(0))
            found = self._shrink(affine)
            x = _mix(self.weights, self.points)
            if most_steps is None:
                if not found:
                    raise AssertionError("a corner that is nearer is independent of the others")
            elif not found or _square(x) * _WORTH > _square(before[0]) * (_WORTH - 1):
                x, self.names, self.points, self.weights = before
                return True
        return True

    def _shrink(self, affine: Callable[[Sequence[Sequence[int]]], list[Fraction] | None]) -> bool:
        """Move to the nearest point of the corners' hull, dropping corners on the way."""
        while True:
            wanted = affine(self.points)
            if wanted is None:
                return False
            if min(wanted) > 0:
                self.weights = wanted
                return True
            pairs = list(zip(self.weights, wanted, strict=True))
            step = min(w / (w - v) if w else w for w, v in pairs if v <= 0)
            moved = [w + step * (v - w) for w, v in pairs]
            kept = [i for i, w in enumerate(moved) if w > 0]
            self.names = [self.names[i] for i in kept]
            self.points = [self.points[i] for i in kept]
            self.weights = [moved[i] for i in kept]


def _square(x: Sequence[Fraction]) -> Fraction:
    return sum((a * a for a in x), Fraction(0))


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


def _affine_rounded(points: Sequence[Sequence[int]]) -> list[Fraction] | None:
    """Do as `_affine`, to _PLACES binary places; None where the points are too nearly dependent."""
    if len(points) == 1:
        return [Fraction(1)]
    table = np.array([list(p) for p in points], dtype=object)
    sides = table[1:] - table[0]
    system = np.concatenate([sides @ sides.T, -(sides @ table[0])[:, np.newaxis]], axis=1)
    system = system << _PLACES  # (k, k + 1), symmetric and positive definite: no pivoting
    size = len(sides)
    for k in range(size):
        if system[k, k] <= 0:
            return None
        factors = (system[k + 1 :, k] << _PLACES) // system[k, k]
        system[k + 1 :, k:] -= np.multiply.outer(factors, system[k, k:]) >> _PLACES
    rest = np.zeros(size, dtype=object)
    for k in reversed(range(size)):
        known = (system[k, k + 1 : size] @ rest[k + 1 :]) >> _PLACES if k + 1 < size else 0
        rest[k] = ((system[k, -1] - known) << _PLACES) // system[k, k]
    one = 1 << _PLACES
    return [Fraction(int(a), one) for a in (one - rest.sum(), *rest)]
