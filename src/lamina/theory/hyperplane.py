"""Hyperplanes with rational weights: short ones, their margins, and the one of maximum margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lamina.theory.exact import Points, to_integers
from lamina.theory.min_norm import Corner, Nearest, nearest_exact, nearest_float

_MOST_LOSS = Fraction(1, 100)  # of the gap between the classes, for shorter numbers


@dataclass(frozen=True)
class Plane:
    """``w·x + b = 0`` with positive points on its positive side."""

    weights: tuple[Fraction, ...]
    bias: Fraction
    margin_squared: Fraction  # of the nearest point's distance


def nearest_in_floats(points: Points, positive: NDArray[np.bool_]) -> Nearest:
    """Return the shortest line between the two hulls, to rounding; its corners are row pairs."""
    x = points.approximate
    up, down = np.flatnonzero(positive), np.flatnonzero(~positive)
    x_up, x_down = x[up], x[down]

    def lowest(direction: NDArray[np.float64]) -> tuple[Corner, NDArray[np.float64]]:
        i, j = int(np.argmin(x_up @ direction)), int(np.argmax(x_down @ direction))
        return (int(up[i]), int(down[j])), x_up[i] - x_down[j]

    return nearest_float(lowest, points.d)


def short_plane(
    points: Points, positive: NDArray[np.bool_], direction: Sequence[float] | Sequence[Fraction]
) -> Plane | None:
    """Return a plane across ``direction`` that separates strictly, its numbers short; or None.

    Weights of few digits are preferred as long as they cost next to nothing of the margin.
    """
    exact = [Fraction(v) for v in direction]
    top = max(map(abs, exact), default=Fraction(0))
    if top == 0:
        return None
    exact = [v / top for v in exact]
    best = _cut(points, positive, exact)
    for bits in (4, 10, 24, 53):
        rounded = [Fraction(round(v * 2**bits), 2**bits) for v in exact]
        found = _cut(points, positive, rounded)
        enough = (1 - 2 * _MOST_LOSS) * (best.margin_squared if best else 0)
        if found is not None and found.margin_squared >= enough:
            return found
    return best


def _cut(points: Points, positive: NDArray[np.bool_], weights: Sequence[Fraction]) -> Plane | None:
    """Return the plane across ``weights`` half-way between the classes; None if they overlap."""
    v = points.plane_to_integers(weights, Fraction(0))
    products = points.integers @ np.array(v[:-1], dtype=object)
    low, high = min(products[positive]), max(products[~positive])
    if low <= high:
        return None
    # products are those of w·x moved and scaled; undo that for the two nearest rows only
    rows = [int(np.flatnonzero(positive)[np.argmin(products[positive])])]
    rows.append(int(np.flatnonzero(~positive)[np.argmax(products[~positive])]))
    above, below = (
        sum((w * a for w, a in zip(weights, points.row(i), strict=True)), Fraction(0)) for i in rows
    )
    threshold = _short_between(below, above)
    distance = min(above - threshold, threshold - below)
    squared = distance**2 / sum(w * w for w in weights)
    return Plane(tuple(weights), -threshold, squared)


def _short_between(low: Fraction, high: Fraction) -> Fraction:
    """Return a number near the middle of two others with few binary digits."""
    middle, slack = (low + high) / 2, (high - low) * _MOST_LOSS / 2
    step = Fraction(1) if slack >= 1 else Fraction(1, 1 << (1 / slack).__ceil__().bit_length())
    coarse = Fraction(1)
    while coarse > step:
        if abs(round(middle / coarse) * coarse - middle) <= slack:
            break
        coarse /= 2
    return round(middle / coarse) * coarse


@dataclass(frozen=True)
class MaximumMargin:
    """The plane of maximum margin, with what proves that no other has a larger one.

    The two mixes are the nearest points of the convex hulls; their distance is twice the margin.
    """

    plane: Plane
    positive_weights: dict[int, Fraction]  # by row
    negative_weights: dict[int, Fraction]


def maximum_margin(
    points: Points, positive: NDArray[np.bool_], guess: Nearest
) -> MaximumMargin | None:
    """Return the plane of maximum margin, exactly; None if the hulls meet.

    Scaled so that ``w·x + b`` is +1 and -1 at the nearest points: the margin is 1/‖w‖.
    """
    common = math.lcm(*points.scale)
    factors = np.array([common // s for s in points.scale], dtype=object)
    x = points.integers * factors  # (n, d), of one scale
    up, down = np.flatnonzero(positive), np.flatnonzero(~positive)
    x_up, x_down = x[up], x[down]

    def lowest(direction: Sequence[int]) -> tuple[Corner, Sequence[int]]:
        along = np.array(direction, dtype=object)
        i, j = int(np.argmin(x_up @ along)), int(np.argmax(x_down @ along))
        return (int(up[i]), int(down[j])), (x_up[i] - x_down[j]).tolist()

    def coordinates(corner: Corner) -> Sequence[int]:
        result: list[int] = (x[corner[0]] - x[corner[1]]).tolist()
        return result

    found = nearest_exact(lowest, coordinates, points.d, guess)
    if not any(found.point):
        return None
    line = [a / common for a in found.point]  # between the nearest points, in units of x
    weights = [2 * a / sum(b * b for b in line) for a in line]
    i, j = found.corners[0]
    ends = (
        sum((w * a for w, a in zip(weights, points.row(k), strict=True)), Fraction(0))
        for k in (i, j)
    )
    plane = Plane(tuple(weights), -sum(ends, Fraction(0)) / 2, sum(a * a for a in line) / 4)
    mixes: tuple[dict[int, Fraction], dict[int, Fraction]] = ({}, {})
    for corner, weight in zip(found.corners, found.weights, strict=True):
        for mix, row in zip(mixes, corner, strict=True):
            mix[row] = mix.get(row, Fraction(0)) + weight
    return MaximumMargin(plane, *mixes)


def plane_of_integers(points: Points, v: Sequence[int]) -> tuple[list[Fraction], Fraction]:
    """Return w and b of a vector over the integers of ``points``, as short integers."""
    weights, bias = points.plane_from_integers(v)
    whole = to_integers([*weights, bias])
    return [Fraction(a) for a in whole[:-1]], Fraction(whole[-1])
