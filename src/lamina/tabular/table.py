"""Tables: named columns of equal length, wherever they come from.

Every column becomes one NumPy array of one of these kinds, whatever its source called it:

* ``number``: float64 (float32 where the source was), NaN where a value is missing;
* ``date``: float64 seconds since 1970-01-01T00:00Z, NaN where missing;
* ``text`` and ``boolean``: int32 codes into ``levels``, -1 where missing;
* ``other``: what lamina does not learn from (nested values, binary data).

`read` makes tables of files, `frames` of data frames and arrays; `kinds` says what each column is
good for.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError

Kind = Literal["number", "date", "text", "boolean", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CODED: tuple[Kind, ...] = ("text", "boolean")


@dataclass(frozen=True, eq=False)
class Column:
    """One named column.

    Parameters
    ----------
    name : str
        Its name in the file.
    kind : {"number", "date", "text", "boolean", "other"}
        What the values are, see the module's first lines.
    values : (n,) float64, float32 or int32
        Numbers, seconds, or codes into ``levels``. May be a view of the caller's data: never write.
    levels : tuple of str
        The distinct values of a text or boolean column, in order of first appearance
        (booleans: ``("false", "true")``).
    whole : bool
        True where the source stored whole numbers: they then print without a decimal point.
    declared : bool
        True where the source called the column categorical, as pandas and polars can.
    """

    name: str
    kind: Kind
    values: NDArray[Any]
    levels: tuple[str, ...] = ()
    whole: bool = False
    declared: bool = False

    @cached_property
    def missing(self) -> NDArray[np.bool_]:
        """True where the column has no value, shape (n,)."""
        if self.kind in CODED:
            return np.asarray(self.values < 0)
        return np.asarray(np.isnan(self.values))

    @property
    def finite(self) -> Column:
        """The column with infinite numbers as missing ones: a spreadsheet's 1/0 is no number."""
        if self.kind in CODED or not np.isinf(self.values).any():
            return self
        values = np.where(np.isinf(self.values), np.nan, self.values)
        return replace(self, values=values)

    def take(self, rows: NDArray[Any] | slice) -> Column:
        """Return the column at ``rows``: indices, a mask or a slice; the levels stay."""
        return replace(self, values=self.values[rows])

    def as_text(self) -> Column:
        """Return the column with its values as text: 3 becomes "3", and 2.5 becomes "2.5"."""
        if self.kind in CODED:
            return replace(self, kind="text")
        found, codes = np.unique(self.values[~self.missing], return_inverse=True)
        values = np.full(self.values.shape, -1, dtype=np.int32)
        values[~self.missing] = codes
        return Column(self.name, "text", values, tuple(number_text(v) for v in found))


def number_text(value: float | np.floating[Any]) -> str:
    """Return a number as people write it: whole ones without a decimal point."""
    return str(int(value)) if float(value).is_integer() else str(value)


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns of equal length, in the order of their source.

    Parameters
    ----------
    columns : dict of str to Column
        The columns by name.
    n_rows : int
        How many rows there are, possibly 0.
    named : bool
        False where the names are our own (x0, x1, …), as for a bare array.
    notes : tuple of str
        What was changed in reading, sentences for people.
    """

    columns: Mapping[str, Column]
    n_rows: int
    named: bool = True
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(self.columns)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns.values())

    def column(self, name: str, where: str) -> Column:
        """Return the column called ``name``; a `DataError` names the nearest ones otherwise."""
        if name in self.columns:
            return self.columns[name]
        near = near_names(name, self.names)
        hint = f"Did you mean {near}?" if near else f"It has {list_names(self.names)}."
        raise DataError(f"{where}: expected a column {name!r}, the table has none. {hint}")

    def take(self, rows: NDArray[Any] | slice) -> Table:
        """Return the table at ``rows``: indices, a mask (n_rows,) or a slice."""
        n_rows = int(np.arange(self.n_rows)[rows].size)
        return replace(self, columns={c.name: c.take(rows) for c in self}, n_rows=n_rows)

    def without(self, name: str) -> Table:
        """Return the table without the column ``name``, if it has one."""
        return replace(self, columns={c.name: c for c in self if c.name != name})


def near_names(name: str, names: Iterable[str]) -> str:
    """Return the names that look most like ``name``, quoted and joined by "or"; maybe empty."""
    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.6)
    return " or ".join(repr(by_lower[n]) for n in near)


def list_names(names: Collection[str], limit: int = 8) -> str:
    """Return at most ``limit`` names, quoted, and how many more there are."""
    shown = ", ".join(repr(n) for n in list(names)[:limit])
    more = len(names) - limit
    return shown if more <= 0 else f"{shown} and {more} more"
