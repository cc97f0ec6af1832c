"""The uses of a table's columns, as `kinds` found them: applied to later tables, and stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from lamina.core.errors import ModelFileError
from lamina.tabular.convert import AS_TEXT, STAMPS, as_kind
from lamina.tabular.parse import DATE_FORMS, NUMBER_FORMS
from lamina.tabular.table import KINDS, Kind, Table

Use = Literal[
    "number", "category", "boolean", "date", "text", "identifier", "constant", "drop", "other"
]
USES: tuple[Use, ...] = get_args(Use)
GIVEN: tuple[Use, ...] = ("number", "category", "boolean", "date", "text", "drop")
DROPPED: tuple[Use, ...] = ("identifier", "constant", "drop", "other")
# How text, or whole numbers that are dates, are read as a kind
FORMS: dict[Kind, tuple[str, ...]] = {
    "number": tuple(NUMBER_FORMS),
    "date": (*DATE_FORMS, *STAMPS, "yyyymmdd"),
    "text": (AS_TEXT,),
}


@dataclass(frozen=True)
class ColumnUse:
    """What one column is used for, and why.

    Parameters
    ----------
    name : str
        The column.
    use : {"number", "category", "boolean", "date", "text", "identifier", "constant", "drop", \
"other"}
        The last four are not learnt from.
    kind : {"number", "date", "text", "boolean", "other"}
        What `ColumnUses.apply` makes of it, as in `Column`; categories are of kind "text".
    reason : str
        One line for people.
    form : str
        How its text is read as numbers or dates, see `parse`.
    marks : tuple of str
        Text among its numbers or dates that counts as missing, besides the usual words.
    n_missing : int
        Cells without a value in fit.
    n_distinct : int or None
        Different values in fit; None where they were not counted (fractions in long columns).
    given : bool
        Whether the user said so.
    """

    name: str
    use: Use
    kind: Kind
    reason: str
    form: str = ""
    marks: tuple[str, ...] = ()
    n_missing: int = 0
    n_distinct: int | None = None
    given: bool = False


@dataclass(frozen=True)
class ColumnUses:
    """The use of every column, in the table's order.

    Parameters
    ----------
    columns : tuple of ColumnUse
        One a column, the target among them if it was there.
    notes : tuple of str
        Sentences on what was left out or counts as missing, for people.
    """

    columns: tuple[ColumnUse, ...]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[ColumnUse]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> ColumnUse:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def used(self) -> tuple[str, ...]:
        """The names of the columns that are not dropped."""
        return tuple(c.name for c in self if c.use not in DROPPED)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that `read_table` and `as_table` must leave as text."""
        return tuple(c.name for c in self if c.kind == "text")

    @property
    def left_out(self) -> tuple[str, ...]:
        """Sentences on the columns that are left out."""
        return tuple(
            f"column {c.name!r} is left out: {c.use}, {c.reason}."
            for c in self
            if c.use in DROPPED and not c.given
        )

    def apply(self, table: Table, where: str = "predict", *, warn: bool = False) -> Table:
        """Return the table as it is to be learnt from, or predicted with.

        Each column becomes what it was in fit, and those of no use are left out. A column that is
        absent stays so, and one that fit did not know stays as it is. ``warn`` as for `as_kind`.

        Raises
        ------
        DataError
            If a column holds other values than in fit.
        """
        columns = dict(table.columns)
        for use in self:
            column = columns.get(use.name)
            if column is None:
                continue
            if use.use in DROPPED:
                del columns[use.name]
            else:
                columns[use.name] = as_kind(
                    column, use.kind, where, form=use.form, marks=use.marks, warn=warn
                )
        return replace(table, columns=columns)

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict for each column, for a table in a report or in JSON."""
        return [{**asdict(c), "marks": list(c.marks)} for c in self]

    def counts(self) -> str:
        """Return how many columns there are of each use: "3 number, 2 category"."""
        uses = [c.use for c in self]
        return ", ".join(f"{uses.count(use)} {use}" for use in USES if use in uses)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return {"columns": self.rows(), "notes": list(self.notes)}

    @classmethod
    def from_json(cls, state: Any) -> ColumnUses:
        """Rebuild from `to_json`; `ModelFileError` if it makes no sense."""
        try:
            columns = tuple(
                ColumnUse(**{**item, "marks": tuple(item["marks"])}) for item in state["columns"]
            )
            notes = tuple(state["notes"])
            for column in columns:
                texts = (column.name, column.reason, column.form, *column.marks)
                if column.use not in USES or column.kind not in KINDS:
                    raise ValueError("a column of unknown use")
                if not all(isinstance(text, str) for text in texts):
                    raise ValueError("names that are not text")
                if column.form not in ("", *FORMS.get(column.kind, ())):
                    raise ValueError("a column of unknown form")
                counts = (column.n_missing, 0 if column.n_distinct is None else column.n_distinct)
                if not all(type(n) is int and n >= 0 for n in counts):
                    raise ValueError("counts that are none")
                if type(column.given) is not bool:
                    raise ValueError("a use neither given nor found")
            if not all(isinstance(note, str) for note in notes):
                raise ValueError("notes that are not text")
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"load: expected the columns of a table model, got {error!s}. "
                "The file is damaged; fit the model again."
            ) from error
        return cls(columns, notes)
