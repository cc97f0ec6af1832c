"""Intervals and quantiles of TabularRegressor: what they promise holds on fresh rows."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from tests.tolerances import assert_same_bits

import lamina
from lamina.core import modelfile
from lamina.core.errors import DataError, ModelFileError, SpecError
from lamina.tabular.quantiles import OutOfFold, shared_value, snapped

Floats = NDArray[np.float64]
LEVEL = st.floats(1e-9, 1 - 1e-9)
N, N_FRESH = 3000, 4000


def skewed(n: int, seed: int) -> tuple[Floats, Floats]:
    """Return x (n, 3) and y = sin 3 x_0 + exp(x_1) (E - 1), with E exponential of mean 1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 3))
    return x, np.sin(3 * x[:, 0]) + np.exp(x[:, 1]) * (rng.exponential(size=n) - 1)


def true_quantile(x: Floats, level: float) -> Floats:
    return np.asarray(np.sin(3 * x[:, 0]) + np.exp(x[:, 1]) * (-np.log(1 - level) - 1))


@pytest.fixture(scope="module")
def model() -> lamina.TabularRegressor:
    return lamina.TabularRegressor(random_state=0).fit(*skewed(N, 0))


@pytest.fixture(scope="module")
def small() -> lamina.TabularRegressor:
    return lamina.TabularRegressor("fast", random_state=0).fit(*skewed(60, 0))


@pytest.fixture(scope="module")
def fresh() -> tuple[Floats, Floats]:
    return skewed(N_FRESH, 1)


def share_within(interval: Floats, y: Floats) -> float:
    return float(np.mean((interval[..., 0] <= y) & (y <= interval[..., 1])))


# --- what they promise --------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_intervals_cover_fresh_rows_as_stated(
    coverage: float, model: lamina.TabularRegressor, fresh: tuple[Floats, Floats]
) -> None:
    """Within 4 standard errors of both samples, and 2 % for what is known to err to safety."""
    interval = model.predict_interval(fresh[0], coverage)
    assert interval.shape == (N_FRESH, 2)
    noise = 4 * np.sqrt(coverage * (1 - coverage) * (1 / N + 1 / N_FRESH))
    assert -noise < share_within(interval, fresh[1]) - coverage < noise + 0.02


def test_intervals_follow_the_spread_and_the_skew_of_each_row(
    model: lamina.TabularRegressor, fresh: tuple[Floats, Floats]
) -> None:
    """Against the quantiles in closed form; an interval of one width for all is far off."""
    x, y = fresh
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    quantiles = model.predict_quantiles(x, levels)
    for k, level in enumerate(levels):
        expected = true_quantile(x, level)
        off = np.abs(quantiles[:, k] - expected) / np.exp(x[:, 1])  # of the row's deviation
        assert np.median(off) < (0.2 if level < 0.9 else 0.6), level
    for part in (x[:, 1] < -0.5, x[:, 1] > 0.5):
        assert 0.84 < share_within(quantiles[part][:, [0, 4]], y[part]) < 0.97


def test_quantiles_are_levels(model: lamina.TabularRegressor, fresh: tuple[Floats, Floats]) -> None:
    for level in (0.03, 0.3, 0.5, 0.85, 0.985):
        below = np.mean(fresh[1] <= model.predict_quantiles(fresh[0], [level])[:, 0])
        noise = 4 * np.sqrt(level * (1 - level) * (1 / N + 1 / N_FRESH))
        assert abs(below - level) < noise + 0.015, level


@pytest.mark.parametrize("n", [30, 100])
def test_intervals_of_small_tables_are_not_narrower_than_honest(n: int) -> None:
    """Half of such tables may fall short by chance, but not their mean."""
    x, y = load_diabetes(return_X_y=True)
    shares = []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(len(y))
        own, others = order[:n], order[n:]
        model = lamina.TabularRegressor(random_state=seed).fit(x[own], y[own])
        shares.append(share_within(model.predict_interval(x[others]), y[others]))
    spread = np.sqrt(0.9 * 0.1 / n)  # of a table's own coverage, around the mean over tables
    assert np.mean(shares) > 0.9 - 2 * spread / np.sqrt(len(shares))
    assert np.mean(shares) < 0.99


@pytest.mark.parametrize("loss", ["poisson", "absolute_error"])
def test_other_losses_cover_too(loss: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (4000, 2))
    y = rng.poisson(np.exp(1 + x[:, 0])).astype(float)
    model = lamina.TabularRegressor("fast", loss=loss, random_state=0).fit(x[:2000], y[:2000])
    interval = model.predict_interval(x[2000:])
    assert 0.87 < share_within(interval, y[2000:]) < 0.96
    if loss == "poisson":
        assert model.predict_quantiles(x, [1e-9, 0.01]).min() == 0


def test_each_of_several_targets_has_its_interval() -> None:
    """The second is almost without noise: what is off are the networks, which errs to safety."""
    x, y = skewed(2000, 0)
    both = np.stack([y, 100 * x[:, 0] + np.random.default_rng(1).normal(size=2000)], axis=1)
    model = lamina.TabularRegressor("fast", random_state=0).fit(x[:1200], both[:1200])
    interval = model.predict_interval(x[1200:])
    assert interval.shape == (800, 2, 2)
    for t in range(2):
        assert 0.85 < share_within(interval[:, t], both[1200:, t]) < 0.99
    assert model.predict_quantiles(x[:3], [0.2, 0.3, 0.4]).shape == (3, 2, 3)


# --- never crossing -------------------------------------------------------------------------------


@settings(deadline=None)
@given(levels=st.lists(LEVEL, min_size=2, max_size=8))
def test_quantiles_never_cross(small: lamina.TabularRegressor, levels: list[float]) -> None:
    x = skewed(30, 2)[0] * 3  # also rows unlike any before
    quantiles = small.predict_quantiles(x, levels)
    assert quantiles.shape == (30, len(levels))
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles[:, np.argsort(levels, kind="stable")], axis=1) >= 0).all()
    alone = [small.predict_quantiles(x, level)[:, 0] for level in levels]
    assert_same_bits(quantiles, np.stack(alone, axis=1))


@settings(deadline=None)
@given(pair=st.tuples(LEVEL, LEVEL))
def test_intervals_of_more_coverage_contain_the_others(
    small: lamina.TabularRegressor, pair: tuple[float, float]
) -> None:
    x = skewed(30, 2)[0]
    inner, outer = (small.predict_interval(x, c) for c in sorted(pair))
    assert (outer[:, 0] <= inner[:, 0]).all()
    assert (inner[:, 0] <= inner[:, 1]).all()
    assert (inner[:, 1] <= outer[:, 1]).all()


def test_the_range_of_y_bounds_only_levels_that_enough_rows_know(
    model: lamina.TabularRegressor, small: lamina.TabularRegressor
) -> None:
    y, x = skewed(N, 0)[1], skewed(500, 2)[0] * 3
    assert model.predict_interval(x, 0.9).max() <= y.max()
    assert model.predict_interval(x, 0.999999).max() > y.max()
    assert small.predict_interval(x, 0.9).max() > skewed(60, 0)[1].max()
    near_one = model.predict_interval(x, np.nextafter(1.0, 0.0))
    assert np.isfinite(near_one).all()


# --- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 90, np.nan, "0.9", None, [0.9], True])
def test_bad_coverage_is_refused_in_one_sentence(
    coverage: Any, small: lamina.TabularRegressor
) -> None:
    with pytest.raises(SpecError, match=r"predict_interval: expected coverage .* in \(0, 1\)"):
        small.predict_interval(skewed(2, 0)[0], coverage)


@pytest.mark.parametrize("levels", [[0.1, 1.0], [0], [np.nan], ["a"], [[0.1, 0.2]], [], "0.5"])
def test_bad_levels_are_refused_in_one_sentence(
    levels: Any, small: lamina.TabularRegressor
) -> None:
    with pytest.raises(SpecError, match="predict_quantiles: expected") as caught:
        small.predict_quantiles(skewed(2, 0)[0], levels)
    assert "\n" not in str(caught.value)


def test_a_table_that_lacks_a_column_is_refused() -> None:
    x, y = skewed(40, 0)
    table = {"a": x[:, 0], "b": x[:, 1]}
    model = lamina.TabularRegressor("fast", max_seconds=1e-3, random_state=0).fit(table, y)
    with pytest.raises(DataError, match=r"predict_interval: expected the 2 columns .* missing 'b'"):
        model.predict_interval({"a": x[:, 0]})
    with pytest.raises(ValueError, match="not fitted"):
        lamina.TabularRegressor().predict_interval(table)


def test_a_model_of_files_has_no_intervals_and_says_so(tmp_path: Path) -> None:
    x, y = skewed(60, 0)
    path = tmp_path / "t.csv"
    np.savetxt(path, np.column_stack([x, y]), delimiter=",", header="a,b,c,y", comments="")
    model = lamina.TabularRegressor("fast", max_seconds=0.05, random_state=0).fit(x, y)
    model.fit_files(path, "y").save(tmp_path / "m")
    for one in (model, lamina.load(tmp_path / "m")):
        with pytest.raises(SpecError, match="predict_interval: expected a model that fit made"):
            one.predict_interval(dict(zip("abc", x.T, strict=True)))


def test_no_rows_give_no_intervals(small: lamina.TabularRegressor) -> None:
    table = {f"x{i}": np.empty(0) for i in range(3)}
    assert small.predict_interval(table).shape == (0, 2)


def test_rows_of_weight_0_count_for_nothing() -> None:
    x, y = skewed(400, 0)
    wild, weight = y.copy(), np.ones(400)
    wild[::2], weight[::2] = 1e6 * (1 + np.arange(200)), 0.0
    model = lamina.TabularRegressor("fast", random_state=0).fit(x, wild, weight)
    interval = model.predict_interval(x[1::2])
    assert np.diff(interval, axis=1).max() < 20
    assert share_within(interval, y[1::2]) > 0.8


def test_weights_move_the_quantiles() -> None:
    """Rows above their median that count four times: the median becomes the 0.8-quantile's."""
    x, y = skewed(2000, 0)
    weight = np.where(y > true_quantile(x, 0.5), 4.0, 1.0)
    model = lamina.TabularRegressor("fast", random_state=0).fit(x, y, weight)
    fresh_x, fresh_y = skewed(N_FRESH, 1)
    below = np.mean(fresh_y <= model.predict_quantiles(fresh_x, [0.5])[:, 0])
    assert below == pytest.approx(0.5 + 0.3 / 0.8 * 0.5, abs=0.05)  # 1 + 4 s = 2.5, s = 3/8


@pytest.mark.parametrize("n_targets", [1, 2])
def test_saved_and_copied_ones_give_the_same_bits(n_targets: int, tmp_path: Path) -> None:
    x, y = skewed(60, 0)
    y = y if n_targets == 1 else np.stack([y, x[:, 0]], axis=1)
    model = lamina.TabularRegressor("fast", max_seconds=0.05, random_state=0).fit(x, y)
    model.save(tmp_path / "m")
    expected = model.predict_quantiles(x, [0.01, 0.5, 0.9])
    for other in (lamina.load(tmp_path / "m"), copy.deepcopy(model)):
        assert_same_bits(other.predict_quantiles(x, [0.01, 0.5, 0.9]), expected)
    again = pickle.loads(pickle.dumps(model))
    assert_same_bits(again.predict_quantiles(x, [0.01, 0.5, 0.9]), expected)


DAMAGE = {
    "no quantiles": lambda s, a: s.pop("quantiles"),
    "quantiles of a list": lambda s, a: s.update(quantiles=[]),
    "no theta": lambda s, a: a.pop("quantiles.theta"),
    "theta NaN": lambda s, a: a["quantiles.theta"].fill(np.nan),
    "scale 0": lambda s, a: a["quantiles.scale"].fill(0),
    "scale of two targets": lambda s, a: a.update({"quantiles.scale": np.ones(2)}),
    "scale float32": lambda s, a: a.update({"quantiles.scale": np.ones(1, np.float32)}),
    "knots that fall": lambda s, a: a["quantiles.knots"][::-1].sort(),
    "knots less": lambda s, a: a.update({"quantiles.knots": a["quantiles.knots"][1:]}),
    "places that fall": lambda s, a: a["quantiles.places"][:, ::-1].sort(),
    "readings that fall": lambda s, a: a["quantiles.places"][1, ::-1].sort(),
    "places NaN": lambda s, a: a["quantiles.places"].fill(np.nan),
    "places of one row": lambda s, a: a.update({"quantiles.places": a["quantiles.places"][:1]}),
    "counts of text": lambda s, a: s["quantiles"].update(n_places="9"),
    "counts too many": lambda s, a: s["quantiles"].update(n_places=[10**9]),
    "no rows": lambda s, a: s["quantiles"].update(n_rows=0),
    "levels less": lambda s, a: s["quantiles"]["levels"].pop(),
    "levels out of order": lambda s, a: s["quantiles"]["levels"].reverse(),
    "levels above 1": lambda s, a: s["quantiles"].update(levels=list(range(13))),
    "levels of text": lambda s, a: s["quantiles"].update(levels=["a"] * 13),
    "other columns": lambda s, a: s["quantiles"]["network"].update(encoding=None),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_quantiles_are_refused(
    damage: str, small: lamina.TabularRegressor, tmp_path: Path
) -> None:
    small.save(tmp_path / "m")
    role, spec, arrays = modelfile.read(tmp_path / "m")
    DAMAGE[damage](spec, arrays)
    modelfile.write(tmp_path / "m", role, spec, arrays)
    with pytest.raises(ModelFileError) as caught:
        lamina.load(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_residuals_of_a_value_that_many_rows_share_do_not_shrink() -> None:
    # A cost of nothing stays nothing however many members are averaged; with all residuals shrunk,
    # the 90 % intervals of a table of bird strikes, 98 % of which cost nothing, covered 18 %.
    rng = np.random.default_rng(0)
    y = np.where(np.arange(1000) % 10 > 0, -0.2, rng.normal(size=1000))
    predicted = y + rng.normal(size=1000)
    rows = OutOfFold(
        predicted[:, None], (y - predicted)[:, None], np.full((1000, 1), 0.5), 1, 16, 0.0
    )
    found = rows.fresh_residual(0, np.ones(1000))
    ratio = found / (y - predicted)
    shared = y == -0.2
    np.testing.assert_allclose(ratio[shared], 1.0, rtol=1e-12, atol=0)
    assert np.ptp(ratio[~shared]) < 1e-12
    assert 0.5 <= ratio[~shared][0] < 0.9


def test_intervals_hold_where_costs_are_often_nothing_and_else_spread_widely() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8000, 4))
    y = np.where(X[:, 0] < 0, 0.0, np.exp(X[:, 0] + rng.normal(size=8000)))
    model = lamina.TabularRegressor("fast", random_state=0).fit(X[:4000], y[:4000])
    assert 0.84 < share_within(model.predict_interval(X[4000:], coverage=0.9), y[4000:]) < 0.94


def test_low_ends_within_noise_of_a_shared_value_are_that_value() -> None:
    y = np.repeat([0.0, 1.0], [60, 40]) + np.where(np.arange(100) < 60, 0.0, np.arange(100.0))
    low = np.where(np.arange(100) < 10, 0.2, -0.1)
    value, above, below = shared_value(y, low, y + 1.0)
    assert (value, below) == (0.0, 0.0)
    assert above == 0.2
    ends = np.array([-0.5, 0.1, 0.2, 0.3])
    low_ends = snapped(ends, 0.05, np.array([0.0, 0.2, 0.0]))
    np.testing.assert_array_equal(low_ends, [-0.5, -1e-9, -1e-9, 0.3])  # 0 is not below them
    np.testing.assert_array_equal(snapped(ends, 0.95, np.array([0.0, 0.2, 0.0])), ends)
    high = np.array([-0.5, -0.1, 0.1])
    high_ends = snapped(high, 0.95, np.array([0.0, 0.0, 0.2]))
    np.testing.assert_array_equal(high_ends, [-0.5, 1e-9, 0.1])
    assert shared_value(np.arange(100.0), low, low) == (0.0, 0.0, 0.0)
