"""Folds of rows, and predictions of the members that did not learn from a row."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.losses import SquaredError
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
    masks = make_folds(len(strata), Recipe(), strata, None, np.random.default_rng(0))
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
    assert few.batch_size(500) <= 128
    assert few.epochs(10) == few.most_epochs
    assert many.epochs(10**7) == many.least_epochs
