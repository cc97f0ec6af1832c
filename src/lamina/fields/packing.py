"""Bytes compressed by zlib, and back without trusting them; flags as bits."""

from __future__ import annotations

import math
import zlib

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


def pack_flags(flags: Flags) -> Bytes:
    """Return flags as bytes; none if none is set."""
    if not flags.any():
        return np.empty(0, np.uint8)
    return squeeze(np.packbits(flags).tobytes())


def unpack_flags(data: Bytes, dims: tuple[int, ...]) -> Flags:
    """Return the inverse of `pack_flags`."""
    n = math.prod(dims)
    raw = unsqueeze(data.tobytes(), -(-n // 8), "VolumeField")
    return np.unpackbits(np.frombuffer(raw, np.uint8), count=n).astype(np.bool_).reshape(dims)


def squeeze(data: bytes) -> Bytes:
    """Return bytes compressed by zlib."""
    return np.frombuffer(zlib.compress(data, 9), np.uint8)


def unsqueeze(data: bytes, size: int | None, where: str) -> bytes:
    """Return what `squeeze` was given, which must be `size` bytes (None: at most 1 MiB)."""
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(data, (1 << 20 if size is None else size) + 1)
    except zlib.error as error:
        raise damaged(where) from error
    if not inflate.eof or (size is not None and len(found) != size):
        raise damaged(where)
    return found


def damaged(where: str) -> DataError:
    """Return what to raise where a file's parts do not fit."""
    return DataError(
        f"{where}: expected blocks as they were coded, got others. Take another copy of the file."
    )
