"""What can be read of a field of a grid: samples, slices, and any size and window."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_number
from lamina.core.errors import SpecError
from lamina.fields.field import Values
from lamina.fields.signal import centres
from lamina.fields.volume import VolumeForm, as_window
from lamina.fields.volume_render import Painter, as_box, as_shape, between

Array = npt.NDArray[Any]

MOST_RENDERED: Final = 1 << 33  # values


class GridReading:
    """Reading, for `VolumeField`, which has the form and the painter."""

    @property
    def form(self) -> VolumeForm:
        """Axes, size, type and range of the array that was fitted."""
        raise NotImplementedError

    def _painter(self, values: Values | None = None) -> Painter:
        raise NotImplementedError

    def render(
        self,
        shape: tuple[int, ...] | None = None,
        *,
        window: tuple[float, ...] | None = None,
    ) -> Array:
        """Return the field as an array of any size.

        Parameters
        ----------
        shape : tuple of int, optional
            Samples along each axis of the grid, in the array's order; None: the fitted array's, or
            as many as it has in the window.
        window : 2 d numbers, optional
            What to show, as the corner of smallest coordinates and the opposite one, x first:
            (-1, -1, -1, 0, 0, 0) is an eighth of a grid of three axes.

        Returns
        -------
        values : array (*shape[, channels])
            Of the fitted array's type and range; missing where the nearest sample is.

        Raises
        ------
        SpecError, DataError
            The shape or the window is not as described.
        """
        where, form = "VolumeField.render", self.form
        if shape is None and window is None:
            return self.read(...)
        ends = as_window(window, len(form.grid), where)
        natural = tuple(
            max(1, round(n * (b - a) / 2)) for n, (a, b) in zip(form.grid, ends, strict=True)
        )
        sizes = as_shape(shape, len(form.grid), natural, where)
        if np.prod(sizes, dtype=float) * form.channels > MOST_RENDERED:
            raise SpecError(
                f"{where}: expected at most {MOST_RENDERED:,} values, got shape {sizes}. "
                "Render it in parts, with window."
            )
        places = [between(n, a, b) for n, (a, b) in zip(sizes, ends, strict=True)]
        found = self._painter().lattice(places)
        return found[..., 0] if form.is_flat else found

    def slice(
        self,
        axis: str | int | tuple[str | int, ...],
        at: float | tuple[float, ...],
        shape: tuple[int, ...] | None = None,
    ) -> Array:
        """Return a cut through the field, across one axis or several.

        Parameters
        ----------
        axis : str or int, or a tuple of them
            "z", "t" or another letter of ``form.axes``, or the number of the array's axis.
        at : float, or a tuple of as many
            Where, in coordinates: -1 to 1.
        shape : tuple of int, optional
            Samples along the other axes, in the array's order; None: the fitted array's.

        Raises
        ------
        SpecError, DataError
            An argument is not as described.
        """
        where, form = "VolumeField.slice", self.form
        cut = dict(
            zip(
                (self._axis(each) for each in (axis if isinstance(axis, tuple) else (axis,))),
                (check_number(p, "at", where, -1.0, 1.0) for p in np.atleast_1d(at).tolist()),
                strict=False,
            )
        )
        if len(cut) != np.size(at) or not cut or len(cut) >= len(form.grid):
            raise SpecError(
                f"{where}: expected a place for each of one to {len(form.grid) - 1} axes, got "
                f"{axis!r:.40} and {at!r:.40}. Write for example slice('z', 0.2)."
            )
        others = [i for i in range(len(form.grid)) if i not in cut]
        sizes = as_shape(shape, len(others), tuple(form.grid[i] for i in others), where)
        places = {i: centres(n) for i, n in zip(others, sizes, strict=True)}
        places |= {i: np.array([place], np.float32) for i, place in cut.items()}
        found = self._painter().lattice([places[i] for i in range(len(form.grid))])
        found = found.squeeze(tuple(cut))
        return found[..., 0] if form.is_flat else found

    def _axis(self, axis: str | int) -> int:
        """Return the number of an axis."""
        axes = self.form.axes
        number = axes.find(axis) if isinstance(axis, str) and len(axis) == 1 else axis
        if isinstance(number, bool | str) or number not in range(len(axes)):
            raise SpecError(
                f"VolumeField.slice: expected axis as one of {', '.join(axes)}, or its number, got "
                f"{axis!r:.40}. The grid is {' x '.join(map(str, self.form.grid))}."
            )
        return int(number)

    def read(self, index: Any) -> Array:
        """Return part of the array as it was fitted, without decoding the rest.

        Parameters
        ----------
        index : int, slice, Ellipsis, or a tuple of them
            As of the array itself: ``field.read((5, ..., slice(0, 10)))`` is ``field[5, ..., :10]``
            is ``field.render()[5, ..., :10]``.

        Raises
        ------
        DataError
            The index is none of these, or out of range.
        """
        form = self.form
        box, within = as_box(index, form.shape, "VolumeField.read")
        d = len(form.grid)
        if any(part.start == part.stop for part in box):
            empty = np.empty(tuple(part.stop - part.start for part in box), form.dtype)
            return np.asarray(empty[within])
        found = self._painter().box(box[:d])
        if form.is_flat:
            return np.asarray(found[..., 0][within])
        return np.asarray(found[..., box[d]][within])

    def __getitem__(self, index: Any) -> Array:
        """Return part of the array: see `read`."""
        return self.read(index)
