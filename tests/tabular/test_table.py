"""Tables: every format reads to the same columns, and every bad file is one sentence."""

from __future__ import annotations

import contextlib
import io
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.core.errors import DataError
from lamina.tabular.table import Column, Table, near_names, number_text, read_table, write_columns

CSV = "age,city,member,joined\n31,Oslo,true,2020-01-02\n,Rome,,2021-06-30\n40,,false,\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def values_of(table: Table, name: str) -> list[object]:
    column = table.columns[name]
    if column.levels:
        return [column.levels[code] if code >= 0 else None for code in column.values]
    return [None if np.isnan(v) else float(v) for v in column.values]


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return write(tmp_path / "people.csv", CSV)


def test_csv_columns_become_numbers_text_booleans_and_dates(csv_file: Path) -> None:
    table = read_table(csv_file)
    assert [c.kind for c in table] == ["number", "text", "boolean", "date"]
    assert values_of(table, "age") == [31.0, None, 40.0]
    assert values_of(table, "city") == ["Oslo", "Rome", None]
    assert values_of(table, "member") == ["true", None, "false"]
    seconds = [datetime(2020, 1, 2, tzinfo=UTC), datetime(2021, 6, 30, tzinfo=UTC)]
    assert values_of(table, "joined") == [s.timestamp() for s in seconds] + [None]
    assert table.columns["age"].whole
    assert not table.columns["joined"].whole


def test_every_format_reads_to_the_same_table(csv_file: Path, tmp_path: Path) -> None:
    arrow = pyarrow.csv.read_csv(
        csv_file, convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    )
    pyarrow.parquet.write_table(arrow, tmp_path / "t.parquet")
    pyarrow.feather.write_feather(arrow, tmp_path / "t.feather")
    write(tmp_path / "t.tsv", CSV.replace(",", "\t"))
    lines = (
        '{"age": 31, "city": "Oslo", "member": true, "joined": "2020-01-02"}\n'
        '{"age": null, "city": "Rome", "member": null, "joined": "2021-06-30"}\n'
        '{"age": 40, "member": false}\n'
    )
    write(tmp_path / "t.jsonl", lines)
    expected = read_table(csv_file)
    for name in ("t.parquet", "t.feather", "t.tsv", "t.jsonl"):
        table = read_table(tmp_path / name)
        assert table.names == expected.names, name
        for column in expected:
            assert table.columns[column.name].kind == column.kind, (name, column.name)
            assert values_of(table, column.name) == values_of(expected, column.name), name


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (pa.array([1, None], pa.uint64()), "number", [1.0, None]),
        (pa.array([2**60 + 1], pa.int64()), "number", [float(2**60)]),
        (pa.array([1.5, None], pa.float16()), "number", [1.5, None]),
        (pa.array([Decimal("1.25"), None]), "number", [1.25, None]),
        (pa.array([90, None], pa.time32("s")), "number", [90.0, None]),
        (pa.array([90, None], pa.duration("ms")), "number", [90.0, None]),
        (pa.nulls(2), "number", [None, None]),
        (pa.array(["b", None, "a"]).dictionary_encode(), "text", ["b", None, "a"]),
        (pa.array([7, None, 3]).dictionary_encode(), "text", ["7", None, "3"]),
        (pa.array(["b", None], pa.large_string()), "text", ["b", None]),
        (pa.array(["b", None], pa.string_view()), "text", ["b", None]),
        (pa.array([date(1970, 1, 2)]), "date", [86400.0]),
        (
            pa.array([datetime(1970, 1, 2, tzinfo=UTC)], pa.timestamp("ns", "UTC")),
            "date",
            [86400.0],
        ),
        (pa.array(["1970-01-02T00:00:00Z", None]), "date", [86400.0, None]),
        (pa.array(["1970-01-02", "1970-01-02 00:00:01"]), "date", [86400.0, 86401.0]),
        (pa.array(["1970-01-02", "1970-99-02"]), "text", ["1970-01-02", "1970-99-02"]),
        (pa.array(["1970-01-02", "soon"]), "text", ["1970-01-02", "soon"]),
        (pa.array([[1], [2]]), "other", [None, None]),
        (pa.array([b"a"]), "other", [None]),
    ],
)
def test_arrow_types(array: pa.Array, kind: str, expected: list[object], tmp_path: Path) -> None:
    # Arrow's own file format keeps every type, chunked in two to meet what real files do.
    table = pa.table({"v": pa.chunked_array([array, array])})
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as sink:
        sink.write_table(table.unify_dictionaries())
    column = read_table(tmp_path / "t.arrow").columns["v"]
    assert column.kind == kind
    assert values_of(read_table(tmp_path / "t.arrow"), "v") == expected * 2


def test_standard_input_is_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CSV.encode())))
    assert read_table("-").names == ("age", "city", "member", "joined")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_csv_by_semicolon_or_tab_is_recognised(separator: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", f"a{separator}b\n1{separator}2\n")
    assert read_table(path).names == ("a", "b")


def test_byte_order_mark_and_quoted_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", '\ufeffa,b\n1,"x\ny"\n')
    assert values_of(read_table(path), "b") == ["x\ny"]
    assert read_table(path).names == ("a", "b")


def test_text_columns_keep_leading_zeros(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "code,n\n007,1\n010,2\n")
    assert read_table(path).columns["code"].kind == "number"
    table = read_table(path, text_columns=["code", "not there"])
    assert values_of(table, "code") == ["007", "010"]


def test_unnamed_column_is_of_kind_other(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", ",a,\n0,1,\n1,2,\n"))
    assert table.names == ("(unnamed 1)", "a", "(unnamed 3)")
    assert [c.kind for c in table] == ["other", "number", "other"]


PARQUET = io.BytesIO()
pyarrow.parquet.write_table(pa.table({"a": list(range(1000))}), PARQUET)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"", "Empty CSV file"),
        ("t.csv", b"a,b\n", "expected at least one row"),
        ("t.csv", b"a,b\n1,2\n3", "Expected 2 columns, got 1"),
        ("t.csv", b"a,b,a\n1,2,3\n", "'a' more than once"),
        ("t.csv", "a,é\n1,2\n".encode("latin-1"), "expected UTF-8"),
        ("t.csv", "a,b\né,2\n".encode("latin-1"), "expected UTF-8"),
        ("t.tsv", b"", "Empty CSV file"),
        ("t.parquet", b"", "expected a readable parquet table"),
        ("t.parquet", PARQUET.getvalue()[:-100], "expected a readable parquet table"),
        ("t.parquet", b"a,b\n1,2\n", "expected a readable parquet table"),
        ("t.jsonl", b"", "expected at least one row"),
        ("t.jsonl", b'{"a": 1}\n{"a": ', "expected a readable jsonl table"),
        ("t.jsonl", b'{"a": 1, "a": 2}\n', "expected a readable jsonl table"),
        ("t.feather", b"ARROW1", "expected a readable feather table"),
        ("t.xlsx", b"PK", "expected a file name that ends in .csv"),
        ("table", b"a\n1\n", "got none"),
    ],
)
def test_bad_file_is_one_sentence(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        read_table(write(tmp_path / name, content))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="expected a readable csv table"):
        read_table(tmp_path / "folder.csv")


def test_table_without_columns(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="expected columns"):
        read_table(tmp_path / "t.parquet")


def test_column_suggests_near_names(csv_file: Path) -> None:
    table = read_table(csv_file)
    assert table.column("age", "fit").name == "age"
    with pytest.raises(DataError, match=re.escape("Did you mean 'city'?")):
        table.column("Citty", "fit")
    with pytest.raises(DataError, match=re.escape("It has 'age', 'city', 'member', 'joined'.")):
        table.column("zzzzz", "fit")
    assert near_names("INCOME", ["income", "outcome"]).startswith("'income'")


def test_take_and_without(csv_file: Path) -> None:
    table = read_table(csv_file)
    assert values_of(table.take(np.array([2, 0])), "city") == [None, "Oslo"]
    assert table.take(np.array([True, False, True])).n_rows == 2
    assert table.without("age").names == ("city", "member", "joined")


def test_numbers_as_text() -> None:
    assert [number_text(v) for v in (3.0, -2.5, 1e300 * 0 + 0.1)] == ["3", "-2.5", "0.1"]
    column = Column("v", "number", np.array([2.0, np.nan, 1.5])).as_text()
    assert column.levels == ("1.5", "2")
    assert column.values.tolist() == [1, -1, 0]


@pytest.mark.parametrize("fmt", ["csv", "parquet"])
def test_write_columns_reads_back(fmt: str, tmp_path: Path) -> None:
    with (tmp_path / f"t.{fmt}").open("wb") as file:
        write_columns({"a": ['x,"y"', "z"], "b": np.array([0.5, 2.0])}, file, fmt)
    table = read_table(tmp_path / f"t.{fmt}")
    assert values_of(table, "a") == ['x,"y"', "z"]
    assert values_of(table, "b") == [0.5, 2.0]


@given(st.binary(max_size=300), st.sampled_from([".csv", ".parquet", ".jsonl", ".feather"]))
def test_any_bytes_read_or_raise_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert read_table(path).n_rows > 0


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ('"age, years";city', ("age, years", "city")),
        ('"age, in, years";"a;b";city', ("age, in, years", "a;b", "city")),
        ('"age; years",city', ("age; years", "city")),
        ('"age\n, years";city', ("age\n, years", "city")),
        ('"say ""x, y, z""";city', ('say "x, y, z"', "city")),
        ("age,city", ("age", "city")),
    ],
)
def test_a_separator_inside_quotes_separates_nothing(
    tmp_path: Path, header: str, names: tuple[str, ...]
) -> None:
    mark = "," if header.endswith(",city") else ";"
    row = mark.join(["31"] * len(names))
    assert read_table(write(tmp_path / "t.csv", f"{header}\n{row}\n")).names == names


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_at_the_beginning_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    table = read_table(write(tmp_path / "t.csv", "größe,city\n31,Łódź\n".encode(encoding)))
    assert table.names == ("größe", "city")
    assert values_of(table, "city") == ["Łódź"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "latin-1"])
def test_an_encoding_without_a_mark_is_refused_with_advice(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "t.csv", "größe,city\n31,x\n".encode(encoding))
    with pytest.raises(DataError, match=r"expected UTF-8 text, got another encoding. Save it as"):
        read_table(path)
