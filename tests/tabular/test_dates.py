"""Parts of dates, against Python's datetime."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.tabular.dates import PARTS, PERIODS, date_parts, varying_parts

EPOCH = datetime.datetime(1970, 1, 1)
moments = st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9000, 1, 1))


@given(st.lists(moments, min_size=1, max_size=5))
def test_parts_are_those_of_pythons_calendar(found: list[datetime.datetime]) -> None:
    found = [moment.replace(microsecond=0) for moment in found]
    seconds = np.array([(moment - EPOCH).total_seconds() for moment in found])
    parts = date_parts(seconds, PARTS)
    assert tuple(parts) == PARTS
    for i, m in enumerate(found):
        hour = m.hour + m.minute / 60 + m.second / 3600
        expected = [seconds[i] / 86400, m.year, m.month, m.day, m.weekday(), hour]
        np.testing.assert_allclose([parts[name][i] for name in PARTS], expected, rtol=1e-12)


def test_only_parts_that_vary_are_chosen() -> None:
    days = np.array([0.0, 86400.0, np.nan])
    assert varying_parts(days) == ("days", "day", "weekday")
    assert tuple(date_parts(days)) == ("days", "day", "weekday")
    assert varying_parts(np.array([np.nan])) == ()
    assert varying_parts(np.array([])) == ()
    assert tuple(date_parts(days, ["hour", "year"])) == ("year", "hour")


def test_cyclic_parts_lie_on_a_circle_and_close_it() -> None:
    start = np.datetime64("2020-01-01T00:00", "s").astype(float)
    seconds = start + 3600.0 * np.arange(0, 24 * 400, 7)
    parts = date_parts(seconds, PARTS, cyclic=True)
    plain = date_parts(seconds, PARTS)
    for name, (first, period) in PERIODS.items():
        sine, cosine = parts[f"{name}_sin"], parts[f"{name}_cos"]
        np.testing.assert_allclose(sine**2 + cosine**2, 1.0)
        turns = np.arctan2(sine, cosine) / (2 * np.pi) % 1.0
        np.testing.assert_allclose(turns * period + first, plain[name], atol=1e-9)
    assert "month" not in parts
    assert {"days", "year"} < set(parts)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, -3e11])
def test_what_is_no_date_gives_nan(bad: float) -> None:
    for cyclic in (False, True):
        parts = date_parts(np.array([bad, 0.0]), PARTS, cyclic=cyclic)
        assert all(np.isnan(v[0]) and np.isfinite(v[1]) for v in parts.values())
