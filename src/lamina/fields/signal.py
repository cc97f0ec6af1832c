"""What a field is fitted to: values at coordinates, handed out in rounds, never stored twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.losses import Loss, SquaredError

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

BLOCK_ROWS: Final = 1 << 18  # at once, when everything is visited: 6 MB of coordinates and values
KEPT_ROWS: Final = 1 << 21  # up to so many, coordinates and values are kept between rounds
STATISTICS_ROWS: Final = 1 << 17  # looked at for mean and spread


class Signal:
    """Values over the box [-1, 1]^d_in.

    A kind of signal says what its values are at rows 0 … n_rows - 1 (`rows`). One that has no
    rows of its own, such as points drawn in space, overrides `draw` and `blocks` instead.

    Attributes
    ----------
    d_in, d_out : int
        Coordinates, and values at each place.
    n_rows : int
        Places with values.
    n_values : int
        Numbers that the signal consists of.
    resolution : tuple of int
        Samples along each coordinate: no grid of a field is as fine.
    peak : float
        What PSNR is relative to.
    loss : Loss
        What training minimises; a derivative's loss has targets of values and gradients.
    is_smooth : bool
        Whether gradients matter, so that a grid is interpolated without kinks.
    """

    d_in: int
    d_out: int
    n_rows: int
    n_values: int
    resolution: tuple[int, ...]
    peak: float
    loss: Loss = SquaredError()
    is_smooth: bool = False

    def __init__(self) -> None:
        self._kept: tuple[Float32, Float32] | None = None
        self._statistics: tuple[Array, float] | None = None

    def rows(self, index: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Return coordinates (m, d_in) and values (m, d_out) of the rows of `index`."""
        raise NotImplementedError

    def blocks(self) -> Iterator[tuple[Float32, Float32]]:
        """Yield coordinates and values of all rows, a bounded number at a time."""
        for start in range(0, self.n_rows, BLOCK_ROWS):
            yield self.rows(np.arange(start, min(start + BLOCK_ROWS, self.n_rows)))

    def statistics(self) -> tuple[Array, float]:
        """Return the mean of each value (d_out,) and the spread of all: float64.

        Of at most `STATISTICS_ROWS` rows, evenly spaced.
        """
        if self._statistics is None:
            step = -(-self.n_rows // STATISTICS_ROWS)
            values = self.rows(np.arange(0, self.n_rows, step))[1].astype(np.float64)
            mean = values.mean(axis=0)
            spread = float(np.sqrt(np.mean((values - mean) ** 2)))
            # A signal of one value has none; its field is then a constant, and any unit will do.
            self._statistics = mean, spread or self.peak or 1.0
        return self._statistics

    def draw(self, k: int, size: int, seed: int) -> tuple[Float32, Float32]:
        """Return coordinates and values, as y = (value - mean) / spread, for training round k.

        Each pass through the signal's rounds visits every row once, in an order that `seed`
        decides.

        Parameters
        ----------
        k : int
            From 0.
        size : int
            Rows; fewer at the end of a pass.
        seed : int
        """
        n_rounds = -(-self.n_rows // size)
        start = (k % n_rounds) * size
        stop = min(start + size, self.n_rows)
        if self.n_rows > KEPT_ROWS:
            order = _affine_order(start, stop, self.n_rows, k // n_rounds, seed)
            return self._standardised(order)
        if self._kept is None:
            order = np.random.default_rng([seed, 1]).permutation(self.n_rows)
            self._kept = self._standardised(order)
        return self._kept[0][start:stop], self._kept[1][start:stop]

    def probe(self) -> tuple[Float32, Array] | None:
        """Return a few coordinates and values to measure the live PSNR on.

        None, of a signal whose loss is the mean square, which is measured for nothing.
        """
        return None

    def release(self) -> None:
        """Let go of what was kept between rounds."""
        self._kept = None

    def _standardised(self, index: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
        mean, spread = self.statistics()
        coordinates, values = self.rows(index)
        values -= mean.astype(np.float32)
        values *= np.float32(1.0 / spread)
        return coordinates, values


def centres(n: int) -> Float32:
    """Return the coordinates of n samples: (2 i + 1) / n - 1, the middles of n equal cells.

    Examples
    --------
    >>> centres(4).tolist()
    [-0.75, -0.25, 0.25, 0.75]
    """
    return ((2.0 * np.arange(n) + 1.0) / n - 1.0).astype(np.float32)


def _affine_order(start: int, stop: int, n: int, which: int, seed: int) -> npt.NDArray[np.int64]:
    """Return places start … stop - 1 of a permutation of n rows that takes no memory.

    i -> (a i + b) mod n with a prime to n: the engine shuffles what is drawn once more, so that
    it need only be spread over the signal. a is near the golden section of n, which spreads any
    run of places most evenly (Knuth, volume 3, section 6.4).
    """
    rng = np.random.default_rng([seed, 2, which])
    a = int(n * rng.uniform(0.60, 0.64)) | 1
    while math.gcd(a, n) != 1:
        a += 2
    offset = int(rng.integers(n))
    return (np.arange(start, stop, dtype=np.int64) * a + offset) % n
