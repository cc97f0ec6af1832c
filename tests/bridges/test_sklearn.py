"""scikit-learn in and out. Oracle: scikit-learn's own estimators."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, mean_poisson_deviance, mean_squared_error
from sklearn.neural_network import MLPClassifier, MLPRegressor
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina

DTYPES = ["float32", "float64"]
ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
TARGETS = {
    "two classes": np.arange(60) % 2,
    "three names": np.array(["b", "c", "a"])[np.arange(60) % 3],
    "labels": (np.arange(60)[:, None] % [2, 3, 4] == 0).astype(int),
}
X = np.random.default_rng(0).normal(size=(60, 4))


def fit(estimator, x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(x, y)


def tolerance(net):
    return rounding(net.dtype, sum(net.spec.fan_in(i + 1) for i in range(net.spec.n_layers)))


def expected_probabilities(net, x):
    """What predict_proba must give for the outputs of `net`."""
    y_pred = net(x)
    return np.hstack([1 - y_pred, y_pred]) if y_pred.shape[1] == 1 else y_pred


# ---------------------------------------------------------------------------------- from_sklearn


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(), (5,), (6, 3)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_classifier_becomes_its_network(target, activation, widths, dtype):
    x = X.astype(dtype)
    fitted = fit(
        MLPClassifier(widths, activation=activation, max_iter=5, random_state=0), x, TARGETS[target]
    )
    net = lamina.from_sklearn(fitted)
    assert net.dtype == dtype
    assert net.spec.widths == widths
    assert set(net.spec.activations) <= {ACTIVATIONS[activation]}
    assert_close(expected_probabilities(net, x), fitted.predict_proba(x), tolerance(net))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_regressor_becomes_its_network(n_outputs, loss, dtype):
    x = X.astype(dtype)
    y = np.abs(X[:, :n_outputs]).squeeze()
    fitted = fit(MLPRegressor(loss, (6, 3), max_iter=5, random_state=0), x, y)
    net = lamina.from_sklearn(fitted)
    assert net.spec.output == {"squared_error": "identity", "poisson": "exp"}[loss]
    assert_close(net(x), fitted.predict(x).reshape(60, n_outputs), tolerance(net))


@pytest.mark.parametrize(
    "estimator",
    [
        lamina.MLPClassifier((6, 3), activation=("gelu", "sine"), max_iter=3, random_state=0),
        lamina.MLPClassifier(5, activation="logistic", max_iter=3, dropout=0.5, random_state=0),
        lamina.MLPClassifier((4,), solver="lbfgs", max_iter=3, random_state=0),
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_laminas_own_classifier_becomes_its_network(estimator, target):
    fitted = fit(clone(estimator), X, TARGETS[target])
    net = lamina.from_sklearn(fitted)
    assert net.spec.dropout == fitted.dropout
    assert_close(expected_probabilities(net, X), fitted.predict_proba(X), tolerance(net))


def test_laminas_own_regressor_becomes_its_network():
    fitted = fit(lamina.MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=0), X, X)
    net = lamina.from_sklearn(fitted)
    assert_close(net(X), fitted.predict(X), tolerance(net))


@pytest.mark.parametrize("model", [MLPClassifier(), lamina.MLPRegressor(), None, 3, "model"])
def test_what_is_not_fitted_is_refused(model):
    with pytest.raises(lamina.SpecError, match=r"expected a fitted .*Call fit first"):
        lamina.from_sklearn(model)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: e.coefs_.pop(),
        lambda e: e.intercepts_.pop(),
        lambda e: e.coefs_.reverse(),
        lambda e: e.intercepts_.reverse(),
        lambda e: e.coefs_.clear(),
        lambda e: e.coefs_.__setitem__(0, np.zeros(3)),
    ],
)
def test_coefficients_that_do_not_fit_together_are_refused(spoil):
    fitted = fit(MLPRegressor(hidden_layer_sizes=(5,), max_iter=3), X, X[:, 0])
    spoil(fitted)
    with pytest.raises(lamina.ShapeError, match="follow one another"):
        lamina.from_sklearn(fitted)


# ------------------------------------------------------------------------------------ to_sklearn

NETWORKS = {
    "two classes": ({"output": "sigmoid"}, 1),
    "two softmax outputs": ({"output": "softmax"}, 2),
    "three names": ({"output": "softmax"}, 3),
    "labels": ({"output": "sigmoid"}, 3),
    "a number": ({}, 1),
    "numbers": ({}, 3),
    "a count": ({"output": "exp"}, 1),
    "counts": ({"output": "exp"}, 2),
}


def make(kind, dtype="float64", widths=(6, 3), **options):
    fixed, d_out = NETWORKS[kind]
    return lamina.Network(4, widths, d_out, dtype=dtype, rng=0, **{**fixed, **options})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(), (5,), (6, 3)])
@pytest.mark.parametrize("activation", ACTIVATIONS.values())
@pytest.mark.parametrize("kind", NETWORKS)
def test_to_sklearn_predicts_as_the_network(kind, activation, widths, dtype):
    net = make(kind, dtype, widths, activation=activation)
    estimator = lamina.to_sklearn(net)
    x = X.astype(dtype)
    if isinstance(estimator, MLPRegressor):
        got = estimator.predict(x).reshape(60, -1)
        assert_close(got, net(x), tolerance(net))
    else:
        proba = estimator.predict_proba(x)
        assert_close(proba, expected_probabilities(net, x), tolerance(net))
        chosen = proba > 0.5 if kind == "labels" else proba.argmax(axis=1)
        np.testing.assert_array_equal(estimator.predict(x), chosen)
    assert estimator.coefs_[0].dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind != "two softmax outputs"])
def test_there_and_back_gives_the_same_network(kind, dtype):
    net = make(kind, dtype, activation="tanh")
    back = lamina.from_sklearn(lamina.to_sklearn(net))
    assert back.spec == net.spec
    assert_same_bits(back.theta, net.theta)


@pytest.mark.parametrize("target", TARGETS)
def test_back_and_there_gives_the_same_estimator(target):
    fitted = fit(MLPClassifier((5,), max_iter=5, random_state=0), X, TARGETS[target])
    classes = None if target == "labels" else fitted.classes_
    again = lamina.to_sklearn(lamina.from_sklearn(fitted), classes)
    assert_same_bits(again.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(again.classes_, fitted.classes_)
    assert again.score(X, TARGETS[target]) == fitted.score(X, TARGETS[target])
    missing = set(vars(fitted)) - set(vars(again)) - {"_optimizer", "loss_"}
    assert not missing


def loss_by_metrics(estimator, kind, y):
    """The loss scikit-learn minimises, without its penalty, by its metrics."""
    if kind == "labels":
        proba = estimator.predict_proba(X)
        return sum(log_loss(y[:, k], proba[:, k], labels=[0, 1]) for k in range(3))
    if kind in ("two classes", "two softmax outputs", "three names"):
        return log_loss(y, estimator.predict_proba(X), labels=estimator.classes_)
    if kind in ("a count", "counts"):  # a sum over the outputs, unlike the squared error
        columns = estimator.predict(X).reshape(len(X), -1).T
        pairs = zip(y.reshape(len(X), -1).T, columns, strict=True)
        return sum(mean_poisson_deviance(*pair) for pair in pairs) / 2
    return mean_squared_error(y, estimator.predict(X)) / 2


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_learning_goes_on_from_the_networks_parameters(kind, solver):
    estimator = lamina.to_sklearn(make(kind)).set_params(solver=solver, random_state=0, alpha=0.0)
    y = estimator.predict(X)[::-1].copy()
    start = loss_by_metrics(estimator, kind, y)
    for _ in range(20):
        estimator.partial_fit(X, y)
    assert len(estimator.loss_curve_) == 20
    assert_close(estimator.loss_curve_[0], start, rounding("float64", len(X)))
    assert estimator.loss_curve_[-1] < start


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_warm_start_with_lbfgs_goes_on_too(kind):
    estimator = lamina.to_sklearn(make(kind)).set_params(solver="lbfgs", alpha=0.0)
    y = estimator.predict(X)[::-1].copy()
    start = loss_by_metrics(estimator, kind, y)
    fit(estimator.set_params(warm_start=True, max_iter=1), X, y)
    assert 0.5 * start < estimator.loss_ < start


def test_a_step_equals_scikit_learns_own():
    fitted = fit(
        MLPClassifier((5,), max_iter=5, random_state=0, shuffle=False), X, TARGETS["labels"]
    )
    twin = lamina.to_sklearn(lamina.from_sklearn(fitted)).set_params(shuffle=False)
    del fitted._optimizer  # ours starts afresh
    for estimator in (fitted, twin):
        estimator.partial_fit(X, TARGETS["labels"])
    for ours, theirs in zip(twin.coefs_, fitted.coefs_, strict=True):
        assert_same_bits(ours, theirs)


def test_it_pickles_copies_and_clones():
    estimator = lamina.to_sklearn(make("three names"), ["b", "c", "a"])
    for twin in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
        np.testing.assert_array_equal(twin.predict(X), estimator.predict(X))
    fresh = clone(estimator)
    assert fresh.hidden_layer_sizes == (6, 3)
    assert not hasattr(fresh, "coefs_")


@pytest.mark.parametrize("kind", ["two classes", "two softmax outputs", "three names"])
@pytest.mark.parametrize("backwards", [False, True])
def test_outputs_follow_their_classes_when_these_are_sorted(kind, backwards):
    net = make(kind, activation="tanh")  # with relu, rows without a live unit are ties
    names = np.array(["x", "y", "z"][: 3 if kind == "three names" else 2])
    names = names[::-1] if backwards else names
    estimator = lamina.to_sklearn(net, list(names))
    expected = expected_probabilities(net, X)
    assert list(estimator.classes_) == sorted(names)
    for i, name in enumerate(names):
        column = list(estimator.classes_).index(name)
        assert_close(estimator.predict_proba(X)[:, column], expected[:, i], tolerance(net))
    np.testing.assert_array_equal(estimator.predict(X), names[expected.argmax(axis=1)])


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (make("a number", skips={2: (0,)}), "no skips, got skips into layer 2"),
        (make("a number", widths=(4, 4), residual=True), "no residual layers"),
        (make("a number", dropout=0.5), r"no dropout, got dropout=0\.5"),
        (make("a number", activation="gelu"), "activation of identity, .*got gelu"),
        (make("a number", activation=("relu", "tanh")), "one activation .*relu and tanh"),
        (make("a number", output="step"), "got step"),
        (make("a number", output="softmax"), "two outputs or more"),
        (None, "expected a lamina.Network, got NoneType"),
        (MLPClassifier(), "expected a lamina.Network, got MLPClassifier"),
    ],
)
def test_what_scikit_learn_cannot_hold_is_refused(net, sentence):
    with pytest.raises(lamina.SpecError, match=sentence):
        lamina.to_sklearn(net)


@pytest.mark.parametrize("kind", ["a number", "two classes", "two softmax outputs", "labels"])
@pytest.mark.parametrize("classes", [[1], ["a", "a"], ["a", "b", "c", "d"], [[0, 1]], 3, [2, 0, 1]])
def test_classes_that_do_not_fit_are_refused(kind, classes):
    with pytest.raises(lamina.SpecError, match=r"to_sklearn: expected .*classes"):
        lamina.to_sklearn(make(kind), classes)


def test_residual_without_equal_widths_and_dropout_without_hidden_layers_change_nothing():
    net = lamina.Network(4, (6, 3), 1, residual=True, rng=0)
    assert_close(lamina.to_sklearn(net).predict(X.astype("f4"))[:, None], net(X), tolerance(net))
    net = lamina.Network(4, (), 1, dropout=0.5, rng=0)
    assert_close(lamina.to_sklearn(net).predict(X.astype("f4"))[:, None], net(X), tolerance(net))


def test_numpys_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (it is what we look at)
    estimator = lamina.to_sklearn(make("three names"))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert estimator.random_state is None


def test_parameters_are_copies():
    net = make("a number")
    before = net.theta.copy()
    lamina.to_sklearn(net).coefs_[0][:] = 0
    assert_same_bits(net.theta, before)


def test_the_oracle_sees_a_wrong_weight():
    net = make("three names")
    estimator = lamina.to_sklearn(net)
    estimator.intercepts_[-1][0] += 0.01
    with pytest.raises(AssertionError):
        assert_close(estimator.predict_proba(X), net(X), tolerance(net))
