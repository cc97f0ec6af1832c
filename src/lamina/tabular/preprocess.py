"""Preprocessing: a table's columns to the matrix a network reads.

Fitted once, then the same arithmetic for every table:

* number, date:  x = clip((v - mean) / scale, -10, 10), a missing v as the mean, so 0;
* text, boolean: x_k = 1 if v is level k else 0, one column for each frequent level, one for all
  rare ones together. A level never seen in `fit` counts as a rare one; where `fit` met no rare
  level it gives all zeros;
* a column that missed values in `fit` gets one more x: 1 where the value is missing, else 0.

The fitted state is JSON and two arrays, so that it goes into the model file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError, ModelFileError
from lamina.tabular.convert import as_kind
from lamina.tabular.table import CODED, KINDS, Column, Kind, Table, list_names, near_names

# A level needs this many rows to get its own input; fewer cannot be told from noise.
MIN_LEVEL_ROWS = 10
# Most levels of one column with their own input: bounds the matrix at 4 bytes a row and level.
MAX_LEVELS = 128
# Standardised numbers end here: one wild value must not drown the others, nor overflow float32.
CLIP = 10.0


@dataclass(frozen=True)
class Encoding:
    """How one column becomes inputs of the network.

    Parameters
    ----------
    name, kind
        The column, as in `Column`.
    mean, scale : float
        Centre and standard deviation of a number or date column.
    levels : tuple of str
        The frequent levels of a text or boolean column, each one input.
    rare : bool
        Whether one more input stands for all other levels.
    missing : bool
        Whether one more input says that the value is missing.
    """

    name: str
    kind: Kind
    mean: float = 0.0
    scale: float = 1.0
    levels: tuple[str, ...] = ()
    rare: bool = False
    missing: bool = False

    @property
    def width(self) -> int:
        """How many inputs the column becomes."""
        own = len(self.levels) + self.rare if self.kind in CODED else 1
        return own + self.missing

    def write(self, column: Column, out: NDArray[np.float32]) -> None:
        """Write the inputs of ``column`` into ``out``, zeros of shape (n, width)."""
        missing = column.missing
        if self.kind in CODED:
            slot_of = {level: slot for slot, level in enumerate(self.levels)}
            other = len(self.levels) if self.rare else -1
            slots = np.array([slot_of.get(level, other) for level in column.levels] + [-1])
            slot = slots[column.values]  # (n,); code -1, a missing value, reads the last, -1
            rows = np.flatnonzero(slot >= 0)
            out[rows, slot[rows]] = 1.0
        else:
            with np.errstate(over="ignore"):  # too large for float64 is too large for CLIP
                standard = (column.values - self.mean) / self.scale
            out[:, 0] = np.where(missing, 0.0, np.clip(standard, -CLIP, CLIP))
        if self.missing:
            out[:, -1] = missing


@dataclass(frozen=True)
class Preprocessor:
    """The encodings of a table's columns, in the order of the table they were fitted on.

    ``notes`` are sentences on the columns that `fit` left out, for people to read.
    """

    encodings: tuple[Encoding, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, table: Table, left_out: Sequence[str] = ()) -> Preprocessor:
        """Choose an encoding for every column of ``table``; `DataError` if none is of use.

        ``left_out`` are sentences on columns that are no longer in the table.
        """
        encodings, notes = [], []
        for column in table:
            found = _fit_column(column.finite, table.n_rows)
            if isinstance(found, Encoding):
                encodings.append(found)
            else:
                notes.append(f"column {column.name!r} is left out: {found}")
        if not encodings:
            why = "; ".join([*left_out, *notes][:3])
            got = f"none of use ({why})" if why else "the target alone"
            raise DataError(
                f"fit: expected at least one column to learn from, got {got}. "
                "Add columns with values that differ from row to row."
            )
        return cls(tuple(encodings), tuple(notes))

    @property
    def d_in(self) -> int:
        """How many inputs the network gets."""
        return sum(e.width for e in self.encodings)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in use."""
        return tuple(e.name for e in self.encodings)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns to read as text, whatever they look like."""
        return tuple(e.name for e in self.encodings if e.kind == "text")

    def transform(self, table: Table, where: str = "predict") -> NDArray[np.float32]:
        """Return the network's input, shape (n_rows, d_in), float32.

        The columns may come in any order and among others. Raises `DataError` if one is missing
        or no longer of its kind.
        """
        absent = [name for name in self.names if name not in table.columns]
        if absent:
            near = near_names(absent[0], set(table.names) - set(self.names))
            hint = f"Is {absent[0]!r} now called {near}?" if near else "Add what is missing."
            raise DataError(
                f"{where}: expected the {len(self.names)} columns seen in fit, "
                f"missing {list_names(absent)}. {hint}"
            )
        x = np.zeros((table.n_rows, self.d_in), dtype=np.float32)
        start = 0
        for encoding in self.encodings:
            column = as_kind(table.columns[encoding.name].finite, encoding.kind, where)
            encoding.write(column, x[:, start : start + encoding.width])
            start += encoding.width
        return x

    def to_json(self) -> list[dict[str, Any]]:
        """Return what `from_json` takes, all but the numbers in `arrays`."""
        return [
            {
                "name": e.name,
                "kind": e.kind,
                "levels": list(e.levels),
                "rare": e.rare,
                "missing": e.missing,
            }
            for e in self.encodings
        ]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return mean and scale of every column, float64, shape (n_columns,)."""
        return {
            "preprocess.mean": np.array([e.mean for e in self.encodings], dtype=np.float64),
            "preprocess.scale": np.array([e.scale for e in self.encodings], dtype=np.float64),
        }

    @classmethod
    def from_json(cls, state: Any, arrays: Mapping[str, NDArray[Any]]) -> Preprocessor:
        """Rebuild from `to_json` and `arrays`; `ModelFileError` if they do not fit together."""
        try:
            mean, scale = arrays["preprocess.mean"], arrays["preprocess.scale"]
            if not (mean.shape == scale.shape == (len(state),)):
                raise ValueError("one mean and one scale a column")
            if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
                raise ValueError("finite means and positive scales")
            encodings = tuple(
                _encoding_from_json(item, float(mean[i]), float(scale[i]))
                for i, item in enumerate(state)
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(
                f"load: expected the preprocessing of a table model, got {error!s}. "
                "The file is damaged; fit the model again."
            ) from error
        return cls(encodings)


def _encoding_from_json(item: Any, mean: float, scale: float) -> Encoding:
    """Rebuild one encoding, every field checked."""
    levels = item["levels"]
    if item["kind"] not in KINDS or not isinstance(item["name"], str):
        raise ValueError("a column without a name or kind")
    if not isinstance(levels, list) or not all(isinstance(v, str) for v in levels):
        raise ValueError("levels that are not text")
    if len(set(levels)) != len(levels):
        raise ValueError("repeated levels")
    kind = cast(Kind, item["kind"])
    rare, missing = item["rare"] is True, item["missing"] is True
    return Encoding(item["name"], kind, mean, scale, tuple(levels), rare, missing)


def _fit_column(column: Column, n_rows: int) -> Encoding | str:
    """Return the column's encoding, or the reason why it is left out."""
    if column.kind == "other":
        return "it has no name, or values that are not numbers, text, dates or booleans."
    missing = column.missing
    if missing.all():
        return "it has no values."
    if column.kind in CODED:
        return _fit_levels(column, n_rows, bool(missing.any()))
    values = column.values[~missing]
    if values.min() == values.max() and not missing.any():
        return "all its values are the same."
    mean, scale = _moments(values)
    return Encoding(column.name, column.kind, mean, scale, missing=bool(missing.any()))


def _fit_levels(column: Column, n_rows: int, has_missing: bool) -> Encoding | str:
    """Give the frequent levels an input each; names and keys that never repeat are left out."""
    counts = np.bincount(column.values[column.values >= 0], minlength=len(column.levels))
    n_levels = int(np.count_nonzero(counts))
    if n_levels == 1 and not has_missing:
        return "all its values are the same."
    if counts.max() == 1 and n_levels > 2:
        return "no value appears twice, it looks like a name or key."
    by_count = np.argsort(-counts, kind="stable")[:MAX_LEVELS]
    least = min(MIN_LEVEL_ROWS, max(2, n_rows // 20))  # small tables: a twentieth of the rows
    kept = [i for i in by_count if counts[i] >= least]
    rare = len(kept) < n_levels
    if not kept and not has_missing:
        return "every value is rare, so none can be learnt."
    levels = tuple(column.levels[i] for i in kept)
    return Encoding(column.name, column.kind, levels=levels, rare=rare, missing=has_missing)


def _moments(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and standard deviation, safe for numbers near the end of float64's range."""
    size = max(float(np.abs(values).max()), 1e-300)
    mean = float((values / size).mean())
    scale = float((values / size).std())
    if not scale > 1e-14 * abs(mean):  # equal but for rounding
        return mean * size, 1.0
    return mean * size, max(scale * size, 1e-300)
