"""Folds of rows, and predictions of the members that did not learn from a row."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.losses import SquaredError
from lamina.tabular import learner
from lamina.tabular.learner import Objective, learn, make_folds
from lamina.tabular.recipe import PRESETS, Recipe

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("n", [10, 63, 500, 3000])
def test_every_row_is_held_out_once_a_division(n: int) -> None:
    recipe = Recipe()
    masks = np.array(make_folds(n, recipe, None, None, np.random.default_rng(0)))
    np.testing.assert_array_equal((~masks).sum(axis=0), recipe.n_repeats(n))
    sizes = (~masks).sum(axis=1)
    assert sizes.max() - sizes.min() <= 1


def test_strata_are_spread_over_the_folds_and_a_row_alone_is_always_learnt_from() -> None:
    strata = np.array([0] * 80 + [1] * 16 + [2])
    masks = make_folds(len(strata), Recipe(n_folds=8), strata, None, np.random.default_rng(0))
    for mask in masks:
        held = np.bincount(strata[~mask], minlength=3)
        assert held.tolist() == [10, 2, 0]


def test_rows_of_weight_zero_are_held_out_by_nobody() -> None:
    weight = np.where(np.arange(100) % 4 == 0, 0.0, 1.0)
    masks = np.array(make_folds(100, Recipe(), None, weight, np.random.default_rng(0)))
    assert masks[:, weight == 0].all()
    assert not masks[:, weight > 0].all(axis=0).any()


def test_out_of_fold_is_the_mean_of_members_that_did_not_see_the_row() -> None:
    n, recipe = 200, Recipe(widths=(8,), n_seen=2000, n_features=4)
    x = RNG.uniform(size=(n, 2)).astype(np.float32)
    y = np.sin(6 * x[:, :1]).astype(np.float32)
    learned = learn(
        x,
        y,
        ColumnEmbeddings((8, 8), 4),
        Objective(1, "identity", SquaredError()),
        recipe,
        rng=np.random.default_rng(5),
    )
    masks = np.array(make_folds(n, recipe, None, None, np.random.default_rng(5)))
    members = learned.ensemble.predict_members(x)[:, :, 0]
    expected = np.ma.masked_array(members, masks).mean(axis=0)
    np.testing.assert_allclose(learned.out_of_fold[:, 0], expected, rtol=1e-6)
    assert np.abs(learned.out_of_fold[:, 0] - members.mean(axis=0)).max() > 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_few_rows_get_a_smaller_network(preset: str) -> None:
    recipe = PRESETS[preset]
    few, many = recipe.for_rows(500), recipe.for_rows(50_000)
    assert many == recipe
    assert few.n_features < many.n_features
    assert few.dropout > many.dropout
    assert few.n_folds == min(many.n_folds, 8)
    assert few.batch_size(500) <= 128
    assert few.epochs(10) == few.most_epochs
    assert many.epochs(10**7) == many.least_epochs


# --- many rows: folds are bounded, disjoint, and a fair share of every stratum

RECIPE = PRESETS["default"]


def folds_of(n: int, strata: np.ndarray | None, weight: np.ndarray | None = None) -> np.ndarray:
    return ~np.array(make_folds(n, RECIPE, strata, weight, np.random.default_rng(0)))


def test_few_rows_are_all_held_out_by_one_member_each() -> None:
    held = folds_of(5000, None)
    assert (held.sum(axis=0) == 1).all()
    sizes = held.sum(axis=1)
    assert len(sizes) == RECIPE.n_folds
    assert sizes.min() == 5000 // RECIPE.n_folds
    assert sizes.sum() == 5000


@pytest.mark.parametrize("most", [10, 99, 100, 130])
def test_folds_of_many_rows_are_bounded(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "MOST_HELD", most)
    n = RECIPE.n_folds * 1000 + 3
    strata = np.random.default_rng(1).choice(4, n, p=[0.7, 0.2, 0.09, 0.01])
    held = folds_of(n, strata)
    assert held.sum(axis=0).max() == 1
    sizes = held.sum(axis=1)
    assert sizes.max() <= most
    assert sizes.min() >= most * 0.9 - 1
    of_strata = np.bincount(strata, minlength=4) / n
    for stratum, share in enumerate(of_strata):
        in_folds = held[:, strata == stratum].sum()
        assert abs(in_folds - share * sizes.sum()) <= 1
        assert np.ptp(held[:, strata == stratum].sum(axis=1)) <= 1


def test_rows_without_weight_or_alone_in_their_stratum_are_not_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learner, "MOST_HELD", 10)
    n = 2000
    weight = (np.arange(n) % 2).astype(float)
    strata = np.zeros(n, np.int64)
    strata[7] = 1
    held = folds_of(n, strata, weight)
    assert held.any(axis=1).all()
    assert not held[:, weight == 0].any()
    assert not held[:, 7].any()


def test_out_of_fold_output_is_missing_where_nobody_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import lamina

    monkeypatch.setattr(learner, "MOST_HELD", 20)
    x = np.arange(3000.0)
    model = lamina.TabularRegressor("fast", random_state=0).fit({"x": x}, np.sin(x / 300))
    known = ~np.isnan(model.out_of_fold_)
    assert 70 <= known.sum() <= 4 * 20
    assert model.report_.scores["r2"] > 0.9
