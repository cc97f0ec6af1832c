"""Grids from files and into them: NumPy, NetCDF, Zarr, and stacks of pictures in a TIFF."""

from __future__ import annotations

import io
import logging
import os
import secrets
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.engine import require_memory
from lamina.core.errors import DataError, LaminaError, ModelFileError, require_extra
from lamina.core.modelfile import write_atomically

Array = npt.NDArray[Any]

READ: Final = (".npy", ".npz", ".nc", ".nc4", ".cdf", ".zarr", ".tif", ".tiff")
WRITTEN: Final = (".npy", ".nc", ".zarr", ".tif", ".tiff")
LEAST_AXES: Final = 3  # of what is taken for a grid where a file has several arrays
MOST_NAMES: Final = 12  # told


def read_volume(
    source: str | os.PathLike[str], variable: str | None = None, where: str = "read_volume"
) -> Array:
    """Read a grid.

    Parameters
    ----------
    source : str or path-like
        .npy, which is mapped into memory rather than read; .npz; .nc (NetCDF 3 and 4); .zarr (a
        folder, version 2 or 3); .tif, whose pages are the first axis.
    variable : str, optional
        Which array, in a file that has several; in groups, with slashes between. None: the only
        one, or the only one of at least three axes.
    where : str
        The start of error sentences.

    Returns
    -------
    array : array, or masked array
        Of NetCDF, missing values (_FillValue, missing_value, valid_range) are masked, and
        scale_factor and add_offset applied.

    Raises
    ------
    DataError
        No such file or array, several to choose from, a file that is damaged, or Python objects,
        which are never unpickled.
    MissingExtraError
        netCDF4, zarr or tifffile is not installed.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix not in READ:
        raise DataError(
            f"{where}: expected a grid ({', '.join(READ)}), got {str(path)!r}. "
            "Convert it, for example with numpy.save."
        )
    if not (path.is_dir() if suffix == ".zarr" else path.is_file()):
        what = "folder" if suffix == ".zarr" else "file"
        raise DataError(f"{where}: expected a {what} {str(path)!r}, got none. Check the path.")
    try:
        return _READERS[suffix](path, variable, where)
    except (LaminaError, MemoryError):
        raise
    # Damaged files make these packages raise nearly anything
    except Exception as error:
        if "ython object" in str(error) or "Object arrays" in str(error):
            raise DataError(
                f"{where}: expected numbers in {str(path)!r}, got Python objects, which are never "
                "unpickled. Save it as an array of numbers."
            ) from error
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"{where}: expected a whole {suffix} file in {str(path)!r}, got: {reason}. "
            "Get the file again."
        ) from error


def _choose(
    found: Mapping[str, tuple[int, ...]], variable: str | None, path: Path, where: str
) -> str:
    """Return the name of the array that is meant, of names and shapes."""
    told = [f"{name} {shape}" for name, shape in found.items()]
    names = ", ".join(told[:MOST_NAMES]) + (", …" if len(told) > MOST_NAMES else "")
    if variable is not None:
        if variable not in found:
            raise DataError(
                f"{where}: expected an array {variable!r} in {str(path)!r}, got {names or 'none'}. "
                "Name one of these."
            )
        return variable
    grids = [name for name, shape in found.items() if len(shape) >= LEAST_AXES]
    if len(found) == 1 or len(grids) == 1:
        return (grids or list(found))[0]
    if not found:
        raise DataError(f"{where}: expected an array in {str(path)!r}, got none. Check the file.")
    raise DataError(
        f"{where}: expected the name of an array in {str(path)!r}, which has {names}. "
        "Choose with variable='NAME', or --variable NAME."
    )


def _read_npy(path: Path, variable: str | None, where: str) -> Array:
    if variable is not None:
        raise DataError(
            f"{where}: expected no variable with {str(path)!r}, which has one array without a "
            f"name, got {variable!r}. Leave it out."
        )
    with path.open("rb") as file:
        np.lib.format.read_magic(file)  # or np.load takes it for a pickle
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _read_npz(path: Path, variable: str | None, where: str) -> Array:
    with zipfile.ZipFile(path) as members, np.load(path, allow_pickle=False) as held:
        sizes = {m.filename.removesuffix(".npy"): m.file_size for m in members.infolist()}
        shapes = {}
        for name in held.files:
            with members.open(f"{name}.npy") as file:
                version = np.lib.format.read_magic(file)
                reader = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    reader = np.lib.format.read_array_header_2_0
                shapes[name] = reader(file)[0]
        name = _choose(shapes, variable, path, where)
        require_memory(sizes[name])
        return np.asarray(held[name])


def _read_netcdf(path: Path, variable: str | None, where: str) -> Array:
    netcdf: Any = require_extra("netCDF4", "fields")
    with netcdf.Dataset(str(path)) as dataset:
        found: dict[str, Any] = {}
        waiting = [("", dataset)]
        while waiting:
            prefix, group = waiting.pop(0)
            found |= {f"{prefix}{name}": v for name, v in group.variables.items()}
            waiting += [(f"{prefix}{name}/", g) for name, g in group.groups.items()]
        shapes = {name: tuple(v.shape) for name, v in found.items()}
        chosen = found[_choose(shapes, variable, path, where)]
        require_memory(8 * int(np.prod(chosen.shape, dtype=np.int64)))
        array: Array = chosen[...]
        return array


def _read_zarr(path: Path, variable: str | None, where: str) -> Array:
    zarr: Any = require_extra("zarr", "fields")
    held = zarr.open(str(path), mode="r")
    if hasattr(held, "shape"):
        if variable is not None:
            raise DataError(
                f"{where}: expected no variable with {str(path)!r}, which is one array, got "
                f"{variable!r}. Leave it out."
            )
    else:
        members = dict(sorted(held.members(max_depth=None)))
        shapes = {name: tuple(a.shape) for name, a in members.items() if hasattr(a, "shape")}
        held = members[_choose(shapes, variable, path, where)]
    require_memory(int(held.nbytes))
    return np.asarray(held[...])


def _read_tiff(path: Path, variable: str | None, where: str) -> Array:
    tifffile: Any = require_extra("tifffile", "fields")
    logger = logging.getLogger("tifffile")  # which prints what an exception says better
    was, logger.disabled = logger.disabled, True
    try:
        with tifffile.TiffFile(str(path)) as file:
            series = {str(i): tuple(s.shape) for i, s in enumerate(file.series)}
            chosen = file.series[int(_choose(series, variable, path, where))]
            n_bytes = path.stat().st_size
            for page in chosen.pages:  # which it reads as zeros where a file ends early
                ends = zip(page.dataoffsets, page.databytecounts, strict=True)
                if any(offset + size > n_bytes for offset, size in ends):
                    raise ValueError("pages beyond the end of the file")
            require_memory(int(np.prod(chosen.shape, dtype=np.int64)) * chosen.dtype.itemsize)
            return np.asarray(chosen.asarray())
    finally:
        logger.disabled = was


_READERS: Final[Mapping[str, Callable[[Path, str | None, str], Array]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".nc": _read_netcdf,
    ".nc4": _read_netcdf,
    ".cdf": _read_netcdf,
    ".zarr": _read_zarr,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
}


def write_volume(
    path: str | os.PathLike[str],
    array: Array,
    axes: str | None = None,
    fill: float | None = None,
    where: str = "write_volume",
) -> None:
    """Write a grid, all of it or nothing.

    Parameters
    ----------
    path : str or path-like
        Its ending says the format: .npy, .nc, .zarr (a folder, which must not exist) or .tif.
    array : array
    axes : str, optional
        A letter for each axis, which .nc and .zarr name their dimensions by.
    fill : float, optional
        Whole numbers of this value are missing, to .nc; of floats NaN is.
    where : str
        The start of error sentences.

    Raises
    ------
    DataError
        The format is none of these, or cannot hold such an array.
    ModelFileError
        `path` cannot be written.
    """
    suffix = check_volume_suffix(path, where)
    values = np.ascontiguousarray(array)
    letters = axes if axes is not None and len(axes) == values.ndim else "wvtzyxc"[-values.ndim :]
    if suffix == ".npy":
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(values))
        write_atomically(path, [head.getvalue(), values.reshape(-1).view(np.uint8).data], where)
        return
    target = Path(path)
    if suffix == ".zarr" and target.exists():
        raise DataError(
            f"{where}: expected a new folder, got {str(path)!r}, which exists. Remove it first."
        )
    beside = target.with_name(f".lamina-{secrets.token_hex(8)}{suffix}")
    try:
        if suffix == ".nc":
            _write_netcdf(beside, values, letters, fill)
        elif suffix == ".zarr":
            zarr: Any = require_extra("zarr", "fields")
            zarr.create_array(str(beside), data=values, dimension_names=list(letters))
        else:
            tifffile: Any = require_extra("tifffile", "fields")
            tifffile.imwrite(str(beside), values, photometric="minisblack")
        beside.replace(target)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, LaminaError):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise ModelFileError(
            f"{where}: expected a path that can be written, got: {reason}. "
            "Choose another folder or format."
        ) from error
    finally:
        with suppress(OSError):
            if beside.is_dir():
                shutil.rmtree(beside)
            else:
                beside.unlink(missing_ok=True)


def _write_netcdf(path: Path, values: Array, letters: str, fill: float | None) -> None:
    netcdf: Any = require_extra("netCDF4", "fields")
    if values.dtype == np.float16:  # which NetCDF has not
        values = values.astype(np.float32)
    missing = np.nan if values.dtype.kind == "f" else fill
    with netcdf.Dataset(str(path), "w") as dataset:
        for letter, n in zip(letters, values.shape, strict=True):
            dataset.createDimension(letter, n)
        held = dataset.createVariable(
            "field", values.dtype, tuple(letters), fill_value=missing, compression="zlib"
        )
        held.set_auto_maskandscale(False)
        held[...] = values


def check_volume_suffix(path: str | os.PathLike[str], where: str) -> str:
    """Return the ending of a file's name if grids can be written under it."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITTEN:
        raise DataError(
            f"{where}: expected a name that ends in {', '.join(WRITTEN)}, got {suffix!r}. "
            "Rename it: the ending says the format."
        )
    return suffix
