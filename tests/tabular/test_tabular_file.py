"""Estimators of raw tables saved and loaded: the same predictions, or a ModelFileError."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina.core import modelfile
from lamina.core.errors import LaminaError, ModelFileError
from lamina.tabular.fit_report import FitReport
from lamina.tabular.target import Target

FIXTURES = Path(__file__).parents[1] / "fixtures"
N = 48
RNG = np.random.default_rng(0)
TABLE = {
    "size": np.where(RNG.random(N) < 0.1, np.nan, RNG.normal(size=N)),
    "colour": [("red", "blue", None)[i] for i in RNG.integers(0, 3, N)],
    "when": [f"2020-{i % 12 + 1:02}-{i % 28 + 1:02}" for i in range(N)],
    "flag": (RNG.random(N) > 0.5).tolist(),
    "price": [f"${v:,}.50" for v in RNG.integers(900, 3000, N)],
    "text": [f"some {v} words to {v * 7 % 5} read" for v in RNG.integers(0, 99, N)],
    "id": list(range(N)),
}
INDEX = RNG.integers(0, 3, N)
CLASSES = {
    "integers": np.array([10, 20, 30])[INDEX],
    "text": np.array(["ash", "birch", "cedar"])[INDEX],
    "objects": np.array(["ash", "birch", "cédar"], dtype=object)[INDEX],
    "floats": np.array([1.0, 2.0, 3.0])[INDEX],
    "booleans": INDEX > 1,
    "labels": np.stack([INDEX > 0, INDEX > 1], axis=1).astype(int),
}
NUMBERS = {
    "one target": INDEX + RNG.normal(size=N),
    "two targets": RNG.normal(size=(N, 2)),
    "counts": INDEX.astype(float),
}


NOT_STORED = {"histories_", "_stages"}  # how the fit went, epoch by epoch, and its times


def fit_classes(kind: str, **parameters: Any) -> lamina.TabularClassifier:
    parameters = {"preset": "fast", "max_seconds": 1e-3, "random_state": 0, **parameters}
    return lamina.TabularClassifier(**parameters).fit(TABLE, CLASSES[kind])


@pytest.fixture(scope="module")
def classifier() -> lamina.TabularClassifier:
    return fit_classes("text")


@pytest.fixture(scope="module")
def regressor() -> lamina.TabularRegressor:
    model = lamina.TabularRegressor("fast", max_seconds=1e-3, random_state=0)
    return model.fit(TABLE, NUMBERS["one target"])


def there_and_back(model: Any, tmp_path: Path) -> Any:
    model.save(tmp_path / "model.lamina")
    loaded = lamina.load(tmp_path / "model.lamina")
    assert type(loaded) is type(model)
    return loaded


def assert_same(loaded: Any, model: Any) -> None:
    """Hold that all that can be seen of two estimators is equal."""
    np.testing.assert_array_equal(loaded.predict(TABLE), model.predict(TABLE), strict=True)
    assert set(vars(loaded)) - NOT_STORED == set(vars(model)) - NOT_STORED
    assert {**loaded.report_.__dict__, "seconds": 0} == {**model.report_.__dict__, "seconds": 0}
    assert loaded.inputs_.uses == model.inputs_.uses
    assert loaded.n_features_in_ == model.n_features_in_
    np.testing.assert_array_equal(loaded.feature_names_in_, model.feature_names_in_)
    out = "out_of_fold_proba_" if hasattr(model, "classes_") else "out_of_fold_"
    np.testing.assert_array_equal(getattr(loaded, out), getattr(model, out), strict=True)
    assert_same_bits(loaded.background_, model.background_)
    for a, b in zip(loaded.ensemble_, model.ensemble_, strict=True):
        assert_same_bits(a.theta, b.theta)


@pytest.mark.parametrize("kind", CLASSES)
def test_classifiers_come_back(kind: str, tmp_path: Path) -> None:
    model = fit_classes(kind)
    loaded = there_and_back(model, tmp_path)
    assert_same(loaded, model)
    assert_same_bits(loaded.predict_proba(TABLE), model.predict_proba(TABLE))
    np.testing.assert_array_equal(loaded.classes_, model.classes_, strict=True)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_regressors_come_back(kind: str, loss: str, tmp_path: Path) -> None:
    if loss == "poisson" and kind != "counts":
        pytest.skip("poisson needs y >= 0")
    model = lamina.TabularRegressor("fast", loss=loss, max_seconds=1e-3, random_state=0)
    model.fit(TABLE, NUMBERS[kind])
    assert_same(there_and_back(model, tmp_path), model)


def test_one_fitted_on_an_array_comes_back(tmp_path: Path) -> None:
    x = RNG.normal(size=(N, 3))
    model = lamina.TabularClassifier("fast", max_seconds=1e-3).fit(x, CLASSES["text"])
    loaded = there_and_back(model, tmp_path)
    assert not hasattr(loaded, "feature_names_in_")
    assert_same_bits(loaded.predict_proba(x), model.predict_proba(x))


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_pickle_copy_and_clone(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    assert_same(pickle.loads(pickle.dumps(model)), model)
    assert_same(copy.deepcopy(model), model)
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    assert not hasattr(fresh, "ensemble_")


def test_every_parameter_comes_back(tmp_path: Path) -> None:
    parameters = {
        "preset": np.str_("fast"),
        "class_weight": {"ash": 2, "cedar": np.float64(0.5)},
        "types": {"id": "number", "flag": "drop"},
        "max_seconds": np.float32(0.5),
        "random_state": np.int64(3),
        "n_threads": np.int32(1),
        "verbose": False,
    }
    model = fit_classes("text", **parameters)
    loaded = there_and_back(model, tmp_path)
    assert loaded.get_params() == model.get_params()
    assert_same(loaded, model)
    model.set_params(random_state=np.random.RandomState(0))
    assert there_and_back(model, tmp_path).random_state is None


def test_the_target_comes_back_until_the_next_fit(tmp_path: Path) -> None:
    model = fit_classes("text")
    model.target_ = Target("tree", "text")
    loaded = there_and_back(model, tmp_path)
    assert loaded.target_ == model.target_
    assert not hasattr(loaded.fit(TABLE, CLASSES["text"]), "target_")
    path = forged(tmp_path / "m", model, lambda s, a: s["target"].update(kind="date"))
    with pytest.raises(ModelFileError, match="expected the target"):
        lamina.load(path)


def test_equal_fits_make_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        model = lamina.TabularRegressor("fast", random_state=5, n_threads=1)
        model.fit(TABLE, NUMBERS["one target"]).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_one_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        lamina.TabularClassifier().save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_labels_that_json_cannot_hold_are_refused(
    classifier: lamina.TabularClassifier, tmp_path: Path
) -> None:
    model = copy.deepcopy(classifier)
    model.classes_ = np.array([1 + 2j, 2j, 3j], dtype=object)
    with pytest.raises(LaminaError, match="labels"):
        model.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_frozen_files_of_version_1_load_for_ever() -> None:
    expected = json.loads((FIXTURES / "tabular_v1.json").read_text(encoding="utf-8"))
    classifier = lamina.load(FIXTURES / "tabular_classifier_v1.lamina")
    assert classifier.classes_.tolist() == ["ash", "birch", "cédar"]
    assert classifier.class_weight == {"ash": 2}
    assert classifier.report_.epochs == (4, 5, 6)
    fan_in = 12 * classifier.ensemble_.spec.fan_in(1)
    proba = classifier.predict_proba(expected["rows"])
    assert_close(proba, expected["proba"], rounding("float32", fan_in))
    regressor = lamina.load(FIXTURES / "tabular_regressor_v1.lamina")
    y_pred = regressor.predict(expected["rows"])
    assert_close(y_pred, expected["y_pred"], rounding("float32", fan_in))
    assert len(set(expected["y_pred"])) > 4


# --- files that are wrong -----------------------------------------------------------------------


def first(items: list[dict[str, Any]], key: str, value: object) -> dict[str, Any]:
    return next(item for item in items if item.get(key) == value)


def use(s: Any, name: str) -> dict[str, Any]:
    return first(s["inputs"]["uses"]["columns"], "name", name)


def part(s: Any, name: str) -> dict[str, Any]:
    return first(s["inputs"]["parts"], "column", name)


DAMAGE = {
    "no inputs": lambda s, a: s.pop("inputs"),
    "no network": lambda s, a: s.pop("network"),
    "no report": lambda s, a: s.pop("report"),
    "no head": lambda s, a: s.pop("head"),
    "no classes": lambda s, a: s.pop("classes"),
    "no theta": lambda s, a: a.pop("theta"),
    "no out-of-fold": lambda s, a: a.pop("out_of_fold"),
    "short theta": lambda s, a: a.update(theta=a["theta"][:, :-1]),
    "a member less": lambda s, a: a.update(theta=a["theta"][:-1]),
    "theta NaN": lambda s, a: a["theta"].fill(np.nan),
    "theta float64": lambda s, a: a.update(theta=a["theta"].astype(float)),
    "other members": lambda s, a: s.update(n_members=3),
    "out-of-fold of a row less": lambda s, a: a.update(out_of_fold=a["out_of_fold"][:-1]),
    "out-of-fold float64": lambda s, a: a.update(out_of_fold=a["out_of_fold"].astype(float)),
    "out-of-fold infinite": lambda s, a: a["out_of_fold"].fill(np.inf),
    "out-of-fold no probabilities": lambda s, a: a["out_of_fold"].fill(-3),
    "no background": lambda s, a: a.pop("background"),
    "an empty background": lambda s, a: a.update(background=a["background"][:0]),
    "a background of NaN": lambda s, a: a["background"].fill(np.nan),
    "a background of other columns": lambda s, a: a.update(background=a["background"][:, :-1]),
    "a background float64": lambda s, a: a.update(background=a["background"].astype(float)),
    "another output": lambda s, a: s["network"].update(output="identity"),
    "more outputs": lambda s, a: s["network"].update(d_out=4),
    "another encoding": lambda s, a: s["network"].update(encoding=None),
    "unknown parameter": lambda s, a: s["parameters"].update(evil=1),
    "bad parameter": lambda s, a: s["parameters"].update(preset="slow"),
    "parameters of a list": lambda s, a: s.update(parameters=[1]),
    "types of numbers": lambda s, a: s["parameters"].update(types={"pairs": [["a", 1]]}),
    "types without pairs": lambda s, a: s["parameters"].update(types={}),
    "weights of text": lambda s, a: s["parameters"].update(class_weight={"pairs": [["a", "b"]]}),
    "weights by list": lambda s, a: s["parameters"].update(class_weight={"pairs": [[[], 1]]}),
    "other features": lambda s, a: s.update(n_features_in_=3),
    "features of text": lambda s, a: s.update(n_features_in_="7"),
    "other names": lambda s, a: s["feature_names_in_"].reverse(),
    "a column twice": lambda s, a: use(s, "size").update(name="flag"),
    "an unknown use": lambda s, a: use(s, "size").update(use="magic"),
    "an unknown kind": lambda s, a: use(s, "size").update(kind="magic"),
    "a number that is text": lambda s, a: use(s, "size").update(kind="text"),
    "a category that is a number": lambda s, a: use(s, "colour").update(kind="number"),
    "text that is a date": lambda s, a: use(s, "text").update(kind="date"),
    "text that is dropped": lambda s, a: use(s, "text").update(use="drop"),
    "text that is a category": lambda s, a: s["inputs"].update(texts=[]),
    "dates read as numbers": lambda s, a: use(s, "price").update(form="day first"),
    "counts of text": lambda s, a: use(s, "price").update(n_missing="3"),
    "a negative count": lambda s, a: use(s, "price").update(n_distinct=-3),
    "given by nobody": lambda s, a: use(s, "price").update(given=None),
    "a use more": lambda s, a: use(s, "price").update(more=1),
    "knots less": lambda s, a: a.update({"inputs.knots": a["inputs.knots"][:-1]}),
    "knots that fall": lambda s, a: a["inputs.knots"].sort(),
    "knots NaN": lambda s, a: a["inputs.knots"].fill(np.nan),
    "centres infinite": lambda s, a: a["inputs.centres"].fill(np.inf),
    "a part of no column": lambda s, a: part(s, "colour").update(column="evil"),
    "a part of no date": lambda s, a: part(s, "when").update(part="eon"),
    "a part more": lambda s, a: s["inputs"]["parts"].append(s["inputs"]["parts"][0]),
    "levels twice": lambda s, a: part(s, "colour")["levels"].update(frequent=["a", "a"]),
    "buckets of text": lambda s, a: part(s, "colour")["levels"].update(n_buckets="1"),
    "no text features": lambda s, a: a.pop("inputs.text0.idf"),
    "temperature 0": lambda s, a: s["head"].update(temperature=0),
    "temperature of text": lambda s, a: s["head"].update(temperature="hot"),
    "other outputs": lambda s, a: s["head"].update(n_outputs=2),
    "labels, not classes": lambda s, a: s["head"].update(multilabel=True),
    "too few classes": lambda s, a: s["classes"]["labels"].pop(),
    "classes twice": lambda s, a: s["classes"].update(labels=["ash", "ash", "cedar"]),
    "classes of lists": lambda s, a: s["classes"].update(labels=[["a"], ["b"], ["c"]]),
    "classes of another type": lambda s, a: s["classes"].update(dtype="<i8"),
    "classes cut short": lambda s, a: s["classes"].update(dtype="<U2"),
    "classes of dates": lambda s, a: s["classes"].update(dtype="<M8[D]"),
    "report of text": lambda s, a: s["report"].update(n_rows="48"),
    "report of true": lambda s, a: s["report"].update(seed=True),
    "report of another length": lambda s, a: s["report"].update(n_members=1),
    "epochs of text": lambda s, a: s["report"].update(epochs="123"),
    "notes of numbers": lambda s, a: s["report"].update(notes=[1]),
    "scores of text": lambda s, a: s["report"].update(scores={"auc": "good"}),
    "a score of words": lambda s, a: s["report"].update(scores=[1]),
    "a report more": lambda s, a: s["report"].update(more=1),
}


def forged(path: Path, model: Any, damage: Any) -> Path:
    model.save(path)
    role, spec, arrays = modelfile.read(path)
    damage(spec, arrays)
    modelfile.write(path, role, spec, arrays)
    return path


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_classifiers_are_refused(
    damage: str, classifier: lamina.TabularClassifier, tmp_path: Path
) -> None:
    path = forged(tmp_path / "m", classifier, DAMAGE[damage])
    with pytest.raises(
        ModelFileError, match="expected a tabular_classifier whose parts fit"
    ) as caught:
        lamina.load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "damage",
    [
        lambda s, a: a.pop("head"),
        lambda s, a: a["head"].fill(np.nan),
        lambda s, a: a.update(head=a["head"][:3]),
        lambda s, a: a["head"][1].fill(0),
        lambda s, a: a.update(head=np.repeat(a["head"], 2, axis=1)),
        lambda s, a: s["head"].update(loss="magic"),
        lambda s, a: s["head"].update(loss=[]),
        lambda s, a: s["head"].update(loss="poisson"),
        lambda s, a: s.update(n_dims=3),
        lambda s, a: s.update(n_dims=True),
        lambda s, a: s.pop("n_dims"),
        lambda s, a: a["out_of_fold"].fill(np.inf),
    ],
)
def test_damaged_regressors_are_refused(
    damage: Any, regressor: lamina.TabularRegressor, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError):
        lamina.load(forged(tmp_path / "m", regressor, damage))


def test_a_classifier_is_no_regressor(classifier: lamina.TabularClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path / "m")
    _, spec, arrays = modelfile.read(tmp_path / "m")
    modelfile.write(tmp_path / "m", "tabular_regressor", spec, arrays)
    with pytest.raises(ModelFileError, match="expected a tabular_regressor whose"):
        lamina.load(tmp_path / "m")


in_tmp_path = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


@in_tmp_path
@given(data=st.data())
def test_any_changed_bytes_are_noticed(tmp_path: Path, data: st.DataObject) -> None:
    good = (FIXTURES / "tabular_classifier_v1.lamina").read_bytes()
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, min(start + 50, len(good))))
    bad = good[:start] + data.draw(st.binary(max_size=40)) + good[stop:]
    (tmp_path / "m").write_bytes(bad)
    if bad != good:
        with pytest.raises(ModelFileError):
            lamina.load(tmp_path / "m")


SCALARS = st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(
    [2**31, 2**63, 10**25, 0.5, -1.0, "", "text", "number", "size"]
)  # fmt: skip
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.just("x"), SCALARS, max_size=1)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) within a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in pairs:
        found.append((value, key))
        if isinstance(item, dict | list):
            found += places(item)
    return found


@pytest.mark.parametrize("role", ["classifier", "regressor"])
@settings(in_tmp_path, max_examples=250)
@given(data=st.data())
def test_any_forged_field_gives_one_sentence_or_an_estimator_that_predicts(
    role: str, tmp_path: Path, data: st.DataObject
) -> None:
    """A checksum that is right, and one field of the specification that says anything."""
    name, spec, arrays = modelfile.read(FIXTURES / f"tabular_{role}_v1.lamina")
    places_ = places(spec)
    container, key = places_[data.draw(st.integers(0, len(places_) - 1))]
    container[key] = data.draw(JSON)
    modelfile.write(tmp_path / "m", name, spec, arrays)
    rows = json.loads((FIXTURES / "tabular_v1.json").read_text(encoding="utf-8"))["rows"]
    try:
        predicted = lamina.load(tmp_path / "m").predict(rows)
    except LaminaError:
        return
    assert len(predicted) == 8


@in_tmp_path
@given(data=st.data())
def test_any_forged_array_gives_one_sentence_or_an_estimator_that_predicts(
    tmp_path: Path, data: st.DataObject
) -> None:
    role, spec, arrays = modelfile.read(FIXTURES / "tabular_regressor_v1.lamina")
    name = data.draw(st.sampled_from(sorted(arrays)))
    array = arrays[name]
    dtype = data.draw(st.sampled_from(["float32", "float64", "int32", "bool", "uint8"]))
    changes = {
        "another type": lambda: array.astype(dtype),
        "another shape": lambda: array.reshape(-1)[:, np.newaxis],
        "one less": lambda: array[:-1],
        "none": lambda: array[:0],
        "a scalar": lambda: np.array(3.0),
        "one number": lambda: with_one(array, data),
    }
    arrays[name] = changes[data.draw(st.sampled_from(sorted(changes)))]()
    modelfile.write(tmp_path / "m", role, spec, arrays)
    rows = json.loads((FIXTURES / "tabular_v1.json").read_text(encoding="utf-8"))["rows"]
    with np.errstate(all="ignore"):
        try:
            predicted = lamina.load(tmp_path / "m").predict(rows)
        except LaminaError:
            return
    assert len(predicted) == 8


def with_one(array: Any, data: st.DataObject) -> Any:
    changed = array.copy()
    i = data.draw(st.integers(0, array.size - 1))
    changed.reshape(-1)[i] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1, 0]))
    return changed


def test_a_report_is_plain_numbers() -> None:
    report = FitReport(9, 1, (3,), (2,), ("patience",), 7, 1, "avx2", ("é",), {"r2": 1.0}, 2.5)
    state = json.loads(json.dumps(report.to_json()))
    assert "seconds" not in state
    assert FitReport.from_json(state) == FitReport(**{**report.__dict__, "seconds": 0.0})
