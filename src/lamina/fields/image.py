"""A picture as a signal, and the places of a rendering.

Pixel (row i, column j) lies at x = (2 j + 1) / width - 1, y = (2 i + 1) / height - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_number, shape_of
from lamina.core.errors import DataError, ShapeError
from lamina.fields.fill import fill_gaps
from lamina.fields.signal import BLOCK_ROWS, Float32, Signal, centres

Array = npt.NDArray[Any]

DTYPES: Final = ("uint8", "uint16", "float16", "float32", "float64")
MOST_PIXELS: Final = 1 << 30  # of a file's picture or a rendering
FULL: Final = (-1.0, -1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Form:
    """What a picture looks like: enough to render one like it.

    Attributes
    ----------
    height, width, channels : int
    is_flat : bool
        Whether its array is (height, width), without an axis of channels.
    dtype : str
    low, high : float
        Values lie within: 0 and 255 or 65535 of whole numbers, the picture's own of floats.
    """

    height: int
    width: int
    channels: int
    is_flat: bool
    dtype: str
    low: float
    high: float

    def finish(self, values: Array) -> Array:
        """Return a field's values (n, channels) as this picture's: clipped, rounded, its dtype."""
        clipped = np.clip(values, self.low, self.high)
        if self.dtype.startswith("uint"):
            np.rint(clipped, out=clipped)
        return clipped.astype(self.dtype)


class ImageSignal(Signal):
    """The pixels of an array, which is read where it lies.

    Parameters
    ----------
    pixels : array (height, width) or (height, width, channels)
        1 to 4 channels of uint8, uint16 or floats.
    mask : array of bool (height, width), optional
        Which pixels are known. What is measured is these; training sees all, the others filled
        in (`fill_gaps`).
    where : str
        The start of error sentences.

    Raises
    ------
    ShapeError, DataError
        Of another shape or type, not finite, or without a pixel.
    """

    d_in = 2

    def __init__(self, pixels: npt.ArrayLike, mask: npt.ArrayLike | None, where: str) -> None:
        super().__init__()
        array = _checked(pixels, where)
        self.pixels = array if array.ndim == 3 else array[:, :, None]
        height, width, self.d_out = self.pixels.shape
        self.resolution = (width, height)
        self.x, self.y = centres(width), centres(height)
        self.n_rows = height * width
        self.n_values = self.n_rows * self.d_out
        self.mask = _mask(mask, (height, width), where)
        low, high = _range(array if self.mask is None else array[self.mask], where)
        self.peak = (high - low) or 1.0
        is_flat = array.ndim == 2
        self.form = Form(height, width, self.d_out, is_flat, array.dtype.name, low, high)
        self._filled: Array | None = None

    @property
    def n_known(self) -> int:
        """Values that are measured."""
        count = self.n_rows if self.mask is None else int(np.count_nonzero(self.mask))
        return count * self.d_out

    def rows(self, index: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Return coordinates and values of pixels, numbered row by row."""
        if self.mask is not None and self._filled is None:
            self._filled = fill_gaps(self.pixels, self.mask, self.form.low, self.form.high)
        seen = self.pixels if self._filled is None else self._filled
        i, j = np.divmod(index, self.form.width)
        coordinates = np.empty((len(index), 2), np.float32)
        coordinates[:, 0], coordinates[:, 1] = self.x[j], self.y[i]
        return coordinates, seen[i, j].astype(np.float32)

    def release(self) -> None:
        """Let go of what was kept between rounds, and of what was filled in."""
        super().release()
        self._filled = None

    def known_blocks(self) -> Iterator[tuple[Float32, Array]]:
        """Yield coordinates and pixels (m, channels) of what is known, in the picture's type."""
        size = (self.form.height, self.form.width)
        for start, stop, coordinates in strips(*size, FULL):
            pixels = self.pixels[start:stop].reshape(-1, self.d_out)
            if self.mask is not None:
                flags = self.mask[start:stop].ravel()
                coordinates, pixels = coordinates[flags], pixels[flags]
            yield coordinates, pixels


def strips(
    height: int, width: int, window: tuple[float, float, float, float]
) -> Iterator[tuple[int, int, Float32]]:
    """Yield (first row, last row + 1, coordinates) of a rendering, a bounded number at a time.

    Parameters
    ----------
    height, width : int
        Of the rendering.
    window : (left, top, right, bottom)
        What it shows, in coordinates.
    """
    left, top, right, bottom = window
    x = _between(width, left, right)
    y = _between(height, top, bottom)
    n_rows = max(1, BLOCK_ROWS // width)
    for start in range(0, height, n_rows):
        stop = min(start + n_rows, height)
        coordinates = np.empty((stop - start, width, 2), np.float32)
        coordinates[:, :, 0] = x
        coordinates[:, :, 1] = y[start:stop, None]
        yield start, stop, coordinates.reshape(-1, 2)


def paint(
    values: Callable[[Array], Array],
    form: Form,
    height: int,
    width: int,
    window: tuple[float, float, float, float],
) -> Array:
    """Return a function of coordinates as a picture like `form`, of another size.

    Parameters
    ----------
    values : callable
        Coordinates (n, 2) to values (n, channels) in the picture's units.
    form : Form
    height, width, window
        See `strips`.
    """
    pixels = np.empty((height, width, form.channels), form.dtype)
    for start, stop, coordinates in strips(height, width, window):
        finished = form.finish(values(coordinates))
        pixels[start:stop] = finished.reshape(stop - start, width, form.channels)
    return pixels[:, :, 0] if form.is_flat else pixels


def as_window(window: object, where: str) -> tuple[float, float, float, float]:
    """Return a checked (left, top, right, bottom); None is the whole picture."""
    if window is None:
        return FULL
    sides = tuple(window) if isinstance(window, tuple | list | np.ndarray) else ()
    if len(sides) != 4:
        raise DataError(
            f"{where}: expected window as (left, top, right, bottom), got {window!r}. "
            "Pass four numbers in [-1, 1], such as (-1, -1, 0, 0) for the upper left quarter."
        )
    left, top, right, bottom = (
        check_number(side, "each side of window", where, -1e3, 1e3) for side in sides
    )
    if not (left < right and top < bottom):
        raise DataError(
            f"{where}: expected a window with left < right and top < bottom, got {window!r}. "
            "y points down: top is the smaller number."
        )
    return left, top, right, bottom


def _between(n: int, low: float, high: float) -> Float32:
    """Centres of n equal cells of [low, high]."""
    if (low, high) == (-1.0, 1.0):
        return centres(n)  # the very numbers that training saw
    middle = (2.0 * np.arange(n) + 1.0) / (2.0 * n)
    return (low + (high - low) * middle).astype(np.float32)


def _checked(pixels: npt.ArrayLike, where: str) -> Array:
    array = pixels if isinstance(pixels, np.ndarray) else np.asarray(pixels)
    shape = shape_of(array)
    has_form = len(shape) == 2 or (len(shape) == 3 and 1 <= shape[2] <= 4)
    if not has_form or 0 in shape:
        raise ShapeError(
            f"{where}: expected pixels of shape (height, width) or (height, width, channels) with "
            f"1 to 4 channels, got {shape}. Move channels to the last axis."
        )
    if array.dtype.kind not in "fu" or array.dtype.name not in DTYPES:
        raise DataError(
            f"{where}: expected pixels of {', '.join(DTYPES)}, got {array.dtype}. "
            "Convert them, for example with pixels.astype(np.uint8)."
        )
    return array


def _mask(
    mask: npt.ArrayLike | None, shape: tuple[int, int], where: str
) -> npt.NDArray[np.bool_] | None:
    """Return a checked mask; None where every pixel is known."""
    if mask is None:
        return None
    flags = np.asarray(mask)
    if flags.dtype != np.bool_ or flags.shape != shape:
        raise ShapeError(
            f"{where}: expected mask as an array of bool of shape {shape}, got {flags.dtype} of "
            f"shape {flags.shape}. True says which pixels to train on."
        )
    if not flags.any():
        raise DataError(f"{where}: expected a mask with at least one True, got none.")
    return None if flags.all() else flags


def _range(array: Array, where: str) -> tuple[float, float]:
    """Black and white: of whole numbers the type's, of floats the picture's own."""
    if array.dtype.kind == "u":
        return 0.0, float(np.iinfo(array.dtype).max)
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high) and max(-low, high) < 1e30):
        raise DataError(
            f"{where}: expected finite pixels below 1e30, got {low:g} to {high:g}. "
            "Fill or scale them first."
        )
    return low, high
