"""Metrics against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as theirs
from tests.tolerances import assert_close, rounding

from lamina.core import metrics

RNG = np.random.default_rng(0)
N = 50
TOLERANCE = rounding("float64", N)
WEIGHTS = [None, RNG.uniform(0.1, 2.0, N)]


@pytest.mark.parametrize("weight", WEIGHTS, ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", [(N,), (N, 3)])
def test_regression_metrics_match_scikit_learn(shape, weight):
    y, y_pred = RNG.normal(size=shape), RNG.normal(size=shape)
    pairs = [
        (metrics.r2, theirs.r2_score),
        (metrics.mse, theirs.mean_squared_error),
        (metrics.mae, theirs.mean_absolute_error),
    ]
    for ours, their in pairs:
        expected = their(y, y_pred, sample_weight=weight)
        assert_close(ours(y, y_pred, weight), expected, TOLERANCE, ours.__name__)


def test_rmse_is_the_root_of_the_mean_over_all_outputs():
    assert metrics.rmse(np.array([0.0, 0.0]), np.array([3.0, 4.0])) == pytest.approx(12.5**0.5)


@pytest.mark.parametrize("y_pred", [[1.0, 1.0], [1.0, 2.0]])
def test_r2_of_a_constant_target_follows_scikit_learn(y_pred):
    y = np.ones(2)
    assert metrics.r2(y, np.array(y_pred)) == theirs.r2_score(y, y_pred)


@pytest.mark.parametrize("weight", WEIGHTS, ids=["plain", "weighted"])
def test_classification_metrics_match_scikit_learn(weight):
    y = RNG.integers(0, 3, N)
    p = RNG.dirichlet(np.ones(3), N)
    expected = theirs.accuracy_score(y, p.argmax(axis=1), sample_weight=weight)
    assert_close(metrics.accuracy(y, p.argmax(axis=1), weight), expected, TOLERANCE)
    assert_close(
        metrics.log_loss(y, p, weight), theirs.log_loss(y, p, sample_weight=weight), TOLERANCE
    )


def test_a_row_of_labels_is_right_only_as_a_whole():
    y = np.array([[0, 1], [1, 1]])
    assert metrics.accuracy(y, np.array([[0, 1], [0, 1]])) == 0.5


def test_log_loss_of_certainty_in_the_wrong_class_is_finite():
    assert metrics.log_loss(np.array([0]), np.array([[0.0, 1.0]])) == pytest.approx(
        -np.log(np.finfo(np.float64).eps)
    )


def test_expected_calibration_error_by_hand():
    """Confidences 0.6, 0.7 | 0.8, 0.9; right: no, yes | yes, yes."""
    p = np.array([[0.1, 0.9], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    y = np.array([1, 0, 0, 1])
    halves = 0.5 * abs(0.5 - 0.65) + 0.5 * abs(1.0 - 0.85)
    assert_close(metrics.expected_calibration_error(y, p, 2), halves, TOLERANCE)
    assert_close(metrics.expected_calibration_error(y, p, 1), abs(0.75 - 0.75), TOLERANCE)
    each = (0.6 + 0.3 + 0.2 + 0.1) / 4  # more bins than rows: a row a bin
    assert_close(metrics.expected_calibration_error(y, p), each, TOLERANCE)


def test_expected_calibration_error_counts_a_weight_as_rows():
    y = RNG.integers(0, 3, N)
    p = RNG.dirichlet(np.ones(3), N)
    times = RNG.integers(0, 4, N)
    repeated = np.repeat(y, times), np.repeat(p, times, axis=0)
    plain = metrics.expected_calibration_error(*repeated, 1)
    assert_close(metrics.expected_calibration_error(y, p, 1, times), plain, TOLERANCE)
    doubled = metrics.expected_calibration_error(y, p, 5, np.full(N, 2.0))
    assert_close(doubled, metrics.expected_calibration_error(y, p, 5), TOLERANCE)


def test_expected_calibration_error_tells_honest_from_boastful_probabilities():
    rng = np.random.default_rng(1)
    p = rng.uniform(size=20_000)
    y = (rng.random(len(p)) < p).astype(int)
    honest = metrics.expected_calibration_error(y, np.stack([1 - p, p], axis=1))
    boast = p**3 / (p**3 + (1 - p) ** 3)
    boastful = metrics.expected_calibration_error(y, np.stack([1 - boast, boast], axis=1))
    confidence = np.maximum(boast, 1 - boast)
    expected = np.mean(confidence) - np.mean(np.maximum(p, 1 - p))
    assert honest < 0.015
    assert boastful == pytest.approx(expected, abs=0.015)
