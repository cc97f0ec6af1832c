"""``lamina predict``: a model's predictions for a table's rows, as a table."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import check_output, json_option, open_table_model, print_json

if TYPE_CHECKING:
    from lamina.tabular.model import TableModel
    from lamina.tabular.table import Table

FORMATS = {".csv": "csv", ".parquet": "parquet"}


@click.command("predict", epilog="Example: lamina predict people.lamina new_people.csv --out p.csv")
@click.argument("model")
@click.argument("table")
@click.option("--out", metavar="FILE", help="A .csv or .parquet file [default: csv on stdout].")
@json_option
def command(model: str, table: str, out: str | None, as_json: bool) -> None:
    """Predict the target for every row of TABLE.

    The result has TABLE's rows in their order, a column "prediction" and, for classes, one
    "probability_CLASS" for each. TABLE needs the columns the model was fitted on, in any order;
    the target and further columns are not looked at. It is a csv, tsv, parquet, jsonl or feather
    file, or - for csv from standard input.
    """
    fmt = _format(out, (model, table))
    opened = open_table_model(model, "predict")
    from lamina.tabular.read import read_table, write_columns

    rows = read_table(table, text_columns=opened.text_columns)
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
        print_json({"target": opened.target.name, "n_rows": rows.n_rows, "out": out})
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


def _columns(model: TableModel, rows: Table) -> dict[str, Any]:
    """Return the columns of the result."""
    output = model.output(rows)  # (n, d_out)
    columns = {"prediction": model.target.decode(output)}
    for k, name in enumerate(model.target.classes):
        columns[f"probability_{name}"] = output[:, k]
    return columns


def _document(model: TableModel, rows: Table) -> dict[str, Any]:
    """Return the result as one JSON document."""
    output = model.output(rows)
    document = {
        "target": model.target.name,
        "task": model.target.task,
        "predictions": model.target.decode(output).tolist(),
    }
    if model.target.classes:
        document["classes"] = model.target.class_values().tolist()
        document["probabilities"] = output.tolist()
    return document
