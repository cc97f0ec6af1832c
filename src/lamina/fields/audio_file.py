"""Sounds from files and into them, by soundfile (libsndfile)."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.engine import require_memory
from lamina.core.errors import DataError, require_extra
from lamina.core.modelfile import write_atomically
from lamina.fields.audio import MOST_SAMPLES

Array = npt.NDArray[Any]

# The endings that are written
SUFFIXES: Final = (".wav", ".flac", ".ogg")


def read_audio(
    source: str | os.PathLike[str] | bytes, where: str = "read_audio"
) -> tuple[Array, float]:
    """Read a sound.

    Parameters
    ----------
    source : str, path-like or bytes
        A file that libsndfile can read (WAV, FLAC, Ogg, AIFF, MP3, …), or its content.
    where : str
        The start of error sentences.

    Returns
    -------
    samples : array (n,) or (n, channels)
        int16 of files with 16 bits, else float32 in [-1, 1].
    rate : float
        Samples a second.

    Raises
    ------
    DataError
        No such file, no sound, one that is cut short, or one that is too long.
    MissingExtraError
        soundfile is not installed.
    """
    soundfile: Any = require_extra("soundfile", "fields")
    name = "the data" if isinstance(source, bytes) else repr(os.fspath(source))
    advice = "Pass a WAV, FLAC or Ogg file."
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise DataError(f"{where}: expected a file {name}, got none. Check the path.")
    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        with soundfile.SoundFile(opened) as file:
            n, channels = file.frames, file.channels
            if not 0 < n * channels <= MOST_SAMPLES:
                raise DataError(
                    f"{where}: expected 1 to {MOST_SAMPLES:,} samples, got {name} with {n:,} of "
                    f"{channels}. Cut it into parts."
                )
            dtype = "int16" if file.subtype == "PCM_16" else "float32"
            require_memory(n * channels * np.dtype(dtype).itemsize)
            samples = file.read(dtype=dtype)
            rate = float(file.samplerate)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{where}: expected a sound in {name}, got: {reason} {advice}") from error
    if len(samples) != n:
        raise DataError(
            f"{where}: expected a whole sound in {name}, got {len(samples):,} of {n:,} samples. "
            "Get the file again."
        )
    return samples, rate


def write_audio(
    path: str | os.PathLike[str], samples: Array, rate: float, where: str = "write_audio"
) -> None:
    """Write a sound, all of it or nothing.

    Parameters
    ----------
    path : str or path-like
        Its ending says the format: .wav, .flac or .ogg.
    samples : array (n,) or (n, channels)
        int16 are written with 16 bits; floats, clipped to [-1, 1], with 32 in .wav and 24 in .flac.
    rate : float
        Samples a second, rounded to a whole number.
    where : str
        The start of error sentences.

    Raises
    ------
    DataError
        The format is none of these, or cannot hold such samples.
    ModelFileError
        `path` cannot be written.
    """
    soundfile: Any = require_extra("soundfile", "fields")
    suffix = check_audio_suffix(path, where)
    array = np.asarray(samples)
    if array.dtype.kind == "f":
        array = np.clip(array, -1.0, 1.0)
    bits = {"int16": "PCM_16", "int32": "PCM_24" if suffix == ".flac" else "PCM_32"}
    subtype = bits.get(array.dtype.name, "FLOAT" if suffix == ".wav" else "PCM_24")
    buffer = io.BytesIO()
    try:
        soundfile.write(
            buffer,
            array,
            round(rate),
            format=suffix[1:].upper(),
            subtype="VORBIS" if suffix == ".ogg" else subtype,
        )
    except (soundfile.SoundFileError, ValueError) as error:
        raise DataError(
            f"{where}: expected samples that {suffix} can hold, got: {error} "
            "Write a .wav, or choose another rate."
        ) from error
    write_atomically(path, [buffer.getvalue()], where)


def check_audio_suffix(path: str | os.PathLike[str], where: str) -> str:
    """Return the ending of a file's name if sounds can be written under it."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{where}: expected a name that ends in {', '.join(SUFFIXES)}, got {suffix!r}. "
            "Rename it: the ending says the format."
        )
    return suffix
