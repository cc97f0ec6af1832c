"""Gradient ascent on an input, held near what inputs look like by a handful of regularisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.functions import Float64

Respond = Callable[[Float64], tuple[Float64, Float64]]
"""x (n, *shape) to the values to be raised (n,) and their gradients (n, *shape)."""

OCTAVE: Final = 1.4  # Mordvintsev et al. 2015
BLUR_EVERY: Final = 4  # steps; Yosinski et al. 2015, table 1
_ROUND: Final = 1e-3  # total variation is rounded at this slope, so that it has a gradient at 0


@dataclass(frozen=True)
class Ascent:
    """How to climb; see `maximise_activation` for each number."""

    n_steps: int
    lr: float
    radius: float | None
    bounds: tuple[float, float] | None
    l2: float
    total_variation: float
    jitter: int
    blur: float

    def climb(
        self, respond: Respond, x: Float64, rng: np.random.Generator
    ) -> tuple[Float64, Float64]:
        """Climb from x (n, *shape); return where each ended, and its values (n, n_steps).

        Notes
        -----
        Steps have a root mean square of lr (1 + cos(pi t / n_steps)) / 2 whatever the gradient's
        size is, and so end at the maximum rather than beside it.
        """
        values = np.empty((len(x), self.n_steps))
        x = self._inside(x)
        for t in range(self.n_steps):
            values[:, t], gradient = self._jittered(respond, x, rng)
            if self.l2:
                gradient = gradient - self.l2 * x
            if self.total_variation:
                gradient = gradient - self.total_variation * variation_gradient(x)
            lr = self.lr * (1.0 + np.cos(np.pi * t / self.n_steps)) / 2.0
            x = self._inside(x + lr * _unit(gradient))
            if self.blur and t % BLUR_EVERY == BLUR_EVERY - 1 and t < self.n_steps - BLUR_EVERY:
                x = self._inside(blurred(x, self.blur))
        return x, values

    def _jittered(
        self, respond: Respond, x: Float64, rng: np.random.Generator
    ) -> tuple[Float64, Float64]:
        """Respond to x moved by a few pixels, and move the gradient back."""
        if not self.jitter:
            return respond(x)
        down, right = (int(s) for s in rng.integers(-self.jitter, self.jitter + 1, 2))
        values, gradient = respond(np.roll(x, (down, right), axis=(-2, -1)))
        return values, np.roll(gradient, (-down, -right), axis=(-2, -1))

    def _inside(self, x: Float64) -> Float64:
        """Return the nearest point within bounds, or pulled back onto the ball."""
        if self.bounds is not None:
            x = np.clip(x, *self.bounds)
        if self.radius is not None:
            length = np.sqrt((x**2).sum(axis=_others(x), keepdims=True))
            x = x * np.minimum(1.0, self.radius / np.maximum(length, 1e-300))
        return x


def climb_octaves(
    ascent: Ascent, respond: Respond, start: Float64, n_octaves: int, rng: np.random.Generator
) -> tuple[Float64, Float64]:
    """Climb on small copies of an image first, and carry what appears over to larger ones.

    Parameters
    ----------
    ascent : Ascent
        Its radius is for the full size.
    start : (n, ..., height, width) float64
    n_octaves : int
        Each is 1.4 times as large as the one before; the last is of full size.

    References
    ----------
    Mordvintsev et al. (2015), "Inceptionism: going deeper into neural networks".
    """
    height, width = start.shape[-2:]
    details = np.zeros_like(start)
    curves = []
    for octave in range(n_octaves - 1, -1, -1):
        size = tuple(max(8, round(s / OCTAVE**octave)) for s in (height, width))
        size = size if octave else (height, width)
        base = resized(start, size)
        x, values = _at_size(ascent, size, (height, width)).climb(
            respond, base + resized(details, size), rng
        )
        details = x - base
        curves.append(values)
    return x, np.concatenate(curves, axis=1)


def _at_size(ascent: Ascent, size: tuple[int, ...], full: tuple[int, int]) -> Ascent:
    if ascent.radius is None:
        return ascent
    share = np.sqrt(np.prod(size) / np.prod(full))
    return Ascent(**{**vars(ascent), "radius": float(ascent.radius * share)})


def variation(x: Float64) -> Float64:
    """The total variation of images (n, ..., height, width), shape (n,): sums of slopes.

    ::

        sum over pixels of sqrt(dx^2 + dy^2 + 1e-6), dx and dy to the next pixel

    References
    ----------
    Mahendran and Vedaldi (2015), arXiv:1412.0035, section 3.
    """
    return np.asarray(_slopes(x)[2].sum(axis=_others(x)))


def variation_gradient(x: Float64) -> Float64:
    """The derivative of `variation` by x, of its shape."""
    down, right, size = _slopes(x)
    down, right = down / size, right / size
    gradient = -(down + right)
    gradient[..., 1:, :] += down[..., :-1, :]
    gradient[..., :, 1:] += right[..., :, :-1]
    return gradient


def _slopes(x: Float64) -> tuple[Float64, Float64, Float64]:
    down, right = np.zeros_like(x), np.zeros_like(x)
    down[..., :-1, :] = np.diff(x, axis=-2)
    right[..., :, :-1] = np.diff(x, axis=-1)
    return down, right, np.sqrt(down**2 + right**2 + _ROUND**2)


def blurred(x: Float64, sigma: float) -> Float64:
    """Return images (n, ..., height, width) under a Gaussian of `sigma` pixels."""
    from scipy.ndimage import gaussian_filter

    sigmas = (0.0,) * (x.ndim - 2) + (sigma, sigma)
    return np.asarray(gaussian_filter(x, sigmas, mode="nearest"))


def resized(x: Float64, size: tuple[int, ...]) -> Float64:
    """Return images (n, ..., height, width) at another size, interpolated linearly."""
    if x.shape[-2:] == tuple(size):
        return x
    from scipy.ndimage import zoom

    factors = [1.0] * (x.ndim - 2) + [s / old for s, old in zip(size, x.shape[-2:], strict=True)]
    return np.asarray(zoom(x, factors, order=1, mode="nearest", grid_mode=True))


def _unit(gradient: Float64) -> Float64:
    """Return each gradient with a root mean square of 1; zero stays zero."""
    size = np.sqrt((gradient**2).mean(axis=_others(gradient), keepdims=True))
    return np.asarray(gradient / np.maximum(size, 1e-300))


def _others(x: NDArray[Any]) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))
