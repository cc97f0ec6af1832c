"""``lamina fit``: from a table to a model file, with an honest score at the end."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import (
    SCORE_NAMES,
    check_output,
    facts,
    json_option,
    note,
    print_json,
    score_text,
)

if TYPE_CHECKING:
    from lamina.tabular.model import TableModel
    from lamina.tabular.table import Table
    from lamina.tabular.target import Task


FEW_ROWS = 50  # an accuracy of fewer is known to no better than 14 %, at 95 % confidence


class Widths(click.ParamType[tuple[int, ...]]):
    """Widths of hidden layers: whole numbers with commas, or "none"."""

    name = "widths"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the widths as a tuple."""
        if isinstance(value, tuple):
            return value
        if value == "none":
            return ()
        try:
            widths = tuple(int(part) for part in value.split(","))
        except ValueError:
            widths = (0,)
        if min(widths) < 1:
            self.fail(
                f"expected widths of hidden layers such as 256,256, or none, got {value!r}.",
                param,
                ctx,
            )
        return widths


class FiniteRange(click.FloatRange):
    """A range of numbers, which "nan" and "inf" are not in (click lets them through)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value!r}.", param, ctx)
        return number


@click.command("fit", epilog="Example: lamina fit people.csv --target income --out income.lamina")
@click.argument("table")
@click.option("--target", required=True, metavar="COLUMN", help="The column to predict.")
@click.option(
    "--drop",
    multiple=True,
    metavar="COLUMN",
    help="A column not to learn from, such as an identifier; may be repeated.",
)
@click.option(
    "--types",
    multiple=True,
    metavar="COLUMN=TYPE,…",
    help="What columns are: number, category, boolean, date, text or drop; may be repeated.",
)
@click.option(
    "--out",
    metavar="FILE",
    help="The model file [default: TABLE's name + .lamina, in this folder].",
)
@click.option(
    "--task",
    type=click.Choice(["classification", "regression"]),
    help="What kind of target it is [default: found from the values].",
)
@click.option(
    "--test-size",
    type=FiniteRange(0.0, 0.9),
    default=0.2,
    show_default=True,
    help="Share of the rows kept from training for the final score; 0 for none.",
)
@click.option(
    "--hidden",
    type=Widths(),
    default="256,256",
    show_default=True,
    metavar="WIDTHS",
    help="Units in each hidden layer; none for a linear model.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Passes over the rows at most [default: by their number].",
)
@click.option(
    "--max-seconds",
    type=FiniteRange(min=0.0, min_open=True),
    metavar="S",
    help="Begin no further epoch after so many seconds of training.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="The same seed, table and threads give the same model.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="[default: all cores]")
@json_option
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
def command(
    table: str,
    target: str,
    drop: tuple[str, ...],
    types: tuple[str, ...],
    out: str | None,
    task: Task | None,
    test_size: float,
    hidden: tuple[int, ...],
    epochs: int | None,
    max_seconds: float | None,
    seed: int,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fit a model that predicts a column of TABLE.

    The model is a network that reads all other columns: text, booleans, dates and missing values
    are taken as they are, dates and money in text too, and keys that never repeat are left out;
    lamina show TABLE tells what each column is taken for, --types what it shall be. TABLE is a csv,
    tsv, parquet, jsonl or feather file, a folder of such files, or - for csv from standard input.

    The final score is on rows that training never saw. Ctrl-C stops and writes nothing; to stop
    early and keep the best epoch so far, use --max-seconds.
    """
    began = time.perf_counter()
    path = out if out is not None else _default_out(table)
    check_output(path, "fit", (table,))
    from lamina.cli.progress import TrainingProgress
    from lamina.tabular.kinds import find_uses, parse_types
    from lamina.tabular.model import fit
    from lamina.tabular.read import read_table

    given = parse_types(types)
    as_text = [name for name, use in given.items() if use in ("category", "text")]
    rows = _without(read_table(table, text_columns=as_text), drop, target)
    uses = find_uses(rows, given, target=target)
    notes = [*rows.notes, *uses.notes]
    rows = uses.apply(rows, "fit")
    training, test, described_task = _split(rows, target, task, test_size, seed)
    score_name = "accuracy" if described_task == "classification" else "R2"
    with TrainingProgress(score_name, max_seconds, quiet or as_json) as progress:
        model = fit(
            training,
            target,
            task=described_task,
            uses=uses,
            widths=hidden,
            max_epochs=epochs,
            max_seconds=max_seconds,
            rng=seed,
            n_threads=threads,
            on_epoch=progress,
        )
    scores = model.evaluate(test, "fit")[0] if test is not None else {}
    model.save(path)
    report = {
        "out": path,
        "target": target,
        "task": model.target.task,
        "n_test_rows": test.n_rows if test is not None else 0,
        "test_scores": scores,
        "columns": uses.rows(),
        "left_out": [*uses.left_out, *model.preprocessor.notes],
        "notes": [*notes, *model.preprocessor.notes],
        "seconds": time.perf_counter() - began,
        "training": dict(model.summary),
    }
    if as_json:
        print_json(report)
    elif not quiet:
        _summarise(model, report)


def _default_out(table: str) -> str:
    """Return the model file's name for the table's: people.csv → people.lamina, here."""
    return "model.lamina" if table == "-" else f"{Path(table).stem}.lamina"


def _without(rows: Table, drop: tuple[str, ...], target: str) -> Table:
    """Return the table without the columns to drop; `DataError` if it has no such column."""
    from lamina.core.errors import DataError

    for name in dict.fromkeys(drop):
        if name == target:
            raise DataError(
                f"fit: expected --drop to name other columns than the target, got {name!r}. "
                "Leave it out."
            )
        rows.column(name, "fit --drop")
        rows = rows.without(name)
    return rows


def _split(
    rows: Table, target: str, task: Task | None, test_size: float, seed: int
) -> tuple[Table, Table | None, Task]:
    """Return the rows to train on, those to test on if any, and the task."""
    import numpy as np

    from lamina.core.errors import DataError
    from lamina.tabular.model import LEAST_ROWS, split_rows, with_target
    from lamina.tabular.target import Target

    kept, column = with_target(rows, target, "fit")
    if kept.n_rows < rows.n_rows:
        note(f"{rows.n_rows - kept.n_rows:,} rows without a target are left out.")
    if kept.n_rows < LEAST_ROWS:
        raise DataError(
            f"fit: expected at least {LEAST_ROWS} rows with a target, got {kept.n_rows}. Add rows: "
            "from so few nothing can be learnt that a score could show."
        )
    # The task is found from all rows, so that it does not depend on how they are split.
    found = Target.fit(column, task).task
    held = split_rows(column, found, test_size, np.random.default_rng([seed, 1]))
    if not held.any():
        return kept, None, found
    return kept.take(~held), kept.take(held), found


def _summarise(model: TableModel, report: dict[str, Any]) -> None:
    """Print the closing summary."""
    for text in report["notes"]:
        note(text)
    training, target = model.summary, model.target
    n_classes = f" of {len(target.classes)} classes" if target.classes else ""
    pairs = [("target", f"{target.name} ({target.task}{n_classes})")]
    pairs.append(
        ("columns", f"{len(model.preprocessor.names)} used, {model.network.spec.d_in} inputs")
    )
    pairs.append(("found", model.uses.counts()))
    rows = [f"{training['n_rows'] - training['n_validation']:,} training"]
    rows.append(f"{training['n_validation']:,} validation")
    rows.append(f"{report['n_test_rows']:,} test")
    pairs.append(("rows", ", ".join(rows)))
    pairs.append(("epochs", _epochs(training)))
    if 0 < report["n_test_rows"] < FEW_ROWS:
        note(f"the test score is of {report['n_test_rows']} rows only: much of it is chance.")
    for name, value in report["test_scores"].items():
        pairs.append((f"test {SCORE_NAMES[name]}", score_text(name, value)))
    if not report["test_scores"]:
        for name, value in training["validation"].items():
            pairs.append((f"validation {SCORE_NAMES[name]}", score_text(name, value)))
    pairs.append(("time", f"{report['seconds']:.1f} s"))
    pairs.append(("written", report["out"]))
    facts(pairs)


def _epochs(training: Any) -> str:
    """Return how long training went on, and which epoch was kept."""
    text = str(training["epochs"])
    if training["best_epoch"] is not None:
        text += f", the best was {training['best_epoch'] + 1}"
    if training["stopped"] == "max_seconds":
        text += ", stopped by --max-seconds"
    return text
