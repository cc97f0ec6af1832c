"""Interval arithmetic on arrays: [lo, hi] encloses every real value, rounding included.

Sums and products are rounded outwards where they are not exact (found by error-free
transformations); quotients and square roots always, by one unit in the last place. NumPy's
elementary functions are trusted to ``ULPS`` units in the last place, which the tests hold against
mpmath.

References
----------
Moore, Kearfott and Cloud (2009), "Introduction to interval analysis". Dekker (1971), "A
floating-point technique for extending the available precision", for the exact products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

ULPS: Final = 4  # of exp, log, log1p, sin, cos and tanh of NumPy in float64, |x| <= _SINE_REACH
_SINE_REACH: Final = 1e6  # beyond, sine and cosine are only known to lie in [-1, 1]
_SPLIT: Final = 134217729.0  # 2^27 + 1: cuts a float64 into two halves of 26 bits


@dataclass(frozen=True)
class Interval:
    """Closed intervals [lo, hi], element by element; the arrays have one shape.

    An interval may be unbounded (-inf, inf). Operators enclose every value that the operation
    takes on the operands' members, where it is defined.
    """

    lo: Float64
    hi: Float64

    @classmethod
    def of(cls, value: Any) -> Interval:
        """The intervals that hold one float each."""
        v = np.asarray(value, np.float64)
        return cls(v, v)

    def __add__(self, other: Interval) -> Interval:
        return Interval(add_down(self.lo, other.lo), add_up(self.hi, other.hi))

    def __neg__(self) -> Interval:
        return Interval(-self.hi, -self.lo)

    def __sub__(self, other: Interval) -> Interval:
        return self + (-other)

    def __mul__(self, other: Interval) -> Interval:
        pairs = [(a, b) for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        lo = np.minimum.reduce([_mul_down(a, b) for a, b in pairs])
        hi = np.maximum.reduce([-_mul_down(-a, b) for a, b in pairs])
        return Interval(lo, hi)

    def __truediv__(self, other: Interval) -> Interval:
        return self * other.reciprocal()

    def reciprocal(self) -> Interval:
        """1 / z; everything where the interval holds zero."""
        with np.errstate(all="ignore"):
            lo = np.nextafter(1.0 / self.hi, -np.inf)
            hi = np.nextafter(1.0 / self.lo, np.inf)
        lo = np.where(self.lo > 0, np.maximum(lo, 0.0), lo)
        hi = np.where(self.hi < 0, np.minimum(hi, 0.0), hi)
        holds_zero = ~((self.lo > 0) | (self.hi < 0))
        return Interval(np.where(holds_zero, -np.inf, lo), np.where(holds_zero, np.inf, hi))

    def power(self, n: int) -> Interval:
        """z^n for a whole number n; everything where n < 0 and the interval holds zero."""
        if n < 0:
            return self.power(-n).reciprocal()
        if n == 0:
            return Interval.of(np.ones_like(self.lo))
        a, b = self.magnitude()
        low, high = _power(a, n)[0], _power(b, n)[1]  # of |z|
        if n % 2 == 0:
            return Interval(low, high)
        up, down = _power(np.abs(self.hi), n), _power(np.abs(self.lo), n)
        return Interval(
            np.where(self.lo >= 0, down[0], -down[1]), np.where(self.hi >= 0, up[1], -up[0])
        )

    def magnitude(self) -> tuple[Float64, Float64]:
        """The least and the greatest |z|."""
        far = np.maximum(np.abs(self.lo), np.abs(self.hi))
        near = np.maximum(np.maximum(self.lo, -self.hi), 0.0)
        return near, far

    def intersect(self, other: Interval) -> Interval:
        """What both hold; NaN, from infinity minus infinity, counts as unbounded."""
        return Interval(np.fmax(self.lo, other.lo), np.fmin(self.hi, other.hi))

    def hull(self, other: Interval) -> Interval:
        """The smallest interval around both."""
        return Interval(np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi))

    def clip(self, low: float, high: float) -> Interval:
        """The interval cut to [low, high]."""
        return Interval(np.clip(self.lo, low, high), np.clip(self.hi, low, high))

    def middle(self) -> tuple[Float64, Float64]:
        """A float near the middle, and how far the ends are from it, rounded up."""
        with np.errstate(all="ignore"):
            c = 0.5 * self.lo + 0.5 * self.hi
            r = np.maximum(add_up(self.hi, -c), add_up(c, -self.lo))
        unbounded = ~np.isfinite(c)
        return np.where(unbounded, 0.0, c), np.where(unbounded | np.isnan(r), np.inf, r)


# --- sums and products, rounded down ---------------------------------------------------------


def add_down(a: Float64, b: Float64) -> Float64:
    """The greatest float64 that is at most a + b."""
    with np.errstate(all="ignore"):
        s = a + b
        t = s - a
        error = (a - (s - t)) + (b - t)  # a + b = s + error, exactly (Knuth's two-sum)
        down = np.nextafter(s, -np.inf)
    result = np.where(error >= 0, s, down)
    return np.where(np.isnan(s), -np.inf, result)


def add_up(a: Float64, b: Float64) -> Float64:
    """The least float64 that is at least a + b."""
    return -add_down(-a, -b)


def _halves(a: Float64) -> tuple[Float64, Float64]:
    c = _SPLIT * a
    high = c - (c - a)
    return high, a - high


def _mul_down(a: Float64, b: Float64) -> Float64:
    """A float64 at most a b, the greatest one unless a b is tiny or huge; 0 times inf is 0."""
    with np.errstate(all="ignore"):
        p = a * b
        (a1, a2), (b1, b2) = _halves(a), _halves(b)
        error = ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2  # exact where nothing under/overflows
        down = np.nextafter(p, -np.inf)
        exact = (np.abs(p) > 1e-270) & (np.abs(p) < 1e300) & np.isfinite(error)
    result = np.where(exact & (error >= 0), p, down)
    return np.where((a == 0) | (b == 0), 0.0, result)


def _power(a: Float64, n: int) -> tuple[Float64, Float64]:
    """Bounds of a^n for a >= 0 and n >= 1, by squaring."""
    low, high = np.ones_like(a), np.ones_like(a)
    square_low, square_high = a, a
    while True:
        if n & 1:
            low = np.maximum(_mul_down(low, square_low), 0.0)
            high = -_mul_down(-high, square_high)
        n >>= 1
        if not n:
            return low, high
        square_low = np.maximum(_mul_down(square_low, square_low), 0.0)
        square_high = -_mul_down(-square_high, square_high)


# --- elementary functions --------------------------------------------------------------------


def _widened(lo: Float64, hi: Float64, ulps: int = ULPS) -> Interval:
    """[lo, hi] and ``ulps`` units in the last place on either side."""
    with np.errstate(all="ignore"):
        lo = np.nextafter(lo - ulps * np.spacing(np.abs(lo)), -np.inf)
        hi = np.nextafter(hi + ulps * np.spacing(np.abs(hi)), np.inf)
    return Interval(np.where(np.isnan(lo), -np.inf, lo), np.where(np.isnan(hi), np.inf, hi))


def exp(z: Interval) -> Interval:
    """e^z."""
    with np.errstate(all="ignore"):
        grown = _widened(np.exp(z.lo), np.exp(z.hi))
    top = np.finfo(np.float64).max
    # What overflows is above the greatest float; what underflows is above zero.
    return Interval(np.clip(grown.lo, 0.0, top), grown.hi)


def log(z: Interval) -> Interval:
    """The natural logarithm of the positive part of z."""
    with np.errstate(all="ignore"):
        return _widened(np.log(np.maximum(z.lo, 0.0)), np.log(np.maximum(z.hi, 0.0)))


def sqrt(z: Interval) -> Interval:
    """The square root of the part of z that is not negative."""
    lo, hi = np.sqrt(np.maximum(z.lo, 0.0)), np.sqrt(np.maximum(z.hi, 0.0))
    lo = np.maximum(np.nextafter(lo, -np.inf), 0.0)
    return Interval(lo, np.where(hi == 0, 0.0, np.nextafter(hi, np.inf)))


def tanh(z: Interval) -> Interval:
    """The hyperbolic tangent."""
    return _widened(np.tanh(z.lo), np.tanh(z.hi)).clip(-1.0, 1.0)


def sigmoid(z: Interval) -> Interval:
    """1 / (1 + e^-z): z occurs once, so that interval arithmetic gives its range."""
    one = Interval.of(np.ones_like(z.lo))
    return (one + exp(-z)).reciprocal().clip(0.0, 1.0)


def softplus(z: Interval) -> Interval:
    """log(1 + e^z) = max(z, 0) + log1p(e^-|z|): two terms ≥ 0, each within 2 ULPS + 1."""

    def value(v: Float64) -> Float64:
        return np.maximum(v, 0.0) + np.log1p(np.exp(-np.abs(v)))

    with np.errstate(all="ignore"):
        grown = _widened(value(z.lo), value(z.hi), 2 * ULPS + 2)
    return Interval(np.maximum(grown.lo, 0.0), grown.hi)


def normal_cdf(z: Interval) -> Interval:
    """Distribution function of the standard normal; SciPy's erfc, to 1e-15 absolutely."""
    from scipy.special import ndtr

    return Interval(ndtr(z.lo) - 1e-15, ndtr(z.hi) + 1e-15).clip(0.0, 1.0)


def sin(z: Interval) -> Interval:
    """The sine: its values at the ends, and ±1 where a crest or trough lies between."""
    with np.errstate(all="ignore"):
        a, b = np.sin(z.lo), np.sin(z.hi)
        grown = _widened(np.minimum(a, b), np.maximum(a, b)).clip(-1.0, 1.0)
    lo = np.where(_crosses(z, -0.25), -1.0, grown.lo)
    hi = np.where(_crosses(z, 0.25), 1.0, grown.hi)
    far = ~((np.abs(z.lo) <= _SINE_REACH) & (np.abs(z.hi) <= _SINE_REACH))
    return Interval(np.where(far, -1.0, lo), np.where(far, 1.0, hi))


def cos(z: Interval) -> Interval:
    """The cosine, as ``sin``."""
    with np.errstate(all="ignore"):
        a, b = np.cos(z.lo), np.cos(z.hi)
        grown = _widened(np.minimum(a, b), np.maximum(a, b)).clip(-1.0, 1.0)
    lo = np.where(_crosses(z, 0.5), -1.0, grown.lo)
    hi = np.where(_crosses(z, 0.0), 1.0, grown.hi)
    far = ~((np.abs(z.lo) <= _SINE_REACH) & (np.abs(z.hi) <= _SINE_REACH))
    return Interval(np.where(far, -1.0, lo), np.where(far, 1.0, hi))


def _crosses(z: Interval, turn: float) -> NDArray[np.bool_]:
    """Whether z may hold a number 2 pi (k + turn); the slack is above the rounding of z / 2 pi."""
    with np.errstate(all="ignore"):
        slack = 1e-15 * (np.maximum(np.abs(z.lo), np.abs(z.hi)) + 1.0)
        low = z.lo / (2.0 * math.pi) - turn - slack
        high = z.hi / (2.0 * math.pi) - turn + slack
        return np.asarray(np.floor(high) >= np.ceil(low))


def absolute(z: Interval) -> Interval:
    """|z|."""
    return Interval(*z.magnitude())


def positive_part(z: Interval) -> Interval:
    """max(z, 0)."""
    return Interval(np.maximum(z.lo, 0.0), np.maximum(z.hi, 0.0))


def sign(z: Interval) -> Interval:
    """-1, 0 or 1."""
    return Interval(np.sign(z.lo), np.sign(z.hi))


def step(z: Interval) -> Interval:
    """1 where z ≥ 0, else 0."""
    return Interval(np.where(z.lo >= 0, 1.0, 0.0), np.where(z.hi >= 0, 1.0, 0.0))


PI: Final = Interval(np.array(math.pi), np.nextafter(np.array(math.pi), 4.0))  # pi > math.pi
E: Final = Interval(np.array(math.e), np.nextafter(np.array(math.e), 3.0))  # e > math.e
