"""``lamina predict``: a model's predictions for a table's rows, as a table."""

from __future__ import annotations

import io
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


@click.command("predict", epilog="Example: lamina predict people.lamina new_people.csv --out p.csv")
@click.argument("model")
@click.argument("table", nargs=-1, required=True)
@click.option("--out", metavar="FILE", help="A .csv or .parquet file [default: csv on stdout].")
@json_option
def command(model: str, table: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Predict the target for every row of TABLE.

    The result has TABLE's rows in their order, a column "prediction" and, for classes, one
    "probability_CLASS" for each. TABLE needs the columns the model was fitted on, in any order;
    the target and further columns are not looked at. It is one or several csv, tsv, parquet, jsonl
    or feather files, a folder of them, or - for csv from standard input.
    """
    fmt = _format(out, (model, *table))
    opened = open_estimator(model, "predict")
    from lamina.tabular.read import read_table, write_columns

    rows = read_table(source_of(table), text_columns=text_columns_of(opened))
    if as_json and out is None:
        print_json(_document(opened, rows))
        return
    data = io.BytesIO()
    write_columns(_columns(opened, rows), data, fmt)
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


def _columns(est: Any, rows: Table) -> dict[str, Any]:
    """Return the columns of the result."""
    predictions, p = _predict(est, rows)
    if predictions.ndim == 1:
        columns = {"prediction": predictions}
    else:
        columns = {f"prediction_{k}": values for k, values in enumerate(predictions.T)}
    if p is not None:
        names = [_class_text(value) for value in est.classes_.tolist()]
        columns |= {f"probability_{name}": p[:, k] for k, name in enumerate(names)}
    return columns


def _class_text(value: Any) -> str:
    """Return a class as CSV files write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _document(est: Any, rows: Table) -> dict[str, Any]:
    """Return the result as one JSON document."""
    predictions, p = _predict(est, rows)
    document = {
        "target": _target_name(est),
        "task": "regression" if p is None else "classification",
        "predictions": predictions.tolist(),
    }
    if p is not None:
        document |= {"classes": est.classes_.tolist(), "probabilities": p.tolist()}
    return document
