"""A shape as a signal: signed distances to a mesh, at points drawn near it and in its box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.derivative_losses import Sobolev
from lamina.fields.mesh import Mesh, SignedDistance
from lamina.fields.signal import Float32, Signal

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

FILL: Final = 0.9  # the longest side goes from -FILL to FILL
RESOLUTION: Final = 220  # samples that a grid of the same detail would have along a side
POOL_ROWS: Final = 1 << 19  # points that are measured, in the first rounds, and then used again
# Of the points: share, and how far they lie from the surface (a normal deviation; the rest of
# them anywhere in the box)
NEAR: Final = ((0.5, 0.01), (0.25, 0.05))
SPREAD: Final = 0.1  # what distances are divided by in training
GRADIENT_WEIGHT: Final = 0.01
SCORED_ROWS: Final = 1 << 16
DEFAULT_PARAMS: Final = 1 << 18


@dataclass(frozen=True)
class ShapeForm:
    """Where a shape lies: coordinates are scale * places + shift.

    Attributes
    ----------
    scale : float
    shift : tuple of 3 floats
    n_vertices, n_faces : int
        Of the mesh that was fitted.
    signs : str
        How its inside was told: "normals" or "winding".
    low, high : tuple of 3 floats
        The corners of the mesh's box, in its own places.
    """

    scale: float
    shift: tuple[float, float, float]
    n_vertices: int
    n_faces: int
    signs: str
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @classmethod
    def of(cls, mesh: Mesh, signs: str) -> ShapeForm:
        """Return the form of a mesh: its box in the middle, the longest side 2 FILL long."""
        low, high = mesh.bounds
        scale = 2 * FILL / float((high - low).max())
        shift = tuple((-scale * (low + high) / 2).tolist())
        corners = tuple(low.tolist()), tuple(high.tolist())
        return cls(scale, shift, len(mesh.vertices), len(mesh.faces), signs, *corners)

    @property
    def diagonal(self) -> float:
        """Length of the box's diagonal, in coordinates."""
        return float(self.scale * np.linalg.norm(np.subtract(self.high, self.low)))


class ShapeSignal(Signal):
    """Signed distances to a mesh that lies in [-1, 1]^3.

    Its rows are made on the way: each of the first rounds measures fresh points, and later ones
    take these again.

    Parameters
    ----------
    mesh : Mesh
        In its own places.
    signs : {"auto", "normals", "winding"}
    where : str
    """

    def __init__(self, mesh: Mesh, signs: str, where: str) -> None:
        super().__init__()
        form = ShapeForm.of(mesh, signs)
        moved = mesh.transformed(form.scale, np.array(form.shift))
        self.distance = SignedDistance(moved, signs, where)
        self.form = ShapeForm.of(mesh, self.distance.signs)
        self.mesh = self.distance.mesh
        self.d_in, self.d_out = 3, 1
        self.n_rows = POOL_ROWS
        self.n_values = 3 * len(mesh.vertices)
        self.resolution = (RESOLUTION,) * 3
        self.peak = 2 * FILL
        self.loss = Sobolev(GRADIENT_WEIGHT)
        self.is_smooth = True
        self._rounds: dict[int, tuple[Float32, Float32]] = {}
        self._scored: tuple[Float32, Float64] | None = None

    def points(self, n: int, rng: np.random.Generator) -> Float32:
        """Return n points (n, 3): most of them near the surface, the others in the box."""
        parts, left = [], n
        for share, scale in NEAR:
            k = int(share * n)
            parts.append(self.mesh.sample(k, rng) + rng.normal(scale=scale, size=(k, 3)))
            left -= k
        parts.append(rng.uniform(-1, 1, (left, 3)))
        return np.clip(np.concatenate(parts), -1, 1).astype(np.float32)

    def statistics(self) -> tuple[Array, float]:
        """Return what values are standardised by: fixed, as distances have a natural unit."""
        return np.zeros(1), SPREAD

    def draw(self, k: int, size: int, seed: int) -> tuple[Float32, Float32]:
        """Return points and (distance, gradient) / SPREAD for training round k, in random order."""
        n_rounds = -(-self.n_rows // size)
        which = k % n_rounds
        if which not in self._rounds:
            rng = np.random.default_rng([seed, 4, which])
            points = self.points(size, rng)[rng.permutation(size)]
            distance, gradient = self.distance(points)
            target = np.concatenate([distance[:, None], gradient], axis=1) / SPREAD
            self._rounds[which] = points, target.astype(np.float32)
        return self._rounds[which]

    def probe(self) -> tuple[Float32, Float64]:
        """Return the points (n, 3) and distances (n,) that PSNR is measured on."""
        if self._scored is None:
            points = self.points(SCORED_ROWS, np.random.default_rng(5))
            self._scored = points, self.distance(points)[0]
        return self._scored

    def blocks(self) -> Iterator[tuple[Float32, Float32]]:
        """Yield the points of `probe`."""
        points, distance = self.probe()
        yield points, distance.astype(np.float32)[:, None]

    def release(self) -> None:
        """Let go of the rounds' points."""
        self._rounds = {}
