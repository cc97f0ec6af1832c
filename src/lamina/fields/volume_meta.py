"""What a volume's field is, for a model file: to JSON and, trusting nothing, back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from lamina.core.checks import check_count, check_number
from lamina.core.errors import DataError
from lamina.fields.field_file import check_keys
from lamina.fields.volume import DTYPES, MOST_CHANNELS, MOST_VALUES, VolumeForm

Bounds = tuple[float, float]

_FORM_KEYS: Final = {"axes", "grid", "channels", "is_flat", "dtype", "low", "high", "fill"}


def to_meta(form: VolumeForm, bound: Bounds | None, residual: Any) -> dict[str, Any]:
    """Return a form, the bound asked for and the largest error, and a residual's part."""
    told = {name: getattr(form, name) for name in sorted(_FORM_KEYS)}
    told["grid"] = list(form.grid)
    told["max_error"], told["largest_error"] = bound or (None, None)
    told["residual"] = residual
    return told


def from_meta(meta: Mapping[str, Any], where: str) -> tuple[VolumeForm, Bounds | None]:
    """Return what `to_meta` was given, less the residual.

    Raises
    ------
    SpecError, DataError
        It is not as `to_meta` makes it.
    """
    check_keys(meta, _FORM_KEYS | {"max_error", "largest_error", "residual"}, where)
    grid, axes, fill = meta["grid"], meta["axes"], meta["fill"]
    channels = check_count(meta["channels"], "channels", where)
    low = check_number(meta["low"], "low", where)
    high = check_number(meta["high"], "high", where, low)
    fits = (
        isinstance(grid, list)
        and isinstance(axes, str)
        and axes.isalpha()
        and len(grid) == len(set(axes)) == len(axes)
        and len(grid) in (3, 4)
        and meta["dtype"] in DTYPES
        and isinstance(meta["is_flat"], bool)
        and channels <= (1 if meta["is_flat"] else MOST_CHANNELS)
    )
    if not fits:
        raise DataError(f"{where}: expected a grid that can be, got {meta!r:.100}.")
    sizes = tuple(check_count(n, "grid", where) for n in grid)
    if np.prod(sizes, dtype=float) * channels > MOST_VALUES:
        raise DataError(f"{where}: expected a grid that can be, got {meta!r:.100}.")
    if fill is not None:
        fill = check_number(fill, "fill", where)
        limits = np.iinfo(meta["dtype"])  # ValueError of floats: a misfit
        check_number(fill, "fill", where, float(limits.min), float(limits.max))
    form = VolumeForm(axes, sizes, channels, meta["is_flat"], meta["dtype"], low, high, fill)
    if (meta["max_error"] is None) != (meta["residual"] is None):
        raise DataError(f"{where}: expected a bound with blocks, got one of the two.")
    if meta["max_error"] is None:
        return form, None
    asked = check_number(meta["max_error"], "max_error", where, 0.0)
    return form, (asked, check_number(meta["largest_error"], "largest_error", where, 0.0))
