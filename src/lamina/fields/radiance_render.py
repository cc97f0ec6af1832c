"""Samples along the rays of a scene, and what its networks show along them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError
from lamina.fields.cameras import Camera, Views
from lamina.fields.occupancy import OccupancyGrid, Samples, box_range
from lamina.fields.radiance import density_of, encode_directions
from lamina.fields.volume_rendering import importance_samples, render

Array = npt.NDArray[Any]
Function = Callable[[Array], Array]

STEP: Final = 2 * math.sqrt(3.0) / 256  # between samples of a ray, with the hash preset
COARSE, FINE = 64, 64  # samples of a ray, with the classic preset
RAYS_AT_ONCE: Final = 1 << 14
HIDDEN: Final = 1e-3  # samples that so little light reaches need no colour


@dataclass(frozen=True)
class Frame:
    """Where the box [-1, 1]^3 lies in the world: coordinates are scale * (place - middle)."""

    middle: tuple[float, float, float]
    scale: float

    def rays(self, origins: Array, directions: Array) -> tuple[Array, Array, Array, Array]:
        """Return origins in coordinates, directions, and where rays enter and leave the box.

        Distances along rays are in coordinates.
        """
        moved = (origins - np.array(self.middle)) * self.scale
        near, far = box_range(moved, directions)
        return moved, directions, near, far

    @classmethod
    def around(cls, views: Views, where: str) -> Frame:
        """Return the box that cameras all around look at: where their axes come nearest."""
        eyes = np.stack([camera.eye for camera in views.cameras])
        ahead = np.stack([-camera.matrix[:, 2] for camera in views.cameras])
        across = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
        gathered = across.sum(axis=0)
        if len(eyes) < 2 or np.linalg.cond(gathered) > 1e6:
            raise DataError(
                f"{where}: expected cameras that look at a scene from several sides, got "
                f"{len(eyes)} with nearly parallel axes. Pass bounds=(low, high), the scene's box."
            )
        middle = np.linalg.solve(gathered, np.einsum("nij,nj->i", across, eyes))
        distances = np.linalg.norm(eyes - middle, axis=1)
        half = max(
            d * max(c.width / c.focal[0], c.height / c.focal[1]) / 2
            for d, c in zip(distances, views.cameras, strict=True)
        )
        half = min(1.05 * float(half), 0.95 * float(distances.max()))
        x, y, z = middle.tolist()
        return cls((x, y, z), 1.0 / half)

    @classmethod
    def of_bounds(cls, bounds: Any, where: str) -> Frame:
        """Return the smallest cube around a box ((x, y, z), (x, y, z))."""
        try:
            low, high = np.asarray(bounds, np.float64).reshape(2, 3)
        except (TypeError, ValueError):
            low = high = np.full(3, np.nan)
        if not (np.isfinite([low, high]).all() and (high > low).all()):
            raise DataError(
                f"{where}: expected bounds as ((x, y, z), (x, y, z)) with low < high, "
                f"got {bounds!r:.80}."
            )
        x, y, z = ((low + high) / 2).tolist()
        return cls((x, y, z), 2.0 / float((high - low).max()))


def places_of(
    preset: str, origins: Array, directions: Array, samples: Samples
) -> tuple[Array, Array]:
    """Return places (n, 3) of samples in coordinates, and their encoded directions."""
    ray = samples.ray
    o, d = origins.astype(np.float32), directions.astype(np.float32)
    places = o[ray]
    places += samples.distance[:, None] * d[ray]
    np.clip(places, -1, 1, out=places)
    return places, encode_directions(preset, directions)[ray]


def narrowed(
    occupancy: OccupancyGrid, origins: Array, directions: Array, near: Array, far: Array
) -> tuple[Array, Array]:
    """Return where rays first and last meet a cell that is taken; twice 0 of those that do not."""
    samples = occupancy.march(origins, directions, near, far, np.zeros(len(origins)))
    first, last = np.zeros(len(origins)), np.zeros(len(origins))
    if len(samples.ray):
        ray, at = np.unique(samples.ray, return_index=True)
        ends = np.append(at[1:], len(samples.ray)) - 1
        first[ray] = np.maximum(samples.distance[at] - STEP, near[ray])
        last[ray] = np.minimum(samples.distance[ends] + STEP, far[ray])
    return first, last


def hierarchical(
    density: Function,
    origins: Array,
    directions: Array,
    near: Array,
    far: Array,
    rng: np.random.Generator | None,
) -> tuple[Samples, Array]:
    """Return stratified samples and as many where those found most, and the lengths of all.

    Parameters
    ----------
    density : callable
        (n, 3) float32 to (n,).
    origins, directions, near, far
        Rays in coordinates.
    rng : Generator or None
        None: the middles of the strata.

    References
    ----------
    Mildenhall et al. (2020), section 5.2.
    """
    # DIFF(Mildenhall 2020, section 5.2): one network is asked twice, where the paper has one for
    # the first samples and another for all.
    n_rays = len(origins)
    offset = 0.5 if rng is None else rng.uniform(size=(n_rays, COARSE))
    span = (far - near)[:, None]
    coarse = near[:, None] + span * ((np.arange(COARSE) + offset) / COARSE)
    rays = np.arange(n_rays, dtype=np.int32)
    flat = Samples(np.repeat(rays, COARSE), coarse.ravel().astype(np.float32))
    places = origins[flat.ray] + flat.distance[:, None] * directions[flat.ray]
    optical = density(np.clip(places, -1, 1).astype(np.float32)) * (span / COARSE)[flat.ray, 0]
    dark = np.zeros((len(optical), 3))
    weights = render(optical, dark, flat.ray, n_rays, dark[:n_rays]).weights
    edges = near[:, None] + span * np.linspace(0, 1, COARSE + 1)
    fine = importance_samples(edges, weights.reshape(n_rays, COARSE), FINE, rng)
    together = np.sort(np.concatenate([coarse, fine], axis=1), axis=1)
    ends = np.concatenate([together[:, 1:], np.maximum(far[:, None], together[:, -1:])], axis=1)
    ray = np.repeat(rays, COARSE + FINE)
    return Samples(ray, together.ravel().astype(np.float32)), (ends - together).ravel()


@dataclass(frozen=True)
class Tracer:
    """What shows a scene: its networks as functions, and where it is empty.

    Attributes
    ----------
    preset : str
    trunk, colour : callable
        Places (n, 3) to (n, 1 + features); features and encoded directions to (n, 3).
    occupancy : OccupancyGrid
    frame : Frame
    """

    preset: str
    trunk: Function
    colour: Function
    occupancy: OccupancyGrid
    frame: Frame

    def picture(self, view: Camera, background: Array) -> tuple[Array, Array]:
        """Return colours (height, width, 3) in [0, 1], and depths (height, width) in the world."""
        origins, directions = view.all_rays()
        colours = np.empty((len(origins), 3))
        depths = np.empty(len(origins), np.float32)
        axis = -view.matrix[:, 2]
        for start in range(0, len(origins), RAYS_AT_ONCE):
            of = slice(start, start + RAYS_AT_ONCE)
            colours[of], along = self.see(origins[of], directions[of], background)
            depths[of] = along / self.frame.scale * (directions[of] @ axis)
        shape = (view.height, view.width)
        return np.clip(colours, 0, 1).reshape(*shape, 3), depths.reshape(shape)

    def see(self, origins: Array, directions: Array, background: Array) -> tuple[Array, Array]:
        """Return colours (n, 3) and distances in coordinates (n,) that rays of the world see."""
        rays = self.frame.rays(origins, directions)
        n_rays = len(origins)
        if self.preset == "classic":
            near, far = narrowed(self.occupancy, *rays)
            hit = np.flatnonzero(far > near)
            samples, lengths = hierarchical(
                lambda x: density_of(self.trunk(x)[:, 0]),
                rays[0][hit],
                rays[1][hit],
                near[hit],
                far[hit],
                None,
            )
            samples = Samples(hit[samples.ray].astype(np.int32), samples.distance)
        else:
            samples = self.occupancy.march(*rays, np.full(n_rays, 0.5))
            lengths = np.full(len(samples.ray), STEP)
        behind = np.broadcast_to(background, (n_rays, 3))
        depth = np.full(n_rays, np.inf)
        if not len(samples.ray):
            return np.array(behind), depth
        places, encoded = places_of(self.preset, rays[0], rays[1], samples)
        said = self.trunk(places)
        optical = density_of(said[:, 0]) * lengths
        colours = np.zeros((len(places), 3), np.float32)
        seen = render(optical, colours, samples.ray, n_rays, behind).weights > HIDDEN
        if seen.any():
            colours[seen] = self.colour(np.concatenate([said[seen, 1:], encoded[seen]], axis=1))
        shown = render(optical, colours, samples.ray, n_rays, behind)
        # The first sample behind which less than half of the light is left
        half = np.flatnonzero(shown.left < 0.5)
        ray, first = np.unique(samples.ray[half], return_index=True)
        depth[ray] = samples.distance[half[first]]
        return shown.colour, depth
