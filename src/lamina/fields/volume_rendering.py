"""Volume rendering: what a ray sees of densities and colours along it, and the exact gradient.

With samples i = 1 … n of a ray, of densities sigma_i over lengths delta_i and colours c_i (Max
1995; Mildenhall et al. 2020, equation 3)::

    w_i = T_i (1 - exp(-sigma_i delta_i)),   T_i = exp(-sum_{j<i} sigma_j delta_j)
    C = sum_i w_i c_i + (1 - sum_i w_i) background

Rays of any number of samples lie one after another; `ray` says whose each sample is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rendering:
    """What rays see, and what their gradient needs.

    Attributes
    ----------
    colour : float64 array (n_rays, 3)
    opacity : float64 array (n_rays,)
        sum_i w_i.
    weights : float64 array (n,)
        w_i.
    left : float64 array (n,)
        T_{i+1}: what passes sample i.
    """

    colour: Float64
    opacity: Float64
    weights: Float64
    left: Float64


def render(optical: Array, colours: Array, ray: Array, n_rays: int, background: Array) -> Rendering:
    """Return what rays see.

    Parameters
    ----------
    optical : array (n,)
        sigma_i delta_i, at least 0.
    colours : array (n, 3)
    ray : int array (n,), not falling
    n_rays : int
    background : array (n_rays, 3)
    """
    before = _sum_before(optical, ray, n_rays)
    weights = np.exp(-before) * -np.expm1(-np.asarray(optical, np.float64))
    opacity: Float64 = np.bincount(ray, weights, n_rays).astype(np.float64)
    colour: Float64 = (1 - opacity)[:, None] * np.asarray(background, np.float64)
    for channel in range(3):
        colour[:, channel] += np.bincount(ray, weights * colours[:, channel], n_rays)
    return Rendering(colour, opacity, weights, np.exp(-(before + optical)))


def render_backward(
    seen: Rendering, colours: Array, ray: Array, background: Array, grad_colour: Array
) -> tuple[Float64, Float64]:
    """Return d loss / d (sigma_i delta_i), (n,), and d loss / d c_i, (n, 3).

    Parameters
    ----------
    seen : Rendering
        What `render` returned.
    colours, ray, background
        As for `render`.
    grad_colour : array (n_rays, 3)
        d loss / d C.
    """
    n_rays = len(grad_colour)
    of_ray = np.asarray(grad_colour, np.float64)[ray]  # (n, 3)
    behind = np.einsum("rc,rc->r", background, grad_colour)
    # d loss / d w_i: the sample's colour comes in, the background goes out
    worth = np.einsum("nc,nc->n", colours, of_ray) - behind[ray]
    # d w_i / d (sigma_i delta_i) = T_{i+1}; d w_j / d (…) = -w_j of every later sample
    part = seen.weights * worth
    total = np.bincount(ray, part, n_rays)
    after = total[ray] - _sum_before(part, ray, n_rays) - part
    return seen.left * worth - after, seen.weights[:, None] * of_ray


def _sum_before(values: Array, ray: Array, n_rays: int) -> Float64:
    """Return for each sample the sum of the earlier samples of its ray."""
    running = np.cumsum(values, dtype=np.float64)
    counts = np.bincount(ray, minlength=n_rays)
    first = np.cumsum(counts) - counts
    start = np.concatenate([[0.0], running])[first]
    return np.asarray(running - values - start[ray], np.float64)


def importance_samples(
    edges: Array, weights: Array, n: int, rng: np.random.Generator | None
) -> Float64:
    """Return n places a ray, drawn in proportion to weights (inverse transform sampling).

    Parameters
    ----------
    edges : array (n_rays, m + 1), rising
        The ends of m pieces of each ray.
    weights : array (n_rays, m), at least 0
    n : int
    rng : Generator or None
        None: the middles of n equal shares, instead of one place at random in each.

    Returns
    -------
    float64 array (n_rays, n), rising

    References
    ----------
    Mildenhall et al. (2020), section 5.2.
    """
    share = np.asarray(weights, np.float64) + 1e-5
    cumulative = np.cumsum(share, axis=1)
    cumulative /= cumulative[:, -1:]
    cumulative = np.concatenate([np.zeros((len(share), 1)), cumulative], axis=1)
    offset = 0.5 if rng is None else rng.uniform(size=(len(share), n))
    wanted = np.broadcast_to((np.arange(n) + offset) / n, (len(share), n))
    # One search for all rays: ray r's probabilities are moved to [r, r + 1]
    rows = np.arange(len(share))[:, None]
    flat = (cumulative + 1.000001 * rows).ravel()
    piece = np.searchsorted(flat, (wanted + 1.000001 * rows).ravel(), side="right").reshape(
        wanted.shape
    )
    piece = np.clip(piece - rows * cumulative.shape[1] - 1, 0, share.shape[1] - 1)
    low = np.take_along_axis(cumulative, piece, 1)
    high = np.take_along_axis(cumulative, piece + 1, 1)
    inside = np.clip((wanted - low) / np.maximum(high - low, 1e-12), 0, 1)
    begin, end = np.take_along_axis(edges, piece, 1), np.take_along_axis(edges, piece + 1, 1)
    return np.asarray(begin + inside * (end - begin))
