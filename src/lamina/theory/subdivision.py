"""Cutting a piece of the input space, layer by layer, where units switch on and off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from lamina.core.errors import DataError
from lamina.theory.cells import Cell, cut
from lamina.theory.exact_network import ExactNetwork, Integers

MOST_REGIONS: Final = 20_000
Pattern = bytes
"""One byte a unit: 1 where it is on."""


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
    last = len(net.layers)
    # A region of the layers so far: its cell, its pattern, the maps of the layers before, and
    # what the last layer's map follows from. That is worked out only when its turn comes: there
    # may be thousands of regions, with hundreds of units each.
    waiting: list[_Region] = [(cell, b"", [], None, b"")]
    while waiting:
        here, pattern, maps, z_before, active = waiting.pop()
        layer = len(maps)
        h = net.input if z_before is None else net.values(layer, z_before, active, maps)
        maps = [*maps, h]
        layer += 1
        z = net.sums(layer, maps)
        kind = net.layers[layer - 1].kind
        parts = [(here, b"")] if kind == "identity" else _parts(here, z, kind, most)
        if len(pieces) + len(waiting) + len(parts) > most:
            raise DataError(
                f"{where}: expected at most {most:,} regions, got more. "
                "Look at a smaller window, or raise most=."
            )
        if layer == last:
            pieces += [
                Piece(part, pattern + on, net.values(layer, z, on, maps)) for part, on in parts
            ]
        else:
            waiting += [(part, pattern + on, maps, z, on) for part, on in parts]
    return pieces


_Region = tuple[Cell, Pattern, list[Integers], Integers | None, Pattern]


def _parts(cell: Cell, z: Integers, kind: str, most: int) -> list[tuple[Cell, Pattern]]:
    """Cut a cell by the zero line of every unit of a layer; more than ``most`` parts may do."""
    corners = np.array(cell, object).T  # (k + 1, vertices)
    values = z @ corners  # (d_l, vertices)
    low, high = values.min(axis=1), values.max(axis=1)
    # A unit that is 0 all over the region: step(0) = 1; to relu it is the same.
    sides = (high > 0) | ((low == 0) & (high == 0) & (kind == "step"))
    parts = [(cell, bytearray(sides.astype(np.uint8).tobytes()))]
    for unit in np.flatnonzero((low < 0) & (high > 0)).tolist():
        cut_parts: list[tuple[Cell, bytearray]] = []
        row = z[unit].tolist()
        for part, active in parts:
            at = _at(row, part)
            below, above = min(at) < 0, max(at) > 0
            if below and above:
                first, second = cut(part, at)
                off = active.copy()
                off[unit] = 0
                cut_parts.append((second, off))
                part = first
            active[unit] = above
            cut_parts.append((part, active))
        parts = cut_parts
        if len(parts) > most:
            break
    return [(part, bytes(active)) for part, active in parts]


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
