"""Cutting a piece of the input space, layer by layer, where units switch on and off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from lamina.core.errors import DataError
from lamina.theory.cells import Cell, cut
from lamina.theory.exact_network import ExactNetwork, Integers

MOST_REGIONS: Final = 100_000
Pattern = tuple[bool, ...]


@dataclass(frozen=True)
class Piece:
    """A region on which every unit keeps its side, and the network is affine.

    ``output`` is its map in whole numbers, (d_out, k + 1), times 2^exponent of the network.
    """

    cell: Cell
    pattern: Pattern  # of every unit that bends, layer by layer
    output: Integers


def subdivide(net: ExactNetwork, cell: Cell, most: int, where: str) -> list[Piece]:
    """Return the regions of a cell, each with its pattern.

    Raises
    ------
    DataError
        There are more than ``most``.
    """
    pieces: list[Piece] = []
    waiting: list[tuple[Cell, Pattern, list[Integers]]] = [(cell, (), [net.input])]
    last = len(net.layers)
    while waiting:
        here, pattern, maps = waiting.pop()
        layer = len(maps)
        z = net.sums(layer, maps)
        kind = net.layers[layer - 1].kind
        parts = [(here, ())] if kind == "identity" else _parts(here, z, kind, most)
        for part, active in parts:
            full = (*pattern, *active)
            h = net.values(layer, z, active, maps)
            if layer == last:
                pieces.append(Piece(part, full, h))
            else:
                waiting.append((part, full, [*maps, h]))
        if len(pieces) + len(waiting) > most:
            raise DataError(
                f"{where}: expected at most {most:,} regions, got more. "
                "Look at a smaller window, or raise most=."
            )
    return pieces


def _parts(cell: Cell, z: Integers, kind: str, most: int) -> list[tuple[Cell, Pattern]]:
    """Cut a cell by the zero line of every unit of a layer."""
    corners = np.array(cell, object).T  # (k + 1, vertices)
    values = z @ corners  # (d_l, vertices)
    low, high = values.min(axis=1), values.max(axis=1)
    # A unit that is 0 all over the region: step(0) = 1; to relu it is the same.
    sides = [h > 0 or (kind == "step" and b == h == 0) for b, h in zip(low, high, strict=True)]
    parts: list[tuple[Cell, list[bool]]] = [(cell, list(map(bool, sides)))]
    for unit in np.flatnonzero((low < 0) & (high > 0)).tolist():
        cut_parts: list[tuple[Cell, list[bool]]] = []
        row = z[unit].tolist()
        for part, active in parts:
            at = _at(row, part)
            below, above = min(at) < 0, max(at) > 0
            if below and above:
                first, second = cut(part, at)
                off = active.copy()
                off[unit] = False
                cut_parts.append((second, off))
                part = first
            active[unit] = above
            cut_parts.append((part, active))
        parts = cut_parts
        if len(parts) > most:
            break  # the caller says so
    return [(part, tuple(active)) for part, active in parts]


def _at(row: list[int], cell: Cell) -> list[int]:
    """The values of a linear function at the vertices."""
    if len(row) == 2:
        a, b = row
        return [a * x + b * w for x, w in cell]
    a, b, c = row
    return [a * x + b * y + c * w for x, y, w in cell]


def groups(n: int, same: Iterator[tuple[int, int]]) -> list[int]:
    """Return a number for each of n things; those joined by pairs have the same, from 0 up."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in same:
        a, b = root(i), root(j)
        parent[max(a, b)] = min(a, b)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(n)]
