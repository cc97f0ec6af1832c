"""Taylor models of second order: a function over a small box as a quadratic and a remainder.

Over each box with centre c and radii r, and delta = x - c, |delta_k| ≤ r_k::

    value(x) in  constant + sum_k linear_k delta_k + sum_{k<=l} quadratic_kl delta_k delta_l
                 + [-error, error]

The remainder of a smooth function is of third order in r, so bounds close quickly as boxes are
halved, and terms that cancel between the units of a network cancel here too, which they do not in
plain interval arithmetic. Every rounding of these computations is in ``error``.

References
----------
Makino and Berz (2003), "Taylor models and other validated functional inclusion methods".
Singh et al. (2018), "Fast and effective robustness certification", for the bands around relu.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.theory import interval as iv
from lamina.theory.interval import Interval

Float64 = NDArray[np.float64]

# Each coefficient comes of fewer than 16 roundings, each of at most eps/2 of the magnitude.
_ROUNDINGS: Final = 16 * float(np.finfo(np.float64).eps)
_TINY: Final = 1e-290


@dataclass(frozen=True)
class Boxes:
    """A batch of boxes [low, high], with centres and radii that reach over them; all (B, d)."""

    low: Float64
    high: Float64
    centre: Float64
    radius: Float64

    @classmethod
    def between(cls, low: Float64, high: Float64) -> Boxes:
        """The boxes [low, high], both (B, d)."""
        centre = np.clip(0.5 * low + 0.5 * high, low, high)
        radius = np.maximum(iv.add_up(high, -centre), iv.add_up(centre, -low))
        return cls(low, high, centre, radius)

    @property
    def n(self) -> int:
        """How many boxes."""
        return len(self.centre)

    @property
    def d(self) -> int:
        """Their dimension."""
        return int(self.centre.shape[1])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The order of the quadratic terms: (k, l) with k ≤ l."""
        return list(itertools.combinations_with_replacement(range(self.d), 2))


@dataclass(frozen=True)
class Taylor:
    """Taylor models of m functions over B boxes.

    Attributes
    ----------
    boxes : Boxes
    constant, error : array (B, m)
    linear : array (d, B, m)
    quadratic : array (d (d + 1) / 2, B, m)
        In the order of ``boxes.pairs``.
    range : Interval of arrays (B, m)
        Bounds of the values, from the model and from whatever else is known.
    """

    boxes: Boxes
    constant: Float64
    linear: Float64
    quadratic: Float64
    error: Float64
    range: Interval

    @classmethod
    def make(
        cls,
        boxes: Boxes,
        constant: Float64,
        linear: Float64,
        quadratic: Float64,
        error: Float64,
        known: Interval | None = None,
    ) -> Taylor:
        """A model with its range, cut to what is known of it."""
        error = np.where(np.isnan(error), np.inf, error)
        bounds = _range(boxes, constant, linear, quadratic, error)
        if known is not None:
            bounds = bounds.intersect(known)
        return cls(boxes, constant, linear, quadratic, error, bounds)

    @classmethod
    def inputs(cls, boxes: Boxes) -> Taylor:
        """The coordinates x_1 … x_d themselves, (B, d)."""
        n, d = boxes.n, boxes.d
        linear = np.zeros((d, n, d))
        linear[np.arange(d), :, np.arange(d)] = 1.0
        quadratic, error = np.zeros((len(boxes.pairs), n, d)), np.zeros((n, d))
        known = Interval(boxes.low, boxes.high)
        return cls.make(boxes, boxes.centre, linear, quadratic, error, known)

    @classmethod
    def number(cls, boxes: Boxes, value: Interval) -> Taylor:
        """A constant that lies in an interval, (B, 1)."""
        c, r = value.middle()
        shape = (boxes.n, 1)
        known = Interval(np.broadcast_to(value.lo, shape), np.broadcast_to(value.hi, shape))
        return cls.make(
            boxes,
            np.full(shape, c),
            np.zeros((boxes.d, *shape)),
            np.zeros((len(boxes.pairs), *shape)),
            np.full(shape, r),
            known,
        )

    def column(self, j: int) -> Taylor:
        """The j-th function alone, (B, 1)."""
        at = slice(j, j + 1)
        return Taylor(
            self.boxes,
            self.constant[:, at],
            self.linear[:, :, at],
            self.quadratic[:, :, at],
            self.error[:, at],
            Interval(self.range.lo[:, at], self.range.hi[:, at]),
        )

    def parts(self) -> tuple[Float64, Float64]:
        """Bounds (B, m) of the absolute linear and quadratic parts."""
        r = self.boxes.radius.T[:, :, np.newaxis]  # (d, B, 1)
        first = np.sum(np.abs(self.linear) * r, axis=0)
        second = np.zeros_like(first)
        for i, (k, j) in enumerate(self.boxes.pairs):
            second += np.abs(self.quadratic[i]) * (r[k] * r[j])
        return first * (1 + _ROUNDINGS), second * (1 + _ROUNDINGS)

    def size(self) -> Float64:
        """A bound (B, m) of the sum of the absolute terms and the error."""
        first, second = self.parts()
        return (np.abs(self.constant) + first + second + self.error) * (1 + _ROUNDINGS)

    def __add__(self, other: Taylor) -> Taylor:
        return Taylor.make(
            self.boxes,
            self.constant + other.constant,
            self.linear + other.linear,
            self.quadratic + other.quadratic,
            _padded(self.error + other.error, self.size() + other.size()),
            self.range + other.range,
        )

    def __neg__(self) -> Taylor:
        return Taylor(
            self.boxes, -self.constant, -self.linear, -self.quadratic, self.error, -self.range
        )

    def __sub__(self, other: Taylor) -> Taylor:
        return self + (-other)

    def __mul__(self, other: Taylor) -> Taylor:
        a, b = self, other
        (a1, a2), (b1, b2) = a.parts(), b.parts()
        quadratic = np.empty(np.broadcast_shapes(a.quadratic.shape, b.quadratic.shape))
        for i, (k, j) in enumerate(a.boxes.pairs):
            cross = a.linear[k] * b.linear[j]
            if k != j:
                cross = cross + a.linear[j] * b.linear[k]
            quadratic[i] = a.constant * b.quadratic[i] + b.constant * a.quadratic[i] + cross
        size_a, size_b = a.size(), b.size()
        error = a1 * b2 + a2 * b1 + a2 * b2 + a.error * size_b + size_a * b.error
        return Taylor.make(
            a.boxes,
            a.constant * b.constant,
            a.constant * b.linear + b.constant * a.linear,
            quadratic,
            _padded(error, size_a * size_b),
            a.range * b.range,
        )

    def affine(self, slope: Float64, offset: Float64, error: Float64, known: Interval) -> Taylor:
        """Slope · value + offset ± error, element by element, known to lie in an interval."""
        offset_size = np.abs(offset) + error
        return Taylor.make(
            self.boxes,
            slope * self.constant + offset,
            slope * self.linear,
            slope * self.quadratic,
            _padded(np.abs(slope) * self.error + error, np.abs(slope) * self.size() + offset_size),
            known,
        )

    def smooth(self, function: Smooth) -> Taylor:
        """A function with three derivatives, by Taylor's theorem about the centre."""
        bounds = self.range
        known = function.value(bounds)
        middle, spread = known.middle()
        at = np.where(np.isfinite(self.constant), self.constant, 0.0)
        at = np.clip(at, bounds.lo, bounds.hi)
        there = Interval.of(at)
        f0, e0 = function.value(there).middle()
        f1, e1 = function.first(there).middle()
        f2, e2 = function.second(there).middle()
        reach = np.maximum(iv.add_up(bounds.hi, -at), iv.add_up(at, -bounds.lo))
        third = function.third(bounds).magnitude()[1]
        with np.errstate(all="ignore"):
            error = e0 + e1 * reach + 0.5 * e2 * reach**2 + third * reach**3 / 6
            error = error * (1 + _ROUNDINGS)
            # Without finite derivatives, or over a wide range, a constant is the better model.
            poor = ~(error < spread)
        f0, f1, f2 = np.where(poor, middle, f0), np.where(poor, 0.0, f1), np.where(poor, 0.0, f2)
        error, at = np.where(poor, spread, error), np.where(poor, 0.0, at)
        kept = self._masked(~poor) if poor.any() else self
        w = kept.affine(np.ones_like(at), -at, np.zeros_like(at), kept.range - Interval.of(at))
        square = w * w
        size = np.abs(f0) + np.abs(f1) * w.size() + np.abs(f2) * square.size()
        spread_on = np.abs(f1) * w.error + 0.5 * np.abs(f2) * square.error
        return Taylor.make(
            self.boxes,
            f0 + f1 * w.constant + 0.5 * f2 * square.constant,
            f1 * w.linear + 0.5 * f2 * square.linear,
            f1 * w.quadratic + 0.5 * f2 * square.quadratic,
            _padded(error + spread_on, size),
            known,
        )

    def positive_part(self) -> Taylor:
        """max(value, 0): exact where the sign is known, else the best line and a band."""
        lo, hi = self.range.lo, self.range.hi
        across = (lo < 0) & (hi > 0)
        low, high = np.where(across, lo, -1.0), np.where(across, hi, 1.0)
        with np.errstate(all="ignore"):
            slope = high / (high - low)
            band = -0.5 * slope * low  # half of the chord's height above the kink
            # Any slope in [0, 1] leaves a band that holds both ends and the kink; rounded up below.
            band = np.where(np.isfinite(band), band * (1 + _ROUNDINGS), np.inf)
        slope = np.where(across & np.isfinite(slope), slope, np.where(lo >= 0, 1.0, 0.0))
        band = np.where(across, band, 0.0)
        # Masked, so that 0 times an unbounded model is 0
        return self._masked(slope != 0).affine(slope, band, band, iv.positive_part(self.range))

    def _masked(self, keep: NDArray[np.bool_]) -> Taylor:
        """The model where keep is True, and 0 elsewhere."""
        zero = Interval(np.where(keep, self.range.lo, 0.0), np.where(keep, self.range.hi, 0.0))
        return Taylor(
            self.boxes,
            np.where(keep, self.constant, 0.0),
            np.where(keep, self.linear, 0.0),
            np.where(keep, self.quadratic, 0.0),
            np.where(keep, self.error, 0.0),
            zero,
        )

    def bounded(self, known: Interval) -> Taylor:
        """A model of nothing but an interval around the values."""
        middle, spread = known.middle()
        return Taylor.make(
            self.boxes,
            middle,
            np.zeros_like(self.linear),
            np.zeros_like(self.quadratic),
            spread,
            known,
        )


@dataclass(frozen=True)
class Smooth:
    """A function and its first three derivatives, each an enclosure over intervals."""

    value: Callable[[Interval], Interval]
    first: Callable[[Interval], Interval]
    second: Callable[[Interval], Interval]
    third: Callable[[Interval], Interval]


def _padded(error: Float64, size: Float64) -> Float64:
    """The error, with what rounding may add to terms of that size."""
    return error * (1 + _ROUNDINGS) + _ROUNDINGS * size + _TINY


def _range(
    boxes: Boxes, constant: Float64, linear: Float64, quadratic: Float64, error: Float64
) -> Interval:
    """Bounds of a model: each a_k t + b_k t^2 over |t| ≤ r_k exactly, products by their radii."""
    r = boxes.radius.T[:, :, np.newaxis]  # (d, B, 1)
    low, high, size = constant, constant, np.abs(constant) + error
    with np.errstate(all="ignore"):
        for i, (k, j) in enumerate(boxes.pairs):
            b = quadratic[i] * (r[k] * r[j])
            if k != j:
                low, high, size = low - np.abs(b), high + np.abs(b), size + np.abs(b)
                continue
            a = np.abs(linear[k]) * r[k]
            inside = a < 2 * np.abs(b)  # the parabola's turn lies within the box
            turn = np.where(inside, a * a / (-4 * np.where(inside, b, 1.0)), 0.0)
            low = low + np.where(inside & (b > 0), turn, b - a)
            high = high + np.where(inside & (b < 0), turn, b + a)
            size = size + a + np.abs(b)
        pad = error + _ROUNDINGS * size + _TINY
        low, high = low - pad, high + pad
    return Interval(np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high))
