"""The estimators in scikit-learn's company: pipelines, searches, weights, several targets."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.metrics import recall_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from lamina import TabularClassifier, TabularRegressor

RNG = np.random.default_rng(0)
N = 300
NUMBERS = RNG.normal(size=(N, 3))
LOGIT = 3 * NUMBERS[:, 0] - 2 * NUMBERS[:, 1]
CLASSES = np.where(LOGIT + RNG.logistic(size=N) > 0, "yes", "no")


def frame() -> Any:
    """A data frame whose class follows from two of its columns."""
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(NUMBERS, columns=["a", "b", "c"])
    rng = np.random.default_rng(2)
    table["colour"] = pd.Categorical(rng.choice(["red", "blue"], N))
    table["when"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, N), unit="D")
    return table


def test_in_a_pipeline_with_columns_by_name() -> None:
    scaled = make_column_transformer(
        (StandardScaler(), ["a", "b"]), remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    model = make_pipeline(scaled, TabularClassifier("fast", random_state=0)).fit(frame(), CLASSES)
    assert model.score(frame(), CLASSES) > 0.85
    inner = model[-1]
    assert list(inner.feature_names_in_) == ["a", "b", "c", "colour", "when"]
    assert model.predict_proba(frame()).shape == (N, 2)
    model = make_pipeline(FunctionTransformer(), TabularRegressor("fast", random_state=0))
    assert model.fit(frame(), LOGIT).score(frame(), LOGIT) > 0.9


def test_a_grid_over_presets() -> None:
    search = GridSearchCV(
        TabularClassifier(random_state=0, n_threads=1),
        {"preset": ["fast", "default"], "class_weight": [None, "balanced"]},
        cv=2,
        scoring="neg_log_loss",
    ).fit(frame(), CLASSES)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ > -0.5
    assert search.predict(frame()).shape == (N,)


def test_cross_validation() -> None:
    model = TabularClassifier("fast", random_state=0, n_threads=1)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(model, frame(), CLASSES, cv=folds)
    assert scores.min() > 0.75
    p = cross_val_predict(model, frame(), CLASSES, cv=folds, method="predict_proba")
    again = cross_val_predict(model, frame(), CLASSES, cv=folds, method="predict_proba")
    np.testing.assert_array_equal(p, again)
    r2 = cross_val_score(TabularRegressor("fast", random_state=0), frame(), LOGIT, cv=3)
    assert r2.min() > 0.8


def test_parallel_searches_neither_hang_nor_differ() -> None:
    alone, parallel = (
        cross_val_score(
            TabularClassifier("fast", random_state=0, n_threads=1),
            NUMBERS,
            CLASSES,
            cv=2,
            n_jobs=n_jobs,
        )
        for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(alone, parallel)


def test_a_transformed_target() -> None:
    model = TransformedTargetRegressor(
        TabularRegressor("fast", random_state=0), func=np.log1p, inverse_func=np.expm1
    )
    y = np.exp(LOGIT / 3)
    assert model.fit(NUMBERS, y).score(NUMBERS, y) > 0.8


def rare() -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows of which few are of class 1, and overlap with the others."""
    rng = np.random.default_rng(1)
    y = (rng.random(1500) < 0.08).astype(int)
    return rng.normal(size=(1500, 2)) + 1.2 * y[:, np.newaxis], y


def test_class_weight_moves_the_border_to_the_rare_class() -> None:
    x, y = rare()
    plain = TabularClassifier("fast", random_state=0).fit(x, y)
    balanced = TabularClassifier("fast", class_weight="balanced", random_state=0).fit(x, y)
    given = TabularClassifier("fast", class_weight={0: 1.0, 1: 11.5}, random_state=0).fit(x, y)
    assert recall_score(y, plain.predict(x)) < 0.5
    assert recall_score(y, balanced.predict(x)) > 0.7
    assert recall_score(y, given.predict(x)) > 0.7
    # Probabilities are those of the weighted rows: half of the weight is the rare class's
    weight = np.where(y == 1, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    assert np.average(balanced.predict_proba(x)[:, 1], weights=weight) == pytest.approx(
        0.5, abs=0.06
    )
    assert plain.predict_proba(x)[:, 1].mean() == pytest.approx(y.mean(), abs=0.02)


def test_class_weight_is_a_sample_weight() -> None:
    x, y = rare()
    by_class = TabularClassifier("fast", class_weight={0: 1.0, 1: 4.0}, random_state=0).fit(x, y)
    by_row = TabularClassifier("fast", random_state=0)
    by_row.fit(x, y, sample_weight=np.where(y == 1, 4.0, 1.0))
    np.testing.assert_allclose(by_class.predict_proba(x), by_row.predict_proba(x), rtol=1e-6)


@pytest.mark.parametrize("kind", [TabularClassifier, TabularRegressor])
def test_rows_of_weight_0_teach_nothing(kind: Any) -> None:
    y = (LOGIT > 0).astype(float)
    wrong = np.where(np.arange(N) % 2 == 0, y, 1 - y)  # every second row lies
    weight = (np.arange(N) % 2 == 0).astype(float)
    model = kind("fast", random_state=0).fit(NUMBERS, wrong, sample_weight=weight)
    lying = kind("fast", random_state=0).fit(NUMBERS, wrong)
    assert model.score(NUMBERS, y) > 0.7
    assert lying.score(NUMBERS, y) < 0.7
    changed = np.where(weight > 0, wrong, y)
    again = kind("fast", random_state=0).fit(NUMBERS, changed, sample_weight=weight)
    if kind is TabularClassifier:  # the range of a regressor's predictions sees all rows
        np.testing.assert_array_equal(model.predict_proba(NUMBERS), again.predict_proba(NUMBERS))


def test_weighted_means_are_predicted_where_nothing_else_is_known() -> None:
    x = np.tile([[0.0], [1.0]], (200, 1))
    y = np.where(np.arange(400) // 2 % 2 == 0, 10.0, 20.0)
    weight = np.where(y == 20.0, 3.0, 1.0)
    model = TabularRegressor("fast", random_state=0).fit(x, y, sample_weight=weight)
    np.testing.assert_allclose(model.predict(x[:2]), 17.5, atol=0.4)


def test_several_labels() -> None:
    y = np.stack([NUMBERS[:, 0] > 0, NUMBERS[:, 1] > 0.5, NUMBERS[:, 2] < 0], axis=1).astype(int)
    model = TabularClassifier("fast", random_state=0).fit(NUMBERS, y)
    p = model.predict_proba(NUMBERS)
    assert p.shape == (N, 3)
    np.testing.assert_array_equal(model.predict(NUMBERS), p > 0.5)
    assert (model.predict(NUMBERS) == y).mean() > 0.93
    assert model.out_of_fold_proba_.shape == (N, 3)


def test_several_targets_in_their_own_units() -> None:
    y = np.stack([1000 + 50 * NUMBERS[:, 0], -0.001 * NUMBERS[:, 1]], axis=1)
    model = TabularRegressor("default", random_state=0).fit(NUMBERS, y)
    assert model.predict(NUMBERS).shape == y.shape
    for k in range(2):
        residual = y[:, k] - model.predict(NUMBERS)[:, k]
        assert residual.var() < 0.1 * y[:, k].var()


@pytest.mark.parametrize("kind", [TabularClassifier, TabularRegressor])
def test_thirty_rows_take_less_than_a_second(kind: Any) -> None:
    """Of processor time, all threads together: what others do on the machine does not count."""
    x, y = NUMBERS[:30], (np.arange(30) % 3).astype(float)
    kind(random_state=0).fit(x, y)  # imports and threads
    began = time.process_time()
    kind(random_state=0).fit(x, y)
    assert time.process_time() - began < 1.0
