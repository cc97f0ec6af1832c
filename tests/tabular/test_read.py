"""Tables: every format reads to the same columns, and every bad file is one sentence."""

from __future__ import annotations

import contextlib
import csv
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.core.errors import DataError
from lamina.tabular.arrow import MISSING_MARKS
from lamina.tabular.read import read_table, write_columns
from lamina.tabular.table import Table

CSV = "age,city,member,joined\n31,Oslo,true,2020-01-02\n,Rome,,2021-06-30\n40,,false,\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def values_of(table: Table, name: str) -> list[object]:
    column = table.columns[name]
    if column.kind in ("text", "boolean"):
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
        (pa.array([90, None], pa.duration("ms")), "number", [0.09, None]),
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
    path = write(tmp_path / "t.csv", "code,n\n7,1\n10,2\n")
    assert read_table(path).columns["code"].kind == "number"
    table = read_table(path, text_columns=["code", "not there"])
    assert values_of(table, "code") == ["7", "10"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("zip,n\n90210,1\n01234,2\n", "text"),
        ('zip,n\n"01234",1\n90210,2\n', "text"),
        ("zip\n01234\n", "text"),
        ("zip,n\n90210,0\n0,2\n", "number"),
        ("zip,n\n0.5,01\n0,02\n", "number"),
    ],
)
def test_whole_numbers_that_begin_with_zero_are_codes(text: str, kind: str, tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", text))
    assert table.columns["zip"].kind == kind
    if kind == "text":
        assert "01234" in table.columns["zip"].levels


def test_an_unnamed_column_is_called_by_its_place(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", ",a,\n0,1,\n1,2,\n"))
    assert table.names == ("(unnamed 1)", "a", "(unnamed 3)")
    assert table.columns["(unnamed 3)"].missing.all()


def test_a_repeated_name_is_numbered(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b,a,a.1,a\n1,2,3,4,x\n")
    table = read_table(path)
    assert table.names == ("a", "b", "a.2", "a.1", "a.3")
    assert [values_of(table, n) for n in table.names] == [[1.0], [2.0], [3.0], [4.0], ["x"]]
    assert table.notes[0] == "there is more than one column 'a': another one is called 'a.2'."
    assert values_of(read_table(path, text_columns=["a.2"]), "a.2") == ["3"]
    assert values_of(read_table(path, text_columns=["a.2"]), "a") == [1.0]


PARQUET = io.BytesIO()
pyarrow.parquet.write_table(pa.table({"a": list(range(1000))}), PARQUET)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"", "got an empty CSV file"),
        ("t.csv", b"\n\n", "got an empty CSV file"),
        (
            "t.csv",
            b"a,b\n1,2\n3",
            "expected 2 fields in every row, as in the first, got 1 in row 3",
        ),
        ("t.csv", b"a,b\n1,2\n3,4,5\n6", "got 3 in row 3 ('3,4,5')"),
        ("t.csv", b"a\n1\n3,4\n", "expected 1 field in every row"),
        ("t.csv", "a,é\n1,2\n".encode("latin-1"), "(the byte 0xe9 in line 1). Save it as UTF-8"),
        ("t.csv", "a,b\n1,2\né,2\n".encode("latin-1"), "(the byte 0xe9 in line 3)"),
        ("t.tsv", b"", "got an empty CSV file"),
        ("t.parquet", b"", "expected a readable parquet table"),
        ("t.parquet", PARQUET.getvalue()[:-100], "expected a readable parquet table"),
        ("t.parquet", b"a,b\n1,2\n", "expected a readable parquet table"),
        ("t.jsonl", b"", "got an empty file"),
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
    with pytest.raises(DataError, match=r"expected files that end in .csv.*the folder has none"):
        read_table(tmp_path / "folder.csv")


def test_table_without_columns(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="expected columns"):
        read_table(tmp_path / "t.parquet")


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
        assert read_table(path).columns


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
    with pytest.raises(DataError, match=r"expected UTF-8 text, got another encoding .*Save it as"):
        read_table(path)


def write_two(folder: Path, one: str, two: str, suffix: str = "csv") -> list[Path]:
    return [write(folder / f"1.{suffix}", one), write(folder / f"2.{suffix}", two)]


def test_several_files_are_matched_by_name(tmp_path: Path) -> None:
    files = write_two(tmp_path, "a,b\n1,x\n", "b,a\ny,2.5\nz,\n")
    for source in (files, tuple(map(str, files)), tmp_path):
        table = read_table(source)
        assert table.names == ("a", "b")
        assert values_of(table, "a") == [1.0, 2.5, None]
        assert values_of(table, "b") == ["x", "y", "z"]
    assert values_of(read_table(files[::-1]), "b") == ["y", "z", "x"]


def test_numbers_in_one_file_and_text_in_another_are_text(tmp_path: Path) -> None:
    write_two(tmp_path, "a\n007\n8\n", "a\nx\n10\n")
    assert values_of(read_table(tmp_path), "a") == ["007", "8", "x", "10"]


def test_a_folder_of_parquet_files_of_several_types(tmp_path: Path) -> None:
    for i, array in enumerate(
        (pa.array(["x", None]).dictionary_encode(), pa.array(["y"], pa.large_string()))
    ):
        numbers = pa.array(range(len(array)), (pa.int32(), pa.float64())[i])
        pyarrow.parquet.write_table(pa.table({"t": array, "n": numbers}), tmp_path / f"{i}.parquet")
    write(tmp_path / "_SUCCESS", "")
    write(tmp_path / ".hidden.parquet", "")
    table = read_table(tmp_path)
    assert values_of(table, "t") == ["x", None, "y"]
    assert values_of(table, "n") == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ("a,age\n1,2\n", "a,Age\n1,2\n", "expected the columns of {}/1.csv, missing 'age'. Is it "),
        ("a,b\n1,2\n", "a\n1\n", "{}/2.csv: expected the columns of {}/1.csv, missing 'b'."),
        ("a\n1\n", "a,b\n1,2\n", "{}/1.csv: expected the columns of {}/2.csv, missing 'b'."),
        ("a,a\n1,2\n", "a\n1\n", "{}/2.csv: expected the columns of {}/1.csv, missing 'a.1'."),
        ("a,b\n1,2\n", "a,b\n1\n", "{}/2.csv: expected 2 fields in every row"),
    ],
)
def test_a_file_unlike_the_others_is_named(one: str, two: str, said: str, tmp_path: Path) -> None:
    write_two(tmp_path, one, two)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path)
    assert said.replace("{}", str(tmp_path)) in str(caught.value)


def test_files_of_two_formats_and_none_and_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an empty list"):
        read_table([])
    files = [write(tmp_path / "1.csv", "a\n1\n"), write(tmp_path / "2.jsonl", '{"a": 1}\n')]
    for source in (files, tmp_path):
        with pytest.raises(DataError, match=r"expected files of one format, got .csv, .jsonl"):
            read_table(source)
    with pytest.raises(DataError, match="expected every file once"):
        read_table([files[0], files[0]])


def test_a_named_encoding_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "größe\nklein\n".encode("latin-1"))
    assert read_table(path, encoding="latin-1").names == ("größe",)
    with pytest.raises(DataError, match="expected ascii text, got the byte 0xf6 in line 1"):
        read_table(path, encoding="ascii")
    with pytest.raises(DataError, match="expected martian text, got unknown encoding: martian"):
        read_table(path, encoding="martian")


def test_a_header_alone_is_a_table_of_no_rows(tmp_path: Path) -> None:
    for text in ("a,b\n", "a,b", "a,b\r\n\r\n"):
        table = read_table(write(tmp_path / "t.csv", text))
        assert (table.names, table.n_rows) == (("a", "b"), 0)


def test_lines_may_end_as_on_any_system(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        for last in ("", end):
            text = end.join(['"a","b"', "1,x", "2,"]) + last
            table = read_table(write(tmp_path / "t.csv", text.encode()))
            assert (values_of(table, "a"), values_of(table, "b")) == ([1.0, 2.0], ["x", None])


FIELD = st.text(st.sampled_from('ab "\n,;\té0 1.'), max_size=6)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=5),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_is_read_as_pythons_module_reads_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], quoting: int, end: str
) -> None:
    """The header is made of plain names, so that every field is data; ``c0`` keeps rows alive."""
    path = tmp_path_factory.getbasetemp() / "hypothesis.csv"
    names = [f"c{i}" for i in range(3)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
        writer.writerows([names, *(["row", *row] for row in rows)])
    with path.open(newline="", encoding="utf-8") as file:
        expected = list(csv.reader(file))[1:]
    table = read_table(path, text_columns=names)
    assert table.names == tuple(names)
    for i, name in enumerate(names):
        column = table.columns[name]
        assert column.kind == "text"
        assert values_of(table, name) == [
            None if row[i].strip() in MISSING_MARKS else row[i] for row in expected
        ]
