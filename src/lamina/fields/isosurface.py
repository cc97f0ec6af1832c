"""The surface where a function of space is zero, as a mesh: marching cubes, only near it.

Lorensen & Cline (1987), in the form of Lewiner et al. (2003), by scikit-image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import SpecError, require_extra
from lamina.fields.mesh import Mesh

Array = npt.NDArray[Any]

CELLS: Final = 32  # of a block, along an axis
# How much faster than a distance the function may change: a block whose middle is farther from
# zero than this many times half its diagonal is passed over
LIPSCHITZ: Final = 2.0
BLOCKS_AT_ONCE: Final = 8


def isosurface(function: Callable[[Array], Array], resolution: int, where: str) -> Mesh:
    """Return the zero level of a function on [-1, 1]^3 that is about a distance.

    Parameters
    ----------
    function : callable
        (n, 3) float32 to (n, 1).
    resolution : int
        Cells along an axis.
    where : str

    Returns
    -------
    Mesh
        Vertices in [-1, 1]^3, faces counter-clockwise seen from where the function is positive.

    Raises
    ------
    SpecError
        There is no such surface in the box.

    Notes
    -----
    Blocks of 32^3 cells: those that the surface cannot reach are never looked at, so that the
    memory grows as the square of the resolution.
    """
    measure: Any = require_extra("skimage.measure", "fields")
    n_blocks = -(-resolution // CELLS)
    step = 2.0 / resolution
    corner = np.stack(np.meshgrid(*(np.arange(n_blocks),) * 3, indexing="ij"), -1).reshape(-1, 3)
    middles = -1 + step * (corner + 0.5) * CELLS
    reach = LIPSCHITZ * np.sqrt(3.0) / 2 * CELLS * step
    distances = function(np.minimum(middles, 1).astype(np.float32))[:, 0]
    corner = corner[np.abs(distances) <= reach]
    vertices, faces, count = [], [], 0
    for start in range(0, len(corner), BLOCKS_AT_ONCE):
        some = corner[start : start + BLOCKS_AT_ONCE]
        for block, values in zip(some, _values(function, some, resolution, step), strict=True):
            if values.min() >= 0 or values.max() < 0:
                continue
            # Where exactly zero stands at a corner, marching cubes leaves slits
            values[values == 0] = np.finfo(np.float32).tiny
            found, triangles, _, _ = measure.marching_cubes(
                values, 0.0, gradient_direction="descent", allow_degenerate=False
            )
            # A vertex on the wall of two blocks has the same bits in both
            vertices.append(found.astype(np.float64) + block * CELLS)
            faces.append(triangles.astype(np.int64) + count)
            count += len(found)
    if not vertices:
        raise SpecError(
            f"{where}: expected a field that is zero somewhere, got one without a surface in "
            "[-1, 1]^3. Fit it longer, or raise the resolution."
        )
    places, of = np.unique(np.concatenate(vertices), axis=0, return_inverse=True)
    joined = of.ravel()[np.concatenate(faces)]
    whole = (joined[:, 0] != joined[:, 1]) & (joined[:, 1] != joined[:, 2])
    whole &= joined[:, 2] != joined[:, 0]
    return Mesh(places * step - 1, joined[whole])


def _values(
    function: Callable[[Array], Array], blocks: Array, resolution: int, step: float
) -> list[Array]:
    """Return the function at the corners of the cells of some blocks."""
    points, shapes = [], []
    for block in blocks:
        first = block * CELLS
        sizes = np.minimum(CELLS, resolution - first) + 1
        axes = [(f + np.arange(n)) * step - 1 for f, n in zip(first, sizes, strict=True)]
        points.append(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))
        shapes.append(tuple(sizes))
    values = function(np.concatenate(points).astype(np.float32))[:, 0]
    parts = np.split(values, np.cumsum([len(p) for p in points])[:-1])
    return [part.reshape(shape).copy() for part, shape in zip(parts, shapes, strict=True)]
