"""What the verbs share: printing for people and for machines, and opening a model of tables."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lamina.tabular.table import Table
    from lamina.tabular.target import Target, Task

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def one_line(text: str) -> str:
    """Return the text with control characters and line breaks escaped.

    Names come from files; they must not steer a terminal.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def note(text: str) -> None:
    """Print a remark on standard error, so that standard output keeps to the result."""
    click.echo(f"note: {one_line(text)}", err=True)


def rows_left_out(n: int) -> str:
    """Return the remark on rows without a target."""
    return (
        f"{n:,} row without a target is left out."
        if n == 1
        else (f"{n:,} rows without a target are left out.")
    )


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values in two aligned columns."""
    rows = [(one_line(name), one_line(str(value))) for name, value in pairs]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def print_json(value: Any) -> None:
    """Print one JSON document on standard output; numbers that are not finite become null."""
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


SCORE_NAMES = {
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "auc": "AUC",
    "r2": "R2",
    "rmse": "RMSE",
    "mae": "MAE",
}


def score_text(name: str, value: float) -> str:
    """Return a score as people read it: four digits, R2 and the like with fixed decimals."""
    return f"{value:.4f}" if name in ("accuracy", "log_loss", "auc", "r2") else f"{value:.4g}"


def source_of(files: tuple[str, ...]) -> str | list[str]:
    """Return what `read_table` takes: one file, folder or "-", or a list of files."""
    return files[0] if len(files) == 1 else list(files)


def open_estimator(path: str, verb: str) -> Any:
    """Load a model file that must hold an estimator of tables; another role is a `DataError`."""
    from lamina.core.errors import DataError
    from lamina.loading import load
    from lamina.tabular.tabular_base import BaseTabular

    found = load(path)
    if not isinstance(found, BaseTabular):
        raise DataError(
            f"{verb}: expected a model made by lamina fit, got {path!r}, which holds a "
            f"{type(found).__name__}. Make one with: lamina fit TABLE --target COLUMN"
        )
    return found


def text_columns_of(est: Any) -> list[str]:
    """Return the columns that `read_table` must leave as text for an estimator."""
    target = getattr(est, "target_", None)
    return [*est.inputs_.uses.text_columns, *(target.text_columns if target else ())]


def truth_of(est: Any, name: str | None, rows: Table, verb: str) -> Target:
    """Return the column of the truth: the model's, or the one that is named."""
    from dataclasses import replace

    from lamina.core.errors import DataError
    from lamina.tabular.target import Target

    known: Target | None = getattr(est, "target_", None)
    if known is not None:
        return known if name is None else replace(known, name=name)
    if name is None:
        raise DataError(
            f"{verb}: expected --target COLUMN, as the model was not made by lamina fit and does "
            "not know its target's name. Name the column that holds the truth."
        )
    return Target.find(rows, name, where=verb)[0]


def check_output(path: str, verb: str, inputs: Iterable[str], option: str = "--out") -> None:
    """Raise `DataError` unless a file can be made at ``path``: better now than after the work.

    None of the ``inputs`` may be overwritten. ``option`` is the one that named the place.
    """
    from lamina.core.errors import DataError

    target = Path(path)
    problem = None
    if target.exists() and any(target.samefile(i) for i in inputs if Path(i).exists()):
        problem = "the name of a file to read"
    elif target.is_dir():
        problem = "a folder of that name"
    elif not target.parent.is_dir():
        problem = f"no folder {str(target.parent)!r}"
    elif not os.access(target.parent, os.W_OK):
        problem = f"a folder {str(target.parent)!r} that may not be written to"
    if problem:
        raise DataError(
            f"{verb}: expected to write {path!r}, got {problem}. "
            f"Choose another place with {option}."
        )


def new_estimator(
    task: Task,
    preset: str,
    max_seconds: float | None,
    seed: int,
    threads: int | None,
    neighbours: bool | None = None,
) -> Any:
    """Return an estimator of tables that is not fitted yet."""
    from lamina.tabular.tabular_classifier import TabularClassifier
    from lamina.tabular.tabular_regressor import TabularRegressor

    kind = TabularClassifier if task == "classification" else TabularRegressor
    return kind(
        preset,
        neighbours=neighbours,
        max_seconds=max_seconds,
        random_state=seed,
        n_threads=threads,
    )


def neighbours_text(est: Any) -> str:
    """Return which training rows a model of a table keeps."""
    if est.neighbours_ is None:
        return "not read; the model keeps no table of training rows"
    n_rows = len(est.neighbours_.rows)
    return f"read: the targets of the nearest of {n_rows:,} training rows, kept in the model"


def members_text(report: Any, unit: str = "epochs") -> str:
    """Return how many networks there are, how long they trained, and what ended it."""
    low, high = min(report.epochs), max(report.epochs)
    epochs = f"{low}" if low == high else f"{low} to {high}"
    text = f"{report.n_members}, of {epochs} {unit} each"
    return text + (", stopped by --max-seconds" if "max_seconds" in report.stopped else "")
