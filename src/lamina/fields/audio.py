"""A sound as a signal: sample i of n at t = (2 i + 1) / n - 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_number, shape_of
from lamina.core.errors import DataError, ShapeError
from lamina.fields.signal import Float32, Signal, centres

Array = npt.NDArray[Any]

DTYPES: Final = ("int16", "int32", "float32", "float64")
MOST_CHANNELS: Final = 16
MOST_SAMPLES: Final = 1 << 30
# Of a channel: beyond, float32 no longer tells neighbouring times apart well enough
MOST_LENGTH: Final = 1 << 23
LEAST_RATE, MOST_RATE = 1.0, 1e7  # Hz


@dataclass(frozen=True)
class AudioForm:
    """What a sound looks like: enough to render one like it.

    Attributes
    ----------
    n_samples, channels : int
    is_flat : bool
        Whether its array is (n_samples,), without an axis of channels.
    rate : float
        Samples a second.
    dtype : str
    """

    n_samples: int
    channels: int
    is_flat: bool
    rate: float
    dtype: str

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.n_samples / self.rate

    @property
    def peak(self) -> float:
        """The largest value there can be: 1 of floats, 2^15 or 2^31 of whole numbers."""
        return 1.0 if self.dtype.startswith("f") else -float(np.iinfo(self.dtype).min)

    def finish(self, values: Array) -> Array:
        """Return a field's values (n, channels) as this sound's: rounded and clipped, its dtype."""
        if self.dtype.startswith("f"):
            return values.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        wide = np.rint(values.astype(np.float64))
        return np.clip(wide, limits.min, limits.max).astype(self.dtype)


class AudioSignal(Signal):
    """The samples of an array, which is read where it lies.

    Parameters
    ----------
    samples : array (n,) or (n, channels)
        int16, int32 or floats.
    rate : float
        Samples a second.
    where : str
        The start of error sentences.

    Raises
    ------
    ShapeError, DataError, SpecError
        Of another shape or type, not finite, or without a sample.
    """

    d_in = 1

    def __init__(self, samples: npt.ArrayLike, rate: object, where: str) -> None:
        super().__init__()
        array = _checked(samples, where)
        self.samples = array if array.ndim == 2 else array[:, None]
        self.n_rows, self.d_out = self.samples.shape
        self.n_values = self.n_rows * self.d_out
        self.resolution = (self.n_rows,)
        if rate is None:
            raise DataError(
                f"{where}: expected rate, the samples a second, with an array, got None. "
                "Pass rate=44100 or the like, or a file, which knows it."
            )
        hertz = check_number(rate, "rate", where, LEAST_RATE, MOST_RATE)
        self.form = AudioForm(self.n_rows, self.d_out, array.ndim == 1, hertz, array.dtype.name)
        self.peak = self.form.peak
        self.places = centres(self.n_rows)

    def rows(self, index: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Return times and samples."""
        return self.places[index][:, None], self.samples[index].astype(np.float32)

    def power(self) -> float:
        """The mean square of all samples."""
        return float(np.mean([np.vdot(c, c) for c in self.samples.T.astype(np.float64)])) / (
            self.n_rows
        )


def _checked(samples: npt.ArrayLike, where: str) -> Array:
    array = samples if isinstance(samples, np.ndarray) else np.asarray(samples)
    shape = shape_of(array)
    has_form = len(shape) == 1 or (len(shape) == 2 and 1 <= shape[1] <= MOST_CHANNELS)
    if not has_form or 0 in shape:
        raise ShapeError(
            f"{where}: expected samples of shape (n,) or (n, channels) with 1 to {MOST_CHANNELS} "
            f"channels, got {shape}. Transpose it if channels come first."
        )
    if array.dtype.name not in DTYPES:
        raise DataError(
            f"{where}: expected samples of {', '.join(DTYPES)}, got {array.dtype}. "
            "Convert them, for example to float32 in [-1, 1]."
        )
    if shape[0] > MOST_LENGTH:
        raise DataError(
            f"{where}: expected at most {MOST_LENGTH:,} samples a channel, some three minutes, got "
            f"{shape[0]:,}. Cut the sound into parts."
        )
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all() and abs(array).max() < 1e6):
        raise DataError(
            f"{where}: expected finite samples, in [-1, 1] or little beyond, got others. "
            "Replace or scale them first."
        )
    return array
