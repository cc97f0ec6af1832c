"""``lamina predict``: a model's predictions for a table's rows, as a table."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import (
    check_output,
    json_option,
    open_estimator,
    print_json,
    source_of,
    text_columns_of,
)

if TYPE_CHECKING:
    from lamina.tabular.table import Table

FORMATS = {".csv": "csv", ".parquet": "parquet"}


class Share(click.ParamType):  # type: ignore[type-arg]  # older click has no argument
    """A number between 0 and 1, both excluded: 90 for 90 % is said to be 0.9."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0.0 < number < 1.0:
            is_percent = 1.0 < number < 100.0
            advice = f"{number / 100:.6g} for {number:g} %" if is_percent else "such as 0.9"
            self.fail(
                f"expected a number between 0 and 1, {advice}, got {str(value)!r}.", param, ctx
            )
        return number


class Levels(click.ParamType):  # type: ignore[type-arg]
    """Levels of quantiles with commas between."""

    name = "levels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the levels, a tuple of float."""
        levels = tuple(Share().convert(part.strip(), param, ctx) for part in value.split(","))
        if len(set(levels)) < len(levels):
            self.fail(f"expected each level once, got {value!r}.", param, ctx)
        return levels


@dataclass(frozen=True)
class Wanted:
    """What of a number's distribution is asked for beside the prediction.

    Parameters
    ----------
    coverage : float or None
        Of the interval.
    levels : tuple of float
        Of the quantiles; empty for none.
    """

    coverage: float | None
    levels: tuple[float, ...]

    def check(self, est: Any) -> None:
        """Raise `DataError` if something is asked that the model has not learnt."""
        if self.coverage is None and not self.levels:
            return
        from lamina.core.errors import DataError

        option = "--quantiles" if self.coverage is None else "--interval"
        if hasattr(est, "classes_"):
            raise DataError(
                f"predict: expected a model of numbers for {option}, got one of classes. Leave "
                f"{option} out: the probability of every class is in the result."
            )
        if not hasattr(est, "quantiles_"):
            raise DataError(
                f"predict: expected a model that has learnt quantiles for {option}, got one fitted "
                "within --max-memory, which learns none. Fit it without --max-memory, on fewer "
                "rows if need be."
            )

    def columns(self, est: Any, rows: Table) -> dict[str, Any]:
        """Return the columns of the interval and of the quantiles, in the target's unit."""
        found: dict[str, Any] = {}
        if self.coverage is not None:
            interval = est.predict_interval(rows, self.coverage)
            found |= {"lower": interval[..., 0], "upper": interval[..., 1]}
        if self.levels:
            quantiles = est.predict_quantiles(rows, self.levels)
            found |= {f"quantile_{q!r}": quantiles[..., k] for k, q in enumerate(self.levels)}
        return found


@click.command("predict", epilog="Example: lamina predict people.lamina new_people.csv --out p.csv")
@click.argument("model")
@click.argument("table", nargs=-1, required=True)
@click.option("--out", metavar="FILE", help="A .csv or .parquet file [default: csv on stdout].")
@click.option(
    "--interval",
    "coverage",
    type=Share(),
    metavar="SHARE",
    help="Of numbers: columns lower and upper, which hold so many of fresh rows, such as 0.9.",
)
@click.option(
    "--quantiles",
    "levels",
    type=Levels(),
    metavar="Q,…",
    help="Of numbers: a column quantile_Q for each level, such as 0.1,0.5,0.9.",
)
@json_option
def command(
    model: str,
    table: tuple[str, ...],
    out: str | None,
    coverage: float | None,
    levels: tuple[float, ...] | None,
    as_json: bool,
) -> None:
    """Predict the target for every row of TABLE.

    The result has TABLE's rows in their order, a column "prediction" and, for classes, one
    "probability_CLASS" for each; for numbers the interval and the quantiles that are asked for.
    TABLE needs the columns the model was fitted on, in any order; the target and further columns
    are not looked at. It is one or several csv, tsv, parquet, jsonl or feather files, a folder of
    them, or - for csv from standard input.
    """
    fmt = _format(out, (model, *table))
    opened = open_estimator(model, "predict")
    wanted = Wanted(coverage, levels or ())
    wanted.check(opened)
    from lamina.tabular.read import read_table, write_columns

    rows = read_table(source_of(table), text_columns=text_columns_of(opened))
    if as_json and out is None:
        print_json(_document(opened, rows, wanted))
        return
    data = io.BytesIO()
    write_columns(_columns(opened, rows, wanted), data, fmt)
    if out is None:
        click.echo(data.getvalue(), nl=False)
        return
    from lamina.core.modelfile import write_atomically

    write_atomically(out, [data.getvalue()], "predict")
    if as_json:
        print_json({"target": _target_name(opened), "n_rows": rows.n_rows, "out": out})
    else:
        click.echo(f"{rows.n_rows:,} predictions written to {out}")


def _format(out: str | None, inputs: tuple[str, ...]) -> str:
    """Return the format of the file to write; `DataError` if it cannot be one."""
    if out is None:
        return "csv"
    suffix = Path(out).suffix.lower()
    if suffix not in FORMATS:
        from lamina.core.errors import DataError

        raise DataError(
            f"predict: expected --out to end in {' or '.join(FORMATS)}, got {out!r}. Rename it."
        )
    check_output(out, "predict", inputs)
    return FORMATS[suffix]


def _target_name(est: Any) -> str | None:
    target = getattr(est, "target_", None)
    return None if target is None else target.name


def _predict(est: Any, rows: Table) -> tuple[Any, Any]:
    """Return predictions (n,) or (n, n_targets), and the probabilities of classes or None."""
    import numpy as np

    if not hasattr(est, "classes_"):
        return est.predict(rows), None
    p = est.predict_proba(rows)
    if est.head_.multilabel:
        return (p > 0.5).astype(np.int64), p
    return est.classes_[np.argmax(p, axis=1)], p


def _columns(est: Any, rows: Table, wanted: Wanted) -> dict[str, Any]:
    """Return the columns of the result; of several targets each has its own, numbered."""
    predictions, p = _predict(est, rows)
    columns: dict[str, Any] = {}
    for name, values in {"prediction": predictions, **wanted.columns(est, rows)}.items():
        if values.ndim == 1:
            columns[name] = values
        else:
            columns |= {f"{name}_{k}": column for k, column in enumerate(values.T)}
    if p is not None:
        names = [_class_text(value) for value in est.classes_.tolist()]
        columns |= {f"probability_{name}": p[:, k] for k, name in enumerate(names)}
    return columns


def _class_text(value: Any) -> str:
    """Return a class as CSV files write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _document(est: Any, rows: Table, wanted: Wanted) -> dict[str, Any]:
    """Return the result as one JSON document."""
    predictions, p = _predict(est, rows)
    document: dict[str, Any] = {
        "target": _target_name(est),
        "task": "regression" if p is None else "classification",
        "predictions": predictions.tolist(),
    }
    if p is not None:
        document |= {"classes": est.classes_.tolist(), "probabilities": p.tolist()}
    if wanted.coverage is not None:
        document["coverage"] = wanted.coverage
    return document | {k: v.tolist() for k, v in wanted.columns(est, rows).items()}
