"""Data frames and arrays to tables: pandas, polars, pyarrow, NumPy, lists, and what narwhals knows.

Numbers that lie in memory as floats are not copied; everything else goes through pyarrow. Each
library is imported only when such an object comes in.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError
from lamina.tabular.arrow import arrow_column
from lamina.tabular.table import Column, Table, list_names, number_text

if TYPE_CHECKING:
    import pyarrow as pa


def as_table(
    X: Any,
    feature_names: Sequence[str] | None = None,
    *,
    where: str = "fit",
    text_columns: Collection[str] = (),
) -> Table:
    """Return any table-like object as a `Table`.

    Parameters
    ----------
    X : table-like, n rows
        A pandas or polars data frame (a lazy one is collected), a pyarrow Table or RecordBatch,
        any frame that narwhals knows, a NumPy array (n, d) of numbers, text, dates or objects, a
        structured array (n,), a mapping of names to columns, a list of rows, or a `Table`, which
        is returned as it is.
    feature_names : sequence of str, optional
        Names for the columns of an array or a list; x0, x1, … by default. Frames have their own.
    where : str, default "fit"
        Begins the sentence of an error.
    text_columns : names
        Columns of text not to look for dates in.

    Returns
    -------
    Table
        Possibly of no rows. A repeated name gets ".1", ".2", … added, with a note.

    Raises
    ------
    DataError
        If ``X`` is nothing of the kind, has another number of dimensions than 2, or rows of
        different lengths.

    Notes
    -----
    float32 and float64 columns are views of ``X`` (0 bytes); integers become float64 (8 bytes a
    value), text int32 codes (4 bytes a value).

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.tabular.frames import as_table
    >>> as_table(np.zeros((3, 2)), ["a", "b"]).names
    ('a', 'b')
    >>> [column.kind for column in as_table({"city": ["Oslo", None], "age": [31, 40]})]
    ['text', 'number']
    """
    if isinstance(X, Table):
        return X
    if isinstance(X, np.ndarray):
        return _from_numpy(X, feature_names, where)
    if isinstance(X, Mapping):
        columns = [
            _from_array(str(name), values)
            if isinstance(values, np.ndarray) and values.ndim == 1
            else _from_list(str(name), list(values))
            for name, values in X.items()
        ]
        return _table([str(name) for name in X], columns, where)
    if hasattr(X, "toarray"):
        raise DataError(
            f"{where}: expected a dense table, got a sparse matrix. Use X.toarray() if it fits."
        )
    if isinstance(X, list | tuple):
        return _from_numpy(_rows_as_array(X, where), feature_names, where)
    return _from_frame(X, feature_names, where, text_columns)


def from_arrow(arrow: pa.Table, where: str, text_columns: Collection[str] = ()) -> Table:
    """Turn a pyarrow table into ours; `DataError` if it has no columns.

    Dates are recognised in text columns, but not in ``text_columns``.
    """
    names = unique_names(arrow.column_names)[0]
    columns = [
        arrow_column(name, data, detect_dates=name not in text_columns)
        for name, data in zip(names, arrow.columns, strict=True)
    ]
    return _table(arrow.column_names, columns, where)


def unique_names(names: Iterable[object]) -> tuple[list[str], tuple[str, ...]]:
    """Return every name once, as text, and notes on those that had to change."""
    wanted = [
        f"(unnamed {i})" if name is None or name == "" else str(name)
        for i, name in enumerate(names, start=1)
    ]
    taken, unique, notes = set(wanted), [], []
    seen: set[str] = set()
    for name in wanted:
        new, k = name, 0
        while new in seen or (k and new in taken):
            k += 1
            new = f"{name}.{k}"
        if new != name:
            notes.append(f"there is more than one column {name!r}: another one is called {new!r}.")
        seen.add(new)
        unique.append(new)
    return unique, tuple(notes)


def _table(
    names: Sequence[object], columns: Sequence[Column], where: str, *, named: bool = True
) -> Table:
    """Put columns together under their names, each made the only one of its name."""
    if not columns:
        raise DataError(
            f"{where}: expected columns, the table has none (0 features). Add at least one column."
        )
    lengths = {column.values.shape[0] for column in columns}
    if len(lengths) > 1:
        raise DataError(
            f"{where}: expected columns of one length, got {sorted(lengths)}. Fill up the short "
            "ones."
        )
    unique, notes = unique_names(names)
    others = [name for name, c in zip(unique, columns, strict=True) if c.kind == "other"]
    if others:
        notes += (
            f"{list_names(others)} cannot be used: nested or binary values, or objects that are "
            "no numbers, text or dates.",
        )
    found = {
        name: column if column.name == name else replace(column, name=name)
        for name, column in zip(unique, columns, strict=True)
    }
    return Table(found, lengths.pop(), named=named, notes=notes)


def _from_frame(
    X: Any, feature_names: Sequence[str] | None, where: str, text_columns: Collection[str]
) -> Table:
    """Turn a data frame of any library into a table."""
    import narwhals as nw
    from narwhals import dependencies as is_a

    if is_a.is_pandas_dataframe(X):
        columns = [
            _from_pandas(str(name), X.iloc[:, i], text_columns) for i, name in enumerate(X.columns)
        ]
        return _table(list(X.columns), columns, where)
    if type(X).__module__.partition(".")[0] == "pyarrow" and hasattr(X, "schema"):
        import pyarrow as pa

        X = pa.Table.from_batches([X]) if isinstance(X, pa.RecordBatch) else X
        return from_arrow(X, where, text_columns)
    frame = nw.from_native(X, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, nw.DataFrame):
        return from_arrow(_as_arrow(frame), where, text_columns)
    if hasattr(X, "__array__") or hasattr(X, "__array_interface__"):
        return _from_numpy(np.asarray(X), feature_names, where)
    raise DataError(
        f"{where}: expected a table (pandas, polars, pyarrow, NumPy, rows in a list), got "
        f"{type(X).__name__}. Convert it to one of these."
    )


def _as_arrow(frame: Any) -> pa.Table:
    """Return a narwhals frame as a pyarrow table; columns it cannot convert as binary ones."""
    try:
        return frame.to_arrow()
    except Exception:  # each library raises its own, such as polars for columns of Python objects
        import pyarrow as pa

        columns = []
        for series in frame.iter_columns():
            try:
                columns.append(pa.chunked_array([series.to_arrow()]))
            except Exception:
                columns.append(pa.chunked_array([_mixed(series.to_list())]))
        return pa.table(columns, list(frame.columns))


def _from_numpy(X: NDArray[Any], feature_names: Sequence[str] | None, where: str) -> Table:
    """Turn an array (n, d), or a structured one (n,), into a table."""
    if X.dtype.names is not None and X.ndim == 1:
        names: Sequence[str] = X.dtype.names
        return _table(names, [_from_array(name, X[name]) for name in names], where)
    if X.ndim != 2:
        raise DataError(
            f"{where}: expected a table of 2 dimensions (rows, columns), got {X.ndim}. "
            "Reshape your data: X.reshape(-1, 1) is one column, X.reshape(1, -1) one row."
        )
    if X.dtype.kind == "c":
        raise DataError(
            f"{where}: expected real numbers, got complex ones. Complex data not supported: "
            "give real and imaginary parts as columns."
        )
    if X.shape[1] == 0:
        raise DataError(
            f"{where}: expected columns, got 0 feature(s) (shape={X.shape}) while a minimum of 1 "
            "is required. Add at least one column."
        )
    if feature_names is not None and len(feature_names) != X.shape[1]:
        raise DataError(
            f"{where}: expected {X.shape[1]} feature names, one a column, got "
            f"{len(feature_names)}. Name every column."
        )
    own = [f"x{i}" for i in range(X.shape[1])]
    columns = [_from_array(name, X[:, i]) for i, name in enumerate(own)]
    return _table(feature_names or own, columns, where, named=feature_names is not None)


def _rows_as_array(rows: Sequence[Any], where: str) -> NDArray[Any]:
    """Return a list of rows as an array: of numbers if all are, else of objects."""
    lengths = [len(row) if isinstance(row, list | tuple | np.ndarray) else -1 for row in rows]
    for i, length in enumerate(lengths):
        if length != lengths[0]:
            raise DataError(
                f"{where}: expected rows of one length, got {length} values in row {i} and "
                f"{lengths[0]} in row 0. Fill up the short ones."
            )
    if not lengths or lengths[0] < 0:
        return np.asarray(rows)  # one dimension: refused with the others
    array = np.empty((len(rows), lengths[0]), dtype=object)
    for i, row in enumerate(rows):
        array[i, :] = row
    try:
        numbers = np.asarray(rows)
    except ValueError:
        return array
    return numbers if numbers.dtype.kind in "fiubc" else array


def _from_array(name: str, values: NDArray[Any]) -> Column:
    """Turn an array (n,) of any type into a column."""
    kind = values.dtype.kind
    if kind == "f":
        return Column(name, "number", _as_float(values))
    if kind in "iu":
        return Column(name, "number", values.astype(np.float64), whole=True)
    if kind == "b":
        return Column(name, "boolean", values.astype(np.int32), ("false", "true"))
    if kind == "M":
        return Column(name, "date", _datetimes(values))
    if kind == "m":
        seconds = values / np.timedelta64(1, "s")
        return Column(name, "number", np.asarray(seconds, dtype=np.float64))
    return _from_list(name, values.tolist() if values.ndim == 1 else list(values))


def _as_float(values: NDArray[Any]) -> NDArray[Any]:
    """Return floats as float64 or float32, without a copy where they are."""
    if values.dtype.itemsize == 4 or values.dtype.itemsize == 8:
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return values.astype(np.float32 if values.dtype.itemsize == 2 else np.float64)


def _datetimes(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return NumPy dates as seconds since 1970, NaN where there is none."""
    seconds = (values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    return np.asarray(seconds, dtype=np.float64)


def _from_pandas(name: str, series: Any, text_columns: Collection[str]) -> Column:
    """Turn a pandas column into ours; `pa.array` knows all of its types but a few."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "fiubMm":
        return _from_array(name, series.to_numpy())
    if type(dtype).__name__ == "SparseDtype":
        return _from_array(name, np.asarray(series))
    if type(dtype).__name__ in ("PeriodDtype", "IntervalDtype"):
        is_period = type(dtype).__name__ == "PeriodDtype"
        series = series.dt.to_timestamp() if is_period else series.astype("string")
        return _from_pandas(name, series, text_columns)
    import pyarrow as pa

    try:
        data = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        data = _mixed(series.tolist())
    if not isinstance(data, pa.ChunkedArray):
        data = pa.chunked_array([data])
    return arrow_column(name, data, detect_dates=name not in text_columns)


def _from_list(name: str, values: list[Any]) -> Column:
    """Turn Python values into a column."""
    import pyarrow as pa

    try:
        data = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        data = _mixed(values)
    return arrow_column(name, pa.chunked_array([data]))


def _mixed(values: Sequence[Any]) -> pa.Array:
    """Return values of several types as text, or as binary ones if that would mean nothing."""
    import pyarrow as pa

    text: list[str | None] = []
    for value in values:
        if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
            text.append(None)
        elif isinstance(value, str):
            text.append(value)
        elif isinstance(value, bool | np.bool_):
            text.append("true" if value else "false")
        elif isinstance(value, int | np.integer):
            text.append(str(value))
        elif isinstance(value, float | np.floating | Decimal):
            text.append(number_text(float(value)))
        elif isinstance(value, datetime.date):  # a datetime is one too
            text.append(value.isoformat())
        elif type(value).__name__ in ("NAType", "NaTType"):
            text.append(None)
        else:
            return pa.array([b""] * len(values), pa.binary())
    return pa.array(text, pa.large_string())
