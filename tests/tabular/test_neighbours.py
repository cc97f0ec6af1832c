"""Neighbours as columns of x: brute force, gradients, the pilot's choice, files, explanations."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tolerances import assert_same_bits

import lamina
from lamina.core import modelfile
from lamina.core.errors import DataError, ModelFileError, SpecError
from lamina.core.losses import AbsoluteError, BinaryCrossEntropy, CrossEntropy, Poisson
from lamina.tabular.learner import Objective
from lamina.tabular.metric import Metric, _gradient
from lamina.tabular.neighbours import LEAST_SHARE, LEVELS, MOST_ROWS, Neighbours, local_targets
from lamina.tabular.pilot import LEAST_ROWS, compare, losses_of
from lamina.tabular.recipe import PRESETS

RNG = np.random.default_rng(11)
N = 1500
PLACE = RNG.uniform(size=(N, 2))


def patchwork(place: np.ndarray) -> np.ndarray:
    """A target that changes from tile to tile: no smooth function of the place."""
    tile = (place * 6).astype(int)
    return np.random.default_rng(5).normal(size=(6, 6))[tile[:, 0], tile[:, 1]]


X = {"east": PLACE[:, 0], "north": PLACE[:, 1], "noise": RNG.normal(size=N)}
Y = patchwork(PLACE) + 0.1 * RNG.normal(size=N)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small default recipe, which tries neighbours."""
    small = replace(PRESETS["default"], widths=(32,), n_folds=4, least_members=4, n_seen=60_000)
    monkeypatch.setitem(PRESETS, "default", small)


@pytest.fixture(scope="module")
def model() -> lamina.TabularRegressor:
    return lamina.TabularRegressor("fast", neighbours=True, random_state=0).fit(X, Y)


def fitted(
    n: int = 60, d: int = 2, kept: np.ndarray | None = None
) -> tuple[Neighbours, np.ndarray, np.ndarray, np.ndarray]:
    x = RNG.uniform(size=(n, 3)).astype(np.float32)
    x[:, 1] = RNG.integers(0, 3, n)
    x[: n // 4, [0, 2]] = x[n // 4 : 2 * (n // 4), [0, 2]]  # rows at the same place
    targets = RNG.normal(size=(n, d)).astype(np.float32)
    metric = Metric((0, 2), (np.linspace(-2.0, 2.0, 5), np.array([-1.0, 0.0, 3.0])))
    kept = np.arange(n) if kept is None else kept
    neighbours, wider = Neighbours.fit(metric, x, targets, kept)
    return neighbours, wider, x, targets


# --- the means against brute force


def brute_mean(
    place: np.ndarray, rows: np.ndarray, targets: np.ndarray, level: int, without: int | None
) -> np.ndarray:
    """The mean target of one place's nearest rows, row by row."""
    distance = np.sqrt(((rows - place) ** 2).sum(axis=1))
    if without is not None:
        distance[without] = np.inf
    near = np.argsort(distance, kind="stable")[:level]
    reach = max(distance[near[-1]], 1e-12)
    share = [max(1 - (distance[i] / reach) ** 2, LEAST_SHARE) for i in near]
    return np.sum([s * targets[i] for s, i in zip(share, near, strict=True)], axis=0) / sum(share)


@pytest.mark.parametrize("leave_out", [False, True])
def test_means_are_those_of_brute_force(leave_out: bool) -> None:
    kept = np.sort(RNG.permutation(60)[:45])
    neighbours, _, x, targets = fitted(kept=kept)
    own = np.full(60, -1)
    own[kept] = np.arange(45)
    found = neighbours.means(x, own if leave_out else None)
    rows = neighbours.rows.astype(np.float64)
    places = neighbours.metric(x).astype(np.float64)
    for i in range(60):
        without = own[i] if leave_out and own[i] >= 0 else None
        expected = [brute_mean(places[i], rows, targets[kept], k, without) for k in LEVELS]
        np.testing.assert_allclose(found[i], np.concatenate(expected), rtol=1e-4, atol=1e-5)


def test_a_training_row_never_sees_its_own_target() -> None:
    neighbours, wider, x, targets = fitted()
    changed = targets.copy()
    changed[7] += 100
    other, _ = Neighbours.fit(neighbours.metric, x, changed, np.arange(len(x)))
    own = np.arange(len(x))
    assert_same_bits(neighbours.means(x, own)[7], other.means(x, own)[7])
    assert np.abs(neighbours.means(x) - other.means(x))[7].max() > 1
    assert wider.shape == (len(x), x.shape[1] + len(neighbours.cells))


def test_many_classes_get_one_level() -> None:
    neighbours, _, _, _ = fitted(d=20)
    assert neighbours.levels == LEVELS[-1:]
    assert len(neighbours.columns) == 20


def test_targets_of_classes_are_indicators() -> None:
    y = np.array([0, 2, 1], np.int32)
    assert local_targets(y, 3).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert local_targets(np.array([0, 1, 1], np.int32), 2).tolist() == [[0], [1], [1]]
    assert local_targets(np.ones((3, 2), np.float32), 2).shape == (3, 2)


# --- the metric


def kernel_error(log_w: np.ndarray, c: np.ndarray, y: np.ndarray, rows: Any, others: Any) -> float:
    """The mean squared error of the kernel mean, as the formula in `find_weights` says it."""
    w = np.exp(log_w)
    total = 0.0
    for i in rows:
        weights = [0.0 if i == j else np.exp(-np.sum((w * (c[i] - c[j])) ** 2)) for j in others]
        total += np.sum((np.average(y[others], axis=0, weights=weights) - y[i]) ** 2)
    return total / len(rows)


def test_the_gradient_of_the_weights_matches_finite_differences() -> None:
    c, y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 2))
    rows, others = RNG.integers(20, size=8), RNG.permutation(20)[:15]
    log_w = RNG.normal(size=3) * 0.3
    found = _gradient(c[rows] * np.exp(log_w), c[others] * np.exp(log_w), y, rows, others)
    h = 1e-5
    expected = [
        (
            kernel_error(log_w + h * e, c, y, rows, others)
            - kernel_error(log_w - h * e, c, y, rows, others)
        )
        / (2 * h)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_the_metric_leaves_out_what_says_nothing() -> None:
    x = RNG.uniform(size=(800, 4)).astype(np.float32)
    targets = patchwork(x[:, [0, 3]]).astype(np.float32)[:, np.newaxis]
    metric = Metric.fit(x, (8, 8, -3, 8), targets, np.random.default_rng(0))
    assert metric is not None
    assert {0, 3} <= set(metric.cells) <= {0, 1, 3}
    spread = dict(zip(metric.cells, metric(x).std(axis=0), strict=True))
    assert min(spread[0], spread[3]) > 5 * spread.get(1, 0)


def test_there_is_no_metric_of_categories() -> None:
    x = np.zeros((30, 2), np.float32)
    assert Metric.fit(x, (-3, -2), np.zeros((30, 1)), np.random.default_rng(0)) is None


# --- the pilot


@pytest.mark.parametrize(
    ("objective", "output", "y", "expected"),
    [
        (Objective(2, "softmax", CrossEntropy()), [[0.25, 0.75]], [1], -np.log(0.75)),
        (Objective(2, "sigmoid", BinaryCrossEntropy()), [[0.5, 0.2]], [[1, 0]], -np.log(0.4) / 2),
        (Objective(1, "exp", Poisson()), [[2.0]], [[3.0]], 2 - 3 * np.log(2)),
        (Objective(2, "identity", AbsoluteError()), [[1.0, 2.0]], [[2.0, 5.0]], 2.0),
        (Objective(2, "identity", "squared_error"), [[1.0, 2.0]], [[2.0, 5.0]], 5.0),
    ],
)
def test_losses_are_those_that_members_minimise(
    objective: Objective, output: Any, y: Any, expected: float
) -> None:
    found = losses_of(np.array(output), np.array(y), objective)
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_a_gain_must_be_large_and_no_accident() -> None:
    plain = np.full(100, 1.0)
    assert compare(plain, plain - 0.1).is_better
    assert not compare(plain, plain - 0.001).is_better
    assert not compare(plain, plain + 0.1).is_better
    lucky = plain - np.where(np.arange(100) == 0, 10.0, 0.0)
    verdict = compare(plain, lucky)
    assert verdict.gain == pytest.approx(0.1)
    assert not verdict.is_better


@pytest.mark.usefixtures("quick")
def test_the_pilot_takes_neighbours_where_the_target_is_local() -> None:
    base = {"random_state": 0, "n_threads": 1}
    found = lamina.TabularRegressor(**base).fit(X, Y)
    without = lamina.TabularRegressor(neighbours=False, **base).fit(X, Y)
    assert found.neighbours_ is not None
    assert any("nearest of 1,500 training rows" in note for note in found.report_.notes)
    assert without.neighbours_ is None
    assert not any("nearest" in note for note in without.report_.notes)
    place = np.random.default_rng(3).uniform(size=(1000, 2))
    fresh = {"east": place[:, 0], "north": place[:, 1], "noise": np.zeros(1000)}
    errors = [np.mean((m.predict(fresh) - patchwork(place)) ** 2) for m in (found, without)]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.usefixtures("quick")
def test_the_pilot_refuses_them_where_the_target_is_smooth() -> None:
    y = X["east"] + 0.5 * X["noise"] + np.random.default_rng(4).normal(size=N)
    base = {"random_state": 0, "n_threads": 1}
    found = lamina.TabularRegressor(**base).fit(X, y)
    assert found.neighbours_ is None
    without = lamina.TabularRegressor(neighbours=False, **base).fit(X, y)
    assert_same_bits(found.predict(X), without.predict(X))  # a pilot changes nothing else


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("preset", "n", "limit"),
    [("fast", N, None), ("default", LEAST_ROWS - 1, None), ("default", N, 1e-3)],
)
def test_no_neighbours_where_no_pilot_can_run(preset: str, n: int, limit: float | None) -> None:
    table = {name: values[:n] for name, values in X.items()}
    model = lamina.TabularRegressor(preset, max_seconds=limit or 0.5, random_state=0)
    assert model.fit(table, Y[:n]).neighbours_ is None


def test_neighbours_asked_for_must_be_possible() -> None:
    ask = lamina.TabularRegressor("fast", neighbours=True, max_seconds=1e-3)
    with pytest.raises(SpecError, match="numeric columns"):
        ask.fit({"colour": ["red", "blue"] * 50}, np.arange(100.0))
    with pytest.raises(SpecError, match=f"more than {LEVELS[-1]} rows"):
        ask.fit({"size": np.arange(20.0)}, np.arange(20.0))
    with pytest.raises(ValueError, match="neighbours"):
        lamina.TabularRegressor(neighbours="yes").fit(X, Y)


def test_rows_of_weight_zero_are_not_kept() -> None:
    weight = np.where(np.arange(N) % 3 == 0, 0.0, 1.0)
    y = np.where(weight > 0, Y, 1e6)
    model = lamina.TabularRegressor("fast", neighbours=True, max_seconds=1e-3, random_state=0)
    model.fit(X, y, sample_weight=weight)
    assert len(model.neighbours_.rows) == int(weight.sum())
    assert model.neighbours_.targets.max() < 10


def test_the_rows_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.tabular.pilot.MOST_ROWS", 100)
    model = lamina.TabularRegressor("fast", neighbours=True, max_seconds=1e-3, random_state=0)
    assert len(model.fit(X, Y).neighbours_.rows) == 100 < MOST_ROWS


# --- as a part of the estimators


@pytest.mark.parametrize("kind", ["two classes", "three classes", "labels", "targets"])
def test_every_kind_of_target_has_neighbours(kind: str, tmp_path: Path) -> None:
    levels = np.digitize(Y, [-0.3, 0.3])
    several = np.stack([Y > 0, Y > 0.5], axis=1)
    y: Any = {
        "two classes": Y > 0,
        "three classes": np.array(["a", "b", "c"])[levels],
        "labels": several.astype(int),
        "targets": np.stack([Y, -2 * Y], axis=1),
    }[kind]
    maker = lamina.TabularRegressor if kind == "targets" else lamina.TabularClassifier
    model = maker("fast", neighbours=True, max_seconds=0.2, random_state=0).fit(X, y)
    assert len(model.neighbours_.columns) == 2 * {"two classes": 1, "three classes": 3}.get(kind, 2)
    model.save(tmp_path / "m")
    assert_same_bits(lamina.load(tmp_path / "m").predict(X), model.predict(X))


def test_equal_seeds_make_equal_models(model: lamina.TabularRegressor) -> None:
    again = lamina.TabularRegressor("fast", neighbours=True, random_state=0).fit(X, Y)
    assert_same_bits(again.predict(X), model.predict(X))


def test_a_row_is_predicted_alike_alone_and_among_others(model: lamina.TabularRegressor) -> None:
    alone = model.predict({name: values[5:6] for name, values in X.items()})
    np.testing.assert_allclose(alone, model.predict(X)[5:6], rtol=1e-5)
    assert model.predict({name: values[:0] for name, values in X.items()}).shape == (0,)


def test_saved_loaded_and_pickled_predict_the_same(
    model: lamina.TabularRegressor, tmp_path: Path
) -> None:
    model.predict(X)
    model.save(tmp_path / "m")
    loaded = lamina.load(tmp_path / "m")
    for other in (loaded, pickle.loads(pickle.dumps(model))):
        assert_same_bits(other.predict(X), model.predict(X))
        assert_same_bits(other.predict_interval(X), model.predict_interval(X))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_attributions_sum_and_count_what_flows_through_neighbours(
    model: lamina.TabularRegressor,
) -> None:
    some = {name: values[:20] for name, values in X.items()}
    why = model.explain(some)
    total = why.values[:, :, 0].sum(axis=1)
    np.testing.assert_allclose(total, (why.prediction - why.baseline)[:, 0], atol=1e-5)
    np.testing.assert_allclose(why.prediction[:, 0], model.predict(some), rtol=1e-5)
    importance = model.explain(X, Y, kind="importance")
    assert importance.columns[importance.order[-1]] == "noise"


DAMAGE = {
    "no rows": lambda s, a: a.pop("neighbours.rows"),
    "no description": lambda s, a: s.pop("neighbours"),
    "rows NaN": lambda s, a: a["neighbours.rows"].fill(np.nan),
    "rows float64": lambda s, a: a.update({"neighbours.rows": a["neighbours.rows"].astype(float)}),
    "a row less": lambda s, a: a.update({"neighbours.rows": a["neighbours.rows"][1:]}),
    "a coordinate less": lambda s, a: a.update({"neighbours.rows": a["neighbours.rows"][:, 1:]}),
    "few rows": lambda s, a: a.update(
        {k: a[k][:5] for k in ("neighbours.rows", "neighbours.targets")}
    ),
    "targets infinite": lambda s, a: a["neighbours.targets"].fill(np.inf),
    "a target more": lambda s, a: a.update(
        {"neighbours.targets": np.repeat(a["neighbours.targets"], 2, axis=1)}
    ),
    "places NaN": lambda s, a: a["neighbours.places"].fill(np.nan),
    "a place less": lambda s, a: a.update({"neighbours.places": a["neighbours.places"][1:]}),
    "knots that fall": lambda s, a: a.update({"neighbours.knots": -a["neighbours.knots"]}),
    "no knots": lambda s, a: a.pop("neighbours.knots"),
    "cells that x has not": lambda s, a: s["neighbours"].update(cells=[0, 99]),
    "cells below 0": lambda s, a: s["neighbours"].update(cells=[-1, 0]),
    "cells of text": lambda s, a: s["neighbours"].update(cells=["0", "1"]),
    "cells twice": lambda s, a: s["neighbours"].update(cells=[0, 0]),
    "no cells": lambda s, a: s["neighbours"].update(cells=[]),
    "levels that fall": lambda s, a: s["neighbours"].update(levels=[24, 8]),
    "levels of nothing": lambda s, a: s["neighbours"].update(levels=[0, 24]),
    "levels of text": lambda s, a: s["neighbours"].update(levels="824"),
    "levels beyond reason": lambda s, a: s["neighbours"].update(levels=[8, 10**9]),
    "a level less": lambda s, a: s["neighbours"].update(levels=[8]),
    "counts of text": lambda s, a: s["neighbours"].update(n_knots=["2"]),
    "counts of no list": lambda s, a: s["neighbours"].update(n_knots=7),
    "a list": lambda s, a: s.update(neighbours=[1]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_neighbours_are_refused(
    damage: str, model: lamina.TabularRegressor, tmp_path: Path
) -> None:
    model.save(tmp_path / "m")
    role, spec, arrays = modelfile.read(tmp_path / "m")
    DAMAGE[damage](spec, arrays)
    modelfile.write(tmp_path / "m", role, spec, arrays)
    with pytest.raises(ModelFileError, match="expected a tabular_regressor") as caught:
        lamina.load(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_missing_columns_are_named_as_ever(model: lamina.TabularRegressor) -> None:
    with pytest.raises(DataError, match="missing 'north'"):
        model.predict({"east": [0.1], "noise": [0.0]})
