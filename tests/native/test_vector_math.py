"""The kernels' exp, log, tanh, … against mpmath, in ULP, on every instruction set of this machine.

The bounds here are the ones native/vmath.h states.
"""

import mpmath
import numpy as np
import pytest

from lamina import _native

mpmath.mp.dps = 40

LIMITS = {np.float32: (-87.3, 88.3), np.float64: (-708.3, 709.4)}
# All x whose e^x is a normal number.
WHOLE = {np.float32: (-87.336, 88.7228), np.float64: (-708.396, 709.7827)}
FUNCTIONS = {  # name: (index in the kernels' map, exact function, range, bound in ULP)
    "exp": (0, mpmath.exp, None, 2.0),
    "expm1": (1, mpmath.expm1, (-30.0, 80.0), 3.0),
    "log": (2, mpmath.log, (1.5, 1e30), 3.0),
    "log1p": (3, mpmath.log1p, (1e-12, 1.0), 3.0),
    "sigmoid": (4, lambda v: 1 / (1 + mpmath.exp(-v)), (-80.0, 80.0), 4.0),
    "tanh": (5, mpmath.tanh, (-30.0, 30.0), 4.0),
    "softplus": (6, lambda v: mpmath.log1p(mpmath.exp(v)), (-60.0, 60.0), 4.0),
    "normal_cdf": (7, mpmath.ncdf, (-1.0, 9.0), 8.0),
    "exp, all of it": (11, mpmath.exp, "whole", 2.0),
    "inverse_sqrt": (10, lambda v: 1 / mpmath.sqrt(v), (1e-20, 1e20), 3.0),
}


@pytest.fixture(params=_native.isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def apply(index, x):
    y = np.empty_like(x)
    (_native.map32 if x.dtype == np.float32 else _native.map64)(index, x, y)
    return y


def samples(dtype, low, high, n=1500):
    rng = np.random.default_rng(0)
    even = rng.uniform(low, high, n)
    if low > 0:
        even = np.exp(rng.uniform(np.log(low), np.log(high), n))
    near_zero = np.concatenate(
        [10.0 ** rng.uniform(-6, 0, 200), -(10.0 ** rng.uniform(-6, 0, 200))]
    )
    x = np.concatenate([even, near_zero[(near_zero >= low) & (near_zero <= high)]])
    return x.astype(dtype)


def ulps(actual, exact, dtype):
    """Errors in units of the last place of the exact values (mpmath numbers)."""
    rounded = np.array([float(v) for v in exact]).astype(dtype)
    unit = np.spacing(np.abs(rounded)).astype(np.float64)
    error = np.array([float(mpmath.mpf(float(a)) - v) for a, v in zip(actual, exact, strict=True)])
    return np.abs(error) / unit


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_within_its_stated_ulp(isa, name, dtype):
    index, exact, bounds, limit = FUNCTIONS[name]
    bounds = {None: LIMITS, "whole": WHOLE}.get(bounds, {dtype: bounds})[dtype]
    x = samples(dtype, *bounds)
    y = apply(index, x)
    errors = ulps(y, [exact(mpmath.mpf(float(v))) for v in x], dtype)
    worst = int(np.argmax(errors))
    assert errors.max() <= limit, f"{name}({x[worst]!r}): {errors.max():.2f} ULP on {isa}"


@pytest.mark.parametrize(("dtype", "reach"), [(np.float32, 1e4), (np.float64, 1e7)])
@pytest.mark.parametrize(("index", "exact"), [(8, mpmath.sin), (9, mpmath.cos)])
def test_sine_and_cosine_keep_an_absolute_error_of_two_eps(isa, index, exact, dtype, reach):
    x = np.concatenate([samples(dtype, -10.0, 10.0), samples(dtype, -reach, reach)])
    errors = [
        float(mpmath.mpf(float(a)) - exact(mpmath.mpf(float(v))))
        for a, v in zip(apply(index, x), x, strict=True)
    ]
    assert np.abs(errors).max() <= 2 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tails_saturate_and_nan_stays_nan(isa, dtype):
    far = np.array([1e4, -1e4, np.inf, -np.inf, np.nan], dtype)
    grown = apply(0, far)
    assert np.isfinite(grown[:4]).all(), "exp saturates instead of overflowing"
    assert grown[0] > 1e38
    assert grown[1] < 1e-37
    np.testing.assert_array_equal(apply(4, far)[:2] > 0.5, [True, False])
    np.testing.assert_array_equal(apply(5, far)[:4], [1, -1, 1, -1])
    for index in range(8):
        assert np.isnan(apply(index, far)[4]), f"function {index}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_whole_exponential_overflows_to_infinity_and_ends_in_zero(isa, dtype):
    highest, lowest = np.log(np.finfo(dtype).max), np.log(np.finfo(dtype).tiny)
    x = np.array([highest * 1.0001, 1e4, np.inf, lowest * 1.2, -1e4, -np.inf, np.nan, 0], dtype)
    y = apply(11, x)
    np.testing.assert_array_equal(y, [np.inf, np.inf, np.inf, 0, 0, 0, np.nan, 1])
    edge = np.array([highest * (1 - 4 * np.finfo(dtype).eps)], dtype)
    assert np.isfinite(apply(11, edge)).all()
