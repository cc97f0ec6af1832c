"""Activations and output units as float64 formulas: the meaning of each name.

The native engine computes the same functions; tests compare it with these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Function = Callable[[Float64], Float64]

LEAKY_SLOPE: Final = 0.01
SELU_ALPHA: Final = 1.6732632423543772848170429916717  # Klambauer 2017, arXiv:1706.02515, eq. 14
SELU_SCALE: Final = 1.0507009873554804934193349852946
GELU_TANH_CUBIC: Final = 0.044715  # Hendrycks 2016, arXiv:1606.08415, section 2


# --- activations: h = value(z), dh/dz = derivative(z), element by element --------------------


@dataclass(frozen=True)
class Activation:
    """An activation: ``h = value(z)`` and ``derivative(z) = dh/dz``, element by element."""

    name: str
    value: Function
    derivative: Function


def sigmoid(z: Float64) -> Float64:
    """1 / (1 + exp(-z)), accurate in both tails."""
    return np.exp(-softplus(-z))


def softplus(z: Float64) -> Float64:
    """log(1 + exp(z)) without overflow."""
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def normal_cdf(z: Float64) -> Float64:
    """Distribution function of the standard normal, 0.5 erfc(-z / sqrt 2)."""
    erfc = np.frompyfunc(math.erfc, 1, 1)
    return 0.5 * np.asarray(erfc(-z / math.sqrt(2.0)), dtype=np.float64)


def normal_pdf(z: Float64) -> Float64:
    """Density of the standard normal."""
    return np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _sigmoid_derivative(z: Float64) -> Float64:
    return sigmoid(z) * sigmoid(-z)


def _tanh_derivative(z: Float64) -> Float64:
    return 1.0 - np.tanh(z) ** 2


def _leaky_relu(z: Float64) -> Float64:
    return np.where(z > 0, z, LEAKY_SLOPE * z)


def _leaky_relu_derivative(z: Float64) -> Float64:
    return np.where(z > 0, 1.0, LEAKY_SLOPE)


def _gelu(z: Float64) -> Float64:
    return z * normal_cdf(z)


def _gelu_derivative(z: Float64) -> Float64:
    return normal_cdf(z) + z * normal_pdf(z)


def _gelu_tanh(z: Float64) -> Float64:
    # 0.5 (1 + tanh a) = sigmoid(2 a), which keeps its accuracy for negative z.
    return z * sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (z + GELU_TANH_CUBIC * z**3))


def _gelu_tanh_derivative(z: Float64) -> Float64:
    scale = 2.0 * math.sqrt(2.0 / math.pi)
    a = scale * (z + GELU_TANH_CUBIC * z**3)
    return sigmoid(a) + z * _sigmoid_derivative(a) * scale * (1 + 3 * GELU_TANH_CUBIC * z**2)


def _silu(z: Float64) -> Float64:
    return z * sigmoid(z)


def _silu_derivative(z: Float64) -> Float64:
    return sigmoid(z) * (1.0 + z * sigmoid(-z))


def _selu(z: Float64) -> Float64:
    negative = SELU_ALPHA * np.expm1(np.minimum(z, 0.0))
    return SELU_SCALE * np.where(z > 0, z, negative)


def _selu_derivative(z: Float64) -> Float64:
    return SELU_SCALE * np.where(z > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(z, 0.0)))


def _mish(z: Float64) -> Float64:
    return z * np.tanh(softplus(z))


def _mish_derivative(z: Float64) -> Float64:
    t = np.tanh(softplus(z))
    return t + z * (1.0 - t * t) * sigmoid(z)


_ACTIVATIONS: Final = (
    Activation("identity", lambda z: z, np.ones_like),
    Activation("step", lambda z: np.heaviside(z, 1.0), np.zeros_like),  # step(0) = 1
    Activation("sigmoid", sigmoid, _sigmoid_derivative),
    Activation("tanh", np.tanh, _tanh_derivative),
    Activation("relu", lambda z: np.maximum(z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    Activation("leaky_relu", _leaky_relu, _leaky_relu_derivative),
    Activation("softplus", softplus, sigmoid),
    Activation("gelu", _gelu, _gelu_derivative),
    Activation("gelu_tanh", _gelu_tanh, _gelu_tanh_derivative),
    Activation("silu", _silu, _silu_derivative),
    Activation("selu", _selu, _selu_derivative),
    Activation("mish", _mish, _mish_derivative),
    Activation("sine", np.sin, np.cos),
    Activation("squared_relu", lambda z: np.maximum(z, 0.0) ** 2, lambda z: 2 * np.maximum(z, 0.0)),
)
ACTIVATIONS: Final[dict[str, Activation]] = {a.name: a for a in _ACTIVATIONS}


# --- output units: y_pred = value(z), grad_z = pullback(y_pred, grad_y) ----------------------


@dataclass(frozen=True)
class Output:
    """An output unit: ``y_pred = value(z)``, and ``pullback(y_pred, g) = (dy_pred/dz)^T g``."""

    name: str
    value: Function
    pullback: Callable[[Float64, Float64], Float64]


def softmax(z: Float64) -> Float64:
    """exp(z_j) / sum_k exp(z_k) along the last axis, without overflow."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def log_softmax(z: Float64) -> Float64:
    """The logarithm of softmax, finite where softmax underflows."""
    shifted = z - z.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _softmax_pullback(p: Float64, g: Float64) -> Float64:
    return np.asarray(p * (g - (g * p).sum(axis=-1, keepdims=True)))


_OUTPUTS: Final = (
    Output("identity", lambda z: z, lambda _, g: g),
    Output("sigmoid", sigmoid, lambda p, g: g * p * (1.0 - p)),
    Output("softmax", softmax, _softmax_pullback),
    Output("exp", np.exp, lambda p, g: g * p),
    Output("step", lambda z: np.heaviside(z, 1.0), lambda _, g: np.zeros_like(g)),
)
OUTPUTS: Final[dict[str, Output]] = {o.name: o for o in _OUTPUTS}
