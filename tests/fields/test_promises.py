"""What docs/fields.md promises, on a made-up photograph and chord."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.interpolate import griddata
from scipy.ndimage import gaussian_filter

import lamina
from lamina.fields import AudioField, ImageField

Array = np.ndarray[Any, Any]
PAGE = Path(__file__).parents[2] / "docs" / "fields.md"


def photograph(side: int = 160) -> Array:
    """Discs with shading, sharp edges and, in places, texture: spectra like a photograph's."""
    rng = np.random.default_rng(1)
    i, j = np.mgrid[:side, :side] / side
    image = 0.4 + 0.2 * np.stack([i, j, 1 - i], axis=2)
    for _ in range(40):
        y, x, r = *rng.uniform(0, 1, 2), rng.uniform(0.02, 0.2)
        shade = 1 + 0.5 * (j - x) / r
        disc = np.hypot(i - y, j - x) < r
        image[disc] = (rng.uniform(0.1, 0.9, 3) * shade[:, :, None])[disc]
    image = gaussian_filter(image, (0.7, 0.7, 0))
    grain = gaussian_filter(rng.normal(0, 1, (side, side)), 0.8)[:, :, None]
    image += 0.06 * grain * (np.hypot(i - 0.3, j - 0.3) < 0.3)[:, :, None]
    return (255 * np.clip(image, 0, 1)).astype(np.uint8)


def psnr(a: Array, b: Array) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2))


def test_half_a_parameter_a_value_beats_the_shrunk_picture_by_3_db() -> None:
    pixels = photograph()
    side = len(pixels)
    small = Image.fromarray(pixels).resize((round(side * math.sqrt(0.5)),) * 2, Image.LANCZOS)
    shrunk = psnr(np.asarray(small.resize((side, side), Image.BICUBIC)), pixels)
    field = ImageField(rng=0).fit(pixels, max_steps=3000, params_per_value=0.5)
    assert field.n_params <= pixels.size / 2
    assert field.psnr(pixels) > shrunk + 3


def test_between_known_pixels_it_is_as_good_as_cubic_interpolation() -> None:
    pixels = photograph()
    i, j = np.mgrid[: len(pixels), : len(pixels)]
    mask = (i + j) % 2 == 0
    known = np.stack([i[mask], j[mask]], axis=1)
    filled = griddata(known, pixels[mask].astype(float), (i[~mask], j[~mask]), method="cubic")
    inside = np.isfinite(filled).all(axis=1)
    cubic = psnr(np.clip(filled[inside], 0, 255), pixels[~mask][inside])
    field = ImageField(rng=0).fit(pixels, max_steps=2500, mask=mask)
    assert field.psnr(pixels, mask=~mask) > cubic


def test_waves_learn_what_plain_relu_does_not() -> None:
    pixels = photograph(64)
    scores = {
        preset: ImageField(preset, rng=0).fit(pixels, max_steps=1500).report.psnr
        for preset in ("relu", "fourier", "siren", "hash")
    }
    assert min(scores["fourier"], scores["siren"], scores["hash"]) > scores["relu"] + 2


def test_a_sound_at_half_a_parameter_a_sample() -> None:
    t = np.arange(40_000) / 16_000
    notes = [np.sin(2 * np.pi * f * t) * np.exp(-2 * (t % 0.5)) for f in (147.0, 220.0, 587.0)]
    sound = (0.3 * sum(notes)).astype(np.float32)
    field = AudioField(rng=0).fit(sound, rate=16_000, max_steps=3000)
    assert field.n_params <= sound.size / 2
    assert field.snr(sound) > 30


@pytest.mark.parametrize("k", [1, 2])
def test_the_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    monkeypatch.chdir(tmp_path)
    block = PAGE.read_text(encoding="utf-8").split("```python\n")[k].partition("```")[0]
    exec(compile(block, str(PAGE), "exec"), {"__name__": "__main__"})
    assert (tmp_path / "waves.lamina").exists() == (k == 1)


def test_frozen_files_of_version_1_load_for_ever() -> None:
    folder = Path(__file__).parents[1] / "fixtures"
    known = json.loads((folder / "fields_v1.json").read_text(encoding="utf-8"))
    image, audio = (lamina.load(folder / f"{kind}_field_v1.lamina") for kind in ("image", "audio"))
    # Rounding differs between instruction sets, by some eps of the largest value
    assert np.abs(image(known["places"]) - known["colours"]).max() < 1e-2
    assert np.abs(audio(known["times"]) - known["amplitudes"]).max() < 1.0
    assert [list(image.shape), str(image.dtype)] == known["form"]
    assert image.report.psnr == pytest.approx(known["psnr"])
    assert audio.rate == known["rate"]
    assert image.render().shape == tuple(known["form"][0])


def test_frozen_solids_and_scenes_of_version_1_load_for_ever() -> None:
    folder = Path(__file__).parents[1] / "fixtures"
    known = json.loads((folder / "solids_v1.json").read_text(encoding="utf-8"))
    shape = lamina.load(folder / "shape_field_v1.lamina")
    scene = lamina.load(folder / "radiance_field_v1.lamina")
    assert np.abs(shape(known["places"]).ravel() - known["distances"]).max() < 1e-4
    density, colours = scene(known["places"], known["directions"])
    assert np.allclose(density, known["densities"], rtol=1e-3)
    assert np.abs(colours - known["colours"]).max() < 1e-3
    difference = np.abs(scene.render(1).astype(int) - np.array(known["picture"]))
    assert difference.max() <= 3
