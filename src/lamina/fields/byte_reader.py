"""Bytes taken one after the other, from a source that is not trusted."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError

MOST_VARINT_BYTES: Final = 9  # 63 bits


def varint(value: int) -> bytes:
    r"""Return a number ≥ 0 in base 128, least first; bit 7 is set but in the last byte (LEB128).

    Examples
    --------
    >>> varint(5), varint(300)
    (b'\x05', b'\xac\x02')
    """
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class ByteReader:
    """Reads what is there; each method raises `DataError` where it is not.

    Parameters
    ----------
    data : bytes
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, n: int) -> bytes:
        """Return the next n bytes."""
        if n < 0 or n > len(self._data) - self._at:
            raise DataError(
                "entropy.decode: expected a stream that encode made, got one that ends too early. "
                "Read or save it again."
            )
        self._at += n
        return self._data[self._at - n : self._at]

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """Return the next number that `varint` wrote."""
        value = 0
        for place in range(MOST_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value
        raise DataError(
            "entropy.decode: expected numbers of at most 63 bits, got more. Read or save it again."
        )

    def array(self, dtype: str, n: int) -> npt.NDArray[Any]:
        """Return the next n numbers of a type."""
        return np.frombuffer(self.take(n * np.dtype(dtype).itemsize), dtype)

    def finish(self) -> None:
        """Raise `DataError` unless everything was read."""
        if self._at != len(self._data):
            raise DataError(
                "entropy.decode: expected a stream that ends with its values, got more bytes. "
                "Read or save it again."
            )
