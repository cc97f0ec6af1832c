"""RadianceField: a scene as density and colour (NeRF)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lamina.core import modelfile
from lamina.core.checks import as_matrix, check_choice, check_count, check_number
from lamina.core.engine import require_memory
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.network import Network
from lamina.core.spec import NetworkSpec
from lamina.fields.cameras import Camera, as_views
from lamina.fields.field import Field
from lamina.fields.field_file import report_from, report_parts, with_coding, without_coding
from lamina.fields.fit import FieldReport, FitProgress, Limits, psnr_of
from lamina.fields.occupancy import CELLS, OccupancyGrid, inflated
from lamina.fields.radiance import PRESETS, density_of, encode_directions, networks
from lamina.fields.radiance_fit import DEFAULT_SECONDS, RadianceFitting
from lamina.fields.radiance_render import STEP, Frame, Tracer
from lamina.fields.recipe import budget

Array = npt.NDArray[Any]

DEFAULT_PARAMS = 1 << 20
LEAST_PARAMS = 1 << 13
MOST_PIXELS = 1 << 25


class RadianceField(Field):
    """A scene as two networks: density of a place, and its colour seen along a direction.

    ``field(places, directions)`` gives densities (per unit of coordinate) and colours; pictures are
    rendered by integrating both along rays (Mildenhall et al. 2020). Coordinates are those of the
    box [-1, 1]^3 around the scene; `frame` says where it lies in the cameras' world.

    Parameters
    ----------
    preset : {"hash", "classic"}, default "hash"
        "hash": a hash grid and small networks, with an occupancy grid (Müller et al. 2022).
        "classic": the whole scene is an MLP of eight layers of 256, with stratified and importance
        sampling (Mildenhall et al. 2020); hours where the other takes minutes.
    precision : {"float32", "bfloat16"}, default "float32"
        "bfloat16": the products of the first network, where the processor has it. It pays with
        "classic" only.
    rng, n_threads
        See `Field`.

    Examples
    --------
    >>> from lamina.fields import RadianceField, read_views
    >>> views = read_views("scene/transforms_train.json")  # doctest: +SKIP
    >>> field = RadianceField(rng=0).fit(views, max_seconds=120)  # doctest: +SKIP
    >>> picture = field.render(views.cameras[0])  # doctest: +SKIP
    """

    ROLE: ClassVar[str] = "radiance_field"
    SECONDS: ClassVar[float] = DEFAULT_SECONDS

    def __init__(
        self,
        preset: str = "hash",
        *,
        precision: str = "float32",
        rng: int | np.random.Generator | None = None,
        n_threads: int | None = None,
    ) -> None:
        check_choice(preset, PRESETS, "preset", "RadianceField")
        super().__init__("hash", rng=rng, n_threads=n_threads)
        self.preset = preset
        self.precision = check_choice(
            precision, ("float32", "bfloat16"), "precision", "RadianceField"
        )
        self._colour: Network | None = None
        self._frame: Frame | None = None
        self._occupancy: OccupancyGrid | None = None
        self._cameras: tuple[Camera, ...] = ()

    def fit(
        self,
        signal: Any,
        *,
        bounds: npt.ArrayLike | None = None,
        max_seconds: float | None = None,
        max_steps: int | None = None,
        target_psnr: float | None = None,
        n_params: int | None = None,
        params_per_value: float | None = None,
        repeat: FieldReport | None = None,
        progress: Callable[[FitProgress], object] | None = None,
    ) -> Self:
        """Fit the field to posed pictures.

        Parameters
        ----------
        signal : path of a transforms.json, Views, or (pixels, matrices, focal)
            See `read_views`; pixels uint8 (n, height, width, 3 or 4), matrices (n, 4, 4) from
            camera to world (OpenGL's axes), focal in pixels. Pictures with an alpha channel are
            learned over random backgrounds, and what they show as empty is passed over.
        bounds : ((x, y, z), (x, y, z)), optional
            The scene's box in the world. None: around the place that the cameras look at, as large
            as they see.
        max_seconds, max_steps, target_psnr, repeat, progress
            See `ImageField.fit`; 120 s by default. target_psnr is of the rays of the last steps,
            and the report's of 4,096 pixels of all pictures, over white.
        n_params : int, optional
            Of the hash preset: parameters at most; 1,048,576 by default.
        params_per_value : float > 0, optional
            The same in parameters a number of the pictures: three a pixel.

        Returns
        -------
        self
            After Ctrl-C too, with the parameters of the last whole step.

        Raises
        ------
        ShapeError, DataError, SpecError
            Pictures, cameras or an argument are not as described; the field is unchanged.
        DivergenceError
            The loss became infinite; the field is unchanged.
        """
        began, where = time.perf_counter(), "RadianceField.fit"
        if max_seconds is None and max_steps is None and repeat is None:
            max_seconds = self.SECONDS
        limits = Limits.check(where, max_seconds, max_steps, target_psnr, repeat)
        if progress is not None and not callable(progress):
            raise SpecError(
                f"{where}: expected progress to be a function of a FitProgress, got {progress!r}."
            )
        views = as_views(signal, where)
        if n_params is None and params_per_value is None:
            n_params = DEFAULT_PARAMS
        most = budget(n_params, params_per_value, views.pixels[..., :3].size, where)
        check_count(most, "n_params", where, LEAST_PARAMS)
        frame = Frame.around(views, where) if bounds is None else Frame.of_bounds(bounds, where)
        seed = self.seed if limits.repeat is None else limits.repeat.seed
        pair = networks(self.preset, most, seed)
        fitting = RadianceFitting(
            self.preset,
            pair,
            views,
            frame,
            limits,
            seed,
            self.n_threads,
            self.precision,
            progress,
            began,
        )
        stopped = fitting.go()
        self._network, self._colour = pair
        self._frame, self._occupancy, self._cameras = frame, fitting.occupancy, views.cameras
        self._report, self._coding = fitting.report(fitting.score(), stopped), None
        return self

    # --- what it is ------------------------------------------------------------------------------

    @property
    def colour_network(self) -> Network:
        """From features of a place and an encoded direction to a colour."""
        self.network  # noqa: B018  # raises where there is none
        assert self._colour is not None  # noqa: S101
        return self._colour

    @property
    def frame(self) -> Frame:
        """Where the box lies: coordinates are scale * (place - middle)."""
        self.network  # noqa: B018
        assert self._frame is not None  # noqa: S101
        return self._frame

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras that it was fitted to."""
        self.network  # noqa: B018
        return self._cameras

    @property
    def n_params(self) -> int:
        """Numbers of both networks."""
        return self.network.n_params + self.colour_network.n_params

    def _networks(self) -> dict[str, Network]:
        return {"theta": self.network, "colour": self.colour_network}

    def _set_weights(self, theta: Array) -> None:
        n = self.network.n_params
        self._network = Network.from_spec(self.network.spec, theta[:n])
        self._colour = Network.from_spec(self.colour_network.spec, theta[n:])

    @property
    def occupancy(self) -> OccupancyGrid:
        """Which parts of the box hold anything."""
        self.network  # noqa: B018
        assert self._occupancy is not None  # noqa: S101
        return self._occupancy

    def __call__(  # type: ignore[override]  # a scene's colour depends on where it is seen from
        self, coordinates: npt.ArrayLike, directions: npt.ArrayLike
    ) -> tuple[Array, Array]:
        """Return densities (n,) and colours (n, 3) in [0, 1].

        Parameters
        ----------
        coordinates : array-like (n, 3), finite
            In [-1, 1]^3.
        directions : array-like (n, 3), finite
            From the eye to the place; of any length but 0.

        Raises
        ------
        ShapeError, DataError
            They are not as described.
        """
        x = as_matrix(coordinates, "coordinates", "RadianceField", 3, np.float32)
        d = as_matrix(directions, "directions", "RadianceField", 3, np.float64)
        if len(d) != len(x):
            raise ShapeError(
                f"RadianceField: expected a direction for each of {len(x)} places, got {len(d)}."
            )
        lengths = np.linalg.norm(d, axis=1, keepdims=True)
        if len(d) and lengths.min() == 0:
            raise DataError("RadianceField: expected directions of some length, got 0 0 0.")
        said = self.network(x)
        encoded = encode_directions(self.preset, d / lengths)
        colours = self.colour_network(np.concatenate([said[:, 1:], encoded], axis=1))
        return density_of(said[:, 0]), colours

    def gradient(self, coordinates: npt.ArrayLike) -> Array:
        """Return d density / d coordinate, float32 (n, 3): the opposite of a surface's normal.

        Raises
        ------
        ShapeError, DataError
            `coordinates` is not as described.
        """
        x = as_matrix(coordinates, "coordinates", "RadianceField.gradient", 3, np.float32)
        density = density_of(self.network(x)[:, 0])
        return np.asarray(density[:, None] * self.network.jacobian(x)[:, 0], np.float32)

    def render(
        self,
        camera: Camera | int = 0,
        height: int | None = None,
        width: int | None = None,
        *,
        background: npt.ArrayLike = (1.0, 1.0, 1.0),
    ) -> Array:
        """Return what a camera sees, uint8 (height, width, 3).

        Parameters
        ----------
        camera : Camera or int
            An int is one of `cameras`, those that were fitted.
        height, width : int, optional
            None: the camera's own, or in its proportion where one is given.
        background : (red, green, blue), in [0, 1]
            Behind everything.

        Raises
        ------
        SpecError, DataError
            An argument is not as described.
        """
        where = "RadianceField.render"
        view = self._view(camera, height, width, where)
        colour = np.asarray(background, np.float64)
        if colour.shape != (3,) or not np.isfinite(colour).all() or abs(colour - 0.5).max() > 0.5:
            raise DataError(
                f"{where}: expected a background of 3 values in [0, 1], got {background!r:.60}."
            )
        return np.asarray(np.rint(255 * self._trace(view, colour)[0]), np.uint8)

    def render_depth(
        self, camera: Camera | int = 0, height: int | None = None, width: int | None = None
    ) -> Array:
        """Return how far along the camera's axis half of the light stops, float32 (height, width).

        In the world's unit; infinite where half of it passes the whole scene.

        Parameters
        ----------
        camera, height, width
            As for `render`.
        """
        view = self._view(camera, height, width, "RadianceField.render_depth")
        return self._trace(view, np.zeros(3))[1]

    def psnr(self, signal: Any, *, background: npt.ArrayLike = (1.0, 1.0, 1.0)) -> float:
        """Return the mean over pictures of the PSNR of what their cameras see, in dB.

        Parameters
        ----------
        signal : as for `fit`
            Held-out pictures, usually.
        background : (red, green, blue)
            That both are put over.
        """
        views = as_views(signal, "RadianceField.psnr")
        each = []
        behind = np.asarray(background, np.float32)
        for i, camera in enumerate(views.cameras):
            flat = np.arange(camera.height * camera.width) + i * camera.height * camera.width
            true = np.rint(255 * views.colours(flat, behind)).astype(np.uint8)
            ours = self.render(camera, background=background).reshape(-1, 3)
            error = ours.astype(np.float64) - true
            each.append(psnr_of(float(np.mean(error**2)), 255.0))
        return float(np.mean(each))

    def orbit(self, n: int, *, elevation: float = 25.0, up: str = "z") -> list[Camera]:
        """Return n cameras on a circle around the scene, as far away as those of the fit.

        Parameters
        ----------
        n : int ≥ 1
        elevation : float in (-90, 90), default 25
            Degrees above the plane across `up`.
        up : {"x", "y", "z"}, default "z"
            The world's axis that points up.
        """
        where = "RadianceField.orbit"
        n = check_count(n, "n", where)
        tilt = np.deg2rad(check_number(elevation, "elevation", where, -89.0, 89.0))
        axis = np.roll(np.eye(3), 0)["xyz".index(check_choice(up, ("x", "y", "z"), "up", where))]
        first, middle = self.cameras[0], np.array(self.frame.middle)
        away = float(np.median([np.linalg.norm(c.eye - middle) for c in self.cameras]))
        side = np.roll(axis, 1)
        other = np.cross(axis, side)
        path = []
        for turn in 2 * np.pi * np.arange(n) / n:
            flat = np.cos(turn) * side + np.sin(turn) * other
            back = np.cos(tilt) * flat + np.sin(tilt) * axis
            right = np.cross(axis, back)
            right /= np.linalg.norm(right)
            matrix = np.stack([right, np.cross(back, right), back, middle + away * back], axis=1)
            path.append(Camera(matrix, first.width, first.height, first.focal, first.centre))
        return path

    def _view(self, camera: Any, height: int | None, width: int | None, where: str) -> Camera:
        if isinstance(camera, int | np.integer) and not isinstance(camera, bool):
            if not -len(self.cameras) <= camera < len(self.cameras):
                raise SpecError(
                    f"{where}: expected one of {len(self.cameras)} cameras, got {camera}."
                )
            camera = self.cameras[camera]
        if not isinstance(camera, Camera):
            raise SpecError(f"{where}: expected a Camera or a number, got {camera!r:.60}.")
        if height is None and width is None:
            height, width = camera.height, camera.width
        elif height is None:
            height = max(
                1, round(camera.height * check_count(width, "width", where) / camera.width)
            )
        elif width is None:
            width = max(
                1, round(camera.width * check_count(height, "height", where) / camera.height)
            )
        height, width = check_count(height, "height", where), check_count(width, "width", where)
        if height * width > MOST_PIXELS:
            raise SpecError(
                f"{where}: expected at most {MOST_PIXELS:,} pixels, got {height:,} x {width:,}."
            )
        require_memory(120 * height * width)
        return camera.resized(height, width)

    def _trace(self, view: Camera, background: Array) -> tuple[Array, Array]:
        tracer = Tracer(self.preset, self.network, self.colour_network, self.occupancy, self.frame)
        return tracer.picture(view, background)

    # --- files -----------------------------------------------------------------------------------

    def _parts(self) -> tuple[dict[str, Any], dict[str, Array]]:
        spec = {
            "preset": self.preset,
            "network": self.network.spec.to_json(),
            "colour": self.colour_network.spec.to_json(),
            "report": report_parts(self.report),
            "signal": {
                "middle": list(self.frame.middle),
                "scale": self.frame.scale,
                "cameras": [camera.to_json() for camera in self.cameras],
            },
        }
        arrays = {name: network.theta for name, network in self._networks().items()}
        spec, arrays = with_coding(spec, arrays, self._networks(), self._coding)
        if "coding" in spec:
            return spec, {**arrays, "cells": self.occupancy.deflated()}
        return spec, {**arrays, "occupancy": np.packbits(self.occupancy.taken)}

    @classmethod
    def from_file_parts(cls, spec: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Make a field of what `modelfile.read` returned.

        Raises
        ------
        SpecError, ShapeError, DataError
            The parts are not those of such a field, or do not belong together.
        """
        where = cls.__name__
        if set(spec) - {"coding"} != {"preset", "network", "colour", "report", "signal"}:
            raise SpecError(f"{where}: expected the parts of a scene, got {sorted(spec)[:8]}.")
        cells = "cells" if "coding" in spec else "occupancy"
        names = {"theta": "network", "colour": "colour"}
        spec, arrays, coding = without_coding(spec, arrays, where, names)
        if set(arrays) != {*names, cells}:
            raise SpecError(f"{where}: expected the arrays of a scene, got {sorted(arrays)[:8]}.")
        report = report_from(spec["report"], where)
        field = cls(spec["preset"], rng=report.seed)
        specs = [NetworkSpec.from_json(spec[name]) for name in ("network", "colour")]
        trunk, colour = (
            Network.from_spec(s, modelfile.theta_alone({"theta": arrays[name]}, s.dtype, where))
            for s, name in zip(specs, ("theta", "colour"), strict=True)
        )
        columns = encode_directions(field.preset, np.array([[0.0, 0.0, 1.0]])).shape[1]
        wanted = specs[0].d_out - 1 + columns
        if specs[0].d_in != 3 or specs[1].d_in != wanted or specs[1].d_out != 3:
            raise SpecError(
                f"{where}: expected networks of 3 to 1 + features and of features and directions "
                f"to 3, got {specs[0].d_in} to {specs[0].d_out} and {specs[1].d_in} to "
                f"{specs[1].d_out}."
            )
        bits = arrays[cells]
        if cells == "cells":
            bits = inflated(bits, where)
        if bits.dtype != np.uint8 or bits.shape != (CELLS**3 // 8,):
            raise DataError(f"{where}: expected {CELLS}^3 bits of occupancy, got {bits.shape}.")
        signal = spec["signal"]
        if not isinstance(signal, dict) or set(signal) != {"middle", "scale", "cameras"}:
            raise DataError(f"{where}: expected a frame and cameras, got {signal!r:.60}.")
        middle = signal["middle"]
        if (
            not isinstance(middle, list)
            or len(middle) != 3
            or not isinstance(signal["cameras"], list)
        ):
            raise DataError(f"{where}: expected a middle of 3 numbers and cameras, got others.")
        scale = check_number(signal["scale"], "scale", where, 0.0)
        if scale == 0 or not signal["cameras"]:
            raise DataError(f"{where}: expected a scale above 0 and cameras, got none.")
        x, y, z = (check_number(v, "middle", where) for v in middle)
        field._frame = Frame((x, y, z), scale)
        field._cameras = tuple(Camera.from_json(c, where) for c in signal["cameras"])
        field._occupancy = OccupancyGrid(STEP)
        field._occupancy.set_taken(np.unpackbits(bits))
        field._network, field._colour = trunk, colour
        field._report, field._coding = report, coding
        return field
