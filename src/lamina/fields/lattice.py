"""Grids predicted from coarse to fine, in whole numbers: every processor finds the same.

Of a grid whose every 2 s-th sample is known along each axis, the samples between are predicted by
cubic interpolation from those on either side, and the difference is quantised: first the samples
that lie between along one axis, then along two, then three, each time along every such axis, and
the predictions averaged. Then s is halved. The encoder predicts from what the decoder will have, so
that errors do not add up: each value is within half a step.

References
----------
Zhao et al. (2021), "Optimizing error-bounded lossy compression for scientific data by dynamic
spline interpolation" (SZ3), predict along one axis after the other; averaging over axes is that of
Li et al. (2023), arXiv:2311.12133 (HPEZ).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Slices = tuple[slice, ...]

UNITS: Final = 256  # of a step at the finest spacing: predictions are so much finer
# Half-octaves of how much was coded nearby, and of differences between neighbours, in steps
CODED_EDGES: Final = np.array([1, 2, 3, 5, 8, 13, 24, 48, 96])  # of 4 times the mean magnitude
SLOPE_EDGES: Final = np.array([2, 8, 32, 128, 512])  # of 4 times the mean difference
N_CONTEXTS: Final = (len(CODED_EDGES) + 1) * (len(SLOPE_EDGES) + 1)


@dataclass(frozen=True)
class Passage:
    """Samples that are predicted at once: all that lie between along as many axes.

    Attributes
    ----------
    spacing : int
        s: known are the samples at multiples of 2 s.
    n_between : int
        Along how many axes these lie between.
    step : int
        Of quantisation, in units.
    targets : tuple of tuple of slice
        Where they are.
    """

    spacing: int
    n_between: int
    step: int
    targets: tuple[Slices, ...]

    def gather(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return their values in blocks (n_blocks, …), as (n_blocks, n)."""
        n = len(array)
        parts = [array[(slice(None), *t)].reshape(n, -1) for t in self.targets]
        return np.concatenate(parts, axis=1)

    def scatter(self, array: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        """Put values (n_blocks, n) in their places."""
        start = 0
        for target in self.targets:
            place = array[(slice(None), *target)]
            size = place[0].size
            place[...] = values[:, start : start + size].reshape(place.shape)
            start += size


# Asked for each passage: predictions and contexts -> whole steps, all (n_blocks, n)
Answer = Callable[[Passage, Ints, Ints], Ints]


def refine(
    known: Ints, dims: tuple[int, ...], steps: list[int], answer: Answer, *, smooth: bool
) -> None:
    """Go from a coarse lattice to all samples, in place.

    Parameters
    ----------
    known : int64 array (n_blocks, …)
        With an axis for each of `dims`, as long or one longer: the sample past the end, known where
        its other indices are multiples of the coarsest spacing. Samples at multiples of
        ``2 ** len(steps)`` are given, others found.
    dims : tuple of int
    steps : list of int
        In units, from the finest spacing, 1, to the coarsest, ``2 ** (len(steps) - 1)``.
    answer : callable
        The decoder's reads steps, the encoder's computes and keeps them.
    smooth : bool
        What lies beyond the last known sample is extrapolated by a parabola rather than a line: of
        noise, a parabola makes more.
    """
    coded = np.zeros(known.shape, np.int32)  # magnitudes, in steps
    for level in range(len(steps) - 1, -1, -1):
        beyond = known.shape[1:] if level == len(steps) - 1 else dims
        for passage in passages(dims, 1 << level, steps[level]):
            reach = beyond if passage.n_between == 1 else dims
            predicted, context = _predict(known, coded, passage, reach, smooth)
            found = answer(passage, predicted, context)
            passage.scatter(known, predicted + found * passage.step)
            passage.scatter(coded, np.minimum(np.abs(found), 1 << 20))


def passages(dims: tuple[int, ...], spacing: int, step: int) -> Iterator[Passage]:
    """Yield what lies between along one axis, along two, and so on."""
    for n_between in range(1, len(dims) + 1):
        targets = _targets(dims, spacing, n_between)
        if targets:
            yield Passage(spacing, n_between, step, targets)


@lru_cache(maxsize=256)
def _targets(dims: tuple[int, ...], spacing: int, n_between: int) -> tuple[Slices, ...]:
    found = []
    for parity in itertools.product((0, 1), repeat=len(dims)):
        if sum(parity) == n_between and all(
            spacing < n or not odd for odd, n in zip(parity, dims, strict=True)
        ):
            both = zip(parity, dims, strict=True)
            found.append(tuple(slice(spacing * odd, n, 2 * spacing) for odd, n in both))
    return tuple(found)


def _predict(
    known: Ints,
    coded: npt.NDArray[np.int32],
    passage: Passage,
    reach: tuple[int, ...],
    smooth: bool,
) -> tuple[Ints, Ints]:
    """Return predictions and contexts (n_blocks, n) of a passage.

    The mean over the axes along which a sample lies between two known ones; where there is no such
    axis, at the end of a block, it is extrapolated.
    """
    n, predictions, contexts = len(known), [], []
    for target in passage.targets:
        sums: list[Any] = [0, 0, 0]
        weight: Any = 0
        axes = [a for a, part in enumerate(target) if part.start]
        sides = {a: _Sides(known, coded, target, a, passage.spacing, reach[a]) for a in axes}
        inside = sum(side.is_inside(len(reach)) for side in sides.values())
        for side in sides.values():
            w = np.where(inside == 0, 1, side.is_inside(len(reach)))
            weight = weight + w
            for i, part in enumerate(side.parts(smooth)):
                sums[i] = sums[i] + w * part
        predicted = (sums[0] + 8 * weight) // (16 * weight)
        # Context: what was coded on either side, and how far those two are apart
        magnitude = np.searchsorted(CODED_EDGES, 2 * sums[1] // weight, side="right")
        slope = np.searchsorted(SLOPE_EDGES, 4 * sums[2] // (passage.step * weight), side="right")
        predictions.append(predicted.reshape(n, -1))
        contexts.append((magnitude * (len(SLOPE_EDGES) + 1) + slope).reshape(n, -1))
    return np.concatenate(predictions, axis=1), np.concatenate(contexts, axis=1)


class _Sides:
    """What is known along one axis on both sides of the samples of a target."""

    def __init__(
        self,
        known: Ints,
        coded: npt.NDArray[np.int32],
        target: Slices,
        axis: int,
        spacing: int,
        reach: int,
    ) -> None:
        source = list(target)
        source[axis] = slice(0, reach, 2 * spacing)
        place = (slice(None), *source)
        self.axis, self.m = axis, len(range(*target[axis].indices(target[axis].stop)))
        self.values = np.moveaxis(known[place], axis + 1, -1)
        self.coded = np.moveaxis(coded[place], axis + 1, -1)
        self.n = self.values.shape[-1]  # m, or m + 1 where the last sample has a right neighbour

    def is_inside(self, n_axes: int) -> Ints:
        """1 where there is a known sample on the right too, to be broadcast over blocks."""
        flags = np.ones(self.m, np.int64)
        flags[self.n - 1 :] = 0
        return flags.reshape([self.m if i == self.axis else 1 for i in range(n_axes)])

    def parts(self, smooth: bool) -> list[Ints]:
        """Return 16 times the predictions, the sum of what was coded, and the difference."""
        e, m, n = self.values, self.m, self.n
        predicted = np.empty((*e.shape[:-1], m), np.int64)
        slope, magnitude = np.empty_like(predicted), np.empty_like(predicted)
        last = min(m, n - 1)
        predicted[..., :last] = 8 * (e[..., :last] + e[..., 1 : last + 1])
        if n >= 4:  # cubic
            middle = 9 * (e[..., 1 : n - 2] + e[..., 2 : n - 1])
            predicted[..., 1 : n - 2] = middle - e[..., : n - 3] - e[..., 3:n]
        if n >= 3:  # at the ends three samples, a parabola
            predicted[..., 0] = 6 * e[..., 0] + 12 * e[..., 1] - 2 * e[..., 2]
            predicted[..., n - 2] = 6 * e[..., n - 1] + 12 * e[..., n - 2] - 2 * e[..., n - 3]
        slope[..., :last] = np.abs(e[..., :last] - e[..., 1 : last + 1])
        magnitude[..., :last] = self.coded[..., :last] + self.coded[..., 1 : last + 1]
        if last < m:  # beyond the last known sample
            end, before = e[..., n - 1], e[..., max(n - 2, 0)]
            if smooth and n >= 3:
                predicted[..., last] = 30 * end - 20 * before + 6 * e[..., n - 3]
            else:
                predicted[..., last] = 24 * end - 8 * before
            slope[..., last] = np.abs(end - before)
            magnitude[..., last] = 2 * self.coded[..., n - 1]
        return [np.moveaxis(part, -1, self.axis + 1) for part in (predicted, magnitude, slope)]
