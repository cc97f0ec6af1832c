"""Shapley values against their definition, closed forms, and each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.tabular.shapley import MOST_EXACT, shapley_values

Array = np.ndarray[Any, np.dtype[Any]]
EPS = float(np.finfo(np.float64).eps)


def by_definition(
    f: Callable[[Array], Array], row: Array, background: Array, groups: Array
) -> Array:
    """Average over every order of the groups, one row and one background row at a time."""
    n_groups = groups.max() + 1
    orders = list(itertools.permutations(range(n_groups)))
    values = np.zeros((n_groups, f(row[np.newaxis]).shape[1]))
    for order in orders:
        for other in background:
            mixed = other.copy()
            before = f(mixed[np.newaxis])[0]
            for group in order:
                mixed[groups == group] = row[groups == group]
                after = f(mixed[np.newaxis])[0]
                values[group] += after - before
                before = after
    return values / (len(orders) * len(background))


def crooked(x: Array) -> Array:
    """Two outputs in which columns interact, each row by itself."""
    x = x.astype(np.float64)
    product = np.prod(np.sin(1.0 + x), axis=1)
    return np.stack([product + np.exp(x[:, 0] * x[:, -1] / 4), np.abs(x).max(axis=1)], axis=1)


@pytest.mark.parametrize("groups", [[0, 1, 2], [0, 0, 1, 2, 2, 3], [1, 0, 1]])
def test_exact_values_are_those_of_the_definition(groups: list[int]) -> None:
    rng = np.random.default_rng(0)
    own = np.array(groups)
    x = rng.normal(size=(3, len(groups))).astype(np.float32)
    background = rng.normal(size=(5, len(groups))).astype(np.float32)

    values, error = shapley_values(crooked, x, background, own, rng=rng)

    for i, row in enumerate(x):
        expected = by_definition(crooked, row, background, own)
        np.testing.assert_allclose(values[i], expected, rtol=0, atol=1000 * EPS)
    assert not error.any()


@pytest.mark.parametrize("n_groups", [1, 3, MOST_EXACT, MOST_EXACT + 1, 20])
@pytest.mark.parametrize("n_pairs", [None, 2])
def test_a_linear_model_gives_the_closed_form(n_groups: int, n_pairs: int | None) -> None:
    # phi_j = w_j (x_j - mean b_j), exactly, whatever orders are drawn
    rng = np.random.default_rng(n_groups)
    w = rng.normal(size=(n_groups, 2))
    x = rng.normal(size=(4, n_groups)).astype(np.float32)
    background = rng.normal(size=(6, n_groups)).astype(np.float32)

    values, error = shapley_values(
        lambda rows: rows.astype(np.float64) @ w + 3.0,
        x,
        background,
        np.arange(n_groups),
        n_pairs=n_pairs,
        rng=rng,
    )

    expected = (x.astype(np.float64) - background.mean(axis=0, dtype=np.float64))[:, :, None] * w
    np.testing.assert_allclose(values, expected, rtol=0, atol=1000 * n_groups * EPS)
    assert np.isfinite(error).all()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 4),
    n_columns=st.integers(1, 14),
    n_background=st.integers(1, 7),
    n_pairs=st.sampled_from([None, 1, 3]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_shares_sum_to_prediction_minus_baseline(
    n: int, n_columns: int, n_background: int, n_pairs: int | None, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, n_columns, n_columns))
    groups = np.unique(groups, return_inverse=True)[1]  # some of several columns, none empty
    x = rng.normal(size=(n, n_columns)).astype(np.float32)
    background = rng.normal(size=(n_background, n_columns)).astype(np.float32)

    def f(rows: Array) -> Array:
        return scale * crooked(rows)

    values, _ = shapley_values(f, x, background, groups, n_pairs=n_pairs, rng=rng)

    assert values.shape == (n, groups.max() + 1, 2)
    expected = f(x) - f(background).mean(axis=0)
    size = max(float(np.abs(f(np.concatenate([x, background]))).max()), scale)
    # The 2^M weighted means of the exact way add up as many rounding errors
    bound = 2.0 ** min(n_columns, MOST_EXACT) * 64 * EPS * size
    np.testing.assert_allclose(values.sum(axis=1), expected, rtol=0, atol=bound)


def test_drawn_orders_come_close_to_every_set_as_their_error_says() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 5)).astype(np.float32)
    background = rng.normal(size=(64, 5)).astype(np.float32)
    exact, _ = shapley_values(crooked, x, background, np.arange(5), rng=rng)

    drawn, error = shapley_values(crooked, x, background, np.arange(5), n_pairs=2, rng=rng)

    off = np.abs(drawn - exact)
    assert (off > 0).any()
    assert np.mean(off < 2 * error) > 0.95
    more, smaller = shapley_values(crooked, x, background, np.arange(5), n_pairs=32, rng=rng)
    assert smaller.mean() == pytest.approx(error.mean() / 4, rel=0.1)
    assert np.abs(more - exact).mean() < 0.5 * off.mean()


def test_a_column_that_is_not_read_gets_nothing_and_twins_get_the_same() -> None:
    rng = np.random.default_rng(4)
    x = np.repeat(rng.normal(size=(5, 1)), 4, axis=1).astype(np.float32)
    background = np.repeat(rng.normal(size=(9, 1)), 4, axis=1).astype(np.float32)

    values, _ = shapley_values(
        lambda rows: np.tanh(rows[:, :1] * rows[:, 1:2] + rows[:, 2:3]).astype(np.float64),
        x,
        background,
        np.arange(4),
        rng=rng,
    )

    assert np.abs(values[:, 3]).max() < 100 * EPS
    np.testing.assert_allclose(values[:, 0], values[:, 1], rtol=0, atol=100 * EPS)
    assert np.abs(values[:, 2]).min() > 0.01


def test_no_call_has_more_rows_than_a_batch() -> None:
    from lamina.tabular.mixing import BATCH_ROWS

    sizes: list[int] = []

    def f(rows: Array) -> Array:
        sizes.append(len(rows))
        return rows[:, :1].astype(np.float64)

    x = np.zeros((40, 12), np.float32)
    shapley_values(f, x, x, np.arange(12), rng=np.random.default_rng(0))
    assert max(sizes) == BATCH_ROWS
    assert sum(sizes) == 40 + 40 + 40 * 2 * 40 * 11


def test_an_order_and_its_reverse_together_are_exact_where_columns_meet_in_pairs() -> None:
    rng = np.random.default_rng(6)
    meet = np.triu(rng.normal(size=(10, 10)))
    x = rng.normal(size=(3, 10)).astype(np.float32)
    background = rng.normal(size=(4, 10)).astype(np.float32)

    def f(rows: Array) -> Array:
        rows = rows.astype(np.float64)
        return np.einsum("ni,ij,nj->n", rows, meet, rows)[:, np.newaxis]

    drawn, _ = shapley_values(f, x, background, np.arange(10), n_pairs=1, rng=rng)

    # phi_i of x_i x_j against b: half of what remains when the other is x, half when it is b
    a, b = x.astype(np.float64)[:, None], background.astype(np.float64)[None]
    off = meet - np.diag(np.diag(meet))
    cross = (a - b) * ((a + b) / 2 @ (off + off.T))
    expected = ((a**2 - b**2) * np.diag(meet) + cross).mean(axis=1)
    np.testing.assert_allclose(drawn[..., 0], expected, rtol=0, atol=1e4 * EPS)


@pytest.mark.parametrize("n_groups", range(2, 11))
def test_every_set_never_costs_more_than_four_times_one_pair_of_orders(n_groups: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, n_groups)).astype(np.float32)
    background = rng.normal(size=(16, n_groups)).astype(np.float32)

    def predicted(n_pairs: int | None) -> int:
        seen = 0

        def f(rows: Array) -> Array:
            nonlocal seen
            seen += len(rows)
            return crooked(rows)

        shapley_values(f, x, background, np.arange(n_groups), n_pairs=n_pairs, rng=rng)
        return seen - len(x) - len(background)

    by_default, by_one_pair = predicted(None), predicted(1)
    assert by_one_pair == 3 * 2 * 16 * (n_groups - 1)
    assert by_default <= 4 * by_one_pair
    if n_groups <= 5:
        assert by_default == 3 * 16 * (2**n_groups - 2)
