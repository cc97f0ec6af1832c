"""Tables and targets that cannot be learnt, or not predicted: one sentence, row or column named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lamina import DataError, LaminaError, TabularClassifier, TabularRegressor

N = 30
X: dict[str, Any] = {"a": (np.arange(N) % 7) * 0.5, "b": list("xyz") * 10}
Y = ["u", "v"] * 15
NAN = float("nan")


def quick(kind: Any, **parameters: Any) -> Any:
    return kind("fast", max_seconds=1e-3, random_state=0, **parameters)


def with_one(value: object) -> list[object]:
    return [*Y[:3], value, *Y[4:]]


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (None, "the target y is None"),
        (with_one(None), "row 3 has None. Leave out such rows (1 of 30)."),
        (with_one(NAN), "row 3 has nan. Leave out such rows (1 of 30)."),
        ([1.0, NAN, 2.0] * 10, "row 1 has nan. Leave out such rows (10 of 30)."),
        ([1.0, np.inf, 2.0] * 10, "contains infinity: row 1 has inf."),
        ([None] * N, "row 0 has None. Leave out such rows (30 of 30)."),
        (["u"] * N, "at least two classes in y, got one class only, 'u', in every row."),
        ([True] * N, "got one class only, True, in every row."),
        (np.arange(N) + 0.5, "expected classes in y"),
        ([f"n{i}" for i in range(N)], "classes that repeat, got 30 different values in 30 rows"),
        (Y[:-1], "expected y of 30 rows, as many as X has, got 29"),
    ],
)
def test_classes_that_cannot_be_learnt(y: Any, said: str) -> None:
    with pytest.raises(LaminaError) as caught:
        quick(TabularClassifier).fit(X, y)
    assert said in str(caught.value)
    assert str(caught.value).startswith("TabularClassifier.fit: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (None, "the target y is None"),
        ([2.5] * N, "expected y to vary, got 2.5 in every row"),
        ([1.0, NAN] * 15, "row 1 has nan. Leave out such rows (15 of 30)."),
        ([[1.0, 2.0], [3.0, np.inf]] * 15, "row 1 has [3.0, inf]"),
        (Y, "expected numbers in y, got 'u' in row 0. Use TabularClassifier"),
        ([1e308, -1e308] * 15, "within float64's range"),
        ([1.0] * (N - 1), "as many as X has, got 29"),
    ],
)
def test_numbers_that_cannot_be_learnt(y: Any, said: str) -> None:
    with pytest.raises(LaminaError) as caught:
        quick(TabularRegressor).fit(X, y)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_values_of_pandas_are_found() -> None:
    pd = pytest.importorskip("pandas")
    for y in (
        pd.Series(with_one(pd.NA), dtype="string"),
        pd.Series(with_one(pd.NaT)),
        pd.Series([True, False, None] * 10, dtype="boolean"),
        pd.Series([1, 2, pd.NA] * 10, dtype="Int64"),
        pd.Series(["u", None] * 15).astype("category"),
    ):
        with pytest.raises(DataError, match=r"expected a target in every row.*row [123] has"):
            quick(TabularClassifier).fit(X, y)


def test_counts_must_not_be_negative() -> None:
    with pytest.raises(DataError, match="not negative with loss='poisson', got -1"):
        quick(TabularRegressor, loss="poisson").fit(X, [1, -1, 3] * 10)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": [NAN] * N}, "(column 'a' is left out: constant, it has no values.)"),
        ({"a": [5.0] * N}, "(column 'a' is left out: constant, all its values are the same.)"),
        ({"a": [np.inf] * N}, "column 'a' is left out"),
        ({"a": [1.5] * 9}, "expected at least 10 rows, got n_samples = 9"),
        ({}, "expected columns, the table has none"),
    ],
)
def test_a_table_that_cannot_be_learnt(table: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        quick(TabularClassifier).fit(table, Y[: len(next(iter(table.values()), Y))])
    assert said in str(caught.value)


@pytest.mark.parametrize("preset", ["fast", "default"])
def test_ten_rows_are_enough(preset: str) -> None:
    table = {name: values[:10] for name, values in X.items()}
    assert len(TabularClassifier(preset, random_state=0).fit(table, Y[:10]).predict(table)) == 10
    assert (
        len(TabularRegressor(preset, random_state=0).fit(table, X["a"][:10]).predict(table)) == 10
    )


def test_columns_of_no_use_do_no_harm_and_are_named() -> None:
    table = {**X, "none": [None] * N, "nan": [NAN] * N, "inf": [np.inf, 1.5, 2.5] * 10}
    model = quick(TabularClassifier).fit(table, Y)
    said = " ".join(model.report_.notes)
    assert "column 'none' is left out: constant, it has no values." in said
    assert "column 'nan' is left out: constant, it has no values." in said
    assert "inf" in model.inputs_.names
    assert np.isfinite(model.predict_proba({**table, "inf": [-np.inf] * N})).all()
    assert np.isfinite(model.predict_proba({**table, "a": [1e300] * N})).all()


def test_a_class_of_one_row_is_learnt_and_named() -> None:
    model = quick(TabularClassifier).fit(X, with_one("w"))
    assert model.classes_.tolist() == ["u", "v", "w"]
    assert "class 'w' has one row only, row 3 of X" in model.report_.notes[0]
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": [1.0]}, "expected the 2 columns seen in fit, missing 'b'"),
        ({"A": [1.0], "b": ["x"]}, "missing 'a'. Is 'a' now called 'A'?"),
        ({"a": ["x"], "b": ["x"]}, "column 'a' to hold numbers as in fit, got text such as 'x'"),
        ({"a": [b"x"], "b": ["x"]}, "column 'a' to hold numbers as in fit, got values of another"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_a_table_that_does_not_suit_the_model(
    method: str, table: dict[str, Any], said: str
) -> None:
    model = quick(TabularClassifier).fit(X, Y)
    with pytest.raises(DataError) as caught:
        getattr(model, method)(table)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"TabularClassifier.{method}: ")


def test_unseen_and_missing_values_are_predicted() -> None:
    model = quick(TabularClassifier).fit(X, Y)
    p = model.predict_proba({"a": [None, -1e9, np.inf], "b": ["new", None, "x"], "more": [1, 2, 3]})
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert model.predict({"a": [], "b": []}).shape == (0,)
