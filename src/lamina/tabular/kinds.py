"""What each column of a table is good for: found from its values, or given, and always explained.

A column is used as one of `uses.USES`. Found once, in fit; `ColumnUses.apply` then makes every
later table alike: text read as the numbers or dates it means, identifiers and constants left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError
from lamina.tabular.convert import (
    AS_TEXT,
    MOST_STRAY,
    STAMPS,
    as_kind,
    from_reading,
    level_counts,
    read_text,
    stamps_as_dates,
    strays_text,
    to_boolean,
)
from lamina.tabular.parse import Reading, code_like, looks_like
from lamina.tabular.table import CODED, Column, Kind, Table, list_names, near_names
from lamina.tabular.uses import DROPPED, GIVEN, ColumnUse, ColumnUses, Use

# A key is told from a measurement by what chance would do: n whole numbers drawn from a range of R
# meet about n**2 / 2R times. Where that is so many, none meeting has probability exp(-25).
LEAST_MEETINGS = 25.0
STRAY_DATES = 0.01  # fewer stray cells than for numbers: what parses as dates rarely is a mixture
TEXT_WORDS = 3.0  # words in the mean cell of free text
TEXT_DISTINCT = 0.5  # share of its cells that differ from all others
MOST_MARKS = 20  # stray values remembered, to be missing at predict too

_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}|[0-9a-f]{16,128}", re.IGNORECASE)
_KEY_NAME = re.compile(
    r"(^|[^a-z])(id|ids|uid|guid|uuid|key|pk|index|idx|pid|nr|no|number|rownum|row)$|[a-z]I[dD]$",
)
_TIME_NAME = re.compile(r"year|month|week|day|hour|minute|second|date|time|age$|^age")


def find_uses(
    table: Table,
    types: Mapping[str, str] | None = None,
    *,
    target: str | None = None,
    where: str = "fit",
) -> ColumnUses:
    """Find what each column of ``table`` is good for.

    Parameters
    ----------
    table : Table
        The rows to learn from.
    types : dict of str to str, optional
        Uses that overrule what is found: "number", "category", "boolean", "date", "text" or
        "drop" by column.
    target : str, optional
        The column to predict: its text may be numbers too, but it is never left out.
    where : str, default "fit"
        Begins the sentence of an error.

    Raises
    ------
    DataError
        If ``types`` names a column that is not there, an unknown use, or one that the values do
        not allow.

    Examples
    --------
    >>> from lamina.tabular.frames import as_table
    >>> from lamina.tabular.kinds import find_uses
    >>> table = as_table({"price": ["$1,200", "$950", "n/a"], "city": ["Oslo", "Rome", "Oslo"]})
    >>> uses = find_uses(table)
    >>> [(c.name, c.use) for c in uses]
    [('price', 'number'), ('city', 'category')]
    >>> uses.apply(table).columns["price"].values
    array([1200.,  950.,   nan])
    """
    types = dict(types or {})
    _check_types(types, table, target, where)
    found, notes = [], []
    for column in table:
        if column.name in types:
            use, note = _given(column, types[column.name], where)
        else:
            use, note = _find(column, table, is_target=column.name == target)
        found.append(_counted(use, column))
        if use.use not in DROPPED:
            note = note or _infinite(column)
            notes += [f"column {column.name!r}: {note}"] if note else []
    found = _keep_one(found, target)
    uses = ColumnUses(tuple(found))
    return replace(uses, notes=(*notes, *uses.left_out))


def _check_types(types: Mapping[str, str], table: Table, target: str | None, where: str) -> None:
    """Raise `DataError` for a use or column that there is not."""
    for name, use in types.items():
        if name not in table.columns:
            near = near_names(name, table.names)
            hint = f"Did you mean {near}?" if near else f"It has {list_names(table.names)}."
            raise DataError(f"{where}: expected types of columns, there is no {name!r}. {hint}")
        if use not in GIVEN:
            raise DataError(
                f"{where}: expected one of {', '.join(GIVEN)} as the type of column {name!r}, got "
                f"{use!r}. Choose one of them."
            )
        if name == target and use == "drop":
            raise DataError(
                f"{where}: expected types that keep the target {name!r}, got 'drop'. Leave it out."
            )


def _keep_one(found: list[ColumnUse], target: str | None) -> list[ColumnUse]:
    """Return the uses, identifiers of numbers as numbers where nothing else is left to learn."""
    if any(c.use not in DROPPED and c.name != target for c in found):
        return found
    return [
        replace(c, use="number", reason=f"{c.reason}, but there is nothing else to learn from")
        if c.use == "identifier" and c.kind == "number"
        else c
        for c in found
    ]


def _counted(use: ColumnUse, column: Column) -> ColumnUse:
    """Return the use with the column's missing and different values counted."""
    if use.kind in ("number", "date") and column.kind == "text" and use.use not in DROPPED:
        column = as_kind(column, use.kind, "fit", form=use.form, marks=column.levels)
    return replace(
        use, n_missing=int(np.count_nonzero(column.missing)), n_distinct=count_distinct(column)
    )


def count_distinct(column: Column) -> int | None:
    """Return how many different values there are; None for fractions in long columns."""
    if column.kind in CODED:
        return int(np.count_nonzero(level_counts(column)))
    values = column.values[~column.missing]
    if values.size > 100_000 and not _whole(values[:1000]):
        return None
    return int(np.unique(values).size)


def _given(column: Column, use: str, where: str) -> tuple[ColumnUse, str]:
    """Return the use that the user gave, its text read as numbers or dates by the best form."""
    name, reason = column.name, "as given"
    if use == "drop":
        return ColumnUse(name, "drop", column.kind, reason, given=True), ""
    if use in ("category", "text"):
        form = AS_TEXT if column.kind == "date" else ""
        as_kind(column, "text", where, form=form)
        as_given: Use = "category" if use == "category" else "text"
        return ColumnUse(name, as_given, "text", reason, form, given=True), ""
    if use == "boolean":
        as_kind(column, "boolean", where)
        return ColumnUse(name, "boolean", "boolean", reason, given=True), ""
    if use == "date" and column.kind == "number":
        stamp = _stamp_form(column)
        if stamp is None:
            raise DataError(
                f"{where}: expected dates in column {name!r}, got numbers that are neither "
                "yyyymmdd nor seconds since 1970. Choose another type."
            )
        return ColumnUse(name, "date", "date", reason, stamp, given=True), ""
    wanted: Kind = "number" if use == "number" else "date"
    if column.kind != "text":
        as_kind(column, wanted, where)
        return ColumnUse(name, wanted, wanted, reason, given=True), ""
    reading = read_text(column, wanted)
    if reading.share(level_counts(column)) == 0 and not column.missing.all():
        as_kind(column, wanted, where, form=reading.form)  # says so
    marks, note = _strays(column, wanted, reading)
    return ColumnUse(name, wanted, wanted, reason, reading.form, marks, given=True), note


def _find(column: Column, table: Table, *, is_target: bool) -> tuple[ColumnUse, str]:
    """Return the column's use, and a note on values in it that count as missing."""
    name, missing = column.name, column.missing
    note = ""
    if column.kind == "other":
        return ColumnUse(name, "other", "other", "neither numbers, text, dates nor booleans"), ""
    if missing.all() and not is_target:
        return ColumnUse(name, "constant", column.kind, "it has no values"), ""
    form, reason = "", ""
    marks: tuple[str, ...] = ()
    if column.kind == "text" and not column.declared:
        as_values = _values_in_text(column)
        if as_values is not None:
            wanted, reading = as_values
            form = reading.form
            marks, note = _strays(column, wanted, reading)
            column, reason = from_reading(column, wanted, reading), f"text that reads as {wanted}s"
        elif not is_target and (words := to_boolean(column)) is not None and _all_words(column):
            column, reason = words, "words for true and false"
    use, why = _use_of(column, table, is_target=is_target)
    reason = ", ".join(text for text in (reason, why) if text)
    return ColumnUse(name, use, column.kind, reason, form, marks), note


def _all_words(column: Column) -> bool:
    return {level.strip().lower() for level in column.levels} <= {"true", "false"}


def _values_in_text(column: Column) -> tuple[Kind, Reading] | None:
    """Return numbers or dates read from a text column, if nearly all of its values are such."""
    counts = level_counts(column)
    kinds: tuple[tuple[Kind, float], ...] = (("number", MOST_STRAY), ("date", STRAY_DATES))
    for kind, most in kinds:
        if not looks_like(column.levels, kind):
            continue
        reading = read_text(column, kind)
        if reading.share(counts) >= 1.0 - most:
            if kind == "number" and code_like(reading, column.levels, counts):
                continue
            return kind, reading
    return None


def _strays(column: Column, kind: Kind, reading: Reading) -> tuple[tuple[str, ...], str]:
    """Return the values that are no numbers or dates, and a note that tells of them."""
    if not level_counts(column)[reading.stray].any():
        return (), ""
    marks = [v for v, stray in zip(column.levels, reading.stray, strict=True) if stray]
    return tuple(marks[:MOST_MARKS]), strays_text(column, kind, reading.stray)


def _infinite(column: Column) -> str:
    """Return a note that tells of infinite numbers, which count as missing; "" without any."""
    if column.kind != "number" or not (infinite := np.isinf(column.values)).any():
        return ""
    n, row = int(np.count_nonzero(infinite)), int(np.argmax(infinite)) + 1
    of = f"{n:,} of {np.count_nonzero(~column.missing):,} numbers"
    if n == 1:
        return f"{of} is infinite and counts as missing, in row {row}."
    return f"{of} are infinite and count as missing, the first in row {row}."


def _use_of(column: Column, table: Table, *, is_target: bool) -> tuple[Use, str]:
    """Return the use of a column of numbers, dates, booleans or text, and the reason."""
    present = column.values[~column.missing]
    if column.kind in CODED:
        return _use_of_levels(column, is_target=is_target)
    whole = column.kind == "number" and _whole(present)
    if not is_target:
        if present.min() == present.max() and present.size == column.values.size:
            return "constant", "all its values are the same"
        if whole and table.named and present.size == column.values.size:
            why = _key(column.name, present)
            if why:
                return "identifier", why
    if column.kind == "date":
        return "date", "" if column.missing.any() else "every row has one"
    return "number", "whole numbers" if whole else "measurements"


def _use_of_levels(column: Column, *, is_target: bool) -> tuple[Use, str]:
    """Return the use of a text or boolean column, and the reason."""
    counts = level_counts(column)
    n_distinct, n = int(np.count_nonzero(counts)), int(counts.sum())
    if n_distinct == 1 and not is_target and n == column.values.size:
        return "constant", "all its values are the same"
    if column.kind == "boolean":
        return "boolean", "" if is_target else "true or false"
    why = f"{n_distinct:,} different values in {n:,} rows"
    if is_target or column.declared:
        return "category", why
    levels = [column.levels[i] for i in np.flatnonzero(counts)[:1000]]
    if n_distinct > 0.9 * n and n > 2 and all(_UUID.fullmatch(v.strip()) for v in levels):
        return "identifier", f"hash-like, {why}"
    words = float(np.mean([len(level.split()) for level in levels])) if levels else 0.0
    if words >= TEXT_WORDS and n_distinct >= TEXT_DISTINCT * n and n_distinct > 2:
        return "text", f"{why}, of {words:.0f} words each"
    if n_distinct == n and n > 2:
        return "identifier", "no value appears twice"
    return "category", why


def _key(name: str, values: NDArray[Any]) -> str:
    """Return why whole numbers are a key, "" if they are none."""
    n = values.size
    if n > 1 and np.unique(values[: 20 * int(n**0.5)]).size < min(n, 20 * int(n**0.5)):
        return ""  # a few rows settle it for most columns
    if _TIME_NAME.search(name.lower()) and not _KEY_NAME.search(name):
        return ""
    meetings = n * n / (2.0 * max(float(values.max() - values.min()) + 1.0, 1.0))
    unnamed = name.startswith("(unnamed ")
    named = bool(_KEY_NAME.search(name) or _KEY_NAME.search(name.lower()))
    if not (meetings >= LEAST_MEETINGS or ((named or unnamed) and n >= 10)):
        return ""
    if np.unique(values).size < n:
        return ""
    return "whole numbers that never repeat" + (", and its name says so" if named else "")


def _whole(values: NDArray[Any]) -> bool:
    """Return whether all numbers are finite and whole."""
    head = values[:1000]
    if not np.isfinite(head).all() or (head != np.floor(head)).any():
        return False
    return bool(np.isfinite(values).all() and (values == np.floor(values)).all())


def _stamp_form(column: Column) -> str | None:
    """Return how whole numbers are dates: yyyymmdd, or seconds or milliseconds since 1970."""
    values = column.values[~column.missing]
    if not _whole(values) or not values.size:
        return None
    dates = stamps_as_dates(values, "yyyymmdd") if values.max() < 1e8 else np.array([np.nan])
    if values.min() >= 10000101 and not np.isnan(dates).any():
        return "yyyymmdd"
    for form, scale in STAMPS.items():
        if values.min() >= 1e7 * scale and values.max() < 1e10 * scale:
            return form
    return None


def parse_types(items: Iterable[str], where: str = "--types") -> dict[str, str]:
    """Return "zip=category,id=drop", once or repeated, as a dict; the last "=" divides."""
    types = {}
    for item in items:
        for part in item.split(","):
            name, equals, use = part.rpartition("=")
            if not equals or not name or not use:
                raise DataError(
                    f"{where}: expected COLUMN=TYPE with commas between, such as "
                    f"zip=category,id=drop, got {item!r}. Types are {', '.join(GIVEN)}."
                )
            types[name.strip()] = use.strip()
    return types
