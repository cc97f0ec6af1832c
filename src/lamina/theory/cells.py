"""Convex cells in exact coordinates: an interval or a polygon, cut by a line.

A vertex is a tuple of whole numbers (X, …, W), W > 0, which stands for (X / W, …): cutting needs
no division, and the coordinates of a corner stay as short as those of the two lines that meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

Vertex = tuple[int, ...]
Cell = list[Vertex]
"""Two vertices of an interval, or those of a polygon, counterclockwise."""


def vertex(values: Iterable[Fraction]) -> Vertex:
    """Return the vertex at these coordinates."""
    coordinates = list(values)
    common = math.lcm(*(c.denominator for c in coordinates))
    return (*(int(c * common) for c in coordinates), common)


def coordinates(point: Vertex) -> tuple[Fraction, ...]:
    """Return the coordinates of a vertex."""
    return tuple(Fraction(c, point[-1]) for c in point[:-1])


def cut(cell: Cell, values: Sequence[int]) -> tuple[Cell, Cell]:
    """Return the parts of a cell where a linear function is positive, and where it is negative.

    ``values`` are the function's at the vertices, some positive and some negative.
    """
    above: Cell = []
    below: Cell = []
    n = len(cell)
    for i in range(n):
        v = values[i]
        if v >= 0:
            above.append(cell[i])
        if v <= 0:
            below.append(cell[i])
        j = i + 1
        if j == n:
            if n == 2:
                break  # an interval has one side only
            j = 0
        if (v > 0 > values[j]) or (v < 0 < values[j]):
            corner = _between(cell[i], abs(values[j]), cell[j], abs(v))
            above.append(corner)
            below.append(corner)
    return above, below


def _between(p: Vertex, a: int, q: Vertex, b: int) -> Vertex:
    """Return a p + b q, in lowest terms."""
    mixed = [a * x + b * y for x, y in zip(p, q, strict=True)]
    divisor = math.gcd(*mixed)
    return tuple(x // divisor for x in mixed)


def line_through(p: Vertex, q: Vertex) -> tuple[int, int, int]:
    """Return (a, b, c) in lowest terms with a x + b y + c = 0 at both, positive to the left."""
    a = p[1] * q[2] - p[2] * q[1]
    b = p[2] * q[0] - p[0] * q[2]
    c = p[0] * q[1] - p[1] * q[0]
    divisor = math.gcd(a, b, c)
    return a // divisor, b // divisor, c // divisor


def area(cell: Cell) -> Fraction:
    """Return the area of a polygon, or the length of an interval."""
    points = [coordinates(v) for v in cell]
    if len(points[0]) == 1:
        return abs(points[1][0] - points[0][0])
    turned = [*points[1:], points[0]]
    return (
        abs(
            sum(
                (p[0] * q[1] - p[1] * q[0] for p, q in zip(points, turned, strict=True)),
                Fraction(0),
            )
        )
        / 2
    )


def neighbours(cells: Sequence[Cell]) -> list[tuple[int, int]]:
    """Return the pairs of polygons that share more than a point of their sides.

    Sides are sorted by the line they lie on and the side of it the polygon is on, as a corner of
    one polygon may lie within a side of the next.
    """
    lines: dict[tuple[int, int, int], tuple[list[Side], list[Side]]] = {}
    for index, cell in enumerate(cells):
        for p, q in zip(cell, [*cell[1:], cell[0]], strict=True):
            line = line_through(p, q)
            key = max(line, (-line[0], -line[1], -line[2]))
            axis = 0 if line[1] else 1
            start, stop = sorted((Fraction(p[axis], p[2]), Fraction(q[axis], q[2])))
            lines.setdefault(key, ([], []))[line == key].append((start, stop, index))
    pairs = []
    for left, right in lines.values():
        left.sort()
        right.sort()
        i = j = 0
        while i < len(left) and j < len(right):
            if max(left[i][0], right[j][0]) < min(left[i][1], right[j][1]):
                pairs.append((left[i][2], right[j][2]))
            if left[i][1] < right[j][1]:
                i += 1
            else:
                j += 1
    return pairs


Side = tuple[Fraction, Fraction, int]
