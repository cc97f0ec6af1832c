"""A column as another kind: what `kinds` decided at fit, done again to every later table."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError
from lamina.tabular.parse import DATE_FORMS, NUMBER_FORMS, Reading, read_dates, read_numbers
from lamina.tabular.table import CODED, Column, Kind, number_text

# A number or date column may hold one cell in twenty that is neither: dirt, told in a note. More
# than that and the column is something else.
MOST_STRAY = 0.05
AS_TEXT = "ISO 8601"  # the form of dates used as categories
# Whole numbers that are dates, and how many of them make a second.
STAMPS = {"unix seconds": 1.0, "unix milliseconds": 1e3}

KIND_WORDS: dict[Kind, str] = {
    "number": "numbers",
    "date": "dates",
    "text": "text",
    "boolean": "booleans",
    "other": "values of another kind",
}


def as_kind(
    column: Column,
    kind: Kind,
    where: str,
    *,
    form: str = "",
    marks: Collection[str] = (),
    warn: bool = False,
) -> Column:
    """Return the column as the kind seen in fit, where that loses nothing.

    Parameters
    ----------
    column : Column
        Of any kind.
    kind : {"number", "date", "text", "boolean"}
        What it shall be.
    where : str
        Begins the sentence of an error.
    form : str
        How text is read as numbers or dates (`parse`), or whole numbers as dates.
    marks : names
        Text that counts as missing, besides the usual words.
    warn : bool, default False
        Warn of further values that do: in rows to predict nobody has been told of them.

    Raises
    ------
    DataError
        If more than one value in twenty (`MOST_STRAY`) is of no such kind; the first is named.
    """
    if column.kind == kind:
        return column
    if column.missing.all() and column.kind != "other":
        if kind in CODED:
            return Column(column.name, kind, np.full(column.values.shape, -1, dtype=np.int32))
        return Column(column.name, kind, np.full(column.values.shape, np.nan))
    if kind == "text" and column.kind in ("number", "boolean"):
        return column.as_text()
    if kind == "text" and column.kind == "date" and form == AS_TEXT:
        return _dates_as_text(column)
    if kind == "number" and column.kind == "boolean":
        values = np.where(column.missing, np.nan, column.values.astype(np.float64))
        return Column(column.name, kind, values)
    if kind == "boolean":
        as_boolean = to_boolean(column)
        if as_boolean is not None:
            return as_boolean
    if kind == "date" and column.kind == "number" and form:
        return Column(column.name, "date", stamps_as_dates(column.values, form))
    if kind in ("number", "date") and column.kind == "text":
        reading = read_text(column, kind, form)
        stray = reading.stray & ~np.isin(np.array(column.levels, dtype=object), list(marks))
        n_stray = int(level_counts(column)[stray].sum())
        if n_stray <= MOST_STRAY * np.count_nonzero(~column.missing):
            if warn and n_stray:
                note = strays_text(column, kind, stray)
                warnings.warn(f"{where}: column {column.name!r}: {note}", UserWarning, stacklevel=2)
            return from_reading(column, kind, reading)
        raise DataError(_sentence(column, kind, where, first_row(column, stray)))
    wrong = ~column.missing
    if kind == "boolean" and column.kind == "number":
        wrong &= ~np.isin(column.values, (0.0, 1.0))
    raise DataError(_sentence(column, kind, where, int(np.argmax(wrong))))


def strays_text(column: Column, kind: Kind, stray: NDArray[np.bool_]) -> str:
    """Say how many cells of a text column hold ``stray`` levels (n_levels,), which are no ``kind``.

    At least one does.
    """
    n_stray = int(level_counts(column)[stray].sum())
    row = first_row(column, stray)
    value = f"{column.levels[column.values[row]]!r} in row {row + 1}"
    of = f"{n_stray:,} of {np.count_nonzero(~column.missing):,} values"
    if n_stray == 1:
        return f"{of} is no {kind} and counts as missing, {value}."
    return f"{of} are no {kind} and count as missing, the first {value}."


def _sentence(column: Column, kind: Kind, where: str, row: int) -> str:
    """Say that a column holds other values than it did, and show one."""
    got = KIND_WORDS[column.kind]
    value = column.values[row]
    if column.kind in CODED:
        got += f" such as {column.levels[value]!r} in row {row + 1}"
    elif column.kind == "number":
        got += f" such as {number_text(value)} in row {row + 1}"
    return (
        f"{where}: expected column {column.name!r} to hold {KIND_WORDS[kind]} as in fit, "
        f"got {got}. Correct these values or leave them empty."
    )


def read_text(column: Column, kind: Kind, form: str = "") -> Reading:
    """Read a text column's levels as "number" or "date"."""
    read = read_numbers if kind == "number" else read_dates
    known = form in NUMBER_FORMS or form in DATE_FORMS
    return read(column.levels, level_counts(column), form if known else "")


def from_reading(column: Column, kind: Kind, reading: Reading) -> Column:
    """Return the text column as numbers or dates, as its levels were read."""
    lookup = np.append(reading.values, np.nan)  # code -1, a missing value, reads the last
    return Column(column.name, kind, lookup[column.values])


def _dates_as_text(column: Column) -> Column:
    """Return dates as their ISO 8601 text, to the second."""
    text = column.as_text()
    seconds = np.array([float(level) for level in text.levels])
    levels = np.datetime_as_string(seconds.astype("datetime64[s]"))
    return replace(text, levels=tuple(str(level) for level in levels))


def stamps_as_dates(values: NDArray[Any], form: str) -> NDArray[np.float64]:
    """Return whole numbers as seconds since 1970: "unix seconds", "… milliseconds", "yyyymmdd"."""
    if form in STAMPS:
        return np.asarray(values / STAMPS[form], dtype=np.float64)
    days = np.full(values.shape, np.nan)
    found, back = np.unique(values[~np.isnan(values)], return_inverse=True)
    texts = [f"{int(v) // 10000}-{int(v) // 100 % 100}-{int(v) % 100}" for v in found]
    read = read_dates(texts, np.ones(len(texts)), DATE_FORMS[0]).values
    days[~np.isnan(values)] = read[back]
    return days


def level_counts(column: Column) -> NDArray[np.int64]:
    """Return how many cells hold each level of a coded column."""
    present = column.values[column.values >= 0]
    return np.bincount(present, minlength=len(column.levels)).astype(np.int64)


def first_row(column: Column, levels: NDArray[np.bool_]) -> int:
    """Return the first row that holds one of the marked levels."""
    return int(np.argmax(np.append(levels, False)[column.values]))


def to_boolean(column: Column) -> Column | None:
    """Read 0 and 1, or words for false and true in any case, as booleans; None if others occur."""
    text = column.as_text()
    words = [level.strip().lower() for level in text.levels]
    codes = {"false": 0, "0": 0, "no": 0, "n": 0, "f": 0, "true": 1, "1": 1, "yes": 1}
    codes |= {"y": 1, "t": 1}
    if not set(words) <= set(codes):
        return None
    lookup = np.array([codes[word] for word in words] + [-1], dtype=np.int32)
    return replace(text, kind="boolean", values=lookup[text.values], levels=("false", "true"))
