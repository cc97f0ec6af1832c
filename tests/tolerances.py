"""The one comparator of the tests, and the one place where tolerances come from.

A tolerance is a formula of the dtype and of the length of the longest sum behind a result; the
error it bounds is taken relative to the largest expected value, so that an array of zeros never
passes for an array of values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

ROUNDING = 8.0
"""c: roundings per term of a sum, with room for the functions between two sums."""

CURVATURE = 64.0
"""c for finite differences: how far third derivatives may exceed the gradient itself."""

LOOSEST = 0.01
"""No comparison may be looser than this: a tolerance near 1 would let zeros pass."""


def rounding(dtype: DTypeLike, fan_in: int = 1, c: float = ROUNDING) -> float:
    """c * eps(dtype) * fan_in: the relative error of a sum of ``fan_in`` terms in ``dtype``."""
    return c * float(np.finfo(dtype).eps) * max(1, fan_in)


def difference_step(dtype: DTypeLike = np.float64) -> float:
    """eps^(1/3), the step of central differences where truncation and rounding are equal."""
    return float(np.finfo(dtype).eps) ** (1.0 / 3.0)


def finite_difference(fan_in: int = 1, c: float = CURVATURE) -> float:
    """c * eps^(2/3) * fan_in: the relative error of central differences in float64."""
    return c * difference_step() ** 2 * max(1, fan_in)


def sampling(n: int, sigmas: float = 5.0) -> float:
    """sigmas * sqrt(2 / n): the relative error of a variance estimated from n draws."""
    return sigmas * float(np.sqrt(2.0 / n))


def assert_close(
    actual: ArrayLike, expected: ArrayLike, tolerance: float, what: str = "result"
) -> None:
    """Fail unless ``actual`` equals ``expected`` within ``tolerance`` * max |expected|.

    Both must be of the same shape, with finite numbers only. Where all expected values are zero,
    so must the actual ones be; ``assert_small`` is for values that merely round to zero.
    """
    a = np.asarray(actual)
    e = np.asarray(expected)
    assert 0.0 <= tolerance <= LOOSEST, f"{what}: a tolerance of {tolerance:g} proves nothing"
    assert a.shape == e.shape, f"{what}: shape {a.shape}, expected {e.shape}"
    assert np.isfinite(a).all(), f"{what}: {np.count_nonzero(~np.isfinite(a))} values not finite"
    assert np.isfinite(e).all(), f"{what}: the expected values are not finite"
    if a.size == 0:
        return
    a = a.astype(np.float64)
    e = e.astype(np.float64)
    scale = float(np.abs(e).max())
    error = float(np.abs(a - e).max())
    assert error <= tolerance * scale, (
        f"{what}: error {error:.3g} relative to {scale:.3g} exceeds the tolerance "
        f"{tolerance:.3g}, at {np.unravel_index(np.abs(a - e).argmax(), a.shape)}"
    )


def assert_small(actual: ArrayLike, scale: float, tolerance: float, what: str = "result") -> None:
    """Fail unless every |actual| is at most ``tolerance`` * ``scale``: what cancels to zero."""
    a = np.asarray(actual, dtype=np.float64)
    assert 0.0 <= tolerance <= LOOSEST, f"{what}: a tolerance of {tolerance:g} proves nothing"
    assert np.isfinite(a).all(), f"{what}: {np.count_nonzero(~np.isfinite(a))} values not finite"
    error = float(np.abs(a).max(initial=0.0))
    assert error <= tolerance * scale, (
        f"{what}: {error:.3g} exceeds the tolerance {tolerance:.3g} of {scale:.3g}"
    )


def assert_same_bits(actual: ArrayLike, expected: ArrayLike, what: str = "result") -> None:
    """Fail unless both arrays have the same dtype, shape and bits."""
    a = np.asarray(actual)
    e = np.asarray(expected)
    assert a.dtype == e.dtype, f"{what}: dtype {a.dtype}, expected {e.dtype}"
    assert a.shape == e.shape, f"{what}: shape {a.shape}, expected {e.shape}"
    assert a.tobytes() == e.tobytes(), (
        f"{what}: {np.count_nonzero(a != e)} of {a.size} values differ in their bits"
    )
