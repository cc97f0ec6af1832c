"""scikit-learn's checks of any estimator, without one expected failure."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import (
    check_sample_weight_equivalence_on_dense_data,
    parametrize_with_checks,
)

from lamina import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("default", "ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks([MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)])
def test_estimator_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "estimator",
    [MLPClassifier(solver="lbfgs"), MLPRegressor(solver="sgd", tol=1e-2, random_state=42)],
)
def test_weights_equal_repeated_rows(estimator):
    """As scikit-learn checks its own, with the solvers it chooses for this."""
    check_sample_weight_equivalence_on_dense_data(type(estimator).__name__, estimator)
