"""How a bound on every sample's error is shared out between what is rounded on the way.

A sample is read as ``round(network(x) + unit * k)``, k being a whole number that every processor
finds alike. So within the bound there must be room for

* quantisation: half a step, ``UNITS / 2`` units;
* the network's own rounding, which may differ between instruction sets. A constant has none: zero
  times finite coordinates, plus the bias. Of any other network it is measured, its float32 values
  against the same network in float64, at many samples; twice `NETWORK_FACTOR` times the largest
  difference is left free, as encoder and decoder may both be off;
* rounding to the array's type: half a unit in the last place of the largest value; of whole numbers
  nothing, as ``|round(v) - x| <= b`` wherever ``|v - x| < floor(b) + 1/2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from lamina.core.checks import check_number
from lamina.core.errors import DataError, SpecError
from lamina.core.network import Network
from lamina.fields.lattice import UNITS
from lamina.fields.volume import VolumeForm, VolumeSignal

NETWORK_FACTOR: Final = 8.0
NETWORK_ROWS: Final = 1 << 16


@dataclass(frozen=True)
class Bound:
    """The largest error that a sample may have, in the array's units."""

    asked: float

    @classmethod
    def of(
        cls, absolute: float | None, relative: float | None, signal: VolumeSignal, where: str
    ) -> Bound | None:
        """Return the bound of one of two arguments, or None.

        Raises
        ------
        SpecError
            Both are given, or one is not a positive number.
        """
        if absolute is not None and relative is not None:
            raise SpecError(
                f"{where}: expected max_error or max_relative_error, got both. Pass one of them."
            )
        if absolute is not None:
            return cls(check_number(absolute, "max_error", where, 0.0, closed="right"))
        if relative is None:
            return None
        share = check_number(relative, "max_relative_error", where, 0.0, 1.0, closed="right")
        return cls(share * signal.peak)

    def unit(self, form: VolumeForm, network_slack: float) -> float:
        """Return the unit of quantisation that leaves room for all else.

        Raises
        ------
        DataError
            Rounding alone takes more than half of the bound.
        """
        size = max(abs(form.low), abs(form.high)) + self.asked
        wide = size * 2.0**-48  # sums in float64
        if form.is_whole:
            room = math.floor(self.asked) + 0.5
            spent = network_slack + wide
        else:
            room = self.asked
            spent = network_slack + wide + size * float(np.finfo(form.dtype).eps) / 2
        if spent > room / 2:
            raise DataError(
                f"VolumeField.fit: expected a bound of at least {2 * spent:.3g}, as {form.dtype} "
                f"holds such values no finer, got {self.asked:.3g}. Raise it, or store the array "
                "as it is."
            )
        return 2.0 * (room - spent) * (1.0 - 2.0**-20) / UNITS

    def network_slack(self, network: Network, signal: VolumeSignal) -> float:
        """Return room for a network's rounding: see the module."""
        step = -(-signal.n_rows // NETWORK_ROWS)
        x = signal.rows(np.arange(0, signal.n_rows, step))[0]
        exact = float64_twin(network)(x.astype(np.float64))
        off = float(np.abs(network(x) - exact).max())
        return 2.0 * NETWORK_FACTOR * max(off, float(np.abs(exact).max()) * 2.0**-24)


def float64_twin(network: Network) -> Network:
    """Return the same network computed in float64."""
    spec = network.spec.to_json() | {"dtype": "float64"}
    return Network.from_spec(type(network.spec).from_json(spec), network.theta.astype(np.float64))


def constant_network(signal: VolumeSignal) -> Network:
    """Return a network of zero weights whose bias is about the mean of each channel."""
    network = Network(signal.d_in, (), signal.d_out, rng=0)
    network.weights[0] = np.zeros((signal.d_out, signal.d_in), np.float32)
    mean, _ = signal.statistics()
    network.biases[0] = mean.astype(np.float32)
    return network
