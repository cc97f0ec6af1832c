"""Frames and arrays: the same values from every library; whatever is no table is one sentence."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse

from lamina.core.errors import DataError
from lamina.tabular.frames import as_table, unique_names
from lamina.tabular.table import Column, Table

DAY = datetime.datetime(2020, 1, 2, 3, 4, 5)
ROWS: dict[str, list[Any]] = {
    "age": [31.5, None, 40.0],
    "n": [1, 2, 3],
    "city": ["Łódź", None, "Rome"],
    "member": [True, None, False],
    "seen": [DAY, None, DAY + datetime.timedelta(days=1)],
}
SECONDS = DAY.replace(tzinfo=datetime.UTC).timestamp()
EXPECTED = {
    "age": [31.5, None, 40.0],
    "n": [1.0, 2.0, 3.0],
    "city": ["Łódź", None, "Rome"],
    "member": ["true", None, "false"],
    "seen": [SECONDS, None, SECONDS + 86400],
}
KINDS = ["number", "number", "text", "boolean", "date"]


def values_of(column: Column) -> list[Any]:
    if column.kind in ("text", "boolean"):
        return [column.levels[code] if code >= 0 else None for code in column.values]
    return [None if np.isnan(v) else float(v) for v in column.values]


def structured() -> Any:
    fields = [("age", "f4"), ("n", "i2"), ("city", "O"), ("member", "O"), ("seen", "M8[us]")]
    array = np.empty(3, dtype=fields)
    for name in ROWS:
        array[name] = [np.nan if v is None and name == "age" else v for v in ROWS[name]]
    return array


MAKERS = {
    "pandas": lambda: pd.DataFrame(ROWS),
    "pandas nullable": lambda: pd.DataFrame(ROWS).convert_dtypes(),
    "pandas arrow": lambda: pd.DataFrame(ROWS).convert_dtypes(dtype_backend="pyarrow"),
    "pandas objects": lambda: pd.DataFrame(
        {k: pd.Series(v, dtype=object) for k, v in ROWS.items()}
    ),
    "pandas category": lambda: pd.DataFrame(ROWS).astype({"city": "category"}),
    "pandas zone": lambda: pd.DataFrame(ROWS).assign(
        seen=lambda f: f["seen"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    ),
    "polars": lambda: pl.DataFrame(ROWS),
    "polars lazy": lambda: pl.LazyFrame(ROWS),
    "polars category": lambda: pl.DataFrame(ROWS).with_columns(pl.col("city").cast(pl.Categorical)),
    "polars enum": lambda: pl.DataFrame(ROWS).with_columns(
        pl.col("city").cast(pl.Enum(["Rome", "Łódź", "Oslo"]))
    ),
    "pyarrow": lambda: pa.table(ROWS),
    "pyarrow dictionary": lambda: pa.table(ROWS).set_column(
        2, "city", pa.array(ROWS["city"]).dictionary_encode()
    ),
    "record batch": lambda: pa.RecordBatch.from_pydict(ROWS),
    "mapping": lambda: ROWS,
    "structured": structured,
}


@pytest.mark.parametrize("maker", MAKERS)
def test_every_library_gives_the_same_table(maker: str) -> None:
    table = as_table(MAKERS[maker]())
    assert table.names == tuple(ROWS)
    assert [c.kind for c in table] == KINDS
    assert {c.name: values_of(c) for c in table} == EXPECTED
    assert table.n_rows == 3
    assert table.named
    declared = any(word in maker for word in ("category", "enum", "dictionary"))
    assert table.columns["city"].declared == declared


@pytest.mark.parametrize(
    "maker",
    [m for m in MAKERS if m not in ("mapping", "structured", "record batch", "polars lazy")],
)
def test_no_rows_are_a_table_of_no_rows(maker: str) -> None:
    table = as_table(MAKERS[maker]()[:0])
    assert table.names == tuple(ROWS)
    assert table.n_rows == 0


def test_an_array_of_numbers_is_not_copied() -> None:
    for dtype in (np.float32, np.float64):
        for x in (np.ones((4, 3), dtype), np.ones((4, 3), dtype, order="F")):
            table = as_table(x)
            assert table.names == ("x0", "x1", "x2")
            assert not table.named
            for column in table:
                assert column.values.dtype == dtype
                assert np.shares_memory(column.values, x)
    frame = pd.DataFrame(np.ones((4, 3), np.float32), columns=list("abc"))
    assert np.shares_memory(as_table(frame).columns["b"].values, frame.to_numpy())


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("f2", "number"),
        (">f8", "number"),
        ("u1", "number"),
        ("i8", "number"),
        ("?", "boolean"),
        ("U5", "text"),
        ("O", "number"),
        ("M8[D]", "date"),
    ],
)
def test_array_types(dtype: str, kind: str) -> None:
    x = np.array([[0, 1], [1, 1]]).astype(dtype)
    table = as_table(x, ["a", "b"])
    assert [c.kind for c in table] == [kind, kind]
    expected = {"text": ["0", "1"], "boolean": ["false", "true"], "date": [0.0, 86400.0]}
    assert values_of(table.columns["a"]) == expected.get(kind, [0.0, 1.0])
    assert table.columns["a"].values.dtype.isnative


def test_rows_in_a_list() -> None:
    table = as_table([[1, "a", None], [2.5, "b", True]], ["n", "t", "f"])
    assert {c.name: values_of(c) for c in table} == {
        "n": [1.0, 2.5],
        "t": ["a", "b"],
        "f": [None, "true"],
    }
    assert [c.kind for c in as_table([(1, 2), (3, 4)])] == ["number", "number"]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, "a", None, 2.5, True], "text", ["1", "a", None, "2.5", "true"]),
        ([np.int64(3), "3", np.nan, pd.NA, pd.NaT], "text", ["3", "3", None, None, None]),
        ([Decimal("1.5"), "x"], "text", ["1.5", "x"]),
        ([datetime.date(2020, 1, 2), "x"], "text", ["2020-01-02", "x"]),
        ([2**70, 1], "text", [str(2**70), "1"]),
        ([datetime.date(1970, 1, 2), None], "date", [86400.0, None]),
        (["?", " NA", "None", "-", ""], "text", [None, None, "None", "-", None]),
        ([{"a": 1}, {"a": 2}], "other", [None, None]),
        ([[1, 2], [3]], "other", [None, None]),
        ([object(), 1], "other", [None, None]),
        ([b"a", "b"], "other", [None, None]),
    ],
)
def test_columns_of_mixed_objects(values: list[Any], kind: str, expected: list[Any]) -> None:
    frame = pd.DataFrame({"v": pd.Series(values, dtype=object)})
    for table in (as_table(frame), as_table({"v": values}), as_table(frame.to_numpy(), ["v"])):
        assert table.columns["v"].kind == kind
        assert values_of(table.columns["v"]) == expected
        assert bool(table.notes) == (kind == "other")
        if kind == "other":
            assert table.notes[0].startswith("'v' cannot be used: nested or binary values")


def test_pandas_types_of_its_own() -> None:
    frame = pd.DataFrame(
        {
            "period": pd.period_range("2020-01", periods=2, freq="M"),
            "interval": pd.arrays.IntervalArray.from_breaks([0, 1, 2]),
            "delta": pd.to_timedelta([90, 3], unit="s"),
            "sparse": pd.arrays.SparseArray([0.0, 1.0]),
            "numbers": pd.Categorical([7, 3]),
            "flags": pd.Categorical([True, False]),
            "days": pd.Categorical(pd.to_datetime(["2020-01-02", "2020-01-03"])),
        }
    )
    table = as_table(frame)
    assert [c.kind for c in table] == ["date", "text", "number", "number", "text", "text", "text"]
    assert values_of(table.columns["period"]) == [1577836800.0, 1580515200.0]
    assert values_of(table.columns["interval"]) == ["(0, 1]", "(1, 2]"]
    assert values_of(table.columns["delta"]) == [90.0, 3.0]
    assert values_of(table.columns["numbers"]) == ["7", "3"]
    assert values_of(table.columns["flags"]) == ["true", "false"]


def test_polars_types_of_its_own() -> None:
    frame = pl.DataFrame(
        {
            "time": [datetime.time(0, 1, 30)],
            "delta": [datetime.timedelta(seconds=90)],
            "decimal": [Decimal("1.25")],
            "list": [[1, 2]],
            "struct": [{"a": 1}],
            "null": [None],
        }
    ).with_columns(pl.Series("object", [object()], dtype=pl.Object))
    table = as_table(frame)
    assert [values_of(table.columns[n])[0] for n in ("time", "delta", "decimal")] == [90, 90, 1.25]
    assert [c.name for c in table if c.kind == "other"] == ["list", "struct", "object"]


def test_names_are_text_and_only_once() -> None:
    frame = pd.DataFrame([[1, 2, 3, 4]], columns=["a", 7, "a", None])
    table = as_table(frame)
    assert table.names == ("a", "7", "a.1", "(unnamed 4)")
    assert values_of(table.columns["a.1"]) == [3.0]
    assert table.notes == ("there is more than one column 'a': another one is called 'a.1'.",)
    assert as_table(pa.table([[1], [2]], ["a", "a"])).names == ("a", "a.1")
    assert unique_names(["a", "a", "a.1"])[0] == ["a", "a.2", "a.1"]


def test_a_table_is_returned_as_it_is() -> None:
    table = as_table({"a": [1]})
    assert as_table(table) is table


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (np.ones(3), "got 1. Reshape your data"),
        (np.ones((2, 2, 2)), "got 3. Reshape your data"),
        ([1, 2, 3], "got 1. Reshape your data"),
        ([[1, 2], [3]], "got 1 values in row 1 and 2 in row 0"),
        (np.ones((3, 0)), "0 feature(s) (shape=(3, 0)) while a minimum of 1 is required"),
        (np.ones((3, 2), complex), "Complex data not supported"),
        (scipy.sparse.eye(3, format="csr"), "got a sparse matrix. Use X.toarray()"),
        ({"a": [1], "b": [1, 2]}, "expected columns of one length, got [1, 2]"),
        (pd.DataFrame(), "expected columns, the table has none"),
        (3, "expected a table (pandas, polars, pyarrow, NumPy, rows in a list), got int"),
        ("t.csv", "got str"),
        (None, "got NoneType"),
    ],
)
def test_whatever_is_no_table_is_one_sentence(X: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        as_table(X, where="predict")
    assert str(caught.value).startswith("predict: expected")
    assert said in str(caught.value)


def test_names_must_be_as_many_as_columns() -> None:
    with pytest.raises(DataError, match="expected 2 feature names, one a column, got 1"):
        as_table(np.ones((3, 2)), ["a"])


def test_a_million_rows_of_numbers_cost_little_memory() -> None:
    frame = pd.DataFrame(np.zeros((1_000_000, 10)), columns=list("abcdefghij"))
    table = as_table(frame)
    assert isinstance(table, Table)
    assert all(np.shares_memory(c.values, frame.to_numpy()) for c in table)
