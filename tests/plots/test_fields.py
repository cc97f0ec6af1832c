"""Contact sheets: spectra against closed forms and SciPy, and what a figure holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import welch

from lamina.core.errors import ShapeError
from lamina.fields import AudioField, ImageField
from lamina.plots import style
from lamina.plots.fields import line_spectrum, plot_image_field, radial_spectrum


@pytest.mark.parametrize("cycles", [(8, 0), (0, 20), (12, 9)])
def test_the_radial_spectrum_peaks_where_a_wave_is(cycles: tuple[int, int]) -> None:
    n = 128
    i, j = np.mgrid[:n, :n] / n
    wave = np.cos(2 * np.pi * (cycles[0] * i + cycles[1] * j))[:, :, None]
    frequency, power = radial_spectrum(wave)
    wanted = np.hypot(*cycles) / n
    assert abs(frequency[np.argmax(power)] - wanted) < 1.5 / n + (frequency[1] - frequency[0]) / 2
    assert power.max() > 1e3 * np.median(power)


def test_the_radial_spectrum_of_noise_is_flat_at_its_variance() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (256, 200, 3))
    _, power = radial_spectrum(noise)
    assert np.abs(power[5:] / 4 - 1).max() < 0.25


def test_the_line_spectrum_is_welchs() -> None:
    samples = np.random.default_rng(0).normal(size=20000).cumsum() / 50
    frequency, power = line_spectrum(samples, 8000.0)
    hann = np.sin(np.pi * (np.arange(2048) + 0.5) / 2048) ** 2
    theirs, density = welch(
        samples, 8000.0, window=hann, noverlap=1024, detrend=False, return_onesided=False
    )
    assert np.allclose(frequency[:-1], theirs[1:1024])
    assert np.allclose(power[:-1], density[1:1024] * 8000.0)


def titles(figure: Any) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_a_picture_has_its_contact_sheet() -> None:
    i, j = np.mgrid[:30, :40]
    pixels = (127 + 60 * np.sin(i / 3) + 60 * np.cos(j / 4)).astype(np.uint8)
    for array in (pixels, np.dstack([pixels] * 4)):
        field = ImageField(rng=0).fit(array, max_steps=200)
        figure = field.plot(array)
        assert titles(figure) == ["Signal", "Field", "Error, mean of channels", "Spectrum"]
        assert f"{field.psnr(array):.2f} dB" in figure.get_suptitle()
        shown = figure.axes[2].images[0].get_array()
        error = np.abs(array.astype(float) - field.render()) / 255
        assert np.allclose(shown, error if error.ndim == 2 else error.mean(axis=2), atol=1e-6)
        assert style.to_png(figure)[:4] == b"\x89PNG"
    with pytest.raises(ShapeError):
        field.plot(pixels)


def test_a_sound_has_its_contact_sheet() -> None:
    sound = 0.5 * np.sin(np.arange(3000) / 9)
    field = AudioField(rng=0).fit(sound, rate=8000, max_steps=200)
    figure = field.plot(sound)
    assert titles(figure) == ["Signal", "Field, where it is loudest", "Error", "Spectrum"]
    assert f"{field.snr(sound):.2f} dB SNR" in figure.get_suptitle()
    assert b"<svg" in style.to_svg(figure)


def test_large_pictures_are_thinned() -> None:
    pixels = np.random.default_rng(0).uniform(size=(1700, 20, 1))
    figure = plot_image_field(pixels, pixels, psnr=np.inf, title="t")
    assert figure.axes[0].images[0].get_array().shape[0] <= 800
