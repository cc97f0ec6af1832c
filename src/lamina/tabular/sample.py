"""A sample of a table too large for memory, drawn in one pass, with counts that take all rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.tabular.arrow import MISSING_MARKS
from lamina.tabular.batches import Batches
from lamina.tabular.frames import from_arrow
from lamina.tabular.inputs import MIN_LEVEL_ROWS, MOST_LEVELS, CategoryInput, Inputs
from lamina.tabular.levels import Levels
from lamina.tabular.read import concatenate
from lamina.tabular.table import Table

if TYPE_CHECKING:
    import pyarrow as pa

MOST_COUNTED = 1 << 15  # different values of a column whose rows are counted: about 3 MB
MOST_COUNTED_IN_ALL = 1 << 18


class Reservoir:
    """Rows drawn at random, each row of a stream with the same chance, in the stream's order.

    Every row gets a random key; the n of the smallest keys are kept.

    Parameters
    ----------
    n : int
        How many rows to keep.
    rng : numpy.random.Generator

    References
    ----------
    Vitter 1985, "Random sampling with a reservoir"; by keys, Efraimidis and Spirakis 2006.
    """

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n, self.rng = n, rng
        self.n_rows = 0  # seen
        self.parts: list[pa.Table] = []
        self.keys: list[NDArray[np.float64]] = []
        self.bound = np.inf

    def add(self, rows: pa.Table) -> None:
        """Take the next rows of the stream."""
        keys = self.rng.random(rows.num_rows)
        kept = keys < self.bound
        self.n_rows += rows.num_rows
        if kept.any():
            self.parts.append(rows.take(np.flatnonzero(kept)))  # a copy, of these rows only
            self.keys.append(keys[kept])
        if sum(map(len, self.keys)) > 2 * self.n:
            self._forget()

    def table(self) -> pa.Table:
        """Return the rows kept, at most n."""
        self._forget()
        return self.parts[0]

    def _forget(self) -> None:
        """Keep the n rows of the smallest keys only."""
        keys = np.concatenate(self.keys)
        rows = concatenate(self.parts)
        if len(keys) > self.n:
            self.bound = float(np.partition(keys, self.n - 1)[self.n - 1])
            kept = np.flatnonzero(keys <= self.bound)[: self.n]
            keys, rows = keys[kept], rows.take(kept)
        self.parts, self.keys = [rows.combine_chunks()], [keys]


class LevelCounts:
    """How many rows hold each value of the text columns, for columns of not too many values."""

    def __init__(self) -> None:
        self.of_column: dict[str, Counter[str]] = {}
        self.dropped: set[str] = set()

    def add(self, rows: pa.Table) -> None:
        """Count the next rows of the stream."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for name, column in zip(rows.column_names, rows.columns, strict=True):
            is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            if not is_text or name in self.dropped:
                continue
            found = pc.value_counts(column)
            if 2 * len(found) > len(column) > 100 or len(found) > MOST_COUNTED:
                self._drop(name)
                continue
            values, counts = found.field("values").to_pylist(), found.field("counts").to_pylist()
            own = self.of_column.setdefault(name, Counter())
            own.update({v: n for v, n in zip(values, counts, strict=True) if not _is_missing(v)})
            if len(own) > MOST_COUNTED:
                self._drop(name)
        while sum(map(len, self.of_column.values())) > MOST_COUNTED_IN_ALL:
            self._drop(max(self.of_column, key=lambda name: len(self.of_column[name])))

    def _drop(self, name: str) -> None:
        self.dropped.add(name)
        self.of_column.pop(name, None)

    def apply(self, inputs: Inputs, n_rows: int) -> Inputs:
        """Return inputs whose categories were chosen by the counts of all rows."""
        least = min(MIN_LEVEL_ROWS, max(2, n_rows // 20))
        parts = []
        for part in inputs.parts:
            counted = self.of_column.get(part.column)
            if isinstance(part, CategoryInput) and counted and self._suits(part, inputs):
                counts = np.array(list(counted.values()), np.int64)
                levels = Levels.choose(list(counted), counts, least=least, most=MOST_LEVELS)
                part = replace(part, levels=levels)
            parts.append(part)
        return replace(inputs, parts=tuple(parts))

    @staticmethod
    def _suits(part: CategoryInput, inputs: Inputs) -> bool:
        """Whether the column's levels are its values as they stand in the file."""
        use = inputs.uses[part.column]
        return use.kind == "text" and not use.form


def _is_missing(value: str | None) -> bool:
    return value is None or (len(value) < 16 and value.strip() in MISSING_MARKS)


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample of the rows, how many there are in all, and their levels' counts."""

    table: Table
    n_rows: int
    counts: LevelCounts = field(repr=False)


def draw_sample(batches: Batches, n_bytes: int, most: int, rng: np.random.Generator) -> Sample:
    """Draw up to ``most`` rows of about ``n_bytes`` together, in one pass over all rows."""
    import pyarrow as pa

    reservoir, counts = None, LevelCounts()
    declared: list[str] = []
    for rows in batches:
        if reservoir is None:
            row_bytes = max(rows.nbytes // max(rows.num_rows, 1), 1)
            reservoir = Reservoir(int(np.clip(n_bytes // row_bytes, 1000, most)), rng)
            declared = [f.name for f in rows.schema if pa.types.is_dictionary(f.type)]
        counts.add(rows)
        reservoir.add(rows)
    if reservoir is None:
        return Sample(Table({}, 0), 0, counts)
    found: Any = reservoir.table()
    for name in declared:  # what the file calls a category stays one
        i = found.column_names.index(name)
        found = found.set_column(i, name, found.column(i).dictionary_encode())
    return Sample(from_arrow(found, batches.files[0]), reservoir.n_rows, counts)
