"""Weights as whole numbers times a step a tensor, and as a stream of bytes.

The specification of a field whose weights are quantised has ``"coding"`` beside its other parts::

    {"codec": "uniform", "version": 1, "tensors": [["rans", step, n_bytes], ...]}

and the file, in place of the weights' arrays, one array ``"stream"`` (uint8): the tensors' streams
one after the other. A tensor is a level of a hash grid, or a layer's weight or bias, in the order
of `tensors`; those of a scene's second network follow those of its first. Another codec (latent
grids, a learned entropy model) is another name; another coder of a tensor another first entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_count, check_number
from lamina.core.encodings import HashGrid
from lamina.core.engine import require_memory
from lamina.core.errors import DataError, SpecError
from lamina.core.spec import NetworkSpec
from lamina.fields.entropy import decode, encode

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

CODEC, VERSION, CODER = "uniform", 1, "rans"
# Steps have few bits, so that their text is short. Codes are exact in float32; their product with a
# step is rounded once (not at all below 2^17), as IEEE 754 has it on every machine.
STEP_BITS: Final = 7
MOST_CODE: Final = (1 << 24) - 1
LEAST_STEP, MOST_STEP = 2.0**-60, 2.0**60
# Numbers a byte of a stream at most, beyond the first million: a short file takes little memory
MOST_EXPANSION: Final = 2048


def tensors(*specs: NetworkSpec) -> list[slice]:
    """Return where each tensor lies in the networks' thetas, one after the other.

    Of each network: weight and bias of each layer, then levels.
    """
    found: list[slice] = []
    begin = 0
    for spec in specs:
        found += [slice(begin + part.start, begin + part.stop) for part in _tensors_of(spec)]
        begin += spec.n_params
    return found


def _tensors_of(spec: NetworkSpec) -> list[slice]:
    found = [part for layer in spec.slices() for part in layer]
    begin = spec.table_slice.start
    if isinstance(spec.encoding, HashGrid):
        for level in spec.encoding.levels(spec.d_in):
            found.append(slice(begin, begin + level.entries * spec.encoding.n_features))
            begin = found[-1].stop
    return found


def as_step(size: float) -> float:
    """Return the nearest step: a number of `STEP_BITS` significant bits.

    Examples
    --------
    >>> as_step(0.3)
    0.30078125
    """
    size = min(max(size, LEAST_STEP), MOST_STEP)
    significand, exponent = math.frexp(size)
    return math.ldexp(round(significand * 2**STEP_BITS), exponent - STEP_BITS)


@dataclass(frozen=True)
class Quantised:
    """theta = codes * step.

    Attributes
    ----------
    codes : int32 array (n_params,)
    steps : tuple of float
        One a tensor, of `STEP_BITS` significant bits.
    """

    codes: npt.NDArray[np.int32]
    steps: tuple[float, ...]

    @classmethod
    def of(
        cls, theta: Array, parts: list[slice], steps: tuple[float, ...], dead_zone: float = 0.0
    ) -> Quantised:
        """Return theta in these steps.

        Parameters
        ----------
        theta : array (n_params,)
        parts : list of slice
            From `tensors`.
        steps : tuple of float
        dead_zone : float in [0, 0.5), default 0.0
            Rounding is so much nearer to zero than to the nearest: fewer bits for a little more
            error.
        """
        codes = np.empty(len(theta), np.int32)
        for part, step in zip(parts, steps, strict=True):
            scaled = theta[part] * np.float32(1.0 / step)
            size = np.floor(np.abs(scaled) + np.float32(0.5 - dead_zone))
            codes[part] = np.copysign(np.minimum(size, MOST_CODE), scaled)
        return cls(codes, steps)

    def theta(self, parts: list[slice]) -> Float32:
        """Return the weights: the same bits on every machine."""
        theta = np.empty(len(self.codes), np.float32)
        for part, step in zip(parts, self.steps, strict=True):
            theta[part] = self.codes[part].astype(np.float32) * np.float32(step)
        return theta

    def entropy(self, parts: list[slice]) -> float:
        """Return what the codes take, in bits: each tensor's zero-order entropy and a model."""
        total = 0.0
        for part in parts:
            codes = self.codes[part]
            if not len(codes):
                continue
            low, high = int(codes.min()), int(codes.max())
            if high - low > 4 * len(codes) + 1024:
                counts = np.unique(codes, return_counts=True)[1]
            else:
                counts = np.bincount(codes - low)
                counts = counts[counts > 0]
            total += float(counts @ (math.log2(len(codes)) - np.log2(counts)))
            total += min(12 * len(counts), 140) + 160
        return total

    def n_bytes(self, parts: list[slice]) -> int:
        """Return how long the stream is."""
        return len(self.to_parts(parts)[1])

    def to_parts(self, parts: list[slice]) -> tuple[dict[str, Any], Array]:
        """Return the specification and the stream."""
        streams = [encode(self.codes[part]) for part in parts]
        told = [[CODER, step, len(s)] for step, s in zip(self.steps, streams, strict=True)]
        spec = {"codec": CODEC, "version": VERSION, "tensors": told}
        return spec, np.frombuffer(b"".join(streams), np.uint8)

    @classmethod
    def from_parts(
        cls, told: Any, arrays: Mapping[str, Array], parts: list[slice], where: str
    ) -> Quantised:
        """Read what `to_parts` returned, from a file that may come from anyone.

        Raises
        ------
        SpecError, DataError
            It is not as `to_parts` makes it, or not of these tensors.
        """
        entries = _entries(told, len(parts), where)
        got = {name: (str(array.dtype), array.ndim) for name, array in arrays.items()}
        if got != {"stream": ("uint8", 1)}:
            raise SpecError(f"{where}: expected one array, stream of uint8, got {got!r:.100}.")
        stream, n_params = arrays["stream"], max(part.stop for part in parts)
        if n_params > (1 << 20) + MOST_EXPANSION * len(stream):
            raise DataError(
                f"{where}: expected a stream of {n_params:,} weights, got {len(stream):,} bytes."
            )
        require_memory(16 * n_params)
        if sum(size for _, size in entries) != len(stream):
            raise DataError(f"{where}: expected tensors that make up the stream, got others.")
        codes, at = np.empty(n_params, np.int32), 0
        for part, (_, size) in zip(parts, entries, strict=True):
            codes[part] = decode(stream[at : at + size], part.stop - part.start)
            at += size
        if len(codes) and int(np.abs(codes.astype(np.int64)).max()) > MOST_CODE:
            raise DataError(f"{where}: expected codes of at most {MOST_CODE}, got larger ones.")
        return cls(codes, tuple(step for step, _ in entries))


def _entries(told: Any, n: int, where: str) -> list[tuple[float, int]]:
    """Return each tensor's step and number of bytes, checked."""
    if not isinstance(told, dict) or set(told) != {"codec", "version", "tensors"}:
        raise SpecError(f"{where}: expected coding as codec, version and tensors, got another.")
    if (told["codec"], told["version"]) != (CODEC, VERSION):
        raise SpecError(
            f"{where}: expected weights coded by {CODEC!r} {VERSION}, got "
            f"{str(told['codec'])[:40]!r} {str(told['version'])[:10]}. "
            "Upgrade lamina: pip install --upgrade lamina"
        )
    entries = told["tensors"]
    if not isinstance(entries, list) or len(entries) != n:
        raise SpecError(f"{where}: expected the coding of {n} tensors, got another number.")
    found = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 3 or entry[0] != CODER:
            raise SpecError(f"{where}: expected tensors as [{CODER!r}, step, bytes], got others.")
        step = check_number(entry[1], "step", where, LEAST_STEP, MOST_STEP)
        if as_step(step) != step:
            raise SpecError(f"{where}: expected steps of {STEP_BITS} bits, got {step!r}.")
        found.append((step, check_count(entry[2], "bytes", where, 0)))
    return found
