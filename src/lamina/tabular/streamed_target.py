"""The target of a table too large for memory: what one pass over its column tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError
from lamina.tabular.convert import level_counts
from lamina.tabular.frames import from_arrow
from lamina.tabular.head import ClassHead, NumberHead
from lamina.tabular.table import CODED, Column
from lamina.tabular.target import Target
from lamina.tabular.uses import ColumnUses

if TYPE_CHECKING:
    import pyarrow as pa

Array = NDArray[Any]
Floats = NDArray[np.float64]

MOST_CLASSES = 4096
LEAST_ROWS = 10  # fewer can be neither learnt from nor scored


@dataclass(frozen=True, eq=False)
class StreamedTarget:
    """A target column as numbers, a batch at a time.

    Parameters
    ----------
    name : str
        The column.
    uses : ColumnUses
        What makes the column what it is (`ColumnUses.apply`).
    head : ClassHead or NumberHead
        From values to y, and from outputs to predictions.
    n_rows, n_missing : int
        Rows with a value, and those without, which are left out.
    classes : (K,) array, optional
        Sorted; of numbers, booleans or text, as the column had them.
    counts : (K,) int64, optional
        Rows of each class.
    """

    name: str
    uses: ColumnUses
    head: ClassHead | NumberHead
    n_rows: int
    n_missing: int
    classes: Array | None = None
    counts: NDArray[np.int64] | None = None

    @property
    def described(self) -> Target:
        """The target as model files describe it."""
        use = self.uses[self.name]
        return Target(self.name, use.kind, use.form, use.marks)

    def column(self, batch: pa.Table) -> Column:
        """Return the target column of a batch that has it among others."""
        return target_column(batch, self.name, self.uses)

    def values(self, column: Column) -> Floats:
        """Return numbers, or indices of classes, (n,); NaN for a row to be left out."""
        if self.classes is None:
            return np.asarray(column.finite.values, np.float64)
        if column.kind in CODED:
            code_of = {_label(c): k for k, c in enumerate(self.classes.tolist())}
            lookup = np.array([code_of.get(v, np.nan) for v in column.levels] + [np.nan])
            return np.asarray(lookup[column.values])
        codes = np.searchsorted(self.classes, column.values).astype(np.float64)
        codes[column.finite.missing] = np.nan
        return codes

    def encode(self, values: Floats) -> Array:
        """Return y for `values` without NaN: int32 classes (n,), or float32 (n, 1)."""
        if isinstance(self.head, ClassHead):
            return values.astype(np.int32)
        return self.head.encode(values[:, np.newaxis])


def target_column(batch: pa.Table, name: str, uses: ColumnUses) -> Column:
    """Return the target column of a batch as what ``uses`` says."""
    table = from_arrow(batch.select([name]), name, uses.text_columns)
    return uses.apply(table, "fit").columns[name]


def find_numbers(
    batches: Iterable[pa.Table], uses: ColumnUses, name: str, loss: str
) -> StreamedTarget:
    """Find the centre, spread and range of a regression target, exactly, in one pass.

    Raises
    ------
    DataError
        The target is no number, constant, or cannot be learnt with ``loss``.
    """
    _check_kind(uses, name, ("number",), "numbers", "Use TabularClassifier for classes.")
    n = n_missing = 0
    mean, squares, low, high = 0.0, 0.0, np.inf, -np.inf
    for batch in batches:
        values = np.asarray(target_column(batch, name, uses).finite.values, np.float64)
        known = values[~np.isnan(values)]
        n_missing += len(values) - len(known)
        if not len(known):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            # Chan, Golub and LeVeque 1979: means and squares of two parts
            own = float(known.mean())
            part, shift = len(known) / (n + len(known)), own - mean
            squares += float(((known - own) ** 2).sum()) + shift * shift * n * part
            mean += shift * part
        n += len(known)
        low, high = min(low, float(known.min())), max(high, float(known.max()))
    _check_rows(n, n_missing, name)
    if low == high:
        raise DataError(
            f"fit: expected target {name!r} to vary, got {low:g} in every row. "
            "Choose another column."
        )
    if loss == "poisson" and low < 0:
        raise DataError(
            f"fit: expected target {name!r} not negative with loss='poisson', got {low:g}. "
            "Use another loss."
        )
    if not np.isfinite(squares):
        raise DataError(
            f"fit: expected target {name!r} within float64's range, got numbers up to "
            f"{max(abs(low), abs(high)):g}. Rescale the column."
        )
    # Two values of this mean and spread stand for all rows; the range is put right afterwards.
    spread = (squares / n) ** 0.5
    head = NumberHead.fit(np.array([[mean - spread], [mean + spread]]), None, loss)
    head = replace(head, low=np.array([low]), high=np.array([high]))
    return StreamedTarget(name, uses, head, n, n_missing)


def find_classes(batches: Iterable[pa.Table], uses: ColumnUses, name: str) -> StreamedTarget:
    """Find the classes of a classification target in one pass.

    Raises
    ------
    DataError
        It has one class, more than `MOST_CLASSES`, or classes that do not repeat.
    """
    kind = _check_kind(
        uses, name, (*CODED, "number"), "numbers, text or booleans", "Choose another column."
    )
    found: Counter[Any] = Counter()
    n_missing = 0
    for batch in batches:
        column = target_column(batch, name, uses)
        n_missing += int(np.count_nonzero(column.finite.missing))
        if column.kind in CODED:
            pairs = zip(column.levels, level_counts(column).tolist(), strict=True)
            found.update({level: count for level, count in pairs if count})
        else:
            known = column.values[~column.finite.missing]
            values, counts = np.unique(known, return_counts=True)
            found.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if len(found) > MOST_CLASSES:
            break
    n = found.total()
    _check_rows(n, n_missing, name)
    if len(found) > MOST_CLASSES or (len(found) > 20 and 2 * len(found) > n):
        raise DataError(
            f"fit: expected classes in target {name!r} that repeat, got {len(found)} different "
            f"values in {n} rows. Use TabularRegressor for numbers."
        )
    labels = sorted(found)
    if len(labels) < 2:
        raise DataError(
            f"fit: expected at least two classes in target {name!r}, got only {labels[0]!r} in "
            "every row. Choose another column, or add rows of another class."
        )
    counts = np.array([found[label] for label in labels])
    head = ClassHead(len(labels))
    return StreamedTarget(name, uses, head, n, n_missing, as_classes(labels, kind), counts)


def as_classes(labels: list[Any], kind: str) -> Array:
    """Return sorted labels as numbers, booleans or text."""
    if kind == "boolean":
        return np.array([label in (True, "true") for label in labels])
    if kind == "number":
        values = np.array(labels, np.float64)
        return values.astype(np.int64) if (values == np.floor(values)).all() else values
    return np.array(labels, dtype=object)


def _label(value: Any) -> str:
    """Return a class as its column's level."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_kind(
    uses: ColumnUses, name: str, kinds: tuple[str, ...], wanted: str, advice: str
) -> str:
    kind = uses[name].kind
    if kind not in kinds:
        raise DataError(
            f"fit: expected target {name!r} to hold {wanted}, got {kind} values. {advice}"
        )
    return kind


def _check_rows(n: int, n_missing: int, name: str) -> None:
    if n == 0:
        raise DataError(
            f"fit: expected values in target {name!r}, got none in {n_missing:,} rows. "
            "Choose another column."
        )
    if n < LEAST_ROWS:
        raise DataError(
            f"fit: expected at least {LEAST_ROWS} rows with a target, got {n}. Add rows: from so "
            "few nothing can be learnt that a score could show."
        )
