"""`explain` of both estimators: what it finds in tables whose answer is known."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.inspection import partial_dependence
from sklearn.metrics import accuracy_score, log_loss

import lamina
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.tabular.explain import BACKGROUND_ROWS, cell_texts, draw_background
from lamina.tabular.frames import as_table
from lamina.tabular.head import ClassHead, NumberHead
from lamina.tabular.row_losses import class_codes, row_losses

N = 400
LONG = "a note on {} and {} and what the {} did in the {} when nobody of the {} looked at {}"


def people(seed: int = 0, n: int = N) -> dict[str, list[Any]]:
    """A table of every use: numbers (one with gaps), a category, dates and text."""
    rng = np.random.default_rng(seed)
    words = ["river", "engine", "harbour", "garden", "winter", "paper", "signal", "copper"]
    age = rng.integers(18, 80, n)
    city = rng.choice(["Oslo", "Rome", "Lima"], n)
    return {
        "age": [None if i % 11 == 0 else float(a) for i, a in enumerate(age)],
        "city": [None if i % 13 == 0 else str(c) for i, c in enumerate(city)],
        "since": [str(np.datetime64("2015-01-01") + int(d)) for d in rng.integers(0, 3000, n)],
        "note": [LONG.format(*rng.choice(words, 6)) for _ in range(n)],
        "noise": rng.normal(size=n).tolist(),
    }


def wage(table: dict[str, list[Any]]) -> np.ndarray[Any, Any]:
    return np.array(
        [
            10.0 * (40 if age is None else age) + (300 if city == "Oslo" else 0)
            for age, city in zip(table["age"], table["city"], strict=True)
        ]
    )


@pytest.fixture(scope="module")
def regressor() -> lamina.TabularRegressor:
    table = people()
    return lamina.TabularRegressor("fast", random_state=0, n_threads=1).fit(table, wage(table))


@pytest.fixture(scope="module")
def classifier() -> lamina.TabularClassifier:
    table = people()
    y = np.where(wage(table) > 600, "rich", "poor")
    return lamina.TabularClassifier("fast", random_state=0, n_threads=1).fit(table, y)


def rows(table: dict[str, list[Any]], n: int) -> dict[str, list[Any]]:
    return {name: values[:n] for name, values in table.items()}


# --- attributions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_repeats", [None, 1])
def test_attributions_sum_to_prediction_minus_baseline(
    regressor: lamina.TabularRegressor, n_repeats: int | None
) -> None:
    new = rows(people(1), 12)
    why = regressor.explain(new, n_repeats=n_repeats)
    assert why.columns == ("age", "city", "since", "note", "noise")  # parts of one column together
    assert why.exact == (n_repeats is None)
    np.testing.assert_array_equal(why.prediction[:, 0], regressor.predict(new))
    total = why.baseline + why.values.sum(axis=1)
    np.testing.assert_allclose(total, why.prediction, rtol=1e-12)


def test_attributions_of_classes_sum_to_probabilities(
    classifier: lamina.TabularClassifier,
) -> None:
    new = rows(people(2), 5)
    why = classifier.explain(new, n_repeats=1)
    assert why.outputs == ("poor", "rich")
    np.testing.assert_array_equal(why.prediction, classifier.predict_proba(new))
    total = why.baseline + why.values.sum(axis=1)
    np.testing.assert_allclose(total, why.prediction, rtol=0, atol=1e-13)
    # What one class gains the other loses
    np.testing.assert_allclose(why.values[..., 0], -why.values[..., 1], rtol=0, atol=1e-6)


def test_attributions_follow_a_linear_target(regressor: lamina.TabularRegressor) -> None:
    # wage = 10 age + 300 [Oslo]: age's share is 10 (age - mean age), if the model has learnt it
    new = {**rows(people(3), 60), "age": np.linspace(25.0, 75.0, 60).tolist()}
    why = regressor.explain(new, n_repeats=1)
    slope = np.polyfit(new["age"], why.values[:, 0, 0], 1)[0]
    assert slope == pytest.approx(10.0, rel=0.1)
    oslo = np.array([city == "Oslo" for city in new["city"]])
    city = why.values[:, 1, 0]
    assert city[oslo].mean() - city[~oslo].mean() == pytest.approx(300.0, rel=0.15)
    assert np.abs(why.values[:, 4]).max() < 60  # of noise


def test_attributions_repeat_and_do_not_depend_on_other_rows(
    classifier: lamina.TabularClassifier,
) -> None:
    new = people(4)
    why = classifier.explain(rows(new, 6), n_repeats=1)
    again = classifier.explain(rows(new, 3), n_repeats=1)
    np.testing.assert_array_equal(why.values[:3], again.values)
    other = classifier.explain(rows(new, 3), n_repeats=1, rng=1)
    assert np.abs(other.values - again.values).max() > 0


def test_no_rows_have_no_attributions(regressor: lamina.TabularRegressor) -> None:
    why = regressor.explain(rows(people(), 0))
    assert why.values.shape == (0, 5, 1)
    assert why.cells == ()
    assert "0 rows" in repr(why)


def test_cells_read_as_people_write_them() -> None:
    table = as_table(
        {
            "n": [3.0, 2.5, float("nan")],
            "t": np.array(["2020-02-29T00:00:00", "2021-01-01T12:30:00", "NaT"], "datetime64[s]"),
            "c": ["a", None, "b"],
        }
    )
    assert cell_texts(table, table.names) == (
        ("3", "2020-02-29", "a"),
        ("2.5", "2021-01-01T12:30:00", "missing"),
        ("missing", "missing", "b"),
    )


# --- importance -----------------------------------------------------------------------------------


def test_importance_finds_what_the_target_is_made_of(
    regressor: lamina.TabularRegressor,
) -> None:
    new = people(5)
    found = regressor.explain(new, wage(new), kind="importance")
    assert [found.columns[j] for j in found.order[:2]] == ["age", "city"]
    off = regressor.predict(new) - wage(new)
    assert found.baseline == pytest.approx(np.mean(off**2), rel=1e-12)
    # Shuffling a term t of an additive target adds 2 var t to the squared error
    table = wage({**new, "city": [None] * N})
    assert found.mean[0] == pytest.approx(2 * table.var(), rel=0.15)
    assert found.each.shape == (5, 5)
    assert (found.spread > 0).all()
    assert abs(found.mean[4]) < 0.02 * found.mean[0]


@pytest.mark.parametrize("scoring", ["log_loss", "error_rate"])
def test_importance_of_classes_is_the_rise_of_the_loss(
    classifier: lamina.TabularClassifier, scoring: str
) -> None:
    new = people(6)
    y = np.where(wage(new) > 600, "rich", "poor")
    found = classifier.explain(new, y, kind="importance", scoring=scoring, n_repeats=2)
    true = (y == "rich").astype(int)

    def mean_loss(table: dict[str, list[Any]]) -> float:
        p = classifier.predict_proba(table)
        if scoring == "log_loss":
            return float(log_loss(true, p))
        return 1 - float(accuracy_score(true, p[:, 1] > 0.5))

    assert found.baseline == pytest.approx(mean_loss(new), rel=1e-5)
    assert found.columns[found.order[0]] == "age"
    # One shuffle by hand: the table's own column, through predict_proba
    order = np.random.default_rng(0).permutation(N)
    shuffled = {**new, "age": [new["age"][i] for i in order]}
    assert found.each[0, 0] == pytest.approx(mean_loss(shuffled) - found.baseline, rel=1e-5)


def test_losses_of_labels_and_of_several_targets() -> None:
    p = np.array([[0.9, 0.2], [0.4, 0.5]])
    labels = np.array([[1, 1], [0, 0]])
    at = np.arange(2)
    head = ClassHead(2, multilabel=True)
    np.testing.assert_allclose(
        row_losses(head, labels, "log_loss")(p, at),
        [-(np.log(0.9) + np.log(0.2)) / 2, -(np.log(0.6) + np.log(0.5)) / 2],
    )
    np.testing.assert_array_equal(row_losses(head, labels, "error_rate")(p, at), [0.5, 0.0])
    values = np.array([[0.0, 0.0], [2.0, 200.0]])
    numbers = NumberHead.fit(values, None, "squared_error")  # spreads 1 and 100
    off = np.array([[1.0, 0.0], [2.0, 300.0]])
    np.testing.assert_allclose(row_losses(numbers, values, "squared_error")(off, at), [0.5, 0.5])
    np.testing.assert_allclose(row_losses(numbers, values, "absolute_error")(off, at), [0.5, 0.5])


# --- dependence -----------------------------------------------------------------------------------


def test_dependence_is_the_mean_prediction_with_the_column_set(
    regressor: lamina.TabularRegressor,
) -> None:
    new = people(7)
    found = regressor.explain(new, kind="dependence", columns="age", individual=True)
    assert found.grids[0].min() == min(a for a in new["age"] if a is not None)
    assert (np.diff(found.grids[0]) > 0).all()
    for k in (0, len(found.grids[0]) - 1):
        by_hand = regressor.predict({**new, "age": [float(found.grids[0][k])] * N})
        assert found.mean[k, 0] == pytest.approx(by_hand.mean(), rel=1e-9)
        np.testing.assert_array_equal(found.individual[:, k, 0], by_hand)
    slope = np.polyfit(found.grids[0], found.mean[:, 0], 1)[0]
    assert slope == pytest.approx(10.0, rel=0.1)


def test_dependence_on_a_category_has_its_levels_and_missing(
    classifier: lamina.TabularClassifier,
) -> None:
    new = people(8)
    found = classifier.explain(new, kind="dependence", columns=["city"])
    assert sorted(found.grids[0][:-1]) == ["Lima", "Oslo", "Rome"]
    assert found.grids[0][-1] == "missing"
    assert found.individual is None
    for level, mean in zip(found.grids[0], found.mean, strict=True):
        value = None if level == "missing" else level
        by_hand = classifier.predict_proba({**new, "city": [value] * N}).mean(axis=0)
        np.testing.assert_allclose(mean, by_hand, rtol=1e-6)


def test_dependence_on_two_columns_and_on_dates(regressor: lamina.TabularRegressor) -> None:
    new = rows(people(9), 100)
    found = regressor.explain(new, kind="dependence", columns=("city", "since"))
    assert found.grids[1].dtype == np.dtype("datetime64[s]")
    assert found.mean.shape == (4, len(found.grids[1]), 1)
    city, day = found.grids[0][1], str(found.grids[1][3])[:10]
    by_hand = regressor.predict({**new, "city": [city] * 100, "since": [day] * 100})
    assert found.mean[1, 3, 0] == pytest.approx(by_hand.mean(), rel=1e-9)
    assert found.to_dict()["grids"][1][3].startswith(day)


def test_dependence_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    y = X[:, 0] ** 2 + X[:, 1]
    model = lamina.TabularRegressor("fast", random_state=0, n_threads=1).fit(X, y)
    found = model.explain(X, kind="dependence", columns="x0")
    theirs = partial_dependence(
        model, X, [0], custom_values={0: found.grids[0]}, kind="average", method="brute"
    )
    np.testing.assert_allclose(found.mean[:, 0], theirs["average"][0], rtol=1e-9)


# --- what is kept, and what is refused ------------------------------------------------------------


def test_the_background_is_a_sample_of_the_rows_of_weight(
    regressor: lamina.TabularRegressor,
) -> None:
    assert regressor.background_.shape == (BACKGROUND_ROWS, len(regressor.inputs_.sources))
    assert regressor.background_.dtype == np.float32
    x = regressor.inputs_.transform(as_table(people()))
    assert {tuple(r) for r in regressor.background_} <= {tuple(r) for r in x}
    x = np.arange(10, dtype=np.float32)[:, None]
    weight = np.array([0.0, 1.0] * 5)
    assert sorted(draw_background(x, weight, 0)[:, 0]) == [1, 3, 5, 7, 9]


def test_explanations_survive_pickle_and_become_json(
    classifier: lamina.TabularClassifier,
) -> None:
    new = rows(people(10), 30)
    y = np.where(wage(new) > 600, "rich", "poor")
    copy = pickle.loads(pickle.dumps(classifier))
    for arguments in (
        {},
        {"y": y, "kind": "importance"},
        {"kind": "dependence", "columns": "age"},
    ):
        found = classifier.explain(new, **arguments)
        document = json.loads(json.dumps(found.to_dict()))
        assert document == json.loads(json.dumps(copy.explain(new, **arguments).to_dict()))
        assert document["kind"] == arguments.get("kind", "attributions")
        assert type(found).__name__ in repr(found)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"kind": "shap"}, SpecError, "expected kind to be one of 'attributions', 'importance'"),
        ({"kind": "importance"}, SpecError, "expected y with kind='importance', got None"),
        ({"kind": "dependence"}, SpecError, "expected columns with kind='dependence', got None"),
        ({"columns": "age"}, SpecError, "expected columns only with kind='dependence'"),
        ({"scoring": "log_loss"}, SpecError, "expected scoring only with kind='importance'"),
        ({"n_repeats": 0}, SpecError, "whole number of at least 1, got 0"),
        ({"kind": "dependence", "columns": "Age"}, DataError, "got 'Age'. Did you mean 'age'?"),
        ({"kind": "dependence", "columns": "note"}, DataError, "got 'note' of free text"),
        ({"kind": "dependence", "columns": ("age", "age")}, SpecError, "two different ones"),
        (
            {"kind": "dependence", "columns": ("age", "city"), "individual": True},
            SpecError,
            "expected individual=True with one column, got two",
        ),
        ({"rng": "one"}, SpecError, "rng"),
        ({"kind": "importance", "y": ["rich"]}, ShapeError, "expected y of 20 rows"),
        ({"kind": "importance", "y": ["king"] * 20}, DataError, "got 'king' in row 0"),
        ({"kind": "importance", "y": [1] * 20}, DataError, "got 1 in row 0"),
        ({"kind": "importance", "y": [None] * 20}, DataError, "expected a target in every row"),
        (
            {"kind": "importance", "y": ["rich"] * 20, "scoring": "auc"},
            SpecError,
            "expected scoring to be one of 'log_loss', 'error_rate', got 'auc'",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    classifier: lamina.TabularClassifier, arguments: dict[str, Any], error: Any, says: str
) -> None:
    with pytest.raises(error) as caught:
        classifier.explain(rows(people(), 20), **arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_classes_are_found_among_unlike_types() -> None:
    classes = np.array([1, 5, 9])
    assert class_codes(np.array([9, 1]), classes, "t").tolist() == [2, 0]
    with pytest.raises(DataError, match="got 'x' in row 1"):
        class_codes(np.array([9, "x"], dtype=object), classes, "t")
    with pytest.raises(DataError, match="got 10 in row 0"):
        class_codes(np.array([10]), classes, "t")
