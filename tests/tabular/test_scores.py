"""Scores that agree with scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from lamina.tabular.scores import area_under_curve, class_scores, number_scores


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_area_under_curve_agrees_with_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    positive, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 5
    if positive.all() or not positive.any():
        return
    assert area_under_curve(positive, score) == pytest.approx(sk.roc_auc_score(positive, score))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_scores_of_classes_agree_with_scikit_learn(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, n_classes, 200), rng.dirichlet(np.ones(n_classes), 200)
    expected = {
        "accuracy": sk.accuracy_score(y, p.argmax(axis=1)),
        "log_loss": sk.log_loss(y, p),
    }
    if n_classes == 2:
        expected["auc"] = sk.roc_auc_score(y, p[:, 1])
    assert class_scores(y, p) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(200,), (200, 3)])
def test_scores_of_numbers_agree_with_scikit_learn(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    y, y_pred = rng.normal(5, 3, shape), rng.normal(5, 3, shape)
    assert number_scores(y, y_pred) == pytest.approx(
        {
            "r2": sk.r2_score(y, y_pred),
            "rmse": np.sqrt(sk.mean_squared_error(y, y_pred)),
            "mae": sk.mean_absolute_error(y, y_pred),
        }
    )


def test_rows_that_nobody_predicted_are_left_out() -> None:
    y, p = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [np.nan, np.nan]])
    assert class_scores(y, p) == class_scores(y[:2], p[:2])
    assert class_scores(y[2:], p[2:]) == {}
    assert number_scores(np.arange(3.0), np.array([0, 2, np.nan]))["mae"] == 0.5
    assert number_scores(np.arange(1.0), np.array([np.nan])) == {}


def test_auc_is_left_out_where_it_is_not_defined() -> None:
    assert "auc" not in class_scores(np.zeros(3, dtype=np.int32), np.full((3, 2), 0.5))
