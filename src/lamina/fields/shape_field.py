"""ShapeField: a solid as its signed distance function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lamina.core.checks import as_matrix, check_choice, check_count, check_number
from lamina.core.engine import require_memory
from lamina.core.errors import DataError, SpecError
from lamina.fields.field import Field, Values
from lamina.fields.field_file import check_keys
from lamina.fields.fit import FieldReport, FitProgress, psnr_of
from lamina.fields.isosurface import isosurface
from lamina.fields.mesh import SIGNS, Mesh, surface_distances
from lamina.fields.mesh_file import as_mesh
from lamina.fields.shape import DEFAULT_PARAMS, ShapeForm, ShapeSignal
from lamina.fields.signal import Signal, centres
from lamina.fields.sphere_trace import trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Solid = Any  # a Mesh, (vertices, faces), trimesh's object, a path, or a file's content

_FORM_KEYS = {"scale", "shift", "n_vertices", "n_faces", "signs", "low", "high"}
MOST_RESOLUTION = 2048
MOST_PIXELS = 1 << 26
ERROR_ROWS = 100_000


@dataclass(frozen=True)
class ShapeErrors:
    """How far a field is from its mesh; lengths are shares of the box's longest side.

    Attributes
    ----------
    mean : float
        Mean absolute error of the distance at points in the whole of the box [-1, 1]^3.
    near : float
        The same at points near the surface (normal deviations of 1 % of half the box).
    signs : float
        Share of all these points, of those farther than 0.005 from the surface, on the right side.
    slope : float
        Mean of | |grad F| - 1 | near the surface.
    slope_within : float
        Share of points near the surface where |grad F| lies within 0.1 of 1.
    hausdorff : float
        95th percentile of the distances between the surfaces, both ways, of the box's diagonal.
    """

    mean: float
    near: float
    signs: float
    slope: float
    slope_within: float
    hausdorff: float


class ShapeField(Field):
    """A solid as a network from places to signed distances, negative inside.

    ``F(x, y, z)`` with places scaled so that the mesh's box lies in the middle of [-1, 1]^3, its
    longest side from -0.9 to 0.9; values are distances in the same unit, so that |grad F| is 1.
    `distance` takes places of the mesh's own and gives distances in its own unit.

    Parameters
    ----------
    preset, rng, n_threads
        See `Field`. "siren" where derivatives of higher order matter.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.fields import ShapeField
    >>> cube = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    >>> sides = [[0, 1, 3], [0, 3, 2], [4, 7, 5], [4, 6, 7], [0, 5, 1], [0, 4, 5],
    ...          [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
    >>> field = ShapeField(rng=0).fit((cube, sides), max_steps=150, n_params=20_000)
    >>> bool(abs(field.distance([[0.5, 0.5, 1.1]])[0] - 0.1) < 0.02)
    True
    >>> abs(field.render(32).volume - 1) < 0.05
    True
    """

    ROLE: ClassVar[str] = "shape_field"

    def __init__(
        self,
        preset: str = "hash",
        *,
        rng: int | np.random.Generator | None = None,
        n_threads: int | None = None,
    ) -> None:
        super().__init__(preset, rng=rng, n_threads=n_threads)
        self._form: ShapeForm | None = None

    def fit(
        self,
        signal: Solid,
        *,
        signs: str = "auto",
        max_seconds: float | None = None,
        max_steps: int | None = None,
        target_psnr: float | None = None,
        n_params: int | None = None,
        params_per_value: float | None = None,
        repeat: FieldReport | None = None,
        progress: Callable[[FitProgress], object] | None = None,
    ) -> Self:
        """Fit the field to a mesh.

        Parameters
        ----------
        signal : Mesh, (vertices, faces), an object with these two, a file or its content
            Places in any unit; triangles.
        signs : {"auto", "normals", "winding"}, default "auto"
            How inside is told from outside; see `SignedDistance`. "winding" for a mesh with holes.
        max_seconds, max_steps, target_psnr, repeat, progress
            See `ImageField.fit`.
        n_params : int, optional
            Parameters at most; 262,144 where neither this nor params_per_value is given.
        params_per_value : float > 0, optional
            The same in parameters a number of the mesh: three a vertex.

        Returns
        -------
        self
            After Ctrl-C too, with the best so far.

        Raises
        ------
        ShapeError, DataError, SpecError
            The mesh or an argument is not as described, or it has holes; the field is unchanged.
        DivergenceError
            The loss became infinite; the field is unchanged.

        Notes
        -----
        Values and gradients are learned together (`Sobolev`), at 2^19 points: most near the
        surface, the others in the whole box. Same seed, mesh, steps, threads and instruction set
        give the same bits.
        """
        if n_params is None and params_per_value is None:
            n_params = DEFAULT_PARAMS
        return self._fit(
            signal,
            max_seconds=max_seconds,
            max_steps=max_steps,
            target_psnr=target_psnr,
            repeat=repeat,
            n_params=n_params,
            params_per_value=params_per_value,
            progress=progress,
            signs=signs,
        )

    # --- what it is ------------------------------------------------------------------------------

    @property
    def form(self) -> ShapeForm:
        """Where the mesh that was fitted lies, and how large it was."""
        self.network  # noqa: B018  # raises where there is none
        assert self._form is not None  # noqa: S101
        return self._form

    def distance(self, places: npt.ArrayLike) -> Array:
        """Return signed distances in the mesh's own unit.

        Parameters
        ----------
        places : array-like (..., 3), finite
            In the mesh's own places. Outside of the box [-1, 1]^3 of coordinates the distance to
            the box is added, which is at most that much too large.

        Returns
        -------
        distances : float32 array (...)
        """
        form = self.form
        flat = np.asarray(places)
        shape = flat.shape[:-1]
        x = as_matrix(
            flat.reshape(-1, 3) if shape else flat, "places", "ShapeField.distance", 3, np.float64
        )
        x = x * form.scale + np.array(form.shift)
        inside = np.clip(x, -1, 1)
        values = self.network(inside.astype(np.float32))[:, 0] + np.linalg.norm(x - inside, axis=1)
        return np.asarray(values / form.scale, np.float32).reshape(shape)

    def render(self, resolution: int = 256, *, colours: bool = False) -> Mesh:
        """Return the surface as a mesh, by marching cubes, in the places of the fitted mesh.

        Parameters
        ----------
        resolution : int in [8, 2048], default 256
            Cells along a side of the box, which is 1.11 times the mesh's longest side.
        colours : bool, default False
            Colour vertices by the direction of their normals.

        Returns
        -------
        Mesh
            With normals by the field's exact gradient.

        Raises
        ------
        SpecError
            The resolution is not as described, or the field has no surface.
        """
        where = "ShapeField.render"
        n = check_count(resolution, "resolution", where, 8)
        if n > MOST_RESOLUTION:
            raise SpecError(
                f"{where}: expected a resolution of at most {MOST_RESOLUTION}, got {n}."
            )
        require_memory(400 * n * n)  # vertices, faces and normals of a surface of several n^2 cells
        network, form = self.network, self.form
        mesh = isosurface(network, n, where)
        normals = network.jacobian(mesh.vertices.astype(np.float32))[:, 0].astype(np.float64)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        tint = np.rint(127.5 * (normals + 1)).astype(np.uint8) if colours else None
        vertices = (mesh.vertices - np.array(form.shift)) / form.scale
        return Mesh(vertices, mesh.faces, normals, tint)

    def picture(
        self,
        height: int = 480,
        width: int = 640,
        *,
        azimuth: float = 30.0,
        elevation: float = 20.0,
    ) -> Array:
        """Return a shaded picture of the solid, uint8 (height, width, 4), by sphere tracing.

        Parameters
        ----------
        height, width : int ≥ 1
        azimuth, elevation : float
            Degrees around the y axis, and above the xz plane; 0, 0 looks along -z.
        """
        where = "ShapeField.picture"
        height, width = check_count(height, "height", where), check_count(width, "width", where)
        if height * width > MOST_PIXELS:
            raise SpecError(
                f"{where}: expected at most {MOST_PIXELS:,} pixels, got {height * width:,}."
            )
        angles = (
            check_number(azimuth, "azimuth", where),
            check_number(elevation, "elevation", where),
        )
        require_memory(200 * height * width)
        network = self.network
        return trace(network, network.jacobian, height, width, *angles)

    def slice(self, axis: str = "z", at: float = 0.0, size: int = 256) -> Array:
        """Return the field on a plane across one axis, float32 (size, size).

        Parameters
        ----------
        axis : {"x", "y", "z"}
        at : float in [-1, 1]
            The plane's coordinate.
        size : int

        Returns
        -------
        values : float32 array (size, size)
            The first of the other two axes runs to the right, the second down.
        """
        where = "ShapeField.slice"
        across = "xyz".index(check_choice(axis, ("x", "y", "z"), "axis", where))
        n = check_count(size, "size", where)
        at = check_number(at, "at", where, -1.0, 1.0)
        require_memory(64 * n * n)
        line = centres(n)
        down, right = np.meshgrid(line, line, indexing="ij")
        planes: list[Array] = [right, down]
        planes.insert(across, np.full_like(right, at))
        return self.network(np.stack(planes, -1).reshape(-1, 3)).reshape(n, n)

    def psnr(self, signal: Solid, *, signs: str = "auto") -> float:
        """Return 10 log10(1.8^2 / mean squared error of the distance), in dB.

        1.8 is the mesh's longest side in coordinates. Measured at 65,536 points, most of them
        near the surface.

        Raises
        ------
        ShapeError, DataError
            As for `fit`.
        """
        return self._score(self.network, self._signal(signal, "ShapeField.psnr", signs=signs))

    def errors(
        self, signal: Solid, *, signs: str = "auto", resolution: int = 256, rng: int = 0
    ) -> ShapeErrors:
        """Measure the field against the mesh: distances, signs, slopes, and the two surfaces.

        Parameters
        ----------
        signal : as for `fit`
        signs : str
        resolution : int
            Of the marching cubes whose surface is compared.
        rng : int
            Seed of the 100,000 points of each kind.
        """
        where = "ShapeField.errors"
        checked = self._signal(signal, where, signs=signs)
        draw = np.random.default_rng([rng, 6])
        side = checked.peak
        anywhere = draw.uniform(-1, 1, (ERROR_ROWS, 3))
        near = checked.mesh.sample(ERROR_ROWS, draw) + draw.normal(scale=0.01, size=(ERROR_ROWS, 3))
        points = np.concatenate([anywhere, np.clip(near, -1, 1)]).astype(np.float32)
        true = checked.distance(points)[0]
        ours = self.network(points)[:, 0].astype(np.float64)
        error = np.abs(ours - true) / side
        far = np.abs(true) > 0.005 * side
        slope = np.linalg.norm(self.network.jacobian(points[ERROR_ROWS:])[:, 0], axis=1)
        gap = surface_distances(
            checked.mesh, isosurface(self.network, resolution, where), ERROR_ROWS, draw
        )
        return ShapeErrors(
            mean=float(error[:ERROR_ROWS].mean()),
            near=float(error[ERROR_ROWS:].mean()),
            signs=float(((ours < 0) == (true < 0))[far].mean()),
            slope=float(np.abs(slope - 1).mean()),
            slope_within=float((np.abs(slope - 1) < 0.1).mean()),
            hausdorff=float(np.quantile(gap, 0.95, axis=1).max() / checked.form.diagonal),
        )

    def plot(self, signal: Solid, *, signs: str = "auto") -> Figure:
        """Return a contact sheet: pictures of mesh and field, the error between, and a slice.

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from lamina.plots.shapes import plot_shape_field

        checked = self._signal(signal, "ShapeField.plot", signs=signs)
        network = self.network
        mesh = isosurface(network, 160, "ShapeField.plot")
        off = np.abs(checked.distance(mesh.vertices)[0]) / checked.form.diagonal
        size = 200
        line = centres(size)
        down, right = np.meshgrid(-line, line, indexing="ij")
        plane = np.stack([right, down, np.zeros_like(right)], -1).reshape(-1, 3)
        slices = [
            a.reshape(size, size)
            for a in (checked.distance(plane)[0], network(plane)[:, 0].astype(np.float64))
        ]
        return plot_shape_field(
            trace(
                lambda x: checked.distance(x)[0][:, None],
                lambda x: checked.distance(x)[1][:, None],
                300,
                300,
                30.0,
                20.0,
            ),
            trace(network, network.jacobian, 300, 300, 30.0, 20.0),
            off,
            slices,
            title=f"{self.preset}, {self.n_params:,} parameters, {len(checked.mesh.faces):,} faces",
            psnr=self._score(network, checked),
        )

    # --- what Field asks -------------------------------------------------------------------------

    def _signal(self, signal: Any, where: str, signs: str = "auto") -> ShapeSignal:
        check_choice(signs, SIGNS, "signs", where)
        return ShapeSignal(as_mesh(signal, where), signs, where)

    def _score(self, values: Values, signal: Signal) -> float:
        assert isinstance(signal, ShapeSignal)  # noqa: S101
        points, distance = signal.probe()
        error = values(points)[:, 0].astype(np.float64) - distance
        return psnr_of(float(np.mean(error**2)), signal.peak)

    def _describe(self, signal: Signal) -> None:
        assert isinstance(signal, ShapeSignal)  # noqa: S101
        self._form = signal.form

    def _meta(self) -> dict[str, Any]:
        form = self.form
        told = {name: getattr(form, name) for name in sorted(_FORM_KEYS)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in told.items()}

    def _set_meta(self, meta: Mapping[str, Any]) -> None:
        where = "ShapeField"
        check_keys(meta, _FORM_KEYS, where)
        counts = {name: check_count(meta[name], name, where) for name in ("n_vertices", "n_faces")}
        places = {}
        for name in ("shift", "low", "high"):
            if not isinstance(meta[name], list) or len(meta[name]) != 3:
                raise DataError(f"{where}: expected {name} as 3 numbers, got {meta[name]!r:.60}.")
            places[name] = tuple(check_number(v, name, where) for v in meta[name])
        scale = check_number(meta["scale"], "scale", where, 0.0)
        if scale == 0.0:
            raise DataError(f"{where}: expected a scale above 0, got 0.")
        signs = check_choice(meta["signs"], SIGNS[1:], "signs", where)
        self._form = ShapeForm(scale=scale, signs=signs, **counts, **places)  # type: ignore[arg-type]

    def _check_network(self, d_in: int, d_out: int) -> None:
        if (d_in, d_out) != (3, 1):
            raise SpecError(
                f"ShapeField: expected a network of 3 coordinates and 1 distance, got {d_in} and "
                f"{d_out}."
            )
