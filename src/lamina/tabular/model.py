"""A table model: preprocessing, a network and the target, as one thing to fit, use and save.

table → `Preprocessor` → x (n, d_in) → `Network` → output (n, d_out) → `Target` → predictions
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core import modelfile
from lamina.core.checks import resolve_rng
from lamina.core.errors import DataError, ModelFileError
from lamina.core.history import EpochReport, History
from lamina.core.network import Network
from lamina.core.optim import AdamW
from lamina.core.schedules import cosine
from lamina.core.trainer import train
from lamina.tabular.kinds import find_uses
from lamina.tabular.preprocess import Preprocessor
from lamina.tabular.table import Column, Table
from lamina.tabular.target import Target, Task
from lamina.tabular.uses import ColumnUses

ROLE = "table_model"
LEAST_ROWS = 10  # fewer can be neither learnt from nor scored
VALIDATION = 0.1  # the share of the rows that chooses the epoch
# Compared on one split each of five public tables (census, housing, diamonds, letters, Ames): silu
# beats relu on all, at 2e-3 and dropout 0.1; 4e-3 beats 2e-3 on four (not census); dropout
# 0.1 beats 0.2 on four, while 0 is a little better for housing and diamonds, worse elsewhere.
ACTIVATION = "silu"
DROPOUT = 0.1
LR = 4e-3
WEIGHT_DECAY = 1e-2
PATIENCE = 8  # epochs without a lower validation loss before training stops
BATCH_ROWS = 1 << 14  # rows preprocessed at a time by `TableModel.output`: bounds its memory


@dataclass(frozen=True, eq=False)
class TableModel:
    """Predicts one column of a table from the others.

    Parameters
    ----------
    preprocessor : Preprocessor
        From the table's columns to x.
    network : Network
        From x to class probabilities, or to one standardised number.
    target : Target
        What the outputs mean.
    summary : dict
        How it was trained, JSON: n_rows, n_rows_left_out, n_validation, epochs, best_epoch,
        stopped, seed, n_threads, isa, validation (the best epoch's scores).
    uses : ColumnUses
        What each column of the table is used for; applied before the preprocessor.
    """

    preprocessor: Preprocessor
    network: Network
    target: Target
    summary: Mapping[str, Any] = field(default_factory=dict)
    uses: ColumnUses = field(default_factory=lambda: ColumnUses(()))

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that `read_table` must read as text for this model."""
        own = (self.target.name,) if self.target.kind == "text" else ()
        return tuple(
            dict.fromkeys([*self.preprocessor.text_columns, *self.uses.text_columns, *own])
        )

    def output(self, table: Table, where: str = "predict") -> NDArray[np.float32]:
        """Return the network's output (n, d_out): probabilities, or a standardised number."""
        table = self.uses.apply(table.without(self.target.name), where)
        return np.concatenate(
            [
                self.network(self.preprocessor.transform(part, where))
                for part in (
                    table.take(slice(start, start + BATCH_ROWS))
                    for start in range(0, max(table.n_rows, 1), BATCH_ROWS)
                )
            ]
        )

    def predict(self, table: Table) -> NDArray[Any]:
        """Return the predicted classes or numbers, shape (n,)."""
        return self.target.decode(self.output(table))

    def predict_proba(self, table: Table) -> NDArray[np.float32]:
        """Return the probability of every class, shape (n, n_classes), in `target.classes`' order.

        Raises `DataError` for regression.
        """
        if self.target.task == "regression":
            raise DataError(
                "predict_proba: expected a model of classes, got regression. Use predict."
            )
        return self.output(table)

    def evaluate(self, table: Table, where: str = "evaluate") -> tuple[dict[str, float], int]:
        """Return the scores on the rows that have a target, and how many rows have none."""
        kept, column = with_target(self.uses.apply(table, where), self.target.name, where)
        y = self.target.encode(column, where)
        scores = self.target.scores(y, self.output(kept, where))
        return scores, table.n_rows - kept.n_rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model file, all or nothing; `lamina.load` reads it."""
        spec = {
            "network": self.network.spec.to_json(),
            "columns": self.preprocessor.to_json(),
            "target": self.target.to_json(),
            "summary": dict(self.summary),
            "uses": self.uses.to_json(),
        }
        arrays = {"theta": self.network.theta, **self.preprocessor.arrays()}
        modelfile.write(path, ROLE, spec, arrays)

    @classmethod
    def from_file_parts(
        cls, spec: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> TableModel:
        """Make a model of what `modelfile.read` returned for the role "table_model".

        Raises
        ------
        ModelFileError
            The parts do not belong together.
        """
        advice = "The file is damaged; fit the model again."
        try:
            own = Preprocessor.from_json(spec["columns"], arrays)
            target = Target.from_json(spec["target"])
            theta = {"theta": arrays["theta"]}
            network = Network.from_file_parts(spec["network"], theta)
            summary = dict(spec["summary"])
            uses = ColumnUses.from_json(spec["uses"]) if "uses" in spec else ColumnUses(())
        except ModelFileError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"load: expected the parts of a table model, got others ({error}). {advice}"
            ) from error
        if (network.spec.d_in, network.spec.d_out) != (own.d_in, target.d_out):
            raise ModelFileError(
                f"load: expected a network with {own.d_in} inputs and {target.d_out} outputs for "
                f"these columns, got {network.spec.d_in} and {network.spec.d_out}. {advice}"
            )
        output = "softmax" if target.task == "classification" else "identity"
        if network.spec.output != output:
            raise ModelFileError(
                f"load: expected output {output} for {target.task}, got {network.spec.output}. "
                f"{advice}"
            )
        return cls(own, network, target, summary, uses)


def fit(
    table: Table,
    target: str,
    *,
    task: Task | None = None,
    types: Mapping[str, str] | None = None,
    uses: ColumnUses | None = None,
    widths: Sequence[int] = (256, 256),
    max_epochs: int | None = None,
    max_seconds: float | None = None,
    rng: int = 0,
    n_threads: int | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TableModel:
    """Fit a model that predicts the column ``target`` from all other columns.

    A tenth of the rows is held out to choose the best epoch.

    Parameters
    ----------
    table : Table
        Rows without a target are left out.
    target : str
        The column to predict.
    task : {"classification", "regression"}, optional
        None finds it from the target's values.
    types : dict of str to str, optional
        What columns are used for where it should not be found, see `find_uses`.
    uses : ColumnUses, optional
        What `find_uses` found already, for instance in more rows than these.
    widths : sequence of int, default (256, 256)
        Units in each hidden layer; fewer for a smaller model, more for many rows.
    max_epochs : int, optional
        None chooses from the number of rows.
    max_seconds : float, optional
        No epoch begins after so long.
    rng : int, default 0
        The seed: the same one, with the same table and threads, gives the same model.
    n_threads : int, optional
        See `lamina.train`.
    on_epoch : callable, optional
        Called with an `EpochReport` after each epoch.

    Raises
    ------
    DataError
        The table cannot be learnt from: no such column, one class, no columns of use, …
    """
    uses = find_uses(table, types, target=target) if uses is None else uses
    kept, column = with_target(uses.apply(table, "fit"), target, "fit")
    described = Target.fit(column, task)
    preprocessor = Preprocessor.fit(kept.without(target), uses.left_out)
    x, y = preprocessor.transform(kept), described.encode(column, "fit")
    generator = resolve_rng(rng)
    held = split_rows(column, described.task, VALIDATION, generator)
    network = Network(
        preprocessor.d_in,
        widths,
        described.d_out,
        activation=ACTIVATION,
        output="softmax" if described.task == "classification" else "identity",
        dropout=DROPOUT,
        rng=generator,
    )
    validation = (x[held], y[held]) if held.any() else None
    history = train(
        network,
        x[~held],
        y[~held],
        optimizer=AdamW(lr=cosine(LR, warmup=0.05), weight_decay=WEIGHT_DECAY),
        batch_size=batch_size(len(y)),
        max_epochs=max_epochs or most_epochs(len(y)),
        max_seconds=max_seconds,
        validation=validation,
        patience=PATIENCE if validation else None,
        callbacks=(lambda report: on_epoch(report),) if on_epoch else (),
        rng=generator,
        n_threads=n_threads,
    )
    scores = described.scores(y[held], network(x[held])) if validation else {}
    summary = _summary(history, table.n_rows, kept.n_rows, int(held.sum()), scores, rng)
    return TableModel(preprocessor, network, described, summary, uses)


def batch_size(n_rows: int) -> int:
    """Return about a 64th of the rows, a power of two from 16 to 256: small tables need steps."""
    return int(np.clip(1 << (n_rows // 64).bit_length(), 16, 256))


def most_epochs(n_rows: int) -> int:
    """Return how many epochs make about a million rows seen, from 10 to 40."""
    return int(np.clip(1_000_000 // n_rows, 10, 40))


def split_rows(
    column: Column, task: Task, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return a mask (n,) that is True for the rows to hold out, about ``fraction`` of them.

    Every class keeps its share, and at least one row on the other side; so do all rows together.
    """
    n = column.values.size
    if task == "classification":
        text = column.as_text()
        groups = text.values
        n_groups = len(text.levels)
    else:
        groups, n_groups = np.zeros(n, dtype=np.int32), 1
    shuffled = rng.permutation(n)
    order = shuffled[np.argsort(groups[shuffled], kind="stable")]  # rows of one class together
    counts = np.bincount(groups, minlength=n_groups)
    starts = np.cumsum(counts) - counts
    n_held = np.minimum(np.round(counts * fraction), np.maximum(counts - 1, 0))
    place = np.arange(n) - starts[groups[order]]  # of each row within its class
    held = np.zeros(n, dtype=bool)
    held[order] = place < n_held[groups[order]]
    return held


def with_target(table: Table, target: str, where: str) -> tuple[Table, Column]:
    """Return the rows that have a target, and the target column at them."""
    column = table.column(target, where).finite
    if column.kind == "other":
        raise DataError(
            f"{where}: expected target {target!r} to hold numbers, text or booleans, got values "
            "of another kind. Choose another column."
        )
    if table.n_rows == 0:
        raise DataError(f"{where}: expected at least one row, the table has none. Add rows.")
    if column.missing.all():
        raise DataError(
            f"{where}: expected values in target {target!r}, every row is missing its own. "
            "Choose another column."
        )
    if not column.missing.any():
        return table, column
    rows = np.flatnonzero(~column.missing)
    return table.take(rows), column.take(rows)


def _summary(
    history: History,
    n_rows: int,
    n_kept: int,
    n_held: int,
    scores: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    """Return what `TableModel.summary` describes; no times: equal fits make equal files."""
    return {
        "n_rows": n_kept,
        "n_rows_left_out": n_rows - n_kept,
        "n_validation": n_held,
        "epochs": history.epochs,
        "best_epoch": history.best_epoch,
        "stopped": history.stopped,
        "seed": seed,
        "n_threads": history.n_threads,
        "isa": history.isa,
        "validation": dict(scores),
    }
