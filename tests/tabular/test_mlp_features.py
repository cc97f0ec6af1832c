"""What the estimators do beyond scikit-learn, and the promises around predictions."""

from __future__ import annotations

import copy
import itertools
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn.neural_network
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.class_weight import compute_sample_weight
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina import MLPClassifier, MLPRegressor
from lamina.core.functions import ACTIVATIONS, softmax
from lamina.core.threads import default_n_threads
from lamina.tabular import rows

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y3 = np.array(["ash", "birch", "cedar"])[RNG.integers(0, 3, 60)]
Y2 = X[:, 0] > 0.8


def fitted(**parameters):
    settings = {"hidden_layer_sizes": (8, 5), "max_iter": 5, "random_state": 0, **parameters}
    return MLPClassifier(**settings).fit(X, Y3)


def by_hand(model, x, names):
    """The forward pass in NumPy, from what the attributes show."""
    h = np.asarray(x, np.float64)
    for weight, bias, name in zip(
        model.coefs_, model.intercepts_, (*names, "identity"), strict=True
    ):
        h = ACTIVATIONS[name].value(h @ weight + bias)
    return softmax(h)


# --- activations, layers, dropout, class weights --------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_every_activation_predicts_its_formula(name, solver):
    model = fitted(activation=name, solver=solver)
    expected = by_hand(model, X, (name, name))
    assert_close(model.predict_proba(X), expected, rounding(np.float64, 100), name)


def test_each_hidden_layer_may_have_its_activation():
    names = ("tanh", "gelu")
    model = fitted(activation=names)
    assert_close(model.predict_proba(X), by_hand(model, X, names), rounding(np.float64, 100))
    with pytest.raises(AssertionError):
        assert_close(model.predict_proba(X), by_hand(model, X, names[::-1]), 1e-3)


def test_sigmoid_is_logistic_and_a_list_of_one_name_is_the_name():
    expected = fitted(activation="logistic").predict_proba(X)
    assert_same_bits(fitted(activation="sigmoid").predict_proba(X), expected)
    assert_same_bits(fitted(activation=["logistic", "sigmoid"]).predict_proba(X), expected)


@pytest.mark.parametrize("activation", ["softmax", ["tanh"], ["tanh", "nonsense"], 3])
def test_unknown_activations_are_refused(activation):
    with pytest.raises(ValueError, match="activation"):
        fitted(activation=activation)


@pytest.mark.parametrize("sizes", [(0,), (3, -1), (2.5,)])
def test_bad_hidden_layer_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="hidden_layer_sizes must be > 0"):
        fitted(hidden_layer_sizes=sizes)


def test_dropout_acts_in_training_alone_and_repeats():
    plain, one, two = fitted(), fitted(dropout=0.4), fitted(dropout=0.4)
    assert_same_bits(one.coefs_[0], two.coefs_[0])
    assert one.loss_curve_ == two.loss_curve_
    assert one.loss_curve_[0] != plain.loss_curve_[0]
    assert_same_bits(one.predict_proba(X), one.predict_proba(X))
    assert_close(one.predict_proba(X), by_hand(one, X, ("relu", "relu")), rounding(np.float64, 100))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("class_weight", ["balanced", {"ash": 2.0, "cedar": 0.25}])
def test_class_weights_are_sample_weights(class_weight, solver):
    weight = np.random.default_rng(1).uniform(0.5, 2, 60)
    factor = compute_sample_weight(class_weight, Y3)
    settings = {"max_iter": 5, "random_state": 0, "solver": solver}
    ours = MLPClassifier(class_weight=class_weight, **settings).fit(X, Y3, weight)
    theirs = sklearn.neural_network.MLPClassifier(**settings).fit(X, Y3, weight * factor)
    assert_close(ours.coefs_[0], theirs.coefs_[0], rounding(np.float64, 1000))


def test_balanced_weights_favour_the_rare_class():
    settings = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 10.0}
    plain = MLPClassifier(**settings).fit(X, Y2)
    balanced = MLPClassifier(class_weight="balanced", **settings).fit(X, Y2)
    assert balanced.predict(X).sum() > plain.predict(X).sum()


def test_balanced_weights_suit_multilabel_targets():
    y = (X[:, :2] > 0.5).astype(int)
    settings = {"max_iter": 5, "random_state": 0}
    ours = MLPClassifier(class_weight="balanced", **settings).fit(X, y)
    weight = compute_sample_weight("balanced", y)
    theirs = sklearn.neural_network.MLPClassifier(**settings).fit(X, y, weight)
    assert_close(ours.coefs_[0], theirs.coefs_[0], rounding(np.float64, 1000))


def test_class_weights_in_partial_fit():
    clf = MLPClassifier(class_weight={"ash": 3.0}, random_state=0)
    clf.partial_fit(X[Y3 != "ash"], Y3[Y3 != "ash"], classes=np.unique(Y3))  # no ash in sight
    with pytest.raises(ValueError, match="balanced"):
        clf.set_params(class_weight="balanced").partial_fit(X, Y3)


# --- coefs_ may be edited -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edits_of_coefs_count(dtype):
    x = X.astype(dtype)
    model = MLPClassifier((8, 5), max_iter=5, random_state=0).fit(x, Y3)

    def check():
        expected = by_hand(model, x, ("relu", "relu"))
        assert_close(model.predict_proba(x), expected, rounding(dtype, 200))
        return expected

    seen = [check()]
    model.coefs_[0][1, 2] += 0.5  # in place
    seen.append(check())
    first = model.coefs_[0]
    first *= -1.0  # through a reference kept before
    seen.append(check())
    model.intercepts_[2][0] = 3.0
    seen.append(check())
    model.coefs_[1] = np.ones((8, 5), dtype)  # an item
    seen.append(check())
    model.coefs_[1][:4] = 0.1  # in place, in the new item
    seen.append(check())
    model.coefs_ = [w * 0.5 for w in model.coefs_]  # the whole list
    seen.append(check())
    model.coefs_ = [np.ones((4, 2), dtype), np.ones((2, 3), dtype)]  # another architecture
    model.intercepts_ = [np.zeros(2, dtype), np.arange(3, dtype=dtype)]
    assert_close(model.predict_proba(x), by_hand(model, x, ("relu",)), rounding(dtype, 200))
    for a, b in itertools.pairwise(seen):
        assert not np.array_equal(a, b)


def test_edits_count_in_partial_fit_and_after_pickling():
    model = fitted(solver="sgd", momentum=0.0)
    model.coefs_[0][:] = 0.0
    model = pickle.loads(pickle.dumps(model))
    assert not model.coefs_[0].any()
    model.partial_fit(X, Y3)
    assert 0 < np.abs(model.coefs_[0]).max() < 0.01


@pytest.mark.parametrize("bad", [[np.ones((4, 8))], [np.ones((4, 8)), np.ones((7, 3))], "text"])
def test_coefs_that_do_not_fit_are_refused(bad):
    model = fitted()
    model.coefs_ = bad
    with pytest.raises(lamina.ShapeError, match="coefs_"):
        model.predict(X)


def test_coefs_for_another_width_are_refused():
    model = fitted(hidden_layer_sizes=(8,))
    model.coefs_ = [np.ones((3, 8)), model.coefs_[1]]
    with pytest.raises(lamina.ShapeError, match="3 columns"):
        model.predict(X)


def test_output_unit_may_be_exchanged():
    """The usual way to get at scores before the softmax."""
    model = fitted()
    p = model.predict_proba(X)
    model.out_activation_ = "identity"
    assert_close(softmax(model.predict_proba(X)), p, rounding(np.float64, 100))


# --- predictions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_row_does_not_depend_on_its_batch(dtype):
    x = X.astype(dtype)
    model = MLPClassifier((33, 17), max_iter=3, random_state=0).fit(x, Y3)
    whole = model.predict_proba(x)
    assert_same_bits(np.concatenate([model.predict_proba(x[i : i + 1]) for i in range(60)]), whole)
    assert_same_bits(model.predict_proba(x[::-1])[::-1], whole)
    assert_same_bits(model.predict_proba(np.asfortranarray(x)), whole)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.float16, object, list])
@pytest.mark.parametrize("trained", [np.float32, np.float64])
def test_prediction_dtype_equals_scikit_learn(kind, trained):
    settings = {"max_iter": 3, "random_state": 0}
    theirs = sklearn.neural_network.MLPRegressor(**settings).fit(X.astype(trained), X[:, 0])
    ours = MLPRegressor(**settings).fit(X.astype(trained), X[:, 0])
    x = np.round(X * 4)
    x = x.tolist() if kind is list else x.astype(kind)
    actual, expected = ours.predict(x), theirs.predict(x)
    assert actual.dtype == expected.dtype
    assert_close(actual, expected, rounding(trained, 1000))


@pytest.mark.parametrize(
    "bad",
    [
        np.full((2, 4), np.nan),
        np.full((2, 4), np.inf),
        np.ones((2, 3)),
        np.ones((2, 5), np.float32),
        np.ones(4),
        np.ones((0, 4)),
        np.ones((2, 2, 2)),
        [["a", "b", "c", "d"]],
    ],
)
def test_bad_rows_are_refused_in_scikit_learns_words(bad):
    theirs = sklearn.neural_network.MLPClassifier((8,), max_iter=3).fit(X, Y3)
    ours = MLPClassifier((8,), max_iter=3).fit(X, Y3)
    with pytest.raises(ValueError) as expected:  # noqa: PT011 (the text is compared below)
        theirs.predict(bad)
    with pytest.raises(ValueError) as actual:  # noqa: PT011
        ours.predict(bad)
    assert str(actual.value) == str(expected.value)


def test_not_fitted_is_said():
    for method in ("predict", "predict_proba", "predict_log_proba"):
        with pytest.raises(NotFittedError):
            getattr(MLPClassifier(), method)(X)
    with pytest.raises(NotFittedError):
        MLPRegressor().save("never.lamina")
    assert not hasattr(MLPClassifier(), "coefs_")
    assert not hasattr(MLPClassifier(), "intercepts_")


def test_feature_names_are_checked():
    frame = pytest.importorskip("pandas").DataFrame(X, columns=list("abcd"))
    model = MLPClassifier((8,), max_iter=3).fit(frame, Y3)
    assert list(model.feature_names_in_) == list("abcd")
    model.predict(frame)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("dcba")])


# --- memory, copies, processes --------------------------------------------------------------------


def test_fit_does_not_copy_clean_rows():
    x = np.random.default_rng(0).normal(size=(200_000, 10))
    y = x[:, 0]
    model = MLPRegressor(hidden_layer_sizes=(2,), max_iter=1, batch_size=10_000)
    model.fit(x[:10_000], y[:10_000])  # what is imported and cached
    tracemalloc.start()
    model.fit(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 2


def batched(monkeypatch):
    monkeypatch.setattr(rows, "DENSE_BYTES", 8 * 4 * 7)  # seven rows


@pytest.mark.parametrize("container", [scipy.sparse.csr_matrix, scipy.sparse.csc_array])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_sparse_rows_by_batches_equal_dense_rows(monkeypatch, solver, early_stopping, container):
    settings = {"solver": solver, "early_stopping": early_stopping, "batch_size": 16}
    dense = fitted(**settings)
    batched(monkeypatch)
    x = container(X)
    sparse = MLPClassifier(**dense.get_params()).fit(x, Y3)
    tolerance = rounding(np.float64, 60 * 5 * 100)
    assert_close(sparse.coefs_[0], dense.coefs_[0], tolerance)
    assert_close(sparse.loss_, dense.loss_, tolerance)
    assert_same_bits(dense.predict_proba(x), dense.predict_proba(X))


def test_sparse_counts_by_batches_equal_dense_rows(monkeypatch):
    y = np.random.default_rng(0).poisson(2.0, size=(60, 2))
    settings = {"loss": "poisson", "batch_size": 16, "max_iter": 4, "random_state": 0}
    weight = np.random.default_rng(1).uniform(0.5, 2, 60)
    dense = MLPRegressor(**settings).fit(X, y, weight)
    batched(monkeypatch)
    sparse = MLPRegressor(**settings).fit(scipy.sparse.csr_matrix(X), y, weight)
    assert_close(sparse.loss_curve_, dense.loss_curve_, rounding(np.float64, 6000))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_predict_the_same_and_live_apart(duplicate):
    model = fitted()
    expected = model.predict_proba(X)
    twin = duplicate(model)
    assert_same_bits(twin.predict_proba(X), expected)
    twin.coefs_[0][:] = 0.0
    twin.partial_fit(X, Y3)
    assert_same_bits(model.predict_proba(X), expected)
    assert not hasattr(clone(twin), "coefs_")
    assert clone(twin).get_params() == model.get_params()


def test_pickles_hold_no_native_handle():
    model = fitted()
    model.predict(X)
    assert b"_native" not in pickle.dumps(model)


def test_same_seed_same_bits():
    assert_same_bits(fitted(dropout=0.2).coefs_[1], fitted(dropout=0.2).coefs_[1])


def test_grid_search_in_two_processes_equals_one():
    grid = {"alpha": [1e-4, 1.0], "activation": ["relu", "gelu"]}
    model = MLPClassifier((8,), max_iter=5, random_state=0)
    two = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X, Y3)
    one = GridSearchCV(model, grid, cv=2, n_jobs=1).fit(X, Y3)
    np.testing.assert_array_equal(
        two.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"]
    )


def threads_of_a_worker(_):
    MLPClassifier((8,), max_iter=2).fit(X, Y3)
    return default_n_threads()


def test_parallel_workers_share_the_processors_between_them():
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(threads_of_a_worker)(i) for i in range(4))
    assert set(found) == {max(1, joblib.cpu_count() // 2)}


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_negative_weights_are_refused(solver):
    weight = np.ones(60)
    weight[3] = -1
    model = MLPClassifier((4,), solver=solver, max_iter=2)
    with pytest.raises(ValueError, match="sample_weight and class_weight not negative, got -1"):
        model.fit(X, Y3, sample_weight=weight)
    with pytest.raises(ValueError, match="not negative"):
        model.set_params(class_weight={"ash": -1, "birch": 1, "cedar": 1}).fit(X, Y3)


def test_dropout_with_lbfgs_is_refused():
    with pytest.raises(ValueError, match="expected dropout=0 with solver='lbfgs'"):
        MLPClassifier((4,), solver="lbfgs", dropout=0.5).fit(X, Y3)


def test_n_threads_is_checked():
    with pytest.raises(ValueError, match="n_threads"):
        fitted(n_threads=0)
    assert_same_bits(fitted(n_threads=1).predict_proba(X), fitted(n_threads=1).predict_proba(X))


def test_importing_lamina_does_not_import_scikit_learn():
    code = "import sys, lamina; sys.exit('sklearn' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fits_and_predictions_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = MLPClassifier((8,), tol=1.0, n_iter_no_change=1).fit(X, Y3)
        model.predict(X)
        model.predict(np.full((1, 4), 1e308))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 500])
def test_finite_rows_whose_squares_overflow_are_predicted_and_others_refused(dtype, n):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 12)).astype(dtype)
    model = MLPClassifier((4,), max_iter=2).fit(x, x[:, 0] > 0)
    rows = rng.normal(size=(n, 12)).astype(dtype)
    huge = np.sqrt(np.finfo(dtype).max) * 4
    rows[0, 3] = huge
    assert model.predict_proba(rows).shape == (n, 2)
    for bad in (np.nan, np.inf, -np.inf):
        rows[n // 2, 5] = bad
        with pytest.raises(ValueError, match="Input X contains"):
            model.predict(rows)
