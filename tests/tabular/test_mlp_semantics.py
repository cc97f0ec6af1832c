"""What scikit-learn's private tests mean, through public attributes; and how fits end."""

from __future__ import annotations

import _thread
import pickle
import threading
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from tests.tolerances import assert_close, difference_step, finite_difference, rounding

import lamina
from lamina import MLPClassifier, MLPRegressor
from lamina.core.functions import ACTIVATIONS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


def digits():
    x, y = load_digits(n_class=2, return_X_y=True)
    return x[:100] / 16, y[:100]


# --- in place of scikit-learn's six tests that read private attributes --------------------------


def test_one_step_equals_the_worked_example():
    """test_fit: the numbers are worked out by hand in scikit-learn's suite."""
    x, y = np.array([[0.6, 0.8, 0.7]]), np.array([0])
    mlp = MLPClassifier(
        2, "logistic", solver="sgd", learning_rate_init=0.1, alpha=0.1, momentum=0, random_state=1
    )
    mlp.partial_fit(x, y, classes=[0, 1])
    mlp.coefs_ = [np.array([[0.1, 0.2], [0.3, 0.1], [0.5, 0]]), np.array([[0.1], [0.2]])]
    mlp.intercepts_ = [np.array([0.1, 0.1]), np.array([1.0])]
    mlp.partial_fit(x, y)
    expected = [[0.098, 0.195756], [0.2956664, 0.096008], [0.4939998, -0.002244]]
    np.testing.assert_almost_equal(mlp.coefs_[0], expected, decimal=3)
    np.testing.assert_almost_equal(mlp.coefs_[1], [[0.04706], [0.154089]], decimal=3)
    np.testing.assert_almost_equal(mlp.intercepts_[0], [0.098333, 0.09626], decimal=3)
    np.testing.assert_almost_equal(mlp.intercepts_[1], [0.9235], decimal=3)
    np.testing.assert_almost_equal(mlp.predict_proba(x)[0, 1], 0.739, decimal=3)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "step"])
@pytest.mark.parametrize("n_labels", [2, 3])
def test_step_follows_finite_differences_of_the_loss(activation, n_labels):
    """test_gradient: a step of plain descent moves by -lr times the slope of loss_."""
    rng = np.random.default_rng(42)
    x = rng.normal(size=(5, 3))
    y = 1 + np.mod(np.arange(5) + 1, n_labels)
    mlp = MLPClassifier(4, activation, solver="sgd", alpha=0.3, momentum=0, random_state=1)
    mlp.partial_fit(x, y, classes=np.unique(y))
    start = [a.copy() for a in (*mlp.coefs_, *mlp.intercepts_)]

    def step_from(arrays):
        mlp.coefs_, mlp.intercepts_ = list(arrays[:2]), list(arrays[2:])
        mlp.partial_fit(x, y)
        return mlp.loss_, [*mlp.coefs_, *mlp.intercepts_]

    _, after = step_from([a.copy() for a in start])
    h = difference_step()
    for k, array in enumerate(start):
        slope = np.empty_like(array)
        for index in np.ndindex(array.shape):
            losses = []
            for sign in (1, -1):
                moved = [a.copy() for a in start]
                moved[k][index] += sign * h
                losses.append(step_from(moved)[0])
            slope[index] = (losses[0] - losses[1]) / (2 * h)
        moved_by = (array - after[k]) / mlp.learning_rate_init
        assert_close(moved_by, slope, finite_difference(5 * 4), f"gradient {k}")


def test_warm_start_restarts_the_learning_rate_and_t_goes_on():
    """test_learning_rate_warmstart: after two fits of 4 rows invscaling is at t = 8."""
    x, y = [[3, 2], [1, 6], [5, 6], [-2, -4]], [1, 1, 1, 0]
    moves = {}
    for learning_rate in ("invscaling", "constant"):
        mlp = MLPClassifier(
            4,
            "tanh",
            solver="sgd",
            learning_rate=learning_rate,
            momentum=0,
            max_iter=1,
            power_t=0.25,
            warm_start=True,
            random_state=0,
        )
        mlp.fit(x, y)
        mlp.fit(x, y)
        assert mlp.t_ == 8
        before = mlp.coefs_[0].copy()
        mlp.partial_fit(x, y)
        moves[learning_rate] = mlp.coefs_[0] - before
    # one epoch at lr and one more at lr again leave both at the same weights
    assert_close(
        moves["invscaling"], moves["constant"] / (8 + 1) ** 0.25, rounding(np.float64, 1000)
    )


def test_adaptive_learning_rate_ends_below_its_floor(capsys):
    """test_adaptive_learning_rate: it shrinks to 1e-6 before training stops."""
    clf = MLPClassifier(
        tol=0.5, max_iter=3000, solver="sgd", learning_rate="adaptive", verbose=True, random_state=0
    )
    clf.fit([[3, 2], [1, 6]], [1, 0])
    lines = capsys.readouterr().out.splitlines()
    rates = [float(line.split()[-1]) for line in lines if "Setting learning rate" in line]
    assert clf.n_iter_ < clf.max_iter
    np.testing.assert_allclose(rates, 0.001 / 5.0 ** np.arange(1, len(rates) + 1), atol=1e-6)
    assert 0.001 / 5.0 ** len(rates) <= 1e-6 < 0.001 / 5.0 ** (len(rates) - 1)
    assert lines[-1].endswith("Learning rate too small. Stopping.")


def epochs_without_improvement(losses, tol):
    best, count = np.inf, 0
    for loss in losses:
        count = count + 1 if loss > best - tol else 0
        best = min(best, loss)
    return count


@pytest.mark.parametrize("n_iter_no_change", [2, 5, 10, 50])
def test_training_stops_one_epoch_after_n_iter_no_change(n_iter_no_change):
    """test_n_iter_no_change."""
    x, y = digits()
    clf = MLPClassifier(
        tol=0.01, max_iter=3000, solver="sgd", n_iter_no_change=n_iter_no_change, random_state=0
    ).fit(x, y)
    assert clf.n_iter_ < clf.max_iter
    assert epochs_without_improvement(clf.loss_curve_, 0.01) == n_iter_no_change + 1
    assert epochs_without_improvement(clf.loss_curve_[:-1], 0.01) == n_iter_no_change


def test_infinite_n_iter_no_change_never_stops():
    """test_n_iter_no_change_inf: no epoch counts as better, yet all are done."""
    x, y = digits()
    clf = MLPClassifier(tol=1e9, max_iter=300, solver="sgd", n_iter_no_change=np.inf).fit(x, y)
    assert clf.n_iter_ == 300
    # the first loss improves on infinity less tol by nothing that counts, nor does any other
    assert epochs_without_improvement(clf.loss_curve_, 1e9) == 299


# --- how fits end -----------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
def test_ctrl_c_warns_and_keeps_the_fit(early_stopping):
    x = np.random.default_rng(0).normal(size=(4000, 10))
    clf = MLPClassifier(
        (64,), max_iter=10**6, tol=0, n_iter_no_change=10**6, early_stopping=early_stopping
    )
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        clf.fit(x, x[:, 0] > 0)
    timer.join()
    assert 0 < clf.n_iter_ < 10**6
    assert clf.score(x, x[:, 0] > 0) > 0.8
    clf.set_params(early_stopping=False).partial_fit(x, x[:, 0] > 0)  # the optimiser is whole


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_divergence_is_a_clear_error(solver, dtype):
    x = np.finfo(dtype).max / 4 * np.random.default_rng(0).uniform(0.5, 1, size=(10, 2))
    x = x.astype(dtype)
    model = MLPRegressor(solver=solver, learning_rate_init=1e3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="non-finite parameter weights") as caught:
            model.fit(x, np.ones(10))
    assert isinstance(caught.value, lamina.DivergenceError)
    assert "Standardise X" in str(caught.value)


def test_divergence_with_early_stopping_keeps_the_best_weights():
    model = MLPRegressor(
        activation="identity",
        solver="sgd",
        learning_rate_init=1,
        early_stopping=True,
        max_iter=20,
        random_state=0,
    )
    model.fit(X * 30, X[:, 0])
    assert np.isnan(model.validation_scores_[-1])
    assert model.n_iter_ == 20
    assert all(np.isfinite(w).all() for w in model.coefs_)


def test_poisson_refuses_negative_targets():
    with pytest.raises(lamina.DataError, match="expected y ≥ 0"):
        MLPRegressor("poisson").fit(X, X[:, 0])


def test_batch_without_weight_is_passed_over():
    weight = np.r_[np.zeros(20), np.ones(20)]
    clf = MLPClassifier(batch_size=10, shuffle=False, max_iter=5)
    clf.fit(X, Y, sample_weight=weight)
    assert np.isfinite(clf.loss_curve_).all()


def test_partial_fit_after_pickle_goes_on_with_the_moments():
    one = MLPClassifier((8,), random_state=0, dropout=0.3).fit(X, Y)
    two = pickle.loads(pickle.dumps(one))
    fresh = MLPClassifier((8,), random_state=0, dropout=0.3)
    fresh.partial_fit(X, Y, classes=[0, 1])
    fresh.coefs_, fresh.intercepts_ = one.coefs_, one.intercepts_
    for _ in range(3):
        for est in (one, two, fresh):
            est.partial_fit(X, Y)
    assert np.array_equal(one.coefs_[0], two.coefs_[0])
    assert not np.array_equal(one.coefs_[0], fresh.coefs_[0])


def test_warm_start_may_change_solver_and_stopping():
    clf = MLPClassifier((8,), solver="lbfgs", warm_start=True, max_iter=3, random_state=0)
    clf.fit(X, Y)
    assert not hasattr(clf, "loss_curve_")
    clf.set_params(solver="adam").fit(X, Y)
    clf.set_params(early_stopping=True).fit(X, Y)
    assert len(clf.validation_scores_) == 3
    assert len(clf.loss_curve_) == 6


def test_maximum_of_iterations_warns():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        MLPClassifier(max_iter=2).fit(X, Y)
