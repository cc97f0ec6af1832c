"""Tables as exact numbers: the decimals that a text file writes, not the floats nearest to them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.cli.console import source_of
from lamina.core.errors import DataError
from lamina.theory.exact import as_fraction

if TYPE_CHECKING:
    from lamina.tabular.table import Column, Table

MOST_LEVELS, MOST_CLASSES = 100, 50
_TEXT_FORMATS = (".csv", ".tsv")


@dataclass(frozen=True, eq=False)
class ExactTable:
    """The rows that have every value.

    Parameters
    ----------
    x : object array (n, d) of Fraction
    names : list of str, length d
        A column of categories has one of 0 and 1 for each, called "column=category".
    y : object array (n,) of str or Fraction
        The class of each row.
    rows : array (n,) of int
        Where each is in the file, from 1, without the header.
    notes : list of str
    """

    x: NDArray[Any]
    names: list[str]
    y: NDArray[Any]
    rows: NDArray[np.int64]
    notes: list[str]


def read_exact(files: tuple[str, ...], target: str, drop: Sequence[str], verb: str) -> ExactTable:
    """Read a table for a proof: numbers exactly, categories as columns of 0 and 1.

    Raises
    ------
    DataError
        The table cannot be read, lacks a column, or has no numbers, no two classes, a value that
        is not finite or a column of too many categories.
    """
    typed, written = _read(files)
    typed.column(target, verb)
    for name in drop:
        typed.column(name, verb)
    if typed.n_rows == 0:
        raise DataError(f"{verb}: expected rows, the table has none. Take one that has some.")
    notes, columns, names = list(typed.notes), [], []
    present = ~typed.columns[target].missing
    for column in typed:
        if column.name == target or column.name in drop:
            continue
        if column.kind == "other" or column.missing.all():
            notes.append(f"column {column.name!r} is left out: it holds no numbers or categories.")
            continue
        present &= ~column.missing
        for name, values in _numbers(column, written, verb, notes):
            names.append(name)
            columns.append(values)
    if not columns:
        raise DataError(
            f"{verb}: expected columns of values besides the target {target!r}, got none. "
            "Take a wider table, or leave fewer columns out."
        )
    y = _classes(typed.columns[target], written, verb)
    if not present.all():
        n_gone = int((~present).sum())
        rows = "1 row that lacks a value" if n_gone == 1 else f"{n_gone:,} rows that lack one"
        notes.append(f"left out: {rows}.")
    kept = np.flatnonzero(present)
    x = np.empty((len(kept), len(columns)), dtype=object)
    for j, values in enumerate(columns):
        x[:, j] = values[kept]
    return ExactTable(x, names, y[kept], kept + 1, notes)


def _read(files: tuple[str, ...]) -> tuple[Table, Table | None]:
    """Return the table as lamina fit sees it, and as text where the file is text."""
    from lamina.tabular.read import files_of, read_table, suffix_of

    if files == ("-",):
        with _standard_input() as path:
            return _read((path,))
    source = source_of(files)
    typed = read_table(source)
    if suffix_of(files_of(source)[0]) not in _TEXT_FORMATS:
        return typed, None
    return typed, read_table(source, text_columns=typed.names)


@contextmanager
def _standard_input() -> Iterator[str]:
    """Keep standard input in a file while it is read twice."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input.csv"
        path.write_bytes(sys.stdin.buffer.read())
        try:
            yield str(path)
        except DataError as error:
            raise DataError(str(error).replace(str(path), "standard input")) from None


def _numbers(
    column: Column, written: Table | None, verb: str, notes: list[str]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield a column as columns of numbers; what is missing becomes 0, and its row goes."""
    name = column.name
    if column.kind == "number":
        yield name, _exact(column, written, verb)
    elif column.kind in ("date", "boolean"):
        if column.kind == "date":
            notes.append(f"column {name!r} holds dates: taken as seconds since 1970.")
        values = np.where(column.missing, 0, column.values)
        yield name, _objects(Fraction(float(v)) for v in values)
    else:
        if len(column.levels) > MOST_LEVELS:
            raise DataError(
                f"{verb}: expected at most {MOST_LEVELS} categories in column {name!r}, got "
                f"{len(column.levels):,}: names and numbers of rows separate anything. "
                f"Leave it out with --drop {name}."
            )
        notes.append(f"column {name!r} holds categories: a column of 0 and 1 for each.")
        one, zero = Fraction(1), Fraction(0)
        for code, level in enumerate(column.levels):
            yield f"{name}={level}", _objects(one if v == code else zero for v in column.values)


def _exact(column: Column, written: Table | None, verb: str) -> NDArray[Any]:
    """Return a column of numbers as Fractions: of the text if there is one, else of the floats."""
    if written is None:
        finite = np.where(column.missing, 0, column.values).tolist()
        if not np.isfinite(finite).all():
            raise _not_finite(column.name, "infinity", verb)
        return _objects(map(Fraction, finite))
    text = written.columns[column.name]
    levels = [as_fraction(level) for level in text.levels]
    for level, found in zip(text.levels, levels, strict=True):
        if found is None:
            raise _not_finite(column.name, repr(level), verb)
    codes = text.values.tolist()
    return _objects(levels[c] if c >= 0 else Fraction(0) for c in codes)


def _not_finite(name: str, got: str, verb: str) -> DataError:
    return DataError(
        f"{verb}: expected finite numbers in column {name!r}, got {got}. "
        "Correct or remove such rows."
    )


def _classes(column: Column, written: Table | None, verb: str) -> NDArray[Any]:
    """Return the class of each row as text or as a number; "" or 0 where it is missing."""
    if column.kind in ("text", "boolean"):
        levels = [*column.levels, ""]  # -1 is missing
        return _objects(levels[c] for c in column.values.tolist())
    values = _exact(column, written if column.kind == "number" else None, verb)
    distinct = sorted({v for v, gone in zip(values, column.missing, strict=True) if not gone})
    if len(distinct) > MOST_CLASSES:
        raise DataError(
            f"{verb}: expected classes in the target {column.name!r}, got {len(distinct):,} "
            "different numbers. Name a column of classes; separability is a question about them."
        )
    return values


def _objects(values: Any) -> NDArray[Any]:
    found = list(values)
    result = np.empty(len(found), dtype=object)
    result[:] = found
    return result
