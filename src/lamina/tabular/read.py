"""Files to tables: CSV, TSV, Parquet, JSON lines and Feather; one, several, or a folder of them.

pyarrow reads them and is imported when the first file is read, not before.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lamina.core.errors import DataError
from lamina.tabular.arrow import MISSING_MARKS
from lamina.tabular.frames import from_arrow, unique_names
from lamina.tabular.table import Table, list_names, near_names

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 1 << 24  # bytes of a CSV file parsed at a time: the longest row it may have


def read_table(
    source: str | Path | Sequence[str | Path],
    *,
    text_columns: Collection[str] = (),
    encoding: str | None = None,
) -> Table:
    """Read a table from a file, several files, a folder, or standard input.

    Parameters
    ----------
    source : str, Path or a sequence of them
        A ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` (also ``.ndjson``) or ``.feather`` (also
        ``.arrow``) file, a folder of files of one such format (read in the order of their names),
        a sequence of files (read in its order), or "-" for CSV from standard input. The extension
        decides the format. The columns of several files are matched by name, in any order.
        CSV is UTF-8, or UTF-16 with its mark; semicolons or tabs between the fields are recognised
        by the first line.
    text_columns : names
        Columns of a CSV file to read as text whatever they look like: a model that learnt "007"
        as text must not meet the number 7.
    encoding : str, optional
        How a text file is encoded, such as "latin-1", where it is neither of the above.

    Returns
    -------
    Table
        Of no rows where the file has a header only. A repeated name gets ".1", ".2", … added.

    Raises
    ------
    DataError
        If a file is missing, unreadable, truncated or of an unknown format, has a row of too many
        or too few fields, no columns, or not the columns of the other files.
    """
    files = files_of(source)
    tables = {file: _read_file(file, text_columns, encoding) for file in files}
    if len(files) == 1:
        return from_arrow(tables[files[0]], files[0], text_columns)
    check_same_columns({file: table.column_names for file, table in tables.items()})
    mixed = _mixed_columns(tables.values())
    if mixed:  # numbers in one file, text in another: text in all
        tables = {file: _read_file(file, {*text_columns, *mixed}, encoding) for file in files}
    return from_arrow(concatenate(list(tables.values())), files[0], text_columns)


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


def files_of(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the files that ``source`` names, one format throughout."""
    if isinstance(source, str | Path):
        if str(source) == "-" or not Path(source).is_dir():
            return [str(source)]
        paths = [p for p in sorted(Path(source).iterdir()) if p.name[0] not in "._" and p.is_file()]
        files = [str(p) for p in paths if p.suffix.lower() in _READERS]
        where, none = str(source), "the folder has none"
    else:
        files = [str(item) for item in source]
        where, none = "read_table", "an empty list"
    if not files:
        raise DataError(
            f"{where}: expected files that end in {', '.join(_READERS)}, {none}. "
            "Name the files, or another folder."
        )
    repeated = {file for file in files if files.count(file) > 1}
    if repeated:
        raise DataError(f"{where}: expected every file once, got {list_names(repeated)} again.")
    readers = {_READERS.get(suffix_of(file)): suffix_of(file) for file in files}
    if len(readers) > 1:
        raise DataError(
            f"{where}: expected files of one format, got {', '.join(sorted(readers.values()))}. "
            "Name the files of one of them."
        )
    return files


def suffix_of(file: str) -> str:
    """Return a file name's extension, which decides its format; standard input is CSV."""
    return ".csv" if file == "-" else Path(file).suffix.lower()


def known_suffix(file: str) -> str:
    """Return `suffix_of` a file that can be read; another one is a `DataError`."""
    suffix = suffix_of(file)
    if suffix not in _READERS:
        got = repr(suffix) if suffix else "none"
        raise DataError(
            f"{file}: expected a file name that ends in {', '.join(_READERS)}, got {got}. "
            "Convert the table to one of these."
        )
    return suffix


def _read_file(file: str, text_columns: Collection[str], encoding: str | None) -> pa.Table:
    """Read one file; a `DataError` names it, and says what is wrong, in one sentence."""
    suffix = known_suffix(file)
    import pyarrow as pa

    called = "standard input" if file == "-" else file
    options = _Options(called, text_columns, encoding)
    with one_sentence(called, suffix, encoding):
        if file == "-":
            return _READERS[suffix](pa.BufferReader(sys.stdin.buffer.read()), options)
        with pa.OSFile(file, "rb") as opened:
            return _READERS[suffix](opened, options)
    raise AssertionError  # the block above returns or raises


@contextmanager
def one_sentence(called: str, suffix: str, encoding: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong in reading a file into one sentence that names it."""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{called}: expected a table, there is no such file.") from None
    except (UnicodeError, LookupError) as error:
        raise DataError(_encoding_sentence(called, encoding, error)) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{called}: expected a readable {suffix[1:]} table, got an error: "
            f"{_first_line(error)}. The file may be truncated or of another format."
        ) from error


def _encoding_sentence(called: str, encoding: str | None, error: Exception) -> str:
    """Say what is wrong with a file's encoding, and in which line if that is known."""
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = f"the byte 0x{error.object[error.start]:02x} in line {line}"
    else:
        byte = str(error)
    if encoding is not None:
        return f"{called}: expected {encoding} text, got {byte}. Choose another encoding."
    return (
        f"{called}: expected UTF-8 text, got another encoding ({byte}). Save it as UTF-8, or "
        "convert it, as iconv -f latin1 -t utf-8 does."
    )


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text, shortened, with no full stop at its end."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    text = (lines[0] if lines else type(error).__name__)[:160].rstrip(". ")
    # pyarrow's JSON reader counts rows from 0, and ends a sentence before it says which
    return re.sub(r"\.? in row (\d+)$", lambda m: f" in row {int(m[1]) + 1}", text)


class _Options:
    """What a reader needs to know besides the file."""

    def __init__(
        self, called: str, text_columns: Collection[str] = (), encoding: str | None = None
    ) -> None:
        self.called, self.text_columns, self.encoding = called, set(text_columns), encoding


def as_utf8(data: bytes, encoding: str | None) -> bytes:
    """Return text as UTF-8: what spreadsheets call Unicode, UTF-16, begins with a mark."""
    if encoding is not None:
        return data.decode(encoding).encode()
    marks = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    for mark, name in marks.items():
        if data.startswith(mark):
            return data.decode(name).encode()
    if b"\0" in data[:256]:
        raise UnicodeError("zero bytes, as UTF-16 without its mark has")
    return data


def _read_csv(file: pa.NativeFile, options: _Options, delimiter: str | None = None) -> pa.Table:
    import pyarrow as pa

    data = as_utf8(file.read(), options.encoding).removeprefix(codecs.BOM_UTF8)
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    if not data.strip():
        raise DataError(f"{options.called}: expected a table, got an empty CSV file.")
    delimiter = delimiter or delimiter_of(data)
    names, start = header_of(data, delimiter)
    parser = _CsvParser(data[start:], names, delimiter, options.called)
    table = parser.parse(options.text_columns)
    codes = parser.padded(table)
    if codes:
        table = parser.parse(options.text_columns | codes)
    if any(pa.types.is_binary(column.type) for column in table.columns):
        data.decode()  # raises, and tells where
    return table


def delimiter_of(data: bytes) -> str:
    """Return what divides the fields of the first line most often, outside of quotes."""
    header = re.match(rb'\s*(?:"[^"]*"|[^"\n])*', data)
    plain = re.sub(rb'"[^"]*"', b"", header[0] if header else b"")  # what is quoted is a name
    return max((b",", b";", b"\t"), key=plain.count).decode()


def header_of(data: bytes, delimiter: str) -> tuple[list[str], int]:
    """Return the names in the first row that is not empty, and where the rows after it begin."""
    start = 0

    def lines() -> Iterator[str]:
        nonlocal start
        for line in io.BytesIO(data):
            start += len(line)
            yield line.decode()

    try:
        names = next(row for row in csv.reader(lines(), delimiter=delimiter) if row)
    except csv.Error as error:
        raise ValueError(f"a first row that is no list of names ({error})") from None
    return names, start


class _CsvParser:
    """Parses the rows of a CSV file, given as bytes without the header."""

    def __init__(self, data: bytes, names: Sequence[str], delimiter: str, called: str) -> None:
        self.data, self.delimiter, self.called = data, delimiter, called
        self.names = names
        self.unique = unique_names(names)[0]

    def parse(self, text: Collection[str], only: Sequence[str] = ()) -> pa.Table:
        """Return the table, columns in ``text`` unconverted; a `DataError` names a ragged row."""
        import pyarrow as pa
        import pyarrow.csv as arrow_csv

        if not self.data.strip(b"\r\n"):
            return pa.table([pa.nulls(0)] * len(self.names), list(self.names))
        try:
            # No Python bytes and no invalid_row_handler: pyarrow's threads would hold them, and one
            # that lets go of a Python object while the interpreter ends aborts the process.
            table = arrow_csv.read_csv(
                pa.BufferReader(_native_copy(self.data)),
                read_options=arrow_csv.ReadOptions(block_size=BLOCK, column_names=self.unique),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.delimiter, newlines_in_values=True
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={name: pa.string() for name in text},
                    null_values=list(MISSING_MARKS),
                    strings_can_be_null=True,
                    include_columns=list(only),
                ),
            )
        except pa.ArrowInvalid:
            lines = io.StringIO(self.data.decode(errors="replace"), newline="")
            refuse_ragged(self.called, lines, len(self.names), self.delimiter)
            raise
        return table if only else table.rename_columns(list(self.names))

    def padded(self, table: pa.Table) -> set[str]:
        """Return the columns of whole numbers where some begin with a zero: codes, as 01234 is."""
        import pyarrow as pa
        import pyarrow.compute as pc

        begins = re.escape(self.delimiter.encode())
        types = zip(self.unique, table.schema.types, strict=True)
        whole = [name for name, kind in types if pa.types.is_integer(kind)]
        if not whole or not re.search(rb'(?:^|\n|"|' + begins + rb")0\d", self.data):
            return set()
        text = self.parse(whole, whole)
        return {n for n in whole if pc.any(pc.match_substring_regex(text[n], r"^0\d")).as_py()}


def refuse_ragged(called: str, lines: Iterable[str], n_fields: int, delimiter: str) -> None:
    """Raise a `DataError` for the first row with another number of fields, if there is one.

    Parameters
    ----------
    called : str
        The file's name, for the sentence.
    lines : iterable of str
        The lines after the header, with their ends.
    """
    own: list[str] = []  # the lines of the row at hand

    def kept() -> Iterator[str]:
        for line in lines:
            own.append(line)
            yield line

    n_row = 1  # the header
    for row in csv.reader(kept(), delimiter=delimiter):
        n_row += bool(row)
        if row and len(row) != n_fields:
            text = "".join(own).rstrip("\r\n")[:60]
            raise DataError(
                f"{called}: expected {_fields(n_fields)} in every row, as in the first, got "
                f"{len(row)} in row {n_row} ({text!r}). "
                "Correct that row; a field with a separator in it needs quotes."
            )
        own.clear()


def _native_copy(data: bytes) -> pa.Buffer:
    """Return the bytes in memory that pyarrow owns."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    sink.write(data)
    return sink.getvalue()


def _fields(n: int) -> str:
    return "1 field" if n == 1 else f"{n} fields"


def _read_tsv(file: pa.NativeFile, options: _Options) -> pa.Table:
    return _read_csv(file, options, delimiter="\t")


def _read_parquet(file: pa.NativeFile, _: _Options) -> pa.Table:
    from pyarrow import parquet

    return parquet.ParquetFile(file).read()


def _read_json_lines(file: pa.NativeFile, options: _Options) -> pa.Table:
    import pyarrow as pa
    import pyarrow.json

    data = as_utf8(file.read(), options.encoding)
    if not data.strip():
        raise DataError(f"{options.called}: expected a table, got an empty file.")
    return pyarrow.json.read_json(
        pa.BufferReader(data), read_options=pyarrow.json.ReadOptions(block_size=BLOCK)
    )


def _read_feather(file: pa.NativeFile, _: _Options) -> pa.Table:
    from pyarrow import feather

    return feather.read_table(file)


_READERS: dict[str, Callable[[pa.NativeFile, _Options], pa.Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".feather": _read_feather,
    ".arrow": _read_feather,
}
FORMATS = tuple(_READERS)


def check_same_columns(names: Mapping[str, Sequence[str]]) -> None:
    """Raise `DataError` if a file lacks a column that another one has."""
    names = {file: unique_names(own)[0] for file, own in names.items()}
    first, *others = names
    for other in others:
        for one, two in ((first, other), (other, first)):
            absent = [name for name in names[one] if name not in names[two]]
            if absent:
                near = near_names(absent[0], set(names[two]) - set(names[one]))
                hint = f"Is it called {near} there?" if near else "Add it, or leave that file out."
                raise DataError(
                    f"{two}: expected the columns of {one}, missing {list_names(absent)}. {hint}"
                )


def _mixed_columns(tables: Iterable[pa.Table]) -> set[str]:
    """Return the columns that are text in one file and something else in another."""
    import pyarrow as pa

    is_text: dict[str, set[bool]] = {}
    for table in tables:
        for field in table.schema:
            if not pa.types.is_null(field.type):
                text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
                is_text.setdefault(field.name, set()).add(text)
    return {name for name, kinds in is_text.items() if len(kinds) > 1}


def concatenate(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all tables below each other, columns in the order of the first."""
    import pyarrow as pa

    names = tables[0].column_names
    order = unique_names(names)[0]
    tables = [table.rename_columns(unique_names(table.column_names)[0]) for table in tables]
    mixed = _mixed_columns(tables)
    plain = [_plain(table.select(order), mixed) for table in tables]
    return pa.concat_tables(plain, promote_options="permissive").rename_columns(names)


def _plain(table: pa.Table, text: Collection[str]) -> pa.Table:
    """Return the table without dictionaries, whose types differ by file, and ``text`` as text."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        kind = pa.large_string() if field.name in text else kind
        if kind != field.type:
            table = table.set_column(i, field.name, table.column(i).cast(kind))
    return table
