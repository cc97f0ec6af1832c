"""Grids from NumPy, NetCDF, Zarr and TIFF, and into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lamina.core.errors import DataError, ModelFileError
from lamina.fields import VolumeField, read_volume, write_volume

VOLUME = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)


def netcdf(path: Path, **attributes: Any) -> None:
    import netCDF4

    with netCDF4.Dataset(path, "w") as dataset:
        for letter, n in zip("tyx", VOLUME.shape, strict=True):
            dataset.createDimension(letter, n)
        held = dataset.createVariable("temperature", "i2", tuple("tyx"), fill_value=-9)
        held.setncatts(attributes)
        held[...] = np.ma.array(VOLUME * 1.0, mask=VOLUME % 10 == 3)
        dataset.createVariable("x", "f4", ("x",))[:] = np.arange(7)


@pytest.mark.parametrize("suffix", [".npy", ".nc", ".zarr", ".tif"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = tmp_path / f"v{suffix}"
    write_volume(path, VOLUME.astype(dtype)[:, ::-1], "tyx")
    found = read_volume(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, VOLUME[:, ::-1])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_npy_is_mapped_rather_than_read(tmp_path: Path) -> None:
    write_volume(tmp_path / "v.npy", VOLUME)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), VOLUME)
    assert isinstance(read_volume(tmp_path / "v.npy").base, np.memmap)


def test_netcdf_is_scaled_and_masked_and_fitted_with_gaps(tmp_path: Path) -> None:
    netcdf(tmp_path / "v.nc", scale_factor=0.5, add_offset=10.0)
    found = read_volume(tmp_path / "v.nc")
    np.testing.assert_array_equal(np.ma.getmaskarray(found), VOLUME % 10 == 3)
    np.testing.assert_allclose(found.compressed(), VOLUME[VOLUME % 10 != 3].astype(float))
    field = VolumeField(rng=0).fit(tmp_path / "v.nc", max_error=0.25, axes="tyx")
    rendered = field.render()
    np.testing.assert_array_equal(np.isnan(rendered), VOLUME % 10 == 3)
    assert np.abs(rendered - found).max() <= 0.25
    write_volume(tmp_path / "back.nc", rendered, field.form.axes)
    np.testing.assert_array_equal(
        np.ma.getmaskarray(read_volume(tmp_path / "back.nc")), VOLUME % 10 == 3
    )


def test_groups_and_names(tmp_path: Path) -> None:
    import zarr

    for version in (2, 3):
        path = tmp_path / f"{version}.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=version)
        group.create_array("a/b", data=VOLUME)
        np.testing.assert_array_equal(read_volume(path), VOLUME)
        group.create_array("c", data=VOLUME)
        with pytest.raises(DataError, match=r"a/b \(5, 6, 7\), c"):
            read_volume(path)
        np.testing.assert_array_equal(read_volume(path, "a/b"), VOLUME)
    np.savez(tmp_path / "v.npz", a=VOLUME, b=VOLUME[0])
    np.testing.assert_array_equal(read_volume(tmp_path / "v.npz"), VOLUME)
    np.testing.assert_array_equal(read_volume(tmp_path / "v.npz", "b"), VOLUME[0])


def test_damaged_and_strange_files_are_one_sentence(tmp_path: Path) -> None:
    write_volume(tmp_path / "v.npy", VOLUME)
    netcdf(tmp_path / "v.nc")
    np.savez(tmp_path / "v.npz", a=VOLUME)
    write_volume(tmp_path / "v.tif", VOLUME)
    for name in ("v.npy", "v.nc", "v.npz", "v.tif"):
        cut = tmp_path / f"cut{Path(name).suffix}"
        data = (tmp_path / name).read_bytes()
        for n in (0, 1, 60, 300):
            cut.write_bytes(data[:n])
            with pytest.raises(DataError, match=r"got: |expected an array"):
                read_volume(cut)
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", a=np.array([{}], object), allow_pickle=True)
    for name in ("o.npy", "o.npz"):
        with pytest.raises(DataError, match="never unpickled"):
            read_volume(tmp_path / name, "a" if name.endswith("z") else None)
    (tmp_path / "e.zarr").mkdir()
    for name, text in (
        ("e.zarr", "Get the file again"),
        ("none.npy", "got none"),
        ("v.xyz", "expected a grid"),
        ("v.zarr", "expected a folder"),
    ):
        with pytest.raises(DataError, match=text):
            read_volume(tmp_path / name)
    for name in ("v.npz", "v.nc"):
        with pytest.raises(DataError, match="expected an array 'q'"):
            read_volume(tmp_path / name, "q")
    with pytest.raises(DataError, match="no variable"):
        read_volume(tmp_path / "v.npy", "q")


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.zarr").mkdir()
    with pytest.raises(DataError, match="exists"):
        write_volume(tmp_path / "old.zarr", VOLUME)
    with pytest.raises(DataError, match="ends in"):
        write_volume(tmp_path / "v.xyz", VOLUME)
    for suffix in (".npy", ".nc", ".tif"):
        with pytest.raises(ModelFileError, match="can be written"):
            write_volume(tmp_path / "no" / f"v{suffix}", VOLUME)
    assert [p.name for p in tmp_path.iterdir()] == ["old.zarr"]
