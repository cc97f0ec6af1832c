"""``lamina evaluate``: a model's scores on a table that has the target."""

from __future__ import annotations

import click

from lamina.cli.console import (
    SCORE_NAMES,
    facts,
    json_option,
    note,
    open_estimator,
    print_json,
    rows_left_out,
    score_text,
    source_of,
    text_columns_of,
    truth_of,
)


@click.command("evaluate", epilog="Example: lamina evaluate people.lamina new_people.csv")
@click.argument("model")
@click.argument("table", nargs=-1, required=True)
@click.option(
    "--target",
    metavar="COLUMN",
    help="The column that holds the truth [default: the one that lamina fit was given].",
)
@json_option
def command(model: str, table: tuple[str, ...], target: str | None, as_json: bool) -> None:
    """Score MODEL on the rows of TABLE.

    TABLE must have the target column; rows without a target are left out. It is one or several
    csv, tsv, parquet, jsonl or feather files, a folder of them, or - for csv from standard input.
    The scores of a table the model was fitted on say little.
    """
    est = open_estimator(model, "evaluate")
    from lamina.tabular.evaluate import score_rows
    from lamina.tabular.read import read_table

    rows = read_table(source_of(table), text_columns=text_columns_of(est))
    truth = truth_of(est, target, rows, "evaluate")
    _, column, places = truth.split(rows, "evaluate")
    # Of all rows, so that a sentence names the row of the file
    kept = est.inputs_.prepare(rows, "evaluate", warn=True).take(places)
    scores = score_rows(est, kept, column, places, where="evaluate")
    n_left_out = rows.n_rows - kept.n_rows
    task = "classification" if hasattr(est, "classes_") else "regression"
    if as_json:
        print_json(
            {
                "model": model,
                "table": source_of(table),
                "target": truth.name,
                "task": task,
                "n_rows": kept.n_rows,
                "n_rows_left_out": n_left_out,
                "scores": scores,
            }
        )
        return
    if n_left_out:
        note(rows_left_out(n_left_out))
    facts(
        [
            ("target", f"{truth.name} ({task})"),
            ("rows", f"{kept.n_rows:,}"),
            *((SCORE_NAMES[name], score_text(name, value)) for name, value in scores.items()),
        ]
    )
