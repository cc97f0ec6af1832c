"""ImageField: a picture as a function of the plane."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_count, check_number
from lamina.core.engine import require_memory
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.fields.field import Field, Values
from lamina.fields.field_file import check_keys
from lamina.fields.fit import FieldReport, FitProgress, psnr_of
from lamina.fields.image import DTYPES, MOST_PIXELS, Form, ImageSignal, as_window, paint
from lamina.fields.signal import Signal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Pixels = npt.ArrayLike | str | os.PathLike[str] | bytes

_FORM_KEYS = {"height", "width", "channels", "is_flat", "dtype", "low", "high"}


class ImageField(Field):
    """A picture as a network from places to colours.

    ``F(x, y) = (channels,)``: x runs to the right and y down, both over [-1, 1], and pixel (row i,
    column j) lies at the middle of its cell, ``x = (2 j + 1) / width - 1``,
    ``y = (2 i + 1) / height - 1``. Values are in the picture's own units (0 to 255 for uint8).

    Parameters
    ----------
    preset, rng, n_threads
        See `Field`. "hash" for photographs; "siren" where derivatives matter.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.fields import ImageField
    >>> i, j = np.mgrid[:32, :48]
    >>> pixels = (120 + 60 * np.sin(i / 5) + 60 * np.cos(j / 7)).astype(np.uint8)
    >>> field = ImageField(rng=0).fit(pixels, max_steps=1200, params_per_value=1)
    >>> field.render(64, 96).shape, field.render().dtype, field.psnr(pixels) > 30
    ((64, 96), dtype('uint8'), True)
    """

    ROLE: ClassVar[str] = "image_field"

    def __init__(
        self,
        preset: str = "hash",
        *,
        rng: int | np.random.Generator | None = None,
        n_threads: int | None = None,
    ) -> None:
        super().__init__(preset, rng=rng, n_threads=n_threads)
        self._form: Form | None = None

    def fit(
        self,
        signal: Pixels,
        *,
        max_seconds: float | None = None,
        max_steps: int | None = None,
        target_psnr: float | None = None,
        n_params: int | None = None,
        params_per_value: float | None = None,
        mask: npt.ArrayLike | None = None,
        repeat: FieldReport | None = None,
        progress: Callable[[FitProgress], object] | None = None,
    ) -> Self:
        """Fit the field to a picture.

        Parameters
        ----------
        signal : array (height, width) or (height, width, channels), or a file
            1 to 4 channels of uint8, uint16 or floats; a path or a file's content is read by
            `read_image`. An array is read where it lies, never copied whole.
        max_seconds : float > 0, optional
            Of this call, reading and the measurement at the end included; 30 where neither this
            nor max_steps is given. The learning rate falls as the time passes.
        max_steps : int ≥ 1, optional
            Steps at most: unlike seconds, the same on every machine.
        target_psnr : float, optional
            Stop as soon as the field is so good, in dB.
        n_params : int, optional
            Parameters at most.
        params_per_value : float > 0, optional
            The same in parameters a number of the signal (pixel and channel). If neither is given,
            0.5, but at least 1,024 parameters.
        mask : array of bool (height, width), optional
            True for the pixels to learn from; what the others hold is ignored. Training sees them
            as the smoothest surface through their neighbours (`fill_gaps`); the report's PSNR is of
            known pixels.
        repeat : FieldReport, optional
            The `report` of an earlier fit, to repeat it bit for bit, its seed included, even where
            time ended it.
        progress : callable, optional
            Called with a `FitProgress` some five times a second; returning True stops the fit.

        Returns
        -------
        self
            After Ctrl-C too: the best so far is kept, and ``report.stopped`` is "interrupted".

        Raises
        ------
        ShapeError, DataError, SpecError
            The picture or an argument is not as described; the field is unchanged.
        DivergenceError
            The loss became infinite; the field is unchanged.

        Notes
        -----
        Same seed, picture, steps, threads and instruction set give the same bits.
        """
        return self._fit(
            signal,
            max_seconds=max_seconds,
            max_steps=max_steps,
            target_psnr=target_psnr,
            repeat=repeat,
            n_params=n_params,
            params_per_value=params_per_value,
            progress=progress,
            mask=mask,
        )

    # --- what it is ------------------------------------------------------------------------------

    @property
    def form(self) -> Form:
        """Size, channels and range of the picture that was fitted."""
        self.network  # noqa: B018  # raises where there is none
        assert self._form is not None  # noqa: S101
        return self._form

    @property
    def shape(self) -> tuple[int, ...]:
        """The fitted picture's shape."""
        form = self.form
        size = (form.height, form.width)
        return size if form.is_flat else (*size, form.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The fitted picture's type."""
        return np.dtype(self.form.dtype)

    def render(
        self,
        height: int | None = None,
        width: int | None = None,
        *,
        window: tuple[float, float, float, float] | None = None,
    ) -> Array:
        """Return the field as a picture of any size.

        Parameters
        ----------
        height, width : int ≥ 1, optional
            None: the fitted picture's, or as many as keep its proportions where one is given.
        window : (left, top, right, bottom), optional
            What to show, in coordinates: (-1, -1, 0, 0) is the upper left quarter.

        Returns
        -------
        pixels : array (height, width[, channels])
            Of the fitted picture's type and range: clipped, and rounded where those are whole
            numbers.

        Raises
        ------
        SpecError, DataError
            A size or the window is not as described.

        Notes
        -----
        Every pixel is the field at the middle of its cell. Nothing is averaged: a picture much
        smaller than the fitted one aliases, so render it large and shrink it.
        """
        where, form = "ImageField.render", self.form
        left, top, right, bottom = sides = as_window(window, where)
        across = form.width * (right - left) / 2
        down = form.height * (bottom - top) / 2
        if height is None and width is None:
            height, width = max(1, round(down)), max(1, round(across))
        elif height is None:
            width = check_count(width, "width", where)
            height = max(1, round(width * down / across))
        elif width is None:
            height = check_count(height, "height", where)
            width = max(1, round(height * across / down))
        height = check_count(height, "height", where)
        width = check_count(width, "width", where)
        if height * width > MOST_PIXELS:
            raise SpecError(
                f"{where}: expected at most {MOST_PIXELS:,} pixels, got {height:,} x {width:,}. "
                "Render it in parts, with window."
            )
        require_memory(height * width * form.channels * self.dtype.itemsize)
        return paint(self.network, form, height, width, sides)

    def psnr(self, signal: Pixels, *, mask: npt.ArrayLike | None = None) -> float:
        """Return the peak signal-to-noise ratio of the rendered field on a picture, in dB.

        ``10 log10(peak^2 / mean squared difference)`` of ``render()`` and the picture, over all
        pixels and channels; peak is 255 or 65535 of whole numbers, and of floats the picture's
        largest value minus its smallest. Infinite where nothing differs.

        Parameters
        ----------
        signal : array or file
            A picture of the fitted one's shape and type.
        mask : array of bool (height, width), optional
            Count only these pixels.

        Raises
        ------
        ShapeError, DataError
            The picture has another shape or type.
        """
        checked = self._like_ours(signal, "ImageField.psnr", mask)
        return _psnr(self.network, checked, self.form)

    def plot(self, signal: Pixels) -> Figure:
        """Return a contact sheet: the picture, the field, the error, and the spectra of all three.

        Parameters
        ----------
        signal : array or file
            A picture of the fitted one's shape and type.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ShapeError, DataError
            As for `psnr`.
        MissingExtraError
            matplotlib is not installed.
        """
        from lamina.plots.fields import plot_image_field

        checked, form = self._like_ours(signal, "ImageField.plot"), self.form
        span = (form.high - form.low) or 1.0
        pixels = (checked.pixels.astype(np.float64) - form.low) / span
        ours = (self.render().astype(np.float64).reshape(pixels.shape) - form.low) / span
        psnr = _psnr(self.network, checked, form)
        title = f"{self.preset}, {self.n_params:,} parameters for {pixels.size:,} values"
        return plot_image_field(pixels, ours, psnr=psnr, title=title)

    def _like_ours(
        self, signal: Pixels, where: str, mask: npt.ArrayLike | None = None
    ) -> ImageSignal:
        """Return a picture as a signal if it has the fitted one's shape and type."""
        checked, form = self._signal(signal, where, mask=mask), self.form
        theirs, ours = checked.pixels.shape, (form.height, form.width, form.channels)
        if theirs != ours or checked.form.dtype != form.dtype:
            raise ShapeError(
                f"{where}: expected a picture of shape {self.shape} and {self.dtype}, as in fit, "
                f"got {theirs} and {checked.form.dtype}. Pass the picture that was fitted."
            )
        return checked

    # --- what Field asks -------------------------------------------------------------------------

    def _signal(self, signal: Any, where: str, mask: npt.ArrayLike | None = None) -> ImageSignal:
        if isinstance(signal, str | os.PathLike | bytes):
            from lamina.fields.image_file import read_image

            signal = read_image(signal, where)
        return ImageSignal(signal, mask, where)

    def _score(self, values: Values, signal: Signal) -> float:
        assert isinstance(signal, ImageSignal)  # noqa: S101
        return _psnr(values, signal, signal.form)

    def _describe(self, signal: Signal) -> None:
        assert isinstance(signal, ImageSignal)  # noqa: S101
        self._form = signal.form

    def _meta(self) -> dict[str, Any]:
        form = self.form
        return {name: getattr(form, name) for name in sorted(_FORM_KEYS)}

    def _set_meta(self, meta: Mapping[str, Any]) -> None:
        where = "ImageField"
        check_keys(meta, _FORM_KEYS, where)
        sizes = {name: check_count(meta[name], name, where) for name in ("height", "width")}
        channels = check_count(meta["channels"], "channels", where)
        low = check_number(meta["low"], "low", where)
        high = check_number(meta["high"], "high", where, low)
        is_flat = meta["is_flat"]
        if channels > 4 or not isinstance(is_flat, bool) or (is_flat and channels != 1):
            raise DataError(f"{where}: expected 1 to 4 channels, got {channels}, flat {is_flat}.")
        if meta["dtype"] not in DTYPES or sizes["height"] * sizes["width"] > MOST_PIXELS:
            raise DataError(f"{where}: expected a picture that can be, got {meta!r:.100}.")
        self._form = Form(
            **sizes, channels=channels, is_flat=is_flat, dtype=meta["dtype"], low=low, high=high
        )

    def _check_network(self, d_in: int, d_out: int) -> None:
        assert self._form is not None  # noqa: S101
        if (d_in, d_out) != (2, self._form.channels):
            raise SpecError(
                f"ImageField: expected a network of 2 coordinates and {self._form.channels} "
                f"channels, got {d_in} and {d_out}."
            )


def _psnr(values: Values, signal: ImageSignal, form: Form) -> float:
    total = 0.0
    for coordinates, pixels in signal.known_blocks():
        difference = form.finish(values(coordinates)).astype(np.float64) - pixels
        total += float(np.vdot(difference, difference))
    return psnr_of(total / signal.n_known, signal.peak)
