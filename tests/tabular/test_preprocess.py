"""Preprocessing: what each kind of column becomes, and what is the same at predict as in fit."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.core.errors import DataError, ModelFileError
from lamina.tabular.preprocess import CLIP, MAX_LEVELS, Preprocessor
from lamina.tabular.table import Column, Table


def number(name: str, values: list[float], kind: Any = "number") -> Column:
    return Column(name, kind, np.array(values, dtype=np.float64))


def text(name: str, values: list[str | None], kind: Any = "text") -> Column:
    levels = tuple(dict.fromkeys(v for v in values if v is not None))
    codes = [levels.index(v) if v is not None else -1 for v in values]
    return Column(name, kind, np.array(codes, dtype=np.int32), levels)


def table(*columns: Column) -> Table:
    return Table({c.name: c for c in columns}, len(columns[0].values))


NAN = float("nan")


def test_numbers_are_standardised() -> None:
    values = [1.0, 2.0, 3.0, 10.0]
    x = Preprocessor.fit(table(number("v", values))).transform(table(number("v", values)))
    assert x.dtype == np.float32
    assert x.shape == (4, 1)
    expected = (np.array(values) - np.mean(values)) / np.std(values)
    np.testing.assert_allclose(x[:, 0], expected, rtol=1e-6)


def test_missing_numbers_become_the_mean_and_an_indicator() -> None:
    fitted = Preprocessor.fit(table(number("v", [1.0, NAN, 3.0])))
    np.testing.assert_allclose(
        fitted.transform(table(number("v", [3.0, NAN, NAN]))), [[1, 0], [0, 1], [0, 1]]
    )


def test_infinity_counts_as_missing() -> None:
    fitted = Preprocessor.fit(table(number("v", [1.0, np.inf, 3.0])))
    np.testing.assert_allclose(
        fitted.transform(table(number("v", [3.0, -np.inf]))), [[1, 0], [0, 1]]
    )


def test_a_number_far_away_is_clipped() -> None:
    fitted = Preprocessor.fit(table(number("v", [0.0, 1.0])))
    x = fitted.transform(table(number("v", [1e300, -1e300])))
    assert x[:, 0].tolist() == [CLIP, -CLIP]


def test_dates_are_elapsed_time() -> None:
    days = number("d", [0.0, 86400.0, 2 * 86400.0], "date")
    x = Preprocessor.fit(table(days)).transform(table(days))
    np.testing.assert_allclose(np.diff(x[:, 0]), np.sqrt(1.5), rtol=1e-6)


def test_text_is_one_hot_with_rare_and_unseen_levels_together() -> None:
    column = text("c", ["a"] * 30 + ["b"] * 20 + ["r1", "r2"])
    fitted = Preprocessor.fit(table(column))
    assert fitted.encodings[0].levels == ("a", "b")
    assert fitted.encodings[0].rare
    x = fitted.transform(table(text("c", ["b", "r2", "never seen", "a", None])))
    assert x.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_unseen_level_is_all_zeros_where_no_level_was_rare() -> None:
    fitted = Preprocessor.fit(table(text("c", ["a", "b"] * 20)))
    assert fitted.transform(table(text("c", ["b", "new"]))).tolist() == [[0, 1], [0, 0]]


def test_missing_text_has_its_own_input() -> None:
    fitted = Preprocessor.fit(table(text("c", ["a", None] * 20)))
    assert fitted.transform(table(text("c", [None, "a"]))).tolist() == [[0, 1], [1, 0]]


def test_at_most_max_levels_get_an_input() -> None:
    column = text("c", [f"level {i}" for i in range(2 * MAX_LEVELS)] * 20)
    assert Preprocessor.fit(table(column)).d_in == MAX_LEVELS + 1


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (number("v", [2.0] * 40), "all its values are the same"),
        (number("v", [NAN] * 40), "it has no values"),
        (text("v", ["a"] * 40), "all its values are the same"),
        (text("v", [None] * 40), "it has no values"),
        (text("v", [f"id {i}" for i in range(40)]), "looks like a name or key"),
        (text("v", [f"id {i // 2}" for i in range(200)]), "every value is rare"),
        (number("v", [NAN] * 40, "other"), "has no name, or values that are not numbers"),
    ],
)
def test_useless_columns_are_left_out_with_a_note(column: Column, why: str) -> None:
    other = number("w", list(range(len(column.values))))
    fitted = Preprocessor.fit(table(column, other))
    assert fitted.names == ("w",)
    assert len(fitted.notes) == 1
    assert why in fitted.notes[0]
    assert "'v'" in fitted.notes[0]
    with pytest.raises(DataError, match="at least one column to learn from"):
        Preprocessor.fit(table(column))


def test_a_key_with_gaps_is_still_a_key() -> None:
    column = text("v", [f"id {i}" if i % 3 else None for i in range(40)])
    assert Preprocessor.fit(table(column, number("w", list(range(40))))).names == ("w",)


def test_column_order_and_extra_columns_do_not_matter() -> None:
    a, b = number("a", [1.0, 2.0, 4.0]), text("b", ["x", "y", "x"])
    fitted = Preprocessor.fit(table(a, b))
    extra = number("extra", [NAN] * 3)
    np.testing.assert_array_equal(
        fitted.transform(table(a, b)), fitted.transform(table(extra, b, a))
    )


def test_missing_column_is_named_and_a_near_one_suggested() -> None:
    fitted = Preprocessor.fit(table(number("age", [1.0, 2.0]), number("hours", [1.0, 2.0])))
    with pytest.raises(
        DataError, match=re.escape("missing 'hours'. Is 'hours' now called 'Hours'?")
    ):
        fitted.transform(table(number("age", [1.0]), number("Hours", [1.0])))
    with pytest.raises(DataError, match=re.escape("missing 'age', 'hours'. Add what is missing.")):
        fitted.transform(table(number("q", [1.0])))


@pytest.mark.parametrize(
    ("fitted", "given", "expected"),
    [
        (text("v", ["1", "2"] * 20), number("v", [2.0, 3.0]), [[0, 1], [0, 0]]),
        (text("v", ["true", "no"] * 20), text("v", ["true"], "boolean"), [[1, 0]]),
        (text("v", ["f", "t"] * 20, "boolean"), number("v", [NAN]), [[0, 0]]),
        (text("v", ["false", "true"] * 20, "boolean"), number("v", [1.0, 0.0]), [[0, 1], [1, 0]]),
        (text("v", ["false", "true"] * 20, "boolean"), text("v", ["TRUE"]), [[0, 1]]),
        (number("v", [-1.0, 1.0]), text("v", ["false", "true"], "boolean"), [[0], [1]]),
        (number("v", [-1.0, 1.0]), text("v", [None]), [[0]]),
        (number("v", [-1.0, 1.0], "date"), number("v", [NAN]), [[0]]),
    ],
)
def test_a_column_of_another_kind_is_converted_where_nothing_is_lost(
    fitted: Column, given: Column, expected: list[list[float]]
) -> None:
    assert Preprocessor.fit(table(fitted)).transform(table(given)).tolist() == expected


@pytest.mark.parametrize(
    ("fitted", "given", "said"),
    [
        (
            number("v", [0.0, 1.0]),
            text("v", [None, "abc"]),
            "numbers as in fit, got text such as 'abc'",
        ),
        (number("v", [0.0, 1.0], "date"), number("v", [3.0]), "dates as in fit, got numbers"),
        (
            text("v", ["f", "t"] * 9, "boolean"),
            text("v", ["maybe"]),
            "booleans as in fit, got text",
        ),
        (text("v", ["f", "t"] * 9), number("v", [3.0], "date"), "text as in fit, got dates"),
        (number("v", [0.0, 1.0]), number("v", [NAN], "other"), "got values of another kind"),
    ],
)
def test_a_column_of_the_wrong_kind_is_one_sentence(
    fitted: Column, given: Column, said: str
) -> None:
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        Preprocessor.fit(table(fitted)).transform(table(given), "evaluate")
    assert str(caught.value).startswith("evaluate: expected column 'v'")


EXAMPLE = table(
    number("n", [1.0, NAN, 5.0] * 20),
    number("d", [0.0, 9.0, 7.0] * 20, "date"),
    text("t", ["a", "b", None] * 20),
    text("b", ["false", "true", "true"] * 20, "boolean"),
)


def test_state_survives_json_and_arrays_exactly() -> None:
    fitted = Preprocessor.fit(EXAMPLE)
    state = json.loads(json.dumps(fitted.to_json()))
    rebuilt = Preprocessor.from_json(state, fitted.arrays())
    assert rebuilt.encodings == fitted.encodings
    np.testing.assert_array_equal(rebuilt.transform(EXAMPLE), fitted.transform(EXAMPLE))


def _drop(key: str) -> Any:
    return lambda state, arrays: state[0].pop(key)


def _set(key: str, value: Any) -> Any:
    return lambda state, arrays: state[0].update({key: value})


@pytest.mark.parametrize(
    "damage",
    [
        _drop("name"),
        _drop("levels"),
        _set("name", 3),
        _set("kind", "magic"),
        _set("levels", [1]),
        _set("levels", ["a", "a"]),
        _set("levels", None),
        lambda state, arrays: state.pop(),
        lambda state, arrays: state.append(3),
        lambda state, arrays: arrays.pop("preprocess.mean"),
        lambda state, arrays: arrays.update({"preprocess.scale": np.zeros(4)}),
        lambda state, arrays: arrays.update({"preprocess.mean": np.full(4, NAN)}),
    ],
)
def test_damaged_state_is_a_model_file_error(damage: Any) -> None:
    fitted = Preprocessor.fit(EXAMPLE)
    state, arrays = fitted.to_json(), fitted.arrays()
    damage(state, arrays)
    with pytest.raises(ModelFileError, match="expected the preprocessing of a table model"):
        Preprocessor.from_json(state, arrays)


any_float = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(
        st.tuples(any_float, st.one_of(st.none(), st.text(max_size=2))), min_size=1, max_size=30
    ),
    st.lists(any_float, min_size=1, max_size=5),
)
def test_any_table_gives_a_finite_matrix(
    rows: list[tuple[float, str | None]], later: list[float]
) -> None:
    fit_table = table(number("n", [r[0] for r in rows]), text("t", [r[1] for r in rows]))
    try:
        fitted = Preprocessor.fit(fit_table)
    except DataError:
        return
    x = fitted.transform(fit_table)
    assert x.shape == (len(rows), fitted.d_in)
    assert np.isfinite(x).all()
    assert abs(x).max() <= CLIP
    other = fitted.transform(table(number("n", later), text("t", ["?"] * len(later))))
    assert np.isfinite(other).all()
    assert abs(other).max() <= CLIP
