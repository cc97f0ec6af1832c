"""Triangle meshes: what is checked of them, and exact signed distances to them, by libigl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError, ShapeError, require_extra

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

SIGNS: Final = ("auto", "normals", "winding")
COMPARED_ROWS: Final = 20_000  # points at which two ways to tell inside from outside are compared
COMPARED_SCALE: Final = 0.01  # how far they lie from the surface, of the longest side


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes
    ----------
    vertices : float64 array (n_vertices, 3)
    faces : int64 array (n_faces, 3)
        Indices of vertices, counter-clockwise as seen from outside.
    normals : float64 array (n_vertices, 3) or None
        Of length 1, pointing outward, where they are known.
    colours : uint8 array (n_vertices, 3) or None
    """

    vertices: Float64
    faces: Int64
    normals: Float64 | None = None
    colours: npt.NDArray[np.uint8] | None = None

    @property
    def bounds(self) -> tuple[Float64, Float64]:
        """The corners (3,), (3,) of the smallest box, along the axes, around all faces."""
        used = self.vertices[np.unique(self.faces)]
        return used.min(axis=0), used.max(axis=0)

    @property
    def volume(self) -> float:
        """The volume enclosed, by the divergence theorem: negative of a mesh turned inside out."""
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0)

    def sample(self, n: int, rng: np.random.Generator) -> Float64:
        """Return n points (n, 3) drawn uniformly from the surface."""
        corner, *others = (self.vertices[self.faces[:, i]] for i in range(3))
        u, v = (other - corner for other in others)
        areas = np.linalg.norm(np.cross(u, v), axis=1)
        chosen = rng.choice(len(areas), size=n, p=areas / areas.sum())
        s, t = rng.uniform(size=(2, n, 1))
        s, t = np.where(s + t > 1, 1 - s, s), np.where(s + t > 1, 1 - t, t)
        return np.asarray(corner[chosen] + s * u[chosen] + t * v[chosen])

    def transformed(self, scale: float, shift: Array) -> Mesh:
        """Return the mesh with vertices scale * v + shift."""
        return Mesh(self.vertices * scale + shift, self.faces, self.normals, self.colours)


def check_mesh(vertices: Any, faces: Any, where: str) -> Mesh:
    """Return a mesh without degenerate and double faces, its vertices merged.

    Raises
    ------
    ShapeError, DataError
        The arrays are not a mesh, or no triangles are left.
    """
    v, f = np.asarray(vertices), np.asarray(faces)
    if v.ndim != 2 or v.shape[1] != 3 or v.dtype.kind not in "fiu":
        raise ShapeError(
            f"{where}: expected vertices as numbers of shape (n, 3), got {v.dtype} {v.shape}."
        )
    if f.ndim != 2 or f.shape[1] != 3 or (f.size and f.dtype.kind not in "iu"):
        raise ShapeError(
            f"{where}: expected faces as whole numbers of shape (n, 3), got {f.dtype} {f.shape}. "
            "Cut other polygons into triangles."
        )
    v, f = v.astype(np.float64), f.astype(np.int64)
    if f.size and (f.min() < 0 or f.max() >= len(v)):
        raise DataError(
            f"{where}: expected faces that name vertices 0 to {len(v) - 1}, "
            f"got {f.min()} to {f.max()}."
        )
    if not np.isfinite(v[f]).all():
        raise DataError(f"{where}: expected finite vertices, got NaN or infinity in some.")
    # The same place may have several numbers (an STL file is a soup of triangles), and +0 is -0
    used = np.unique(f)
    places, of_used = np.unique(v[used] + 0.0, axis=0, return_inverse=True)
    renumbered = np.zeros(len(v), np.int64)
    renumbered[used] = of_used.ravel()
    f = renumbered[f]
    a, b, c = (places[f[:, i]] for i in range(3)) if f.size else (np.empty((0, 3)),) * 3
    f = f[np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0]
    _, first = np.unique(np.sort(f, axis=1), axis=0, return_index=True)
    f = f[np.sort(first)]
    if not len(f):
        raise DataError(f"{where}: expected a mesh with triangles, got none that has an area.")
    return Mesh(places, f)


def open_edges(faces: Int64) -> int:
    """Return how many edges have a face on one side only: 0 of a closed mesh."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    return int((counts % 2).sum())


def oriented(mesh: Mesh) -> Mesh:
    """Return the mesh with neighbouring faces turned the same way, and their outside out."""
    igl: Any = require_extra("igl", "fields")
    faces = mesh.faces
    ordered = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    if len(np.unique(ordered, axis=0)) < len(ordered):  # an edge that two faces run along alike
        faces = np.asarray(igl.bfs_orient(faces)[0], np.int64)
    turned = Mesh(mesh.vertices, faces, mesh.normals, mesh.colours)
    if turned.volume < 0:
        turned = Mesh(mesh.vertices, faces[:, ::-1].copy(), mesh.normals, mesh.colours)
    return turned


class SignedDistance:
    """Exact signed distances to a mesh, negative inside.

    Parameters
    ----------
    mesh : Mesh
    signs : {"auto", "normals", "winding"}
        How inside is told from outside. "normals": by the normal of the nearest face, edge or
        corner (Bærentzen & Aanæs 2005), which needs a closed mesh that does not cut through
        itself. "winding": where the generalised winding number is above one half (Jacobson et
        al. 2013; its fast form, Barill et al. 2018), for meshes with holes and those that cut
        through themselves. "auto": normals, unless they disagree with winding numbers anywhere
        near the surface.
    where : str

    Raises
    ------
    DataError
        The mesh has holes and signs is not "winding".
    MissingExtraError
        libigl is not installed.
    """

    def __init__(self, mesh: Mesh, signs: str, where: str) -> None:
        self._igl: Any = require_extra("igl", "fields")
        holes = open_edges(mesh.faces)
        if holes and signs != "winding":
            raise DataError(
                f"{where}: expected a closed mesh, got one with {holes:,} open edges. Pass "
                "signs='winding' (--signs winding), which takes the inside from winding numbers, "
                "or close it."
            )
        self.mesh = oriented(mesh)
        self.signs = "normals" if signs == "auto" else signs
        if signs == "auto":
            low, high = self.mesh.bounds
            rng = np.random.default_rng(0)
            spread = COMPARED_SCALE * float((high - low).max())
            points = self.mesh.sample(COMPARED_ROWS, rng)
            points += rng.normal(scale=spread, size=points.shape)
            by_normals = self(points)[0]
            self.signs = "winding"
            if np.array_equal(by_normals < 0, self(points)[0] < 0):
                self.signs = "normals"

    def __call__(self, points: Array) -> tuple[Float64, Float64]:
        """Return distances (n,) and their gradients (n, 3), of length 1, at points (n, 3)."""
        x = np.ascontiguousarray(points, np.float64)
        vertices, faces = self.mesh.vertices, self.mesh.faces
        if self.signs == "normals":
            kind = self._igl.SignedDistanceType.SIGNED_DISTANCE_TYPE_PSEUDONORMAL
            distance, face, nearest, _ = self._igl.signed_distance(
                x, vertices, faces, sign_type=kind
            )
        else:  # apart, as libigl's own combination measures distances in float32
            square, face, nearest = self._igl.point_mesh_squared_distance(x, vertices, faces)
            winding = self._igl.fast_winding_number(vertices, faces, x)
            distance = np.where(winding > 0.5, -1.0, 1.0) * np.sqrt(square)
        offset = x - nearest
        far = np.abs(distance) > 1e-6 * float(np.abs(vertices).max())
        gradient = np.divide(offset, distance[:, None], where=far[:, None], out=np.zeros_like(x))
        # On the surface the offset has no direction: the face's own normal
        a, b, c = (vertices[faces[face[~far], i]] for i in range(3))
        normal = np.cross(b - a, c - a)
        gradient[~far] = normal / np.linalg.norm(normal, axis=1, keepdims=True)
        return np.asarray(distance, np.float64), gradient


def surface_distances(a: Mesh, b: Mesh, n: int, rng: np.random.Generator) -> Float64:
    """Return distances (2, n): of points of a's surface to b, and of b's to a."""
    igl: Any = require_extra("igl", "fields")
    found = [
        np.sqrt(igl.point_mesh_squared_distance(one.sample(n, rng), other.vertices, other.faces)[0])
        for one, other in ((a, b), (b, a))
    ]
    return np.stack(found)
