"""``lamina explain``: which columns a model's predictions come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import (
    check_output,
    json_option,
    note,
    one_line,
    open_estimator,
    print_json,
    source_of,
    text_columns_of,
    truth_of,
)

if TYPE_CHECKING:
    from lamina.tabular.target import Task

FORMATS = (".png", ".svg")
MOST_ROWS = 5000  # scored for importances: five shuffles of each column are predicted


@click.command("explain", epilog="Example: lamina explain people.lamina people.csv --row 0")
@click.argument("model")
@click.argument("table", nargs=-1, required=True)
@click.option(
    "--row",
    type=click.IntRange(min=0),
    metavar="N",
    help="Explain the prediction for this row of TABLE, the first being 0.",
)
@click.option(
    "--target",
    metavar="COLUMN",
    help="The column that holds the truth [default: the one that lamina fit was given].",
)
@click.option("--out", metavar="FILE", help="Draw it: a .png or .svg file.")
@json_option
def command(
    model: str,
    table: tuple[str, ...],
    row: int | None,
    target: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Show which columns of TABLE predictions come from.

    Without --row it is how much the loss rises when a column's values are shuffled, so TABLE must
    have the target, and best be rows that the model was not fitted on. With --row it is what each
    column adds to that row's prediction: the parts sum to the prediction minus the mean one.
    """
    fmt = _format(out, (model, *table))
    est = open_estimator(model, "explain")
    from lamina.tabular.read import read_table

    rows = read_table(source_of(table), text_columns=text_columns_of(est))
    found = _importance(est, rows, target) if row is None else _attributions(est, rows, row)
    if out is not None:
        from lamina.core.modelfile import write_atomically
        from lamina.plots.style import to_png, to_svg

        draw = to_png if fmt == "png" else to_svg
        write_atomically(out, [draw(found.plot())], "explain")
    if as_json:
        print_json(found.to_dict())
        return
    for line in _importance_lines(found) if row is None else _attribution_lines(found):
        click.echo(one_line(line))
    if out is not None:
        click.echo(f"drawn          {out}")


def _format(out: str | None, inputs: tuple[str, ...]) -> str:
    """Return the figure's format; `DataError` if there is none of that name."""
    if out is None:
        return ""
    suffix = Path(out).suffix.lower()
    if suffix not in FORMATS:
        from lamina.core.errors import DataError

        raise DataError(
            f"explain: expected --out to end in {', '.join(FORMATS)}, got {out!r}. Rename it."
        )
    check_output(out, "explain", inputs)
    return suffix[1:]


def _importance(est: Any, rows: Any, target: str | None) -> Any:
    import numpy as np

    from lamina.tabular.target import target_values

    truth = truth_of(est, target, rows, "explain")
    kept, column, _ = truth.split(rows, "explain")
    if kept.n_rows > MOST_ROWS:
        note(f"{MOST_ROWS:,} of {kept.n_rows:,} rows are scored, drawn at random.")
        chosen = np.sort(np.random.default_rng(0).choice(kept.n_rows, MOST_ROWS, replace=False))
        kept, column = kept.take(chosen), column.take(chosen)
    task: Task = "classification" if hasattr(est, "classes_") else "regression"
    return est.explain(kept, target_values(column, task), kind="importance")


def _attributions(est: Any, rows: Any, row: int) -> Any:
    if row >= rows.n_rows:
        from lamina.core.errors import DataError

        raise DataError(
            f"explain: expected --row from 0 to {rows.n_rows - 1}, the rows of the table, "
            f"got {row}. Choose another."
        )
    return est.explain(rows.take(slice(row, row + 1)))


def _importance_lines(found: Any) -> list[str]:
    from lamina.tabular.explained import LOSS_NAMES

    width = max(len(name) for name in found.columns)
    lines = [
        f"rise of the {LOSS_NAMES[found.scoring]} of {found.baseline:.4g} when a column is "
        f"shuffled, {found.n_rows:,} rows",
    ]
    for j in found.order:
        spread = found.spread[j]
        lines.append(f"{found.columns[j]:<{width}}  {found.mean[j]:>10.4g}  ± {spread:.2g}")
    return lines


def _attribution_lines(found: Any) -> list[str]:
    import numpy as np

    k = 0
    if found.unit == "probability":
        k = 1 if len(found.outputs) == 2 else int(np.argmax(found.prediction[0]))
    values = found.values[0, :, k]
    name_width = max(len(name) for name in found.columns)
    cell_width = min(max(len(cell) for cell in found.cells[0]), 32)
    what = f"{found.unit} of {found.outputs[k]}" if found.unit == "probability" else found.unit
    lines = [f"mean {what}: {found.baseline[k]:.4g}; this row: {found.prediction[0, k]:.4g}"]
    for j in np.argsort(-np.abs(values), kind="stable"):
        cell = found.cells[0][j][:cell_width]
        lines.append(f"{found.columns[j]:<{name_width}}  {cell:<{cell_width}}  {values[j]:>+10.4g}")
    if not found.exact:
        lines.append(f"sampled: each within about {2 * np.nanmax(found.error):.2g}")
    return lines
