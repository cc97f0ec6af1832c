"""Reading in batches against reading whole: the same values, and one sentence for what is wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from lamina.core.errors import DataError
from lamina.tabular.batches import Batches
from lamina.tabular.chunks import Chunks, Layout, Writer
from lamina.tabular.frames import from_arrow
from lamina.tabular.inputs import Inputs
from lamina.tabular.kinds import find_uses
from lamina.tabular.read import read_table
from lamina.tabular.sample import LevelCounts, Reservoir, draw_sample
from lamina.tabular.streamed_target import find_classes, find_numbers

N = 1500


def some_rows(n: int = N, seed: int = 0) -> dict[str, list[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "whole": rng.integers(0, 50, n).tolist(),
        "part": [None if v < -1 else round(float(v), 3) for v in rng.normal(size=n)],
        "word": [None if w == "NA" else str(w) for w in rng.choice(["a", "b c", "é", "NA"], n)],
        "late": [*["1"] * (n - 1), "2.5"],
    }


def write(path: Path, rows: dict[str, list[Any]]) -> Path:
    table = pa.table(rows)
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=400)
    elif path.suffix == ".feather":
        pa.feather.write_feather(table, path, chunksize=300)
    elif path.suffix == ".jsonl":
        table.to_pandas().to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        table.to_pandas().to_csv(path, index=False, sep=mark)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl", ".feather"])
def test_batches_are_the_table_that_reading_whole_gives(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"t{suffix}", some_rows())
    batches = Batches(path, n_bytes=5000)
    parts = list(batches)
    assert len(parts) > 3
    assert max(part.num_rows for part in parts) <= batches.n_rows < N
    whole = read_table(path)
    got = from_arrow(pa.concat_tables(parts, promote_options="permissive"), "t")
    uses = find_uses(got)  # CSV comes as text: numbers are found in it
    got, whole = uses.apply(got), uses.apply(whole)
    assert got.names == whole.names
    for one, other in zip(got, whole, strict=True):
        assert one.kind == other.kind
        if one.levels:
            texts = [[(*c.levels, None)[code] for code in c.values] for c in (one, other)]
            assert texts[0] == texts[1]
        else:
            np.testing.assert_array_equal(one.values, other.values)


def test_several_files_follow_each_other_columns_by_name(tmp_path: Path) -> None:
    first, second = some_rows(300, 1), some_rows(400, 2)
    write(tmp_path / "a.parquet", first)
    write(tmp_path / "b.parquet", dict(reversed(list(second.items()))))
    batches = Batches(tmp_path, n_bytes=1 << 20)
    assert batches.names == tuple(first)
    whole = pa.concat_tables(batches)
    assert whole.column("whole").to_pylist() == first["whole"] + second["whole"]
    only = batches.select({"part", "whole"})
    assert [part.column_names for part in only] == [["whole", "part"]] * 2


def test_declared_categories_and_repeated_names_stay(tmp_path: Path) -> None:
    codes = pa.array(["x", "y", "x"] * 100).dictionary_encode()
    table = pa.Table.from_arrays([codes, pa.array(range(300))], ["a", "a"])
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    batches = Batches(tmp_path / "t.parquet", n_bytes=1 << 20)
    assert batches.names == ("a", "a.1")
    sample = draw_sample(batches, 1 << 20, 100, np.random.default_rng(0))
    assert sample.table.columns["a"].declared
    assert [part.column_names for part in batches.select({"a.1"})] == [["a.1"]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"a,b\n" + b"1,2\n" * 700 + b"1,2,3\n", "2 fields in every row, as in the first, "
         "got 3 in row 702"),
        ("t.csv", b"", "got an empty CSV file"),
        ("t.csv", "a,b\né,1\n".encode("latin-1"), "expected a readable csv table"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "expected UTF-8 text"),
        ("t.parquet", b"PAR1 no such thing", "expected a readable parquet table"),
        ("t.feather", b"ARROW1 no such thing", "expected a readable feather table"),
        ("t.jsonl", b'{"a": 1}\n{"a": "x"}\n', "expected a readable jsonl table"),
        ("t.xls", b"", "expected a file name that ends in"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        list(Batches(path, n_bytes=1 << 16))
    assert name in str(caught.value)


def test_standard_input_and_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="standard input: expected a file"):
        Batches("-", n_bytes=1 << 16)
    with pytest.raises(DataError, match="there is no such file"):
        Batches(tmp_path / "t.csv", n_bytes=1 << 16)


# --- the sample ---------------------------------------------------------------------------------


def test_every_row_has_the_same_chance_and_order_stays() -> None:
    n, kept, repeats = 60, 15, 2000
    times = np.zeros(n)
    for seed in range(repeats):
        reservoir = Reservoir(kept, np.random.default_rng(seed))
        for start in range(0, n, 7):
            rows = list(range(start, min(start + 7, n)))
            reservoir.add(pa.table({"i": rows}))
        found = np.array(reservoir.table().column("i"))
        assert len(found) == kept
        assert (np.diff(found) > 0).all()
        times[found] += 1
    share = kept / n
    sigma = (repeats * share * (1 - share)) ** 0.5
    assert np.abs(times - repeats * share).max() < 4.5 * sigma  # 60 rows: chance 4e-4


def test_fewer_rows_than_asked_for_are_all_kept() -> None:
    reservoir = Reservoir(100, np.random.default_rng(0))
    reservoir.add(pa.table({"i": [1, 2, 3]}))
    assert reservoir.table().column("i").to_pylist() == [1, 2, 3]


def test_levels_are_chosen_by_all_rows(tmp_path: Path) -> None:
    # 40,000 rows, of which 1,000 are drawn: a level of 20 rows would rarely be seen 5 times
    rng = np.random.default_rng(3)
    levels = np.array([f"level {i}" for i in range(30)], dtype=object)
    word = np.where(rng.random(40_000) < 0.02, rng.choice(levels, 40_000), "common")
    word[:50] = "NA"
    pa.parquet.write_table(
        pa.table({"w": word, "y": rng.normal(size=40_000)}), tmp_path / "t.parquet"
    )
    sample = draw_sample(
        Batches(tmp_path / "t.parquet", n_bytes=1 << 18), 1, 1000, np.random.default_rng(0)
    )
    assert (sample.table.n_rows, sample.n_rows) == (1000, 40_000)
    uses = find_uses(sample.table)
    fitted = Inputs.fit(uses.apply(sample.table), uses)
    inputs = sample.counts.apply(fitted, sample.n_rows)
    assert len(fitted.parts[0].levels.frequent) < 10
    expected = [w for w, n in Counter(word[50:].tolist()).most_common() if n >= 5]
    assert set(inputs.parts[0].levels.frequent) == set(expected)
    assert inputs.parts[0].levels.frequent[0] == "common"


def test_columns_of_too_many_values_are_not_counted() -> None:
    counts = LevelCounts()
    counts.add(pa.table({"key": [str(i) for i in range(500)], "k": ["u", "v"] * 250}))
    counts.add(pa.table({"key": ["u"] * 500, "k": ["u", None] * 250}))
    assert counts.of_column == {"k": Counter(u=500, v=250)}


# --- the target ---------------------------------------------------------------------------------


def found_target(values: Any, kind: str, loss: str = "squared_error") -> Any:
    whole = pa.table({"y": values})
    uses = find_uses(from_arrow(whole, "t"), target="y")
    parts = [whole.slice(i, 97) for i in range(0, whole.num_rows, 97)]
    if kind == "classes":
        return find_classes(parts, uses, "y"), whole
    return find_numbers(parts, uses, "y", loss), whole


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson"])
def test_a_streamed_target_is_scaled_as_a_whole_one(loss: str) -> None:
    values = np.random.default_rng(0).exponential(3.0, 1000) + 1e4 * (loss != "poisson")
    target, _ = found_target([*values.tolist(), None, float("inf")], "numbers", loss)
    assert (target.n_rows, target.n_missing) == (1000, 2)
    centre = 0.0 if loss == "poisson" else values.mean()
    scale = values.mean() if loss == "poisson" else values.std()
    np.testing.assert_allclose(target.head.centre, [centre], rtol=1e-12)
    np.testing.assert_allclose(target.head.scale, [scale], rtol=1e-9)
    assert (target.head.low[0], target.head.high[0]) == (values.min(), values.max())


@pytest.mark.parametrize(
    "values",
    [
        ["no", "yes", "no", None, "maybe"] * 40,
        [True, False, None, True] * 50,
        [3, 1, 2, 1, None] * 40,
        [0.5, 1.5, float("nan"), 0.5] * 40,
    ],
    ids=["text", "boolean", "whole", "part"],
)
def test_classes_are_those_of_the_whole_column(values: list[Any]) -> None:
    target, whole = found_target(values, "classes")
    known = [v for v in values if v is not None and v == v]
    assert target.classes.tolist() == sorted(set(known))
    assert type(target.classes.tolist()[0]) is type(known[0])
    assert target.counts.tolist() == [known.count(c) for c in sorted(set(known))]
    codes = target.values(target.column(whole))
    back = [None if np.isnan(c) else target.classes.tolist()[int(c)] for c in codes]
    assert back == [v if v is not None and v == v else None for v in values]


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ([1.0] * 30, "numbers", "expected target 'y' to vary, got 1 in every row"),
        ([None] * 30, "numbers", "expected values in target 'y', got none in 30 rows"),
        ([1.0, 2.0, None] * 3, "numbers", "at least 10 rows with a target, got 6"),
        (["a", "b"] * 30, "numbers", "to hold numbers, got text values"),
        ([1e308, -1e308] * 30, "numbers", "within float64's range"),
        (["a"] * 30, "classes", "at least two classes in target 'y', got only 'a'"),
        (np.arange(100) / 7, "classes", "that repeat, got 100 different values in 100 rows"),
    ],
)
def test_what_cannot_be_learnt_is_one_sentence(values: Any, kind: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        found_target(pa.array(values, type=pa.float64() if values[0] is None else None), kind)


def test_a_negative_target_is_no_count() -> None:
    with pytest.raises(DataError, match=r"not negative with loss='poisson', got -1\."):
        found_target([-1.0, 2.0] * 30, "numbers", "poisson")


# --- chunks -------------------------------------------------------------------------------------


def test_every_row_is_written_once_to_a_place_drawn_at_random(tmp_path: Path) -> None:
    n, layout = 5003, Layout.plan(5003, 600, 1000, 2)
    assert (layout.n_chunks, layout.chunk_rows, layout.n_held) == (5, 880, 603)
    chunks = Chunks(tmp_path, layout)
    assert not chunks.is_whole
    x = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    with chunks.writer(np.random.default_rng(1)) as writer:
        for start in range(0, n, 333):
            writer.write(x[start : start + 333], x[start : start + 333, 1].astype(float))
        writer.finish()
    assert chunks.is_whole
    seen = []
    for chunk in range(6):
        own, y = np.empty((layout.size(chunk), 2), np.float32), np.empty(layout.size(chunk))
        chunks.load(chunk, own, y)
        np.testing.assert_array_equal(own[:, 1], y)
        row = own[:, 0] / 2
        sigma = n / (12 * len(row)) ** 0.5
        assert abs(row.mean() - n / 2) < 4.5 * sigma
        assert (np.diff(row) < 0).any()
        seen += row.tolist()
    assert sorted(seen) == list(range(n))


def test_more_or_fewer_rows_than_counted_are_a_changed_table(tmp_path: Path) -> None:
    layout = Layout.plan(100, 10, 50, 1)
    for n in (99, 101):
        with Chunks(tmp_path, layout).writer(np.random.default_rng(0)) as writer:
            rows = np.zeros((n, 1), np.float32), np.zeros(n)

            def write_all(writer: Writer = writer, rows: Any = rows) -> None:
                writer.write(*rows)
                writer.finish()

            with pytest.raises(DataError, match="expected the 100 rows that were counted first"):
                write_all()


def test_a_small_disk_is_noticed_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout.plan(1 << 20, 10, 1 << 18, 1)
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr("lamina.tabular.chunks.shutil.disk_usage", lambda _: usage)
    with (
        pytest.raises(DataError, match=r"expected 12 MiB of disk .*got: 1 MiB free"),
        Chunks(tmp_path, layout).writer(np.random.default_rng(0)),
    ):
        pass
    assert not list(tmp_path.iterdir())
