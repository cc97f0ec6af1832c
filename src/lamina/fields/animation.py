"""Moving pictures: a GIF or WebP, or numbered files."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_number
from lamina.core.errors import DataError, require_extra
from lamina.core.modelfile import write_atomically
from lamina.fields.image_file import check_image_suffix, write_image

Array = npt.NDArray[Any]

MOVING: Final = (".gif", ".webp")
_NUMBER: Final = re.compile(r"%0?\d*d")


def check_animation_name(path: str | os.PathLike[str], where: str) -> None:
    """Raise `DataError` unless the name is a .gif's, a .webp's, or has one picture's number."""
    name = Path(path).name
    if _NUMBER.search(name):
        if len(_NUMBER.findall(name)) > 1 or name.count("%") > 1:
            raise DataError(f"{where}: expected one number in the name, got {name!r}.")
        check_image_suffix(path, where)
    elif Path(path).suffix.lower() not in MOVING:
        raise DataError(
            f"{where}: expected a .gif, a .webp, or a name with the picture's number such as "
            f"turn-%03d.png, got {os.fspath(path)!r}."
        )


def write_animation(
    path: str | os.PathLike[str],
    pictures: Iterable[Array],
    *,
    seconds: float | None = None,
    where: str = "write_animation",
) -> int:
    """Write pictures one after another, and return how many.

    Parameters
    ----------
    path : str or path-like
        A .gif or .webp, written all or nothing, or a name with the picture's number in it, such as
        turn-%03d.png: a file each, from 0.
    pictures : iterable of arrays (height, width) or (height, width, 3 or 4), uint8
        Taken one by one: a GIF's are kept compressed only.
    seconds : float > 0, optional
        Between two pictures; 1/25 by default. Files with numbers have no time.
    where : str
        The start of error sentences.

    Raises
    ------
    DataError
        The name is not as described, there is no picture, or the file cannot be written.
    MissingExtraError
        Pillow is not installed.
    """
    check_animation_name(path, where)
    pause = (
        0.04 if seconds is None else check_number(seconds, "seconds", where, 0.0, closed="right")
    )
    name = os.fspath(path)
    if _NUMBER.search(Path(name).name):
        count = 0
        for count, pixels in enumerate(pictures, 1):
            write_image(name % (count - 1), pixels, where)
        if count == 0:
            raise DataError(f"{where}: expected at least one picture, got none.")
        return count
    image_module: Any = require_extra("PIL.Image", "fields")
    shown = _Counted(pictures, image_module, with_palette=name.lower().endswith(".gif"))
    first = next(shown, None)
    if first is None:
        raise DataError(f"{where}: expected at least one picture, got none.")
    data = io.BytesIO()
    first.save(
        data,
        format=Path(name).suffix[1:].upper(),
        save_all=True,
        append_images=shown,
        duration=round(1000 * pause),
        loop=0,
    )
    write_atomically(path, [data.getvalue()], where)
    return shown.count


class _Counted:
    """Pictures as Pillow's, counted as they are taken."""

    def __init__(self, pictures: Iterable[Array], module: Any, *, with_palette: bool) -> None:
        self.pictures, self.module, self.with_palette = iter(pictures), module, with_palette
        self.count = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> Any:
        pixels = np.ascontiguousarray(next(self.pictures))
        self.count += 1
        image = self.module.fromarray(pixels)
        # A palette of its own for every picture, dithered
        return image.convert("RGB").quantize(256) if self.with_palette else image
