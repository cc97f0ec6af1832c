"""Stored samples between their places: multilinear, and missing where the nearest one is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.fields.residual import Residual

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def interpolate(residual: Residual, coordinates: Array) -> tuple[Float64, Float64]:
    """Return values (n, channels) and slopes (n, channels, d) at any coordinates.

    Parameters
    ----------
    residual : Residual
    coordinates : array (n, d)
        In [-1, 1], x first; beyond, the border's values.
    """
    grid = residual.layout.grid
    d = len(grid)
    along = [_between(coordinates[:, d - 1 - axis], n) for axis, n in enumerate(grid)]
    corners = list(itertools.product((0, 1), repeat=d))
    places = [
        np.stack([along[a][0] + c for a, c in enumerate(corner)], axis=1) for corner in corners
    ]
    top = np.array(grid) - 1
    samples = residual.at(np.minimum(np.concatenate(places), top))
    samples = samples.reshape(len(corners), len(coordinates), -1)
    weights = np.ones((len(corners), len(coordinates)))
    slopes = np.ones((d, len(corners), len(coordinates)))
    for i, corner in enumerate(corners):
        for a, c in enumerate(corner):
            _, t, scale = along[a]
            share = t if c else 1 - t
            weights[i] *= share
            for which in range(d):
                # Coordinates have x first, grids have it last
                slopes[which, i] *= (scale if c else -scale) if which == d - 1 - a else share
    known = ~np.isnan(samples)
    filled = np.where(known, samples, 0.0)
    total = np.einsum("kn,knc->nc", weights, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.einsum("kn,knc->nc", weights, filled) / total
    nearest = np.argmax(weights, axis=0)
    values[~known[nearest, np.arange(len(nearest))]] = np.nan
    return values, np.einsum("dkn,knc->ncd", slopes, samples)


def interpolate_lattice(residual: Residual, places: list[Array]) -> Float64:
    """Return values (…, channels) at all combinations of places along the axes.

    Parameters
    ----------
    residual : Residual
    places : list of arrays
        Coordinates along each axis, in the array's order.
    """
    along = [_between(p, n) for p, n in zip(places, residual.layout.grid, strict=True)]
    lows = [int(low.min()) for low, _, _ in along]
    ends = [
        min(int(low.max()) + 2, n)
        for (low, _, _), n in zip(along, residual.layout.grid, strict=True)
    ]
    samples = residual.read(tuple(slice(a, b) for a, b in zip(lows, ends, strict=True)))
    known = ~np.isnan(samples)
    if known.all():
        return _blend(samples, along, lows)
    total = _blend(known.astype(np.float64), along, lows)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = _blend(np.where(known, samples, 0.0), along, lows) / total
    nearest = [low - first + (t >= 0.5) for (low, t, _), first in zip(along, lows, strict=True)]
    values[~known[np.ix_(*nearest)]] = np.nan
    return values


def _blend(samples: Float64, along: list[tuple[Ints, Float64, float]], lows: list[int]) -> Float64:
    for axis, ((low, t, _), first) in enumerate(zip(along, lows, strict=True)):
        left = low - first
        right = np.minimum(left + 1, samples.shape[axis] - 1)
        share = t.reshape([-1 if i == axis else 1 for i in range(samples.ndim)])
        samples = samples.take(left, axis) * (1 - share) + samples.take(right, axis) * share
    return samples


def _between(coordinates: Array, n: int) -> tuple[Ints, Float64, float]:
    """Return the sample on the left, the share of the one on the right, and its slope.

    A float32 coordinate lies next to its sample, not at it: what is within 2^-18 of a cell of one
    is taken to be there, so that samples have their own values.
    """
    at = np.clip((coordinates.astype(np.float64) + 1.0) * (n / 2) - 0.5, 0.0, n - 1.0)
    snapped = np.rint(at)
    at = np.where(np.abs(at - snapped) < n * 2.0**-22, snapped, at)
    low = np.clip(np.floor(at), 0, max(n - 2, 0)).astype(np.int64)
    return low, at - low, n / 2
