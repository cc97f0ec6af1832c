"""Contact sheets of fields: the signal, the field, what differs, and both spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREY, ORANGE, plain, styled, use_log_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
MOST_SHOWN = 800  # pixels along an axis; a figure has no more
N_BINS = 60


@styled
def plot_image_field(signal: Floats, field: Floats, *, psnr: float, title: str) -> Figure:
    """Return the contact sheet of a picture.

    Parameters
    ----------
    signal, field : (height, width, channels) float64
        The picture and the field's rendering of it, black being 0 and white 1.
    psnr : float
        In dB.
    title : str
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(9.6, 7.6), layout="constrained"
    )
    grid = figure.subplots(2, 2)
    for axes, pixels, name in ((grid[0, 0], signal, "Signal"), (grid[0, 1], field, "Field")):
        axes.imshow(_colours(pixels), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name)
        axes.set_axis_off()
    error = _thin(np.abs(signal - field).mean(axis=2))
    most = float(np.quantile(error, 0.995)) or 1e-6
    shown = grid[1, 0].imshow(error, cmap="cividis", vmin=0, vmax=most, interpolation="nearest")
    grid[1, 0].set_title("Error, mean of channels")
    grid[1, 0].set_axis_off()
    bar = figure.colorbar(shown, ax=grid[1, 0], shrink=0.8)
    bar.set_label("of the range")
    bar.outline.set_visible(False)
    draw_spectra(
        grid[1, 1],
        [radial_spectrum(a) for a in (signal, field, signal - field)],
        "cycles a pixel",
    )
    figure.suptitle(plain(f"{title}, {psnr:.2f} dB", 90), x=0.01, ha="left", fontweight="bold")
    return figure


@styled
def plot_audio_field(
    signal: Floats, field: Floats, *, rate: float, snr: float, title: str
) -> Figure:
    """Return the contact sheet of a sound.

    Parameters
    ----------
    signal, field : (n, channels) float64
        The sound and the field's rendering of it, in [-1, 1].
    rate : float
        Samples a second.
    snr : float
        In dB.
    title : str
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(9.6, 7.6), layout="constrained"
    )
    grid = figure.subplots(2, 2)
    whole = (signal.mean(axis=1), field.mean(axis=1))
    loudest = int(np.argmax(np.abs(whole[0])))
    begin = max(0, loudest - int(0.005 * rate))
    part = slice(begin, begin + max(2, int(0.02 * rate)))
    seconds = np.arange(len(signal)) / rate
    grid[0, 0].plot(*_envelope(seconds, whole[0]), color=BLUE, linewidth=0.6)
    grid[0, 0].set_title("Signal")
    grid[0, 0].set_xlabel("seconds")
    for values, colour, width, name in (
        (whole[0], GREY, 3.0, "signal"),
        (whole[1], BLUE, 1.2, "field"),
    ):
        grid[0, 1].plot(
            1e3 * seconds[part], values[part], color=colour, linewidth=width, label=name
        )
    grid[0, 1].set_title("Field, where it is loudest")
    grid[0, 1].set_xlabel("milliseconds")
    grid[0, 1].legend()
    grid[1, 0].plot(*_envelope(seconds, whole[0] - whole[1]), color=ORANGE, linewidth=0.6)
    grid[1, 0].set_title("Error")
    grid[1, 0].set_xlabel("seconds")
    parts = (whole[0], whole[1], whole[0] - whole[1])
    draw_spectra(grid[1, 1], [line_spectrum(a, rate) for a in parts], "Hz")
    figure.suptitle(plain(f"{title}, {snr:.2f} dB SNR", 90), x=0.01, ha="left", fontweight="bold")
    return figure


def radial_spectrum(pixels: Floats) -> tuple[Floats, Floats]:
    """Return frequencies in cycles a pixel, and the mean power of rings around 0.

    Of the middle square, at most 1024 pixels wide, under a Hann window; channels are averaged.

    Parameters
    ----------
    pixels : (height, width, channels) float64
    """
    side = min(*pixels.shape[:2], 1024)
    top, left = ((n - side) // 2 for n in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side]
    hann = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    window = np.outer(hann, hann)[:, :, None]
    flat = (square - square.mean(axis=(0, 1))) * window
    power = (np.abs(np.fft.fft2(flat, axes=(0, 1))) ** 2).mean(axis=2) / (window**2).sum()
    axis = np.fft.fftfreq(side)
    radius = np.hypot(axis[:, None], axis[None, :])
    n_bins = max(1, min(N_BINS, side // 4))
    bins = np.minimum((radius * 2 * n_bins).astype(int), n_bins)  # the last: beyond 1/2
    total = np.bincount(bins.ravel(), power.ravel(), n_bins + 1)[:n_bins]
    count = np.bincount(bins.ravel(), minlength=n_bins + 1)[:n_bins]
    middle = (np.arange(n_bins) + 0.5) / (2 * n_bins)
    return middle, total / np.maximum(count, 1)


def line_spectrum(samples: Floats, rate: float) -> tuple[Floats, Floats]:
    """Return frequencies in Hz, and the mean power of segments of at most 2048 samples (Welch)."""
    size = min(2048, len(samples))
    hann = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    starts = range(0, len(samples) - size + 1, max(1, size // 2))
    power: Floats = np.zeros(size // 2 + 1)
    for start in starts:
        power += np.abs(np.fft.rfft(samples[start : start + size] * hann)) ** 2
    power /= len(starts) * (hann**2).sum()
    power = np.asarray(power[1:], np.float64)
    return np.asarray(np.arange(1, len(power) + 1) * (rate / size), np.float64), power


def draw_spectra(axes: Axes, spectra: list[tuple[Floats, Floats]], unit: str) -> None:
    """Draw the spectra of signal, field and error."""
    looks: list[tuple[str, dict[str, Any]]] = [
        ("signal", {"color": GREY, "linewidth": 3.0}),
        ("field", {"color": BLUE, "linewidth": 1.4}),
        ("error", {"color": ORANGE, "linewidth": 1.4}),
    ]
    for (frequency, power), (name, look) in zip(spectra, looks, strict=True):
        decibels = 10 * np.log10(np.maximum(power, 1e-16))
        axes.plot(frequency, decibels, label=name, **look)
    use_log_scale(axes.xaxis)
    axes.set_title("Spectrum")
    axes.set_xlabel(unit)
    axes.set_ylabel("power, dB")
    axes.grid(visible=True)
    axes.legend()


def _colours(pixels: Floats) -> Floats:
    """Return pixels as imshow draws them: grey, or colours on white where they are transparent."""
    thin = np.clip(_thin(pixels), 0.0, 1.0)
    if thin.shape[2] in (2, 4):
        thin = thin[:, :, :-1] * thin[:, :, -1:] + 1.0 - thin[:, :, -1:]
    return thin[:, :, 0] if thin.shape[2] == 1 else thin


def _thin(pixels: Floats) -> Floats:
    """Leave out rows and columns that a figure has no room for."""
    step = -(-max(pixels.shape[:2]) // MOST_SHOWN)
    return pixels[::step, ::step]


def _envelope(seconds: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the extremes of 1000 parts: what a figure can show of a sound."""
    size = -(-len(values) // 1000)
    if size < 4:
        return seconds, values
    n = len(values) // size
    parts = values[: n * size].reshape(n, size)
    both = np.stack([parts.min(axis=1), parts.max(axis=1)], axis=1).ravel()
    return np.repeat(seconds[: n * size : size], 2), both
