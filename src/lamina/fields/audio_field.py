"""AudioField: a sound as a function of time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_count, check_number
from lamina.core.engine import require_memory
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.fields.audio import (
    DTYPES,
    LEAST_RATE,
    MOST_CHANNELS,
    MOST_RATE,
    MOST_SAMPLES,
    AudioForm,
    AudioSignal,
)
from lamina.fields.field import Field, Values
from lamina.fields.field_file import check_keys
from lamina.fields.fit import FieldReport, FitProgress, psnr_of
from lamina.fields.signal import BLOCK_ROWS, Signal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Samples = npt.ArrayLike | str | os.PathLike[str] | bytes

_FORM_KEYS = {"n_samples", "channels", "is_flat", "rate", "dtype"}


class AudioField(Field):
    """A sound as a network from times to amplitudes.

    ``F(t) = (channels,)``: t runs over [-1, 1] from beginning to end, and sample i of n lies at
    the middle of its share, ``t = (2 i + 1) / n - 1``. Values are in the sound's own units (-1 to 1
    of floats, -32768 to 32767 of int16).

    Parameters
    ----------
    preset, rng, n_threads
        See `Field`.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.fields import AudioField
    >>> tone = 0.5 * np.sin(2 * np.pi * 220 * np.arange(4000) / 8000)
    >>> field = AudioField(rng=0).fit(tone, rate=8000, max_steps=1500, params_per_value=0.5)
    >>> field.render().shape, field.render(rate=16000).shape, field.snr(tone) > 25
    ((4000,), (8000,), True)
    """

    ROLE: ClassVar[str] = "audio_field"

    def __init__(
        self,
        preset: str = "hash",
        *,
        rng: int | np.random.Generator | None = None,
        n_threads: int | None = None,
    ) -> None:
        super().__init__(preset, rng=rng, n_threads=n_threads)
        self._form: AudioForm | None = None

    def fit(
        self,
        signal: Samples,
        *,
        rate: float | None = None,
        max_seconds: float | None = None,
        max_steps: int | None = None,
        target_psnr: float | None = None,
        n_params: int | None = None,
        params_per_value: float | None = None,
        repeat: FieldReport | None = None,
        progress: Callable[[FitProgress], object] | None = None,
    ) -> Self:
        """Fit the field to a sound.

        Parameters
        ----------
        signal : array (n,) or (n, channels), or a file
            int16, int32 or floats; a path or a file's content is read by `read_audio`.
        rate : float, optional
            Samples a second; needed with an array, not with a file.
        max_seconds, max_steps, target_psnr, n_params, params_per_value, repeat, progress
            As for `ImageField.fit`; a value is a sample of a channel.

        Returns
        -------
        self
            After Ctrl-C too: the best so far is kept, and ``report.stopped`` is "interrupted".

        Raises
        ------
        ShapeError, DataError, SpecError
            The sound or an argument is not as described; the field is unchanged.
        DivergenceError
            The loss became infinite; the field is unchanged.
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
            rate=rate,
        )

    # --- what it is ------------------------------------------------------------------------------

    @property
    def form(self) -> AudioForm:
        """Length, channels, rate and type of the sound that was fitted."""
        self.network  # noqa: B018  # raises where there is none
        assert self._form is not None  # noqa: S101
        return self._form

    @property
    def rate(self) -> float:
        """The fitted sound's samples a second."""
        return self.form.rate

    def render(
        self, rate: float | None = None, *, window: tuple[float, float] | None = None
    ) -> Array:
        """Return the field as a sound.

        Parameters
        ----------
        rate : float, optional
            Samples a second; None: the fitted sound's. A lower rate aliases, as nothing is
            averaged: render at a multiple of it and decimate.
        window : (begin, end), optional
            What to play, in seconds from the beginning; None: all.

        Returns
        -------
        samples : array (n,) or (n, channels)
            Of the fitted sound's type.

        Raises
        ------
        SpecError, DataError
            `rate` or `window` is not as described.
        """
        where, form = "AudioField.render", self.form
        hertz = form.rate
        if rate is not None:
            hertz = check_number(rate, "rate", where, LEAST_RATE, MOST_RATE)
        begin, end = _as_window(window, form.seconds, where)
        n = max(1, round((end - begin) * hertz))
        if n * form.channels > MOST_SAMPLES:
            raise SpecError(
                f"{where}: expected at most {MOST_SAMPLES:,} samples, got {n:,}. "
                "Render it in parts, with window."
            )
        samples = np.empty((n, form.channels), form.dtype)
        require_memory(samples.nbytes)
        for start in range(0, n, BLOCK_ROWS):
            i = np.arange(start, min(start + BLOCK_ROWS, n), dtype=np.float64)
            if (begin, end, n) == (0.0, form.seconds, form.n_samples):
                t = (2.0 * i + 1.0) / n - 1.0  # the very numbers that training saw
            else:
                t = 2.0 * (begin + (i + 0.5) * (end - begin) / n) / form.seconds - 1.0
            values = self.network(t.astype(np.float32)[:, None])
            samples[start : start + len(i)] = form.finish(values)
        return samples[:, 0] if form.is_flat else samples

    def psnr(self, signal: Samples, *, rate: float | None = None) -> float:
        """Return the peak signal-to-noise ratio of the rendered field on a sound, in dB.

        ``10 log10(peak^2 / mean squared difference)``, peak being 1 of floats and 32768 of int16.

        Raises
        ------
        ShapeError, DataError
            The sound has another shape or type than the fitted one.
        """
        checked = self._like_ours(signal, rate, "AudioField.psnr")
        return psnr_of(_mse(self.network, checked), checked.peak)

    def snr(self, signal: Samples, *, rate: float | None = None) -> float:
        """Return ``10 log10(mean square of the sound / mean squared difference)`` in dB.

        Unlike PSNR it does not depend on how loud the sound is. Errors as for `psnr`.
        """
        return _snr(self.network, self._like_ours(signal, rate, "AudioField.snr"))

    def plot(self, signal: Samples, *, rate: float | None = None) -> Figure:
        """Return a contact sheet: the sound, the field, the error, and the spectra of all three.

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
        from lamina.plots.fields import plot_audio_field

        checked, form = self._like_ours(signal, rate, "AudioField.plot"), self.form
        samples = checked.samples.astype(np.float64) / form.peak
        ours = self.render().astype(np.float64).reshape(samples.shape) / form.peak
        title = f"{self.preset}, {self.n_params:,} parameters for {samples.size:,} values"
        snr = _snr(self.network, checked)
        return plot_audio_field(samples, ours, rate=form.rate, snr=snr, title=title)

    def _like_ours(self, signal: Samples, rate: float | None, where: str) -> AudioSignal:
        form = self.form
        checked = self._signal(signal, where, rate=form.rate if rate is None else rate)
        got = checked.form
        ours, theirs = ((f.n_samples, f.channels, f.dtype) for f in (form, got))
        if ours != theirs:
            raise ShapeError(
                f"{where}: expected the sound that was fitted, {form.n_samples:,} samples of "
                f"{form.channels} in {form.dtype}, got {got.n_samples:,} of {got.channels} in "
                f"{got.dtype}. Pass it as it was."
            )
        return checked

    # --- what Field asks -------------------------------------------------------------------------

    def _signal(self, signal: Any, where: str, rate: float | None = None) -> AudioSignal:
        if isinstance(signal, str | os.PathLike | bytes):
            from lamina.fields.audio_file import read_audio

            signal, rate = read_audio(signal, where)
        return AudioSignal(signal, rate, where)

    def _score(self, values: Values, signal: Signal) -> float:
        assert isinstance(signal, AudioSignal)  # noqa: S101
        return psnr_of(_mse(values, signal), signal.peak)

    def _describe(self, signal: Signal) -> None:
        assert isinstance(signal, AudioSignal)  # noqa: S101
        self._form = signal.form

    def _meta(self) -> dict[str, Any]:
        return {name: getattr(self.form, name) for name in sorted(_FORM_KEYS)}

    def _set_meta(self, meta: Mapping[str, Any]) -> None:
        where = "AudioField"
        check_keys(meta, _FORM_KEYS, where)
        n_samples = check_count(meta["n_samples"], "n_samples", where)
        channels = check_count(meta["channels"], "channels", where)
        rate = check_number(meta["rate"], "rate", where, LEAST_RATE, MOST_RATE)
        is_flat = meta["is_flat"]
        if (
            meta["dtype"] not in DTYPES
            or n_samples * channels > MOST_SAMPLES
            or channels > MOST_CHANNELS
            or not isinstance(is_flat, bool)
            or (is_flat and channels != 1)
        ):
            raise DataError(f"{where}: expected a sound that can be, got {meta!r:.100}.")
        self._form = AudioForm(n_samples, channels, is_flat, rate, meta["dtype"])

    def _check_network(self, d_in: int, d_out: int) -> None:
        assert self._form is not None  # noqa: S101
        if (d_in, d_out) != (1, self._form.channels):
            raise SpecError(
                f"AudioField: expected a network of 1 coordinate and {self._form.channels} "
                f"channels, got {d_in} and {d_out}."
            )


def _mse(values: Values, signal: AudioSignal) -> float:
    total = 0.0
    for start in range(0, signal.n_rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, signal.n_rows)
        ours = signal.form.finish(values(signal.places[start:stop, None]))
        difference = ours.astype(np.float64) - signal.samples[start:stop]
        total += float(np.vdot(difference, difference))
    return total / signal.n_values


def _snr(values: Values, signal: AudioSignal) -> float:
    power = signal.power()
    return psnr_of(_mse(values, signal), math.sqrt(power)) if power else -math.inf


def _as_window(window: object, seconds: float, where: str) -> tuple[float, float]:
    if window is None:
        return 0.0, seconds
    ends = tuple(window) if isinstance(window, tuple | list) else ()
    if len(ends) == 2:
        begin, end = (check_number(e, "window", where, 0.0, seconds) for e in ends)
        if begin < end:
            return begin, end
    raise DataError(
        f"{where}: expected window as (begin, end) in seconds, begin < end, got {window!r}. "
        f"The sound lasts {seconds:g} s."
    )
