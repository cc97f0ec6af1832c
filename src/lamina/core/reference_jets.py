"""The slow twin of the jets: derivatives of outputs by inputs, and their way back, in NumPy.

Streams s = 0 … S - 1 travel through the layers beside one another, as in native/jets.h: the value,
a tangent t_j = dh/dx_j for each input, and the curvature q = sum_j c_j d^2h/dx_j^2::

    z_l^s = u_l^s W_l^T (+ b_l for the value)                 (n, d_l)
    h = phi(z),  t_j = phi' t_j(z),  q = phi' q(z) + phi'' sum_j c_j t_j(z)^2

The way back is the transpose of each line, with phi''' where phi'' is differentiated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.core import encode
from lamina.core.functions import ACTIVATIONS, Float64, Function, sigmoid, softmax
from lamina.core.reference import unpack, unpack_table
from lamina.core.spec import NetworkSpec


@dataclass(frozen=True)
class Jet:
    """values (n, d_out), jacobian (n, d_out, d_in) and curvature (n, d_out), or d loss by them."""

    values: Float64
    jacobian: Float64
    curvature: Float64


def forward(spec: NetworkSpec, theta: NDArray[np.float64], x: Float64, c: Float64) -> Jet:
    """Return the derivatives of the outputs.

    Parameters
    ----------
    spec : NetworkSpec
    theta : ndarray, shape (n_params,)
    x : ndarray, shape (n, d_in)
    c : ndarray, shape (d_in,)
        The weight of each d^2/dx_j^2 in the curvature.
    """
    _, h = _streams(spec, theta, x, c)
    return Jet(h[-1][0], np.moveaxis(h[-1][1:-1], 0, 2), h[-1][-1])


def backward(
    spec: NetworkSpec, theta: NDArray[np.float64], x: Float64, c: Float64, seeds: Jet
) -> tuple[Float64, Float64]:
    """Carry d loss / d (values, jacobian, curvature) back to theta (n_params,) and x (n, d_in)."""
    z, h = _streams(spec, theta, x, c)
    delta = [np.zeros_like(h_l) for h_l in h]  # d loss / d h_l, by streams
    delta[-1] = np.stack([seeds.values, *np.moveaxis(seeds.jacobian, 2, 0), seeds.curvature])
    grad = np.zeros(spec.n_params)
    for layer in range(spec.n_layers, 0, -1):
        weight, _ = unpack(spec, theta)[layer - 1]
        weight_slice, bias_slice = spec.slices()[layer - 1]
        if spec.residual_at(layer):
            delta[layer - 1] += delta[layer]
        if layer == spec.n_layers and spec.output == "softmax":
            delta_z = _softmax_backward(z[layer - 1], c, delta[layer])
        else:
            delta_z = _unit_backward(_name(spec, layer), z[layer - 1], c, delta[layer])
        u = np.concatenate([h[j] for j in spec.sources(layer)], axis=2)  # (S, n, fan_in)
        grad[weight_slice] = np.einsum("sno,sni->oi", delta_z, u).ravel()
        grad[bias_slice] = delta_z[0].sum(axis=0)
        start = 0
        for j in spec.sources(layer):
            stop = start + h[j].shape[2]
            delta[j] += delta_z @ weight[:, start:stop]
            start = stop
    return _input_backward(spec, theta, x, c, delta[0], grad)


def _streams(
    spec: NetworkSpec, theta: NDArray[np.float64], x: Float64, c: Float64
) -> tuple[list[Float64], list[Float64]]:
    """z_1 … z_L and h_0 … h_L, each (streams, n, d_l)."""
    operators = _operators(c)
    h_0 = [
        sum(weight * _derivative(spec, theta, x, axes) for weight, axes in terms)
        for terms in operators
    ]
    z: list[Float64] = []
    h: list[Float64] = [np.stack(h_0)]
    for layer, (weight, bias) in enumerate(unpack(spec, theta), start=1):
        u = np.concatenate([h[j] for j in spec.sources(layer)], axis=2)
        z_l = u @ weight.T
        z_l[0] += bias
        if layer == spec.n_layers and spec.output == "softmax":
            h_l = _softmax_forward(z_l, c)
        else:
            h_l = _unit_forward(_name(spec, layer), z_l, c)
        z.append(z_l)
        h.append(h_l + h[layer - 1] if spec.residual_at(layer) else h_l)
    return z, h


# --- h_0 ---------------------------------------------------------------------------------------


def _operators(c: Float64) -> list[list[tuple[float, tuple[int, ...]]]]:
    """For each stream, the derivatives of h_0 that it is a sum of: (weight, axes)."""
    axes = range(len(c))
    tangents: list[list[tuple[float, tuple[int, ...]]]] = [[(1.0, (j,))] for j in axes]
    return [[(1.0, ())], *tangents, [(float(c[j]), (j, j)) for j in axes]]


def _derivative(
    spec: NetworkSpec, theta: NDArray[np.float64], x: Float64, axes: tuple[int, ...]
) -> Float64:
    if spec.encoding is not None:
        return encode.derivative(spec.encoding, unpack_table(spec, theta), x, axes)
    if not axes:
        return x
    unit = np.arange(x.shape[1]) == axes[0] if len(axes) == 1 else np.zeros(x.shape[1])
    return np.tile(unit.astype(np.float64), (len(x), 1))


def _input_backward(
    spec: NetworkSpec,
    theta: NDArray[np.float64],
    x: Float64,
    c: Float64,
    delta: Float64,
    grad: Float64,
) -> tuple[Float64, Float64]:
    grad_x = np.zeros_like(x)
    for terms, d in zip(_operators(c), delta, strict=True):
        for weight, axes in terms:
            if spec.encoding is not None:
                table = encode.table_gradient(spec.encoding, x, axes, weight * d)
                grad[spec.table_slice] += table.ravel()
            for k in range(x.shape[1]):
                by_x = _derivative(spec, theta, x, (*axes, k))
                grad_x[:, k] += weight * (d * by_x).sum(axis=1)
    return grad, grad_x


# --- units -------------------------------------------------------------------------------------


def _name(spec: NetworkSpec, layer: int) -> str:
    return spec.activation_at(layer) if layer < spec.n_layers else spec.output


def _unit_forward(name: str, z: Float64, c: Float64) -> Float64:
    value, d1, d2, _ = (f(z[0]) for f in _functions(name))
    squares = np.einsum("j,jno->no", c, z[1:-1] ** 2)
    return np.concatenate([value[None], d1 * z[1:-1], (d1 * z[-1] + d2 * squares)[None]])


def _unit_backward(name: str, z: Float64, c: Float64, delta: Float64) -> Float64:
    _, d1, d2, d3 = (f(z[0]) for f in _functions(name))
    t, g, b = z[1:-1], delta[1:-1], delta[-1]
    squares = np.einsum("j,jno->no", c, t**2)
    of_value = d1 * delta[0] + d2 * ((t * g).sum(axis=0) + b * z[-1]) + d3 * b * squares
    of_tangents = d1 * g + 2 * d2 * b * c[:, None, None] * t
    return np.concatenate([of_value[None], of_tangents, (d1 * b)[None]])


def _softmax_derivatives(z: Float64) -> tuple[Float64, Float64, Float64, Float64]:
    """Return p (n, o) and its derivatives (n, o, a), (n, o, a, b), (n, o, a, b, c) by z."""
    p = softmax(z)
    one = np.eye(z.shape[1])
    r = one[:, :, None] - p.T[None]  # r[o, a, n] = d log p_o / d z_a
    r = np.moveaxis(r, 2, 0)  # (n, o, a)
    d1 = p[:, :, None] * r
    slope = -d1  # d r_oa / d z_b = - d p_a / d z_b, (n, a, b)
    d2 = d1[:, :, None, :] * r[..., None] + p[:, :, None, None] * slope[:, None]
    d3 = (
        d2[:, :, None] * r[:, :, :, None, None]
        + np.einsum("nob,nac->noabc", d1, slope)
        + np.einsum("noc,nab->noabc", d1, slope)
        - np.einsum("no,nabc->noabc", p, d2)
    )
    return p, d1, d2, d3


def _softmax_forward(z: Float64, c: Float64) -> Float64:
    p, d1, d2, _ = _softmax_derivatives(z[0])
    tangents = np.einsum("noa,jna->jno", d1, z[1:-1])
    bent = np.einsum("noab,j,jna,jnb->no", d2, c, z[1:-1], z[1:-1])
    return np.concatenate([p[None], tangents, (np.einsum("noa,na->no", d1, z[-1]) + bent)[None]])


def _softmax_backward(z: Float64, c: Float64, delta: Float64) -> Float64:
    _, d1, d2, d3 = _softmax_derivatives(z[0])
    t, g, b = z[1:-1], delta[1:-1], delta[-1]
    of_value = (
        np.einsum("no,noa->na", delta[0], d1)
        + np.einsum("jno,noab,jnb->na", g, d2, t)
        + np.einsum("no,noab,nb->na", b, d2, z[-1])
        + np.einsum("no,noabc,j,jnb,jnc->na", b, d3, c, t, t)
    )
    of_tangents = np.einsum("jno,noa->jna", g, d1)
    of_tangents += 2 * np.einsum("no,noab,j,jnb->jna", b, d2, c, t)
    return np.concatenate([of_value[None], of_tangents, np.einsum("no,noa->na", b, d1)[None]])


# --- phi'' and phi''' --------------------------------------------------------------------------


def _functions(name: str) -> tuple[Function, Function, Function, Function]:
    if name == "exp":
        return np.exp, np.exp, np.exp, np.exp
    phi = ACTIVATIONS[name]
    return phi.value, phi.derivative, *_HIGHER.get(name, (np.zeros_like, np.zeros_like))


def _sigmoid_2(z: Float64) -> Float64:
    return np.asarray(sigmoid(z) * sigmoid(-z) * (sigmoid(-z) - sigmoid(z)))


def _sigmoid_3(z: Float64) -> Float64:
    slope = sigmoid(z) * sigmoid(-z)
    return np.asarray(slope * (1 - 6 * slope))


def _pdf(z: Float64) -> Float64:
    return np.asarray(np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))


def _times_z(f: tuple[Function, Function, Function]) -> tuple[Function, Function]:
    """The second and third derivative of z f(z), from the first three of f."""
    return lambda z: 2 * f[0](z) + z * f[1](z), lambda z: 3 * f[1](z) + z * f[2](z)


def _chain(
    outer: tuple[Function, Function, Function], inner: tuple[Function, Function, Function, Function]
) -> tuple[Function, Function, Function]:
    """The first three derivatives of outer(inner(z)); of outer only derivatives are given."""
    f1, f2, f3 = outer
    u, u1, u2, u3 = inner
    return (
        lambda z: f1(u(z)) * u1(z),
        lambda z: f2(u(z)) * u1(z) ** 2 + f1(u(z)) * u2(z),
        lambda z: f3(u(z)) * u1(z) ** 3 + 3 * f2(u(z)) * u1(z) * u2(z) + f1(u(z)) * u3(z),
    )


_SIGMOID: Final = (ACTIVATIONS["sigmoid"].derivative, _sigmoid_2, _sigmoid_3)
_TANH: Final[tuple[Function, Function, Function]] = (
    ACTIVATIONS["tanh"].derivative,
    lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2),
    lambda z: (1 - np.tanh(z) ** 2) * (6 * np.tanh(z) ** 2 - 2),
)
_A: Final = 2 * math.sqrt(2 / math.pi)
_B: Final = 3 * 0.044715 * _A
_CUBIC: Final[tuple[Function, Function, Function, Function]] = (
    lambda z: _A * z + _B / 3 * z**3,
    lambda z: _A + _B * z**2,
    lambda z: 2 * _B * z,
    lambda z: np.full_like(z, 2 * _B),
)
_SOFTPLUS: Final = (ACTIVATIONS["softplus"].value, sigmoid, *_SIGMOID[:2])


def _selu_tail(z: Float64) -> Float64:
    return np.where(z > 0, 0.0, ACTIVATIONS["selu"].derivative(z))


_HIGHER: Final[dict[str, tuple[Function, Function]]] = {
    "sigmoid": (_sigmoid_2, _sigmoid_3),
    "tanh": _TANH[1:],
    "softplus": _SIGMOID[:2],
    "gelu": (lambda z: (2 - z * z) * _pdf(z), lambda z: (z * z - 4) * z * _pdf(z)),
    "gelu_tanh": _times_z(_chain(_SIGMOID, _CUBIC)),
    "silu": _times_z(_SIGMOID),
    "selu": (_selu_tail, _selu_tail),
    "mish": _times_z(_chain(_TANH, _SOFTPLUS)),
    "sine": (lambda z: -np.sin(z), lambda z: -np.cos(z)),
    "squared_relu": (lambda z: np.where(z > 0, 2.0, 0.0), np.zeros_like),
}
