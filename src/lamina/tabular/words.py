"""Free text as numbers, without looking at the target: hashed words and character n-grams, reduced.

Counts of words and of character n-grams (3 to 5, within words), hashed with signs into
`N_BUCKETS`, weighted by log(1 + count) * idf, scaled to length 1, then projected on the leading
right singular vectors of the texts seen in fit. scikit-learn counts and decomposes; the fitted
state is two plain arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import ModelFileError
from lamina.tabular.convert import level_counts
from lamina.tabular.table import Column

N_BUCKETS = 4096
MOST_TEXTS = 20_000  # different texts that the projection is learnt from
N_EXTRA = 2  # length and number of words, as logarithms


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """The projection of one column of free text.

    Parameters
    ----------
    idf : (n_buckets,) float32
        log((1 + n) / (1 + n_with)) + 1 of each bucket.
    components : (n_buckets, d) float32
        Right singular vectors, scaled so that each feature has a mean square of 1 in fit.

    Examples
    --------
    >>> from lamina.tabular.frames import as_table
    >>> from lamina.tabular.words import TextFeatures
    >>> texts = ["a bird struck the engine", "the engine failed", "no damage at all", None]
    >>> column = as_table({"remark": texts}).columns["remark"]
    >>> TextFeatures.fit(column, d=2).transform(column).shape
    (4, 4)
    """

    idf: NDArray[np.float32]
    components: NDArray[np.float32]

    @classmethod
    def fit(cls, column: Column, *, d: int = 16, rng: int = 0) -> TextFeatures:
        """Learn the projection from a text column; fewer features where it has fewer texts.

        20,000 texts of six words take about 2 s, and 0.8 s to `transform`, on one core.
        """
        from sklearn.decomposition import TruncatedSVD

        counts = level_counts(column)
        seen = np.flatnonzero(counts)
        if seen.size > MOST_TEXTS:
            chosen = np.random.default_rng(rng).choice(seen.size, MOST_TEXTS, replace=False)
            seen = seen[np.sort(chosen)]
        hashed = _hashed([column.levels[i] for i in seen])
        n_with = np.bincount(hashed.indices, minlength=N_BUCKETS)
        idf = (np.log((1.0 + seen.size) / (1.0 + n_with)) + 1.0).astype(np.float32)
        weighted = _weighted(hashed, idf)
        d = min(d, max(seen.size - 1, 0))
        if d < 1:
            return cls(idf, np.zeros((N_BUCKETS, 0), dtype=np.float32))
        svd = TruncatedSVD(d, random_state=rng).fit(weighted)
        spread = svd.singular_values_ / np.sqrt(seen.size)  # root mean square of each feature
        useful = spread > 1e-6 * max(float(spread.max()), 1e-12)
        components = svd.components_[useful] / spread[useful, np.newaxis]  # (d, n_buckets)
        return cls(idf, np.ascontiguousarray(components.T, dtype=np.float32))

    @property
    def d_out(self) -> int:
        """How many features a text becomes."""
        return int(self.components.shape[1]) + N_EXTRA

    def transform(self, column: Column) -> NDArray[np.float32]:
        """Return the features (n, d_out), zeros where the text is missing.

        They are the projections, log(1 + length) and log(1 + words). Each different text is worked
        on once.
        """
        used, place = np.unique(column.values, return_inverse=True)
        features = np.zeros((used.size, self.d_out), dtype=np.float32)
        texts = [column.levels[code] for code in used if code >= 0]
        if texts:
            rows = used.size - len(texts)  # a missing value, code -1, sorts first
            features[rows:, :-N_EXTRA] = _weighted(_hashed(texts), self.idf) @ self.components
            features[rows:, -2] = np.log1p([len(text) for text in texts])
            features[rows:, -1] = np.log1p([len(text.split()) for text in texts])
        return np.asarray(features[place])

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the fitted state for a model file."""
        return {f"{prefix}.idf": self.idf, f"{prefix}.components": self.components}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], prefix: str) -> TextFeatures:
        """Rebuild from `arrays`; `ModelFileError` if they do not fit together."""
        idf, components = arrays.get(f"{prefix}.idf"), arrays.get(f"{prefix}.components")
        good = (
            idf is not None
            and components is not None
            and idf.dtype == components.dtype == np.float32
            and idf.shape == (N_BUCKETS,)
            and components.ndim == 2
            and components.shape[0] == N_BUCKETS
            and bool(np.isfinite(idf).all() and np.isfinite(components).all())
        )
        if not good or idf is None or components is None:
            raise ModelFileError(
                f"load: expected the text features {prefix!r}, got arrays that do not fit "
                "together. The file is damaged; fit the model again."
            )
        return cls(idf, components)


def _hashed(texts: Sequence[str]) -> Any:
    """Return signed counts of words and n-grams, a sparse matrix (n, N_BUCKETS)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    shared: dict[str, Any] = {"n_features": N_BUCKETS, "norm": None, "dtype": np.float32}
    words = HashingVectorizer(analyzer="word", **shared, token_pattern=r"(?u)\b\w+\b")  # noqa: S106
    grams = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), **shared)
    together = words.transform(texts) + grams.transform(texts)
    together.eliminate_zeros()
    return together


def _weighted(hashed: Any, idf: NDArray[np.float32]) -> Any:
    """Return sign(c) log(1 + |c|) * idf, rows scaled to length 1."""
    from sklearn.preprocessing import normalize

    weighted = hashed.copy()
    weighted.data = np.sign(hashed.data) * np.log1p(np.abs(hashed.data)) * idf[hashed.indices]
    return normalize(weighted)
