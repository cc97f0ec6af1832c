"""What goes through a network on given rows: signals forward, gradients backward, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.encode import encode
from lamina.core.functions import ACTIVATIONS, OUTPUTS, Float64
from lamina.core.losses import Loss, Target
from lamina.core.network import Network
from lamina.core.reference import unpack, unpack_table
from lamina.core.spec import NetworkSpec
from lamina.theory.activation_facts import FACTS, FLAT

Indices = NDArray[np.intp]

MOSTLY: Final = 0.95
"""A unit is saturated where its activation is flat on at least this share of the rows."""
SAME: Final = 1e-10
"""Two units are copies where 1 - cos of their incoming weights is below this."""
_MOST_EXACT: Final = 512  # rows or columns of a weight whose singular values are found exactly

_RECTIFIERS: Final = ("relu", "squared_relu")  # exactly 0, with slope 0, on one side
_BENT: Final = ("relu", "leaky_relu")  # straight on either side
_HOMOGENEOUS: Final = ("identity", "relu", "leaky_relu", "squared_relu")  # phi(c z) ~ phi(z)
_ODD: Final = tuple(facts.name for facts in FACTS if facts.odd)
_SATURATES: Final = tuple(
    f.name for f in FACTS if (f.flat_below, f.flat_above) != (None, None)
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LayerSignals:
    """One layer on given rows.

    Attributes
    ----------
    layer : int
        1 … L.
    activation : str
        Of the last layer, the output unit.
    width : int
    dead, saturated, linear : int arrays
        Units of a hidden layer: relu and squared_relu that are 0 on every row; others that are
        flat (|phi'| < 0.01) on at least 95 % of the rows; relu and leaky_relu that are on one side
        of their kink on every row.
    copies : tuple of tuples of int
        Groups of units that compute the same, up to a factor.
    mean, std : float
        Of h over all rows and units.
    spread : float
        The root of the mean over units of the variance over rows: what in h depends on x.
    backward : float or None
        Root mean square over rows of the length of d loss / d z, or of d z_L / d z_l along a
        random direction where there is no y. None where signals are not finite.
    weight_norm : float
        Frobenius norm of W.
    gradient_norm : float or None
        Frobenius norm of d loss / d W; None without y.
    weight_scale : float
        Root mean square of W, over what ``lamina.Network`` draws for such a layer.
    condition : float
        Largest over smallest singular value of W.
    stable_rank : float
        |W|_F^2 / |W|_2^2: how many directions the layer really uses.
    finite : bool
        Whether z and h are.
    """

    layer: int
    activation: str
    width: int
    dead: Indices
    saturated: Indices
    linear: Indices
    copies: tuple[tuple[int, ...], ...]
    mean: float
    std: float
    spread: float
    backward: float | None
    weight_norm: float
    gradient_norm: float | None
    weight_scale: float
    condition: float
    stable_rank: float
    finite: bool

    @property
    def gradient_ratio(self) -> float | None:
        """|d loss / d W| / |W|: one step of SGD changes W by lr times this."""
        if self.gradient_norm is None or not self.weight_norm:
            return None
        return self.gradient_norm / self.weight_norm


def measure(
    net: Network, x: NDArray[Any], y: Target | None, loss: Loss
) -> tuple[LayerSignals, ...]:
    """Return every layer's signals; arguments are checked already.

    Parameters
    ----------
    net : Network
    x : array (n, d_in)
    y : array as `loss` has it, or None
    loss : Loss
        Of predictions alone.
    """
    spec = net.spec
    trace = net.trace(x)
    z = [np.asarray(z_l, np.float64) for z_l in trace.z]
    h = [np.asarray(h_l, np.float64) for h_l in trace.h]
    finite = [
        bool(np.isfinite(a).all() and np.isfinite(b).all()) for a, b in zip(z, h, strict=True)
    ]
    back: list[Float64] | None = None
    gradients: list[Any] | None = None
    if all(finite):
        grad_z = _seed(z[-1]) if y is None else _loss_gradient(spec, z[-1], y, loss)
        back = backward(spec, net.theta, z, grad_z)
        gradients = None if y is None else net.gradients(x, y, loss).weights
    return tuple(
        _layer(
            net,
            layer,
            z[layer - 1],
            h[layer - 1],
            None if back is None else back[layer - 1],
            None if gradients is None else gradients[layer - 1],
            finite[layer - 1],
        )
        for layer in range(1, spec.n_layers + 1)
    )


def input_signal(net: Network, x: NDArray[Any]) -> Float64:
    """Return h_0 in float64: x, or what the encoding makes of it."""
    x = np.asarray(x, np.float64)
    if net.encoding is None:
        return x
    return encode(net.encoding, unpack_table(net.spec, net.theta), x)


def spread(h: Float64) -> float:
    """The root of the mean over units of the variance over rows."""
    return float(np.sqrt(h.var(axis=0).mean()))


def backward(
    spec: NetworkSpec, theta: NDArray[Any], z: list[Float64], grad_z: Float64
) -> list[Float64]:
    """Carry a gradient by z_L back: d / d z_l of every layer, (n, d_l), in float64.

    Parameters
    ----------
    spec : NetworkSpec
    theta : array (n_params,)
    z : list of L arrays (n, d_l)
    grad_z : array (n, d_out)

    Notes
    -----
    As `lamina.core.reference.backward`, which keeps the parameters' gradients instead.
    """
    dims = spec.layer_dims
    grad_h = [np.zeros((len(grad_z), d)) for d in dims]
    found: list[Float64] = [grad_z] * spec.n_layers
    parameters = unpack(spec, theta)
    for layer in range(spec.n_layers, 0, -1):
        if spec.residual_at(layer):
            grad_h[layer - 1] += grad_h[layer]
        if layer < spec.n_layers:
            phi = ACTIVATIONS[spec.activation_at(layer)]
            grad_z = grad_h[layer] * phi.derivative(z[layer - 1])  # (n, d_l)
        found[layer - 1] = grad_z
        grad_u = grad_z @ parameters[layer - 1][0]  # (n, fan_in_l)
        start = 0
        for j in spec.sources(layer):
            grad_h[j] += grad_u[:, start : start + dims[j]]
            start += dims[j]
    return found


def _seed(z: Float64) -> Float64:
    """Return a direction in the outputs for each row, of length 1 on average, always the same."""
    return np.asarray(np.random.default_rng(0).normal(size=z.shape) / np.sqrt(z.shape[1]))


def _loss_gradient(spec: NetworkSpec, z: Float64, y: Target, loss: Loss) -> Float64:
    """Return each row's own d loss / d z_L, not divided by the number of rows."""
    target = y if y.dtype.kind in "iu" else y.astype(np.float64)
    return np.asarray(loss.gradient(z, target, np.ones(z.shape[1]), OUTPUTS[spec.output]))


def _layer(
    net: Network,
    layer: int,
    z: Float64,
    h: Float64,
    back: Float64 | None,
    gradient: NDArray[Any] | None,
    finite: bool,
) -> LayerSignals:
    spec = net.spec
    hidden = layer < spec.n_layers
    name = spec.activation_at(layer) if hidden else spec.output
    weight = np.asarray(net.weights[layer - 1], np.float64)
    bias = np.asarray(net.biases[layer - 1], np.float64)
    singular = _singular_values(weight)
    none = np.array([], np.intp)
    dead, saturated, linear = _idle(name, z) if hidden and finite else (none, none, none)
    norm = float(np.linalg.norm(weight))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return LayerSignals(
            layer=layer,
            activation=name,
            width=len(weight),
            dead=dead,
            saturated=saturated,
            linear=linear,
            copies=copies(weight, bias, name) if hidden else (),
            mean=float(h.mean()),
            std=float(h.std()),
            spread=spread(h),
            backward=None if back is None else float(np.sqrt((back**2).sum(axis=1).mean())),
            weight_norm=norm,
            gradient_norm=None
            if gradient is None
            else float(np.linalg.norm(gradient.astype(np.float64))),
            weight_scale=norm / np.sqrt(weight.size) / _usual_scale(spec, layer),
            condition=float(singular[0] / singular[-1]) if singular[-1] else np.inf,
            stable_rank=float((singular**2).sum() / singular[0] ** 2) if singular[0] else 0.0,
            finite=finite,
        )


def _idle(name: str, z: Float64) -> tuple[Indices, Indices, Indices]:
    """Return the units that are dead, saturated and linear on these rows."""
    on = z > 0
    dead = saturated = linear = np.array([], np.intp)
    if name in _RECTIFIERS:
        dead = np.flatnonzero(~on.any(axis=0))
    elif name in _SATURATES and name != "step":  # of which nothing else can be said
        flat = np.abs(ACTIVATIONS[name].derivative(z)) < FLAT
        saturated = np.flatnonzero(flat.mean(axis=0) >= MOSTLY)
    if name in _BENT:
        straight = on.all(axis=0)
        if name == "leaky_relu":
            straight |= ~on.any(axis=0)
        linear = np.flatnonzero(straight)
    return dead, saturated, linear


def copies(weight: Float64, bias: Float64, activation: str) -> tuple[tuple[int, ...], ...]:
    """Return groups of units whose outputs are the same for every x, up to a factor.

    Equal incoming weights and bias; for odd activations also opposite ones, for relu and its kin
    also positive multiples. For other activations there are no more (Sussmann 1992).

    Parameters
    ----------
    weight : (width, fan_in) float64
    bias : (width,) float64
    activation : str

    References
    ----------
    Sussmann (1992), "Uniqueness of the weights for minimal feedforward nets with a given
    input-output map", Neural Networks 5.
    """
    vectors = np.column_stack([weight, bias])
    length = np.linalg.norm(vectors, axis=1)
    direction = vectors / np.where(length > 0, length, 1.0)[:, np.newaxis]
    # With one input, units of zero bias are multiples of one of two, until the biases part them.
    any_length = activation in _HOMOGENEOUS and weight.shape[1] > 1
    # Few of all pairs come near in eight random directions; only those are compared in full.
    shadow = direction @ _directions(vectors.shape[1])  # (width, 8)
    if activation in _ODD:
        shadow = np.abs(shadow)
    left = list(range(len(vectors)))
    groups = []
    while left:
        first, rest = left[0], np.array(left[1:], np.intp)
        near = np.abs(shadow[rest] - shadow[first]).max(axis=1) < np.sqrt(4.0 * SAME)
        cosine = np.zeros(len(rest))
        cosine[near] = direction[rest[near]] @ direction[first]
        if activation in _ODD:
            cosine = np.abs(cosine)
        alike = (1.0 - cosine < SAME) & (length[first] > 0)
        if not any_length:
            alike &= np.isclose(length[rest], length[first], rtol=1e-6, atol=0.0)
        alike |= (length[first] == 0) & (length[rest] == 0)
        if alike.any():
            groups.append((first, *(int(i) for i in rest[alike])))
        left = [int(i) for i in rest[~alike]]
    return tuple(groups)


def _directions(d: int) -> Float64:
    """Return eight random directions (d, 8) of length 1, always the same."""
    random = np.random.default_rng(0).normal(size=(d, 8))
    return np.asarray(random / np.linalg.norm(random, axis=0))


def _singular_values(weight: Float64) -> Float64:
    """Return singular values, falling; of large matrices by the squares, which is far quicker.

    Squares hold the smallest only down to 1e-8 of the largest, beyond any verdict's bound.
    """
    if min(weight.shape) <= _MOST_EXACT:
        return np.asarray(np.linalg.svd(weight, compute_uv=False))
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    return np.asarray(np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)))


def _usual_scale(spec: NetworkSpec, layer: int) -> float:
    """The standard deviation of the first weights that `lamina.Network` would draw."""
    from lamina.core.initialize import DEFAULT_SCHEME

    fan_in, d = spec.fan_in(layer), spec.layer_dims[layer]
    scheme = DEFAULT_SCHEME[spec.activation_at(layer)] if layer < spec.n_layers else "glorot"
    variance = {"he": 2 / fan_in, "lecun": 1 / fan_in, "siren": 2 / fan_in}
    return float(np.sqrt(variance.get(scheme, 2 / (fan_in + d))))
