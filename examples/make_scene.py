"""Make a set of posed pictures of a mesh: what `lamina encode transforms_train.json` learns from.

::

    python examples/make_scene.py --out scene                      a knot made here
    python examples/make_scene.py bunny.ply --out scene            a mesh of yours

Writes train/ and test/ (RGBA, PNG), transforms_train.json and transforms_test.json in the form of
Mildenhall et al. (2020), and test_depth.npz, the true distance along the optical axis. The surface
is shaded with ambient occlusion, a lamp and a highlight that moves with the eye; its colour changes
over the surface. Pictures are drawn with four samples a pixel. The same arguments give the same
files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import igl
import numpy as np
from PIL import Image

from lamina.fields import Mesh, read_mesh

Array = np.ndarray[Any, Any]
ANGLE_X = 0.6911  # of view, as in the sets of Mildenhall et al.
DISTANCE = 4.0
RADIUS = 1.15  # half of the mesh's diagonal
LAMP = np.array([0.5, 0.6, 0.8]) / np.linalg.norm([0.5, 0.6, 0.8])
OCCLUSION_RAYS = 96
FINER = 2  # samples along a pixel's side
MOST_PIECES = 1 << 21  # pixels of triangles looked at together


def knot(n_along: int = 600, n_around: int = 48) -> Mesh:
    """Return a closed tube along the (2, 3) torus knot."""
    t = 2 * np.pi * np.arange(n_along) / n_along
    middle = np.stack(
        [(2 + np.cos(3 * t)) * np.cos(2 * t), (2 + np.cos(3 * t)) * np.sin(2 * t), np.sin(3 * t)], 1
    )
    along = np.roll(middle, -1, 0) - np.roll(middle, 1, 0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, along)
    a = 2 * np.pi * np.arange(n_around) / n_around
    ring = np.cos(a)[:, None] * side[:, None] + np.sin(a)[:, None] * up[:, None]
    vertices = (middle[:, None] + 0.55 * ring).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n_along), np.arange(n_around), indexing="ij")
    k, m = (i + 1) % n_along, (j + 1) % n_around
    corner = [np.ravel(u * n_around + v) for u, v in ((i, j), (k, j), (k, m), (i, m))]
    faces = np.concatenate([np.stack([corner[p] for p in q], 1) for q in ((0, 1, 2), (0, 2, 3))])
    return Mesh(vertices, faces)


class Painted:
    """A mesh with normals, occlusion and a colour at every vertex."""

    def __init__(self, mesh: Mesh) -> None:
        low, high = mesh.bounds
        scale = 2 * RADIUS / np.linalg.norm(high - low)
        self.vertices = (mesh.vertices - (low + high) / 2) * scale
        self.faces = mesh.faces
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        across = np.cross(b - a, c - a)
        self.normals = np.zeros_like(self.vertices)
        for i in range(3):
            np.add.at(self.normals, self.faces[:, i], across)
        self.normals /= np.maximum(np.linalg.norm(self.normals, axis=1, keepdims=True), 1e-12)
        shifted = self.vertices + 1e-4 * self.normals
        hidden = igl.ambient_occlusion(
            self.vertices, self.faces, shifted, self.normals, OCCLUSION_RAYS
        )
        self.open = 1.0 - np.asarray(hidden)
        x, y, z = 3.0 * self.vertices.T
        waves = np.stack([np.sin(2 * x + y), np.sin(2 * y + z + 2), np.sin(2 * z + x + 4)], axis=1)
        self.colours = 0.55 + 0.3 * waves

    def shade(self, face: Array, weights: Array, eye: Array) -> Array:
        """Return colours (n, 3) in [0, 1] of places on faces, seen from `eye`."""

        def at(values: Array) -> Array:
            return np.einsum("ni,ni...->n...", weights, values[self.faces[face]])

        normal, place = at(self.normals), at(self.vertices)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        to_eye = eye - place
        to_eye /= np.linalg.norm(to_eye, axis=1, keepdims=True)
        half = to_eye + LAMP
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        is_open = at(self.open)[:, None]
        lit = np.clip(normal @ LAMP, 0, 1)[:, None] * is_open**0.5
        shine = np.clip(np.einsum("ij,ij->i", normal, half), 0, 1)[:, None] ** 24
        colour = at(self.colours) * (0.35 * is_open + 0.65 * lit) + 0.3 * shine * lit
        return np.clip(colour, 0, 1)


def pose(eye: Array) -> Array:
    """Return the matrix from camera (x right, y up, looking along -z) to world, z up."""
    back = eye / np.linalg.norm(eye)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(back, right), back, eye], axis=1)
    return matrix


def draw(scene: Painted, matrix: Array, size: int) -> tuple[Array, Array]:
    """Return a picture, uint8 (size, size, 4), and depths (size, size), 0 where nothing is."""
    n = size * FINER
    focal = 0.5 * n / np.tan(0.5 * ANGLE_X)
    camera = (scene.vertices - matrix[:3, 3]) @ matrix[:3, :3]
    depth = -camera[:, 2]
    screen = np.stack(
        [n / 2 + focal * camera[:, 0] / depth, n / 2 - focal * camera[:, 1] / depth], 1
    )
    corners, depths = screen[scene.faces], depth[scene.faces]
    nearest, owner, weights = _rasterise(corners, depths, n)
    seen = owner >= 0
    picture = np.zeros((n * n, 4))
    picture[seen, :3] = scene.shade(owner[seen], weights[seen], matrix[:3, 3])
    picture[seen, 3] = 1
    parts = picture.reshape(size, FINER, size, FINER, 4)
    alpha = parts[..., 3].mean(axis=(1, 3))
    colour = (parts[..., :3] * parts[..., 3:]).sum(axis=(1, 3)) / FINER**2
    colour /= np.maximum(alpha, 1e-9)[..., None]
    pixels = np.rint(255 * np.concatenate([colour, alpha[..., None]], axis=2)).astype(np.uint8)
    z = np.where(seen, nearest, 0).reshape(size, FINER, size, FINER)
    count = seen.reshape(size, FINER, size, FINER).sum(axis=(1, 3))
    whole = count == FINER**2
    return pixels, np.where(whole, z.sum(axis=(1, 3)) / FINER**2, 0).astype(np.float32)


def _rasterise(corners: Array, depths: Array, n: int) -> tuple[Array, Array, Array]:
    """Return depth, face and weights of the nearest face at every pixel's middle (n * n)."""
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, n - 1).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5), -1, n - 1).astype(np.int64)
    sizes = np.maximum(high - low + 1, 0)
    counts = sizes.prod(axis=1)
    nearest, owner = np.full(n * n, np.inf), np.full(n * n, -1)
    weights = np.zeros((n * n, 3))
    order = np.flatnonzero(counts)
    ends = np.cumsum(counts[order])
    start = 0
    while start < len(order):
        base = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, base + MOST_PIECES)))
        some = order[start:stop]
        start = stop
        face = np.repeat(some, counts[some])
        place = np.arange(len(face)) - np.repeat(
            np.cumsum(counts[some]) - counts[some], counts[some]
        )
        column = low[face, 0] + place % sizes[face, 0]
        row = low[face, 1] + place // sizes[face, 0]
        middle = np.stack([column + 0.5, row + 0.5], axis=1)
        a, b, c = (corners[face, i] - middle for i in range(3))
        areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
        total = areas.sum(axis=1)
        inside = (areas >= 0).all(axis=1) & (total > 0) | (areas <= 0).all(axis=1) & (total < 0)
        face, pixel = face[inside], (row * n + column)[inside]
        share = areas[inside] / total[inside][:, None] / depths[face]  # in space, not on the screen
        z = 1.0 / share.sum(axis=1)
        share *= z[:, None]
        first = np.lexsort((z, pixel))
        first = first[np.concatenate([[True], np.diff(pixel[first]) > 0])] if len(first) else first
        better = first[z[first] < nearest[pixel[first]]]
        nearest[pixel[better]], owner[pixel[better]] = z[better], face[better]
        weights[pixel[better]] = share[better]
    return nearest, owner, weights


def _cross(u: Array, v: Array) -> Array:
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]


def eyes(n: int, rng: np.random.Generator) -> Array:
    """Return n places on a sphere around the mesh, spread evenly; none straight above or below."""
    k = np.arange(n) + 0.5
    z = np.clip(1 - 2 * k / n, -0.95, 0.95)
    around = 2 * np.pi * 0.618034 * k + rng.uniform(0, 2 * np.pi)
    flat = np.sqrt(1 - z**2)
    return DISTANCE * np.stack([flat * np.cos(around), flat * np.sin(around), z], axis=1)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.argument("mesh", required=False, type=click.Path(exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option("--views", default=100, show_default=True, help="To learn from.")
@click.option("--held-out", default=20, show_default=True, help="To judge by.")
@click.option("--size", default=200, show_default=True, help="Pixels along a side.")
def main(mesh: str | None, out: Path, views: int, held_out: int, size: int) -> None:
    """Draw both sets."""
    scene = Painted(knot() if mesh is None else read_mesh(mesh))
    for name, count, seed in (("train", views, 0), ("test", held_out, 1)):
        (out / name).mkdir(parents=True, exist_ok=True)
        frames, depths = [], []
        for i, eye in enumerate(eyes(count, np.random.default_rng(seed))):
            matrix = pose(eye)
            pixels, depth = draw(scene, matrix, size)
            Image.fromarray(pixels).save(out / name / f"r_{i:03d}.png")
            frames.append({"file_path": f"./{name}/r_{i:03d}", "transform_matrix": matrix.tolist()})
            depths.append(depth)
        transforms = {"camera_angle_x": ANGLE_X, "frames": frames}
        (out / f"transforms_{name}.json").write_text(json.dumps(transforms, indent=1))
        if name == "test":
            np.savez_compressed(out / "test_depth.npz", depth=np.stack(depths))
        click.echo(f"{count} pictures in {out / name}")


if __name__ == "__main__":
    main()
