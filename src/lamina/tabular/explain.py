"""Explanations of a fitted model: importances, partial dependence, attributions.

All are asked of the model as a function f of x. A column of the table is replaced by replacing its
columns of x (`Inputs.sources`), so a date's parts, a text's numbers and a number's "is missing"
move together, and no raw table is needed for the background.

Reference: Breiman 2001, "Random forests", section 10 (permutation importance); Friedman 2001,
"Greedy function approximation", section 8.2 (partial dependence); Goldstein et al. 2015,
arXiv:1309.6392 (a curve for each row). Attributions: see `shapley`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError, SpecError
from lamina.tabular.explained import Attributions, Dependence, Importance
from lamina.tabular.inputs import Inputs
from lamina.tabular.mixing import Floats, Function, predict_mixed
from lamina.tabular.shapley import MOST_EXACT, shapley_values
from lamina.tabular.table import CODED, Column, Table, list_names, near_names, number_text

BACKGROUND_ROWS = (
    128  # kept with the model; the Monte-Carlo error of their mean is 1/11 of a spread
)
MOST_SCORED = 10_000  # rows that an importance is of: more would hardly change its spread
MOST_AVERAGED = 500  # rows that a dependence is averaged over
N_GRID = 25  # quantiles a number is set to, in one dimension,
N_GRID_MAP = 13  # and in two
MOST_LEVELS = 20  # levels a category is set to
MISSING = "missing"


@dataclass(frozen=True, eq=False)
class Subject:
    """What is explained: a function of x, and how a table becomes x.

    Parameters
    ----------
    f : callable
        x (n, d_in) float32 to predictions (n, n_outputs) float64: probabilities, or numbers in the
        target's unit.
    inputs : Inputs
    background : (n_background, d_in) float32
        A sample of the rows that the model learnt from.
    outputs : tuple of str
        What the columns of f are called.
    unit : {"probability", "prediction"}
        What f's values are.
    """

    f: Function
    inputs: Inputs
    background: NDArray[np.float32]
    outputs: tuple[str, ...]
    unit: str

    @property
    def groups(self) -> NDArray[np.intp]:
        """The index, among ``inputs.names``, of the table's column behind each column of x."""
        index = {name: j for j, name in enumerate(self.inputs.names)}
        return np.array([index[name] for name in self.inputs.sources], np.intp)

    def masks(self) -> NDArray[np.bool_]:
        """Return for each column of the table which columns of x are its own, (n_columns, d_in)."""
        return np.asarray(self.groups == np.arange(len(self.inputs.names))[:, np.newaxis])

    def prepared(self, table: Table, where: str) -> tuple[Table, NDArray[np.float32]]:
        """Return the table with each column as it is learnt from, and x."""
        x = self.inputs.transform(table, where)  # refuses columns that are absent
        names = self.inputs.names
        own = Table({name: table.columns[name] for name in names}, table.n_rows)
        return self.inputs.uses.apply(own, where), x


def draw_background(
    x: NDArray[np.float32], weight: Floats | None, seed: int
) -> NDArray[np.float32]:
    """Return at most `BACKGROUND_ROWS` rows of x, those of weight 0 left out."""
    rows = np.arange(len(x)) if weight is None else np.flatnonzero(weight > 0)
    drawn = np.random.default_rng([seed, 2]).permutation(rows)[:BACKGROUND_ROWS]
    return np.array(x[drawn], np.float32)


# --- importance -----------------------------------------------------------------------------------


def importance(
    subject: Subject,
    table: Table,
    losses: Callable[[Floats, NDArray[np.intp]], Floats],
    scoring: str,
    *,
    n_repeats: int,
    rng: np.random.Generator,
    where: str,
) -> Importance:
    """Return the rise of the loss by shuffling each column.

    Parameters
    ----------
    losses : callable
        Predictions (m, n_outputs) and the rows (m,) of the table that they are for, to the loss of
        each (m,).

    Notes
    -----
    Predictions: n · (1 + n_columns · n_repeats), of at most `MOST_SCORED` rows.
    """
    x = subject.inputs.transform(table, where)
    chosen = _sample(len(x), MOST_SCORED, rng)
    x, masks, n = x[chosen], subject.masks(), len(chosen)
    baseline = float(losses(subject.f(x), chosen).mean())
    each = np.empty((len(masks), n_repeats))
    rows = np.arange(n)
    for r in range(n_repeats):
        shuffled = rng.permutation(n)
        columns = max(1, (1 << 18) // n)  # so many at once: their predictions are held in memory
        for start in range(0, len(masks), columns):
            which = np.arange(start, min(start + columns, len(masks)))
            found = predict_mixed(subject.f, masks, x, x, (which[:, None], shuffled, rows))
            for j, predictions in zip(which, found, strict=True):
                each[j, r] = losses(predictions, chosen).mean() - baseline
    return Importance(subject.inputs.names, scoring, baseline, each, n)


# --- dependence -----------------------------------------------------------------------------------


def dependence(
    subject: Subject,
    table: Table,
    columns: tuple[str, ...],
    *,
    individual: bool,
    rng: np.random.Generator,
    where: str,
) -> Dependence:
    """Return the mean prediction with one or two columns set to each of their values.

    Notes
    -----
    Predictions: n_grid · n, or n_grid_0 · n_grid_1 · n, of at most `MOST_AVERAGED` rows (a quarter
    for two columns).
    """
    _check_columns(subject.inputs, columns, where)
    if individual and len(columns) == 2:
        raise SpecError(
            f"{where}: expected individual=True with one column, got two. Choose one, or leave it."
        )
    prepared, x = subject.prepared(table, where)
    most = MOST_AVERAGED // (4 if len(columns) == 2 else 1)
    n_points = N_GRID_MAP if len(columns) == 2 else N_GRID
    x = x[_sample(len(x), most, rng)]
    names = list(subject.inputs.names)
    masks = subject.masks()
    own = [masks[names.index(name)] for name in columns]
    grids, written = [], []
    for name in columns:
        grid, column = _grid(prepared.columns[name], n_points, where)
        grids.append(grid)
        written.append(_write_column(subject.inputs, column))
    sizes = [len(grid) for grid in grids]
    place = np.indices(sizes).reshape(len(sizes), -1)  # of each combination in each grid
    inside = np.zeros((place.shape[1], x.shape[1]), np.float32)
    for mask, values, at in zip(own, written, place, strict=True):
        inside[:, mask] = values[at]
    mask = np.logical_or.reduce(own)[np.newaxis]
    rows = np.arange(len(x))[:, np.newaxis]
    found = predict_mixed(subject.f, mask, inside, x, (0, np.arange(len(inside)), rows))
    mean = found.mean(axis=0).reshape(*sizes, -1)
    curves = found if individual else None
    return Dependence(columns, tuple(grids), subject.outputs, mean, curves, len(x), subject.unit)


def _check_columns(inputs: Inputs, columns: tuple[str, ...], where: str) -> None:
    """Refuse columns that the model does not read, or that have no values to be set to."""
    if len(columns) not in (1, 2) or len(set(columns)) != len(columns):
        raise SpecError(
            f"{where}: expected columns to be one name or two different ones, got "
            f"{columns!r:.80}. Name what the prediction shall depend on."
        )
    for name in columns:
        if name not in inputs.names:
            near = near_names(str(name), inputs.names)
            hint = f"Did you mean {near}?" if near else f"It reads {list_names(inputs.names)}."
            raise DataError(
                f"{where}: expected a column that the model reads, got {name!r:.80}. {hint}"
            )
        if name in inputs.texts:
            raise DataError(
                f"{where}: expected a column of numbers, dates or categories, got {name!r} of "
                "free text. Use kind='importance' or 'attributions' for it."
            )


def _grid(column: Column, n_points: int, where: str) -> tuple[NDArray[Any], Column]:
    """Return the values that a column is set to: for people, and as a column of them."""
    column = column.finite
    known = ~column.missing
    if not known.any():
        raise DataError(
            f"{where}: expected values in column {column.name!r}, every row is missing its own. "
            "Pass rows that have some."
        )
    if column.kind in CODED:
        counts = np.bincount(column.values[known], minlength=len(column.levels))
        order = np.argsort(-counts, kind="stable")[:MOST_LEVELS]
        codes = order[counts[order] > 0].astype(np.int32)
        names = [column.levels[code] for code in codes]
        if not known.all():
            codes, names = np.append(codes, np.int32(-1)), [*names, MISSING]
        return np.array(names, dtype=object), replace(column, values=codes)
    points = np.unique(
        np.quantile(column.values[known], np.linspace(0.0, 1.0, n_points), method="nearest")
    )
    values = points.astype(np.float64)
    shown: NDArray[Any] = values
    if column.kind == "date":
        shown = np.round(values).astype("datetime64[s]")
    return shown, replace(column, values=values)


def _write_column(inputs: Inputs, column: Column) -> NDArray[np.float32]:
    """Return the columns of x of one column of a table."""
    parts = tuple(part for part in inputs.parts if part.column == column.name)
    own = Inputs(inputs.uses, parts, inputs.texts)
    return own.write(Table({column.name: column}, len(column.values)))


# --- attributions ---------------------------------------------------------------------------------


def attributions(
    subject: Subject,
    table: Table,
    *,
    n_repeats: int | None,
    rng: np.random.Generator,
    where: str,
) -> Attributions:
    """Return each column's share of each row's prediction; see `shapley_values` for the cost."""
    prepared, x = subject.prepared(table, where)
    values, error = shapley_values(
        subject.f, x, subject.background, subject.groups, n_pairs=n_repeats, rng=rng
    )
    names = subject.inputs.names
    exact = len(names) == 1 or (n_repeats is None and len(names) <= MOST_EXACT)
    return Attributions(
        names,
        subject.outputs,
        values,
        subject.f(subject.background).mean(axis=0),
        subject.f(x),
        error,
        exact,
        cell_texts(prepared, names),
        subject.unit,
    )


def cell_texts(table: Table, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return the cells of some columns as people read them, row by row."""
    columns = [[_cell(table.columns[name], i) for i in range(table.n_rows)] for name in names]
    return tuple(zip(*columns, strict=True))


def _cell(column: Column, row: int) -> str:
    if column.missing[row]:
        return MISSING
    value = column.values[row]
    if column.kind in CODED:
        return str(column.levels[value])
    if column.kind == "date":
        return date_text(float(value))
    whole = abs(value) < 1e15 and float(value).is_integer()
    return number_text(value) if whole else f"{value:.6g}"


def date_text(seconds: float) -> str:
    """Return a date as ISO text, its time of day only where it is not midnight."""
    try:
        text = str(np.datetime64(round(seconds), "s"))
    except (OverflowError, ValueError):
        return f"{seconds:.6g} s"
    return text.removesuffix("T00:00:00")


def _sample(n: int, most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return at most ``most`` of n row numbers, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(rng.permutation(n)[:most])
