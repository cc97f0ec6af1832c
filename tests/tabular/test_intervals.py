"""Bootstrap intervals against scikit-learn's weighted scores and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from lamina.tabular.intervals import (
    auc_of,
    mean_of,
    r2_of,
    root_mean_of,
    score_intervals,
)

RNG = np.random.default_rng(0)
N = 200
COUNTS = RNG.integers(0, 4, size=(5, N)).astype(np.float64)


def test_statistics_agree_with_scikit_learns_weighted_scores() -> None:
    y, y_pred = RNG.normal(1e6, 1.0, size=(N, 2)), RNG.normal(1e6, 1.0, size=(N, 2))
    positive = RNG.random(N) < 0.3
    score = np.round(RNG.normal(size=N) + positive, 1)  # with ties
    for counts, r2, auc, mean, root in zip(
        COUNTS,
        r2_of(y, y_pred)(COUNTS),
        auc_of(positive, score)(COUNTS),
        mean_of(score)(COUNTS),
        root_mean_of(score**2)(COUNTS),
        strict=True,
    ):
        assert r2 == pytest.approx(r2_score(y, y_pred, sample_weight=counts), rel=1e-9)
        assert auc == pytest.approx(roc_auc_score(positive, score, sample_weight=counts), rel=1e-12)
        assert mean == pytest.approx(np.average(score, weights=counts))
        assert root == pytest.approx(np.average(score**2, weights=counts) ** 0.5)


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 4000)
    found = score_intervals({"m": mean_of(values)}, 4000, np.random.default_rng(2))["m"]
    half = 1.96 * values.std() / 4000**0.5
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.12)
    assert found.value - found.low == pytest.approx(half, rel=0.12)


def test_intervals_cover_as_often_as_they_say() -> None:
    hits = 0
    for seed in range(200):
        values = np.random.default_rng(seed).exponential(size=150)
        found = score_intervals({"m": mean_of(values)}, 150, np.random.default_rng(seed))["m"]
        hits += found.low <= 1.0 <= found.high
    assert 0.89 <= hits / 200 <= 0.99  # 95 %, less what few skewed rows cost


def test_what_cannot_be_scored_is_nan() -> None:
    one = np.ones(5, bool)
    found = score_intervals({"a": auc_of(one, np.arange(5.0))}, 5, np.random.default_rng(0))["a"]
    assert np.isnan([found.value, found.low, found.high]).all()
    assert np.isnan(r2_of(np.ones(3), np.zeros(3))(np.ones((1, 3)))).all()


def test_many_rows_take_fewer_resamples() -> None:
    sizes: list[int] = []

    def count(counts: np.ndarray) -> np.ndarray:
        sizes.append(len(counts))
        assert counts.sum(axis=1).tolist() == [counts.shape[1]] * len(counts)
        return counts[:, 0]

    score_intervals({"n": count}, 300_000, np.random.default_rng(0))
    assert sum(sizes) == 200 + 1  # and all rows once
    assert max(sizes) * 300_000 <= 4_000_000
