"""The model file: a safetensors file whose metadata holds one JSON document.

Layout
------
The format is safetensors (an 8-byte little-endian header length, a JSON header, the arrays one
after the other), so any safetensors reader can look inside. The header's ``__metadata__`` has one
entry, ``"lamina"``, a JSON text::

    {"sha256": ..., "format_version": 1, "role": "network", "lamina_version": ..., "spec": {...}}

``role`` names what the file holds, ``spec`` is that role's own description, and ``sha256`` is
the SHA-256 of the whole file with those 64 digits replaced by zeros, so that one changed bit
anywhere is noticed.

Writing goes through the safetensors package. Reading does not: a model file is untrusted, and
safetensors 0.8 accepts repeated names, unknown fields and BOOL bytes other than 0 and 1, raises
TypeError, AttributeError and ValueError for files that NumPy cannot hold, and maps the file into
memory, where a file that shrinks kills the process. `read` therefore checks every field itself,
and takes memory for an array only once its size is known to match the file's.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from lamina.core.errors import ModelFileError, SpecError

FORMAT_VERSION: Final = 1

# A header takes up to 25 times its size as Python objects (a two-byte "[]" becomes 56 bytes), so
# this bounds what a hostile file can cost to a few hundred megabytes. Our own headers are
# kilobytes; long lists belong in arrays.
MAX_HEADER_BYTES: Final = 16 * 2**20
MAX_RANK: Final = 8  # of an array

_DTYPES: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_UNSIGNED_DIGEST: Final = "0" * 64
_FULL: Final = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_PATH_ADVICE: Final = "Give the path of a file in an existing folder you may write to."
_FILE_ADVICE: Final = "Give a file that lamina wrote; if it is one, copy or save it again."


# --------------------------------------------------------------------------------------- writing


def write(
    path: str | os.PathLike[str],
    role: str,
    spec: dict[str, Any],
    arrays: dict[str, npt.NDArray[Any]],
) -> None:
    """Write a model file, all of it or nothing.

    The bytes go to a temporary name in the target's folder, are flushed to the disk, and take
    the target's name in one step. A failure or Ctrl-C leaves what was there before.

    Parameters
    ----------
    path : str or path-like
        The file to write. An existing file is replaced and keeps its permissions; a symbolic
        link stays, and the file it points to is replaced.
    role : str
        What the file holds, such as ``"network"``; `lamina.load` turns it into an object.
    spec : dict
        The role's description: anything JSON holds (string keys, finite numbers).
    arrays : dict of str to ndarray
        Named arrays of bool, integers or float16/32/64, any shape and memory order.

    Raises
    ------
    ModelFileError
        If the path cannot be written, or `spec` or `arrays` do not fit the format.

    Notes
    -----
    Holds about two copies of the arrays in memory; the same input gives the same bytes.
    """
    where = f"save to {_display(path)}"
    write_atomically(path, _serialise(where, role, spec, arrays), where)


def write_atomically(
    path: str | os.PathLike[str], parts: Iterable[bytes | memoryview], where: str
) -> None:
    """Write the bytes of `parts` to a file, all of them or none.

    Parameters
    ----------
    path : str or path-like
        As in `write`.
    parts : iterable of bytes or memoryview
        What to write, one after the other.
    where : str
        The start of the error sentence.

    Raises
    ------
    ModelFileError
        If the path cannot be written.
    """
    _check_path(path, where)
    try:
        target = Path(path).resolve()
        mode = _mode_of_existing(where, target)
        _write_and_rename(parts, target, mode)
    except ModelFileError:
        raise
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        # RuntimeError: a circle of links, before Python 3.13; ValueError: a NUL
        reason = getattr(error, "strerror", None) or str(error)
        is_full = isinstance(error, OSError) and error.errno in _FULL
        advice = "Make room there, or choose another place." if is_full else _PATH_ADVICE
        raise ModelFileError(
            f"{where}: expected a path that can be written, got: {reason}. {advice}"
        ) from error


def size_of(role: str, spec: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> int:
    """Return how many bytes `write` would write."""
    return sum(len(part) for part in _serialise("size_of", role, spec, arrays))


def _serialise(
    where: str, role: str, spec: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]
) -> list[memoryview]:
    """Return the file as pieces to be written one after the other."""
    from safetensors.numpy import save

    from lamina import __version__

    document = {
        "sha256": _UNSIGNED_DIGEST,  # first, so that its place in the header is certain
        "format_version": FORMAT_VERSION,
        "role": role,
        "lamina_version": __version__,
        "spec": spec,
    }
    try:
        _check_keys(spec)
        text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{where}: expected a specification that JSON can hold, got: {error}. "
            "Use string keys, finite numbers, strings, lists and dicts."
        ) from error
    plain = {}
    for name, array in arrays.items():
        if not (name.isascii() and name.isprintable()) or name in ("", "__metadata__"):
            raise ModelFileError(
                f"{where}: expected array names of printable ASCII, got {name!r}. Rename it."
            )
        if array.dtype.name not in _DTYPES.values() or array.ndim > MAX_RANK:
            raise ModelFileError(
                f"{where}: expected arrays of bool, integers or floats with at most {MAX_RANK} "
                f"axes, got {name!r} of {array.dtype} with {array.ndim}. Convert it first."
            )
        # safetensors copies memory as it lies, so the order must be C
        plain[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    data = save(plain, metadata={"lamina": text})
    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise ModelFileError(
            f"{where}: expected a header of at most {MAX_HEADER_BYTES} bytes, got {header_bytes}. "
            "The specification is too long; put long lists into arrays."
        )
    start = data.index(_UNSIGNED_DIGEST.encode())
    digest = hashlib.sha256(data).hexdigest().encode()
    view = memoryview(data)
    return [view[:start], memoryview(digest), view[start + len(digest) :]]


def _check_keys(value: Any) -> None:
    """Refuse keys that are not strings, which json.dumps would silently turn into strings."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a string")
            _check_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_keys(item)


def _mode_of_existing(where: str, target: Path) -> int | None:
    """Return the permissions of the file to be replaced, None where there is none."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(
            f"{where}: expected a file or a new name, got a folder or device. {_PATH_ADVICE}"
        )
    return stat.S_IMODE(status.st_mode)


def _write_and_rename(parts: Iterable[bytes | memoryview], target: Path, mode: int | None) -> None:
    temporary = target.with_name(f".lamina-{secrets.token_hex(8)}.tmp")
    try:
        # 0o666 less the user's umask, as for any new file (tempfile and safetensors give 0o600)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(target)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            temporary.unlink()
        raise
    with suppress(OSError, AttributeError):  # the new name itself; not every system can
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


# --------------------------------------------------------------------------------------- reading


def read(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read a model file from an untrusted source.

    Parameters
    ----------
    path : str or path-like
        A file that `write` made.

    Returns
    -------
    role : str
        What the file holds.
    spec : dict
        The role's description, as it was written. It is well-formed JSON; whether it makes sense
        (and fits the arrays) is for the role to check.
    arrays : dict of str to ndarray
        The arrays, C-contiguous and writable.

    Raises
    ------
    ModelFileError
        If there is no such file, it is not a lamina file, is of a newer format, or differs in any
        byte from what was written. No other exception comes from a file's content.

    Notes
    -----
    Memory: the arrays themselves and a bounded multiple of the header. The SHA-256 finds damage;
    it is no signature, and a forger can recompute it. Nothing in a file is ever executed.
    """
    where = f"load {_display(path)}"
    _check_path(path, where)
    try:
        file_path = Path(path)
        # A named pipe or device could make open or read wait for ever
        if not stat.S_ISREG(file_path.stat().st_mode):
            raise ModelFileError(
                f"{where}: expected a model file, got a folder or device. {_FILE_ADVICE}"
            )
        with file_path.open("rb") as file:
            return _read_open_file(where, file)
    except ModelFileError:
        raise
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{where}: expected a model file, got no such file. Check the path."
        ) from error
    except (OSError, TypeError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(
            f"{where}: expected a readable file, got: {reason}. Check the path and permissions."
        ) from error


def theta_alone(arrays: Mapping[str, npt.NDArray[Any]], dtype: str, where: str) -> npt.NDArray[Any]:
    """Return the one array of a file that holds nothing but theta, of `dtype`.

    Raises
    ------
    SpecError
        There are others, or it is of another type.
    """
    got = {name: str(array.dtype) for name, array in arrays.items()}
    if got != {"theta": dtype}:
        raise SpecError(
            f"{where}: expected one array, theta of {dtype}, got {got}. Save the model again."
        )
    return arrays["theta"]


def _read_open_file(
    where: str, file: BufferedReader
) -> tuple[str, dict[str, Any], dict[str, npt.NDArray[Any]]]:
    n_file = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    n_header = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or n_header > n_file - 8:
        _refuse(where, f"{n_file} bytes that do not begin like one, or were cut short")
    if n_header > MAX_HEADER_BYTES:
        _refuse(where, f"a header of {n_header} bytes (at most {MAX_HEADER_BYTES})")
    header = file.read(n_header)
    tensors = _parse_json(where, header, "header")
    document = _document(where, tensors.pop("__metadata__", None))
    digest = document["sha256"]
    if header.count(digest.encode()) != 1:
        _refuse(where, "a checksum out of place")
    unsigned = header.replace(digest.encode(), _UNSIGNED_DIGEST.encode())
    layout = _check_layout(where, tensors, n_file - 8 - n_header)

    checksum = hashlib.sha256(prefix + unsigned)
    arrays = {}
    for name, dtype, shape in layout:
        array = np.empty(shape, dtype)
        raw = array.reshape(-1).view(np.uint8)
        if file.readinto(raw.data) != raw.size:
            _refuse(where, "a file that shrank while it was read")
        checksum.update(raw.data)
        if dtype.kind == "b" and (raw > 1).any():
            _refuse(where, f"bytes that are neither true nor false in {name!r}")
        arrays[name] = array
    if checksum.hexdigest() != digest:
        _refuse(where, "a file that was damaged or changed (its checksum differs)")
    return document["role"], document["spec"], arrays


def _refuse(where: str, got: str) -> NoReturn:
    raise ModelFileError(f"{where}: expected a lamina model file, got {got}. {_FILE_ADVICE}")


def _display(path: object) -> str:
    """Return the path for a sentence: quoted, on one line, not endless."""
    try:
        text = repr(os.fspath(path))  # type: ignore[call-overload]
    except TypeError:
        text = repr(path) if path is None or isinstance(path, int | float) else type(path).__name__
    return text if len(text) <= 200 else f"{text[:100]}...{text[-90:]}"


def _check_path(path: object, where: str) -> None:
    """Refuse what names no file, such as a number: to the system it could be an open one's."""
    if (
        not isinstance(path, str | os.PathLike)
        or isinstance(os.fspath(path), bytes)
        or not str(path)
    ):
        got = "an empty string" if path == "" else _display(path)
        raise ModelFileError(
            f"{where}: expected the path of a file, got {got}. "
            "Pass a string or a pathlib.Path, such as 'net.lamina'."
        )


def _parse_json(where: str, data: bytes | str, what: str) -> dict[str, Any]:
    """Parse one JSON object: no repeated key, no NaN or infinity, no endless nesting."""

    def pairs_to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key comes twice")
        return result

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError("a number is not finite")
        return value

    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=pairs_to_dict, parse_float=finite, parse_constant=finite
        )
    except (ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are ValueErrors
        _refuse(where, f"a {what} that cannot be read ({str(error)[:100]})")
    if not isinstance(value, dict):
        _refuse(where, f"a {what} that is not a JSON object")
    return value


def _document(where: str, metadata: Any) -> dict[str, Any]:
    """Return the lamina document of a header's metadata, its fields checked."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get("lamina"), str):
        _refuse(where, "a safetensors file without lamina's metadata")
    document = _parse_json(where, metadata["lamina"], "specification")
    version = document.get("format_version")
    if type(version) is not int or version < 1:
        _refuse(where, "a specification without a format version")
    if version > FORMAT_VERSION:
        writer = str(document.get("lamina_version"))[:40]
        raise ModelFileError(
            f"{where}: expected format version {FORMAT_VERSION} or older, got version "
            f"{str(version)[:20]} (written by lamina {writer!r}). "
            "Upgrade lamina: pip install --upgrade lamina"
        )
    if set(metadata) != {"lamina"}:
        _refuse(where, "metadata that lamina does not write")
    expected = {
        "sha256": str,
        "format_version": int,
        "role": str,
        "lamina_version": str,
        "spec": dict,
    }
    if set(document) != set(expected):
        _refuse(where, "a specification with missing or unknown fields")
    for field, kind in expected.items():
        if type(document[field]) is not kind:
            _refuse(where, f"a specification whose {field!r} is not of type {kind.__name__}")
    digest = document["sha256"]
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        _refuse(where, "a checksum that is not 64 hexadecimal digits")
    return document


def _check_layout(
    where: str, tensors: dict[str, Any], n_data: int
) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """Check that the arrays cover the data exactly; return them in the order of the file."""
    found = []
    for name, entry in tensors.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            _refuse(where, f"an array {name[:80]!r} with missing or unknown fields")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
            _refuse(where, f"an array {name[:80]!r} of a type lamina does not write")
        if not _are_sizes(shape) or len(shape) > MAX_RANK:
            _refuse(where, f"an array {name[:80]!r} with a shape that is none")
        if not _are_sizes(offsets) or len(offsets) != 2:
            _refuse(where, f"an array {name[:80]!r} with offsets that are none")
        dtype = np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<")
        # An axis of 0 makes the product 0 while NumPy still refuses the others if huge
        extent = math.prod(max(size, 1) for size in shape) * dtype.itemsize
        if extent > 2**62 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
            _refuse(where, f"an array {name[:80]!r} whose shape does not fit its bytes")
        found.append((offsets[0], offsets[1], name, dtype, tuple(shape)))
    found.sort(key=lambda item: item[:2])
    end = 0
    for start, stop, name, _, _ in found:
        if start != end:
            _refuse(where, f"a gap or overlap before the array {name[:80]!r}")
        end = stop
    if end != n_data:
        _refuse(where, f"{n_data} bytes of arrays where the header says {end}, perhaps cut short")
    return [(name, dtype, shape) for _, _, name, dtype, shape in found]


def _are_sizes(values: Any) -> bool:
    """Whether this is a list of non-negative integers (bool is none)."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)
