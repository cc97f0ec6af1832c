"""Pictures, for encode, decode and render."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamina.cli.kinds import Loaded, Rendered, Watcher, suffix_of

if TYPE_CHECKING:
    from lamina.fields import FitProgress

PREVIEW_SECONDS = 1.0
MOST_PREVIEW = 768  # pixels along the longer side
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")


class ImageKind:
    """Pictures."""

    name, noun, field = "image", "a picture", "ImageField"
    reads: tuple[str, ...] = ENDINGS
    encodes: tuple[str, ...] = ("bpp",)
    renders: tuple[str, ...] = ("size", "window", "zoom_to", "frames")

    def read(self, source: str | bytes, suffix: str, asked: Mapping[str, Any]) -> Loaded:  # noqa: ARG002
        """Read a picture."""
        from lamina.fields.image_file import read_image

        pixels = read_image(source, "encode")
        return Loaded(pixels, size_text(pixels), _facts(pixels))

    def preview(self, path: str, loaded: Loaded) -> Watcher:
        """Write the field so far, at most `MOST_PREVIEW` pixels large."""
        from lamina.fields.image import FULL, ImageSignal, paint

        form = ImageSignal(loaded.signal, None, "encode").form
        shrink = min(1.0, MOST_PREVIEW / max(form.height, form.width))
        height, width = (max(1, round(shrink * n)) for n in (form.height, form.width))
        return PicturePreview(path, lambda now: paint(now.field, form, height, width, FULL))

    def check_out(self, path: str, verb: str) -> None:
        """A name that Pillow can write."""
        from lamina.fields.image_file import check_image_suffix

        if verb == "render" and (suffix_of(path) == ".gif" or "%" in path):
            return  # judged with --zoom-to
        check_image_suffix(path, verb)

    def render(self, field: Any, out: str, asked: Mapping[str, Any], verb: str) -> Rendered:
        """Render at any size and window, or a way from one window to another."""
        from lamina.core.errors import DataError
        from lamina.fields.image_file import check_image_suffix

        width, height = (None, None) if asked["size"] is None else size_of(asked["size"])
        window = None if asked["window"] is None else numbers_of(asked["window"])
        if asked["zoom_to"] is not None:
            end = numbers_of(asked["zoom_to"], "zoom-to")
            return _zoom(field, out, (window or (-1, -1, 1, 1), end), (height, width), asked)
        if asked["frames"] is not None:
            raise DataError(f"{verb}: expected --zoom-to with --frames, got none. Leave it out.")
        check_image_suffix(out, verb)
        pixels = field.render(height, width, window=window)
        shown = _within(pixels, field)

        def write(path: str) -> None:
            from lamina.fields import write_image

            write_image(path, shown, verb)

        return Rendered(size_text(pixels), _facts(pixels), write)

    def scores(self, field: Any, loaded: Loaded) -> dict[str, tuple[float, str]]:
        """PSNR says it all."""
        del field, loaded
        return {}


def _within(pixels: Any, field: Any) -> Any:
    """Return a picture as a file of 8 bits takes it."""
    low, high = field.form.low, field.form.high
    if pixels.dtype.kind == "f" and (low < 0 or high > 1):
        # Such a file has its own black and white: the picture's smallest and largest
        return (pixels - low) / ((high - low) or 1.0)
    return pixels


def _zoom(
    field: Any,
    out: str,
    windows: tuple[tuple[float, ...], tuple[float, ...]],
    size: tuple[int | None, int | None],
    asked: Mapping[str, Any],
) -> Rendered:
    """Return pictures whose windows shrink evenly, as a camera's that comes nearer."""
    import numpy as np

    from lamina.fields.animation import check_animation_name, write_animation
    from lamina.fields.image import as_window

    check_animation_name(out, "render, --zoom-to")
    first, last = (np.array(as_window(window, "render")) for window in windows)
    n = asked["frames"] or 50
    height, width = size
    if height is None:  # one size for all, whatever the windows' proportions
        height, width = field.form.height, field.form.width

    def pictures() -> Any:
        # Each picture shows the same share of the one before it
        ratio = (last[2:] - last[:2]) / (first[2:] - first[:2])
        for share in np.linspace(0, 1, n):
            scale = ratio**share
            part = np.where(np.abs(ratio - 1) < 1e-6, share, (1 - scale) / (1 - ratio + 1e-300))
            left = first[:2] + part * (last[:2] - first[:2])
            window = (*left, *(left + scale * (first[2:] - first[:2])))
            pixels = _within(field.render(height, width, window=window), field)
            yield _as_bytes(pixels)

    def write(path: str) -> None:
        write_animation(path, pictures(), where="render")

    facts = {"frames": n, "shape": [height, width]}
    return Rendered(f"{n} pictures of {width} x {height}", facts, write)


def _as_bytes(pixels: Any) -> Any:
    import numpy as np

    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257.0).astype(np.uint8)
    elif pixels.dtype.kind == "f":
        pixels = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # grey and alpha: grey
        pixels = pixels[:, :, 0]
    return pixels


class PicturePreview:
    """Writes the field so far as a picture, taking at most a tenth of the time.

    Parameters
    ----------
    path : str
    paint : callable
        From a `FitProgress` to pixels.
    """

    def __init__(self, path: str, paint: Any) -> None:
        from lamina.fields.image_file import check_image_suffix

        check_image_suffix(path, "encode, --preview")
        self.path, self.paint, self.next = path, paint, 0.0

    def __call__(self, report: FitProgress) -> None:
        """Write, unless the last one was just now."""
        from lamina.fields.image_file import write_image

        since = time.perf_counter()
        if since < self.next:
            return
        write_image(self.path, self.paint(report), "encode, --preview")
        now = time.perf_counter()
        self.next = now + max(PREVIEW_SECONDS, 9 * (now - since))


def size_text(array: Any) -> str:
    """Return what a picture is, in words: 512 x 512, RGB, uint8."""
    channels = 1 if array.ndim == 2 else array.shape[2]
    colours = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGBA"}[channels]
    return f"{array.shape[1]} x {array.shape[0]}, {colours}, {array.dtype}"


def _facts(array: Any) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype), "rate": None}


def size_of(text: str) -> tuple[int, int]:
    """Return width and height of a text such as 640x480."""
    from lamina.core.errors import DataError

    match = re.fullmatch(r"([1-9][0-9]{0,8})[x×X]([1-9][0-9]{0,8})", text.strip())
    if match is None:
        raise DataError(
            f"render: expected --size as WIDTHxHEIGHT, got {text!r}. Pass one such as 1024x768."
        )
    return int(match[1]), int(match[2])


def numbers_of(text: str, option: str = "window", example: str = "-1,-1,0,0") -> tuple[float, ...]:
    """Return the numbers of a text such as -1,-1,0,0."""
    from lamina.core.errors import DataError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(
            f"render: expected --{option} as numbers with commas between them, got {text!r}. "
            f"Pass one such as {example}."
        ) from error
