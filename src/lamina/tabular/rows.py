"""The rows that an estimator trains on: dense or sparse inputs, targets and weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DENSE_BYTES = 2**28
"""Sparse inputs up to this size, once dense, are made so as a whole; larger ones by batches."""


@dataclass(frozen=True)
class Rows:
    """Inputs, targets and weights, row by row.

    Attributes
    ----------
    x : array (n, d_in) or scipy CSR matrix
        C-contiguous if dense.
    target : array (n, d_out) of numbers, or (n,) of classes
    sample_weight : array (n,) or None
    """

    x: Any
    target: Array
    sample_weight: Array | None

    @classmethod
    def of(cls, x: Any, target: Array, sample_weight: Array | None, dtype: Any) -> Rows:
        """Return the rows in an engine's dtype; what already fits is not copied.

        A sparse x becomes dense here if that takes at most `DENSE_BYTES`.
        """
        if not isinstance(x, np.ndarray):
            if x.shape[0] * x.shape[1] * np.dtype(dtype).itemsize <= DENSE_BYTES:
                x = x.toarray()
            else:
                x = x.tocsr()
        return cls(x, target, sample_weight).astype(dtype)

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def sparse(self) -> bool:
        """Whether x is still sparse."""
        return not isinstance(self.x, np.ndarray)

    @property
    def total_weight(self) -> float:
        """The sum of the weights, the number of rows without any."""
        return float(len(self) if self.sample_weight is None else self.sample_weight.sum())

    @property
    def least_weight(self) -> float:
        """The smallest weight above zero, 1 without any."""
        if self.sample_weight is None:
            return 1.0
        return float(np.min(self.sample_weight, where=self.sample_weight > 0, initial=np.inf))

    def astype(self, dtype: Any) -> Rows:
        """Return the rows in another floating dtype, without a copy where nothing changes."""
        classes = self.target.ndim == 1
        weight = self.sample_weight
        return Rows(
            self.x.astype(dtype) if self.sparse else np.ascontiguousarray(self.x, dtype),
            np.ascontiguousarray(self.target, np.int32 if classes else dtype),
            None if weight is None else np.ascontiguousarray(weight, dtype),
        )

    def take(self, index: Any) -> Rows:
        """Return the rows that an index array or a slice selects."""
        weight = self.sample_weight
        return Rows(self.x[index], self.target[index], None if weight is None else weight[index])

    def dense(self) -> Array:
        """Return x as a dense array."""
        return np.asarray(self.x.toarray() if self.sparse else self.x)

    def blocks(self) -> Iterator[Rows]:
        """Yield the rows in order, in blocks that are at most `DENSE_BYTES` once dense."""
        if not self.sparse:
            yield self
            return
        n_block = rows_a_block(self.x)
        for start in range(0, len(self), n_block):
            yield self.take(slice(start, start + n_block))


def rows_a_block(x: Any) -> int:
    """Return how many rows of a sparse x to make dense at once."""
    return max(1, DENSE_BYTES // (8 * int(x.shape[1])))
