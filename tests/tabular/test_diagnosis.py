"""Calibration, confusion and worst groups on rows whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from lamina.tabular.diagnosis import calibration_bins, confusion, worst_groups
from lamina.tabular.frames import as_table


def test_bins_have_clopper_and_pearsons_intervals() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(600)
    true = rng.random(600) < p
    bins = calibration_bins(p, true)
    assert bins.count.tolist() == [40] * 15
    assert (np.diff(bins.predicted) > 0).all()
    order = np.argsort(p)
    for k in range(15):
        rows = order[40 * k : 40 * (k + 1)]
        exact = binomtest(int(true[rows].sum()), 40).proportion_ci(0.95)
        assert (bins.low[k], bins.high[k]) == pytest.approx((exact.low, exact.high))
        assert bins.predicted[k] == pytest.approx(p[rows].mean())
    assert bins.error == pytest.approx(np.mean(np.abs(bins.share - bins.predicted)))


def test_the_calibration_error_is_the_gap() -> None:
    p = np.full(3000, 0.3)
    true = np.arange(3000) % 2 == 0
    assert calibration_bins(p, true).error == pytest.approx(0.2)
    few = calibration_bins(np.array([0.1]), np.array([True]))
    assert few.error == pytest.approx(0.9)
    assert few.high[0] == 1.0


def test_confusion_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    y, y_pred = rng.integers(0, 4, 100), rng.integers(0, 3, 100)
    np.testing.assert_array_equal(
        confusion(y, y_pred, 4), confusion_matrix(y, y_pred, labels=range(4))
    )


def planted(n: int = 2000) -> tuple[dict[str, object], np.ndarray]:
    rng = np.random.default_rng(2)
    city = rng.choice(["Oslo", "Rome", "Lima"], n, p=[0.1, 0.6, 0.3]).astype(object)
    age = rng.uniform(0, 100, n)
    age[:300] = np.nan
    losses = rng.exponential(size=n) + 2.0 * (city == "Oslo") + 1.0 * (age > 80.0)
    return {"city": city, "age": age, "noise": rng.normal(size=n)}, losses


def test_planted_groups_are_found_and_nothing_else() -> None:
    table, losses = planted()
    groups, n_groups = worst_groups(as_table(table), losses)
    assert n_groups == 3 + 6 + 5
    assert [(g.column, g.values) for g in groups[:1]] == [("city", "Oslo")]
    assert [g.column for g in groups] == ["city", "age"]
    rows = table["city"] == "Oslo"
    assert groups[0].n_rows == rows.sum()
    assert groups[0].loss == pytest.approx(losses[rows].mean())
    assert groups[0].excess == pytest.approx(losses[rows].mean() - losses[~rows].mean())
    low, high = (float(part) for part in groups[1].values.split(" to "))
    assert low == pytest.approx(80, abs=2)
    assert high == pytest.approx(100, abs=1)


def test_groups_of_chance_are_rarely_named() -> None:
    named = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        table = {f"c{j}": rng.choice(list("abcdefgh"), 1000) for j in range(10)}
        named += bool(worst_groups(as_table(table), rng.normal(size=1000))[0])
    assert named <= 6  # 5 % of 40, and three standard deviations


def test_a_value_that_most_rows_share_is_a_group_of_its_own() -> None:
    gain = np.where(np.arange(400) % 10 == 0, 5000.0 + np.arange(400), 0.0)
    losses = np.random.default_rng(3).random(400) + (gain > 0)
    groups, n_groups = worst_groups(as_table({"gain": gain}), losses)
    assert n_groups == 2
    assert [g.values for g in groups] == ["5000 to 5390"]


def test_missing_values_and_dates_are_groups() -> None:
    day = np.datetime64("2020-01-01T00:00:00") + 86400 * np.arange(500)
    day[::5] = np.datetime64("NaT")
    losses = np.where(np.isnat(day), 9.0, 1.0) + np.random.default_rng(4).random(500)
    groups, n_groups = worst_groups(as_table({"day": day}), losses)
    assert [g.values for g in groups] == ["missing"]
    assert n_groups == 6
    late = np.random.default_rng(4).random(500) + (np.arange(500) > 420)
    assert worst_groups(as_table({"day": day}), late)[0][0].values.startswith("2021-0")
    assert worst_groups(as_table({"day": day[:30]}), losses[:30]) == ([], 0)  # too few to say
