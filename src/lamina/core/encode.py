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
    return _derive(encoding, table, x, None)


def tangent(encoding: Encoding, table: Float64, x: Float64, j: int) -> Float64:
    """Return d h_0 / d x_j, shape (n, d_0)."""
    return _derive(encoding, table, x, j)


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
    grad_table: Float64 = np.zeros(encoding.table_shape(x.shape[1]))
    if isinstance(encoding, HashGrid):
        for k, (first, level) in enumerate(_placed(encoding, x.shape[1])):
            columns = slice(k * encoding.n_features, (k + 1) * encoding.n_features)
            for entry, weight in _corners(encoding, level, x, None):
                np.add.at(grad_table, first + entry, weight[:, np.newaxis] * grad_h[:, columns])
    elif isinstance(encoding, ColumnEmbeddings):
        f = encoding.n_features
        matrices = [_basis(encoding, x, k, None) for k in range(x.shape[1])]
        grad_table = encoding.pack(
            [basis.T @ grad_h[:, k * f : (k + 1) * f] for k, basis in enumerate(matrices)]
        )
    return grad_table, np.stack(grad_x, axis=1)


def _derive(encoding: Encoding, table: Float64, x: Float64, j: int | None) -> Float64:
    """h_0 if j is None, else d h_0 / d x_j."""
    if isinstance(encoding, HashGrid):
        parts = [
            sum(
                weight[:, np.newaxis] * table[first + entry]
                for entry, weight in _corners(encoding, level, x, j)
            )
            for first, level in _placed(encoding, x.shape[1])
        ]
        return np.concatenate(parts, axis=1)
    if isinstance(encoding, ColumnEmbeddings):
        columns = range(x.shape[1])
        return np.concatenate(
            [_basis(encoding, x, k, j) @ encoding.embedding(table, k) for k in columns], axis=1
        )
    n, d_in = x.shape
    one = np.zeros((n, d_in)) if j is None else np.tile(np.arange(d_in) == j, (n, 1))  # d x / d x_j
    if isinstance(encoding, Fourier):
        angle = math.pi * x[:, :, np.newaxis] * 2.0 ** np.arange(encoding.n_frequencies)
        slope = math.pi * one[:, :, np.newaxis] * 2.0 ** np.arange(encoding.n_frequencies)
        pairs = [np.sin(angle), np.cos(angle)]
        if j is not None:
            pairs = [slope * np.cos(angle), -slope * np.sin(angle)]
        waves = np.stack(pairs, axis=3).reshape(n, -1)
        plain = x if j is None else one
        return np.concatenate([plain, waves], axis=1) if encoding.include_input else waves
    if isinstance(encoding, OneBlob):
        low, high = encoding.bounds
        step = encoding.n_bins / (high - low)
        left = np.arange(encoding.n_bins) - ((x - low) * step)[:, :, np.newaxis]
        if j is None:
            return (_cdf(left + 1) - _cdf(left)).reshape(n, -1)
        slope = -step * (_pdf(left + 1) - _pdf(left))
        return np.asarray((slope * one[:, :, np.newaxis]).reshape(n, -1))
    matrix = np.array(encoding.matrix)  # (n_features, d_in)
    angle = 2.0 * math.pi * x @ matrix.T
    if j is None:
        return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    slope = 2.0 * math.pi * matrix[:, j]
    return np.concatenate([-slope * np.sin(angle), slope * np.cos(angle)], axis=1)


def _basis(encoding: ColumnEmbeddings, x: Float64, k: int, j: int | None) -> Float64:
    """Weights (n, n_vectors) of column k's vectors; with j, their derivatives by x_j.

    Hat functions around the knots, or the nearest category's indicator.
    """
    cells, knots = encoding.cells[k], np.arange(encoding.n_vectors(k))
    if cells < 0:
        chosen = np.rint(np.clip(x[:, k], 0, knots[-1]))[:, np.newaxis] == knots
        return (chosen * 1.0 if j is None else np.zeros(chosen.shape)) + 0.0 * x[:, k, np.newaxis]
    away = np.clip(x[:, k], 0, 1)[:, np.newaxis] * cells - knots  # (n, n_vectors)
    if j is None:
        return np.asarray(np.maximum(1 - np.abs(away), 0))
    inside = ((x[:, k] >= 0) & (x[:, k] <= 1) & (j == k))[:, np.newaxis]
    return np.where(inside & (np.abs(away) < 1), -cells * np.sign(away), 0.0)


def _placed(encoding: HashGrid, d_in: int) -> Iterator[tuple[int, Level]]:
    """Every level and its first row of the table."""
    first = 0
    for level in encoding.levels(d_in):
        yield first, level
        first += level.entries


def _corners(
    encoding: HashGrid, level: Level, x: Float64, j: int | None
) -> Iterator[tuple[NDArray[Any], Float64]]:
    """For each corner of the cells that hold the rows: its entry and its weight, shape (n,).

    The weight is the product over the axes of f or 1 - f, f the position inside the cell,
    smoothed if asked for; with j, its derivative by x_j.
    """
    low, high = encoding.bounds
    n, d_in = x.shape
    cells = level.resolution
    u = (x - low) / (high - low)
    position = np.clip(u, 0.0, 1.0) * cells
    cell = np.minimum(np.floor(position), cells - 1)
    f = position - cell
    slope = np.where((u >= 0) & (u <= 1), cells / (high - low), 0.0)
    if encoding.interpolation == "smoothstep":
        f, slope = f * f * (3 - 2 * f), slope * 6 * f * (1 - f)
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
            if axis == j:
                weight = weight * (slope[:, axis] if up else -slope[:, axis])
            else:
                weight = weight * (f[:, axis] if up else 1 - f[:, axis])
        yield (index % np.uint64(level.entries)).astype(np.intp), weight


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _cdf(t: Float64) -> Float64:
    return np.asarray(0.5 * (1.0 + _erf(t / math.sqrt(2.0))))


def _pdf(t: Float64) -> Float64:
    return np.asarray(np.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi))
