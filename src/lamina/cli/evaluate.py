"""``lamina evaluate``: a model's scores on a table that has the target."""

from __future__ import annotations

import click

from lamina.cli.console import (
    SCORE_NAMES,
    facts,
    json_option,
    note,
    open_table_model,
    print_json,
    score_text,
)


@click.command("evaluate", epilog="Example: lamina evaluate people.lamina new_people.csv")
@click.argument("model")
@click.argument("table")
@json_option
def command(model: str, table: str, as_json: bool) -> None:
    """Score MODEL on the rows of TABLE.

    TABLE must have the target column; rows without a target are left out. It is a csv, tsv,
    parquet, jsonl or feather file, or - for csv from standard input. The scores of a table the
    model was fitted on say little.
    """
    opened = open_table_model(model, "evaluate")
    from lamina.tabular.read import read_table

    rows = read_table(table, text_columns=opened.text_columns)
    scores, n_left_out = opened.evaluate(rows)
    n_rows = rows.n_rows - n_left_out
    if as_json:
        print_json(
            {
                "model": model,
                "table": table,
                "target": opened.target.name,
                "task": opened.target.task,
                "n_rows": n_rows,
                "n_rows_left_out": n_left_out,
                "scores": scores,
            }
        )
        return
    if n_left_out:
        note(f"{n_left_out:,} rows without a target are left out.")
    facts(
        [
            ("target", f"{opened.target.name} ({opened.target.task})"),
            ("rows", f"{n_rows:,}"),
            *((SCORE_NAMES[name], score_text(name, value)) for name, value in scores.items()),
        ]
    )
