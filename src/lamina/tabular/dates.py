"""Dates as useful numbers: time elapsed, and parts of the calendar, plain or on a circle."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

PARTS = ("days", "year", "month", "day", "weekday", "hour")
# First value and period of the parts that begin again.
PERIODS = {"month": (1.0, 12.0), "day": (1.0, 31.0), "weekday": (0.0, 7.0), "hour": (0.0, 24.0)}
_DAY = 86_400.0
_FAR = 2.5e11  # seconds, about 7,900 years either way: beyond it there is no calendar


def date_parts(
    seconds: NDArray[np.float64], parts: Collection[str] | None = None, *, cyclic: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Return parts of dates, NaN where a date is missing.

    days = seconds / 86400 since 1970-01-01; year, month (1 to 12), day (1 to 31), weekday (Monday
    is 0) and hour (0 to 24, with its fraction) in UTC. A cyclic part p of period T that begins at
    p_0 becomes sin(2 pi (p - p_0) / T) and cos(2 pi (p - p_0) / T), named "month_sin", ….

    Parameters
    ----------
    seconds : (n,) float64
        Seconds since 1970, as in a `Column` of kind "date"; NaN, infinity and whatever is thousands
        of years away give NaN.
    parts : names, optional
        Which of `PARTS`, in their order; `varying_parts` by default. A model must keep what it
        chose in fit.
    cyclic : bool, default False
        For networks that see plain standardised numbers. Piecewise-linear and periodic embeddings
        do as well with the plain parts, which are fewer.

    Returns
    -------
    dict of str to (n,) float64 array

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.tabular.dates import date_parts
    >>> date_parts(np.array([0.0, 36 * 3600]))
    {'days': array([0. , 1.5]), 'day': array([1., 2.]), 'weekday': array([3., 4.]), \
'hour': array([ 0., 12.])}
    """
    seconds = np.asarray(seconds, dtype=np.float64)
    chosen = varying_parts(seconds) if parts is None else tuple(p for p in PARTS if p in parts)
    found: dict[str, NDArray[np.float64]] = {}
    every = _all_parts(seconds)
    for name in chosen:
        if cyclic and name in PERIODS:
            first, period = PERIODS[name]
            angle = 2.0 * np.pi * (every[name] - first) / period
            found[f"{name}_sin"], found[f"{name}_cos"] = np.sin(angle), np.cos(angle)
        else:
            found[name] = every[name]
    return found


def varying_parts(seconds: NDArray[np.float64]) -> tuple[str, ...]:
    """Return the names of the parts that are not the same in all dates: those worth learning."""
    every = _all_parts(np.asarray(seconds, dtype=np.float64))
    varying = []
    for name, values in every.items():
        present = values[~np.isnan(values)]
        if present.size and present.min() < present.max():
            varying.append(name)
    return tuple(varying)


def _all_parts(seconds: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return all parts, plain, in the order of `PARTS`."""
    known = np.abs(seconds) < _FAR  # False for NaN
    safe = np.where(known, seconds, 0.0)
    whole_days = np.floor(safe / _DAY)
    day = whole_days.astype(np.int64).astype("datetime64[D]")
    month, year = day.astype("datetime64[M]"), day.astype("datetime64[Y]")
    found = {
        "days": safe / _DAY,
        "year": year.astype(np.int64) + 1970.0,
        "month": (month - year.astype("datetime64[M]")).astype(np.int64) + 1.0,
        "day": (day - month.astype("datetime64[D]")).astype(np.int64) + 1.0,
        "weekday": (whole_days + 3.0) % 7.0,  # 1970-01-01 was a Thursday
        "hour": (safe - whole_days * _DAY) / 3600.0,
    }
    return {name: np.where(known, found[name], np.nan) for name in PARTS}
