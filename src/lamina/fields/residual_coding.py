"""How a `Residual` is made: coded twice, once to count, once with the tables that suit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError
from lamina.fields import block_coder
from lamina.fields.block_coder import (
    EXTRA_BITS,
    MOST_EXPONENT,
    N_TOKENS,
    Bytes,
    Tables,
    pack_bits,
    tokens,
)
from lamina.fields.lattice import UNITS, Ints, Passage, refine
from lamina.fields.packing import Flags, pack_flags
from lamina.fields.residual import (
    LARGEST,
    SPACING,
    Layout,
    Residual,
    Source,
    in_grid,
    n_lanes,
    surroundings,
)

Array = npt.NDArray[Any]

TRIAL_BLOCKS: Final = 24
CODING_SHARE: Final = 0.8  # of the work; the rest is checking
ZERO: Final = block_coder.DIRECT - 1  # the token of 0


@dataclass
class _Coded:
    """Blocks, or a base, quantised but not yet bytes."""

    token: npt.NDArray[np.uint8]  # (n_blocks, n)
    context: npt.NDArray[np.int16]  # (n_blocks, n); -1: certain
    extra: list[Bytes]
    missing: list[Bytes]
    is_empty: Flags  # (n_blocks,): nothing but missing samples
    lanes: int

    def count(self, counts: Ints) -> None:
        """Add how often each token was met in each context."""
        cared = self.context >= 0
        index = self.context[cared].astype(np.int64) * N_TOKENS + self.token[cared]
        counts += np.bincount(index, minlength=counts.size).reshape(counts.shape)


@dataclass
class _Coding:
    """The work on one grid, by one way of predicting it."""

    layout: Layout
    source: Source
    unit: float
    smooth: bool
    roots: list[int] = field(default_factory=list)
    bases: list[Ints] = field(default_factory=list)
    square: float = 0.0
    n_coded: int = 0

    def base(self, channel: int) -> _Coded:
        """Code a channel's base, and keep what a decoder will have."""
        dims = self.layout.base
        box = tuple(slice(0, n, SPACING) for n in self.layout.grid)
        values = self._padded(self.source(box)[..., channel], dims)
        cared = in_grid(self.layout, dims, None)
        missing = cared & np.isnan(values)
        cared &= ~missing
        root = values[cared][0] if cared.any() else 0.0
        self.roots.append(int(np.rint(values.flat[0] if cared.flat[0] else root)))
        known = np.zeros((1, *dims), np.int64)
        known[(0,) * known.ndim] = self.roots[-1]
        steps = self.layout.steps(self.smooth)[1]
        coded = self._code(known, values[None], cared[None], steps, missing[None], is_base=True)
        self.bases.append(known[0])
        return coded

    def blocks(self, channel: int, batch: list[int]) -> _Coded:
        """Code blocks of a channel."""
        sides = self.layout.sides
        values = np.empty((len(batch), *sides))
        cared = np.empty(values.shape, np.bool_)
        for i, block in enumerate(batch):
            part = self.source(self.layout.inside(block))[..., channel]
            values[i] = self._padded(part, sides)
            cared[i] = in_grid(self.layout, sides, block)
        missing = cared & np.isnan(values)
        cared &= ~missing
        known = surroundings(self.bases[channel], self.layout, batch)
        steps = self.layout.steps(self.smooth)[0]
        return self._code(known, values, cared, steps, missing, is_base=False)

    def _padded(self, part: Array, dims: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return samples in units, with whatever beyond the grid."""
        values = np.zeros(dims)
        values[tuple(slice(0, n) for n in part.shape)] = part / self.unit
        return values

    def _code(
        self,
        known: Ints,
        values: npt.NDArray[np.float64],
        cared: Flags,
        steps: list[int],
        missing: Flags,
        *,
        is_base: bool,
    ) -> _Coded:
        n, dims = len(values), values.shape[1:]
        lanes = n_lanes(math.prod(dims))
        token: list[npt.NDArray[np.uint8]] = []
        contexts: list[npt.NDArray[np.int16]] = []
        extras: list[tuple[Ints, Ints]] = []

        def answer(passage: Passage, predicted: Ints, context: Ints) -> Ints:
            flags, wanted = passage.gather(cared), passage.gather(values)
            off = np.where(flags, wanted - predicted, 0.0)
            wide = np.rint(off / passage.step)
            if np.abs(wide).max() >= 2.0**MOST_EXPONENT:
                raise _too_fine(self.unit)
            found = wide.astype(np.int64)
            context = np.where(flags, self.layout.context(passage, context, is_base=is_base), -1)
            which, extra = tokens(found)
            spare = ((0, 0), (0, -which.shape[1] % lanes))
            token.append(np.pad(which, spare, constant_values=ZERO))
            contexts.append(np.pad(context.astype(np.int16), spare, constant_values=-1))
            extras.append((extra, EXTRA_BITS[which]))
            return found

        refine(known, dims, steps, answer, smooth=self.smooth)
        part = known[(slice(None), *(slice(0, n) for n in dims))]
        off = np.where(cared, values - part, 0.0)
        self.square += float(np.vdot(off, off))
        self.n_coded += int(np.count_nonzero(cared))
        extra, bits = (np.concatenate([e[i] for e in extras], axis=1) for i in (0, 1))
        return _Coded(
            np.concatenate(token, axis=1),
            np.concatenate(contexts, axis=1),
            [pack_bits(extra[i], bits[i]) for i in range(n)],
            [pack_flags(missing[i]) for i in range(n)],
            np.array([not flags.any() for flags in cared]),
            lanes,
        )


def encode(
    layout: Layout,
    source: Source,
    unit: float,
    largest: float,
    tell: Callable[[float, float], None] | None = None,
) -> Residual:
    """Return a grid as bytes, each sample within half `UNITS` of units.

    Parameters
    ----------
    layout : Layout
    source : callable
        A box of the grid -> float64 (…, channels), NaN where missing. Asked for each sample up to
        three times.
    unit : float
    largest : float
        No value's magnitude is larger.
    tell : callable, optional
        Told now and then which share is done, and the mean squared error so far in units.

    Raises
    ------
    DataError
        The unit is too small for such values.
    """
    if largest > LARGEST * unit:
        raise _too_fine(unit)
    blocks = list(range(layout.n_blocks))
    smooth = _is_smooth(layout, source, unit)
    coding = _Coding(layout, source, unit, smooth)
    coded = [coding.base(channel) for channel in range(layout.channels)]
    for channel in range(layout.channels):
        for batch in layout.batches(blocks):
            coded.append(coding.blocks(channel, batch))
            if tell is not None:
                done = channel * layout.n_blocks + batch[-1] + 1
                share = CODING_SHARE * done / (layout.channels * layout.n_blocks)
                tell(share, coding.square / max(coding.n_coded, 1))
    counts = np.zeros((layout.n_contexts, N_TOKENS), np.int64)
    for part in coded:
        part.count(counts)
    tables = Tables.of(counts)
    index: list[tuple[int, int, int]] = []
    data: list[Bytes] = []
    while coded:
        part = coded.pop(0)
        for words, extra, missing in _finished(part, tables):
            index.append((len(words), len(extra), len(missing)))
            data += [words.astype("<u2").view(np.uint8), extra, missing]
    return Residual(
        layout, unit, smooth, coding.roots, tables, np.array(index, np.int64), np.concatenate(data)
    )


def _is_smooth(layout: Layout, source: Source, unit: float) -> bool:
    """Return which takes fewer bytes on the first channel's base and some blocks."""
    step = -(-layout.n_blocks // TRIAL_BLOCKS)
    some = list(range(step // 2, layout.n_blocks, step))
    costs = []
    for smooth in (False, True):
        coding = _Coding(layout, source, unit, smooth)
        parts = []
        for coded, weight in ((coding.base(0), 1), (coding.blocks(0, some), step)):
            counts = np.zeros((layout.n_contexts, N_TOKENS), np.int64)
            coded.count(counts)
            beside = sum(len(extra) for extra in coded.extra)
            total = counts.sum(axis=1, keepdims=True)
            at_least = np.maximum(counts, 1)
            bits = float((counts * np.log2(np.maximum(total, 1) / at_least)).sum())
            parts.append(weight * (bits / 8 + beside))
        costs.append(sum(parts))
    return costs[1] < costs[0]


def _finished(coded: _Coded, tables: Tables) -> list[tuple[npt.NDArray[np.uint16], Bytes, Bytes]]:
    """Return words, extra bits and missing samples of each block."""
    table = np.where(coded.context < 0, 0, tables.which[coded.context]).astype(np.uint8)
    words = block_coder.encode(coded.token, table, tables, coded.lanes)
    nothing = np.empty(0, np.uint16)
    return [
        (nothing, coded.extra[i], coded.missing[i])
        if coded.is_empty[i]
        else (words[i], coded.extra[i], coded.missing[i])
        for i in range(len(words))
    ]


def _too_fine(unit: float) -> DataError:
    return DataError(
        f"VolumeField.fit: expected a coarser bound with such values, got one of about "
        f"{UNITS / 2 * unit:.3g}. Raise max_error, or store the array as it is."
    )
