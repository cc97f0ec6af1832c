"""Pictures from files and into them, by Pillow; PNGs of 16 bits in colour by `png16`."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.engine import require_memory
from lamina.core.errors import DataError, LaminaError, require_extra
from lamina.core.modelfile import write_atomically
from lamina.fields import png16
from lamina.fields.image import MOST_PIXELS

Array = npt.NDArray[Any]

# The endings that are written, and the channels and types that each can hold
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_FORMATS: Final = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
STRIP: Final = 64  # rows
_KEPT_MODES: Final = ("L", "LA", "RGB", "RGBA", "I;16", "F")


def read_image(source: str | os.PathLike[str] | bytes, where: str = "read_image") -> Array:
    """Read a picture as an array, the right way up.

    Parameters
    ----------
    source : str, path-like or bytes
        A file that Pillow can read (PNG, JPEG, TIFF, WebP, BMP, GIF, …), or its content. Of
        several frames the first is taken.
    where : str
        The start of error sentences.

    Returns
    -------
    pixels : array (height, width) or (height, width, channels)
        uint8; uint16 of files with 16 bits; float32 of TIFFs of floats. Palettes and CMYK become
        RGB; EXIF orientation is applied.

    Raises
    ------
    DataError
        No such file, no picture, a picture that is cut short, or one that is too large.
    MissingExtraError
        Pillow is not installed.
    """
    image_module: Any = require_extra("PIL.Image", "fields")
    name = "the data" if isinstance(source, bytes) else repr(os.fspath(source))
    try:
        data = source if isinstance(source, bytes) else None
        with io.BytesIO(data) if data is not None else Path(source).open("rb") as file:  # type: ignore[arg-type]
            head = file.read(33)
            file.seek(0)
            if png16.is_deep(head):
                _check_size(int.from_bytes(head[16:20]), int.from_bytes(head[20:24]), name, where)
                return png16.decode(file.read(), where)
            with warnings.catch_warnings():
                # Sizes are judged below, by the memory that there is
                warnings.simplefilter("ignore")
                return _decode(image_module, file, name, where)
    except LaminaError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{where}: expected a file {name}, got none. Check the path.") from error
    except image_module.UnidentifiedImageError as error:
        raise DataError(
            f"{where}: expected a picture, got {name}, which is none that Pillow can read. "
            "Pass a PNG, JPEG, TIFF or WebP file."
        ) from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        image_module.DecompressionBombError,
    ) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise DataError(
            f"{where}: expected a whole picture in {name}, got: {reason}. Get the file again."
        ) from error


def _decode(image_module: Any, file: Any, name: str, where: str) -> Array:
    with image_module.open(file) as image:
        width, height = image.size
        _check_size(width, height, name, where)
        image.load()
        orientation = image.getexif().get(0x0112, 1)
        if orientation != 1:
            upright: Any = require_extra("PIL.ImageOps", "fields").exif_transpose(image)
        else:
            upright = image
        mode = upright.mode
        if mode.startswith("I;16"):
            return np.array(upright, np.uint16)
        if mode == "I":  # 32 bits: what Pillow makes of some files with 16
            wide = np.array(upright)
            fits = wide.size and wide.min() >= 0 and wide.max() <= 65535
            return wide.astype(np.uint16 if fits else np.float32)
        if mode not in _KEPT_MODES:
            has_alpha = mode in ("PA", "La", "RGBa") or "transparency" in upright.info
            target = "L" if mode == "1" else "RGBA" if has_alpha else "RGB"
            upright = upright.convert(target)
        return np.array(upright) if upright.mode == "F" else _to_array(upright)


def _to_array(image: Any) -> Array:
    """Return 8-bit pixels, copied in strips: NumPy by itself would make two copies on the way."""
    width, height = image.size
    n_channels = len(image.getbands())
    pixels = np.empty((height, width, n_channels)[: 2 if n_channels == 1 else 3], np.uint8)
    for top in range(0, height, STRIP):
        bottom = min(top + STRIP, height)
        pixels[top:bottom] = image.crop((0, top, width, bottom))
    return pixels


def _check_size(width: int, height: int, name: str, where: str) -> None:
    if width * height > MOST_PIXELS or not width * height:
        raise DataError(
            f"{where}: expected a picture of 1 to {MOST_PIXELS:,} pixels, got {name} of "
            f"{width:,} x {height:,}. Cut it into parts."
        )
    require_memory(8 * width * height)  # Pillow's copy, and ours


def write_image(path: str | os.PathLike[str], pixels: Array, where: str = "write_image") -> None:
    """Write a picture, all of it or nothing.

    Parameters
    ----------
    path : str or path-like
        Its ending says the format: .png, .jpg, .webp, .tif or .bmp.
    pixels : array (height, width) or (height, width, channels)
        uint8; uint16 for .png, and for .tif if grey; float32 for .tif if grey. Floats for other
        formats are taken to be from 0, black, to 1, white, and rounded to 8 bits.
    where : str
        The start of error sentences.

    Raises
    ------
    DataError
        The format is none of these, or cannot hold such pixels.
    ModelFileError
        `path` cannot be written.
    """
    image_module: Any = require_extra("PIL.Image", "fields")
    suffix = check_image_suffix(path, where)
    array = np.ascontiguousarray(pixels)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype.kind == "f" and not (suffix in (".tif", ".tiff") and array.ndim == 2):
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    is_deep = array.dtype == np.uint16
    if is_deep and suffix == ".png" and array.ndim == 3:
        write_atomically(path, png16.encode(array), where)
        return
    if is_deep and (suffix not in (".png", ".tif", ".tiff") or array.ndim == 3):
        raise DataError(
            f"{where}: expected a format that holds 16 bits a channel, got {suffix}. "
            "Write a .png, or convert the pixels to uint8."
        )
    has_alpha = array.ndim == 3 and array.shape[2] in (2, 4)
    if has_alpha and suffix in (".jpg", ".jpeg", ".bmp"):
        raise DataError(
            f"{where}: expected a format with transparency, got {suffix}. Write a .png or .webp."
        )
    buffer = io.BytesIO()
    quality = {"quality": 95} if suffix in (".jpg", ".jpeg", ".webp") else {}
    image_module.fromarray(array).save(buffer, _FORMATS[suffix], **quality)
    write_atomically(path, [buffer.getvalue()], where)


def check_image_suffix(path: str | os.PathLike[str], where: str) -> str:
    """Return the ending of a file's name if pictures can be written under it."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{where}: expected a name that ends in {', '.join(SUFFIXES)}, got {suffix!r}. "
            "Rename it: the ending says the format."
        )
    return suffix
