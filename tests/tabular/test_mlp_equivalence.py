"""Fits equal scikit-learn's: the same weights, losses, scores and iterations from one seed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
import sklearn.neural_network
from sklearn.datasets import load_digits
from tests.tolerances import assert_close, rounding

import lamina

N, D, EPOCHS = 53, 4, 12  # 53 rows: batches of 16 end with one of 5

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def _tasks():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    labels = np.array(["ash", "birch", "cedar"])
    return x, {
        "binary": ("MLPClassifier", np.where(x[:, 0] > 0, "yes", "no")),
        "multiclass": ("MLPClassifier", labels[rng.integers(0, 3, N)]),
        "multilabel": ("MLPClassifier", (x[:, :3] + x[:, 1:] > 0).astype(int)),
        "regression": ("MLPRegressor", x[:, 0] * x[:, 1]),
        "multi-output": ("MLPRegressor", x[:, :2] * x[:, 1:3]),
        "poisson": ("MLPRegressor", rng.poisson(np.exp(0.5 * x[:, 0]))),
        "poisson multi-output": ("MLPRegressor", rng.poisson(2.0, size=(N, 2))),
    }


X, TASKS = _tasks()
WEIGHT = np.random.default_rng(1).uniform(0.1, 3.0, N)


def make_pair(task, **parameters):
    """Return scikit-learn's estimator, ours and y."""
    name, y = TASKS[task]
    settings = {
        "hidden_layer_sizes": (7, 5),
        "max_iter": EPOCHS,
        "batch_size": 16,
        "learning_rate_init": 0.01,
        "random_state": 3,
        **({"loss": "poisson"} if task.startswith("poisson") else {}),
        **parameters,
    }
    theirs = getattr(sklearn.neural_network, name)(**settings)
    return theirs, getattr(lamina, name)(**settings), y


def assert_same_fit(theirs, ours, x=X, tolerance=None):
    """Every learned attribute and every prediction agrees."""
    if tolerance is None:
        # sums over N rows in each of EPOCHS, a hundred-fold for what the path adds; a step of
        # L-BFGS divides by differences of gradients, which adds a digit
        tolerance = rounding(np.float64, N * EPOCHS * 100)
        if theirs.solver == "lbfgs":
            tolerance *= 10
    for name in ("coefs_", "intercepts_"):
        assert len(getattr(theirs, name)) == len(getattr(ours, name))
        for a, b in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            assert_close(a, b, tolerance, name)
            assert a.dtype == b.dtype
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("loss_curve_", "validation_scores_"):
        expected = getattr(theirs, name, None)
        actual = getattr(ours, name, None)
        assert (expected is None) == (actual is None), name
        if expected is not None:
            assert_close(actual, expected, tolerance, name)
    for name in ("loss_", "best_loss_", "best_validation_score_"):
        expected = getattr(theirs, name, None)
        if expected is not None and np.isfinite(expected):
            assert_close(getattr(ours, name), expected, tolerance, name)
    if hasattr(theirs, "classes_"):
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        assert_close(ours.predict_proba(x), theirs.predict_proba(x), tolerance, "predict_proba")
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
        assert ours.predict(x).dtype == theirs.predict(x).dtype
    else:
        assert_close(ours.predict(x), theirs.predict(x), tolerance, "predict")


def check(task, *, sample_weight=None, **parameters):
    theirs, ours, y = make_pair(task, **parameters)
    theirs.fit(X, y, sample_weight=sample_weight)
    ours.fit(X, y, sample_weight=sample_weight)
    assert_same_fit(theirs, ours)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("task", TASKS)
def test_fit_equals_scikit_learn(task, solver, activation):
    check(task, solver=solver, activation=activation)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("task", TASKS)
def test_weighted_fit_equals_scikit_learn(task, solver):
    check(task, solver=solver, sample_weight=WEIGHT, alpha=0.1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_early_stopping_equals_scikit_learn(task, weighted):
    check(
        task,
        early_stopping=True,
        validation_fraction=0.3,
        n_iter_no_change=2,
        max_iter=40,
        learning_rate_init=0.05,
        sample_weight=WEIGHT if weighted else None,
    )


VARIANTS = {
    "no shuffle": {"shuffle": False},
    "one row a batch": {"batch_size": 1, "max_iter": 3},
    "one batch": {"batch_size": N},
    "auto batch": {"batch_size": "auto"},
    "no penalty": {"alpha": 0.0},
    "large penalty": {"alpha": 3.0},
    "one hidden layer": {"hidden_layer_sizes": 9},
    "linear": {"hidden_layer_sizes": ()},
    "deep": {"hidden_layer_sizes": [3, 4, 5, 6]},
    "wide": {"hidden_layer_sizes": (65,)},
    "stops on tol": {"tol": 0.05, "n_iter_no_change": 3, "max_iter": 50},
    "never stops": {"tol": 1e9, "n_iter_no_change": np.inf},
    "sgd plain": {"solver": "sgd", "momentum": 0.0, "nesterovs_momentum": False},
    "sgd momentum": {"solver": "sgd", "momentum": 0.8, "nesterovs_momentum": False},
    "sgd nesterov": {"solver": "sgd", "momentum": 0.8, "nesterovs_momentum": True},
    "sgd invscaling": {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.3},
    "sgd adaptive": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "tol": 0.02,
        "n_iter_no_change": 1,
        "max_iter": 60,
    },
    "adam decays": {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
    "adam without memory": {"beta_1": 0.0, "beta_2": 0.0},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", ["multiclass", "multi-output", "binary"])
def test_variant_equals_scikit_learn(task, variant):
    check(task, **VARIANTS[variant])


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("task", TASKS)
def test_partial_fits_equal_scikit_learn(task, solver):
    theirs, ours, y = make_pair(task, solver=solver, batch_size=8)
    for part in (slice(0, 20), slice(20, 40), slice(40, 53), slice(0, 53)):
        for est in (theirs, ours):
            classes = {"classes": np.unique(y)} if hasattr(est, "predict_proba") else {}
            if task == "multilabel":
                classes = {"classes": [0, 1, 2]}
            est.partial_fit(X[part], y[part], **classes)
    assert_same_fit(theirs, ours)


def test_partial_fit_after_fit_continues_the_optimiser():
    theirs, ours, y = make_pair("multiclass")
    for est in (theirs, ours):
        est.fit(X, y)
        est.set_params(beta_1=0.1, learning_rate_init=1.0)  # for the next fit, not for this one
        est.partial_fit(X, y, sample_weight=WEIGHT)
    assert_same_fit(theirs, ours)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_warm_starts_equal_scikit_learn(solver, early_stopping):
    theirs, ours, y = make_pair(
        "binary", solver=solver, early_stopping=early_stopping, warm_start=True, max_iter=6
    )
    for _ in range(3):
        theirs.fit(X, y)
        ours.fit(X, y)
        assert_same_fit(theirs, ours)


def test_fit_that_diverges_at_once_ends_with_the_first_weights():
    """No score is a number, so early stopping restores what was there before the first step."""
    theirs, ours, y = make_pair(
        "regression",
        solver="sgd",
        activation="identity",
        learning_rate_init=1e9,
        early_stopping=True,
        batch_size=1,
    )
    with np.errstate(all="ignore"):
        theirs.fit(X, y)
    ours.fit(X, y)
    assert np.isnan(ours.validation_scores_).all()
    np.testing.assert_array_equal(ours.validation_scores_, theirs.validation_scores_)
    for a, b in zip(
        ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True
    ):
        assert_close(a, b, rounding(np.float64))


def test_random_state_is_drawn_from_as_by_scikit_learn():
    theirs, ours, y = make_pair("multiclass", early_stopping=True)
    states = np.random.RandomState(5), np.random.RandomState(5)
    for est, state in zip((theirs, ours), states, strict=True):
        est.set_params(random_state=state).fit(X, y)
    assert_same_fit(theirs, ours)
    assert states[0].randint(2**31) == states[1].randint(2**31)


@pytest.mark.parametrize("task", TASKS)
def test_float32_fit_stays_near_scikit_learn(task):
    theirs, ours, y = make_pair(task)
    theirs.fit(X.astype(np.float32), y)
    ours.fit(X.astype(np.float32), y)
    assert all(w.dtype == np.float32 for w in ours.coefs_ + ours.intercepts_)
    for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
        assert_close(a, b, rounding(np.float32, N * EPOCHS), "coefs_")
    assert_close(
        ours.loss_curve_, theirs.loss_curve_, rounding(np.float32, N * EPOCHS), "loss_curve_"
    )


def test_float32_lbfgs_works_in_float64():
    theirs, ours, y = make_pair("multiclass", solver="lbfgs")
    x = X.astype(np.float32)
    theirs.fit(x, y)
    ours.fit(x, y)
    for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
        assert a.dtype == b.dtype == np.float64
        assert_close(a, b, rounding(np.float32, N * EPOCHS), "coefs_")


@pytest.mark.parametrize("layout", ["F", "strided", "csr", "csc", "frame"])
def test_any_layout_of_x_gives_the_same_fit(layout):
    theirs, ours, y = make_pair("multiclass")
    x = X.copy()
    if layout == "F":
        x = np.asfortranarray(x)
    elif layout == "strided":
        x = np.repeat(x, 2, axis=0)[::2]
    elif layout in ("csr", "csc"):
        x = scipy.sparse.csr_matrix(x).asformat(layout)
    else:
        x = pytest.importorskip("pandas").DataFrame(x, columns=list("abcd"))
    assert_same_fit(theirs.fit(x, y), ours.fit(x, y), x)


def test_digits_fit_equals_scikit_learn():
    """A real table, at the width of workload A, for as long as training takes."""
    x, y = load_digits(return_X_y=True)
    theirs = sklearn.neural_network.MLPClassifier(max_iter=15, random_state=0).fit(x / 16, y)
    ours = lamina.MLPClassifier(max_iter=15, random_state=0).fit(x / 16, y)
    assert_same_fit(theirs, ours, x / 16, rounding(np.float64, len(x) * 15 * 100))


def test_clipped_batch_size_warns_as_scikit_learn():
    theirs, ours, y = make_pair("binary", batch_size=1000)
    for est in (theirs, ours):
        with pytest.warns(UserWarning, match="It is going to be clipped"):
            est.fit(X, y)
    assert_same_fit(theirs, ours)


def test_verbose_prints_equal_scikit_learn(capsys):
    for early_stopping in (False, True):
        theirs, ours, y = make_pair(
            "binary",
            solver="sgd",
            verbose=True,
            learning_rate="adaptive",
            tol=0.1,
            n_iter_no_change=1,
            max_iter=40,
            early_stopping=early_stopping,
        )
        theirs.fit(X, y)
        expected = capsys.readouterr().out
        ours.fit(X, y)
        assert capsys.readouterr().out == expected
        assert "Setting learning rate" in expected


def test_stop_message_equals_scikit_learn(capsys):
    theirs, ours, y = make_pair("regression", verbose=True, tol=1.0, n_iter_no_change=2)
    theirs.fit(X, y)
    expected = capsys.readouterr().out
    ours.fit(X, y)
    assert capsys.readouterr().out == expected
    assert expected.endswith("Stopping.\n")


def test_warnings_equal_scikit_learn():
    for solver in ("adam", "lbfgs"):
        caught = []
        for est in make_pair("binary", solver=solver, max_iter=2)[:2]:
            with warnings.catch_warnings(record=True) as record:
                warnings.simplefilter("always")
                est.fit(X, TASKS["binary"][1])
            caught.append([(w.category, str(w.message)) for w in record])
        assert caught[0] == caught[1]
        assert len(caught[0]) == 1


def test_the_comparison_notices_a_difference():
    """The oracle fails where fits differ: another seed, an edited weight, a lost loss."""
    theirs, ours, y = make_pair("binary")
    theirs.fit(X, y)
    ours.fit(X, y)
    assert_same_fit(theirs, ours)
    ours.coefs_[1][2, 1] += 1e-8
    with pytest.raises(AssertionError, match="coefs_"):
        assert_same_fit(theirs, ours)
    ours.set_params(random_state=4).fit(X, y)
    with pytest.raises(AssertionError, match="coefs_"):
        assert_same_fit(theirs, ours)
    ours.set_params(random_state=3).fit(X, y)
    ours.loss_curve_[3] *= 1 + 1e-9
    with pytest.raises(AssertionError, match="loss_curve_"):
        assert_same_fit(theirs, ours)
