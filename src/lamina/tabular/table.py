"""Tables: named columns read from a file or from standard input.

Every column becomes one NumPy array of one of four kinds, whatever the file format called it:

* ``number``: float64, NaN where a value is missing;
* ``date``: float64 seconds since 1970-01-01T00:00Z, NaN where missing;
* ``text`` and ``boolean``: int32 codes into ``levels``, -1 where missing;
* ``other``: what lamina does not learn from (nested values, binary data, a column with no name).

pyarrow reads the files and is imported when the first file is read, not before.
"""

from __future__ import annotations

import codecs
import difflib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["number", "date", "text", "boolean", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CODED: tuple[Kind, ...] = ("text", "boolean")

_ISO_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"


@dataclass(frozen=True, eq=False)
class Column:
    """One named column.

    Parameters
    ----------
    name : str
        Its name in the file.
    kind : {"number", "date", "text", "boolean", "other"}
        What the values are, see the module's first lines.
    values : (n,) float64 or int32
        Numbers, seconds, or codes into ``levels``.
    levels : tuple of str
        The distinct values of a text or boolean column, in order of first appearance
        (booleans: ``("false", "true")``).
    whole : bool
        True where the file stored whole numbers: they then print without a decimal point.
    """

    name: str
    kind: Kind
    values: NDArray[Any]
    levels: tuple[str, ...] = ()
    whole: bool = False

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
        return Column(self.name, self.kind, values, whole=self.whole)

    def take(self, rows: NDArray[Any] | slice) -> Column:
        """Return the column at ``rows``: indices, a mask or a slice; the levels stay."""
        return Column(self.name, self.kind, self.values[rows], self.levels, self.whole)

    def as_text(self) -> Column:
        """Return the column with its values as text: 3 becomes "3", and 2.5 becomes "2.5"."""
        if self.kind in CODED:
            return Column(self.name, "text", self.values, self.levels)
        found, codes = np.unique(self.values[~self.missing], return_inverse=True)
        values = np.full(self.values.shape, -1, dtype=np.int32)
        values[~self.missing] = codes
        return Column(self.name, "text", values, tuple(number_text(v) for v in found))


def number_text(value: float) -> str:
    """Return a number as people write it: whole ones without a decimal point."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns of equal length, in the order of the file."""

    columns: Mapping[str, Column]
    n_rows: int

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
        return Table({c.name: c.take(rows) for c in self}, n_rows)

    def without(self, name: str) -> Table:
        """Return the table without the column ``name``, if it has one."""
        return Table({c.name: c for c in self if c.name != name}, self.n_rows)


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


def read_table(source: str | Path, *, text_columns: Collection[str] = ()) -> Table:
    """Read a table from a file, or from standard input.

    Parameters
    ----------
    source : str or Path
        A ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` (also ``.ndjson``) or ``.feather`` (also
        ``.arrow``) file, or "-" for CSV from standard input. The extension decides the format.
        CSV is UTF-8, or UTF-16 with its mark; semicolons or tabs between the fields are recognised
        by the first line.
    text_columns : names
        Columns of a CSV file to read as text whatever they look like: a model that learnt "007"
        as text must not meet the number 7.

    Raises
    ------
    DataError
        If the file is missing, unreadable, truncated or of an unknown format, has no rows, no
        columns, or two columns of one name.
    """
    suffix = ".csv" if str(source) == "-" else Path(source).suffix.lower()
    if suffix not in _READERS:
        got = repr(suffix) if suffix else "none"
        raise DataError(
            f"{source}: expected a file name that ends in {', '.join(_READERS)}, got {got}. "
            "Convert the table to one of these."
        )
    import pyarrow as pa

    called = "standard input" if str(source) == "-" else str(source)
    try:
        if str(source) == "-":
            arrow = _READERS[suffix](pa.BufferReader(sys.stdin.buffer.read()), text_columns)
        else:
            with pa.OSFile(str(source), "rb") as file:
                arrow = _READERS[suffix](file, text_columns)
        return _as_table(arrow, called, text_columns)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{called}: expected a table, there is no such file.") from None
    except UnicodeError:
        raise DataError(
            f"{called}: expected UTF-8 text, got another encoding. Save it as UTF-8."
        ) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{called}: expected a readable {suffix[1:]} table, got an error: "
            f"{_first_line(error)}. The file may be truncated or of another format."
        ) from error


def _as_table(arrow: pa.Table, called: str, text_columns: Collection[str]) -> Table:
    """Turn a pyarrow table into ours; `DataError` if it has no rows or ambiguous columns."""
    names = [name or f"(unnamed {i})" for i, name in enumerate(arrow.column_names, start=1)]
    if not names:
        raise DataError(f"{called}: expected columns, the table has none.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"{called}: expected every column name once, got {list_names(repeated)} more than "
            "once. Rename them."
        )
    if arrow.num_rows == 0:
        raise DataError(f"{called}: expected at least one row, the table has none.")
    columns = {
        name: _column(name, data, detect_dates=name not in text_columns)
        if original
        else Column(name, "other", np.full(arrow.num_rows, np.nan))
        for name, original, data in zip(names, arrow.column_names, arrow.columns, strict=True)
    }
    return Table(columns, arrow.num_rows)


def write_columns(columns: Mapping[str, Any], target: BinaryIO, fmt: str) -> None:
    """Write equally long columns (arrays or lists) to an open file as "csv" or "parquet"."""
    import pyarrow as pa

    table = pa.table(dict(columns))
    if fmt == "parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, target)
    else:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, target, pyarrow.csv.WriteOptions(quoting_style="needed"))


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text, shortened, with no full stop at its end."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(". ")


def _as_utf8(data: bytes) -> bytes:
    """Return text as UTF-8: what spreadsheets call Unicode, UTF-16, begins with a mark."""
    marks = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    for mark, encoding in marks.items():
        if data.startswith(mark):
            return data.decode(encoding).encode()
    if b"\0" in data[:256]:
        raise UnicodeError("zero bytes, as UTF-16 without its mark has")
    return data


def _read_csv(
    file: pa.NativeFile, text_columns: Collection[str], delimiter: str | None = None
) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    data = _as_utf8(file.read())
    if delimiter is None:
        header = re.match(rb'(?:"[^"]*"|[^"\n])*', data)
        plain = re.sub(rb'"[^"]*"', b"", header[0] if header else b"")  # what is quoted is a name
        delimiter = max((b",", b";", b"\t"), key=plain.count).decode()
    table = csv.read_csv(
        pa.BufferReader(data),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.string() for name in text_columns}, strings_can_be_null=True
        ),
    )
    if any(pa.types.is_binary(column.type) for column in table.columns):
        raise UnicodeError("text that is not UTF-8")
    return table


def _read_tsv(file: pa.NativeFile, text_columns: Collection[str]) -> pa.Table:
    return _read_csv(file, text_columns, delimiter="\t")


def _read_parquet(file: pa.NativeFile, text_columns: Collection[str]) -> pa.Table:
    del text_columns  # Parquet says itself what is text
    from pyarrow import parquet

    return parquet.ParquetFile(file).read()


def _read_json_lines(file: pa.NativeFile, text_columns: Collection[str]) -> pa.Table:
    del text_columns
    import pyarrow as pa
    import pyarrow.json

    data = file.read()
    if not data.strip():
        return pa.table({"": pa.nulls(0)})
    return pyarrow.json.read_json(pa.BufferReader(data))


def _read_feather(file: pa.NativeFile, text_columns: Collection[str]) -> pa.Table:
    del text_columns
    from pyarrow import feather

    return feather.read_table(file)


_READERS: dict[str, Callable[[pa.NativeFile, Collection[str]], pa.Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".feather": _read_feather,
    ".arrow": _read_feather,
}


def _column(name: str, data: pa.ChunkedArray, *, detect_dates: bool) -> Column:
    """Turn one pyarrow column into a `Column`."""
    import pyarrow as pa

    types = pa.types
    kind = data.type
    if types.is_dictionary(kind) or types.is_string(kind) or types.is_string_view(kind):
        kind = pa.large_string()
        data = data.cast(data.type.value_type) if types.is_dictionary(data.type) else data
        data = data.cast(kind)
    if types.is_boolean(kind):
        return Column(name, "boolean", _codes(data.cast(pa.int8())), ("false", "true"))
    if types.is_large_string(kind):
        dates = _text_dates(data) if detect_dates else None
        if dates is None:
            return _text_column(name, data)
        return Column(name, "date", _seconds(dates))
    if types.is_date(kind) or types.is_timestamp(kind):
        return Column(name, "date", _seconds(data))
    if types.is_time(kind) or types.is_duration(kind):
        data = data.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        values = np.full(len(data), np.nan)
        return Column(name, "number" if types.is_null(kind) else "other", values)
    return Column(name, "number", _floats(data), whole=types.is_integer(kind))


def _text_column(name: str, data: pa.ChunkedArray) -> Column:
    """Code a text column: levels in order of first appearance, -1 where there is no value."""
    coded = data.combine_chunks().dictionary_encode()
    return Column(name, "text", _codes(coded.indices), tuple(coded.dictionary.to_pylist()))


def _floats(data: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """Return numbers as float64, NaN where there is none."""
    import pyarrow as pa

    whole = data.combine_chunks() if isinstance(data, pa.ChunkedArray) else data
    values: NDArray[np.float64] = whole.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return values


def _codes(data: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
    """Return small whole numbers as int32, -1 where there is none."""
    values = _floats(data)
    return np.where(np.isnan(values), -1, values).astype(np.int32)


def _seconds(data: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return dates as seconds since 1970, NaN where there is none; no zone means UTC."""
    import pyarrow as pa

    zone = data.type.tz if pa.types.is_timestamp(data.type) else None
    return _floats(data.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())) / 1e6


def _text_dates(data: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return text as dates if every value is an ISO 8601 date, else None."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = data.drop_null()
    for part in (text[:1], text):  # the first value settles it for nearly every column
        if len(part) == 0 or not pc.all(pc.match_substring_regex(part, _ISO_DATE)).as_py():
            return None
    for zone in (None, "UTC"):
        try:
            return data.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    return None
