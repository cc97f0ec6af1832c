"""scikit-learn's own checks of the two estimators of raw tables."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import lamina

# Folds and batches see a repeated row twice and a weighted one once.
EXPECTED = {"check_sample_weight_equivalence_on_dense_data": "folds are made of rows"}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [lamina.TabularClassifier("fast"), lamina.TabularRegressor("fast")],
    expected_failed_checks=lambda _: EXPECTED,
)
def test_estimator_obeys_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
