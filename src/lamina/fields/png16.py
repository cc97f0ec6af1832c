"""PNG files of 16 bits a channel, which Pillow reads and writes in grey only.

Only what differs from 8 bits is here: Pillow handles all other files. Rows are filtered by
prediction from their neighbours; rows depend on each other, so that undoing them one number at a
time would take minutes. Along diagonals nothing depends on anything else: step t undoes column
t - i of every row i at once.

References
----------
W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", sections 7, 9 and 11.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError

Array = npt.NDArray[Any]

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHANNELS: Final = {2: 3, 4: 2, 6: 4}  # colour type: RGB, grey and alpha, RGBA
# Adam7: first column and row, steps between columns and rows of each pass
_PASSES: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def is_deep(head: bytes) -> bool:
    """Whether a file that begins with these 33 bytes is a PNG of 16 bits and several channels."""
    return (
        head.startswith(SIGNATURE)
        and head[12:16] == b"IHDR"
        and len(head) >= 33
        and head[24] == 16
        and head[25] in _CHANNELS
    )


def decode(data: bytes, where: str) -> Array:
    """Return the pixels (height, width, channels) uint16 of a file for which `is_deep` holds.

    Raises
    ------
    DataError
        The file is cut short or damaged.
    """
    width, height, _, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    channels = _CHANNELS[kind]
    stride = 2 * channels
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for x, y, dx, dy in passes]
    most = sum(h * (w * stride + 1) for h, w in sizes if h > 0 and w > 0)
    try:
        raw = np.frombuffer(_inflate(data, most), np.uint8)
    except (zlib.error, struct.error, ValueError) as error:
        raise DataError(
            f"{where}: expected a whole PNG file, got one that is cut short or damaged ({error}). "
            "Get the file again."
        ) from error
    pixels = np.empty((height, width, channels), np.uint16)
    start = 0
    for (h, w), (x, y, dx, dy) in zip(sizes, passes, strict=True):
        if h <= 0 or w <= 0:
            continue
        size = h * (w * stride + 1)
        rows = raw[start : start + size].reshape(h, -1)
        start += size
        plain = _unfilter(rows[:, 0], rows[:, 1:].reshape(h, w, stride), where)
        pixels[y::dy, x::dx] = plain.view(">u2")
    return pixels


def encode(pixels: Array) -> list[bytes]:
    """Return the parts of a PNG file of pixels (height, width, 2 to 4 channels) uint16."""
    height, width, channels = pixels.shape
    kind = {count: kind for kind, count in _CHANNELS.items()}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    squeeze = zlib.compressobj(6)
    packed = []
    before = np.zeros(width * channels * 2, np.uint8)
    for row in pixels:
        now = row.astype(">u2").view(np.uint8).reshape(-1)
        packed.append(squeeze.compress(b"\x02" + (now - before).tobytes()))  # filter "up"
        before = now
    packed.append(squeeze.flush())
    data = b"".join(packed)
    return [SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", data), *_chunk(b"IEND", b"")]


def _chunk(name: bytes, data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    checksum = zlib.crc32(data, zlib.crc32(name))
    return struct.pack(">I", len(data)), name, data, struct.pack(">I", checksum)


def _inflate(data: bytes, n_bytes: int) -> bytes:
    """Return the pixel data of all IDAT chunks, exactly `n_bytes`."""
    at, unpack = len(SIGNATURE), zlib.decompressobj()
    parts, got = [], 0
    while got < n_bytes:
        size, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        if checksum != zlib.crc32(body, zlib.crc32(name)):
            raise ValueError("a checksum differs")
        at += 12 + size
        if name == b"IEND":
            break
        if name == b"IDAT":
            part = unpack.decompress(body, n_bytes - got)
            got += len(part)
            parts.append(part)
    if got < n_bytes:
        raise ValueError("pixels are missing")
    return b"".join(parts)


def _unfilter(kinds: Array, rows: Array, where: str) -> Array:
    """Undo the filters of rows (height, width, stride) uint8, one kind a row."""
    if len(kinds) and kinds.max() > 4:
        raise DataError(f"{where}: expected PNG filters 0 to 4, got {kinds.max()}. Get it again.")
    height, width, stride = rows.shape
    # A border of zeros above and to the left
    plain = np.zeros((height + 1, width + 1, stride), np.uint8)
    for t in range(height + width - 1):
        i = np.arange(max(0, t - width + 1), min(height, t + 1))
        j = t - i
        left, up, corner = plain[i + 1, j], plain[i, j + 1], plain[i, j]
        guess = _predict(kinds[i][:, None], left, up, corner)
        plain[i + 1, j + 1] = rows[i, j] + guess
    return np.ascontiguousarray(plain[1:, 1:])


def _predict(kind: Array, left: Array, up: Array, corner: Array) -> Array:
    """Return each filter's prediction: none, left, up, their average, Paeth's."""
    a, b, c = left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)
    p_a, p_b, p_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where((p_a <= p_b) & (p_a <= p_c), a, np.where(p_b <= p_c, b, c))
    guesses = np.select(
        [kind == 1, kind == 2, kind == 3, kind == 4], [a, b, (a + b) >> 1, paeth], np.int16(0)
    )
    return guesses.astype(np.uint8)
