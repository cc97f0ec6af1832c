"""What the verbs share: printing for people and for machines, and opening a table model."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lamina.tabular.model import TableModel

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def one_line(text: str) -> str:
    """Return the text with control characters and line breaks escaped.

    Names come from files; they must not steer a terminal.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def note(text: str) -> None:
    """Print a remark on standard error, so that standard output keeps to the result."""
    click.echo(f"note: {one_line(text)}", err=True)


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


def open_table_model(path: str, verb: str) -> TableModel:
    """Load a model file that must hold a table model; another role is a `DataError`."""
    from lamina.core.errors import DataError
    from lamina.core.modelfile import read
    from lamina.tabular.model import ROLE, TableModel

    role, spec, arrays = read(path)
    if role != ROLE:
        raise DataError(
            f"{verb}: expected a model made by lamina fit, got {path!r}, which holds the role "
            f"{role!r}. Make one with: lamina fit TABLE --target COLUMN"
        )
    return TableModel.from_file_parts(spec, arrays)


def check_output(path: str, verb: str, inputs: Iterable[str]) -> None:
    """Raise `DataError` unless a file can be made at ``path``: better now than after the work.

    None of the ``inputs`` may be overwritten.
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
            f"{verb}: expected to write {path!r}, got {problem}. Choose another place with --out."
        )
