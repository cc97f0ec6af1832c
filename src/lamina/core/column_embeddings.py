"""ColumnEmbeddings: trainable vectors of a table's columns, in place of raw numbers and codes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import check_count, is_whole_number
from lamina.core.errors import ShapeError, SpecError

MOST_CELLS: Final = 2**20  # or categories of a column: float32 still tells them apart
MOST_COLUMNS: Final = 2**20  # of any encoding's h_0
MOST_FEATURES: Final = 64
TABLE_GROUP: Final = 16  # a level's size is a multiple: the engine's steps go by so many entries
LEVEL_FEATURES: Final = 4  # the widest entry of the engine's kernels

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ColumnEmbeddings:
    """Trainable embeddings of a table's columns: piecewise linear for numbers, a vector a category.

    A numeric column with c cells has vectors e_0 … e_c at the knots u = i / c; with
    i = floor(c u) and f = c u - i its embedding is ``(1 - f) e_i + f e_{i+1}``, u = x_j clamped to
    [0, 1]. A categorical column with k categories has vectors e_0 … e_{k-1}; its embedding is e_x.
    h_0 is all columns' embeddings side by side: ``h_0[:, j * n_features : (j + 1) * n_features]``
    is column j.

    Parameters
    ----------
    cells : sequence of int, one a column of x
        ``c > 0``: a numeric column with c cells, so c + 1 knots. ``-k < 0``: a categorical column
        with k categories. Each at most 2**20.
    n_features : int, 1 to 4 or a multiple of 4 up to 64; default 8
        Numbers in a vector. 8 suits most tables; fewer where columns are many and rows few.

    Raises
    ------
    SpecError
        A number is not as described; as a network's encoding also if there is not one entry of
        `cells` for each of the d_in columns.

    Notes
    -----
    The caller maps a numeric column so that the knots, equally spaced in u, lie where rows are:
    quantile i / c to u = i / c. Beyond [0, 1] the embedding is that of the nearer end, with zero
    derivative by x. A category is the nearest whole number within 0 … k - 1, without derivative.

    First values (`initialize`): feature t of a numeric column is a ramp,
    ``a_t sqrt(12) (u - 1/2) + N(0, 0.01^2)`` at each knot, a_t from N(0, 1): h_0 is then as large
    as a standardised input, and linear in u. Categories are N(0, 0.3^2), all alike at first.

    ``net.table`` holds all vectors in groups of at most 4 features, columns padded to a multiple
    of 16 rows: read it with `embedding`, make it with `pack`. Weight decay and l2 do not act on it;
    Adam leaves entries whose gradient is exactly zero as they are.

    Cost a row: d_in * n_features / 4 look-ups of two entries, forward and backward.

    References
    ----------
    Gorishniy et al. (2022), "On embeddings for numerical features in tabular deep learning",
    arXiv:2203.05556, section 3.2: piecewise linear encoding, of which a linear map is this.

    Examples
    --------
    >>> import lamina
    >>> columns = lamina.ColumnEmbeddings((10, 10, -3), n_features=8)
    >>> net = lamina.Network(3, (32,), 1, encoding=columns, rng=0)
    >>> net.spec.fan_in(1), columns.embedding(net.table, 2).shape
    (24, (3, 8))
    """

    # DIFF(Gorishniy 2022, section 3.2): knots are equally spaced; quantiles are the caller's map.
    cells: tuple[int, ...]
    n_features: int = 8

    NAME: ClassVar[str] = "column_embeddings"

    def __post_init__(self) -> None:
        where = "ColumnEmbeddings"
        object.__setattr__(self, "cells", _as_cells(self.cells))
        n = check_count(self.n_features, "n_features", where)
        if n > MOST_FEATURES or (n > LEVEL_FEATURES and n % LEVEL_FEATURES):
            raise SpecError(
                f"{where}: expected n_features to be 1 to 4 or a multiple of 4 up to "
                f"{MOST_FEATURES}, got {n}. Use 8."
            )
        object.__setattr__(self, "n_features", n)
        if len(self.cells) * n > MOST_COLUMNS:
            raise SpecError(
                f"{where}: expected at most {MOST_COLUMNS:,} encoded columns, got "
                f"{len(self.cells) * n:,}. Lower n_features."
            )

    def bind(self, d_in: int) -> ColumnEmbeddings:
        """Return the encoding for d_in columns: itself; SpecError if it has another number."""
        if len(self.cells) != d_in:
            raise SpecError(
                f"ColumnEmbeddings: expected an entry of cells for each of the {d_in} columns of "
                f"x, got {len(self.cells)}. Pass cells of that length."
            )
        return self

    def d_out(self, d_in: int) -> int:
        """Columns of h_0."""
        return d_in * self.n_features

    def n_vectors(self, j: int) -> int:
        """Vectors of column j: its knots or its categories."""
        return self.cells[j] + 1 if self.cells[j] > 0 else -self.cells[j]

    def table_shape(self, d_in: int) -> tuple[int, int]:  # noqa: ARG002 (cells say it)
        """(entries of all levels, features a level), padding included."""
        return self._levels * sum(map(self._padded, range(len(self.cells)))), self._group

    def embedding(self, table: Array, j: int) -> Array:
        """Return column j's vectors (n_vectors, n_features), knots or categories in order.

        Parameters
        ----------
        table : ndarray
            ``net.table``, or anything of its shape, such as ``net.gradients(...).table``.
        j : int
            The column.
        """
        first = self._levels * sum(map(self._padded, range(j)))
        block = table[first : first + self._levels * self._padded(j)]
        block = block.reshape(self._levels, self._padded(j), self._group)
        return block.transpose(1, 0, 2).reshape(-1, self.n_features)[: self.n_vectors(j)]

    def pack(self, embeddings: Sequence[Array]) -> NDArray[np.float64]:
        """Return the table whose `embedding` j is ``embeddings[j]``, zero in the padding.

        Raises
        ------
        ShapeError
            If an embedding has not the shape (n_vectors, n_features) of its column.
        """
        expected = [(self.n_vectors(j), self.n_features) for j in range(len(self.cells))]
        shapes = [np.shape(one) for one in embeddings]
        if shapes != expected:
            raise ShapeError(
                f"ColumnEmbeddings.pack: expected embeddings of shapes {str(expected)[:80]}, got "
                f"{str(shapes)[:80]}. Pass one array a column."
            )
        parts = []
        for j, one in enumerate(embeddings):
            block = np.zeros((self._padded(j), self.n_features))
            block[: len(one)] = one
            split = block.reshape(-1, self._levels, self._group).transpose(1, 0, 2)
            parts.append(split.reshape(-1, self._group))
        return np.concatenate(parts)

    def native(self, d_in: int) -> tuple[str, list[int], list[float]]:
        """The engine's form: one-dimensional levels, each of which reads one column."""
        whole = [self._group]
        for j in range(d_in):
            c = self.cells[j]
            whole += [j, self._padded(j), max(c, 0), max(-c, 0)] * self._levels
        return "columns", whole, []

    @property
    def _levels(self) -> int:
        """Levels a column."""
        return max(self.n_features // LEVEL_FEATURES, 1)

    @property
    def _group(self) -> int:
        """Features a level."""
        return self.n_features // self._levels

    def _padded(self, j: int) -> int:
        """Entries of a level of column j."""
        return -(-self.n_vectors(j) // TABLE_GROUP) * TABLE_GROUP


def _as_cells(cells: object) -> tuple[int, ...]:
    given = list(cells) if isinstance(cells, Iterable) and not isinstance(cells, str | dict) else []
    good = [int(c) for c in given if is_whole_number(c) and 0 < abs(int(c)) <= MOST_CELLS]
    if not given or len(good) < len(given):
        raise SpecError(
            "ColumnEmbeddings: expected cells to be whole numbers, c for a numeric column and -k "
            f"for k categories, each from 1 to {MOST_CELLS:,} in size, got {str(cells)[:80]}. "
            "Pass one a column, such as (16, 16, -3)."
        )
    return tuple(good)
