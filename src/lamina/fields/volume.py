"""Grids of three or four axes as signals: sample i of n along an axis at (2 i + 1) / n - 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_number, shape_of
from lamina.core.errors import DataError, ShapeError
from lamina.fields.signal import BLOCK_ROWS, Float32, Signal, centres

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Box = tuple[slice, ...]

DTYPES: Final = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
)
MOST_VALUES: Final = 1 << 36
MOST_CHANNELS: Final = 64
LARGEST: Final = 1e30  # of floats; whole numbers up to 2**53, which float64 holds
AXES: Final = {3: "zyx", 4: "tzyx", 5: "tzyxc"}
COLOURS: Final = 4  # a last axis this short is taken for channels, unless axes says otherwise


@dataclass(frozen=True)
class VolumeForm:
    """What an array looks like: enough to make one like it.

    Attributes
    ----------
    axes : str
        A letter for each axis of the grid, in the array's order, such as "zyx" or "tzyx".
    grid : tuple of int
        Samples along each.
    channels : int
    is_flat : bool
        Whether the array is without an axis of channels.
    dtype : str
    low, high : float
        Smallest and largest value.
    fill : float or None
        What whole numbers hold where they are missing; floats hold NaN.
    """

    axes: str
    grid: tuple[int, ...]
    channels: int
    is_flat: bool
    dtype: str
    low: float
    high: float
    fill: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.grid if self.is_flat else (*self.grid, self.channels)

    @property
    def is_whole(self) -> bool:
        """Whether values are whole numbers."""
        return not self.dtype.startswith("f")

    def finish(self, values: Array, missing: Flags | None = None) -> Array:
        """Return values (…, channels) as the array has them: clipped, rounded, of its type."""
        wide = np.clip(values, self.low, self.high)
        if self.is_whole:
            np.rint(wide, out=wide)
        if missing is None or not missing.any():
            return wide.astype(self.dtype)
        wide[missing] = 0.0  # a number, to be converted without a warning
        finished = wide.astype(self.dtype)
        finished[missing] = np.nan if self.fill is None else self.fill
        return finished


class VolumeSignal(Signal):
    """The samples of an array, which is read where it lies: a memory-mapped file is not copied.

    Parameters
    ----------
    array : array (…), or masked array
        Three axes, or four: with channels last, or with time first (see `axes`).
    axes : str, optional
        A letter an axis, "c" the channels, which come last.
    where : str
        The start of error sentences.

    Raises
    ------
    ShapeError, DataError
        Of another shape or type, infinite, or without a value.
    """

    def __init__(self, array: npt.ArrayLike, axes: str | None, where: str) -> None:
        super().__init__()
        data = array if isinstance(array, np.ndarray) else np.asarray(array)
        letters = _checked(data, axes, where)
        is_flat = not letters.endswith("c")
        hidden, fill = None, None
        if isinstance(data, np.ma.MaskedArray):
            hidden = np.ma.getmaskarray(data) if np.ma.is_masked(data) else None
            fill = float(data.fill_value) if data.dtype.kind in "iu" else None
            data = np.ma.getdata(data)
        self.array = data[..., None] if is_flat else data
        grid, self.d_out = self.array.shape[:-1], self.array.shape[-1]
        self.d_in = len(grid)
        self.resolution = grid[::-1]
        self.missing: Flags | None = None
        if hidden is not None:
            self.missing = (hidden[..., None] if is_flat else hidden).copy()
        low, high = self._look(where)
        self.known = None
        if self.missing is not None:
            self.known = np.flatnonzero(~self.missing.any(axis=-1).ravel())
            if not len(self.known):
                raise DataError(
                    f"{where}: expected a place where all channels are known, got none. "
                    "Pass the channels one by one."
                )
        if self.missing is None:
            fill = None
        self.form = VolumeForm(
            letters.rstrip("c"), grid, self.d_out, is_flat, data.dtype.name, low, high, fill
        )
        self.n_rows = math.prod(grid) if self.known is None else len(self.known)
        self.n_values = math.prod(grid) * self.d_out
        if self.missing is not None:
            self.n_values -= int(np.count_nonzero(self.missing))
        self.peak = (high - low) or 1.0
        self.places = [centres(n) for n in grid]

    def rows(self, index: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Return coordinates and values of known samples, numbered in C order."""
        if self.known is not None:
            index = self.known[index]
        at = np.unravel_index(index, self.form.grid)
        coordinates = np.empty((len(index), self.d_in), np.float32)
        for axis, (i, places) in enumerate(zip(at, self.places, strict=True)):
            coordinates[:, self.d_in - 1 - axis] = places[i]
        return coordinates, self.array[at].astype(np.float32)

    def box(self, box: Box) -> npt.NDArray[np.float64]:
        """Return a box of samples (…, channels), NaN where they are missing."""
        values = self.array[box].astype(np.float64)
        if self.missing is not None:
            values[self.missing[box]] = np.nan
        return values

    def slabs(self) -> Iterator[Box]:
        """Yield boxes that cover the grid, a bounded number of samples each."""
        return slabs(self.array.shape[:-1])

    def _look(self, where: str) -> tuple[float, float]:
        """Return the smallest and largest value, and find what is missing."""
        low, high = np.inf, -np.inf
        is_float = self.array.dtype.kind == "f"
        for box in self.slabs():
            part = self.array[box]
            if is_float:
                part = part.astype(np.float64)
                gaps = np.isnan(part)
                if gaps.any():
                    if self.missing is None:
                        self.missing = np.zeros(self.array.shape, np.bool_)
                    self.missing[box] |= gaps
            known = part if self.missing is None else part[~self.missing[box]]
            if known.size:
                low, high = min(low, float(known.min())), max(high, float(known.max()))
        if low > high:
            raise DataError(
                f"{where}: expected an array with values, got one where all are missing. "
                "Look at its mask or its fill value."
            )
        if max(-low, high) > (LARGEST if is_float else 2.0**53):
            raise DataError(
                f"{where}: expected finite values below {LARGEST if is_float else 2.0**53:.3g}, "
                f"got {low:g} to {high:g}. Mask or scale them first."
            )
        if self.missing is not None and not self.missing.any():
            self.missing = None
        return low, high


def slabs(grid: tuple[int, ...]) -> Iterator[Box]:
    """Yield boxes that cover a grid, in C order, of at most 2^18 samples or one line."""
    inner = grid[-1]
    axis = len(grid) - 1  # the axis that is cut: those after it are whole
    while axis > 0 and inner * grid[axis - 1] <= BLOCK_ROWS:
        axis -= 1
        inner *= grid[axis]
    if axis == 0:
        yield tuple(slice(0, n) for n in grid)
        return
    size = max(1, BLOCK_ROWS // inner)
    cut = axis - 1
    for outer in np.ndindex(*grid[:cut]):
        for start in range(0, grid[cut], size):
            here = slice(start, min(start + size, grid[cut]))
            yield (
                *(slice(i, i + 1) for i in outer),
                here,
                *(slice(0, n) for n in grid[axis:]),
            )


def lattice_coordinates(places: list[Float32]) -> Float32:
    """Return the coordinates (n, d), x first, of all combinations of places along the axes.

    Parameters
    ----------
    places : list of float32 arrays
        In the array's order; the last is x.
    """
    shape = tuple(len(p) for p in places)
    coordinates = np.empty((*shape, len(places)), np.float32)
    for axis, along in enumerate(places):
        wide = along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        coordinates[..., len(shape) - 1 - axis] = wide
    return coordinates.reshape(-1, len(shape))


def as_window(window: object, d: int, where: str) -> tuple[tuple[float, float], ...]:
    """Return (low, high) of each axis in the array's order; None is the whole.

    Parameters
    ----------
    window : 2 d numbers, optional
        The corner of smallest coordinates, x first, then that of the largest.
    """
    if window is None:
        return ((-1.0, 1.0),) * d
    sides = tuple(window) if isinstance(window, tuple | list | np.ndarray) else ()
    names = "xyzt"[:d]
    if len(sides) != 2 * d:
        raise DataError(
            f"{where}: expected window as the corners ({', '.join(names)}, {', '.join(names)}), "
            f"{2 * d} numbers in [-1, 1], got {window!r}. Pass the smaller corner first."
        )
    ends = [check_number(side, "each side of window", where, -1e3, 1e3) for side in sides]
    pairs = tuple(zip(ends[:d], ends[d:], strict=True))
    if not all(low < high for low, high in pairs):
        raise DataError(
            f"{where}: expected a window whose first corner has the smaller coordinates, "
            f"got {window!r}. Exchange the corners."
        )
    return pairs[::-1]


def _checked(data: Array, axes: object, where: str) -> str:
    """Return the letters of an array's axes."""
    shape = shape_of(data)
    if data.dtype.name not in DTYPES:
        hint = (
            "Objects are never unpickled: save it as an array of numbers."
            if data.dtype.kind == "O"
            else "Convert it, for example with array.astype(np.float32)."
        )
        raise DataError(f"{where}: expected {', '.join(DTYPES)}, got {data.dtype}. {hint}")
    if axes is None:
        letters = AXES.get(len(shape), "")
        if len(shape) == 4 and shape[3] <= COLOURS:
            letters = "zyxc"
    else:
        letters = axes if isinstance(axes, str) else ""
        if len(letters) != len(shape) or len(set(letters)) != len(letters) or not letters.isalpha():
            raise ShapeError(
                f"{where}: expected axes as a letter for each of the {len(shape)} axes, c for "
                f"channels, got {axes!r}. Write for example axes='zyx'."
            )
    n_grid = len(letters.removesuffix("c"))
    if n_grid not in (3, 4) or "c" in letters[:n_grid] or 0 in shape:
        raise ShapeError(
            f"{where}: expected an array (depth, height, width), (time, y, x) or (time, z, y, x), "
            f"perhaps with channels last, got shape {shape}. Choose a part of it, or say what its "
            "axes are with axes='zyxc' or the like; two axes are a picture (ImageField)."
        )
    if letters.endswith("c") and shape[-1] > MOST_CHANNELS:
        raise ShapeError(
            f"{where}: expected at most {MOST_CHANNELS} channels, got {shape[-1]}. "
            "If the last axis is space, say so with axes."
        )
    if math.prod(shape) > MOST_VALUES:
        raise ShapeError(
            f"{where}: expected at most {MOST_VALUES:,} values, got {math.prod(shape):,}. "
            "Fit it in parts."
        )
    return letters
