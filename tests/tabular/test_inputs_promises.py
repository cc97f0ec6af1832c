"""What an estimator promises of any table's columns: order, kinds, gaps and values out of range."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.core.errors import DataError
from lamina.tabular.frames import as_table
from lamina.tabular.inputs import Inputs
from lamina.tabular.kinds import find_uses
from lamina.tabular.table import Column, Table

NAN = float("nan")


def number(name: str, values: list[float], kind: Any = "number") -> Column:
    return Column(name, kind, np.array(values, dtype=np.float64))


def text(name: str, values: list[str | None], kind: Any = "text") -> Column:
    levels = tuple(dict.fromkeys(v for v in values if v is not None))
    codes = [levels.index(v) if v is not None else -1 for v in values]
    return Column(name, kind, np.array(codes, dtype=np.int32), levels)


def table(*columns: Column) -> Table:
    return Table({c.name: c for c in columns}, len(columns[0].values))


def fit(rows: Table, types: dict[str, str] | None = None) -> Inputs:
    uses = find_uses(rows, types)
    return Inputs.fit(uses.apply(rows, "fit"), uses)


def test_column_order_and_extra_columns_do_not_matter() -> None:
    a, b = number("a", [1.0, 2.5, 4.0] * 9), text("b", ["x", "y", "x"] * 9)
    inputs = fit(table(a, b))
    extra = number("extra", [NAN] * 27)
    np.testing.assert_array_equal(
        inputs.transform(table(a, b)), inputs.transform(table(extra, b, a))
    )


def test_infinity_counts_as_missing() -> None:
    inputs = fit(table(number("v", [1.0, np.inf, 3.0, NAN, 5.0] * 9)))
    x = inputs.transform(table(number("v", [np.inf, -np.inf, NAN, 3.0])))
    np.testing.assert_array_equal(x[0], x[2])
    np.testing.assert_array_equal(x[1], x[2])
    assert x[2, 1] == 1
    assert x[3, 1] == 0


def test_a_missing_column_is_named_and_a_near_one_suggested() -> None:
    inputs = fit(table(number("age", [1.0, 2.5] * 9), number("hours", [1.0, 2.5] * 9)))
    with pytest.raises(
        DataError, match=re.escape("missing 'hours'. Is 'hours' now called 'Hours'?")
    ):
        inputs.transform(table(number("age", [1.0]), number("Hours", [1.0])))
    with pytest.raises(DataError, match=re.escape("missing 'age', 'hours'. Add what is missing.")):
        inputs.transform(table(number("q", [1.0])))


@pytest.mark.parametrize(
    ("fitted", "given", "alike"),
    [
        (text("v", ["1", "2x"] * 20), number("v", [1.0]), text("v", ["1"])),
        (text("v", ["true", "no"] * 20), text("v", ["true"], "boolean"), text("v", ["true"])),
        (
            Column("v", "boolean", np.arange(40) % 2, ("false", "true")),
            number("v", [1.0]),
            Column("v", "boolean", np.array([1]), ("false", "true")),
        ),
        (
            Column("v", "boolean", np.arange(40) % 2, ("false", "true")),
            text("v", ["TRUE"]),
            Column("v", "boolean", np.array([1]), ("false", "true")),
        ),
        (
            number("v", [-1.5, 1.0] * 20),
            Column("v", "boolean", np.array([1]), ("false", "true")),
            number("v", [1.0]),
        ),
        (number("v", [-1.5, 1.0, NAN] * 20), text("v", [None]), number("v", [NAN])),
        (number("v", [0.0, 864000.0] * 20, "date"), number("v", [NAN]), number("v", [NAN], "date")),
    ],
)
def test_a_column_of_another_kind_is_converted_where_nothing_is_lost(
    fitted: Column, given: Column, alike: Column
) -> None:
    inputs = fit(table(fitted, number("w", list(np.arange(len(fitted.values)) * 0.5))))
    w = number("w", [1.0])
    np.testing.assert_array_equal(
        inputs.transform(table(given, w)), inputs.transform(table(alike, w))
    )


@pytest.mark.parametrize(
    ("fitted", "given", "said"),
    [
        (
            number("v", [0.5, 1.0] * 9),
            text("v", [None, "abc"]),
            "numbers as in fit, got text such as 'abc' in row 2",
        ),
        (
            number("v", [0.0, 1e6] * 9, "date"),
            number("v", [3.0, 4.0]),
            "dates as in fit, got numbers",
        ),
        (
            text("v", ["false", "true"] * 9, "boolean"),
            text("v", ["maybe", "maybe"]),
            "booleans as in fit, got text such as 'maybe' in row 1",
        ),
        (
            text("v", ["f", "t"] * 9),
            number("v", [3.0, 4.0], "date"),
            "text as in fit, got dates",
        ),
        (
            number("v", [0.5, 1.0] * 9),
            number("v", [NAN, NAN], "other"),
            "got values of another kind",
        ),
    ],
)
def test_a_column_of_the_wrong_kind_is_one_sentence(
    fitted: Column, given: Column, said: str
) -> None:
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        fit(table(fitted)).transform(table(given), "evaluate")
    assert str(caught.value).startswith("evaluate: expected column 'v'")
    assert "\n" not in str(caught.value)


any_float = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(any_float, st.one_of(st.none(), st.text(max_size=2))), min_size=1, max_size=30
    ),
    st.lists(any_float, min_size=1, max_size=5),
)
def test_any_table_gives_a_matrix_that_the_network_can_read(
    rows: list[tuple[float, str | None]], later: list[float]
) -> None:
    fitted = as_table({"n": np.array([r[0] for r in rows]), "t": [r[1] for r in rows]})
    try:
        inputs = fit(fitted, {"n": "number"})
    except DataError:
        return
    new = table(number("n", later), text("t", ["?"] * len(later)))
    for part in (fitted, new):
        try:
            x = inputs.transform(part)
        except DataError:  # "?" where all text read as dates or numbers
            assert part is new
            continue
        assert x.shape == (part.n_rows, len(inputs.cells))
        for column, cells in zip(x.T, inputs.cells, strict=True):
            assert ((column >= 0) & (column <= (1 if cells > 0 else -cells - 1))).all()


def knots_of(gains: list[float]) -> list[float]:
    (part,) = fit(table(number("gain", gains))).parts
    return list(part.knots)


def test_special_values_beside_a_common_one_are_knots_of_their_own() -> None:
    special = [float(k * k) for k in range(1, 101)]
    many = [0.0] * 5000 + special * 20
    assert set(special) < set(knots_of(many))
    few = [0.0] * 500 + special * 2  # too few rows to tell them from noise
    assert len(set(special) & set(knots_of(few))) < 50
    spread = [0.0] * 1000 + special * 60  # no value that most rows have
    assert len(set(special) & set(knots_of(spread))) < 50
