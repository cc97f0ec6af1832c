"""The smooth functions that lamina knows, each with enclosures of three derivatives."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from lamina.theory import interval as iv
from lamina.theory.interval import Interval
from lamina.theory.taylor import Smooth, Taylor


def _times(z: Interval, factor: float) -> Interval:
    """Z times a float that is a small whole number or a power of two."""
    return z * Interval.of(np.full_like(z.lo, factor))


def _one(z: Interval) -> Interval:
    return Interval.of(np.ones_like(z.lo))


# --- sin, cos, exp, log, sqrt, 1/z, z^n --------------------------------------------------------

SIN: Final = Smooth(iv.sin, iv.cos, lambda z: -iv.sin(z), lambda z: -iv.cos(z))
COS: Final = Smooth(iv.cos, lambda z: -iv.sin(z), lambda z: -iv.cos(z), iv.sin)
EXP: Final = Smooth(iv.exp, iv.exp, iv.exp, iv.exp)
RECIPROCAL: Final = Smooth(
    Interval.reciprocal,
    lambda z: -z.power(-2),
    lambda z: _times(z.power(-3), 2.0),
    lambda z: _times(z.power(-4), -6.0),
)


def _positive(z: Interval) -> Interval:
    return Interval(np.maximum(z.lo, 0.0), np.maximum(z.hi, 0.0))


LOG: Final = Smooth(
    iv.log,
    lambda z: _positive(z).reciprocal(),
    lambda z: -_positive(z).power(-2),
    lambda z: _times(_positive(z).power(-3), 2.0),
)
SQRT: Final = Smooth(
    iv.sqrt,
    lambda z: _times(iv.sqrt(z).reciprocal(), 0.5),
    lambda z: _times(iv.sqrt(z).power(-3), -0.25),
    lambda z: _times(iv.sqrt(z).power(-5), 0.375),
)


def power(n: int) -> Smooth:
    """z^n for a whole number n."""

    def enclosure(order: int, z: Interval) -> Interval:
        factor = math.prod(n - i for i in range(order))  # at most 1002^3: exact
        if factor == 0:
            return Interval.of(np.zeros_like(z.lo))
        return _times(z.power(n - order), float(factor))

    return Smooth(
        lambda z: enclosure(0, z),
        lambda z: enclosure(1, z),
        lambda z: enclosure(2, z),
        lambda z: enclosure(3, z),
    )


# --- the activations -------------------------------------------------------------------------
# Polynomials of t = tanh z (or of the sigmoid) forget that their factors belong together, so each
# is cut to the greatest value that it takes anywhere.


def _tanh_first(z: Interval) -> Interval:
    t = iv.tanh(z)
    return (_one(z) - t.power(2)).clip(0.0, 1.0)


def _tanh_second(z: Interval) -> Interval:
    return _times(iv.tanh(z) * _tanh_first(z), -2.0).clip(-0.7699, 0.7699)  # 4 / (3 sqrt 3)


def _tanh_third(z: Interval) -> Interval:
    s = _tanh_first(z)  # tanh''' = s (4 - 6 s), least -2 at 1 and greatest 2/3 at 1/3
    return (s * (_times(_one(z), 4.0) - _times(s, 6.0))).clip(-2.0, 0.66667)


def _sigmoid_first(z: Interval) -> Interval:
    s = iv.sigmoid(z)
    return (s * (_one(z) - s)).clip(0.0, 0.25)


def _sigmoid_second(z: Interval) -> Interval:
    s = iv.sigmoid(z)
    return (_sigmoid_first(z) * (_one(z) - _times(s, 2.0))).clip(-0.09623, 0.09623)


def _sigmoid_third(z: Interval) -> Interval:
    p = _sigmoid_first(z)  # sigma''' = p (1 - 6 p)
    return (p * (_one(z) - _times(p, 6.0))).clip(-0.125, 0.041667)


TANH: Final = Smooth(iv.tanh, _tanh_first, _tanh_second, _tanh_third)
SIGMOID: Final = Smooth(iv.sigmoid, _sigmoid_first, _sigmoid_second, _sigmoid_third)
SOFTPLUS: Final = Smooth(iv.softplus, iv.sigmoid, _sigmoid_first, _sigmoid_second)

_ROOT: Final = Interval(  # 1 / sqrt(2 pi), and the neighbours of its float
    np.nextafter(np.array(1 / math.sqrt(2 * math.pi)), 0.0),
    np.nextafter(np.array(1 / math.sqrt(2 * math.pi)), 1.0),
)


def _density(z: Interval) -> Interval:
    return iv.exp(_times(z.power(2), -0.5)) * Interval(
        np.full_like(z.lo, _ROOT.lo), np.full_like(z.lo, _ROOT.hi)
    )


NORMAL_CDF: Final = Smooth(
    iv.normal_cdf,
    _density,
    lambda z: -(z * _density(z)).clip(-0.24198, 0.24198),
    lambda z: ((z.power(2) - _one(z)) * _density(z)).clip(-0.39895, 0.17847),
)

ELEMENTARY: Final[dict[str, Smooth]] = {
    "sin": SIN,
    "cos": COS,
    "exp": EXP,
    "log": LOG,
    "sqrt": SQRT,
    "tanh": TANH,
    "sigmoid": SIGMOID,
}


# --- functions made of a line and a positive part ----------------------------------------------


def scaled(z: Taylor, factor: float) -> Taylor:
    """Z times a float."""
    shape = z.constant.shape
    known = z.range * Interval.of(np.full(shape, factor))
    zero = np.zeros(shape)
    return z.affine(np.full(shape, factor), zero, zero, known)


def absolute(z: Taylor) -> Taylor:
    """|z| = 2 max(z, 0) - z."""
    result = scaled(z.positive_part(), 2.0) - z
    known = result.range.intersect(iv.absolute(z.range))
    return Taylor.make(
        z.boxes, result.constant, result.linear, result.quadratic, result.error, known
    )


def maximum(a: Taylor, b: Taylor) -> Taylor:
    """max(a, b) = a + max(b - a, 0)."""
    result = a + (b - a).positive_part()
    known = Interval(np.maximum(a.range.lo, b.range.lo), np.maximum(a.range.hi, b.range.hi))
    return Taylor.make(
        a.boxes, result.constant, result.linear, result.quadratic, result.error, known
    )
