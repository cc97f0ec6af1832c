"""A piecewise-linear network in whole numbers: its layers as affine maps, nothing rounded.

Weights are binary fractions, so that every layer's map on a region is a matrix of integers over
one power of two, the same in every region.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import SpecError
from lamina.core.functions import LEAKY_SLOPE
from lamina.core.network import Network

Integers = NDArray[Any]
"""An array of Python integers."""

PIECEWISE_LINEAR: Final = ("identity", "step", "relu", "leaky_relu")


@dataclass(frozen=True)
class Layer:
    """Layer l: ``2^-exponent`` times whole numbers give its h as a map of the parameters.

    ``shifts`` bring its sources to one power of two.
    """

    weight: Integers
    bias: Integers
    sources: tuple[int, ...]
    shifts: tuple[int, ...]
    kind: str
    slope: int  # leaky_relu: z where z > 0 is shifted by slope_shift, else multiplied by slope
    slope_shift: int
    residual_shifts: tuple[int, int] | None  # of phi(z) and of h_{l-1}


class ExactNetwork:
    """The layers of a network on an affine piece of its inputs.

    Parameters
    ----------
    net : Network
        Without encoding, of piecewise-linear activations.
    frame : array of Fraction (d_in, k + 1)
        x = frame @ (parameters, 1), binary fractions.
    where : str
        For error sentences.
    """

    def __init__(self, net: Network, frame: NDArray[Any], where: str) -> None:
        check_piecewise_linear(net, where)
        spec = net.spec
        self.kinds = [*spec.activations, "step" if spec.output == "step" else "identity"]
        exponents = [_exponent(frame)]
        self.input = _whole(frame, exponents[0])  # (d_in, k + 1)
        self.layers: list[Layer] = []
        slope = Fraction(float(np.dtype(spec.dtype).type(LEAKY_SLOPE)))
        slope_exponent = _exponent(np.array([slope], object))
        for layer in range(1, spec.n_layers + 1):
            weight, bias = _fractions(net.weights[layer - 1]), _fractions(net.biases[layer - 1])
            sources = spec.sources(layer)
            common = max(exponents[j] for j in sources)
            own = max(_exponent(weight), _exponent(bias) - common)
            exponent = own + common
            kind = self.kinds[layer - 1]
            leaky = kind == "leaky_relu"
            out = 0 if kind == "step" else exponent + (slope_exponent if leaky else 0)
            residual = None
            if spec.residual_at(layer):
                largest = max(out, exponents[layer - 1])
                residual = (largest - out, largest - exponents[layer - 1])
                out = largest
            self.layers.append(
                Layer(
                    _whole(weight, own),
                    _whole(bias, exponent),
                    sources,
                    tuple(common - exponents[j] for j in sources),
                    kind,
                    int(slope * 2**slope_exponent),
                    slope_exponent,
                    residual,
                )
            )
            exponents.append(out)
        self.exponent = exponents[-1]  # of the last layer's z, or of its h after a step

    def sums(self, layer: int, maps: list[Integers]) -> Integers:
        """Return z_l as whole numbers (d_l, k + 1); ``maps[j]`` is h_j on this region."""
        this = self.layers[layer - 1]
        u = np.concatenate(
            [maps[j] << shift for j, shift in zip(this.sources, this.shifts, strict=True)]
        )
        read = (u != 0).any(axis=1)  # units that are off add nothing
        z = this.weight[:, read] @ u[read]
        if not read.any():
            z = np.full((len(this.weight), u.shape[1]), 0, object)
        z[:, -1] += this.bias
        return np.asarray(z)

    def values(self, layer: int, z: Integers, active: bytes, maps: list[Integers]) -> Integers:
        """Return h_l on a region; ``active`` has a byte a unit, 1 where z > 0."""
        this = self.layers[layer - 1]
        on = np.frombuffer(active, bool)[:, np.newaxis]
        if this.kind == "identity":
            h = z
        elif this.kind == "step":
            h = np.zeros_like(z)
            h[:, -1] = list(active)
        elif this.kind == "relu":
            h = np.where(on, z, 0)
        else:
            h = np.where(on, z << this.slope_shift, z * this.slope)
        if this.residual_shifts is not None:
            own, below = this.residual_shifts
            h = (h << own) + (maps[layer - 1] << below)
        return np.asarray(h, object)


def check_piecewise_linear(net: object, where: str) -> None:
    """Raise `SpecError` unless the network is linear on every region of its inputs."""
    if not isinstance(net, Network):
        raise SpecError(
            f"{where}: expected a lamina.Network, got a {type(net).__name__}. "
            "Convert it first, for example with lamina.from_torch."
        )
    if net.encoding is not None:
        raise SpecError(
            f"{where}: expected a network that reads x itself, got the encoding {net.encoding!r}. "
            "Linear regions are counted for networks without one."
        )
    for name in net.spec.activations:
        if name not in PIECEWISE_LINEAR:
            raise SpecError(
                f"{where}: expected activations among {', '.join(PIECEWISE_LINEAR)}, got {name!r}, "
                "which is not piecewise linear: it has no linear regions. Use a relu network."
            )


def _fractions(values: NDArray[Any]) -> NDArray[Any]:
    flat = [Fraction(float(v)) for v in np.asarray(values, np.float64).ravel()]
    return np.array([*flat, None], object)[:-1].reshape(np.shape(values))


def _exponent(values: NDArray[Any]) -> int:
    """The smallest e for which all values times 2^e are whole."""
    return max((v.denominator.bit_length() - 1 for v in values.ravel()), default=0)


def _whole(values: NDArray[Any], exponent: int) -> Integers:
    flat = [int(v * 2**exponent) for v in values.ravel()]
    return np.array([*flat, None], object)[:-1].reshape(values.shape)
