"""Grids of three or four axes, for encode, decode and render."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lamina.cli.kind_image import PicturePreview, numbers_of
from lamina.cli.kinds import Loaded, Rendered, Watcher, suffix_of

MOST_PREVIEW = 512  # pixels along the longer side


class VolumeKind:
    """Volumes, and grids that change with time."""

    name, noun, field = "volume", "a grid", "VolumeField"
    reads: tuple[str, ...] = (".npy", ".npz", ".nc", ".nc4", ".cdf", ".zarr", ".tif", ".tiff")
    encodes: tuple[str, ...] = ("max_error", "variable", "axes")
    renders: tuple[str, ...] = ("size", "window", "slice")

    def read(self, source: str | bytes, suffix: str, asked: Mapping[str, Any]) -> Loaded:  # noqa: ARG002
        """Read an array."""
        from lamina.core.errors import DataError
        from lamina.fields.volume import VolumeSignal
        from lamina.fields.volume_file import read_volume

        if isinstance(source, bytes):
            raise DataError("encode: expected a grid's path, got standard input. Name the file.")
        array = read_volume(source, asked.get("variable"), "encode")
        signal = VolumeSignal(array, asked.get("axes"), "encode")
        facts = {"shape": list(array.shape), "dtype": str(array.dtype), "axes": signal.form.axes}
        return Loaded(signal, _text(array), facts, _bound(asked.get("max_error")))

    def preview(self, path: str, loaded: Loaded) -> Watcher:
        """Write the middle across the first axis, at most `MOST_PREVIEW` pixels large."""
        import numpy as np

        from lamina.fields.signal import centres
        from lamina.fields.volume_render import Painter

        form = loaded.signal.form
        shrink = min(1.0, MOST_PREVIEW / max(form.grid[-2:]))
        places = [np.zeros(1, np.float32) for _ in form.grid[:-2]]
        places += [centres(max(1, round(shrink * n))) for n in form.grid[-2:]]

        def paint(now: Any) -> Any:
            cut = Painter(form, now.field).lattice(places)
            return _pixels(cut.reshape(cut.shape[-3:]), form, "encode, --preview")

        preview = PicturePreview(path, paint)

        def watch(now: Any) -> None:
            # Where nothing is trained there is nothing to see before the end
            if now.step > 0 or now.share == 1.0:
                preview(now)

        return watch

    def check_out(self, path: str, verb: str) -> None:
        """The name of an array, or in render of a picture."""
        from lamina.core.errors import DataError
        from lamina.fields.image_file import SUFFIXES as PICTURES
        from lamina.fields.volume_file import WRITTEN as ARRAYS

        allowed = (*ARRAYS, *PICTURES) if verb == "render" else ARRAYS
        if suffix_of(path) not in allowed:
            raise DataError(
                f"{verb}: expected a name that ends in {', '.join(dict.fromkeys(allowed))}, got "
                f"{path!r}. Choose one of these."
            )

    def render(self, field: Any, out: str, asked: Mapping[str, Any], verb: str) -> Rendered:
        """Render an array of any size and window, or a slice as an array or a picture."""
        from lamina.core.errors import DataError
        from lamina.fields.volume_file import WRITTEN as ARRAYS

        form, axes = field.form, field.form.axes
        size = None if asked["size"] is None else _size(asked["size"])
        if asked["slice"] is None:
            window = None if asked["window"] is None else numbers_of(asked["window"])
            array = field.render(size, window=window)
        elif asked["window"] is not None:
            raise DataError(f"{verb}: expected --window or --slice, got both. Leave one out.")
        else:
            at = _slice(asked["slice"])
            array = field.slice(tuple(at), tuple(at.values()), size)
            axes = "".join(letter for letter in axes if letter not in at)
        is_array = suffix_of(out) in ARRAYS and not (len(axes) == 2 and "tif" in suffix_of(out))
        if not is_array and len(axes) != 2:
            raise DataError(
                f"{verb}: expected --slice with a picture's name, got {out!r} and a grid of axes "
                f"{axes}. Pass --slice {axes[0]}=0 or the like, or let --out end in .npy."
            )

        def write(path: str) -> None:
            from lamina.fields import write_image, write_volume

            if is_array:
                letters = axes if form.is_flat else f"{axes}c"
                write_volume(path, array, letters, form.fill, verb)
            else:
                write_image(path, _pixels(array, form, verb), verb)

        facts = {"shape": list(array.shape), "dtype": str(array.dtype), "axes": axes}
        if field.residual is not None:
            facts["blocks_read"] = field.residual.n_blocks_read
            facts["blocks"] = field.residual.layout.n_blocks * form.channels
        return Rendered(_text(array), facts, write)

    def scores(self, field: Any, loaded: Loaded) -> dict[str, tuple[float, str]]:
        """The largest error and the size, where there is a bound."""
        if field.max_error is None:
            return {}
        largest, n_bytes = field.check(loaded.signal), field.n_bytes
        bits = 8 * n_bytes / field.report.n_values
        return {
            "largest_error": (largest, f"{largest:.4g}, of {field.max_error:.4g}; all checked"),
            "n_bytes": (n_bytes, f"{n_bytes:,} bytes, {bits:.3g} bits a value"),
        }


def _bound(text: str | None) -> dict[str, float]:
    """Return the bound of a text such as 0.01, in the array's units, or 0.1%, of its range."""
    from lamina.core.errors import DataError

    if text is None:
        return {}
    is_share = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        raise DataError(
            f"encode: expected --max-error as a number, or with % as a share of the range, got "
            f"{text!r}. Pass one such as 0.01 or 0.1%."
        ) from None
    return {"max_relative_error": value / 100} if is_share else {"max_error": value}


def _size(text: str) -> tuple[int, ...]:
    from lamina.core.errors import DataError

    if re.fullmatch(r"[1-9][0-9]{0,8}([x×X][1-9][0-9]{0,8}){1,3}", text.strip()) is None:
        raise DataError(
            f"render: expected --size of a grid as sizes in the array's order, got {text!r}. "
            "Pass one such as 64x128x128, or 128x128 of a slice."
        )
    return tuple(int(part) for part in re.split("[x×X]", text.strip()))


def _slice(text: str) -> dict[str, float]:
    """Return axes and places of a text such as z=0.2, or t=-0.5,z=0."""
    from lamina.core.errors import DataError

    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {axis.strip(): float(at) for axis, at in pairs}
    except ValueError as error:
        raise DataError(
            f"render: expected --slice as AXIS=PLACE, the place in [-1, 1], got {text!r}. "
            "Pass one such as z=0.2, or t=-0.5,z=0 of a grid of four axes."
        ) from error


def _pixels(array: Any, form: Any, verb: str) -> Any:
    """Return a slice as a picture: whole numbers of 8 bits as they are, others by their range."""
    import numpy as np

    from lamina.core.errors import DataError

    if array.ndim == 3 and array.shape[2] > 4:
        raise DataError(
            f"{verb}: expected at most 4 channels in a picture, got {array.shape[2]}. "
            "Let --out end in .npy."
        )
    if array.dtype == np.uint8:
        return array
    span = (form.high - form.low) or 1.0
    return np.nan_to_num((array.astype(np.float64) - form.low) / span).astype(np.float32)


def _text(array: Any) -> str:
    return f"{' x '.join(map(str, array.shape))}, {array.dtype}"
