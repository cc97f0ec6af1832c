"""What columns are used for: found as a data scientist would, and made alike at predict."""

from __future__ import annotations

import json
import uuid
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.core.errors import DataError, ModelFileError
from lamina.tabular.frames import as_table
from lamina.tabular.kinds import find_uses, parse_types
from lamina.tabular.table import Table
from lamina.tabular.uses import DROPPED, GIVEN, ColumnUse, ColumnUses

N = 200
rng = np.random.default_rng(0)
WORDS = ["the", "engine", "was", "struck", "by", "a", "large", "bird", "near", "runway"]
COLUMNS: dict[str, tuple[list[Any], str]] = {
    "row": (list(range(1, N + 1)), "identifier"),
    "CustomerID": ((10_000_000 * rng.permutation(N)).tolist(), "identifier"),
    "uuid": ([str(uuid.UUID(int=int(i) + 2**100)) for i in range(N)], "identifier"),
    "name": ([f"person{i}" for i in range(N)], "identifier"),
    "day": (list(range(N)), "number"),
    "price": (rng.permutation(10**6)[:N].tolist(), "number"),
    "length": (rng.normal(size=N).tolist(), "number"),
    "rating": (rng.integers(0, 5, N).tolist(), "number"),
    "money": ([f"${v:,.2f}" for v in rng.uniform(100, 9000, N)], "number"),
    "percent": ([f"{v}%" for v in rng.integers(0, 100, N)], "number"),
    "comma": ([f"1 {v},5" for v in rng.integers(100, 999, N)], "number"),
    "zip": ([f"{v:05}" for v in rng.integers(1, 99, N)], "category"),
    "city": ((["Oslo", "Rome", None, "Łódź"] * N)[:N], "category"),
    "sign": ((["+", "-"] * N)[:N], "category"),
    "damage": ((["None", "Minor"] * N)[:N], "category"),
    "flag": (([True, False] * N)[:N], "boolean"),
    "word": ((["True", "FALSE", None] * N)[:N], "boolean"),
    "seen": ([f"{i % 28 + 1}/{i % 12 + 1}/2020" for i in range(N)], "date"),
    "stamp": ([f"2020-01-{i % 28 + 1:02}T00:00:00" for i in range(N)], "date"),
    "remark": ([" ".join(rng.choice(WORDS, 6)) + f" {i}" for i in range(N)], "text"),
    "same": (["x"] * N, "constant"),
    "same number": ([7.5] * N, "constant"),
    "empty": ([None] * N, "constant"),
    "same or missing": ((["x", None] * N)[:N], "category"),
    "nested": ([[1]] * N, "other"),
}


@pytest.fixture(scope="module")
def table() -> Table:
    return as_table({name: values for name, (values, _) in COLUMNS.items()})


@pytest.fixture(scope="module")
def uses(table: Table) -> ColumnUses:
    return find_uses(table)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_used_as_people_would(name: str, uses: ColumnUses) -> None:
    use = uses[name]
    assert use.use == COLUMNS[name][1], use.reason
    assert use.reason or use.use == "date"
    assert "\n" not in use.reason
    values = COLUMNS[name][0]
    assert use.n_missing == (N if name == "nested" else values.count(None))


def test_columns_of_no_use_are_left_out_with_a_note(table: Table, uses: ColumnUses) -> None:
    dropped = [n for n, (_, use) in COLUMNS.items() if use in ("identifier", "constant", "other")]
    learnt = uses.apply(table, "fit")
    assert set(COLUMNS) - set(learnt.names) == set(dropped)
    assert uses.used == learnt.names
    for name in dropped:
        assert any(f"column {name!r} is left out: " in note for note in uses.notes)
    assert learnt.columns["comma"].values[0] == float(COLUMNS["comma"][0][0][2:5]) + 1000.5


def test_applying_twice_is_applying_once(table: Table, uses: ColumnUses) -> None:
    once = uses.apply(table, "fit")
    twice = uses.apply(once, "fit")
    for column in once:
        assert twice.columns[column.name] is column


@pytest.mark.parametrize("name", ["money", "comma", "seen", "zip", "word", "city", "rating"])
def test_one_row_alone_becomes_what_it_was_among_many(
    name: str, table: Table, uses: ColumnUses
) -> None:
    """Alone, "1 234,5" or 3/4/2020 could mean something else."""
    learnt = uses.apply(table, "fit").columns[name]
    for row in (0, 3, 20):
        alone = as_table({name: [COLUMNS[name][0][row]]})
        column = uses.apply(alone).columns[name]
        assert column.kind == learnt.kind
        if column.kind in ("text", "boolean") and not column.missing[0]:
            assert column.levels[column.values[0]] == learnt.levels[learnt.values[row]]
        elif column.kind in ("number", "date"):
            assert column.values[0] == learnt.values[row]


def test_stray_text_among_numbers_is_missing_and_told() -> None:
    values = [str(i % 97) for i in range(10_000)]
    values[16], values[500], values[501], values[502] = "n/a?", "-", "oops", "n/a?"
    uses = find_uses(as_table({"v": values, "w": ["a", "b"] * 5000}))
    assert uses["v"].use == "number"
    assert uses["v"].n_missing == 4
    assert uses.notes == (
        "column 'v': 3 of 10,000 values are no number and count as missing, the first 'n/a?' in "
        "row 17.",
    )
    assert np.isnan(uses.apply(as_table({"v": ["oops"]})).columns["v"].values).all()
    with pytest.raises(DataError) as caught:
        uses.apply(as_table({"v": ["1", "what"]}), "predict")
    assert str(caught.value) == (
        "predict: expected column 'v' to hold numbers as in fit, got text such as 'what' in row 2. "
        "Correct these values or leave them empty."
    )


def test_stray_text_in_later_rows_is_told_where_asked() -> None:
    uses = find_uses(as_table({"v": [*(str(i % 97) for i in range(99)), "n/k"]}))
    later = [*(str(i % 97) for i in range(97)), "n/k", "-", "what"]
    with pytest.warns(UserWarning, match=r"^predict: column 'v': .*") as caught:
        uses.apply(as_table({"v": later}), "predict", warn=True)
    assert [str(w.message) for w in caught] == [
        "predict: column 'v': 1 of 100 values is no number and counts as missing, "
        "'what' in row 100."
    ]  # "n/k" was told of in fit, "-" means that there is none
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uses.apply(as_table({"v": later}), "predict")
        uses.apply(as_table({"v": later[:99]}), "predict", warn=True)


def test_infinite_numbers_are_missing_and_told() -> None:
    values = np.arange(100.0) % 7
    values[16] = np.inf
    assert find_uses(as_table({"v": values})).notes == (
        "column 'v': 1 of 100 numbers is infinite and counts as missing, in row 17.",
    )
    values[80] = -np.inf
    assert find_uses(as_table({"v": values})).notes == (
        "column 'v': 2 of 100 numbers are infinite and count as missing, the first in row 17.",
    )


@pytest.mark.parametrize(("n_stray", "use"), [(5, "number"), (6, "category")])
def test_one_stray_value_in_twenty_is_the_most(n_stray: int, use: str) -> None:
    values = [str(i % 7) for i in range(100 - n_stray)] + ["many"] * n_stray
    assert find_uses(as_table({"v": values, "w": [1.5, 2] * 50}))["v"].use == use


@pytest.mark.parametrize(("n_stray", "use"), [(1, "date"), (2, "category")])
def test_one_stray_value_in_a_hundred_dates_is_the_most(n_stray: int, use: str) -> None:
    values = [f"{i % 28 + 1}/1/2020" for i in range(100 - n_stray)] + ["soon"] * n_stray
    assert find_uses(as_table({"v": values, "w": [1.5, 2] * 50}))["v"].use == use


def test_codes_among_numbers_stay_a_category() -> None:
    values = [str(i % 90 + 10) for i in range(195)] + ["12B"] * 5
    assert find_uses(as_table({"v": values, "w": [1.5, 2] * 100}))["v"].use == "category"


@pytest.mark.parametrize(
    ("values", "use"),
    [
        (np.arange(60), "identifier"),
        (np.arange(60) + 5000, "identifier"),
        (np.arange(60) * 1000, "number"),
        (np.arange(40), "number"),
        (np.r_[np.arange(59), 3], "number"),
        (np.arange(60) + 0.5, "number"),
        (np.arange(60).astype(np.float32), "identifier"),
        (np.r_[np.arange(59.0), np.nan], "number"),
    ],
)
def test_a_key_is_whole_numbers_that_chance_would_repeat(values: Any, use: str) -> None:
    frame = pd.DataFrame({"v": values, "w": np.tile([1.5, 2.5], 30)[: len(values)]})
    assert find_uses(as_table(frame))["v"].use == use


def test_an_array_has_no_keys_and_a_lone_key_is_learnt_from() -> None:
    x = np.arange(200.0).reshape(100, 2)
    assert [c.use for c in find_uses(as_table(x))] == ["number", "number"]
    lone = find_uses(as_table({"id": list(range(100)), "y": [1, 2] * 50}), target="y")
    assert lone["id"].use == "number"
    assert "nothing else" in lone["id"].reason


def test_the_target_is_never_left_out_and_keeps_its_words() -> None:
    frame = {"x": [1.5, 2.5] * 30, "y": list(range(60)), "t": ["true", "false"] * 30}
    assert find_uses(as_table(frame), target="y")["y"].use == "number"
    assert find_uses(as_table(frame), target="t")["t"].kind == "text"
    assert find_uses(as_table({**frame, "y": ["$5"] * 60}), target="y")["y"].kind == "number"


TYPES = {"zip": "number", "rating": "category", "row": "number", "city": "drop", "seen": "category"}
TYPES |= {"remark": "category", "flag": "category", "day": "date", "stamp": "category"}


def test_types_overrule_what_is_found(table: Table) -> None:
    frame = {name: values for name, (values, _) in COLUMNS.items() if name in TYPES}
    frame["day"] = [20200101 + i % 28 for i in range(N)]
    uses = find_uses(as_table(frame), TYPES)
    assert {c.name: c.use for c in uses} == TYPES
    assert all(c.given for c in uses)
    assert uses.notes == ()
    learnt = uses.apply(as_table(frame), "fit")
    assert learnt.columns["rating"].levels[:1] == ("0",)
    assert learnt.columns["zip"].values[0] == int(frame["zip"][0])
    assert learnt.columns["day"].values[1] - learnt.columns["day"].values[0] == 86400
    assert learnt.columns["stamp"].levels[0] == "2020-01-01T00:00:00"
    assert "city" not in learnt.names
    assert {"rating", "flag", "remark"} <= set(uses.text_columns)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([20200101, 20200131], 1580428800.0),
        ([1580428800 - 1, 1580428800], 1580428800.0),
        ([1, 1580428800000][::-1][:1] * 2, 1580428800.0),
    ],
)
def test_whole_numbers_as_dates(values: list[int], expected: float) -> None:
    frame = as_table({"v": values, "w": [1.5, 2.5]})
    assert find_uses(frame, {"v": "date"}).apply(frame).columns["v"].values[-1] == expected


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ({"zpi": "drop"}, "there is no 'zpi'. Did you mean 'zip'?"),
        ({"zip": "float"}, "expected one of number, category, boolean, date, text, drop as the"),
        ({"city": "number"}, "expected column 'city' to hold numbers as in fit, got text such as"),
        ({"city": "date"}, "expected column 'city' to hold dates"),
        ({"city": "boolean"}, "expected column 'city' to hold booleans"),
        ({"nested": "category"}, "expected column 'nested' to hold text"),
        ({"rating": "boolean"}, "expected column 'rating' to hold booleans as in fit, got numbers"),
        ({"rating": "date"}, "neither yyyymmdd nor seconds since 1970"),
        ({"length": "date"}, "neither yyyymmdd nor seconds since 1970"),
    ],
)
def test_types_that_cannot_be_are_one_sentence(
    types: dict[str, str], said: str, table: Table
) -> None:
    with pytest.raises(DataError) as caught:
        find_uses(table, types)
    assert said in str(caught.value)
    assert str(caught.value).startswith("fit: ")


def test_types_are_written_on_the_command_line() -> None:
    assert parse_types(["zip=category,id=drop", "a=b=number"]) == {
        "zip": "category",
        "id": "drop",
        "a=b": "number",
    }
    for wrong in ("zip", "=drop", "zip=", "zip=drop,,"):
        with pytest.raises(DataError, match="--types: expected COLUMN=TYPE"):
            parse_types([wrong])


def test_uses_survive_json(uses: ColumnUses) -> None:
    assert ColumnUses.from_json(json.loads(json.dumps(uses.to_json()))) == uses


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"columns": [{"name": "a"}], "notes": []},
        {"columns": [ColumnUse("a", "number", "number", "").__dict__ | {"use": "x"}], "notes": []},
        {"columns": [ColumnUse("a", "number", "number", "").__dict__ | {"name": 3}], "notes": []},
        {"columns": [], "notes": [3]},
    ],
)
def test_a_forged_state_is_refused(state: Any) -> None:
    with pytest.raises(ModelFileError, match="load: expected the columns of a table model"):
        ColumnUses.from_json(state)


def test_no_rows_at_predict_are_fine(table: Table, uses: ColumnUses) -> None:
    empty = uses.apply(table.take(slice(0, 0)))
    assert empty.n_rows == 0
    assert empty.names == uses.used
    bare = as_table(pd.DataFrame({name: [] for name in COLUMNS}))
    assert uses.apply(bare).n_rows == 0
    assert find_uses(bare).used == ()


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.dates(),
    st.text(max_size=8),
    st.sampled_from(
        ["-", "None", "1,5", "$3", "1/2/2020", "01", "yes", "true", "9" * 400, "1e999"]
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CELLS, min_size=1, max_size=8), st.sampled_from([None, *GIVEN]))
def test_any_cells_are_used_or_refused_in_one_sentence(cells: list[Any], use: str | None) -> None:
    table = as_table({"v": cells, "w": [0.5] * len(cells)})
    try:
        uses = find_uses(table, {"v": use} if use else None)
    except DataError:
        assert use is not None
        return
    once = uses.apply(table, "fit")
    assert ("v" in once.names) == (uses["v"].use not in DROPPED)
    if "v" in once.names:
        assert once.columns["v"].kind == uses["v"].kind
        assert once.columns["v"].values.shape == (len(cells),)
