"""Piecewise linear and piecewise constant functions within eps of samples, with few knots.

The greedy choice, to go on with one piece as far as it fits, needs the fewest pieces; what is shown
for it here, on disjoint intervals, bounds the number that any such function needs from below.

References
----------
Imai and Iri (1986), "Computational-geometric methods for polygonal approximations of a curve".
DeVore (1998), "Nonlinear approximation", for n ≈ ∫ sqrt|f''| / (4 sqrt(eps)) and TV / (2 eps).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.theory.interval import Interval

Float64 = NDArray[np.float64]

_STARTS: Final = 33  # where a piece may begin on the one before it


def linear_pieces(x: Float64, f: Float64, eps: float, most: int) -> tuple[Float64, Float64] | None:
    """Return knots and values of a continuous piecewise linear function within eps of samples.

    Parameters
    ----------
    x, f : array (N,)
        x rising.
    eps : float
    most : int
        The most pieces; None is returned where more are needed.

    Returns
    -------
    knots, values : array (pieces + 1,)
        From x[0] to x[-1].

    Notes
    -----
    Each piece starts at the best of a few points of the piece before it (of x[0]'s segment), and
    goes as far as one line stays between f - eps and f + eps.
    """
    low, high = f - eps, f + eps
    knots, values = [float(x[0])], [0.0]
    start_x = np.full(_STARTS, x[0])
    start_y = np.linspace(low[0], high[0], _STARTS)
    reach = 64  # samples that the next piece is expected to span at most
    while True:
        best = _furthest(x, low, high, start_x, start_y, reach)
        k, end, slope = best
        knots[-1], values[-1] = float(start_x[k]), float(start_y[k])
        reach = 2 * max(end - int(np.searchsorted(x, start_x[k])), 16)
        at_end = values[-1] + slope * (x[end] - knots[-1])
        if end == len(x) - 1:
            return np.array([*knots, x[-1]]), np.array([*values, at_end])
        if len(knots) >= most:
            return None
        # A later start than the middle: the line has met both sides by then.
        start_x = np.linspace(0.5 * (knots[-1] + x[end]), x[end], _STARTS)
        start_y = values[-1] + slope * (start_x - knots[-1])
        knots.append(0.0)
        values.append(0.0)


def _furthest(
    x: Float64, low: Float64, high: Float64, start_x: Float64, start_y: Float64, reach: int
) -> tuple[int, int, float]:
    """Which start goes furthest: its index, the last sample it reaches, the slope."""
    first = int(np.searchsorted(x, start_x.min(), side="right"))
    while True:
        last = min(first + reach, len(x))
        ahead = x[first:last] - start_x[:, np.newaxis]  # (starts, samples)
        with np.errstate(all="ignore"):
            least = (low[first:last] - start_y[:, np.newaxis]) / ahead
            most = (high[first:last] - start_y[:, np.newaxis]) / ahead
        least, most = np.where(ahead > 0, least, -np.inf), np.where(ahead > 0, most, np.inf)
        least = np.maximum.accumulate(least, axis=1)
        most = np.minimum.accumulate(most, axis=1)
        n_fit = (least <= most).sum(axis=1)  # feasible up to there, and never after
        k = int(n_fit.argmax())
        if n_fit[k] < last - first or last == len(x):
            break
        reach *= 2
    end = max(int(n_fit[k]) - 1, 0)
    slope = 0.5 * (least[k, end] + most[k, end])
    return k, first + end, float(slope)


def constant_pieces(
    x: Float64, f: Float64, eps: float, most: int
) -> tuple[Float64, Float64] | None:
    """Return jumps and values of a piecewise constant function within eps of samples.

    Returns
    -------
    jumps : array (pieces - 1,)
        Half-way between samples.
    values : array (pieces,)
    None
        Where more than ``most`` pieces are needed.
    """
    jumps: list[float] = []
    values: list[float] = []
    first, reach = 0, 64
    while first < len(x):
        if len(values) >= most:
            return None
        while True:
            piece = f[first : first + reach]
            spread = np.maximum.accumulate(piece) - np.minimum.accumulate(piece)
            n_fit = int((spread <= 2 * eps).sum())
            if n_fit < len(piece) or first + reach >= len(x):
                break
            reach *= 2
        inside = piece[:n_fit]
        values.append(float(0.5 * (inside.max() + inside.min())))
        first += n_fit
        reach = max(2 * n_fit, 16)
        if first < len(x):
            jumps.append(float(0.5 * (x[first - 1] + x[first])))
    return np.array(jumps), np.array(values)


def bends(x: Float64, f: Float64, eps: float, most: int = 100_000) -> NDArray[np.intp]:
    """Find up to ``most`` disjoint intervals on which no straight line stays within eps of f.

    Returns
    -------
    triples : array (m, 3)
        Indices of samples: f at the middle one is further than 2 eps from the chord of the others.
    """
    found: list[tuple[int, int, int]] = []
    first, reach = 0, 64
    while first < len(x) - 2 and len(found) < most:
        last = _first_bend(x, f, eps, first, reach)
        if last is None:
            break
        found.append((first, _furthest_from_chord(x, f, first, last)[0], last))
        reach, first = max(2 * (last - first), 16), last
    return np.array(found, np.intp).reshape(-1, 3)


def _furthest_from_chord(x: Float64, f: Float64, first: int, last: int) -> tuple[int, float]:
    inner = slice(first + 1, last)
    share = (x[inner] - x[first]) / (x[last] - x[first])
    gap = np.abs(f[inner] - (1 - share) * f[first] - share * f[last])
    k = int(gap.argmax())
    return first + 1 + k, float(gap[k])


def _first_bend(x: Float64, f: Float64, eps: float, first: int, reach: int) -> int | None:
    """The least last sample, by doubling and halving, where the chord is further than 2 eps."""
    limit = 2 * eps * (1 + 1e-9)
    low, high = first + 1, min(first + reach, len(x) - 1)
    while _furthest_from_chord(x, f, first, high)[1] <= limit if high > first + 1 else True:
        if high == len(x) - 1:
            return None
        low, high = high, min(first + 2 * (high - first), len(x) - 1)
    while high - low > 1:
        middle = (low + high) // 2
        if middle > first + 1 and _furthest_from_chord(x, f, first, middle)[1] > limit:
            high = middle
        else:
            low = middle
    return high


def steps(f: Float64, eps: float) -> NDArray[np.intp]:
    """Find disjoint intervals on which no constant stays within eps of f.

    Returns
    -------
    pairs : array (m, 2)
        Indices of samples, at which f differs by more than 2 eps.
    """
    found: list[tuple[int, int]] = []
    low = high = first = 0
    limit = 2 * eps * (1 + 1e-9)
    for i, value in enumerate(f.tolist()):
        low = i if value < f[low] else low
        high = i if value > f[high] else high
        if f[high] - f[low] > limit:
            found.append((min(low, high), max(low, high)))
            first = low = high = i
    del first
    return np.array(found, np.intp).reshape(-1, 2)


def n_proved_bends(x: Float64, f: Interval, triples: NDArray[np.intp], eps: float) -> int:
    """How many of ``bends`` hold in interval arithmetic, for the exact f within f.lo and f.hi."""
    if not len(triples):
        return 0
    (a, b, c), (fa, fb, fc) = _points(x, triples), _values(f, triples)
    gap = fb * (c - a) - fa * (c - b) - fc * (b - a)
    limit = Interval.of(np.full(len(triples), 2 * eps)) * (c - a)
    return int((gap.magnitude()[0] > limit.hi).sum())


def n_proved_steps(f: Interval, pairs: NDArray[np.intp], eps: float) -> int:
    """How many of ``steps`` hold in interval arithmetic."""
    if not len(pairs):
        return 0
    fa, fb = _values(f, pairs)
    return int(((fb - fa).magnitude()[0] > 2 * eps).sum())


def _points(x: Float64, index: NDArray[np.intp]) -> list[Interval]:
    return [Interval.of(x[i]) for i in index.T]


def _values(f: Interval, index: NDArray[np.intp]) -> list[Interval]:
    return [Interval(f.lo[i], f.hi[i]) for i in index.T]
