"""Which cells of the box hold anything, so that rays pass over the others.

Müller et al. (2022), arXiv:2201.05989, appendix E: a grid of the largest density seen in each cell,
which decays, so that cells that were emptied are looked at less.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

CELLS: Final = 96  # along an axis; a multiple of GROUP
GROUP: Final = 4  # steps of a ray that are asked for together, and cells of a coarse one
DECAY: Final = 0.95
OPAQUE: Final = 0.01  # a cell counts if a step through it would hide so much


@dataclass(frozen=True)
class Samples:
    """Places along rays, one ray after another.

    Attributes
    ----------
    ray : int32 array (n,), not falling
    distance : float32 array (n,)
        From the ray's origin.
    """

    ray: npt.NDArray[np.int32]
    distance: Float32


class OccupancyGrid:
    """A grid over [-1, 1]^3.

    Parameters
    ----------
    step : float
        Length between samples of a ray, in coordinates; at most a cell's side.
    """

    def __init__(self, step: float) -> None:
        self.step = step
        self.density = np.zeros(CELLS**3, np.float32)
        self.taken = np.ones(CELLS**3, bool)
        self.allowed = np.ones(CELLS**3, bool)
        self._coarse = np.ones((CELLS // GROUP) ** 3, bool)

    @property
    def share(self) -> float:
        """How much of the box is taken."""
        return float(self.taken.mean())

    def update(self, density: Callable[[Array], Array], n: int, rng: np.random.Generator) -> None:
        """Look at n cells anywhere, and at as many of those taken.

        Parameters
        ----------
        density : callable
            (n, 3) float32 to (n,).
        n : int
        rng : numpy.random.Generator
        """
        cells = rng.integers(CELLS**3, size=n)
        taken = np.flatnonzero(self.taken)
        if len(taken):
            cells = np.concatenate([cells, taken[rng.integers(len(taken), size=n)]])
        corner = np.stack(np.unravel_index(cells, (CELLS,) * 3), axis=1)
        places = (2 * (corner + rng.uniform(size=corner.shape)) / CELLS - 1).astype(np.float32)
        self.density *= np.float32(DECAY)
        np.maximum.at(self.density, cells, density(places).astype(np.float32))
        self.refresh()

    def refresh(self) -> None:
        """Decide anew which cells are taken."""
        least = -np.log1p(-OPAQUE) / self.step
        # Never more than the mean: at first, when all of space is a thin fog, that is half of it
        self.taken = (self.density > min(least, float(self.density.mean()))) & self.allowed
        self._coarsen()

    def allow(self, allowed: Array) -> None:
        """Leave all other cells out for good: bool (CELLS**3,)."""
        self.allowed &= allowed
        self.taken &= self.allowed
        self._coarsen()

    def set_taken(self, taken: Array) -> None:
        """Take what a file holds."""
        self.taken = np.asarray(taken, bool)
        self._coarsen()

    def deflated(self) -> npt.NDArray[np.uint8]:
        """Return `taken` as a file holds it: bits, by zlib."""
        return np.frombuffer(zlib.compress(np.packbits(self.taken).tobytes(), 9), np.uint8)

    def _coarsen(self) -> None:
        m = CELLS // GROUP
        coarse = self.taken.reshape(m, GROUP, m, GROUP, m, GROUP).any(axis=(1, 3, 5))
        # A group of steps reaches into the neighbours of the coarse cell that its middle is in
        for axis in range(3):
            padded = np.pad(coarse, [(1, 1) if a == axis else (0, 0) for a in range(3)])
            parts = [np.take(padded, range(k, k + m), axis=axis) for k in range(3)]
            coarse = parts[0] | parts[1] | parts[2]
        self._coarse = coarse.ravel()

    def march(
        self, origins: Array, directions: Array, near: Array, far: Array, offset: Array
    ) -> Samples:
        """Return samples every `step` along rays, in cells that are taken.

        Parameters
        ----------
        origins, directions : array (n_rays, 3)
            In coordinates.
        near, far : array (n_rays,)
            Where rays enter and leave the box.
        offset : array (n_rays,) in [0, 1)
            Of the first sample, in steps.
        """
        o, d = origins.astype(np.float32), directions.astype(np.float32)
        step = np.float32(self.step)
        start = near.astype(np.float32) + offset.astype(np.float32) * step
        span = np.maximum(far - near, 0)
        n_groups = int(np.ceil(span.max(initial=0) / (GROUP * self.step)))
        if n_groups == 0:
            return Samples(np.empty(0, np.int32), np.empty(0, np.float32))
        middles = start[:, None] + step * np.float32(GROUP) * (
            np.arange(n_groups, dtype=np.float32) + np.float32(0.5)
        )
        some = middles < far[:, None].astype(np.float32) + step * GROUP / 2
        ray, group = np.nonzero(some)
        t = middles[some]
        found = self._coarse[_cell(o, d, ray, t, CELLS // GROUP)]
        ray, group = ray[found].astype(np.int32), group[found].astype(np.float32)
        steps = (group[:, None] * GROUP + np.arange(GROUP, dtype=np.float32)).ravel()
        ray = np.repeat(ray, GROUP).astype(np.int32)
        t = start[ray] + step * steps
        found = (t < far[ray]) & self.taken[_cell(o, d, ray, t, CELLS)]
        return Samples(ray[found].astype(np.int32, copy=False), t[found])


def inflated(stream: Array, where: str) -> npt.NDArray[np.uint8]:
    """Return the bits that `OccupancyGrid.deflated` holds; nothing in it is trusted.

    Raises
    ------
    DataError
        It is not such a stream.
    """
    n_bytes = CELLS**3 // 8
    try:
        unpacker = zlib.decompressobj()
        bits = unpacker.decompress(stream.astype(np.uint8, casting="no").tobytes(), n_bytes)
    except (zlib.error, TypeError):
        bits = b""
    if len(bits) != n_bytes or not unpacker.eof or unpacker.unused_data:
        raise DataError(f"{where}: expected {CELLS}^3 bits of occupancy by zlib, got others.")
    return np.frombuffer(bits, np.uint8)


def _cell(o: Float32, d: Float32, ray: Array, t: Float32, n: int) -> Array:
    """Return flat numbers of the cells, n along an axis, at distances t of rays."""
    index = np.zeros(len(t), np.int32)
    half = np.float32(n / 2)
    for axis in range(3):
        place = o[ray, axis] + t * d[ray, axis]
        cell = ((place + np.float32(1)) * half).astype(np.int32)
        np.clip(cell, 0, n - 1, out=cell)
        index *= n
        index += cell
    return index


def box_range(origins: Array, directions: Array) -> tuple[Array, Array]:
    """Return where rays enter and leave [-1, 1]^3, (n,) each; never before the origin.

    A ray that misses it leaves where it enters.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (-1 - origins) / directions, (1 - origins) / directions
    low, high = np.fmin(a, b), np.fmax(a, b)
    # A ray along a wall's plane outside of the box has an empty range there
    outside = (directions == 0) & (np.abs(origins) > 1)
    low, high = np.where(outside, np.inf, low), np.where(outside, -np.inf, high)
    near = np.maximum(np.nan_to_num(low, nan=-np.inf, posinf=np.inf, neginf=-np.inf).max(axis=1), 0)
    far = np.nan_to_num(high, nan=np.inf, posinf=np.inf, neginf=-np.inf).min(axis=1)
    missed = ~(far > near)
    return np.where(missed, 0.0, near), np.where(missed, 0.0, far)
