"""The slow twin of the encodings: h_0 = encode(x) and its derivatives, in float64 NumPy.

Every function takes x (n, d_in) and returns arrays with a row for each of x's; the table is the
grid's or the columns', and anything for the other encodings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.encodings import Encoding, Fourier, HashGrid, Level, OneBlob
from lamina.core.functions import Float64

PRIMES = (1, 2654435761, 805459861)  # Müller et al. 2022, equation 4


def encode(encoding: Encoding, table: Float64, x: Float64) -> Float64:
    """Return h_0, shape (n, d_0)."""
    return derivative(encoding, table, x, ())


def tangent(encoding: Encoding, table: Float64, x: Float64, j: int) -> Float64:
    """Return d h_0 / d x_j, shape (n, d_0)."""
    return derivative(encoding, table, x, (j,))


def derivative(encoding: Encoding, table: Float64, x: Float64, axes: tuple[int, ...]) -> Float64:
    """Return the derivative of h_0 along each of `axes` in turn, three at most, shape (n, d_0).

    A column f(a . x + b) becomes f^(order) times the a_j of the axes.
    """
    if isinstance(encoding, HashGrid):
        parts = [
            sum(
                weight[:, np.newaxis] * table[first + entry]
                for entry, weight in _corners(encoding, level, x, axes)
            )
            for first, level in _placed(encoding, x.shape[1])
        ]
        return np.concatenate(parts, axis=1)
    if isinstance(encoding, ColumnEmbeddings):
        columns = range(x.shape[1])
        return np.concatenate(
            [_basis(encoding, x, k, axes) @ encoding.embedding(table, k) for k in columns], axis=1
        )
    n, d_in = x.shape
    order = len(axes)
    # For columns of one axis: whether it is the axis of every derivative.
    mine = np.array([all(axis == j for axis in axes) for j in range(d_in)], np.float64)
    if isinstance(encoding, Fourier):
        factor = math.pi * 2.0 ** np.arange(encoding.n_frequencies)
        angle = x[:, :, np.newaxis] * factor + order * math.pi / 2  # sin' is sin a quarter further
        scale = mine[:, np.newaxis] * factor**order
        waves = np.stack([scale * np.sin(angle), scale * np.cos(angle)], axis=3).reshape(n, -1)
        plain = (x, np.tile(mine, (n, 1)), np.zeros((n, d_in)))[min(order, 2)]
        return np.concatenate([plain, waves], axis=1) if encoding.include_input else waves
    if isinstance(encoding, OneBlob):
        low, high = encoding.bounds
        step = encoding.n_bins / (high - low)
        left = np.arange(encoding.n_bins) - ((x - low) * step)[:, :, np.newaxis]
        blob = _normal(left + 1, order) - _normal(left, order)
        return np.asarray((mine[:, np.newaxis] * (-step) ** order * blob).reshape(n, -1))
    matrix = 2.0 * math.pi * np.array(encoding.matrix)  # (n_features, d_in)
    angle = x @ matrix.T + order * math.pi / 2
    scale = np.prod([matrix[:, axis] for axis in axes], axis=0)
    return np.concatenate([scale * np.cos(angle), scale * np.sin(angle)], axis=1)


def backward(
    encoding: Encoding, table: Float64, x: Float64, grad_h: Float64
) -> tuple[Float64, Float64]:
    """Carry a gradient from h_0 back to the table and to x.

    Parameters
    ----------
    encoding : Encoding
    table : ndarray
    x : ndarray, shape (n, d_in)
    grad_h : ndarray, shape (n, d_0)
        d loss / d h_0.

    Returns
    -------
    grad_table : ndarray, of the table's shape
    grad_x : ndarray, shape (n, d_in)
    """
    grad_x = [(grad_h * tangent(encoding, table, x, j)).sum(axis=1) for j in range(x.shape[1])]
    return table_gradient(encoding, x, (), grad_h), np.stack(grad_x, axis=1)


def table_gradient(encoding: Encoding, x: Float64, axes: tuple[int, ...], grad: Float64) -> Float64:
    """Carry a gradient (n, d_0) from a derivative of h_0 along `axes` back to the table."""
    grad_table: Float64 = np.zeros(encoding.table_shape(x.shape[1]))
    if isinstance(encoding, HashGrid):
        for k, (first, level) in enumerate(_placed(encoding, x.shape[1])):
            columns = slice(k * encoding.n_features, (k + 1) * encoding.n_features)
            for entry, weight in _corners(encoding, level, x, axes):
                np.add.at(grad_table, first + entry, weight[:, np.newaxis] * grad[:, columns])
    elif isinstance(encoding, ColumnEmbeddings):
        f = encoding.n_features
        matrices = [_basis(encoding, x, k, axes) for k in range(x.shape[1])]
        grad_table = encoding.pack(
            [basis.T @ grad[:, k * f : (k + 1) * f] for k, basis in enumerate(matrices)]
        )
    return grad_table


def _basis(encoding: ColumnEmbeddings, x: Float64, k: int, axes: tuple[int, ...]) -> Float64:
    """Weights (n, n_vectors) of column k's vectors; then their derivative along `axes`.

    Hat functions around the knots, or the nearest category's indicator.
    """
    cells, knots = encoding.cells[k], np.arange(encoding.n_vectors(k))
    if cells < 0:
        chosen = np.rint(np.clip(x[:, k], 0, knots[-1]))[:, np.newaxis] == knots
        return (np.zeros(chosen.shape) if axes else chosen * 1.0) + 0.0 * x[:, k, np.newaxis]
    away = np.clip(x[:, k], 0, 1)[:, np.newaxis] * cells - knots  # (n, n_vectors)
    if not axes:
        return np.asarray(np.maximum(1 - np.abs(away), 0))
    inside = ((x[:, k] >= 0) & (x[:, k] <= 1) & (axes == (k,)))[:, np.newaxis]
    return np.where(inside & (np.abs(away) < 1), -cells * np.sign(away), 0.0)


def _placed(encoding: HashGrid, d_in: int) -> Iterator[tuple[int, Level]]:
    """Every level and its first row of the table."""
    first = 0
    for level in encoding.levels(d_in):
        yield first, level
        first += level.entries


def _corners(
    encoding: HashGrid, level: Level, x: Float64, axes: tuple[int, ...]
) -> Iterator[tuple[NDArray[Any], Float64]]:
    """For each corner of the cells that hold the rows: its entry and its weight, shape (n,).

    The weight is the product over the axes of f or 1 - f, f the position inside the cell,
    smoothed if asked for; then its derivative along each of `axes`.
    """
    low, high = encoding.bounds
    n, d_in = x.shape
    cells = level.resolution
    u = (x - low) / (high - low)
    position = np.clip(u, 0.0, 1.0) * cells
    cell = np.minimum(np.floor(position), cells - 1)
    f = position - cell
    inside = np.where((u >= 0) & (u <= 1), cells / (high - low), 0.0)  # d f / d x
    if encoding.interpolation == "smoothstep":
        sides = [f * f * (3 - 2 * f), 6 * f * (1 - f), 6 - 12 * f, np.full_like(f, -12.0)]
    else:
        sides = [f, np.ones_like(f), np.zeros_like(f), np.zeros_like(f)]
    for corner in range(2**d_in):
        index = np.zeros(n, np.uint64)
        weight = np.ones(n)
        for axis in range(d_in):
            up = corner >> axis & 1
            at = cell[:, axis].astype(np.uint64) + np.uint64(up)
            if level.hashed:
                index ^= at * np.uint64(PRIMES[axis])
            else:
                index += at * np.uint64((cells + 1) ** axis)
            order = axes.count(axis)
            side = sides[order][:, axis] * inside[:, axis] ** order
            weight = weight * (side if up else (order == 0) - side)
        yield (index % np.uint64(level.entries)).astype(np.intp), weight


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _normal(t: Float64, order: int) -> Float64:
    """The normal distribution function, or its derivative of that order."""
    density = np.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi)
    if order == 0:
        return np.asarray(0.5 * (1.0 + _erf(t / math.sqrt(2.0))))
    return np.asarray(density * (1.0, -t, t * t - 1.0)[order - 1])
