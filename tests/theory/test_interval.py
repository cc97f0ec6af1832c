"""Interval arithmetic against mpmath, in 40 digits: every enclosure holds, and is narrow."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest

from lamina.theory import interval as iv
from lamina.theory import smooth
from lamina.theory.interval import Interval

mpmath.mp.dps = 40
RNG = np.random.default_rng(0)
EDGES = np.array([0.0, 1.0, -1.0, 0.5, 3.0, 1e-300, -1e-300, 5e-324, 1e200, -1e200, 0.1])
FUNCTIONS = {  # name: (ours, exact, points)
    "exp": (iv.exp, mpmath.exp, RNG.uniform(-700, 700, 400)),
    "log": (iv.log, mpmath.log, np.exp(RNG.uniform(-600, 600, 400))),
    "log near one": (iv.log, mpmath.log, 1 + RNG.normal(0, 1e-6, 200)),
    "sqrt": (iv.sqrt, mpmath.sqrt, np.exp(RNG.uniform(-600, 600, 400))),
    "tanh": (iv.tanh, mpmath.tanh, RNG.normal(0, 3, 400)),
    "sin": (iv.sin, mpmath.sin, RNG.normal(0, 1000, 400)),
    "cos": (iv.cos, mpmath.cos, RNG.normal(0, 3, 400)),
    "sigmoid": (iv.sigmoid, lambda v: 1 / (1 + mpmath.exp(-v)), RNG.normal(0, 20, 400)),
    "softplus": (iv.softplus, lambda v: mpmath.log1p(mpmath.exp(v)), RNG.normal(0, 20, 400)),
    "normal_cdf": (iv.normal_cdf, mpmath.ncdf, RNG.normal(0, 3, 200)),
}
SMOOTH = {
    "sin": (smooth.SIN, mpmath.sin, -20, 20),
    "cos": (smooth.COS, mpmath.cos, -20, 20),
    "exp": (smooth.EXP, mpmath.exp, -5, 5),
    "log": (smooth.LOG, mpmath.log, 0.05, 9),
    "sqrt": (smooth.SQRT, mpmath.sqrt, 0.05, 9),
    "reciprocal": (smooth.RECIPROCAL, lambda v: 1 / v, 0.1, 4),
    "power 5": (smooth.power(5), lambda v: v**5, -2, 2),
    "power -3": (smooth.power(-3), lambda v: v**-3, 0.2, 2),
    "tanh": (smooth.TANH, mpmath.tanh, -4, 4),
    "sigmoid": (smooth.SIGMOID, lambda v: 1 / (1 + mpmath.exp(-v)), -8, 8),
    "softplus": (smooth.SOFTPLUS, lambda v: mpmath.log1p(mpmath.exp(v)), -8, 8),
    "normal_cdf": (smooth.NORMAL_CDF, mpmath.ncdf, -4, 4),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpys_functions_are_within_the_ulps_assumed(name):
    ours, exact, points = FUNCTIONS[name]
    found = ours(Interval.of(points))
    truth = [exact(mpmath.mpf(float(v))) for v in points]
    assert all(lo <= t <= hi for lo, t, hi in zip(found.lo, truth, found.hi, strict=True))
    width = (found.hi - found.lo) / np.maximum(np.abs([float(t) for t in truth]), 1e-10)
    assert width.max() < (1e-14 if name != "normal_cdf" else 1e-4)


def test_the_ulps_assumed_leave_a_margin():
    # NumPy itself may be off by as much as ULPS; on this machine it must not come near.
    for function, exact, low, high in (
        (np.exp, mpmath.exp, -700, 700),
        (np.log, mpmath.log, 1e-3, 1e3),
        (np.sin, mpmath.sin, -1e6, 1e6),
        (np.cos, mpmath.cos, -1e6, 1e6),
        (np.tanh, mpmath.tanh, -15, 15),
        (np.log1p, mpmath.log1p, 0, 1),
    ):
        x = RNG.uniform(low, high, 1000)
        truth = [exact(mpmath.mpf(float(v))) for v in x]
        unit = np.spacing(np.abs([float(t) for t in truth]))
        pairs = zip(function(x), truth, strict=True)
        error = np.array([float(abs(mpmath.mpf(float(v)) - t)) for v, t in pairs]) / unit
        assert error.max() < iv.ULPS / 1.5, function.__name__


@pytest.mark.parametrize("op", ["+", "-", "*", "/"])
def test_sums_and_products_hold_the_exact_value_and_are_tight(op):
    a = np.concatenate([RNG.normal(0, 1, 300), RNG.normal(0, 1e10, 100), EDGES, EDGES])
    b = np.concatenate([RNG.normal(0, 1, 300), RNG.normal(0, 1e-8, 100), EDGES[::-1], EDGES])
    if op == "/":
        b = np.where(np.abs(b) < 1e-250, 7.0, b)
    found = _apply(op, Interval.of(a), Interval.of(b))
    for x, y, lo, hi in zip(a, b, found.lo, found.hi, strict=True):
        exact = _apply(op, Fraction(x), Fraction(y))
        assert lo == -np.inf or Fraction(lo) <= exact
        assert hi == np.inf or exact <= Fraction(hi)
        if 1e-200 < abs(exact) < 1e300:
            assert hi - lo <= (8 if op == "/" else 2) * np.spacing(abs(float(exact)))
    np.testing.assert_array_equal((Interval.of(a) - Interval.of(a)).hi, 0.0)  # exact sums stay so


def test_wide_intervals_hold_every_product_power_and_quotient():
    ends = np.sort(RNG.normal(0, 2, (2, 500)), axis=0)
    z, w = Interval(*ends), Interval(*ends[:, ::-1])
    inside = np.clip(ends[0] + RNG.uniform(0, 1, 500) * (ends[1] - ends[0]), *ends)
    for found, value in (
        (z * w, inside * inside[::-1]),
        (z / w, inside / inside[::-1]),
        (z.power(2), inside**2),
        (z.power(3), inside**3),
        (z.power(-2), inside**-2.0),
        (iv.absolute(z), np.abs(inside)),
        (iv.sin(z), np.sin(inside)),
        (iv.cos(z), np.cos(inside)),
        (iv.sign(z), np.sign(inside)),
    ):
        slack = 1e-12 * (1 + np.abs(value))
        assert (found.lo <= value + slack).all()
        assert (value <= found.hi + slack).all()
    assert (z.power(2).lo >= 0).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_are_enclosed_over_intervals(name):
    function, exact, low, high = SMOOTH[name]
    ends = np.sort(RNG.uniform(low, high, (2, 25)), axis=0)
    z = Interval(*ends)
    at = ends[0] + RNG.uniform(0, 1, 25) * (ends[1] - ends[0])
    parts = (function.value, function.first, function.second, function.third)
    for order, part in enumerate(parts):
        wide, narrow = part(z), part(Interval.of(at))
        for i, v in enumerate(at):
            truth = float(mpmath.diff(exact, mpmath.mpf(v), order))
            slack = 1e-9 * (1 + abs(truth))
            assert wide.lo[i] - slack <= truth <= wide.hi[i] + slack, (order, v)
            assert abs(narrow.lo[i] - truth) + abs(narrow.hi[i] - truth) < 1e-7 * (1 + abs(truth))


def _apply(op, a, b):
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[op]()
