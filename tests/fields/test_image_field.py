"""ImageField: what is rendered, measured, differentiated, stored, refused."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

import lamina
from lamina.core.errors import DataError, LaminaError, ModelFileError, ShapeError, SpecError
from lamina.fields import FieldReport, FitProgress, ImageField

Array = np.ndarray[Any, Any]


def waves(height: int = 48, width: int = 64, channels: int = 3) -> Array:
    """Smooth waves in (0, 1), each channel another."""
    i, j = np.mgrid[:height, :width]
    parts = [np.sin(i / (3.0 + k)) * np.cos(j / (4.0 + k)) for k in range(channels)]
    return 0.5 + 0.45 * np.stack(parts, axis=2)


def as_type(values: Array, dtype: str) -> Array:
    most = np.iinfo(dtype).max if dtype.startswith("u") else 1
    return (values * most).astype(dtype)


@pytest.fixture(scope="module")
def fitted() -> tuple[ImageField, Array]:
    pixels = as_type(waves(), "uint8")
    return ImageField(rng=0).fit(pixels, max_steps=1500, params_per_value=1), pixels


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16"])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
def test_a_rendering_has_the_shape_type_and_range_of_the_signal(dtype: str, channels: int) -> None:
    pixels = as_type(waves(20, 24, max(channels, 1)), dtype)
    pixels = pixels[:, :, 0] if channels == 0 else pixels
    field = ImageField(rng=0).fit(pixels, max_steps=300, params_per_value=1.5)
    assert field.shape == pixels.shape
    for size in ((), (31, 17)):
        shown = field.render(*size)
        assert shown.dtype == pixels.dtype
        assert shown.shape == (size or (20, 24)) + pixels.shape[2:]
    shown = field.render()
    assert shown.min() >= pixels.min() - 0.1 * np.ptp(pixels)
    error = shown.astype(float) - pixels
    assert np.sqrt(np.mean(error**2)) < 0.05 * field.form.high


def test_psnr_is_that_of_the_rendering(fitted: tuple[ImageField, Array]) -> None:
    field, pixels = fitted
    mse = np.mean((field.render().astype(float) - pixels) ** 2)
    assert field.psnr(pixels) == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-9)
    assert field.report.psnr == field.psnr(pixels)
    assert field.psnr(pixels) > 35
    assert field.psnr(field.render()) == np.inf
    mask = np.zeros(pixels.shape[:2], bool)
    mask[3:9, 5:20] = True
    mse = np.mean((field.render().astype(float) - pixels)[mask] ** 2)
    assert field.psnr(pixels, mask=mask) == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-9)


def test_psnr_of_floats_is_relative_to_their_range() -> None:
    pixels = waves(24, 24, 1)[:, :, 0] * 7 - 3
    field = ImageField(rng=0).fit(pixels, max_steps=200, params_per_value=1)
    mse = np.mean((field.render() - pixels) ** 2)
    assert field.psnr(pixels) == pytest.approx(10 * np.log10(np.ptp(pixels) ** 2 / mse), abs=1e-9)


def test_coordinates_are_pixel_centres_x_to_the_right_and_y_down(
    fitted: tuple[ImageField, Array],
) -> None:
    field, pixels = fitted
    height, width = pixels.shape[:2]
    for i, j in ((0, 0), (7, 40), (47, 63), (30, 2)):
        place = [(2 * j + 1) / width - 1, (2 * i + 1) / height - 1]
        value = field([place])[0]
        assert np.array_equal(np.rint(np.clip(value, 0, 255)), field.render()[i, j])
        assert np.abs(value - pixels[i, j]).max() < 12
    grid = np.zeros((2, 3, 2))
    assert field(grid).shape == (2, 3, 3)
    assert np.array_equal(field(grid)[1, 2], field(grid[0])[0])


def test_the_gradient_agrees_with_finite_differences() -> None:
    pixels = as_type(waves(32, 32, 2), "float64")
    field = ImageField("siren", rng=0).fit(pixels, max_steps=600, params_per_value=1)
    places = np.random.default_rng(0).uniform(-0.9, 0.9, (20, 2))
    gradient = field.gradient(places)
    assert gradient.shape == (20, 2, 2)
    step = 1e-2
    for axis in range(2):
        move = step * np.eye(2)[axis]
        slope = (field(places + move).astype(float) - field(places - move)) / (2 * step)
        # Central differences of float32: curvature step^2 / 6 and rounding 1e-7 / step
        assert np.abs(slope - gradient[:, :, axis]).max() < 0.03 * np.abs(gradient).max()
    # The signal's own slope: a wave of 1 / 3 radian a pixel, 16 pixels a unit
    i, j = np.mgrid[:32, :32]
    slope = 0.45 * 16 * np.cos(i / 3.0) / 3.0 * np.cos(j / 4.0)
    centres = (2 * np.stack([j, i], axis=2) + 1) / 32 - 1
    inner = field.gradient(centres)[4:-4, 4:-4, 0, 1] - slope[4:-4, 4:-4]
    assert np.sqrt(np.mean(inner**2)) < 0.15 * slope.std()


def test_windows_and_zooms_show_the_same_function(fitted: tuple[ImageField, Array]) -> None:
    field, _ = fitted
    whole = field.render(96, 128)
    quarter = field.render(48, 64, window=(-1, -1, 0, 0))
    assert np.abs(whole[:48, :64].astype(int) - quarter).max() <= 1
    lower_right = field.render(window=(0, 0.5, 1, 1))
    assert lower_right.shape == (12, 32, 3)
    assert np.abs(field.render()[36:, 32:].astype(int) - lower_right).max() <= 1
    assert field.render(width=32).shape == (24, 32, 3)
    assert field.render(height=96).shape == (96, 128, 3)
    # Zoomed by four it interpolates as a cubic spline of the pixels would, within the fit's error
    zoomed = field.render(192, 256, window=(-1, -1, 1, 1))[..., 0].astype(float)
    i, j = (np.arange(192) + 0.5) / 4 - 0.5, (np.arange(256) + 0.5) / 4 - 0.5
    spline = map_coordinates(
        as_type(waves(), "uint8")[..., 0].astype(float), np.meshgrid(i, j, indexing="ij")
    )
    assert np.sqrt(np.mean((zoomed - spline)[8:-8, 8:-8] ** 2)) < 6


def test_the_budget_is_kept_and_nearly_used() -> None:
    pixels = as_type(waves(64, 64, 3), "uint8")
    for share in (0.1, 0.25, 0.5, 1.0, 2.0):
        for preset in ("hash", "fourier", "siren", "relu"):
            field = ImageField(preset, rng=0).fit(pixels, max_steps=1, params_per_value=share)
            assert 0.5 * share * pixels.size <= field.n_params <= share * pixels.size
    assert ImageField(rng=0).fit(pixels, max_steps=1, n_params=1000).n_params <= 1000
    assert ImageField(rng=0).fit(pixels, max_steps=1).n_params <= pixels.size / 2


def test_no_grid_is_as_fine_as_the_pixels() -> None:
    for height, width in ((40, 90), (16, 16), (128, 100)):
        pixels = as_type(waves(height, width), "uint8")
        field = ImageField(rng=0).fit(pixels, max_steps=1, params_per_value=1)
        grid = field.network.encoding
        assert isinstance(grid, lamina.HashGrid)
        assert max(grid.resolutions()) <= 0.8 * min(height, width)


def test_same_seed_same_bits_and_a_run_that_time_ended_is_repeated() -> None:
    pixels = as_type(waves(), "uint8")

    def theta(**options: Any) -> tuple[Array, FieldReport]:
        field = ImageField(rng=options.pop("rng", 3)).fit(pixels, **options)
        return field.network.theta, field.report

    first, report = theta(max_steps=200)
    assert report.n_steps == 200
    assert report.stopped == "max_steps"
    assert np.array_equal(first, theta(max_steps=200)[0])
    assert not np.array_equal(first, theta(max_steps=200, rng=4)[0])
    timed, report = theta(max_seconds=0.3)
    assert report.stopped == "max_seconds"
    again, repeated = theta(repeat=report, rng=9)  # the report's seed counts
    assert np.array_equal(timed, again)
    assert repeated.psnr == report.psnr
    assert repeated.n_steps == report.n_steps
    assert repeated.stopped == "max_seconds"


@pytest.mark.alone
def test_time_and_target_end_a_fit() -> None:
    pixels = as_type(waves(128, 128), "uint8")
    report = ImageField(rng=0).fit(pixels, max_seconds=1.0).report
    assert report.seconds < 2.0
    assert report.stopped == "max_seconds"
    field = ImageField(rng=0).fit(pixels, max_seconds=60, target_psnr=30)
    assert field.report.stopped == "target_psnr"
    assert field.psnr(pixels) >= 30
    assert field.report.seconds < 30


def test_progress_is_live_and_can_stop(fitted: tuple[ImageField, Array]) -> None:
    _, pixels = fitted
    seen: list[FitProgress] = []

    def progress(report: FitProgress) -> bool:
        seen.append(report)
        assert report.field(np.zeros((2, 2))).shape == (2, 3)
        return len(seen) == 4

    field = ImageField(rng=0).fit(pixels, max_seconds=60, progress=progress)
    assert field.report.stopped == "callback"
    assert [r.step for r in seen] == sorted({r.step for r in seen})
    assert seen[-1].psnr > seen[0].psnr
    assert field.psnr(pixels) == pytest.approx(seen[-1].psnr, abs=3)  # before and after a round
    assert 0 < seen[0].share < seen[-1].share < 1


def test_ctrl_c_keeps_the_best_so_far(fitted: tuple[ImageField, Array]) -> None:
    _, pixels = fitted
    seen: list[FitProgress] = []

    def progress(report: FitProgress) -> None:
        seen.append(report)
        if len(seen) == 8:
            raise KeyboardInterrupt

    field = ImageField(rng=0).fit(pixels, max_seconds=60, progress=progress)
    assert field.report.stopped == "interrupted"
    assert field.psnr(pixels) == field.report.psnr
    assert field.psnr(pixels) > seen[-1].psnr - 4  # a round is as noisy as the rate is high


def test_a_mask_is_what_is_learnt_from() -> None:
    clean = as_type(waves(64, 64), "uint8")
    i, j = np.mgrid[:64, :64]
    mask = (i + j) % 2 == 0
    spoilt = np.where(mask[:, :, None], clean, np.uint8(255))
    options = {"max_steps": 1500, "params_per_value": 0.5, "mask": mask}
    field = ImageField(rng=0).fit(spoilt, **options)
    assert field.n_params <= 0.5 * clean.size
    assert field.psnr(clean, mask=~mask) > 28
    other = ImageField(rng=0).fit(clean, **options)
    assert np.array_equal(field.network.theta, other.network.theta)


def test_files_copies_and_pickles_hold_the_same_field(
    fitted: tuple[ImageField, Array], tmp_path: Path
) -> None:
    field, pixels = fitted
    field.save(tmp_path / "f.lamina")
    loaded = lamina.load(tmp_path / "f.lamina")
    assert type(loaded) is ImageField
    for other in (loaded, pickle.loads(pickle.dumps(field)), copy.deepcopy(field)):
        assert np.array_equal(other.render(), field.render())
        assert other.form == field.form
        assert other.report.psnr == field.report.psnr
        assert repr(other) == repr(field)
        assert other.psnr(pixels) == field.psnr(pixels)
    assert (tmp_path / "f.lamina").stat().st_size < 4 * field.n_params + 3000


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (("signal", "height"), -1),
        (("signal", "height"), 10**12),
        (("signal", "channels"), 4),
        (("signal", "dtype"), "object"),
        (("signal", "low"), "0"),
        (("signal", "is_flat"), True),
        (("signal", "extra"), 1),
        (("report", "psnr"), "good"),
        (("report", "stopped"), "x" * 1000),
        (("report", "seed"), -5),
        (("preset",), "perlin"),
        (("network", "d_in"), 3),
    ],
)
def test_a_forged_file_is_refused_in_one_sentence(
    fitted: tuple[ImageField, Array], tmp_path: Path, part: tuple[str, ...], value: object
) -> None:
    from lamina.core import modelfile

    fitted[0].save(tmp_path / "f.lamina")
    role, spec, arrays = modelfile.read(tmp_path / "f.lamina")
    inner: Any = spec
    for name in part[:-1]:
        inner = inner[name]
    inner[part[-1]] = value
    modelfile.write(tmp_path / "forged.lamina", role, spec, arrays)
    with pytest.raises(ModelFileError, match="expected"):
        lamina.load(tmp_path / "forged.lamina")


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda f: f.fit(np.zeros((3, 4, 5), np.uint8)), ShapeError, "1 to 4 channels"),
        (lambda f: f.fit(np.zeros((0, 4), np.uint8)), ShapeError, "height, width"),
        (lambda f: f.fit(np.zeros((4, 4), np.int64)), DataError, "int64"),
        (lambda f: f.fit(np.full((4, 4), np.nan)), DataError, "finite"),
        (lambda f: f.fit(np.full((4, 4), "a")), DataError, "pixels"),
        (lambda f: f.fit("no-such-file.png"), DataError, "no-such-file.png"),
        (lambda f: f.fit(np.zeros((8, 8)), mask=np.ones((8, 7), bool)), ShapeError, "mask"),
        (lambda f: f.fit(np.zeros((8, 8)), mask=np.zeros((8, 8), bool)), DataError, "True"),
        (lambda f: f.fit(np.zeros((8, 8)), max_seconds=0), SpecError, "max_seconds"),
        (lambda f: f.fit(np.zeros((8, 8)), max_steps=0), SpecError, "max_steps"),
        (lambda f: f.fit(np.zeros((8, 8)), n_params=3), SpecError, "n_params"),
        (lambda f: f.fit(np.zeros((8, 8)), n_params=99, params_per_value=1), SpecError, "both"),
        (lambda f: f.fit(np.zeros((8, 8)), progress=3), SpecError, "progress"),
        (lambda f: f.fit(np.zeros((8, 8)), repeat=3), SpecError, "report"),
        (lambda f: f.render(), SpecError, "Call fit first"),
        (lambda f: f([[0, 0]]), SpecError, "Call fit first"),
        (lambda f: f.report, SpecError, "Call fit first"),
        (lambda f: f.save("x.lamina"), SpecError, "Call fit first"),
        (lambda _: ImageField("perlin"), SpecError, "siren"),
        (lambda _: ImageField(rng=-1), SpecError, "rng"),
    ],
)
def test_what_is_refused_is_said_in_a_sentence(
    call: Any, error: type[LaminaError], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        call(ImageField(rng=0))
    assert "\n" not in str(caught.value)
    assert ": expected" in str(caught.value)


def test_sizes_and_windows_are_checked(fitted: tuple[ImageField, Array]) -> None:
    field, pixels = fitted
    for call, error in (
        (lambda: field.render(0, 5), SpecError),
        (lambda: field.render(10**9, 10**9), SpecError),
        (lambda: field.render(5, 5, window=(1, 1, 0, 0)), DataError),
        (lambda: field.render(5, 5, window=(1, 1)), DataError),
        (lambda: field([[0, 0, 0]]), ShapeError),
        (lambda: field([[0, np.nan]]), DataError),
        (lambda: field.psnr(pixels[:-1]), ShapeError),
        (lambda: field.psnr(pixels.astype(np.uint16)), ShapeError),
    ):
        with pytest.raises(error, match="expected"):
            call()


def test_a_failed_fit_leaves_the_field_as_it_was() -> None:
    pixels = as_type(waves(16, 16), "uint8")
    field = ImageField(rng=0).fit(pixels, max_steps=20)
    before = field.render()
    with pytest.raises(DataError):
        field.fit(np.full((4, 4), np.inf))
    assert np.array_equal(field.render(), before)


def test_one_pixel_and_one_colour_are_pictures() -> None:
    for pixels in (np.full((1, 1), 7, np.uint8), np.full((40, 30, 3), 200, np.uint8)):
        field = ImageField(rng=0).fit(pixels, max_steps=300, n_params=500)
        assert np.abs(field.render().astype(int) - pixels).max() <= 1


def test_a_large_picture_is_not_held_twice() -> None:
    height, width = 1500, 1600
    i, j = np.ogrid[:height, :width]
    pixels = ((i * j) % 256).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    tracemalloc.start()
    field = ImageField(rng=0).fit(pixels, max_steps=20, n_params=20_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As float32, values and coordinates would take 20 bytes a pixel: 48 MB
    assert peak < 30e6
    assert field.report.n_steps == 20
