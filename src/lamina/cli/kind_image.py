"""Pictures, for encode, decode and render."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamina.cli.kinds import Loaded, Rendered, Watcher

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
    renders: tuple[str, ...] = ("size", "window")

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

        check_image_suffix(path, verb)

    def render(self, field: Any, out: str, asked: Mapping[str, Any], verb: str) -> Rendered:  # noqa: ARG002
        """Render at any size and window."""
        width, height = (None, None) if asked["size"] is None else size_of(asked["size"])
        window = None if asked["window"] is None else numbers_of(asked["window"])
        pixels = field.render(height, width, window=window)
        shown = pixels
        low, high = field.form.low, field.form.high
        if pixels.dtype.kind == "f" and (low < 0 or high > 1):
            # A file of 8 bits has its own black and white: the picture's smallest and largest
            shown = (pixels - low) / ((high - low) or 1.0)

        def write(path: str) -> None:
            from lamina.fields import write_image

            write_image(path, shown, verb)

        return Rendered(size_text(pixels), _facts(pixels), write)

    def scores(self, field: Any, loaded: Loaded) -> dict[str, tuple[float, str]]:
        """PSNR says it all."""
        del field, loaded
        return {}


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
