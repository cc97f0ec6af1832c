"""Tables: columns found by name, rows taken, numbers as text."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lamina.core.errors import DataError
from lamina.tabular.frames import as_table
from lamina.tabular.table import Column, Table, near_names, number_text


def people() -> Table:
    return as_table({"age": [31, None, 40], "city": ["Oslo", "Rome", None], "member": [True] * 3})


def values_of(table: Table, name: str) -> list[object]:
    column = table.columns[name]
    return [column.levels[code] if code >= 0 else None for code in column.values]


def test_column_suggests_near_names() -> None:
    table = people()
    assert table.column("age", "fit").name == "age"
    with pytest.raises(DataError, match=re.escape("Did you mean 'city'?")):
        table.column("Citty", "fit")
    with pytest.raises(DataError, match=re.escape("It has 'age', 'city', 'member'.")):
        table.column("zzzzz", "fit")
    assert near_names("INCOME", ["income", "outcome"]).startswith("'income'")


def test_take_and_without() -> None:
    table = people()
    assert values_of(table.take(np.array([2, 0])), "city") == [None, "Oslo"]
    assert table.take(np.array([True, False, True])).n_rows == 2
    assert table.without("age").names == ("city", "member")


def test_numbers_as_text() -> None:
    assert [number_text(v) for v in (3.0, -2.5, 1e300 * 0 + 0.1)] == ["3", "-2.5", "0.1"]
    column = Column("v", "number", np.array([2.0, np.nan, 1.5])).as_text()
    assert column.levels == ("1.5", "2")
    assert column.values.tolist() == [1, -1, 0]
