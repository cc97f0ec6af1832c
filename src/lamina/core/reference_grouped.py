"""The slow twin of `lamina.core.grouped`, in float64 NumPy: one row and one expert at a time.

The tests hold the engine to it, beside PyTorch. Nothing is sorted, batched or fused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.functions import ACTIVATIONS, Float64

Layer = tuple[int, str, bool]  # width, activation, gated
Arrays = Sequence[Any]  # weight, bias, gate, gate_bias (or None); leading axis: experts


def expert_forward(
    layers: Sequence[Layer], weights: Sequence[Arrays], e: int, x: Float64
) -> list[tuple[Float64, Float64, Float64]]:
    """Return (input, what phi takes, what it is multiplied with) of each layer, and the result.

    Parameters
    ----------
    layers, weights : as `Experts` takes them
    e : int
    x : array (d_in,)

    Returns
    -------
    list of (h, inner, factor), one a layer, and last (y, y, y)
    """
    trace: list[tuple[Float64, Float64, Float64]] = []
    h = x
    for (_, activation, gated), (weight, bias, gate, gate_bias) in zip(
        layers, weights, strict=True
    ):
        z = _affine(weight, bias, e, h)
        inner, factor = (_affine(gate, gate_bias, e, h), z) if gated else (z, np.ones_like(z))
        trace.append((h, inner, factor))
        h = ACTIVATIONS[activation].value(inner) * factor
    return [*trace, (h, h, h)]


def grouped(
    layers: Sequence[Layer],
    weights: Sequence[Arrays],
    x: Float64,
    experts: NDArray[np.integer[Any]],
    share: Float64,
    grad_y: Float64,
) -> tuple[Float64, Float64, Float64, list[list[Float64 | None]]]:
    """Return y and the gradients of sum(grad_y * y) by x, share and the weights.

    Parameters
    ----------
    layers, weights : as `Experts` takes them
    x : array (n, d_in)
    experts, share : array (n, top_k)
    grad_y : array (n, d_out)

    Examples
    --------
    >>> import numpy as np
    >>> w, x = np.array([[[2.0]], [[3.0]]]), np.array([[5.0]])
    >>> one = np.ones((1, 1))
    >>> layers, weights = [(1, "identity", False)], [(w, None, None, None)]
    >>> y, grad_x, grad_share, grads = grouped(layers, weights, x, np.array([[1]]), one, one)
    >>> y.item(), grad_x.item(), grad_share.item(), grads[0][0].ravel().tolist()
    (15.0, 3.0, 15.0, [0.0, 5.0])
    """
    y, grad_x, grad_share = np.zeros(grad_y.shape), np.zeros(x.shape), np.zeros(share.shape)
    grads: list[list[Float64 | None]] = [
        [None if a is None else np.zeros(a.shape) for a in layer] for layer in weights
    ]
    for t, chosen in enumerate(experts):
        for k, e in enumerate(chosen):
            trace = expert_forward(layers, weights, e, x[t])
            made = trace[-1][0]
            y[t] += share[t, k] * made
            grad_share[t, k] = grad_y[t] @ made
            grad = share[t, k] * grad_y[t]
            for i in reversed(range(len(layers))):
                grad = _back(layers[i], weights[i], grads[i], e, trace[i], grad)
            grad_x[t] += grad
    return y, grad_x, grad_share, grads


def quantised(
    layers: Sequence[Layer],
    weights: Sequence[Arrays],
    x: Float64,
    experts: NDArray[np.integer[Any]],
    share: Float64,
) -> Float64:
    """Return y where weights and rows are whole numbers times scales (precision "int8").

    Inputs 128 g … 128 g + 127 of an output's weights are ``s_g v``, s_g = max |w| / 127; those of a
    row of x, and of every hidden layer, are ``t_g q``, t_g = max |x| / 127; v and q are rounded to
    the nearest, ties to even. Parameters are those of `grouped`.

    Examples
    --------
    >>> import numpy as np
    >>> w, x, one = np.array([[[127.0, 0.4]]]), np.array([[127.0, 1.4]]), np.ones((1, 1))
    >>> layers, weights = [(1, "identity", False)], [(w, None, None, None)]
    >>> quantised(layers, weights, x, np.array([[0]]), one).item()  # 0.4 is rounded away
    16129.0
    """
    y = np.zeros((len(x), layers[-1][0]))
    for t, chosen in enumerate(experts):
        for k, e in enumerate(chosen):
            h = x[t]
            for (_, activation, gated), (weight, bias, gate, gate_bias) in zip(
                layers, weights, strict=True
            ):
                h = _rounded(h)
                z = _affine([_by_outputs(weight[e])], None if bias is None else [bias[e]], 0, h)
                if gated:
                    b = None if gate_bias is None else [gate_bias[e]]
                    inner = _affine([_by_outputs(gate[e])], b, 0, h)
                    h = ACTIVATIONS[activation].value(inner) * z
                else:
                    h = ACTIVATIONS[activation].value(z)
            y[t] += share[t, k] * h
    return y


def _by_outputs(weight: Float64) -> Float64:
    return np.stack([_rounded(row) for row in weight])


def _rounded(h: Float64) -> Float64:
    """Return h with every 128 values rounded to 255 whole multiples of their own scale."""
    rounded = np.zeros(h.shape)
    for g in range(0, len(h), 128):
        part = h[g : g + 128]
        scale = np.abs(part).max() / 127.0 or 1.0
        rounded[g : g + 128] = scale * np.round(part / scale)
    return rounded


def _affine(weight: Any, bias: Any, e: int, h: Float64) -> Float64:
    z: Float64 = weight[e] @ h + (0.0 if bias is None else bias[e])
    return z


def _back(
    layer: Layer,
    weights: Arrays,
    grads: list[Any],
    e: int,
    trace: tuple[Float64, Float64, Float64],
    grad: Float64,
) -> Float64:
    """Add one row's part to one layer's gradients; return the gradient by the layer's input."""
    _, activation, gated = layer
    h, inner, factor = trace
    phi = ACTIVATIONS[activation]
    of_inner = grad * factor * phi.derivative(inner)
    deltas = [grad * phi.value(inner), of_inner] if gated else [of_inner]
    before = np.zeros(h.shape)
    for i, delta in enumerate(deltas):
        weight, grad_weight, grad_bias = weights[2 * i], grads[2 * i], grads[2 * i + 1]
        grad_weight[e] += np.outer(delta, h)
        if grad_bias is not None:
            grad_bias[e] += delta
        before += delta @ weight[e]
    return before
