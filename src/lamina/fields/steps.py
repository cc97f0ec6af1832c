"""The steps in which weights are rounded: the finest that a number of bytes allows.

Each tensor's step is a common factor divided by the root of the mean squared derivative of the
field by the tensor's weights: at a given rate, that makes the mean squared error of the field
least (where steps are small: all tensors then add as much error a weight). The common factor is
what the rate asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import SpecError
from lamina.fields.entropy import estimate
from lamina.fields.quantised import Quantised, as_step

Array = npt.NDArray[Any]

DEAD_ZONE: Final = 0.1
# Of the greatest mean squared derivative: below, a tensor's step grows no more
LEAST_SENSITIVITY: Final = 1e-8
WIDEST: Final = 40.0  # |log2| of the common factor


class StepChooser:
    """Chooses steps for weights that make them take a number of bytes.

    Parameters
    ----------
    parts : list of slice
        The tensors, from `tensors`.
    squares : array (n_params,)
        (d F / d theta)^2, summed over outputs and averaged over places, up to a factor.
    n_bytes : int
    """

    def __init__(self, parts: list[slice], squares: Array, n_bytes: int) -> None:
        self.parts, self.n_bytes = parts, n_bytes
        means = np.array([float(squares[part].mean()) for part in self.parts])
        floor = LEAST_SENSITIVITY * float(means.max()) or 1.0
        self.relative = 1.0 / np.sqrt(np.maximum(means, floor))
        self.relative /= self.relative.max()
        self._last: float | None = None

    def at(self, theta: Array, log2_factor: float) -> Quantised:
        """Return the weights in steps of this factor."""
        steps = tuple(as_step(float(each) * 2.0**log2_factor) for each in self.relative)
        return Quantised.of(theta, self.parts, steps, DEAD_ZONE)

    def near(self, theta: Array) -> Quantised:
        """Return the weights in steps that should take `n_bytes`, by their entropy."""
        return self.at(theta, self._about(theta))

    def exact(self, theta: Array) -> Quantised:
        """Return the weights in the finest steps that take at most `n_bytes`, or nearly so."""
        about = self._about(theta)
        factor = self._search(theta, about - 1.0, about + 0.5, self._modelled, 0.005)
        while (weights := self.at(theta, factor)).n_bytes(self.parts) > self.n_bytes:
            factor += 0.005 if factor < about + 1.0 else 1.0
            if factor > WIDEST:
                raise SpecError(
                    f"compress: expected at least {weights.n_bytes(self.parts):,} bytes for the "
                    f"weights, got {max(self.n_bytes, 0):,}. Raise bits_per_weight or n_bytes, or "
                    "fit a smaller network."
                )
        return weights

    def _about(self, theta: Array) -> float:
        """Return the factor that the entropy asks for; near that of the last call, if it can."""
        if self._last is not None:
            low, high = self._last - 0.5, self._last + 0.5
            if (
                self._estimate(self.at(theta, low))
                > self.n_bytes
                >= self._estimate(self.at(theta, high))
            ):
                self._last = self._search(theta, low, high, self._estimate, 0.02)
                return self._last
        self._last = self._search(theta, -WIDEST, WIDEST, self._estimate, 0.02)
        return self._last

    def _search(
        self,
        theta: Array,
        low: float,
        high: float,
        size: Callable[[Quantised], float],
        within: float,
    ) -> float:
        """Return the least log2 factor that `size` allows, or the highest."""
        while high - low > within:
            middle = (low + high) / 2
            if size(self.at(theta, middle)) > self.n_bytes:
                low = middle
            else:
                high = middle
        return high

    def _estimate(self, weights: Quantised) -> float:
        return weights.entropy(self.parts) / 8

    def _modelled(self, weights: Quantised) -> float:
        return sum(estimate(weights.codes[part]) for part in self.parts)
