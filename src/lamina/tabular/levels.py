"""A category's levels as small whole numbers: frequent ones their own, rare ones shared by hashing.

Target-free: only counts decide. A level never seen in fit falls into a bucket as a rare one does,
so that buckets are trained on rare levels and stand for new ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import ModelFileError
from lamina.tabular.convert import level_counts
from lamina.tabular.table import Column

MOST_BUCKETS = 64


@dataclass(frozen=True)
class Levels:
    """How the levels of one column become codes.

    Codes 0 to K - 1 are the K frequent levels, K to K + B - 1 the B buckets of all others, by
    crc32(UTF-8 of the level) mod B, and K + B a missing value.

    Parameters
    ----------
    frequent : tuple of str
        The levels with a code of their own, the most frequent first.
    n_buckets : int
        B, at least 1: a new level needs a place.

    Examples
    --------
    >>> from lamina.tabular.frames import as_table
    >>> from lamina.tabular.levels import Levels
    >>> city = as_table({"city": ["Oslo"] * 5 + ["Rome"] * 3 + ["Bern", None]}).columns["city"]
    >>> levels = Levels.fit(city, least=2)
    >>> levels.frequent, levels.n_buckets, levels.n_codes
    (('Oslo', 'Rome'), 1, 4)
    >>> levels.codes(city)
    array([0, 0, 0, 0, 0, 1, 1, 1, 2, 3], dtype=int32)
    """

    frequent: tuple[str, ...]
    n_buckets: int = 1

    @classmethod
    def fit(cls, column: Column, *, least: int = 10, most: int = 1000) -> Levels:
        """Choose the frequent levels: those in at least ``least`` rows, at most ``most`` of them.

        The others get about the square root of their number of buckets, at most `MOST_BUCKETS`.
        """
        return cls.choose(column.levels, level_counts(column), least=least, most=most)

    @classmethod
    def choose(
        cls, levels: Sequence[str], counts: NDArray[np.int64], *, least: int, most: int
    ) -> Levels:
        """Choose as `fit` does among levels found in so many rows each."""
        order = np.argsort(-counts, kind="stable")
        kept = [int(i) for i in order[:most] if counts[i] >= max(least, 1)]
        n_rare = int(np.count_nonzero(counts)) - len(kept)
        n_buckets = int(np.clip(np.ceil(n_rare**0.5), 1, MOST_BUCKETS))
        return cls(tuple(levels[i] for i in kept), n_buckets)

    @property
    def n_codes(self) -> int:
        """How many codes there are: the rows of an embedding table for them."""
        return len(self.frequent) + self.n_buckets + 1

    def codes(self, column: Column) -> NDArray[np.int32]:
        """Return the codes of a coded column, int32 (n,)."""
        code_of = {level: code for code, level in enumerate(self.frequent)}
        lookup = np.empty(len(column.levels) + 1, dtype=np.int32)
        lookup[-1] = self.n_codes - 1  # code -1, a missing value, reads the last
        for i, level in enumerate(column.levels):
            own = code_of.get(level)
            lookup[i] = len(code_of) + self._bucket(level) if own is None else own
        return np.asarray(lookup[column.values])

    def _bucket(self, level: str) -> int:
        return zlib.crc32(level.encode("utf-8", "surrogatepass")) % self.n_buckets

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return {"frequent": list(self.frequent), "n_buckets": self.n_buckets}

    @classmethod
    def from_json(cls, state: Any) -> Levels:
        """Rebuild from `to_json`; `ModelFileError` if it makes no sense."""
        if isinstance(state, Mapping) and set(state) == {"frequent", "n_buckets"}:
            frequent, n_buckets = state["frequent"], state["n_buckets"]
            texts = isinstance(frequent, list) and all(isinstance(v, str) for v in frequent)
            buckets = type(n_buckets) is int and 1 <= n_buckets <= MOST_BUCKETS
            if texts and buckets and len(set(frequent)) == len(frequent):
                return cls(tuple(frequent), n_buckets)
        raise ModelFileError(
            "load: expected the levels of a category, got other values. "
            "The file is damaged; fit the model again."
        )
