"""Sums of ridge functions fitted to a function: the one hidden layer with structured first weights.

The units' directions and thresholds are laid out evenly; the output weights solve a linear least
squares problem, reweighted towards the smallest maximum error (Lawson's iteration).

References
----------
Cybenko (1989), "Approximation by superpositions of a sigmoidal function"; Pinkus (1999),
"Approximation theory of the MLP model in neural networks", section 3, for sums of ridge functions.
Lawson (1961), "Contributions to the theory of linear least maximum approximation".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_LAWSON: Final = 12  # rounds of reweighting
_RIDGES: Final = (
    1e-12,
    1e-9,
    1e-6,
)  # penalties on the weights, as shares of the largest eigenvalue

_CUTS: Final = (1e-9, 1e-13)  # of singular values, as shares of the greatest
_MOST_EXACT: Final = 100_000  # numbers in a matrix whose singular values are worth their time


@dataclass(frozen=True)
class Layer:
    """Units phi(w . x + b): weight (n, d) and bias (n,)."""

    weight: Float64
    bias: Float64

    def h(self, x: Float64, activation: str) -> Float64:
        """Their values (rows, n); sigmoid is taken as tanh, of which it is a scaled copy."""
        z = x @ self.weight.T + self.bias
        return np.maximum(z, 0.0) if activation == "relu" else np.tanh(z)


@dataclass(frozen=True)
class Fit:
    """A layer, its output weights (n,) and bias, and the greatest error at the samples."""

    layer: Layer
    out: Float64
    offset: float
    error: float


def layer_1d(ends: Float64, n: int, steepness: float, density: Float64 | None = None) -> Layer:
    """Lay n steep units on [a, b], evenly or by a density given at even points.

    ``steepness`` is the slope of each in units of the distance of its neighbours.
    """
    a, b = ends[0]
    at = (np.arange(n) + 0.5) / n
    if density is None:
        t, spacing = a + (b - a) * at, np.full(n, (b - a) / n)
    else:
        mass = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
        even = np.linspace(a, b, len(density) + 1)
        t = np.interp(at, mass, even)
        edges = np.interp(np.arange(n + 1) / n, mass, even)
        spacing = np.diff(edges)
    slope = steepness / spacing
    return Layer(slope[:, np.newaxis], -slope * t)


def layer_nd(
    ends: Float64,
    n: int,
    activation: str,
    steepness: float,
    rng: np.random.Generator | None = None,
) -> Layer:
    """Lay about n units over a box of 2 or 3 dimensions: directions, and thresholds along each.

    With a generator, all directions are turned and all thresholds shifted at random.
    """
    d = len(ends)
    n_directions = max(round((0.8 * n) ** ((d - 1) / d)), d)
    n_thresholds = max(round(n / n_directions), 2)
    directions = _directions(d, n_directions)
    first = 0.0
    if rng is not None:
        directions = directions @ np.linalg.qr(rng.normal(size=(d, d)))[0]
        first = float(rng.uniform())
    weight = np.repeat(directions, n_thresholds, axis=0)  # of the box scaled to [-1, 1]^d
    reach = np.abs(weight).sum(axis=1)
    # Directions take turns by a share of the spacing, so that kinks do not meet in the middle.
    turn = np.repeat((first + np.arange(n_directions) * 0.618) % 1.0, n_thresholds)
    k = np.tile(np.arange(n_thresholds), n_directions)
    threshold = reach * (2 * (k + turn) / n_thresholds - 1)
    if activation == "relu":
        threshold[k == 0] = -reach[k == 0]  # a straight part in every direction
        scale: Float64 = np.ones(len(weight))
    else:
        scale = steepness * n_thresholds / (2 * reach)
    weight, bias = weight * scale[:, np.newaxis], -threshold * scale
    centre, half = ends.mean(axis=1), 0.5 * (ends[:, 1] - ends[:, 0])
    weight = weight / half
    return Layer(weight, bias - weight @ centre)


def _directions(d: int, n: int) -> Float64:
    """Directions (n, d), evenly over half of the circle or of the sphere (Fibonacci's spiral)."""
    if d == 2:
        angle = math.pi * (np.arange(n) + 0.25) / n
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    height = (np.arange(n) + 0.5) / n  # the upper half
    turn = math.pi * (3 - math.sqrt(5)) * np.arange(n)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def samples(ends: Float64, per_axis: int) -> Float64:
    """A grid over the box, denser towards its faces, where errors are greatest."""
    even = np.linspace(-1.0, 1.0, per_axis)
    dense = 0.5 * even + 0.5 * np.sin(0.5 * math.pi * even)
    axes = [0.5 * (a + b) + 0.5 * (b - a) * dense for a, b in ends]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(ends))


def fit(layer: Layer, activation: str, x: Float64, f: Float64, enough: float) -> Fit:
    """Fit the output weights of a layer to samples.

    Parameters
    ----------
    layer : Layer
    activation : {"relu", "sigmoid", "tanh"}
    x, f : array (rows, d) and (rows,)
    enough : float
        The error at which to stop looking for a smaller one.

    Returns
    -------
    Fit
        The one with the smallest greatest error, of those met.
    """
    design = np.column_stack([layer.h(x, activation), np.ones(len(x))])
    scale = np.sqrt(np.square(design).mean(axis=0)) + 1e-300
    design = design / scale
    best: tuple[float, Float64] = (math.inf, np.zeros(design.shape[1]))
    for ridge in reversed(_RIDGES):
        best = min(best, _lawson(design, f, ridge, enough), key=lambda found: found[0])
        if best[0] <= enough:  # with the smallest weights that do
            break
    # Normal equations end at half of the digits; singular values are slower and go on.
    if enough < best[0] < 1e-4 * np.abs(f).max() and design.size <= _MOST_EXACT:
        for cut in _CUTS:
            best = min(best, _lawson(design, f, cut, enough, True), key=lambda found: found[0])
            if best[0] <= enough:
                break
    error, weight = best
    weight = weight / scale
    return Fit(layer, weight[:-1], float(weight[-1]), error)


def _lawson(
    design: Float64, f: Float64, ridge: float, enough: float, by_svd: bool = False
) -> tuple[float, Float64]:
    """Weighted least squares; the weights grow where the error is great.

    By normal equations with a ridge, or by singular values, those below a share of the first cut.
    """
    share = np.full(len(f), 1.0 / len(f))
    best: tuple[float, Float64] = (math.inf, np.zeros(design.shape[1]))
    for _ in range(_LAWSON):
        try:
            if by_svd:
                root = np.sqrt(share)
                weight = np.linalg.lstsq(design * root[:, np.newaxis], f * root, rcond=ridge)[0]
            else:
                weighted = design * share[:, np.newaxis]
                gram = weighted.T @ design
                gram[np.diag_indices_from(gram)] += ridge * np.trace(gram)
                weight = np.linalg.solve(gram, weighted.T @ f)
        except np.linalg.LinAlgError:
            break
        error = np.abs(design @ weight - f)
        greatest = float(error.max())
        if greatest < best[0]:
            best = (greatest, weight)
        elif greatest > 2 * best[0]:
            break
        if best[0] <= enough or greatest == 0:
            break
        share = share * (error / greatest + 0.02)
        share = share / share.sum()
    return best
