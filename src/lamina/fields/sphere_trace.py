"""Pictures of a distance field: rays that step as far as nothing can be (Hart 1996)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

STEPS: Final = 96
# A step is this share of the distance, as a learned one may be too long
CARE: Final = 0.9
NEAR_ENOUGH: Final = 5e-4
LEAVES: Final = 1.75  # farther from the middle than the corners of the box
EYE: Final = 3.2  # from the middle
VIEW: Final = 0.45  # tangent of half the angle across the shorter side
SHADE: Final = np.array([0.62, 0.72, 0.86])  # of the surface


def eye_axes(azimuth: float, elevation: float) -> tuple[Array, Array, Array, Array]:
    """Return where the eye stands and its axes right, up, ahead; angles in degrees, y is up."""
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    return EYE * back, right, np.cross(back, right), -back


def trace(
    function: Callable[[Array], Array],
    gradient: Callable[[Array], Array],
    height: int,
    width: int,
    azimuth: float,
    elevation: float,
) -> Array:
    """Return a shaded picture, uint8 (height, width, 4), transparent where nothing is hit.

    Parameters
    ----------
    function, gradient : callable
        (n, 3) float32 to (n, 1), and to (n, 1, 3).
    height, width : int
    azimuth, elevation : float
        Degrees: 0, 0 looks along -z, with y up.
    """
    eye, right, up, ahead = eye_axes(azimuth, elevation)
    scale = VIEW / min(height, width)
    across = (2 * np.arange(width) + 1 - width) * scale
    down = (2 * np.arange(height) + 1 - height) * scale
    rays = ahead + across[None, :, None] * right - down[:, None, None] * up
    rays = rays.reshape(-1, 3) / np.linalg.norm(rays, axis=-1).reshape(-1, 1)
    travelled = np.full(len(rays), EYE - LEAVES)
    hit = np.zeros(len(rays), bool)
    alive = np.arange(len(rays))
    for _ in range(STEPS):
        places = eye + travelled[alive, None] * rays[alive]
        inside = np.clip(places, -1, 1)
        # Beyond the box the field is not known: the way to it, and what it says there
        beyond = np.linalg.norm(places - inside, axis=1)
        distance = function(inside.astype(np.float32))[:, 0] + beyond
        reached = (distance < NEAR_ENOUGH) & (beyond == 0)
        hit[alive[reached]] = True
        travelled[alive] += np.where(reached, 0.0, CARE * np.maximum(distance, NEAR_ENOUGH))
        alive = alive[~reached & (travelled[alive] < EYE + LEAVES)]
        if not len(alive):
            break
    picture = np.zeros((len(rays), 4))
    places = eye + travelled[hit, None] * rays[hit]
    if len(places):
        normal = gradient(places.astype(np.float32))[:, 0].astype(np.float64)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        lit = np.clip(normal @ _unit(0.5 * right + 0.8 * up - 0.6 * ahead), 0, 1)
        rim = np.clip(normal @ -ahead, 0, 1)
        shine = np.clip(normal @ _unit(0.3 * right + 0.5 * up - ahead), 0, 1) ** 40
        tone = (0.18 + 0.72 * lit + 0.18 * rim)[:, None] * SHADE + 0.25 * shine[:, None]
        picture[hit, :3], picture[hit, 3] = np.clip(tone, 0, 1), 1
    return np.rint(255 * picture).astype(np.uint8).reshape(height, width, 4)


def _unit(v: Array) -> Array:
    return np.asarray(v / np.linalg.norm(v))
