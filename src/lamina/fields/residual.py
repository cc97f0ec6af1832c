"""What a network leaves of a grid, within a bound, in blocks that can be read one by one.

Every eighth sample along each axis (the base) is coded as one grid; between them lie blocks of at
most 32 samples a side, each coded by itself from the samples of the base around it. Samples are
whole multiples of a unit, predicted and quantised by `lattice`, and made bytes by `block_coder`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_count, check_number
from lamina.fields import block_coder
from lamina.fields.block_coder import Bytes, Decoder, Tables
from lamina.fields.lattice import N_CONTEXTS, UNITS, Ints, Passage, refine
from lamina.fields.packing import Flags, damaged, squeeze, unpack_flags, unsqueeze

Array = npt.NDArray[Any]
Box = tuple[slice, ...]
# What is coded: a box of samples (steps allowed) -> values (…, channels), NaN where missing
Source = Callable[[Box], npt.NDArray[np.float64]]

COARSE_LEVELS: Final = 3
SPACING: Final = 1 << COARSE_LEVELS  # of the base
MOST_SIDE: Final = {3: 32, 4: 16}  # of a block, by the number of axes
N_LANES: Final = 8
BATCH_SAMPLES: Final = 1 << 21  # of blocks that are coded at once: some 100 MB
LARGEST: Final = 1 << 36  # of a value, in units: quantised differences stay below 2**40
KEPT_SAMPLES: Final = 1 << 23  # of blocks decoded last: 64 MB
# Of smooth signals, coarse samples have finer steps, as all others are predicted from them: so much
# a doubling of the spacing, at most four times. Tried: 1 to 2; of noise none is best.
FINER: Final = 1.25
MOST_VALUES: Final = 1 << 36
_KEYS: Final = {"grid", "channels", "unit", "smooth", "roots"}
_ARRAYS: Final = {"tables", "index", "data"}


@dataclass(frozen=True)
class Layout:
    """How a grid is cut into blocks.

    Attributes
    ----------
    grid : tuple of int
        Samples along each axis.
    channels : int
    """

    grid: tuple[int, ...]
    channels: int

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // MOST_SIDE[len(self.grid)]) for n in self.grid)

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Samples of a block along each axis: multiples of 8."""
        return tuple(
            SPACING * -(-n // (SPACING * count))
            for n, count in zip(self.grid, self.counts, strict=True)
        )

    @cached_property
    def base(self) -> tuple[int, ...]:
        """Samples of the base along each axis: one past the last block."""
        return tuple(
            count * side // SPACING + 1 for count, side in zip(self.counts, self.sides, strict=True)
        )

    @property
    def n_blocks(self) -> int:
        """Of a channel."""
        return math.prod(self.counts)

    def corner(self, block: int) -> tuple[int, ...]:
        """Return a block's first sample; blocks are numbered in C order."""
        place = np.unravel_index(block, self.counts)
        return tuple(int(i) * side for i, side in zip(place, self.sides, strict=True))

    def inside(self, block: int) -> Box:
        """Return the part of the grid that a block holds."""
        both = zip(self.corner(block), self.sides, self.grid, strict=True)
        return tuple(slice(c, min(c + side, n)) for c, side, n in both)

    def meeting(self, box: Box) -> list[int]:
        """Return the blocks that have samples of a box."""
        spans = [
            range(part.start // side, -(-part.stop // side))
            for part, side in zip(box, self.sides, strict=True)
        ]
        cells = np.meshgrid(*(np.array(span, np.int64) for span in spans), indexing="ij")
        return [int(b) for b in np.ravel_multi_index([c.ravel() for c in cells], self.counts)]

    def batches(self, blocks: list[int]) -> Iterator[list[int]]:
        """Yield as many blocks at a time as memory is meant for."""
        n = max(1, BATCH_SAMPLES // math.prod(self.sides))
        for start in range(0, len(blocks), n):
            yield blocks[start : start + n]

    def tiles(self, box: Box) -> Iterator[Box]:
        """Yield boxes that a box consists of, cut between blocks, of a bounded size each."""
        cells = [1] * len(self.sides)
        for axis in range(len(cells) - 1, -1, -1):
            others = math.prod(c * side for c, side in zip(cells, self.sides, strict=True))
            cells[axis] = max(1, min(self.counts[axis], BATCH_SAMPLES // others))
        cuts = []
        for part, side, n in zip(box, self.sides, cells, strict=True):
            size = side * n
            starts = range(part.start // size * size, part.stop, size)
            cuts.append([slice(max(s, part.start), min(s + size, part.stop)) for s in starts])
        yield from itertools.product(*cuts)

    def steps(self, smooth: bool) -> tuple[list[int], list[int]]:
        """Return the steps of blocks and of the base, in units, from fine to coarse."""
        finer = FINER if smooth else 1.0
        n_base = max(1, math.ceil(math.log2(max(self.base))))
        every = [
            max(round(UNITS / finer**level), UNITS // 4) for level in range(COARSE_LEVELS + n_base)
        ]
        return every[:COARSE_LEVELS], every[COARSE_LEVELS:]

    def context(self, passage: Passage, context: Ints, *, is_base: bool) -> Ints:
        """Return contexts of a passage as those of all: passages have their own."""
        d, level = len(self.grid), passage.spacing.bit_length() - 1
        if is_base:
            kind = COARSE_LEVELS * d + min(level, 2)
        else:
            kind = level * d + passage.n_between - 1
        return context + kind * N_CONTEXTS

    @property
    def n_contexts(self) -> int:
        """How many contexts there are."""
        return (COARSE_LEVELS * len(self.grid) + 3) * N_CONTEXTS


class Residual:
    """A grid within a bound, as bytes.

    Parameters
    ----------
    layout : Layout
    unit : float
        What a unit is, in the signal's own.
    smooth : bool
        How it is predicted, see `Layout.steps` and `refine`.
    roots : list of int
        The first sample of each channel, in units.
    tables : Tables
    index : int64 array (n_units, 3)
        16-bit words, bytes of extra bits and of missing samples: of each channel's base, then
        of each channel's blocks.
    data : uint8 array
        All of those, one after the other.

    Attributes
    ----------
    n_blocks_read : int
        Decoded since this was made or loaded: what reading costs.
    """

    def __init__(
        self,
        layout: Layout,
        unit: float,
        smooth: bool,
        roots: list[int],
        tables: Tables,
        index: Ints,
        data: Bytes,
    ) -> None:
        self.layout, self.unit, self.smooth, self.roots = layout, unit, smooth, roots
        self.tables, self.index, self.data = tables, index, data
        self.steps, self.base_steps = layout.steps(smooth)
        self._ends = np.cumsum(index @ np.array([2, 1, 1]))
        self._bases: dict[int, Ints] = {}
        self._kept: dict[tuple[int, int], npt.NDArray[np.float64]] = {}
        self.n_blocks_read = 0

    # --- reading ---------------------------------------------------------------------------------

    def read(self, box: Box) -> npt.NDArray[np.float64]:
        """Return a box of the grid (…, channels); NaN is missing. Decodes the blocks it meets.

        Parameters
        ----------
        box : tuple of slice
            Of steps 1, within the grid.
        """
        shape = (*(part.stop - part.start for part in box), self.layout.channels)
        found = np.empty(shape)
        for block, channel, values in self._decoded(self.layout.meeting(box)):
            here, there = [], []
            for part, held in zip(box, self.layout.inside(block), strict=True):
                low, high = max(part.start, held.start), min(part.stop, held.stop)
                here.append(slice(low - part.start, high - part.start))
                there.append(slice(low - held.start, high - held.start))
            at: Any = (*here, channel)
            found[at] = values[tuple(there)]
        return found

    def at(self, places: Ints) -> npt.NDArray[np.float64]:
        """Return single samples (m, channels), decoding each block that has some once.

        Parameters
        ----------
        places : int64 array (m, d)
            Indices within the grid, in the order of its axes.
        """
        sides = np.array(self.layout.sides)
        owner = np.ravel_multi_index(list((places // sides).T), self.layout.counts)
        order = np.argsort(owner, kind="stable")
        blocks, first = np.unique(owner[order], return_index=True)
        last = dict(zip(blocks.tolist(), np.append(first[1:], len(order)).tolist(), strict=True))
        begin = dict(zip(blocks.tolist(), first.tolist(), strict=True))
        found = np.empty((len(places), self.layout.channels))
        for block, channel, values in self._decoded(blocks.tolist()):
            rows = order[begin[block] : last[block]]
            found[rows, channel] = values[tuple((places[rows] % sides).T)]
        return found

    def _decoded(self, blocks: list[int]) -> Iterator[tuple[int, int, npt.NDArray[np.float64]]]:
        """Yield block, channel and samples (NaN is missing), in the signal's units."""
        for channel in range(self.layout.channels):
            kept = [b for b in blocks if (channel, b) in self._kept]
            for block in kept:
                yield block, channel, self._kept[channel, block]
            for batch in self.layout.batches(sorted(set(blocks) - set(kept))):
                units = [self._unit(channel, block) for block in batch]
                cared = np.stack(
                    [
                        self._cared(u, self.layout.sides, block)
                        for u, block in zip(units, batch, strict=True)
                    ]
                )
                known = surroundings(self._base(channel), self.layout, batch)
                self._refine(known, units, cared, self.layout.sides, self.steps, is_base=False)
                self.n_blocks_read += len(batch)
                for i, block in enumerate(batch):
                    inside = tuple(slice(0, s.stop - s.start) for s in self.layout.inside(block))
                    values = known[i][inside] * self.unit
                    values[~cared[i][inside]] = np.nan
                    self._keep((channel, block), values)
                    yield block, channel, values

    def _keep(self, key: tuple[int, int], values: npt.NDArray[np.float64]) -> None:
        """Keep a block for the next access, in place of the one that came first."""
        self._kept[key] = values
        while len(self._kept) * math.prod(self.layout.sides) > KEPT_SAMPLES:
            del self._kept[next(iter(self._kept))]

    def _unit(self, channel: int, block: int) -> int:
        return self.layout.channels + channel * self.layout.n_blocks + block

    def _base(self, channel: int) -> Ints:
        """Return a channel's base, which is decoded once."""
        if channel not in self._bases:
            dims = self.layout.base
            known = np.zeros((1, *dims), np.int64)
            known[(0,) * known.ndim] = self.roots[channel]
            cared = self._cared(channel, dims, None)[None]
            self._refine(known, [channel], cared, dims, self.base_steps, is_base=True)
            self._bases[channel] = known[0]
        return self._bases[channel]

    def _refine(
        self,
        known: Ints,
        units: list[int],
        cared: Flags,
        dims: tuple[int, ...],
        steps: list[int],
        *,
        is_base: bool,
    ) -> None:
        parts = [self._parts(unit) for unit in units]
        coded = np.flatnonzero([len(words) for words, _, _ in parts])
        if not len(coded):  # nothing but missing samples: what is predicted will do
            return
        lanes = n_lanes(math.prod(dims))
        decoder = Decoder(
            [parts[i][0] for i in coded],
            [parts[i][1] for i in coded],
            self.tables,
            lanes,
            "VolumeField",
        )
        part, flags = known[coded], cared[coded]

        def answer(passage: Passage, _: Ints, context: Ints) -> Ints:
            context = self.layout.context(passage, context, is_base=is_base)
            return decoder.read(np.where(passage.gather(flags), context, -1))

        refine(part, dims, steps, answer, smooth=self.smooth)
        decoder.close()
        known[coded] = part

    def _parts(self, unit: int) -> tuple[npt.NDArray[np.uint16], Bytes, Bytes]:
        n_words, n_extra, n_missing = (int(n) for n in self.index[unit])
        end = int(self._ends[unit])
        missing = self.data[end - n_missing : end]
        extra = self.data[end - n_missing - n_extra : end - n_missing]
        begin = end - n_missing - n_extra - 2 * n_words
        words = self.data[begin : begin + 2 * n_words].copy().view("<u2")
        return words, extra, missing

    def _cared(self, unit: int, dims: tuple[int, ...], block: int | None) -> Flags:
        """Return which samples are in the grid and not missing."""
        flags = in_grid(self.layout, dims, block)
        missing = self._parts(unit)[2]
        if len(missing):
            flags &= ~unpack_flags(missing, dims)
        return flags

    # --- files -----------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        """Of all arrays, in a file."""
        return sum(array.nbytes for array in self.to_parts()[1].values())

    def to_parts(self) -> tuple[dict[str, Any], dict[str, Bytes]]:
        """Return what a model file holds: of JSON, and arrays."""
        told = {
            "grid": list(self.layout.grid),
            "channels": self.layout.channels,
            "unit": self.unit,
            "smooth": self.smooth,
            "roots": self.roots,
        }
        tables = self.tables.which.tobytes() + self.tables.frequencies.astype("<u2").tobytes()
        arrays = {
            "tables": squeeze(tables),
            "index": squeeze(self.index.T.astype("<u4").tobytes()),
            "data": self.data,
        }
        return told, arrays

    @classmethod
    def from_parts(cls, told: Any, arrays: Mapping[str, Array], where: str) -> Residual:
        """Make one of what `to_parts` returned; it comes from a file, so nothing is trusted.

        Raises
        ------
        DataError, SpecError
            The parts are not as they were.
        """
        if not isinstance(told, dict) or set(told) != _KEYS or set(arrays) != _ARRAYS:
            raise damaged(where)
        if any(a.dtype != np.uint8 or a.ndim != 1 for a in arrays.values()):
            raise damaged(where)
        grid, roots = told["grid"], told["roots"]
        if not isinstance(grid, list) or len(grid) not in MOST_SIDE or not isinstance(roots, list):
            raise damaged(where)
        sizes = tuple(check_count(n, "grid", where) for n in grid)
        channels = check_count(told["channels"], "channels", where)
        unit = check_number(told["unit"], "unit", where, 0.0, closed="right")
        smooth = told["smooth"]
        layout = Layout(sizes, channels)
        fits = all(type(r) is int and abs(r) <= LARGEST for r in roots) and len(roots) == channels
        fits = fits and isinstance(smooth, bool)
        if math.prod(sizes) * channels > MOST_VALUES or not fits:
            raise damaged(where)
        n_units = channels * (1 + layout.n_blocks)
        index = np.frombuffer(
            unsqueeze(arrays["index"].tobytes(), 12 * n_units, where), "<u4"
        ).reshape(3, n_units)
        raw = unsqueeze(arrays["tables"].tobytes(), None, where)
        n, row = layout.n_contexts, 2 * block_coder.N_TOKENS
        if len(raw) < n or (len(raw) - n) % row:
            raise damaged(where)
        frequencies = np.frombuffer(raw[n:], "<u2").reshape(-1, block_coder.N_TOKENS)
        tables = Tables(np.frombuffer(raw[:n], np.uint8), frequencies.astype(np.uint16))
        tables.check(n, where)
        entries = index.T.astype(np.int64)
        if int((entries @ np.array([2, 1, 1])).sum()) != len(arrays["data"]):
            raise damaged(where)
        return cls(layout, unit, smooth, roots, tables, entries, arrays["data"])


def n_lanes(n: int) -> int:
    """Return the lanes of a unit of n samples: more of large bases, which are one unit."""
    return N_LANES * max(1, n >> 17)


def surroundings(base: Ints, layout: Layout, blocks: list[int]) -> Ints:
    """Return blocks (n, side + 1, …) of zeros with the samples of the base in and around them."""
    known = np.zeros((len(blocks), *(side + 1 for side in layout.sides)), np.int64)
    every = (slice(None, None, SPACING),) * len(layout.sides)
    for i, block in enumerate(blocks):
        corner = (c // SPACING for c in layout.corner(block))
        part = tuple(
            slice(c, c + side // SPACING + 1) for c, side in zip(corner, layout.sides, strict=True)
        )
        place: Any = (i, *every)
        known[place] = base[part]
    return known


def in_grid(layout: Layout, dims: tuple[int, ...], block: int | None) -> Flags:
    """Return which samples of a block, or of the base (None), the grid has."""
    flags = np.zeros(dims, np.bool_)
    if block is None:
        held = tuple(slice(0, -(-n // SPACING)) for n in layout.grid)
    else:
        held = tuple(slice(0, s.stop - s.start) for s in layout.inside(block))
    flags[held] = True
    return flags
