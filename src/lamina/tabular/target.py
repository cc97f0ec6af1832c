"""The target column: how its values are read, which task they pose, and which rows have one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError, ModelFileError
from lamina.tabular.convert import as_kind
from lamina.tabular.kinds import find_uses
from lamina.tabular.table import CODED, Column, Kind, Table, list_names, number_text
from lamina.tabular.uses import FORMS

Array = NDArray[Any]
Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)

# Whole numbers with at most so many distinct values are taken for classes: 0/1, ratings, digits.
MAX_WHOLE_CLASSES = 10


@dataclass(frozen=True)
class Target:
    """Which column of a table is predicted, and how its values are read.

    Parameters
    ----------
    name : str
        The column.
    kind : {"number", "text", "boolean"}
        What its values are.
    form : str
        How text is read as numbers, see `parse`.
    marks : tuple of str
        Text among its numbers that counts as missing.
    """

    name: str
    kind: Kind
    form: str = ""
    marks: tuple[str, ...] = ()

    @classmethod
    def find(
        cls, table: Table, name: str, types: Mapping[str, str] | None = None, where: str = "fit"
    ) -> tuple[Target, tuple[str, ...]]:
        """Return the target called ``name``, and notes on its values.

        Raises
        ------
        DataError
            There is no such column, or it holds dates or values of another kind.
        """
        column = table.column(name, where)
        given = {key: use for key, use in (types or {}).items() if key == name}
        uses = find_uses(Table({name: column}, table.n_rows), given, target=name, where=where)
        use = uses[name]
        if use.kind not in (*CODED, "number"):
            raise DataError(
                f"{where}: expected target {name!r} to hold numbers, text or booleans, got "
                f"{use.kind} values. Choose another column, or make classes of it."
            )
        return cls(name, use.kind, use.form, use.marks), uses.notes

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The target if `read_table` must leave it as text."""
        return (self.name,) if self.kind == "text" else ()

    def split(self, table: Table, where: str) -> tuple[Table, Column, NDArray[np.intp]]:
        """Return the rows that have a target, without it; their targets; and which rows they are.

        Raises
        ------
        DataError
            There is no such column, no row, or no row with a target.
        """
        column = table.column(self.name, where)
        column = as_kind(column, self.kind, where, form=self.form, marks=self.marks).finite
        if table.n_rows == 0:
            raise DataError(f"{where}: expected at least one row, the table has none. Add rows.")
        if column.missing.all():
            raise DataError(
                f"{where}: expected values in target {self.name!r}, every row is missing its own. "
                "Choose another column."
            )
        rows = np.flatnonzero(~column.missing)
        inputs = table.without(self.name)
        if len(rows) < table.n_rows:
            inputs, column = inputs.take(rows), column.take(rows)
        return inputs, column, rows

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return {**asdict(self), "marks": list(self.marks)}

    @classmethod
    def from_json(cls, state: Any) -> Target:
        """Rebuild from `to_json`; `ModelFileError` if it makes no sense."""
        if isinstance(state, dict) and set(state) == {"name", "kind", "form", "marks"}:
            name, kind, form, marks = (state[key] for key in ("name", "kind", "form", "marks"))
            texts = isinstance(marks, list) and all(
                isinstance(text, str) for text in (name, kind, form, *marks)
            )
            if texts and kind in (*CODED, "number") and form in ("", *FORMS.get(kind, ())):
                return cls(name, kind, form, tuple(marks))
        raise ModelFileError(
            "load: expected the target of a table, got other fields. "
            "The file is damaged; fit the model again."
        )


def find_task(column: Column) -> Task:
    """Return "classification" for text, booleans and few whole numbers, else "regression"."""
    if column.kind != "number":
        return "classification"
    distinct = np.unique(column.values)
    whole = bool((distinct == np.floor(distinct)).all())
    return "classification" if whole and distinct.size <= MAX_WHOLE_CLASSES else "regression"


def target_values(column: Column, task: Task) -> Array:
    """Return y (n,): classes as numbers, booleans or text, or numbers to predict."""
    if column.kind == "text":
        return np.asarray(np.array(column.levels, dtype=object)[column.values])
    if column.kind == "boolean":
        return np.asarray(column.values == 1)
    values = np.asarray(column.values, np.float64)
    whole = task == "classification" and bool((values == np.floor(values)).all())
    return values.astype(np.int64) if whole and np.abs(values).max() < 2**53 else values


def check_target(column: Column, task: Task, where: str) -> None:
    """Refuse a target, without missing values, that cannot be learnt.

    Raises
    ------
    DataError
        One class, classes that hardly repeat, text to regress on, a constant, or numbers too large.
    """
    name = column.name
    if task == "classification":
        text = column.as_text()
        counts = np.bincount(text.values, minlength=len(text.levels))
        n_classes = int(np.count_nonzero(counts))
        if n_classes < 2:
            raise DataError(
                f"{where}: expected at least two classes in target {name!r}, got only "
                f"{text.levels[int(counts.argmax())]!r} in every row. Choose another column, or "
                "add rows of another class."
            )
        if n_classes > 20 and 2 * n_classes > text.values.size:
            advice = "Use --task regression." if column.kind == "number" else "Choose another."
            raise DataError(
                f"{where}: expected classes in target {name!r} that repeat, got {n_classes} "
                f"different values in {text.values.size} rows. {advice}"
            )
        return
    if column.kind != "number":
        raise DataError(
            f"{where}: expected numbers in target {name!r} for regression, got {column.kind} "
            "values. Use --task classification, or another column."
        )
    values = column.values
    if values.min() == values.max():
        raise DataError(
            f"{where}: expected target {name!r} to vary, got {values[0]:g} in every row. "
            "Choose another column."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(np.asarray(values, np.float64).std()):
            raise DataError(
                f"{where}: expected target {name!r} within float64's range, got numbers up to "
                f"{np.abs(values).max():g}. Rescale the column."
            )


def lonely_classes(column: Column, rows: NDArray[np.intp]) -> list[str]:
    """Return a sentence on each class that one row alone holds; ``rows``: their places, from 0."""
    text = column.as_text()
    counts = np.bincount(text.values, minlength=len(text.levels))
    return [
        f"class {text.levels[k]!r} of target {column.name!r} has one row only, row "
        f"{rows[int(np.argmax(text.values == k))] + 1}: it is learnt, but no score is of it."
        for k in np.flatnonzero(counts == 1)[:8]
    ]


def class_places(
    column: Column, classes: Array, rows: NDArray[np.intp], where: str
) -> NDArray[np.intp]:
    """Return each row's place in ``classes``; `DataError` names the first class that is none.

    Parameters
    ----------
    column : Column
        The target's values, none missing.
    classes : (n_classes,)
        As `target_values` gave them to fit.
    rows : (n,) int
        The rows of the table that they are from, for the sentence.
    """
    values = target_values(column, "classification")
    index = {value: place for place, value in enumerate(classes.tolist())}
    distinct, back = np.unique(values, return_inverse=True)
    places = np.array([index.get(value, -1) for value in distinct.tolist()], np.intp)[back]
    if (places < 0).any():
        first = int(np.argmin(places))
        value = values[first]
        shown = value if column.kind in CODED else number_text(value)
        raise DataError(
            f"{where}: expected target {column.name!r} to be one of the classes seen in fit, "
            f"{list_names([str(c) for c in classes])}, got {str(shown)!r} in row "
            f"{rows[first] + 1}. Leave such rows out or fit again."
        )
    return places


def as_target(y: Any, where: str) -> Array:
    """Return y as an array; `DataError` names the first row without a value, or infinite."""
    values = np.asarray(y)
    cells = values
    if values.dtype.kind in "US" and not hasattr(y, "dtype"):
        cells = np.asarray(y, dtype=object)  # of a list, before NaN became the text "nan"
    if cells.dtype.kind in "fc":
        missing = ~np.isfinite(cells)
    elif cells.dtype.kind in "mM":
        missing = np.isnat(cells)
    elif cells.dtype.kind == "O":
        missing = np.array([_is_missing(v) for v in cells.ravel()], bool).reshape(cells.shape)
    else:
        return values
    if missing.any():
        row = int(np.argwhere(missing)[0][0])
        got = cells[row : row + 1].tolist()[0]
        infinite = isinstance(got, float) and math.isinf(got)
        raise DataError(
            f"{where}: expected a target in every row, Input y contains "
            f"{'infinity' if infinite else 'NaN'}: row {row} has {got!r}. "
            f"Leave out such rows ({int(missing.sum()):,} of {len(values):,})."
        )
    return values


def _is_missing(value: Any) -> bool:
    if isinstance(value, float | np.floating):
        return not math.isfinite(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def is_multilabel(y: Array, where: str) -> bool:
    """Return whether classes are several labels a row; `DataError` if they are no classes."""
    from sklearn.utils.multiclass import check_classification_targets, type_of_target

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # many classes: the estimator says so, or does not mind
            check_classification_targets(y)
            return str(type_of_target(y)).startswith("multilabel")
    except ValueError as error:
        reason = str(error).partition(".")[0]  # scikit-learn's checks look for its words
        raise DataError(
            f"{where}: expected classes in y, got numbers or several columns ({reason}). "
            "Use TabularRegressor for numbers."
        ) from error


def as_numbers(y: Array, where: str) -> NDArray[np.float64]:
    """Return y (n,) or (n, n_targets) as float64; `DataError` names the first that is no number."""
    from sklearn.utils.validation import check_array

    n_columns = y.shape[1] if y.ndim > 1 else 1
    for i, value in enumerate(y.ravel().tolist() if y.dtype.kind in "OUS" else ()):
        try:
            float(value)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where}: expected numbers in y, got {value!r:.80} in row {i // n_columns}. "
                "Use TabularClassifier for classes."
            ) from error
    with np.errstate(over="ignore", invalid="ignore"):  # its sum may overflow
        numbers = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
    return np.asarray(numbers)


def split_rows(
    column: Column, task: Task, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return a mask (n,) that is True for the rows to hold out, about ``fraction`` of them.

    Every class keeps its share, and at least one row on the other side; so do all rows together.
    """
    n = column.values.size
    if task == "classification":
        text = column.as_text()
        groups = text.values
        n_groups = len(text.levels)
    else:
        groups, n_groups = np.zeros(n, dtype=np.int32), 1
    shuffled = rng.permutation(n)
    order = shuffled[np.argsort(groups[shuffled], kind="stable")]  # rows of one class together
    counts = np.bincount(groups, minlength=n_groups)
    starts = np.cumsum(counts) - counts
    n_held = np.minimum(np.round(counts * fraction), np.maximum(counts - 1, 0))
    place = np.arange(n) - starts[groups[order]]  # of each row within its class
    held = np.zeros(n, dtype=bool)
    held[order] = place < n_held[groups[order]]
    return held
