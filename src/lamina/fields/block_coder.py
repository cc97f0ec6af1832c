"""Whole numbers of many blocks as bytes, each block by itself: asymmetric numeral systems in lanes.

A number becomes a token and, if it is large, bits beside it. Tokens of a context share a table of
frequencies (of 4096); contexts that are alike share one. A block's tokens go to `n_lanes` states
in turn, all of which read one sequence of 16-bit words, so that NumPy decodes the lanes of all
blocks at once and any block can be decoded alone. (`entropy` codes one list by one table:
here contexts depend on what was decoded before, so numbers are asked for passage by passage.)

References
----------
Duda (2013), arXiv:1311.2540; Giesen (2014), arXiv:1402.3392, for interleaved states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

DIRECT: Final = 16  # magnitudes below have a token each, with their sign
MOST_EXPONENT: Final = 40
N_TOKENS: Final = 2 * DIRECT - 1 + 2 * (MOST_EXPONENT - 4)
SCALE_BITS: Final = 12
SCALE: Final = 1 << SCALE_BITS
LOWEST: Final = 1 << 16  # of a state, below which it takes a word
TABLE_BYTES: Final = 1.2  # what an entry of a table takes in the file, about

_EXPONENT = np.arange(N_TOKENS) - (2 * DIRECT - 1)
# Bits beside a token: the magnitude's below its first two, and the sign
EXTRA_BITS: Final = np.where(_EXPONENT < 0, 0, 4 + _EXPONENT // 2)


def tokens(values: Ints) -> tuple[npt.NDArray[np.uint8], Ints]:
    """Return tokens, and what their extra bits are, of |values| < 2**40."""
    size = np.abs(values)
    token = (values + DIRECT - 1).astype(np.int64)
    extra = np.zeros_like(token)
    large = size >= DIRECT
    if large.any():
        m = size[large]
        exponent = np.frexp(m.astype(np.float64))[1] - 1  # m < 2**53: exact
        half = (m >> (exponent - 1)) & 1
        token[large] = 2 * DIRECT - 1 + 2 * (exponent - 4) + half
        rest = m & ((np.int64(1) << (exponent - 1)) - 1)
        extra[large] = rest * 2 + (values[large] < 0)
    return token.astype(np.uint8), extra


def values_of(token: Ints, extra: Ints) -> Ints:
    """Return the numbers: the inverse of `tokens`."""
    values = token - (DIRECT - 1)
    large = token >= 2 * DIRECT - 1
    if large.any():
        which, bits = token[large] - (2 * DIRECT - 1), extra[large]
        exponent = 4 + which // 2
        m = (np.int64(2) | (which & 1)) << (exponent - 1) | (bits >> 1)
        values[large] = np.where(bits & 1, -m, m)
    return values


# ------------------------------------------------------------------------------------- the tables


@dataclass(frozen=True)
class Tables:
    """Frequencies of tokens, and which contexts have which.

    Attributes
    ----------
    which : uint8 array (n_contexts,)
        The table of each context. Table 0 is that of what is certain: token 15, the number 0.
    frequencies : uint16 array (n_tables, N_TOKENS)
        Each table's add up to 4096.
    """

    which: npt.NDArray[np.uint8]
    frequencies: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, counts: Ints) -> Tables:
        """Return tables for counts (n_contexts, N_TOKENS), as many as pay for their own bytes."""
        used = np.flatnonzero(counts.sum(axis=1))
        groups = _merge(counts[used].astype(np.float64))
        which = np.zeros(len(counts), np.uint8)
        certain = np.zeros((1, N_TOKENS), np.int64)
        certain[0, DIRECT - 1] = SCALE
        rows = [certain]
        for i, group in enumerate(groups, start=1):
            which[used[group]] = i
            rows.append(_scaled(counts[used[group]].sum(axis=0))[None])
        return cls(which, np.concatenate(rows).astype(np.uint16))

    def check(self, n_contexts: int, where: str) -> None:
        """Raise `DataError` unless these are tables: they may come from a file."""
        n_tables = len(self.frequencies)
        if (
            self.which.shape != (n_contexts,)
            or self.frequencies.shape != (n_tables, N_TOKENS)
            or not n_tables
            or int(self.which.max()) >= n_tables
            or (self.frequencies.astype(np.int64).sum(axis=1) != SCALE).any()
        ):
            raise DataError(f"{where}: expected tables that add up to {SCALE}, got others.")

    @property
    def begins(self) -> Ints:
        """Cumulated frequencies: where each token's share of a table begins."""
        wide = self.frequencies.astype(np.int64)
        return np.cumsum(wide, axis=1) - wide

    def look_up(self) -> npt.NDArray[np.uint64]:
        """Return, for each table and slot, token << 32 | frequency << 16 | slot - begin."""
        n_tables = len(self.frequencies)
        token = np.repeat(
            np.tile(np.arange(N_TOKENS), n_tables), self.frequencies.ravel().astype(np.int64)
        ).reshape(n_tables, SCALE)
        row = np.arange(n_tables)[:, None]
        frequency = self.frequencies.astype(np.int64)[row, token]
        offset = np.arange(SCALE)[None, :] - self.begins[row, token]
        return (token << 32 | frequency << 16 | offset).astype(np.uint64).ravel()


def _merge(counts: npt.NDArray[np.float64]) -> list[list[int]]:
    """Return groups of contexts: those whose common table costs fewer bytes than two.

    Greedy, the pair that saves most first.
    """
    groups = [[i] for i in range(len(counts))]
    if not groups:
        return groups
    rows = counts.copy()
    cost = _cost(rows)
    gain = np.full((len(rows), len(rows)), -np.inf)
    for i in range(1, len(rows)):
        gain[i, :i] = cost[i] + cost[:i] - _cost(rows[:i] + rows[i])
    while True:
        i, j = divmod(int(np.argmax(gain)), len(rows))
        if gain[i, j] <= 0 and sum(map(bool, groups)) <= 250:
            return [group for group in groups if group]
        groups[j] += groups[i]
        groups[i] = []
        rows[j] += rows[i]
        cost[j] = _cost(rows[j : j + 1])[0]
        gain[i, :] = gain[:, i] = -np.inf
        alive = np.array([k for k, group in enumerate(groups) if group and k != j], np.int64)
        if len(alive):
            saved = cost[j] + cost[alive] - _cost(rows[alive] + rows[j])
            gain[np.maximum(alive, j), np.minimum(alive, j)] = saved


def _cost(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Bytes of the tokens counted in each row, and of its table."""
    total = rows.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(rows > 0, rows * np.log2(total / rows), 0.0).sum(axis=1)
    return np.asarray(bits / 8 + TABLE_BYTES * (rows > 0).sum(axis=1))


def _scaled(counts: Ints) -> Ints:
    """Return frequencies that add up to 4096, at least 1 for what occurs."""
    share = counts * (SCALE / counts.sum())
    found = np.where(counts > 0, np.maximum(np.rint(share), 1), 0).astype(np.int64)
    while (off := int(SCALE - found.sum())) != 0:
        # From or to those that it changes least, in proportion
        place = int(np.argmax(found))
        found[place] += max(off, 1 - int(found[place]) // 2) if off < 0 else off
    return found


# ------------------------------------------------------------------------------------- the coder


def encode(
    token: npt.NDArray[np.uint8], table: npt.NDArray[np.uint8], tables: Tables, n_lanes: int
) -> list[npt.NDArray[np.uint16]]:
    """Return the words of each block: its last states, low half first, then what they read.

    Parameters
    ----------
    token, table : uint8 arrays (n_blocks, n)
        n is a multiple of `n_lanes`; `table` says which of `tables` each token is coded by.
    """
    n_blocks, n = token.shape
    n_steps = n // n_lanes
    shape = (n_blocks, n_steps, n_lanes)
    index = table.astype(np.int64) * N_TOKENS + token
    frequency = tables.frequencies.ravel().astype(np.uint64)
    begin = tables.begins.ravel().astype(np.uint64)
    index = index.reshape(shape)
    state = np.full((n_blocks, n_lanes), LOWEST, np.uint64)
    words = np.zeros(shape, np.uint16)
    spilled = np.zeros(shape, np.bool_)
    for step in range(n_steps - 1, -1, -1):
        i = index[:, step]
        f = frequency[i]
        spill = state >= f << np.uint64(32 - SCALE_BITS)
        words[:, step] = state  # the low half
        spilled[:, step] = spill
        state = np.where(spill, state >> np.uint64(16), state)
        quotient = state // f
        state = (quotient << np.uint64(SCALE_BITS)) + (state - quotient * f) + begin[i]
    found = []
    for b in range(n_blocks):
        first = np.stack([state[b] & np.uint64(0xFFFF), state[b] >> np.uint64(16)])
        found.append(np.concatenate([first.astype(np.uint16).ravel(), words[b][spilled[b]]]))
    return found


class Decoder:
    """Reads tokens of many blocks, a passage at a time.

    Parameters
    ----------
    words : list of uint16 arrays
        Of each block, as `encode` gave them.
    extras : list of uint8 arrays
        Of each block, the bits beside tokens (`pack_bits`).
    tables : Tables
    n_lanes : int
    where : str
        The start of error sentences.
    """

    def __init__(
        self,
        words: list[npt.NDArray[np.uint16]],
        extras: list[Bytes],
        tables: Tables,
        n_lanes: int,
        where: str,
    ) -> None:
        self.tables, self.n_lanes, self.where = tables, n_lanes, where
        self.look_up = tables.look_up()
        n_words = np.array([len(w) for w in words])
        if (n_words < 2 * n_lanes).any():
            raise self._damaged()
        self.ends = np.cumsum(n_words)
        # One block cannot read far into the next unnoticed; beyond the last there are zeros
        self.words = np.concatenate([*words, np.zeros(n_lanes + 1, np.uint16)])
        starts = self.ends - n_words
        first = self.words[starts[:, None] + np.arange(2 * n_lanes)].astype(np.uint64)
        self.state = first[:, :n_lanes] | first[:, n_lanes:] << np.uint64(16)
        self.at = starts + 2 * n_lanes
        n_extra = np.array([len(e) for e in extras])
        self.extra = np.concatenate([*extras, np.zeros(8, np.uint8)])
        self.extra_ends = 8 * np.cumsum(n_extra)
        self.extra_at = self.extra_ends - 8 * n_extra  # bits

    def read(self, contexts: Ints) -> Ints:
        """Return the numbers of contexts (n_blocks, n); a context of -1 stands for a certain 0."""
        n_blocks, n = contexts.shape
        table = np.where(contexts < 0, 0, self.tables.which[contexts])
        spare = -n % self.n_lanes
        table = np.pad(table, ((0, 0), (0, spare)))
        offset = (table.astype(np.uint64) << np.uint64(SCALE_BITS)).reshape(
            n_blocks, -1, self.n_lanes
        )
        token = np.empty(offset.shape, np.int64)
        state, at, look_up, words = self.state, self.at, self.look_up, self.words
        mask, sixteen, twelve = np.uint64(SCALE - 1), np.uint64(16), np.uint64(SCALE_BITS)
        low, thirty_two, lowest = np.uint64(0xFFFF), np.uint64(32), np.uint64(LOWEST)
        for step in range(offset.shape[1]):
            entry = look_up[offset[:, step] + (state & mask)]
            token[:, step] = entry >> thirty_two
            state = (entry >> sixteen & low) * (state >> twelve) + (entry & low)
            hungry = state < lowest
            if hungry.any():
                places = np.cumsum(hungry, axis=1)
                taken = words[np.minimum(at[:, None] + places - 1, len(words) - 1)]
                state = np.where(hungry, state << sixteen | taken, state)
                at = at + places[:, -1]
        self.state, self.at = state, at
        if (at > self.ends).any():
            raise self._damaged()
        token = token.reshape(n_blocks, -1)[:, :n]
        return values_of(token, self._extra(token))

    def close(self) -> None:
        """Raise `DataError` unless all was read, to the last bit."""
        if (
            (self.state != LOWEST).any()
            or (self.at != self.ends).any()
            or (self.extra_ends - self.extra_at >= 8).any()
        ):
            raise self._damaged()

    def _extra(self, token: Ints) -> Ints:
        bits = EXTRA_BITS[token]
        ends = self.extra_at[:, None] + np.cumsum(bits, axis=1)
        self.extra_at = ends[:, -1].copy()
        if (self.extra_at > self.extra_ends).any():
            raise self._damaged()
        found = np.zeros(token.shape, np.int64)
        large = bits > 0
        if large.any():
            start, size = (ends - bits)[large], bits[large]
            window = np.zeros(len(start), np.uint64)
            for i in range(8):
                window |= self.extra[(start >> 3) + i].astype(np.uint64) << np.uint64(8 * i)
            window >>= (start & 7).astype(np.uint64)
            found[large] = (
                window & ((np.uint64(1) << size.astype(np.uint64)) - np.uint64(1))
            ).astype(np.int64)
        return found

    def _damaged(self) -> DataError:
        return DataError(
            f"{self.where}: expected blocks as they were coded, got damaged ones. "
            "Take another copy of the file."
        )


def pack_bits(extra: Ints, bits: Ints) -> Bytes:
    """Return numbers of `bits` bits each, one after the other, lowest bit first.

    Parameters
    ----------
    extra, bits : int64 arrays (n,)
    """
    size = bits[bits > 0]
    if not len(size):
        return np.empty(0, np.uint8)
    number = np.repeat(extra[bits > 0], size)
    begin = np.repeat(np.cumsum(size) - size, size)
    place = np.arange(len(number)) - begin
    return np.packbits((number >> place & 1).astype(np.uint8), bitorder="little")
