"""VolumeField: grids within a bound, read in parts, on every instruction set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

import lamina
from lamina.core import modelfile
from lamina.core.errors import DataError, LaminaError, ModelFileError, ShapeError, SpecError
from lamina.fields import VolumeField
from lamina.fields.volume import DTYPES, VolumeSignal

Array = np.ndarray[Any, Any]
FIXTURES = Path(__file__).parents[1] / "fixtures"


def waves(shape: tuple[int, ...], noise: float = 0.05, seed: int = 0) -> Array:
    """Smooth waves with some noise, in [-1, 1] about."""
    axes = np.meshgrid(*(np.arange(n) / 9.0 for n in shape), indexing="ij", sparse=True)
    values = sum(np.sin(a * (1 + 0.3 * i) + i) for i, a in enumerate(axes)) / len(shape)
    return np.asarray(values + noise * np.random.default_rng(seed).normal(size=shape))


def as_dtype(values: Array, dtype: str) -> Array:
    if dtype.startswith("f"):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    scale = min(float(limits.max), 1e6) / 2.0
    offset = scale if dtype.startswith("u") else 0.0
    return np.clip(np.rint(values * scale * 0.8 + offset), limits.min, limits.max).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_sample_is_farther_off_than_the_bound(dtype: str) -> None:
    volume = as_dtype(waves((17, 30, 41)), dtype)
    span = float(volume.max()) - float(volume.min())
    field = VolumeField(rng=0).fit(volume, max_relative_error=3e-3)
    found = field.render()
    assert (found.shape, found.dtype) == (volume.shape, volume.dtype)
    off = float(np.abs(found.astype(np.longdouble) - volume.astype(np.longdouble)).max())
    assert 0 < off <= 3e-3 * span or (dtype in ("uint8", "int8") and off <= 3e-3 * span)
    assert field.check(volume) == pytest.approx(off, rel=1e-12)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 40, 33), (9, 64, 7), (33, 34, 41), (5, 20, 21, 3), (6, 7, 19, 18)],
)
def test_a_bound_holds_for_every_shape(shape: tuple[int, ...]) -> None:
    volume = waves(shape).astype(np.float32)
    field = VolumeField(rng=0).fit(volume, max_error=0.01)
    assert np.abs(field.render() - volume).max() <= 0.01


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_whole_numbers_are_exact_below_a_bound_of_one(dtype: str) -> None:
    volume = as_dtype(waves((20, 20, 20)), dtype)
    field = VolumeField(rng=0).fit(volume, max_error=0.9)
    np.testing.assert_array_equal(field.render(), volume)


def test_values_far_from_zero_and_near_each_other() -> None:
    volume = (2**40 + 20 * waves((12, 12, 12))).astype(np.int64)
    field = VolumeField(rng=0).fit(volume, max_error=0.5)
    np.testing.assert_array_equal(field.render(), volume)
    heights = 1e6 + waves((12, 12, 12))
    assert np.abs(VolumeField(rng=0).fit(heights, max_error=1e-6).render() - heights).max() <= 1e-6


def test_parts_are_what_the_whole_has_there() -> None:
    volume = waves((40, 50, 70)).astype(np.float32)
    field = VolumeField(rng=0).fit(volume, max_error=1e-2)
    plain = VolumeField(rng=0).fit(volume, max_steps=20, n_params=2000)
    parts: list[Any] = [
        5,
        -1,
        (slice(None), 3),
        (..., 7),
        (slice(10, 30, 3), slice(40, 2, -2), slice(None, None, -1)),
        (slice(5, 5), 2),
        (1, 2, 3),
        ...,
    ]
    for each in (field, plain):
        whole = each.render()
        for part in parts:
            np.testing.assert_array_equal(each[part], whole[part])


def test_a_slice_decodes_the_blocks_that_it_meets_and_no_others() -> None:
    volume = waves((64, 64, 80)).astype(np.float32)
    made = VolumeField(rng=0).fit(volume, max_error=1e-2)
    for part, wanted in (((50,), 6), ((slice(None), 0, 0), 2), ((1, 2, 3), 1), ((..., 79), 4)):
        field = VolumeField.from_file_parts(*parts_of(made))
        assert np.abs(field[part] - volume[part]).max() <= 1e-2
        assert field.residual is not None
        assert field.residual.n_blocks_read == wanted
    field.slice("z", 0.99)
    assert field.residual.n_blocks_read == 4 + 6 - 2


def parts_of(field: VolumeField) -> tuple[dict[str, Any], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "v.lamina"
        field.save(target)
        return modelfile.read(target)[1:]


def test_between_samples_it_is_multilinear() -> None:
    volume = waves((12, 20, 30)).astype(np.float64)
    field = VolumeField(rng=0).fit(volume, max_error=0.02)
    stored = field.render()
    places = [(2 * np.arange(n) + 1) / n - 1 for n in volume.shape]
    oracle = RegularGridInterpolator(places, stored)
    rng = np.random.default_rng(1)
    x = rng.uniform(-0.9, 0.9, (300, 3)).astype(np.float32)
    np.testing.assert_allclose(field(x)[:, 0], oracle(x[:, ::-1].astype(float)), atol=2e-5)
    h = 1e-3
    slopes = field.gradient(x)[:, 0]
    for axis in range(3):
        step = np.eye(3)[axis] * h
        low, high = ((x + s).astype(np.float64)[:, ::-1] for s in (-step, step))
        difference = (oracle(high) - oracle(low)) / (2 * h)
        # Not where a step crosses a sample, at which slopes jump
        same = np.abs(difference - slopes[:, axis]) < 1e-3 * np.abs(slopes).max()
        assert same.mean() > 0.9
    big = field.render((24, 40, 60), window=(-0.8, -0.8, -0.8, 0.8, 0.8, 0.8))
    axes = [0.8 * ((2 * np.arange(n) + 1) / n - 1) for n in big.shape]
    wanted = oracle(np.stack(np.meshgrid(*axes, indexing="ij"), axis=3))
    np.testing.assert_allclose(big, np.clip(wanted, volume.min(), volume.max()), atol=2e-5)
    np.testing.assert_allclose(
        field.slice("y", 0.3)[4], oracle([[places[0][4], 0.3, x] for x in places[2]]), atol=2e-5
    )


def test_missing_samples_stay_missing_and_cost_nothing_elsewhere() -> None:
    volume = waves((40, 40, 40), noise=0.0).astype(np.float32)
    i, j, k = np.mgrid[:40, :40, :40]
    hole = (i - 20) ** 2 + (j - 20) ** 2 + (k - 12) ** 2 < 150
    hole[:, :8] = True
    holey = np.where(hole, np.nan, volume)
    field = VolumeField(rng=0).fit(holey, max_error=1e-3)
    found = field.render()
    np.testing.assert_array_equal(np.isnan(found), hole)
    assert np.abs(found - volume)[~hole].max() <= 1e-3
    np.testing.assert_array_equal(np.isnan(field[:, 10]), hole[:, 10])
    assert field.n_bytes < 1.3 * VolumeField(rng=0).fit(volume, max_error=1e-3).n_bytes
    assert np.isnan(field([[(2 * 12 + 1) / 40 - 1, 0.0, 0.0]])).all()
    trained = VolumeField(rng=0).fit(holey, max_steps=50, n_params=2000)
    np.testing.assert_array_equal(np.isnan(trained.render()), hole)
    assert trained.psnr(holey) == pytest.approx(trained.report.psnr)
    whole = np.ma.array((1000 * volume).astype(np.int16), mask=hole, fill_value=-32768)
    kept = VolumeField(rng=0).fit(whole, max_error=2)
    assert (kept.render()[hole] == -32768).all()
    assert np.abs(kept.render().astype(int) - whole).max() <= 2
    with pytest.raises(DataError, match="all are missing"):
        VolumeField().fit(np.full((8, 8, 8), np.nan), max_error=1)


def test_a_network_learns_a_grid_x_first() -> None:
    z, y, x = np.mgrid[:24, :32, :40]
    volume = (x + 100 * y + 10_000 * z).astype(np.float32)
    field = VolumeField("hash", rng=0).fit(volume, max_steps=2500, params_per_value=0.3)
    assert field.report.psnr > 40
    places = [[(2 * 30 + 1) / 40 - 1, (2 * 5 + 1) / 32 - 1, (2 * 20 + 1) / 24 - 1]]
    assert field(places)[0, 0] == pytest.approx(volume[20, 5, 30], rel=0.03)
    assert field.n_params <= 0.3 * volume.size
    slope = field.gradient(places)[0, 0]
    assert slope[2] > 10 * abs(slope[0])


def test_four_axes_are_a_time_series_or_channels() -> None:
    series = waves((6, 9, 10, 11)).astype(np.float32)
    with pytest.raises(SpecError, match="siren"):
        VolumeField("hash").fit(series, max_steps=10)
    field = VolumeField("siren", rng=0).fit(series, max_steps=200, n_params=600)
    assert field.form.axes == "tzyx"
    assert field([[0.1, 0.2, 0.3, 0.4]]).shape == (1, 1)
    assert field.slice(("t", "z"), (0.0, 0.5)).shape == (10, 11)
    colours = VolumeField(rng=0).fit(series[:, :, :, :3], max_error=0.01)
    assert (colours.form.axes, colours.form.channels) == ("zyx", 3)
    assert colours[2, 3].shape == (10, 3)
    named = VolumeField(rng=0).fit(series, max_error=0.01, axes="zyxc")
    assert named.form.channels == 11


def test_a_trained_network_with_a_bound() -> None:
    volume = waves((24, 24, 24), noise=0.0).astype(np.float32)
    field = VolumeField("siren", rng=0).fit(volume, max_error=2e-3, n_params=800, max_steps=800)
    assert np.abs(field.render() - volume).max() <= 2e-3
    assert field.report.n_steps == 800


def test_the_bound_holds_on_every_instruction_set_and_number_of_threads() -> None:
    known = json.loads((FIXTURES / "volumes_v1.json").read_text(encoding="utf-8"))
    code = (
        "import sys, json, numpy as np, lamina\n"
        "volume = np.load(sys.argv[1])\n"
        "fields = [lamina.load(path) for path in sys.argv[2:]]\n"
        "off = [np.nanmax(np.abs(f.render().astype(float) - volume)).item() for f in fields]\n"
        "print(json.dumps([lamina.info()['isa'], lamina.info()['n_threads'], off]))\n"
    )
    paths = [str(FIXTURES / f"volume_field_{name}_v1.lamina") for name in known["samples"]]
    isas = lamina.info()["isas"]
    for isa, threads in [*((isa, 1) for isa in isas), (isas[-1], 2)]:
        ran = subprocess.run(
            [sys.executable, "-c", code, str(FIXTURES / "volume_v1.npy"), *paths],
            env={**os.environ, "LAMINA_ISA": isa, "LAMINA_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        )
        used, n_threads, off = json.loads(ran.stdout)
        assert (used, n_threads) == (isa, threads)
        assert 0 < max(off) <= known["max_error"]


def test_frozen_files_hold_what_they_held() -> None:
    known = json.loads((FIXTURES / "volumes_v1.json").read_text(encoding="utf-8"))
    volume = np.load(FIXTURES / "volume_v1.npy")
    for name, samples in known["samples"].items():
        field = lamina.load(FIXTURES / f"volume_field_{name}_v1.lamina")
        assert field.check(volume) <= known["max_error"]
        np.testing.assert_allclose(field[5, 10], samples, rtol=1e-5, atol=1e-5)


def test_save_and_load_give_the_same(tmp_path: Path) -> None:
    volume = waves((20, 24, 28)).astype(np.float32)
    volume[3:5, 4:9] = np.nan
    for options in ({"max_error": 0.01}, {"max_steps": 30, "n_params": 1500}):
        field = VolumeField(rng=0).fit(volume, **options)
        field.save(tmp_path / "v.lamina")
        loaded = lamina.load(tmp_path / "v.lamina")
        np.testing.assert_array_equal(loaded.render(), field.render())
        assert (loaded.max_error, loaded.form) == (field.max_error, field.form)
        x = [[0.1, 0.2, 0.3]]
        np.testing.assert_array_equal(loaded(x), field(x))


def test_forged_files_are_refused_or_harmless(tmp_path: Path) -> None:
    volume = waves((20, 24, 28)).astype(np.float32)
    volume[3:5, 4:9] = np.nan
    field = VolumeField(rng=0).fit(volume, max_error=0.01)
    spec, arrays = parts_of(field)
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(30):
        forged = {k: a.copy() for k, a in arrays.items()}
        name = str(rng.choice(["residual.data", "residual.index", "residual.tables"]))
        forged[name][rng.integers(len(forged[name]))] ^= 1 << rng.integers(8)
        modelfile.write(tmp_path / "f.lamina", "volume_field", spec, forged)
        try:
            lamina.load(tmp_path / "f.lamina").render()
        except (ModelFileError, LaminaError):
            n_refused += 1
    assert n_refused > 25
    for key, value in (
        ("grid", [20, 24, 1 << 50]),
        ("axes", "zy"),
        ("fill", 3),
        ("dtype", "object"),
        ("max_error", None),
        ("channels", 2),
        ("low", "a"),
    ):
        bad = {**spec, "signal": {**spec["signal"], key: value}}
        modelfile.write(tmp_path / "f.lamina", "volume_field", bad, arrays)
        with pytest.raises(ModelFileError):
            lamina.load(tmp_path / "f.lamina")
    for key, value in (("unit", 0.0), ("roots", ["a"]), ("smooth", 1), ("grid", [1, 1, 1])):
        residual = {**spec["signal"]["residual"], key: value}
        bad = {**spec, "signal": {**spec["signal"], "residual": residual}}
        modelfile.write(tmp_path / "f.lamina", "volume_field", bad, arrays)
        with pytest.raises(ModelFileError):
            lamina.load(tmp_path / "f.lamina")


def test_errors_are_one_sentence_and_leave_the_field() -> None:
    volume = waves((9, 9, 9)).astype(np.float32)
    field = VolumeField(rng=0).fit(volume, max_error=0.1)
    before = field.render()
    cases: list[tuple[Any, dict[str, Any], type[LaminaError], str]] = [
        (volume[0], {}, ShapeError, "two axes are a picture"),
        (volume.astype(complex), {}, DataError, "complex"),
        (np.full((3, 3, 3), np.inf), {}, DataError, "finite"),
        (volume, {"max_error": 0.0}, SpecError, "max_error"),
        (volume, {"max_error": 1.0, "max_relative_error": 0.1}, SpecError, "both"),
        (volume, {"max_error": 1e-12}, DataError, "float32 holds"),
        (volume, {"axes": "zyy"}, ShapeError, "letter"),
        (np.array([[[{}]]]), {"max_error": 1.0}, DataError, "unpickled"),
    ]
    for signal, options, kind, text in cases:
        with pytest.raises(kind, match=text):
            field.fit(signal, **options)
    np.testing.assert_array_equal(field.render(), before)
    for index in (9, (0, 0, 0, 0), "a", (..., ...), True, [1, 2], slice("a", 2)):
        with pytest.raises(DataError, match="whole numbers and slices"):
            field[index]
    with pytest.raises(SpecError, match="one of z, y, x"):
        field.slice("q", 0.0)
    with pytest.raises(DataError, match="corner"):
        field.render(window=(0, 0, 0, 1, 1))
    with pytest.raises(DataError, match="expected errors of at most"):
        field.check(volume + 1)
    with pytest.raises(ShapeError, match="as in fit"):
        field.psnr(volume[:8])


def test_a_memory_mapped_file_is_read_where_it_lies(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", waves((16, 16, 16)).astype(">f4"))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    signal = VolumeSignal(mapped, None, "test")
    assert np.shares_memory(signal.array, mapped)
    field = VolumeField(rng=0).fit(tmp_path / "v.npy", max_error=0.01)
    assert np.abs(field.render() - mapped).max() <= 0.01


def test_progress_tells_the_psnr_of_what_is_coded() -> None:
    volume = waves((40, 70, 70, 2)).astype(np.float32)
    told: list[Any] = []
    field = VolumeField(rng=0).fit(volume, max_error=0.01, progress=told.append)
    assert [report.share for report in told] == sorted(report.share for report in told)
    assert told[-1].share == 1.0
    assert told[-1].psnr == field.report.psnr
    assert told[-2].psnr == pytest.approx(field.report.psnr, abs=0.1)
    assert told[-1].field([[0.1, 0.2, 0.3]]).shape == (1, 2)


def test_the_contact_sheet_has_three_cuts_and_spectra() -> None:
    volume = waves((9, 40, 12, 3)).astype(np.float32)
    volume[2:4, 5:9] = np.nan
    figure = VolumeField(rng=0).fit(volume, max_error=0.01).plot(volume)
    assert len(figure.axes) == 13
    assert [axes.get_ylabel() for axes in figure.axes[:12:4]] == [
        "across z",
        "across y",
        "across x",
    ]


def test_it_is_smaller_than_zfp_at_the_same_bound() -> None:
    zfpy = pytest.importorskip("zfpy")
    z, y, x = np.mgrid[-1:1:48j, -1:1:48j, -1:1:48j].astype(np.float32)
    solid = np.hypot(np.hypot(x, y) - 0.6, z) - 0.2
    noisy = (
        np.sin(6 * x) * np.cos(4 * y + z) + 0.02 * np.random.default_rng(0).normal(size=x.shape)
    ).astype(np.float32)
    for volume in (solid, noisy):
        bound = 1e-3 * float(np.ptp(volume))
        field = VolumeField(rng=0).fit(volume, max_error=bound)
        tolerance, size = 8 * bound, 0
        while True:  # the coarsest tolerance that keeps the bound
            packed = zfpy.compress_numpy(volume, tolerance=tolerance)
            if np.abs(zfpy.decompress_numpy(packed) - volume).max() <= bound:
                size = len(packed)
                break
            tolerance /= 2**0.5
        assert field.n_bytes < 0.7 * size
