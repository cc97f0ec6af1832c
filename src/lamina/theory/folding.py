"""Depth without non-linearity is nothing: every linear run of a network folded into one layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError, SpecError
from lamina.core.network import Network
from lamina.core.spec import NetworkSpec

Matrix = NDArray[Any]


@dataclass(frozen=True)
class Collapse:
    """What `collapse` did.

    Attributes
    ----------
    network : Network
        The result.
    folded : tuple of int
        The layers of the original (1, 2, …) that are gone: hidden layers without a
        non-linearity.
    before, after : NetworkSpec
    """

    network: Network
    folded: tuple[int, ...]
    before: NetworkSpec
    after: NetworkSpec

    def __str__(self) -> str:
        before, after = self.before, self.after
        layers = f"{before.n_layers} layers to {after.n_layers}"
        params = f"{before.n_params:,} parameters to {after.n_params:,}"
        which = ", ".join(map(str, self.folded)) or "none"
        return f"{layers}, {params}; linear hidden layers folded: {which}"


def collapse(net: Network, *, exact: bool = False) -> Network:
    """Return an equal network in which no hidden layer is linear.

    Every hidden layer whose activation is the identity is multiplied into the layers that read
    it: ``W_2 (W_1 u + b_1) + b_2 = (W_2 W_1) u + (W_2 b_1 + b_2)``. A deep linear network becomes
    one matrix. Skips and residual connections are followed; what they need is kept as skips.

    Parameters
    ----------
    net : Network
        Any; it is not changed. Its encoding, output unit, dtype and dropout stay. (Dropout of
        folded layers, in training only, is gone with them.)
    exact : bool, default False
        Multiply in fractions, so that the result is rounded once; much slower, for small
        networks. Otherwise float64, then rounded to the dtype.

    Returns
    -------
    Network
        Equal at every input, to rounding. Bit for bit the same if there was nothing to fold.

    Raises
    ------
    SpecError
        ``net`` is not a Network.
    DataError
        A product of weights is too large for the dtype.

    Notes
    -----
    A wide layer behind a narrow linear one has fewer parameters before than after: a product of
    (64, 2) and (2, 64) is (64, 64); so has a layer that reads a folded one and, by a skip or a
    residual connection, what that read. `collapse_report` says both counts.

    Examples
    --------
    >>> import lamina
    >>> from lamina import theory
    >>> deep = lamina.Network(3, (50, 50, 50), 2, activation="identity", rng=0)
    >>> theory.collapse(deep)
    Network(3, (), 2, output='identity', dtype='float32')  # 8 parameters
    """
    return collapse_report(net, exact=exact).network


def collapse_report(net: Network, *, exact: bool = False) -> Collapse:
    """Return what `collapse` makes of a network, and which layers it folded.

    Parameters and errors as for `collapse`.
    """
    if not isinstance(net, Network):
        raise SpecError(
            f"collapse: expected a lamina.Network, got a {type(net).__name__}. "
            "Convert it first, for example with lamina.from_torch."
        )
    spec = net.spec
    kept = [layer for layer in range(1, spec.n_layers) if spec.activation_at(layer) != "identity"]
    folded = tuple(layer for layer in range(1, spec.n_layers) if layer not in kept)
    if not folded:
        return Collapse(Network.from_spec(spec, net.theta), (), spec, spec)
    rewritten = [
        _rewrite(net, kept, residual, exact)
        for residual in ((False, True) if spec.residual else (False,))
    ]
    after, theta = min(rewritten, key=lambda made: made[0].n_params)
    return Collapse(Network.from_spec(after, theta), folded, spec, after)


class _Sums:
    """An original h_l as ``const + sum of M_k g_k``: g_0 is h_0, g_k the result's layer k."""

    def __init__(self, parts: dict[int, Matrix], const: Matrix) -> None:
        self.parts = parts
        self.const = const

    def plus(self, other: _Sums, sign: int = 1) -> _Sums:
        parts = dict(self.parts)
        for k, matrix in other.parts.items():
            parts[k] = parts[k] + sign * matrix if k in parts else sign * matrix
        return _Sums(
            {k: m for k, m in parts.items() if np.any(m != 0)}, self.const + sign * other.const
        )


def _rewrite(
    net: Network, kept: list[int], residual: bool, exact: bool
) -> tuple[NetworkSpec, Matrix]:
    """Return the result's specification and parameters, with residual connections or without."""
    spec = net.spec
    weights = [_numbers(net.weights[i], exact) for i in range(spec.n_layers)]
    biases = [_numbers(net.biases[i], exact) for i in range(spec.n_layers)]
    dims = spec.layer_dims
    new_dims = [dims[0], *(dims[layer] for layer in kept)]
    values = [_itself(0, dims[0], exact)]  # values[l] is h_l
    rows: list[_Sums] = []  # z of the result's layers
    for layer in range(1, spec.n_layers + 1):
        z = _product(
            weights[layer - 1], biases[layer - 1], [values[j] for j in spec.sources(layer)]
        )
        if layer == spec.n_layers:
            rows.append(z)
            break
        if layer in kept:
            rows.append(z)
            k = len(rows)
            h = _itself(k, dims[layer], exact)
            if residual and new_dims[k] == new_dims[k - 1]:  # g_k is phi(z) + g_(k-1)
                h = h.plus(_itself(k - 1, new_dims[k - 1], exact), -1)
        else:
            h = z
        values.append(h.plus(values[layer - 1]) if spec.residual_at(layer) else h)
    return _written(net, kept, residual, rows, new_dims)


def _written(
    net: Network, kept: list[int], residual: bool, rows: list[_Sums], dims: list[int]
) -> tuple[NetworkSpec, Matrix]:
    """Lay the sums out as a network's parameters, rounded to its dtype."""
    spec, table = net.spec, net.table
    skips = []
    for layer, sums in enumerate(rows, start=1):
        sources = tuple(k for k in sorted(sums.parts) if k < layer - 1)
        if sources:
            skips.append((layer, sources))
    after = replace(
        spec,
        widths=tuple(dims[1:]),
        activations=tuple(spec.activation_at(layer) for layer in kept),
        skips=tuple(skips),
        residual=residual,
        dropout=spec.dropout if kept else 0.0,
    )
    theta = np.zeros(after.n_params, spec.dtype)
    if table is not None:
        theta[after.table_slice] = table.ravel()
    with np.errstate(over="ignore"):
        for layer, (sums, (weight, bias)) in enumerate(
            zip(rows, after.slices(), strict=True), start=1
        ):
            blocks = [
                sums.parts.get(k, np.zeros((len(sums.const), dims[k])))
                for k in after.sources(layer)
            ]
            theta[weight] = np.hstack(blocks).astype(np.float64).ravel()
            theta[bias] = sums.const.astype(np.float64)
    if not np.isfinite(theta).all():
        raise DataError(
            f"collapse: expected products of weights that fit into {spec.dtype}, got infinity. "
            "Make the network float64, or its weights smaller."
        )
    return after, theta


def _product(weight: Matrix, bias: Matrix, sources: list[_Sums]) -> _Sums:
    """``W concat(sources) + b``."""
    total = _Sums({}, bias)
    start = 0
    for source in sources:
        block = weight[:, start : start + len(source.const)]  # (d_l, d_j)
        start += len(source.const)
        total = total.plus(
            _Sums({k: block @ m for k, m in source.parts.items()}, block @ source.const)
        )
    return total


def _itself(k: int, width: int, exact: bool) -> _Sums:
    return _Sums({k: _numbers(np.eye(width), exact)}, _numbers(np.zeros(width), exact))


def _numbers(values: Matrix, exact: bool) -> Matrix:
    """The same numbers in float64, or as fractions."""
    wide = np.asarray(values, np.float64)
    if not exact:
        return wide
    return np.array([Fraction(v) for v in wide.ravel().tolist()], object).reshape(wide.shape)
