"""Enclosures of a network over boxes: of the numbers that it computes, its rounding included.

What is enclosed is ``net(x)`` as the engine computes it in the network's dtype, for every x of
that dtype in the box. What is assumed of the engine: products and sums in any order, each rounded
once, with results below the normal numbers flushed to zero; activations within the bounds that
native/vmath.h states and tests/native/test_vector_math.py holds, here rounded up to 32 units of
rounding. A sum of k products is then off by at most k u / (1 - k u) of its absolute terms.

References
----------
Higham (2002), "Accuracy and stability of numerical algorithms", section 3.1, for the sums.
Zhang et al. (2018), arXiv:1811.00866 (CROWN), for linear bounds of networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from lamina.core.errors import SpecError
from lamina.core.functions import GELU_TANH_CUBIC, LEAKY_SLOPE, SELU_ALPHA, SELU_SCALE
from lamina.core.network import Network
from lamina.theory import interval as iv
from lamina.theory import smooth
from lamina.theory.interval import Interval
from lamina.theory.smooth import scaled
from lamina.theory.taylor import Boxes, Float64, Taylor

_ACTIVATION_UNITS: Final = 32  # of rounding: at least twice what the engine states
_UNIT: Final = {"float32": 2.0**-24, "float64": 2.0**-53}
_SINE_REACH: Final = {"float32": 1e4, "float64": 1e7}  # as native/vmath.h states


def check_network(net: object, where: str) -> Network:
    """Return the network if it is one whose output can be bounded; else raise SpecError."""
    if not isinstance(net, Network):
        raise SpecError(
            f"{where}: expected a lamina.Network, got {type(net).__name__}. "
            f"Convert other models first, for example with lamina.from_torch."
        )
    spec = net.spec
    if spec.d_out != 1 or spec.output not in ("identity", "sigmoid", "exp", "step"):
        raise SpecError(
            f"{where}: expected a network with one output, of identity, sigmoid, exp or step, got "
            f"{spec.d_out} of {spec.output}. Make one network for each function."
        )
    if spec.encoding is not None:
        raise SpecError(
            f"{where}: expected a network without encoding, got {spec.encoding!r}. "
            f"Feed the coordinates to the first layer directly."
        )
    return net


def network_model(net: Network, boxes: Boxes) -> Taylor:
    """Enclose what a network computes over each box, (B, 1).

    Parameters
    ----------
    net : Network
        As ``check_network`` accepts it.
    boxes : Boxes
        Of ``net.spec.d_in`` dimensions.

    Returns
    -------
    Taylor
        Of shape (B, d_out), and unbounded where nothing is known.
    """
    spec = net.spec
    unit = _UNIT[spec.dtype]
    h = [Taylor.inputs(boxes)]
    with np.errstate(all="ignore"):
        for layer in range(1, spec.n_layers + 1):
            u = _joined([h[j] for j in spec.sources(layer)])
            weight = net.weights[layer - 1].astype(np.float64)
            z = _product(u, weight, net.biases[layer - 1].astype(np.float64), spec.dtype)
            name = spec.activation_at(layer) if layer < spec.n_layers else spec.output
            h_l = _activated(z, name, spec.dtype)
            if spec.residual_at(layer):
                h_l = h_l + h[-1]
                h_l = _looser(h_l, 2 * unit * h_l.size())
            h.append(h_l)
    return h[-1]


def _joined(parts: list[Taylor]) -> Taylor:
    """Several layers' models side by side."""
    if len(parts) == 1:
        return parts[0]

    def join(name: str) -> Float64:
        return np.concatenate([getattr(p, name) for p in parts], axis=-1)

    spread = Interval(
        np.concatenate([p.range.lo for p in parts], axis=-1),
        np.concatenate([p.range.hi for p in parts], axis=-1),
    )
    return Taylor(
        parts[0].boxes, join("constant"), join("linear"), join("quadratic"), join("error"), spread
    )


def _product(u: Taylor, weight: Float64, bias: Float64, dtype: str) -> Taylor:
    """W u + b as computed in dtype, from models of u."""
    n = weight.shape[1]
    size = u.size()
    absolute = np.abs(weight).T
    theirs, ours = (n + 2) * _UNIT[dtype], 2 * (n + 20) * _UNIT["float64"]
    share = theirs / (1 - theirs) + ours / (1 - ours)
    tiny = float(np.finfo(dtype).tiny)  # flushed to zero, weights too
    lost = share * (size @ absolute + np.abs(bias)) + tiny * (
        size.sum(axis=1, keepdims=True) + n + 2
    )
    return Taylor.make(
        u.boxes,
        u.constant @ weight.T + bias,
        u.linear @ weight.T,
        u.quadratic @ weight.T,
        (u.error @ absolute) * (1 + ours) + lost * (1 + ours),
    )


def _looser(z: Taylor, error: Float64) -> Taylor:
    """The model with more error, and its range by as much wider."""
    spread = Interval(iv.add_down(z.range.lo, -error), iv.add_up(z.range.hi, error))
    return Taylor.make(
        z.boxes, z.constant, z.linear, z.quadratic, iv.add_up(z.error, error), spread
    )


def _activated(z: Taylor, name: str, dtype: str) -> Taylor:
    """phi(z) as computed in dtype, from models of the computed z."""
    if name == "identity":
        return z
    if name == "step":
        return z.bounded(iv.step(z.range))
    if name == "relu":
        return z.positive_part()
    value = _FORMULAS[name](z)
    largest = np.maximum(np.abs(value.range.lo), np.abs(value.range.hi))
    absolute = 0.0 if name in ("leaky_relu", "squared_relu", "exp", "sigmoid", "tanh") else 1.0
    lost = _ACTIVATION_UNITS * _UNIT[dtype] * (largest + absolute) + 4 * np.finfo(dtype).tiny
    if name == "sine":
        far = z.range.magnitude()[1] > _SINE_REACH[dtype]
        lost = np.where(far, np.inf, lost)
    return _looser(value, lost)


def _selu(z: Taylor) -> Taylor:
    one = Taylor.number(z.boxes, Interval.of(1.0))
    negative = (-((-z).positive_part())).smooth(smooth.EXP) - one
    return scaled(z.positive_part() + scaled(negative, SELU_ALPHA), SELU_SCALE)


def _gelu_tanh(z: Taylor) -> Taylor:
    inner = z + scaled(z.smooth(smooth.power(3)), GELU_TANH_CUBIC)
    return z * scaled(inner, 2.0 * np.sqrt(2.0 / np.pi)).smooth(smooth.SIGMOID)


def _squared_relu(z: Taylor) -> Taylor:
    part = z.positive_part()
    return part.smooth(smooth.power(2))


_FORMULAS: Final[dict[str, Callable[[Taylor], Taylor]]] = {
    "leaky_relu": lambda z: scaled(z, LEAKY_SLOPE) + scaled(z.positive_part(), 1 - LEAKY_SLOPE),
    "sigmoid": lambda z: z.smooth(smooth.SIGMOID),
    "tanh": lambda z: z.smooth(smooth.TANH),
    "softplus": lambda z: z.smooth(smooth.SOFTPLUS),
    "sine": lambda z: z.smooth(smooth.SIN),
    "exp": lambda z: z.smooth(smooth.EXP),
    "gelu": lambda z: z * z.smooth(smooth.NORMAL_CDF),
    "gelu_tanh": _gelu_tanh,
    "silu": lambda z: z * z.smooth(smooth.SIGMOID),
    "selu": _selu,
    "mish": lambda z: z * z.smooth(smooth.SOFTPLUS).smooth(smooth.TANH),
    "squared_relu": _squared_relu,
}
