"""Volumes painted from a network and what is stored beside it: boxes of samples, any lattice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.engine import require_memory
from lamina.core.errors import DataError, SpecError
from lamina.fields.interpolate import interpolate_lattice
from lamina.fields.residual import Residual
from lamina.fields.signal import Float32, centres
from lamina.fields.volume import (
    Box,
    Flags,
    VolumeForm,
    VolumeSignal,
    lattice_coordinates,
    slabs,
)

Array = npt.NDArray[Any]
Values = Callable[[Array], Array]


@dataclass(frozen=True)
class Painter:
    """What a volume is painted from.

    Attributes
    ----------
    form : VolumeForm
    values : callable
        The network: coordinates (n, d) to values (n, channels).
    residual : Residual, optional
    missing : array of bool (…, channels), optional
        Which samples are, where there is no residual, which knows.
    """

    form: VolumeForm
    values: Values
    residual: Residual | None = None
    missing: Flags | None = None

    def box(self, box: Box) -> Array:
        """Return a box of samples (…, channels) as the array had them."""
        shape = (*(part.stop - part.start for part in box), self.form.channels)
        require_memory(math.prod(shape) * np.dtype(self.form.dtype).itemsize)
        found = np.empty(shape, self.form.dtype)
        for whole in self.parts(box):
            part = tuple(
                slice(w.start - b.start, w.stop - b.start) for w, b in zip(whole, box, strict=True)
            )
            values = self._learned(
                [centres(n)[p] for n, p in zip(self.form.grid, whole, strict=True)]
            )
            missing = None if self.missing is None else self.missing[whole]
            if self.residual is not None:
                values += self.residual.read(whole)
                missing = np.isnan(values)
            found[part] = self.form.finish(values, missing)
        return found

    def parts(self, box: Box) -> Iterator[Box]:
        """Yield boxes that a box consists of: whole blocks, where there are such."""
        if self.residual is not None:
            yield from self.residual.layout.tiles(box)
            return
        for part in slabs(tuple(b.stop - b.start for b in box)):
            yield tuple(
                slice(p.start + b.start, p.stop + b.start) for p, b in zip(part, box, strict=True)
            )

    def lattice(self, places: list[Float32]) -> Array:
        """Return the field at all combinations of coordinates along the axes (…, channels).

        Parameters
        ----------
        places : list of float32 arrays
            In the array's order: x is the last.
        """
        form, shape = self.form, tuple(len(p) for p in places)
        n_bytes = math.prod(shape) * form.channels * np.dtype(form.dtype).itemsize
        require_memory(n_bytes)
        found = np.empty((*shape, form.channels), form.dtype)
        for part in slabs(shape):
            here = [p[s] for p, s in zip(places, part, strict=True)]
            values = self._learned(here)
            missing = None
            if self.residual is not None:
                values += interpolate_lattice(self.residual, list(here))
                missing = np.isnan(values)
            elif self.missing is not None:
                nearest = [
                    np.clip((p + 1.0) * (n / 2), 0, n - 1).astype(np.int64)
                    for p, n in zip(here, form.grid, strict=True)
                ]
                missing = self.missing[np.ix_(*nearest)]
            found[part] = form.finish(values, missing)
        return found

    def _learned(self, places: list[Float32]) -> npt.NDArray[np.float64]:
        shape = tuple(len(p) for p in places)
        values = self.values(lattice_coordinates(places)).astype(np.float64)
        return values.reshape(*shape, self.form.channels)


def as_box(index: object, shape: tuple[int, ...], where: str) -> tuple[Box, tuple[Any, ...]]:
    """Return the box of steps 1 that an index of an array meets, and the index within that box.

    Parameters
    ----------
    index : int, slice, Ellipsis, or a tuple of them
    shape : tuple of int
        Of the array.

    Raises
    ------
    DataError
        The index is none of these, or out of range.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    n_dots = sum(part is Ellipsis for part in parts)
    if n_dots > 1 or len(parts) - n_dots > len(shape):
        raise _bad(where, index, shape)
    if not n_dots:
        parts.append(Ellipsis)
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    box: list[slice] = []
    within: list[Any] = []
    for part, n in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            try:
                span = range(n)[part]
            except (TypeError, ValueError):
                raise _bad(where, index, shape) from None
            low = min(span, default=0)
            box.append(slice(low, max(span, default=low - 1) + 1))
            within.append(slice(None) if not span else _moved(span, low))
            continue
        if isinstance(part, bool) or not isinstance(part, int | np.integer) or not -n <= part < n:
            raise _bad(where, index, shape)
        i = int(part) % n
        box.append(slice(i, i + 1))
        within.append(0)
    return tuple(box), tuple(within)


def _moved(span: range, low: int) -> slice:
    """Return the slice of a box that begins at `low` which gives a range."""
    stop = span.stop - low
    return slice(span.start - low, stop if stop >= 0 else None, span.step)


def _bad(where: str, index: object, shape: tuple[int, ...]) -> DataError:
    return DataError(
        f"{where}: expected whole numbers and slices within an array of shape {shape}, got "
        f"{index!r:.80}. Write for example field[5, :, 10:20]."
    )


def as_shape(shape: object, d: int, natural: tuple[int, ...], where: str) -> tuple[int, ...]:
    """Return a checked shape of a rendering; None is the natural one."""
    if shape is None:
        return natural
    sizes = tuple(shape) if isinstance(shape, tuple | list) else ()
    if len(sizes) != d or not all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1 for n in sizes
    ):
        raise SpecError(
            f"{where}: expected shape as {d} sizes of at least 1, got {shape!r:.80}. "
            "Leave it out for as many samples as the array had there."
        )
    return tuple(int(n) for n in sizes)


def between(n: int, low: float, high: float) -> Float32:
    """Return the centres of n equal cells of [low, high]."""
    if (low, high) == (-1.0, 1.0):
        return centres(n)  # the very numbers that training saw
    middle = (2.0 * np.arange(n) + 1.0) / (2.0 * n)
    return (low + (high - low) * middle).astype(np.float32)


def compare(painter: Painter, signal: VolumeSignal) -> tuple[float, float]:
    """Return the largest error and the mean squared one of what is painted, sample by sample.

    Infinite where a sample is missing in one of the two only.
    """
    largest, total, is_whole = 0.0, 0.0, painter.form.is_whole
    for box in painter.parts(tuple(slice(0, n) for n in painter.form.grid)):
        ours, theirs = painter.box(box).astype(np.float64), signal.box(box)
        missing = np.isnan(theirs)
        if not is_whole and (np.isnan(ours) != missing).any():
            return np.inf, np.inf
        off = np.abs(ours - theirs)
        off[missing] = 0.0
        largest = max(largest, float(off.max()))
        total += float(np.vdot(off, off))
    return largest, total / signal.n_values
