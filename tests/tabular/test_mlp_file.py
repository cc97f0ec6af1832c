"""Estimators saved and loaded: the same predictions and attributes, or a ModelFileError."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from tests.tolerances import assert_same_bits

import lamina
from lamina import MLPClassifier, MLPRegressor
from lamina.core import modelfile

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(40, 3))
INDEX = np.random.default_rng(1).integers(0, 3, 40)

TARGETS = {
    "integers": np.array([10, 20, 30])[INDEX],
    "text": np.array(["ash", "birch", "cedar"])[INDEX],
    "objects": np.array(["ash", "birch", "cedar"], dtype=object)[INDEX],
    "floats": np.array([0.0, 1.0, 2.0])[INDEX],
    "booleans": INDEX > 1,
    "two texts": np.where(INDEX > 1, "yes", "no"),
    "one class": np.full(40, "only"),
    "multilabel": (X > 0).astype(int),
    "sparse multilabel": scipy.sparse.csr_matrix((X > 0).astype(int)),
}


def there_and_back(model, tmp_path):
    path = tmp_path / "model.lamina"
    model.save(path)
    loaded = lamina.load(path)
    assert type(loaded) is type(model)
    return loaded


def assert_same_attributes(loaded, model):
    for name in vars(model):
        if name.endswith("_") and not name.startswith("_"):
            np.testing.assert_equal(getattr(loaded, name), getattr(model, name), err_msg=name)
    for a, b in zip(
        loaded.coefs_ + loaded.intercepts_, model.coefs_ + model.intercepts_, strict=True
    ):
        assert_same_bits(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", TARGETS)
def test_classifiers_come_back(kind, dtype, tmp_path):
    x, y = X.astype(dtype), TARGETS[kind]
    model = MLPClassifier((5,), max_iter=3, random_state=0).fit(x, y)
    loaded = there_and_back(model, tmp_path)
    assert_same_attributes(loaded, model)
    assert loaded.classes_.dtype == model.classes_.dtype
    assert_same_bits(loaded.predict_proba(x), model.predict_proba(x))
    actual, expected = loaded.predict(x), model.predict(x)
    if kind == "sparse multilabel":
        actual, expected = actual.toarray(), expected.toarray()
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_regressors_come_back_and_train_on(loss, solver, early_stopping, tmp_path):
    y = np.random.default_rng(0).poisson(2.0, 40)
    model = MLPRegressor(
        loss, (5, 4), solver=solver, early_stopping=early_stopping, max_iter=3, random_state=0
    ).fit(X, y)
    loaded = there_and_back(model, tmp_path)
    assert_same_attributes(loaded, model)
    assert_same_bits(loaded.predict(X), model.predict(X))
    loaded.set_params(early_stopping=False).partial_fit(X, y)


def test_every_parameter_comes_back(tmp_path):
    parameters = {
        "hidden_layer_sizes": np.array([4, 3]),
        "activation": ["gelu", "logistic"],
        "class_weight": {"ash": 2, "cedar": np.float64(0.5)},
        "n_iter_no_change": np.inf,
        "alpha": np.float32(0.5),
        "random_state": np.random.RandomState(0),
        "max_iter": np.int64(3),
        "dropout": 0.25,
        "n_threads": 1,
    }
    model = MLPClassifier(**parameters).fit(X, TARGETS["text"])
    loaded = there_and_back(model, tmp_path)
    expected = {
        **model.get_params(),
        "hidden_layer_sizes": (4, 3),
        "class_weight": {"ash": 2.0, "cedar": 0.5},
        "random_state": None,
    }
    assert loaded.get_params() == expected
    assert_same_bits(loaded.predict_proba(X), model.predict_proba(X))


def test_feature_names_come_back(tmp_path):
    frame = pytest.importorskip("pandas").DataFrame(X, columns=["a", "b", "ü"])
    model = MLPClassifier((4,), max_iter=3).fit(frame, TARGETS["text"])
    loaded = there_and_back(model, tmp_path)
    assert list(loaded.feature_names_in_) == ["a", "b", "ü"]
    np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))


def test_edited_weights_are_saved(tmp_path):
    model = MLPRegressor(hidden_layer_sizes=(4,), max_iter=3).fit(X, X[:, 0])
    model.coefs_[0][:] = 0.25
    assert (there_and_back(model, tmp_path).coefs_[0] == 0.25).all()


DAMAGE = {
    "no dims": lambda s, a: s.pop("dims"),
    "other dims": lambda s, a: s.update(dims=[3, 6, 3]),
    "huge dims": lambda s, a: s.update(dims=[3, 10**15, 3]),
    "negative dims": lambda s, a: s.update(dims=[3, -5, 3]),
    "dims of text": lambda s, a: s.update(dims="335"),
    "one dim": lambda s, a: s.update(dims=[3]),
    "no theta": lambda s, a: a.pop("theta"),
    "short theta": lambda s, a: a.update(theta=a["theta"][:-1]),
    "theta of integers": lambda s, a: a.update(theta=a["theta"].astype(np.int32)),
    "theta of rows": lambda s, a: a.update(theta=a["theta"][np.newaxis]),
    "unknown parameter": lambda s, a: s["parameters"].update(evil=1),
    "bad parameter": lambda s, a: s["parameters"].update(solver="newton"),
    "bad activation": lambda s, a: s["parameters"].update(activation=["relu", "relu"]),
    "no parameters": lambda s, a: s.update(parameters=[]),
    "bad output": lambda s, a: s.update(out_activation_="tan"),
    "other features": lambda s, a: s.update(n_features_in_=4),
    "count of text": lambda s, a: s.update(t_="12"),
    "too few names": lambda s, a: s.update(feature_names_in_=["a"]),
    "names of numbers": lambda s, a: s.update(feature_names_in_=[1, 2, 3]),
    "curve of text": lambda s, a: a.update(loss_curve_=np.array([1, 2])),
    "no classes": lambda s, a: s.pop("classes"),
    "too few classes": lambda s, a: s["classes"].update(labels=["ash"]),
    "classes of lists": lambda s, a: s["classes"].update(labels=[["a"], ["b"], ["c"]]),
    "classes of another type": lambda s, a: s["classes"].update(dtype="<i8"),
    "classes cut short": lambda s, a: s["classes"].update(dtype="<U2"),
    "classes of dates": lambda s, a: s["classes"].update(dtype="<M8[D]"),
    "unknown type of y": lambda s, a: s["classes"].update(y_type="continuous"),
    "binary with three": lambda s, a: s["classes"].update(y_type="binary"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_descriptions_are_refused(damage, tmp_path):
    path = tmp_path / "model.lamina"
    MLPClassifier((5,), max_iter=3).fit(X, TARGETS["text"]).save(path)
    role, spec, arrays = modelfile.read(path)
    DAMAGE[damage](spec, arrays)
    modelfile.write(path, role, spec, arrays)
    with pytest.raises(lamina.ModelFileError):
        lamina.load(path)


def test_labels_that_json_cannot_hold_are_refused(tmp_path):
    model = MLPClassifier((5,), max_iter=3).fit(X, TARGETS["text"])
    model.classes_ = np.array([1 + 2j, 2j, 3j], dtype=object)
    with pytest.raises(lamina.LaminaError, match="labels"):
        model.save(tmp_path / "model.lamina")
    assert list(tmp_path.iterdir()) == []
