"""Inputs: a table's columns as the matrix x that a network with `ColumnEmbeddings` reads.

Fitted once, then the same arithmetic for every table. Each column of x is

* numeric: u in [0, 1], the value's place among knots laid at the training rows' quantiles, so that
  the embedding is piecewise linear in the value with as many rows between any two knots; or
* categorical: a whole number, the code of a level; rare levels share one, missing values another.

A number or date that missed values in fit gets one more, categorical, column: 0 known, 1 missing.
Dates become a number for elapsed time and one for each part of the calendar that varies.

References: Gorishniy et al. 2022, "On embeddings for numerical features in tabular deep
learning", arXiv:2203.05556, section 3.2 (piecewise linear encoding at quantiles).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.errors import DataError, ModelFileError
from lamina.tabular.convert import level_counts
from lamina.tabular.dates import PARTS, date_parts
from lamina.tabular.levels import Levels
from lamina.tabular.table import CODED, Column, Table, list_names, near_names
from lamina.tabular.uses import ColumnUses
from lamina.tabular.words import TextFeatures

# Of a number: knots at so many quantiles of the rows and of the different values. Few by rows keep
# the function smooth where rows are many; those by values leave enough where most rows share one
# value (no capital gain). Compared on five public tables with 16 features, 9 and 33 had the lowest
# mean error of 10,000 rows: 0.2 % below 13 and 13, 0.8 % below 9 and 9, 1 % below 33 and 33. More
# rows bear more of them: of 3,000,000 flights, 33 by rows explain 1.9 % more of the variance.
ROW_KNOTS = (9, 33)
ROWS_OF_A_CELL = 150  # cells by rows are the root of the rows over this
VALUE_KNOTS = 33
# Where one value fills half the rows and more, the others are special (a capital gain of 7,688),
# and so many knots let each be itself: 3 % lower log-loss on 10,000 rows of adult; 10 % worse on
# 2,300 rows of ames, so tables must have some rows.
LUMPED_KNOTS = 129
LUMPED_ROWS = 5000
# A level needs this many rows to get a vector of its own; fewer cannot be told from noise.
MIN_LEVEL_ROWS = 5
MOST_LEVELS = 4096

Floats = NDArray[np.float64]


def value_knots(counts: NDArray[np.int64]) -> int:
    """Return how many knots to lay at quantiles of different values, which so many rows have."""
    n_rows = int(counts.sum())
    is_lumped = n_rows >= LUMPED_ROWS and int(counts.max()) > n_rows / 2
    return LUMPED_KNOTS if is_lumped else VALUE_KNOTS


def row_knots(n_rows: int) -> int:
    """Return how many knots to lay at quantiles of so many rows."""
    return int(np.clip((n_rows / ROWS_OF_A_CELL) ** 0.5 + 1, *ROW_KNOTS))


@dataclass(frozen=True, eq=False)
class NumberInput:
    """A number as its place among knots.

    Parameters
    ----------
    column, part : str
        The table's column, and which of a date's parts ("" for a number itself).
    knots : (c + 1,) float64, increasing
        Where u = 0, 1/c, … 1.
    centre : float
        What stands for a missing value: the median.
    has_missing : bool
        Whether a second column says that the value is missing.
    """

    column: str
    part: str
    knots: Floats
    centre: float
    has_missing: bool

    @classmethod
    def fit(cls, column: str, part: str, values: Floats) -> NumberInput | None:
        """Lay knots for values (n,), NaN where missing; None if there is nothing to learn."""
        missing = np.isnan(values)
        known = values[~missing]
        if not len(known):
            return None
        knots, counts = np.unique(known, return_counts=True)
        most = value_knots(counts)
        if len(knots) > most:
            by_rows = np.quantile(known, np.linspace(0.0, 1.0, row_knots(len(known))))
            by_values = np.quantile(knots, np.linspace(0.0, 1.0, most))
            knots = np.unique(np.concatenate([by_rows, by_values]))
        # Neighbours closer than a float64 can divide by are one
        apart = np.diff(knots) > 1e-12 * max(float(np.abs(knots).max()), 1e-300)
        knots = knots[np.concatenate([[True], apart])]
        if len(knots) < 2:
            if not missing.any():
                return None
            knots = np.array([knots[0] - 1.0, knots[0]])
        return cls(column, part, knots, float(np.median(known)), bool(missing.any()))

    @property
    def cells(self) -> list[int]:
        """As `ColumnEmbeddings` takes them."""
        return [len(self.knots) - 1, *([-2] if self.has_missing else [])]

    def write(self, values: Floats, out: NDArray[np.float32]) -> None:
        """Write u, and whether a value is missing, into ``out`` (n, len(cells))."""
        missing = np.isnan(values)
        known = np.where(missing, self.centre, values)
        out[:, 0] = np.interp(known, self.knots, np.linspace(0.0, 1.0, len(self.knots)))
        if self.has_missing:
            out[:, 1] = missing


@dataclass(frozen=True, eq=False)
class CategoryInput:
    """A category as its level's code."""

    column: str
    levels: Levels

    @classmethod
    def fit(cls, column: Column) -> CategoryInput | None:
        """Keep the frequent levels; None if there is nothing to learn."""
        n_levels = int(np.count_nonzero(level_counts(column)))
        if n_levels + bool(column.missing.any()) < 2:
            return None
        least = min(MIN_LEVEL_ROWS, max(2, len(column.values) // 20))
        return cls(column.name, Levels.fit(column, least=least, most=MOST_LEVELS))

    @property
    def cells(self) -> list[int]:
        """As `ColumnEmbeddings` takes them."""
        return [-self.levels.n_codes]

    def write(self, column: Column, out: NDArray[np.float32]) -> None:
        """Write the codes of a text or boolean column into ``out`` (n, 1)."""
        out[:, 0] = self.levels.codes(column)


Input = NumberInput | CategoryInput


@dataclass(frozen=True, eq=False)
class Inputs:
    """How a table's columns become x, in the order of the table that they were fitted on.

    Parameters
    ----------
    uses : ColumnUses
        What each column is for.
    parts : tuple of NumberInput and CategoryInput
        One or two columns of x each.
    texts : mapping of str to TextFeatures
        What makes numbers of the columns of free text.
    """

    uses: ColumnUses
    parts: tuple[Input, ...]
    texts: Mapping[str, TextFeatures]

    @classmethod
    def fit(cls, table: Table, uses: ColumnUses) -> Inputs:
        """Fit to a table that ``uses.apply`` made.

        Raises
        ------
        DataError
            No column is of use.
        """
        parts: list[Input | None] = []
        texts = {
            column.name: TextFeatures.fit(column)
            for column in table
            if uses[column.name].use == "text"
        }
        for column in table:
            if column.kind in CODED and column.name not in texts:
                parts.append(CategoryInput.fit(column))
                continue
            for part, values in _numbers(column, texts.get(column.name)):
                parts.append(NumberInput.fit(column.name, part, values))
        found = tuple(part for part in parts if part is not None)
        if not found:
            why = "; ".join(uses.left_out[:3])
            raise DataError(
                "fit: expected at least one column to learn from, got none of use"
                f"{f' ({why})' if why else ''}. Add columns that differ from row to row."
            )
        read = {part.column for part in found}
        return cls(uses, found, {name: text for name, text in texts.items() if name in read})

    @property
    def cells(self) -> tuple[int, ...]:
        """Of every column of x, as `ColumnEmbeddings` takes them."""
        return tuple(c for part in self.parts for c in part.cells)

    @property
    def names(self) -> tuple[str, ...]:
        """The table's columns that are read, in order, each once."""
        return tuple(dict.fromkeys(part.column for part in self.parts))

    @property
    def sources(self) -> tuple[str, ...]:
        """The table's column behind each column of x."""
        return tuple(part.column for part in self.parts for _ in part.cells)

    def encoding(self, n_features: int) -> ColumnEmbeddings:
        """Return the encoding of a network that reads x."""
        return ColumnEmbeddings(self.cells, n_features)

    def transform(self, table: Table, where: str = "predict") -> NDArray[np.float32]:
        """Return x (n_rows, d_in), float32: `write` of what `prepare` returns."""
        return self.write(self.prepare(table, where))

    def prepare(self, table: Table, where: str = "predict", *, warn: bool = False) -> Table:
        """Return the columns that are read, as `write` takes them, all rows or some at a time.

        The columns may come in any order and among others. Preparing twice changes nothing more.
        ``warn`` of text among numbers or dates that counts as missing.

        Raises
        ------
        DataError
            One is missing, or holds other values than in fit.
        """
        absent = [name for name in self.names if name not in table.columns]
        if absent:
            near = near_names(absent[0], set(table.names) - set(self.names))
            hint = f"Is {absent[0]!r} now called {near}?" if near else "Add what is missing."
            raise DataError(
                f"{where}: expected the {len(self.names)} columns seen in fit, "
                f"missing {list_names(absent)}. {hint}"
            )
        wanted = Table({name: table.columns[name] for name in self.names}, table.n_rows)
        return self.uses.apply(wanted, where, warn=warn)

    def write(self, table: Table) -> NDArray[np.float32]:
        """Return x of a table that ``uses.apply`` made."""
        x = np.empty((table.n_rows, len(self.cells)), np.float32)
        start, name, numbers = 0, "", {}
        for part in self.parts:
            out = x[:, start : start + len(part.cells)]
            column = table.columns[part.column]
            if isinstance(part, CategoryInput):
                part.write(column, out)
            else:
                if part.column != name:  # parts of one column stand together
                    name = part.column
                    numbers = dict(_numbers(column, self.texts.get(name), date_names=PARTS))
                part.write(numbers[part.part], out)
            start += len(part.cells)
        return x

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, all but the numbers in `arrays`."""
        parts = [
            {"column": p.column, "levels": p.levels.to_json()}
            if isinstance(p, CategoryInput)
            else {
                "column": p.column,
                "part": p.part,
                "n_knots": len(p.knots),
                "has_missing": p.has_missing,
            }
            for p in self.parts
        ]
        return {"uses": self.uses.to_json(), "parts": parts, "texts": list(self.texts)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all numbers' knots and centres, float64, and the texts' projections."""
        numbers = [p for p in self.parts if isinstance(p, NumberInput)]
        arrays: dict[str, NDArray[Any]] = {
            "inputs.knots": np.concatenate([np.empty(0), *(p.knots for p in numbers)]),
            "inputs.centres": np.array([p.centre for p in numbers], np.float64),
        }
        for i, text in enumerate(self.texts.values()):
            arrays |= text.arrays(f"inputs.text{i}")
        return arrays

    @classmethod
    def from_json(cls, state: Any, arrays: Mapping[str, NDArray[Any]]) -> Inputs:
        """Rebuild from `to_json` and `arrays`; `ModelFileError` if they do not fit together."""
        try:
            uses = ColumnUses.from_json(state["uses"])
            parts = tuple(_parts_of(state["parts"], arrays))
            texts = {
                str(name): TextFeatures.from_arrays(arrays, f"inputs.text{i}")
                for i, name in enumerate(state["texts"])
            }
            for part in parts:
                uses[part.column]
            if not parts:
                raise ValueError("no inputs")
        except ModelFileError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"load: expected the inputs of a table model, got {error!s}. "
                "The file is damaged; fit the model again."
            ) from error
        return cls(uses, parts, texts)


def _numbers(
    column: Column, text: TextFeatures | None, date_names: Collection[str] | None = None
) -> Iterator[tuple[str, Floats]]:
    """Yield a number, or the parts of a date or text, as (part, values); infinity is missing."""
    if text is not None:
        features = text.transform(column).astype(np.float64)
        features[column.missing] = np.nan
        yield from ((f"text {i}", features[:, i]) for i in range(features.shape[1]))
    elif column.kind == "date":
        yield from date_parts(column.values, date_names).items()
    elif column.kind == "number":
        yield "", column.finite.values


def _parts_of(state: Sequence[Any], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Input]:
    """Yield the parts, every field checked."""
    knots, centres = arrays["inputs.knots"], arrays["inputs.centres"]
    if knots.ndim != 1 or centres.ndim != 1 or knots.dtype != np.float64:
        raise ValueError("knots of another form")
    if not (np.isfinite(knots).all() and np.isfinite(centres).all()):
        raise ValueError("knots that are not finite")
    n_knots = n_numbers = 0
    for item in state:
        if not isinstance(item["column"], str):
            raise ValueError("a column without a name")
        if "levels" in item:
            yield CategoryInput(item["column"], Levels.from_json(item["levels"]))
            continue
        n, part = item["n_knots"], item["part"]
        own = knots[n_knots : n_knots + n]
        if len(own) != n or n < 2 or not (np.diff(own) > 0).all() or not isinstance(part, str):
            raise ValueError("knots that do not increase")
        centre = float(centres[n_numbers])
        yield NumberInput(item["column"], part, own.copy(), centre, item["has_missing"] is True)
        n_knots += n
        n_numbers += 1
    if n_knots != len(knots) or n_numbers != len(centres):
        raise ValueError("more knots than inputs")
