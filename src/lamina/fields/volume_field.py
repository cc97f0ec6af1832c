"""VolumeField: a grid of three or four axes as a function of space, or of space and time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lamina.core.engine import default_n_threads, isa, require_memory
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.network import Network
from lamina.fields.bound import Bound, constant_network
from lamina.fields.field import Field, Values
from lamina.fields.fit import FieldReport, FitProgress, psnr_of
from lamina.fields.interpolate import interpolate
from lamina.fields.packing import pack_flags, unpack_flags
from lamina.fields.residual import BATCH_SAMPLES, Layout, Residual
from lamina.fields.residual_coding import encode
from lamina.fields.signal import BLOCK_ROWS, Signal, centres
from lamina.fields.volume import (
    Box,
    Flags,
    VolumeForm,
    VolumeSignal,
    lattice_coordinates,
)
from lamina.fields.volume_meta import from_meta, to_meta
from lamina.fields.volume_reading import GridReading
from lamina.fields.volume_render import Painter, as_box, compare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Volume = npt.ArrayLike | str | os.PathLike[str]


class VolumeField(GridReading, Field):
    """A grid of three axes, or of four, as a network from places to values.

    ``F(x, y, z) = (channels,)``, or ``F(x, y, z, t)``: x runs along the array's last axis of the
    grid, y along the one before, and so on; sample i of n along an axis lies at the middle of its
    cell, ``(2 i + 1) / n - 1``. Values are in the array's own units.

    With `max_error`, what the network leaves is stored too, in blocks that can be read one by one,
    and F is the network plus what the stored samples say between them (multilinearly).

    Parameters
    ----------
    preset, rng, n_threads
        See `Field`. The grid of "hash" has three coordinates at most: grids of four axes take
        "siren" or "fourier", unless there is a `max_error`.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.fields import VolumeField
    >>> z, y, x = np.mgrid[:24, :32, :40] / 16
    >>> volume = (np.sin(x + y) * np.cos(2 * z)).astype(np.float32)
    >>> field = VolumeField(rng=0).fit(volume, max_error=1e-3)
    >>> field.check(volume) <= 1e-3, field.n_bytes < volume.nbytes / 10
    (True, True)
    >>> field[5, :, ::2].shape, field.render((48, 64, 80)).shape, field.slice("z", 0.2).shape
    ((32, 20), (48, 64, 80), (32, 40))
    """

    ROLE: ClassVar[str] = "volume_field"

    def __init__(
        self,
        preset: str = "hash",
        *,
        rng: int | np.random.Generator | None = None,
        n_threads: int | None = None,
    ) -> None:
        super().__init__(preset, rng=rng, n_threads=n_threads)
        self._form: VolumeForm | None = None
        self._missing: Flags | None = None
        self._residual: Residual | None = None
        self._bound: tuple[float, float] | None = None  # asked, and found

    def fit(
        self,
        signal: Volume,
        *,
        max_error: float | None = None,
        max_relative_error: float | None = None,
        max_seconds: float | None = None,
        max_steps: int | None = None,
        target_psnr: float | None = None,
        n_params: int | None = None,
        params_per_value: float | None = None,
        axes: str | None = None,
        variable: str | None = None,
        repeat: FieldReport | None = None,
        progress: Callable[[FitProgress], object] | None = None,
    ) -> Self:
        """Fit the field to a grid.

        Parameters
        ----------
        signal : array, masked array or file
            (depth, height, width), (time, y, x) or (time, z, y, x), perhaps with channels last;
            whole numbers or floats; a path is read by `read_volume`. NaN and masked samples are
            missing: they are not learned, and missing again in what is read. The array is read
            where it lies, such as a memory-mapped file.
        max_error : float > 0, optional
            No sample's error is larger, in the array's units: all are checked. Whole numbers are
            then exact where it is below 1.
        max_relative_error : float > 0, optional
            The same as a share of the range, largest value minus smallest: pass one of the two.
        max_seconds, max_steps, target_psnr, repeat, progress
            As for `ImageField.fit`. Nothing is trained where there is a bound and neither n_params
            nor params_per_value: then only `progress` is used, and cannot stop the fit.
        n_params, params_per_value
            As for `ImageField.fit`. With a bound, neither: the network is a constant, as files of
            everything tried were smallest so (docs/fields.md).
        axes : str, optional
            A letter for each axis, "c" for channels, which come last: "zyx", "tyx", "zyxc", "tzyx".
            None: three axes are zyx; of four, the last is channels if it is at most 4 long, else
            they are tzyx.
        variable : str, optional
            Which array of a file that has several.

        Returns
        -------
        self
            After Ctrl-C in training too: the best so far is kept.

        Raises
        ------
        ShapeError, DataError, SpecError
            The array or an argument is not as described; the field is unchanged.
        DivergenceError
            The loss became infinite; the field is unchanged.

        Notes
        -----
        The bound holds on every instruction set and for any number of threads: differences are
        predicted and quantised in whole numbers; see `lamina.fields.bound` for the network's part.
        """
        began, where = time.perf_counter(), "VolumeField.fit"
        checked = self._signal(signal, where, axes=axes, variable=variable)
        bound = Bound.of(max_error, max_relative_error, checked, where)
        with_budget = n_params is not None or params_per_value is not None
        fitted = VolumeField(self.preset, rng=self.seed, n_threads=self.n_threads)
        if bound is None or with_budget or repeat is not None:
            if self.preset == "hash" and checked.d_in > 3:
                raise SpecError(
                    f"{where}: expected preset 'siren' or 'fourier' with a grid of four axes, got "
                    "'hash', whose grid has three at most. Choose another preset."
                )
            fitted._fit(
                checked,
                max_seconds=max_seconds,
                max_steps=max_steps,
                target_psnr=target_psnr,
                repeat=repeat,
                n_params=n_params,
                params_per_value=params_per_value,
                progress=progress,
            )
        else:
            fitted._network = constant_network(checked)
            fitted._describe(checked)
            fitted._report = self._untrained(fitted._network, checked)
        if bound is not None:
            fitted._store(checked, bound, began, progress)
        self.__dict__.update(fitted.__dict__)
        return self

    def _untrained(self, network: Network, signal: VolumeSignal) -> FieldReport:
        threads = default_n_threads(self.n_threads)
        return FieldReport(
            0.0,
            network.n_params,
            signal.n_values,
            0.0,
            0,
            0,
            self.seed,
            threads,
            isa(),
            "max_error",
            np.empty(0),
        )

    def _store(
        self,
        signal: VolumeSignal,
        bound: Bound,
        began: float,
        progress: Callable[[FitProgress], object] | None,
    ) -> None:
        """Store what the network leaves, and check every sample."""
        form, network, report = self.form, self.network, self.report
        is_constant = not network.spec.widths and network.spec.encoding is None
        shift = network.biases[-1].astype(np.float64) if is_constant else None

        def left(box: Box) -> npt.NDArray[np.float64]:
            values = signal.box(box)
            values -= self._learned(box) if shift is None else shift
            return values

        def tell(share: float, mse: float) -> None:
            if progress is not None:
                psnr = psnr_of(mse * unit**2, signal.peak)
                now = time.perf_counter() - began
                progress(FitProgress(psnr, report.n_steps, now, share, 0.0, self))

        # Tokens, contexts, and the words they become; and some batches at work
        require_memory(7 * form.channels * math.prod(form.grid) + 48 * BATCH_SAMPLES)
        slack = 0.0 if is_constant else bound.network_slack(network, signal)
        unit = bound.unit(form, slack)
        largest = 2 * (abs(form.low) + abs(form.high)) + slack
        if shift is not None:  # values far from 0 and near each other are no obstacle
            largest = float(max(np.abs(form.low - shift).max(), np.abs(form.high - shift).max()))
        self._residual = encode(Layout(form.grid, form.channels), left, unit, largest, tell)
        found, mse = self._compare(signal)
        if not found <= bound.asked:
            raise DataError(
                f"VolumeField.fit: expected every error within {bound.asked:.6g}, got one of "
                f"{found:.6g}. Raise max_error."
            )
        self._missing = None  # the residual knows
        self._bound = bound.asked, found
        self._report = replace(
            report, psnr=psnr_of(mse, signal.peak), seconds=time.perf_counter() - began
        )
        tell(1.0, mse / unit**2)

    # --- what it is ------------------------------------------------------------------------------

    @property
    def form(self) -> VolumeForm:
        """Axes, size, type and range of the array that was fitted."""
        self.network  # noqa: B018  # raises where there is none
        assert self._form is not None  # noqa: S101
        return self._form

    @property
    def shape(self) -> tuple[int, ...]:
        """The fitted array's shape."""
        return self.form.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The fitted array's type."""
        return np.dtype(self.form.dtype)

    @property
    def max_error(self) -> float | None:
        """The bound that was asked for, in the array's units; None without one."""
        self.network  # noqa: B018  # raises where there is none
        return None if self._bound is None else self._bound[0]

    @property
    def residual(self) -> Residual | None:
        """What is stored beside the network, where there is a bound."""
        self.network  # noqa: B018  # raises where there is none
        return self._residual

    @property
    def n_bytes(self) -> int:
        """What the network and all beside it take in a file, its header of a few kB apart."""
        arrays = self._arrays().values()
        return 4 * self.n_params + sum(int(array.nbytes) for array in arrays)

    def __call__(self, coordinates: npt.ArrayLike) -> Array:
        """Return the field's values: see `Field.__call__`."""
        values = super().__call__(coordinates)
        if self._residual is None:
            return values
        rows, _ = self._rows(coordinates, "")
        left = interpolate(self._residual, rows)[0].reshape(values.shape)
        return (values.astype(np.float64) + left).astype(np.float32)

    def gradient(self, coordinates: npt.ArrayLike) -> Array:
        """Return d value / d coordinate: see `Field.gradient`."""
        slopes = super().gradient(coordinates)
        if self._residual is None:
            return slopes
        rows, _ = self._rows(coordinates, ".gradient")
        left = interpolate(self._residual, rows)[1].reshape(slopes.shape)
        return (slopes.astype(np.float64) + left).astype(np.float32)

    # --- beside a signal -------------------------------------------------------------------------

    def psnr(self, signal: Volume, *, variable: str | None = None) -> float:
        """Return the peak signal-to-noise ratio of the field on a grid, in dB.

        ``10 log10(peak^2 / mean squared difference)`` over all samples that are not missing, peak
        being the fitted array's largest value minus its smallest.

        Raises
        ------
        ShapeError, DataError
            The array has another shape or type than the fitted one.
        """
        checked = self._like_ours(signal, "VolumeField.psnr", variable)
        return psnr_of(self._compare(checked)[1], checked.peak)

    def check(self, signal: Volume, *, variable: str | None = None) -> float:
        """Return the largest error of any sample, once more measured on all of them.

        Raises
        ------
        DataError
            It is larger than `max_error`, or other samples are missing than were.
        ShapeError
            The array has another shape or type than the fitted one.
        """
        where = "VolumeField.check"
        found, _ = self._compare(self._like_ours(signal, where, variable))
        if self._bound is not None and not found <= self._bound[0]:
            raise DataError(
                f"{where}: expected errors of at most {self._bound[0]:.6g}, got {found:.6g}. "
                "Pass the array that was fitted."
            )
        return found

    def plot(self, signal: Volume, *, variable: str | None = None) -> Figure:
        """Return a contact sheet: three cuts of the grid, of the field and of the error; spectra.

        Raises
        ------
        ShapeError, DataError
            As for `psnr`.
        MissingExtraError
            matplotlib is not installed.
        """
        from lamina.plots.volumes import plot_volume_field

        checked, form = self._like_ours(signal, "VolumeField.plot", variable), self.form
        first = () if len(form.grid) == 3 else (form.grid[0] // 2,)
        grid, axes = form.grid[-3:], form.axes[-3:]
        cuts = []
        for axis, n in enumerate(grid):
            index: Any = [*first, slice(None), slice(None), slice(None), slice(None)]
            index[len(first) + axis] = n // 2
            box, within = as_box(tuple(index), checked.array.shape, "VolumeField.plot")
            theirs, ours = checked.box(box[:-1])[within], self._painter().box(box[:-1])[within]
            ours = ours.astype(np.float64)
            ours[np.isnan(theirs)] = np.nan
            cuts.append((axes[axis], theirs, ours))
        title = f"{self.preset}, {self.n_params:,} parameters for {checked.n_values:,} values"
        if self._bound is not None:
            title = f"{self.n_bytes:,} bytes, no error above {self._bound[1]:.3g}"
        return plot_volume_field(cuts, psnr=self.psnr(checked), title=title)  # type: ignore[arg-type]

    # --- what Field asks -------------------------------------------------------------------------

    def _painter(self, values: Values | None = None) -> Painter:
        values = self.network if values is None else values
        return Painter(self.form, values, self._residual, self._missing)

    def _learned(self, box: Box) -> npt.NDArray[np.float64]:
        """Return what the network says of a box of samples, which may have steps."""
        grid = self.form.grid
        places = [centres(n)[part] for n, part in zip(grid, box, strict=True)]
        coordinates = lattice_coordinates(places)
        found = np.empty((len(coordinates), self.form.channels))
        for start in range(0, len(coordinates), BLOCK_ROWS):
            found[start : start + BLOCK_ROWS] = self.network(
                coordinates[start : start + BLOCK_ROWS]
            )
        return found.reshape(*(len(p) for p in places), self.form.channels)

    def _compare(self, signal: VolumeSignal) -> tuple[float, float]:
        """Return the largest error and the mean squared one, over all that is not missing."""
        return compare(self._painter(), signal)

    def _like_ours(self, signal: Volume, where: str, variable: str | None = None) -> VolumeSignal:
        form = self.form
        axes = form.axes + ("" if form.is_flat else "c")
        checked = self._signal(signal, where, axes=axes, variable=variable)
        got = checked.form
        if got.shape != form.shape or got.dtype != form.dtype:
            raise ShapeError(
                f"{where}: expected an array of shape {form.shape} and {form.dtype}, as in fit, "
                f"got {got.shape} and {got.dtype}. Pass the array that was fitted."
            )
        return checked

    def _signal(
        self, signal: Any, where: str, axes: str | None = None, variable: str | None = None
    ) -> VolumeSignal:
        if isinstance(signal, VolumeSignal):
            return signal
        if isinstance(signal, str | os.PathLike):
            from lamina.fields.volume_file import read_volume

            signal = read_volume(signal, variable, where)
        return VolumeSignal(signal, axes, where)

    def _score(self, values: Values, signal: Signal) -> float:
        assert isinstance(signal, VolumeSignal)  # noqa: S101
        painter = Painter(signal.form, values, None, signal.missing)
        return psnr_of(compare(painter, signal)[1], signal.peak)

    def _describe(self, signal: Signal) -> None:
        assert isinstance(signal, VolumeSignal)  # noqa: S101
        self._form, self._missing = signal.form, signal.missing

    # --- files -----------------------------------------------------------------------------------

    def _parts(self) -> tuple[dict[str, Any], dict[str, Array]]:
        spec, arrays = super()._parts()
        return spec, arrays | self._arrays()

    @classmethod
    def from_file_parts(cls, spec: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Make a field of what `modelfile.read` returned: see `Field.from_file_parts`."""
        weights = ("theta", "stream")
        field = super().from_file_parts(spec, {k: a for k, a in arrays.items() if k in weights})
        field._set_arrays({k: a for k, a in arrays.items() if k not in weights}, spec["signal"])
        return field

    def _arrays(self) -> dict[str, Array]:
        """Return what a file holds beside the network's parameters."""
        if self._residual is not None:
            parts = self._residual.to_parts()[1]
            return {f"residual.{name}": array for name, array in parts.items()}
        return {} if self._missing is None else {"missing": pack_flags(self._missing)}

    def _set_arrays(self, arrays: dict[str, Array], meta: Mapping[str, Any]) -> None:
        where, form = "VolumeField", self.form
        if meta["residual"] is None:
            if set(arrays) - {"missing"}:
                raise DataError(f"{where}: expected theta, got {sorted(arrays)[:8]} too.")
            if "missing" in arrays:
                shape = (*form.grid, form.channels)
                self._missing = unpack_flags(arrays["missing"].astype(np.uint8), shape)
            return
        names = {k.removeprefix("residual."): a for k, a in arrays.items()}
        self._residual = Residual.from_parts(meta["residual"], names, where)
        if self._residual.layout != Layout(form.grid, form.channels):
            raise DataError(f"{where}: expected blocks of a grid of {form.grid}, got others.")

    def _meta(self) -> dict[str, Any]:
        residual = None if self._residual is None else self._residual.to_parts()[0]
        return to_meta(self.form, self._bound, residual)

    def _set_meta(self, meta: Mapping[str, Any]) -> None:
        self._form, self._bound = from_meta(meta, "VolumeField")

    def _check_network(self, d_in: int, d_out: int) -> None:
        assert self._form is not None  # noqa: S101
        wanted = (len(self._form.grid), self._form.channels)
        if (d_in, d_out) != wanted:
            raise SpecError(
                f"VolumeField: expected a network of {wanted[0]} coordinates and {wanted[1]} "
                f"channels, got {d_in} and {d_out}."
            )
