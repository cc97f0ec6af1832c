"""Batches: a table's rows a bounded number at a time, as often as they are needed.

For tables that do not fit into memory. Files are opened anew for every pass, and no more of them
is in memory than a batch and what the format needs to find it: a page of every Parquet column
(about 4 MB a column), a block of text.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.core.errors import DataError
from lamina.tabular.arrow import MISSING_MARKS
from lamina.tabular.frames import unique_names
from lamina.tabular.read import (
    as_utf8,
    check_same_columns,
    delimiter_of,
    files_of,
    header_of,
    known_suffix,
    one_sentence,
    refuse_ragged,
)

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER = 1 << 16  # bytes of a Parquet column read at a time
BLOCK = 1 << 22  # bytes of a text file parsed at a time: the longest row it may have
MOST_ROWS = 1 << 16
LEAST_ROWS = 1 << 8
PEEK_ROWS = 1 << 12  # rows whose size tells how many make a batch


class Batches:
    r"""A table's rows as pyarrow tables of bounded size, over all its files.

    CSV is read as text throughout, so that a value late in a file cannot contradict what the first
    block looked like; `kinds` finds the numbers in it.

    Parameters
    ----------
    source : str, Path or a sequence of them
        As for `read_table`, but not standard input, which can be read once only. CSV and JSON lines
        are UTF-8.
    n_bytes : int
        About so much of a batch, as pyarrow holds it: at least `LEAST_ROWS` rows, at most
        `MOST_ROWS`.
    columns : names, optional
        Those to keep; None is all.

    Raises
    ------
    DataError
        As for `read_table`, when made or while read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from lamina.tabular.batches import Batches
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "t.csv"
    >>> _ = path.write_text("a,b\n" + "1,x\n" * 300)
    >>> [batch.num_rows for batch in Batches(path, n_bytes=1000)]
    [256, 44]
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        *,
        n_bytes: int,
        columns: Collection[str] | None = None,
    ) -> None:
        self.files = files_of(source)
        if "-" in self.files:
            raise DataError(
                "standard input: expected a file, as a table within a memory limit is read more "
                "than once. Write it to a file first."
            )
        names = {file: self._names(file) for file in self.files}
        check_same_columns(names)
        self.names = tuple(unique_names(names[self.files[0]])[0])
        self.columns = None if columns is None else tuple(n for n in self.names if n in columns)
        self.n_rows = PEEK_ROWS
        first = next(iter(self), None)
        if first is not None and first.num_rows:
            rows = n_bytes * first.num_rows // max(first.nbytes, 1)
            self.n_rows = min(max(rows, LEAST_ROWS), MOST_ROWS)

    def select(self, columns: Collection[str]) -> Batches:
        """Return the same rows with these columns only."""
        other = object.__new__(Batches)
        other.files, other.names, other.n_rows = self.files, self.names, self.n_rows
        other.columns = tuple(n for n in self.names if n in columns)
        return other

    def __iter__(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        wanted = self.names if self.columns is None else self.columns
        for file in self.files:
            suffix = known_suffix(file)
            with (
                one_sentence(file, suffix),
                _OPENERS[suffix](file, self.n_rows, self.columns) as (_, batches),
            ):
                for batch in batches:
                    table = pa.Table.from_batches([batch])
                    table = table.rename_columns(unique_names(table.column_names)[0])
                    table = table.select(list(wanted))
                    for start in range(0, table.num_rows, self.n_rows):
                        yield table.slice(start, self.n_rows)
        pa.default_memory_pool().release_unused()  # what reading took is kept for more reading

    @staticmethod
    def _names(file: str) -> list[str]:
        suffix = known_suffix(file)
        with one_sentence(file, suffix), _OPENERS[suffix](file, PEEK_ROWS, None) as (names, _):
            return names
        raise AssertionError  # the block above returns or raises


Opened = tuple[list[str], Iterator[Any]]
_Opener = Callable[[str, int, Collection[str] | None], AbstractContextManager[Opened]]


@contextmanager
def _open_parquet(file: str, n_rows: int, columns: Collection[str] | None) -> Iterator[Opened]:
    from pyarrow import parquet

    # Without pre_buffer pages are read when they are needed, not whole columns of a row group.
    with parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as opened:
        names = opened.schema_arrow.names
        chosen = None
        if columns is not None and len(set(names)) == len(names) and "." not in "".join(names):
            chosen = list(columns)
        # Threads would each keep memory of their own, and are no faster.
        yield names, opened.iter_batches(n_rows, columns=chosen, use_threads=False)


@contextmanager
def _open_csv(
    file: str, _n_rows: int, columns: Collection[str] | None, delimiter: str | None = None
) -> Iterator[Opened]:
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    with pa.OSFile(file, "rb") as opened:
        head = opened.read(BLOCK)
        if as_utf8(head, None) != head:
            raise UnicodeError("UTF-16 or UTF-32")
        start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
        if not head[start:].strip():
            raise DataError(f"{file}: expected a table, got an empty CSV file.")
        delimiter = delimiter or delimiter_of(head[start:])
        names, length = header_of(head[start:], delimiter)
        opened.seek(start + length)
        if not head[start + length :].strip(b"\r\n"):
            yield names, iter(())
            return
        unique = unique_names(names)[0]
        yield names, _csv_batches(opened, file, unique, delimiter, columns, arrow_csv)


def _csv_batches(
    opened: pa.NativeFile,
    file: str,
    names: Sequence[str],
    delimiter: str,
    columns: Collection[str] | None,
    arrow_csv: Any,
) -> Iterator[pa.RecordBatch]:
    """Yield a CSV file's rows from where it stands, every column as text."""
    import pyarrow as pa

    begins = opened.tell()
    try:
        yield from arrow_csv.open_csv(
            opened,
            read_options=arrow_csv.ReadOptions(
                use_threads=False, block_size=BLOCK, column_names=list(names)
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                null_values=list(MISSING_MARKS),
                strings_can_be_null=True,
                include_columns=list(names if columns is None else columns),
            ),
        )
    except pa.ArrowInvalid:
        with open(file, "rb") as again:  # noqa: PTH123 (from a place in it)
            again.seek(begins)
            lines = (line.decode(errors="replace") for line in again)
            refuse_ragged(file, lines, len(names), delimiter)
        raise


def _open_tsv(
    file: str, n_rows: int, columns: Collection[str] | None
) -> AbstractContextManager[Opened]:
    return _open_csv(file, n_rows, columns, "\t")


@contextmanager
def _open_json_lines(file: str, _n_rows: int, _columns: Collection[str] | None) -> Iterator[Opened]:
    import pyarrow as pa
    import pyarrow.json as arrow_json

    with pa.OSFile(file, "rb") as opened:
        options = arrow_json.ReadOptions(use_threads=False, block_size=BLOCK)
        schema = arrow_json.open_json(opened, read_options=options).schema
        for i, field in enumerate(schema):  # a first block of 1, 2 may be followed by 2.5
            if pa.types.is_integer(field.type):
                schema = schema.set(i, field.with_type(pa.float64()))
            elif pa.types.is_null(field.type):
                schema = schema.set(i, field.with_type(pa.string()))
        opened.seek(0)
        yield (
            schema.names,
            arrow_json.open_json(
                opened,
                read_options=options,
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=schema, unexpected_field_behavior="error"
                ),
            ),
        )


@contextmanager
def _open_feather(file: str, _n_rows: int, _columns: Collection[str] | None) -> Iterator[Opened]:
    import pyarrow as pa

    with pa.OSFile(file, "rb") as source, pa.ipc.open_file(source) as opened:
        yield (
            opened.schema.names,
            (opened.get_batch(i) for i in range(opened.num_record_batches)),
        )


_OPENERS: dict[str, _Opener] = {
    ".csv": _open_csv,
    ".tsv": _open_tsv,
    ".parquet": _open_parquet,
    ".jsonl": _open_json_lines,
    ".ndjson": _open_json_lines,
    ".feather": _open_feather,
    ".arrow": _open_feather,
}
