"""``lamina fit``: from a table to a model file, with an honest score at the end."""

from __future__ import annotations

import math
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import (
    SCORE_NAMES,
    check_output,
    facts,
    json_option,
    members_text,
    neighbours_text,
    new_estimator,
    note,
    print_json,
    rows_left_out,
    score_text,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from lamina.tabular.table import Column, Table
    from lamina.tabular.target import Target, Task
    from lamina.tabular.uses import ColumnUses


FEW_ROWS = 50  # an accuracy of fewer is known to no better than 14 %, at 95 % confidence
PRESET_NAMES = ("fast", "default", "best")  # recipe.PRESETS', which --help must not load


class FiniteRange(click.FloatRange):
    """A range of numbers, which "nan" and "inf" are not in (click lets them through)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value!r}.", param, ctx)
        return number


@click.command("fit", epilog="Example: lamina fit people.csv --target income --out income.lamina")
@click.argument("table", nargs=-1, required=True)
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
    "--preset",
    type=click.Choice(PRESET_NAMES),
    default="default",
    show_default=True,
    help="fast takes about a third of the time, best several times as long.",
)
@click.option(
    "--no-neighbours",
    is_flag=True,
    help="Keep no training rows in the model, though predictions may gain by the nearest ones.",
)
@click.option(
    "--test-size",
    type=FiniteRange(0.0, 0.9),
    default=0.2,
    show_default=True,
    help="Share of the rows kept from training for the final score; 0 for none.",
)
@click.option(
    "--max-seconds",
    type=FiniteRange(min=0.0, min_open=True),
    metavar="S",
    help="Begin no further epoch after so many seconds of training.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="The same seed, table and threads give the same model.",
)
@click.option(
    "--max-memory",
    metavar="SIZE",
    help="Fit within so much memory, such as 1GiB; for files, large ones above all.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a fit by --max-memory that was stopped, given the same command again.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="[default: all cores]")
@click.option(
    "--report",
    "report_path",
    metavar="FILE",
    help="Write scores, plots, columns and explanations to one HTML file.",
)
@json_option
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
def command(
    table: tuple[str, ...],
    target: str,
    drop: tuple[str, ...],
    types: tuple[str, ...],
    out: str | None,
    task: Task | None,
    preset: str,
    no_neighbours: bool,
    test_size: float,
    max_seconds: float | None,
    seed: int,
    max_memory: str | None,
    resume: bool,
    threads: int | None,
    report_path: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fit a model that predicts a column of TABLE.

    The model is an ensemble of networks that reads all other columns: text, booleans, dates and
    missing values are taken as they are, dates and money in text too, and keys that never repeat
    are left out; lamina show TABLE tells what each column is taken for, --types what it shall be.
    TABLE is one or several csv, tsv, parquet, jsonl or feather files, a folder of such files, or -
    for csv from standard input.

    The final score is on rows that training never saw. Ctrl-C stops and writes nothing; to stop
    early and keep the best epoch so far, use --max-seconds.

    With --max-memory the table may be larger than memory. Rows are then kept encoded beside the
    model file until it is written, with a checkpoint a minute for --resume; the final score is on
    rows that no network learnt from, but that chose its best parameters.
    """
    began = time.perf_counter()
    path = out if out is not None else _default_out(table[0])
    check_output(path, "fit", table)
    if report_path is not None:
        _check_report(report_path, (path, *table))
    if max_memory is not None or resume:
        from lamina.cli.large import fit_large

        fit_large(click.get_current_context(), path, began)
        return
    from lamina.cli.progress import TrainingProgress

    data = _read(table, target, drop, types, task, test_size, seed)
    if not as_json:
        for text in data.early_notes:
            note(text)
    neighbours = False if no_neighbours else None
    est = new_estimator(data.task, preset, max_seconds, seed, threads, neighbours)
    est._uses = data.uses
    score_name = "accuracy" if data.task == "classification" else "R2"
    with TrainingProgress(score_name, max_seconds, quiet or as_json) as progress:
        est._on_epoch = progress
        est.fit(data.training, data.y)
    del est._uses, est._on_epoch
    est.target_ = data.target
    scores = data.test_scores(est)
    est.save(path)
    if report_path is not None:
        _write_report(report_path, est, data)
    report = {
        "out": path,
        "report": report_path,
        "target": target,
        "task": data.task,
        "preset": preset,
        "seed": seed,
        "n_neighbour_rows": 0 if est.neighbours_ is None else len(est.neighbours_.rows),
        "n_test_rows": data.n_test_rows,
        "test_scores": scores,
        "out_of_fold_scores": dict(est.report_.scores),
        "columns": data.uses.rows(),
        "left_out": list(data.uses.left_out),
        "notes": [*data.early_notes, *data.notes],
        "seconds": time.perf_counter() - began,
        "training": est.report_.to_json(),
    }
    if as_json:
        print_json(report)
    elif not quiet:
        _summarise(est, report, data)


@dataclass(frozen=True)
class FitData:
    """What the table gave: rows to learn from with their targets, rows to test on, and notes.

    Parameters
    ----------
    target : Target
    task : {"classification", "regression"}
    uses : ColumnUses
        Of all columns but the target, found in all rows.
    training : Table
    y : (n,)
        The targets of the training rows.
    test : (Table, Column, rows) or None
        Rows to test on, their targets, and which rows of the table they are.
    early_notes, notes : tuple of str
        Sentences on rows, and on columns.
    """

    target: Target
    task: Task
    uses: ColumnUses
    training: Table
    y: NDArray[Any]
    test: tuple[Table, Column, NDArray[Any]] | None
    early_notes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def n_test_rows(self) -> int:
        """How many rows are kept from training."""
        return 0 if self.test is None else self.test[0].n_rows

    def test_scores(self, est: Any) -> dict[str, float]:
        """Return the scores of a fitted estimator on the rows to test on."""
        from lamina.tabular.evaluate import score_rows

        return {} if self.test is None else score_rows(est, *self.test, where="fit")


def _read(
    files: tuple[str, ...],
    name: str,
    drop: tuple[str, ...],
    types: tuple[str, ...],
    task: Task | None,
    test_size: float,
    seed: int,
) -> FitData:
    """Read the table, find what its columns are for, and divide its rows."""
    import numpy as np

    from lamina.core.errors import DataError
    from lamina.tabular.kinds import find_uses, parse_types
    from lamina.tabular.read import read_table
    from lamina.tabular.tabular_base import LEAST_ROWS
    from lamina.tabular.target import (
        Target,
        check_target,
        find_task,
        lonely_classes,
        split_rows,
        target_values,
    )

    given = parse_types(types)
    as_text = [column for column, use in given.items() if use in ("category", "text")]
    table = _without(read_table(source_of(files), text_columns=as_text), drop, name)
    target, notes = Target.find(table, name, given)
    kept, column, rows = target.split(table, "fit")
    early = []
    if kept.n_rows < table.n_rows:
        early.append(rows_left_out(table.n_rows - kept.n_rows))
    if kept.n_rows < LEAST_ROWS:
        raise DataError(
            f"fit: expected at least {LEAST_ROWS} rows with a target, got {kept.n_rows}. Add rows: "
            "from so few nothing can be learnt that a score could show."
        )
    _check_inputs(table, name)
    # Task and uses are found from all rows, so that they do not depend on how they are split.
    found = task or find_task(column)
    check_target(column, found, "fit")
    if found == "classification":
        early += lonely_classes(column, rows)
    others = {key: use for key, use in given.items() if key != name}
    uses = find_uses(table.without(name), others)
    notes = (*table.notes, *notes, *uses.notes)
    held = split_rows(column, found, test_size, np.random.default_rng([seed, 1]))
    if held.any() and np.count_nonzero(~held) < LEAST_ROWS:
        held[:] = False
        early.append(f"all {kept.n_rows} rows are learnt from: they are too few to test on some.")
    test = (kept.take(held), column.take(held), rows[held]) if held.any() else None
    y = target_values(column, found)[~held]
    training = kept.take(~held)
    return FitData(target, found, uses, training, y, test, tuple(early), notes)


def _check_inputs(table: Table, target: str) -> None:
    from lamina.core.errors import DataError

    if len(table.names) == 1:
        raise DataError(
            f"fit: expected at least one column to learn from, got the target alone ({target!r}). "
            "Add columns."
        )


def _check_report(path: str, others: tuple[str, ...]) -> None:
    """Refuse a report that could not be written before the work is done."""
    from lamina.core.errors import require_extra

    check_output(path, "fit --report", others, "--report")
    require_extra("jinja2", "plots")
    require_extra("matplotlib", "plots")


def _write_report(path: str, est: Any, data: FitData) -> None:
    from lamina.tabular.report import write_report
    from lamina.tabular.target import target_values

    command = shlex.join(["lamina", *sys.argv[1:]])
    if data.test is None:
        write_report(
            path,
            est,
            data.training,
            data.y,
            target=data.target.name,
            predictions=est.out_of_fold_proba_
            if data.task == "classification"
            else est.out_of_fold_.reshape(len(data.y), -1),
            scored_on="training rows, each by members that did not see it",
            command=command,
        )
        return
    table, column, _ = data.test
    y = target_values(column, data.task)
    write_report(path, est, table, y, target=data.target.name, command=command)


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


def _summarise(est: Any, report: Mapping[str, Any], data: FitData) -> None:
    """Print the closing summary."""
    for text in data.notes:
        note(text)
    n_classes = f" of {len(est.classes_)} classes" if data.task == "classification" else ""
    pairs = [("target", f"{data.target.name} ({data.task}{n_classes})")]
    n_inputs = len(est.inputs_.cells)
    pairs.append(("columns", f"{len(est.inputs_.names)} used, {n_inputs} inputs"))
    pairs.append(("found", data.uses.counts()))
    pairs.append(("rows", f"{data.training.n_rows:,} training, {data.n_test_rows:,} test"))
    if est.neighbours_ is not None:
        pairs.append(("neighbours", neighbours_text(est)))
    pairs.append(("members", members_text(est.report_)))
    if 0 < data.n_test_rows < FEW_ROWS:
        note(f"the test score is of {data.n_test_rows} rows only: much of it is chance.")
    test = bool(report["test_scores"])
    kind = "test" if test else "out-of-fold"
    for name, value in report["test_scores" if test else "out_of_fold_scores"].items():
        pairs.append((f"{kind} {SCORE_NAMES[name]}", score_text(name, value)))
    pairs.append(("time", f"{report['seconds']:.1f} s"))
    pairs.append(("written", report["out"]))
    if report["report"]:
        pairs.append(("report", report["report"]))
    facts(pairs)
