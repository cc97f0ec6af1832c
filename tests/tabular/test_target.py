"""The target: which task it poses, how it is read, and which rows are kept apart."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from lamina.core.errors import DataError, ModelFileError
from lamina.tabular.frames import as_table
from lamina.tabular.table import Column, Table
from lamina.tabular.target import (
    Target,
    Task,
    check_target,
    class_places,
    find_task,
    lonely_classes,
    split_rows,
    target_values,
)


def number(values: list[float]) -> Column:
    return Column("y", "number", np.array(values, dtype=np.float64))


def text(codes: list[int], *levels: str, kind: str = "text") -> Column:
    return Column("y", kind, np.array(codes, dtype=np.int32), levels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "task"),
    [
        (text([0, 1], "a", "b"), "classification"),
        (text([0, 1], "false", "true", kind="boolean"), "classification"),
        (number([0, 1, 1, 0]), "classification"),
        (number([float(i) for i in range(10)] * 3), "classification"),
        (number([float(i) for i in range(11)] * 3), "regression"),
        (number([0.5, 1.0, 0.5]), "regression"),
    ],
)
def test_the_task_follows_from_the_values(column: Column, task: str) -> None:
    assert find_task(column) == task


@pytest.mark.parametrize(
    ("column", "task", "values"),
    [
        (text([1, 0, 1], "b", "a"), "classification", ["a", "b", "a"]),
        (text([1, 0], "false", "true", kind="boolean"), "classification", [True, False]),
        (number([3, 4]), "classification", [3, 4]),
        (number([3.5, 4]), "classification", [3.5, 4.0]),
        (number([1e300, 4]), "classification", [1e300, 4.0]),
        (number([3, 4]), "regression", [3.0, 4.0]),
    ],
)
def test_values_have_the_type_of_the_column(
    column: Column, task: Task, values: list[object]
) -> None:
    found = target_values(column, task).tolist()
    assert found == values
    assert [type(v) for v in found] == [type(v) for v in values]


@pytest.mark.parametrize(
    ("column", "task", "said"),
    [
        (text([0, 0], "a"), "classification", "at least two classes in target 'y', got only 'a'"),
        (text([1, 1], "a", "b"), "classification", "got only 'b' in every row"),
        (number([3, 3]), "classification", "got only '3' in every row"),
        (number([3.5, 3.5]), "regression", "to vary, got 3.5 in every row"),
        (text([0, 1], "a", "b"), "regression", "expected numbers in target 'y'"),
        (
            text(list(range(30)), *map(str, range(30))),
            "classification",
            "got 30 different values in 30 rows. Choose another.",
        ),
        (number([i + 0.5 for i in range(30)]), "classification", "Use --task regression."),
        (number([1e308, -1e308]), "regression", "within float64's range"),
    ],
)
def test_a_target_that_cannot_be_learnt(column: Column, task: Task, said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        check_target(column, task, "fit")
    check_target(number([1, 2, 3]), "regression", "fit")
    check_target(text([0, 1], "a", "b"), "classification", "fit")


def test_text_that_is_numbers_is_read_as_numbers_later_too() -> None:
    table = as_table({"y": ["$1,200", "$950", "?", "$7"] * 20, "a": list(range(80))})
    target, notes = Target.find(table, "y")
    assert target == Target("y", "number", "decimal point", target.marks)
    assert not notes
    rows, column, places = target.split(table, "fit")
    assert column.values[:3].tolist() == [1200, 950, 7]
    assert places[:4].tolist() == [0, 1, 3, 4]
    assert (rows.names, rows.n_rows) == (("a",), 60)
    assert rows.columns["a"].values[:3].tolist() == [0, 1, 3]
    later = as_table({"y": [3.5, None]})
    assert target.split(later, "evaluate")[1].values.tolist() == [3.5]


def test_given_types_decide() -> None:
    table = as_table({"y": ["1", "2"] * 20, "z": list(range(40))})
    assert Target.find(table, "y")[0].kind == "number"
    assert Target.find(table, "y", {"y": "category", "z": "drop"})[0].kind == "text"
    with pytest.raises(DataError, match="that keep the target 'y'"):
        Target.find(table, "y", {"y": "drop"})


def test_infinity_is_no_target() -> None:
    table = as_table({"y": [1.5, np.inf, 2.5, np.nan], "a": list(range(4))})
    _, column, places = Target("y", "number").split(table, "fit")
    assert column.values.tolist() == [1.5, 2.5]
    assert places.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"x": [1.0]}, "expected a column 'y', the table has none"),
        ({"y": [None, None], "x": [1, 2]}, "every row is missing its own"),
        ({"y": [np.inf, np.nan], "x": [1, 2]}, "every row is missing its own"),
        ({"y": ["a", "b"], "x": [1, 2]}, "expected column 'y' to hold numbers as in fit"),
    ],
)
def test_a_table_without_targets(table: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        Target("y", "number").split(as_table(table), "evaluate")
    assert str(caught.value).startswith("evaluate: ")


def test_dates_are_no_target() -> None:
    table = as_table({"y": np.arange(40).astype("datetime64[D]"), "a": list(range(40))})
    with pytest.raises(DataError, match="got date values"):
        Target.find(table, "y")


def test_an_unknown_class_is_named_with_its_row() -> None:
    rows = np.array([3, 8])
    classes = np.array(["a", "b"], dtype=object)
    assert class_places(text([1, 0], "a", "b"), classes, rows, "evaluate").tolist() == [1, 0]
    with pytest.raises(DataError, match=re.escape("seen in fit, 'a', 'b', got 'c' in row 9.")):
        class_places(text([0, 1], "a", "c"), classes, rows, "evaluate")
    with pytest.raises(DataError, match=re.escape("seen in fit, '3', '4', got '5' in row 4.")):
        class_places(number([5, 3]), np.array([3, 4]), rows, "evaluate")
    found = class_places(
        text([1], "false", "true", kind="boolean"), np.array([False, True]), rows, ""
    )
    assert found.tolist() == [1]


def test_a_class_of_one_row_is_named() -> None:
    column = text([0, 1, 0, 2, 0], "a", "b", "unused")
    assert lonely_classes(column, np.arange(5) * 2)[0].startswith(
        "class 'b' of target 'y' has one row only, row 3: "
    )
    assert lonely_classes(text([0, 0, 1, 1], "a", "b"), np.arange(4)) == []


def test_split_keeps_every_class_its_share() -> None:
    codes = np.repeat([0, 1, 2, 3], [500, 100, 10, 1])
    column = text(np.random.default_rng(0).permutation(codes).tolist(), "a", "b", "c", "d")
    held = split_rows(column, "classification", 0.2, np.random.default_rng(1))
    assert np.bincount(column.values[held], minlength=4).tolist() == [100, 20, 2, 0]
    other = split_rows(column, "classification", 0.2, np.random.default_rng(2))
    assert not np.array_equal(held, other)


@pytest.mark.parametrize(("n", "n_held"), [(1, 0), (2, 0), (3, 1), (100, 20), (101, 20)])
def test_split_of_numbers(n: int, n_held: int) -> None:
    values = [float(i) for i in range(n)]
    held = split_rows(number(values), "regression", 0.2, np.random.default_rng(0))
    assert held.sum() == n_held


def test_split_leaves_a_row_of_every_class() -> None:
    column = text([0, 0, 1, 1, 2], "a", "b", "c")
    held = split_rows(column, "classification", 0.9, np.random.default_rng(0))
    assert set(column.values[~held]) == {0, 1, 2}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "magic"},
        {"kind": "date"},
        {"kind": []},
        {"kind": "boolean"},
        {"form": "day first"},
        {"form": None},
        {"marks": "ab"},
        {"marks": [1]},
        {"more": 1},
        {"name": 3},
    ],
)
def test_state_survives_json_and_damage_is_refused(change: dict[str, object]) -> None:
    target = Target("y", "number", "decimal comma", ("a", "b"))
    state = json.loads(json.dumps(target.to_json()))
    assert Target.from_json(state) == target
    with pytest.raises(ModelFileError, match="expected the target of a table"):
        Target.from_json({**state, **change})


def test_a_split_of_a_table_without_rows_says_so() -> None:
    empty = Table({"y": number([])}, 0)
    with pytest.raises(DataError, match="at least one row"):
        Target("y", "number").split(empty, "evaluate")
