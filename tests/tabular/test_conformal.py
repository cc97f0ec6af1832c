"""Conformal calibration against closed forms and simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tolerances import assert_close, rounding

from lamina.core.history import History
from lamina.tabular.conformal import (
    LEAST_SCALE,
    LEAST_SLOPE,
    OUTER_GAIN,
    Calibration,
    Curves,
    fresh_scale,
    logit,
    selection_excess,
)

LEVELS = np.array([0.05, 0.2, 0.5, 0.7, 0.95])
BEYOND = np.array([1e-9, 0.001, 0.05, 0.11, 0.5, 0.6, 0.95, 0.99, 1 - 1e-9])
EXACT = rounding("float64", 100)


def history(losses: Any) -> History:
    return History(
        seed=0,
        n_threads=1,
        isa="avx2",
        precision="float32",
        validation_loss=list(losses),
        best_epoch=int(np.argmin(losses)),
    )


# --- curves -------------------------------------------------------------------------------------


def test_curves_of_a_logistic_distribution_are_exact_even_in_its_tails() -> None:
    """Its quantile function is centre + scale log(q / (1 - q)): straight in v."""
    centre, scale = np.array([0.0, 3.0, -2.0]), np.array([1.0, 0.1, 5.0])
    curves = Curves.fit(LEVELS, centre[:, None] + scale[:, None] * np.log(LEVELS / (1 - LEVELS)))
    for level in BEYOND:
        v = np.log(level / (1 - level))
        expected = centre + (scale + LEAST_SLOPE) * v
        assert_close(curves.at(v), expected, EXACT * (1 + np.abs(expected).max()))


def test_quantiles_that_cross_are_put_in_order() -> None:
    curves = Curves.fit(LEVELS, np.array([[4.0, 1.0, 3.0, 2.0, 5.0]]))
    at_levels = [float(curves.at(v)[0]) for v in logit(LEVELS)]
    assert at_levels == pytest.approx([1, 2, 3, 4, 5], abs=3 * LEAST_SLOPE)


@given(
    quantiles=st.lists(st.floats(-100, 100), min_size=5, max_size=5),
    levels=st.lists(st.floats(1e-9, 1 - 1e-9), min_size=2, max_size=9),
)
def test_curves_never_fall(quantiles: list[float], levels: list[float]) -> None:
    curves = Curves.fit(LEVELS, np.array([quantiles]))
    read = [float(curves.at(v)[0]) for v in np.sort(logit(levels))]
    assert np.all(np.diff(read) >= 0)


@given(
    quantiles=st.lists(st.floats(-5, 5), min_size=5, max_size=5),
    v=st.floats(-8, 8),
)
def test_place_is_the_inverse_of_at(quantiles: list[float], v: float) -> None:
    curves = Curves.fit(LEVELS, np.array([quantiles]))
    place = float(curves.place(curves.at(v))[0])
    assert place == pytest.approx(v, abs=1e5 * np.finfo(float).eps / LEAST_SLOPE)


# --- calibration --------------------------------------------------------------------------------


def test_calibration_reads_the_order_statistics_of_conformal_prediction() -> None:
    """Of 19 scores, the bound at level 0.95 is the (n + 1) 0.95 = 19th, not the quantile."""
    places = np.random.default_rng(0).normal(size=19)
    calibration = Calibration.fit(places)
    for i, place in enumerate(np.sort(places), 1):
        assert_close(calibration(i / 20), place, EXACT * 10)


def test_calibrated_levels_hold_for_fresh_rows() -> None:
    """Averaged over tables: P(fresh < bound) = level, though the curves' own level is wrong."""
    rng = np.random.default_rng(1)
    levels, n_tables = (0.05, 0.5, 0.9), 3000
    below = np.zeros(3)
    for _ in range(n_tables):
        calibration = Calibration.fit(np.log(rng.exponential(size=19)))
        bounds = np.exp([calibration(level) for level in levels])
        below += 1 - np.exp(-bounds)  # of an exponential variable
    noise = 4 * np.sqrt(np.multiply(levels, np.subtract(1, levels)) / 20 / n_tables)
    assert np.all(np.abs(below / n_tables - levels) < noise)


def test_weights_are_shares_of_the_rows() -> None:
    calibration = Calibration.fit(np.array([3.0, 1.0, 2.0]), np.array([3.0, 1.0, 2.0]))
    shares = np.array([0.5, 1.5, 3.0]) / 4  # of mean weight 1, and the fresh row's 1
    assert_close(calibration.asked, np.log(shares / (1 - shares)), EXACT)
    assert calibration.read.tolist() == [1.0, 2.0, 3.0]


def test_a_calibration_of_many_rows_is_summed_up() -> None:
    places = np.random.default_rng(2).logistic(size=50_000) * 0.5 + 1.0
    calibration = Calibration.fit(places)
    assert len(calibration.asked) < 600
    for level in (0.001, 0.1, 0.5, 0.95, 0.999):
        expected = np.quantile(places, level)
        density = 2 * level * (1 - level)  # of the logistic variable, at its quantile
        off = abs(calibration(level) - expected)
        assert off < 0.25 * np.sqrt(level * (1 - level) / len(places)) / density


@given(
    places=st.lists(st.floats(-50, 50), min_size=1, max_size=30),
    levels=st.lists(st.floats(1e-12, 1 - 1e-12), min_size=2, max_size=9),
)
def test_calibration_never_falls(places: list[float], levels: list[float]) -> None:
    calibration = Calibration.fit(np.array(places))
    assert np.all(np.diff([calibration(level) for level in sorted(levels)]) >= 0)


# --- from members out of fold to the ensemble on fresh rows ---------------------------------------


@pytest.mark.parametrize(
    ("n_held", "n_members", "least"),
    [(1, 2, 0.45), (1, 8, 0.8), (2, 16, 0.85), (1, 64, 0.95), (2, 256, 0.95)],
)
def test_averaging_gains_what_fresh_rows_show(n_held: int, n_members: int, least: float) -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=200_000 if n_members < 64 else 40_000)
    members = 0.7 * rng.normal(size=(n_members, len(y)))
    residual = y - members[:n_held].mean(axis=0)
    scale = fresh_scale(residual, members.var(axis=0, ddof=1), 0.0, n_held, n_members)
    fresh = y - members.mean(axis=0)
    gained = 1 - fresh.var() / residual.var()
    # Rows on which few members seem to agree are so by luck too: less is claimed, never more
    assert least < (1 - scale**2) / (OUTER_GAIN * gained) < 1.02


def test_a_scale_has_a_floor_and_grows_with_the_excess() -> None:
    residual, spread = np.ones(9), np.full(9, 100.0)
    assert fresh_scale(residual, spread, 0.0, 1, 8) == LEAST_SCALE
    assert fresh_scale(residual, 0 * spread, 0.44, 1, 8) == pytest.approx(1.2)


@pytest.mark.parametrize("n_fold", [4, 32, 1000])
def test_excess_undoes_the_choice_of_the_luckiest_epoch(n_fold: int) -> None:
    """Curves that are chance around 2: whatever the minimum says, the loss is 2."""
    rng = np.random.default_rng(4)
    curves = 2 + 0.3 * rng.normal(size=(400, 12))
    excess = selection_excess([history(c) for c in curves], n_fold)
    assert (1 + excess) * curves.min(axis=1).mean() == pytest.approx(2, rel=0.04)
    shifted = selection_excess([history(c - 1) for c in curves], n_fold, least_loss=-1.0)
    assert shifted == pytest.approx(excess)


def test_curves_alike_have_no_excess() -> None:
    assert selection_excess([history([3.0, 2.0, 2.5])] * 5, 10) == 0
    assert selection_excess([history([3.0, 2.0, 2.5])], 10) == 0
    assert selection_excess([], 10) == 0


def test_members_that_stopped_early_or_diverged_are_compared_where_they_can_be() -> None:
    several = [history([3.0, 1.0]), history([3.0, 2.0, 1.0]), history([1.0, np.inf])]
    # Alone, the first is best at epoch 1, the second at 2; at the other's: 1 and 2
    assert selection_excess(several, 10) == pytest.approx(1.5 - 1.0)
