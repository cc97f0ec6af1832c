"""What `TabularClassifier` and `TabularRegressor` share: from a raw table to trained members."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from lamina.core import modelfile
from lamina.core.checks import check_number
from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.engine import default_n_threads, isa
from lamina.core.errors import DataError, ShapeError
from lamina.core.history import EpochReport, History
from lamina.tabular.explain import draw_background
from lamina.tabular.explainable import Explainable
from lamina.tabular.fit_report import FitReport
from lamina.tabular.frames import as_table
from lamina.tabular.from_files import FromFiles
from lamina.tabular.head import ClassHead, NumberHead
from lamina.tabular.inputs import Inputs
from lamina.tabular.kinds import find_uses
from lamina.tabular.learner import Learned, learn
from lamina.tabular.pilot import Rows, find_neighbours
from lamina.tabular.recipe import PRESETS, find_recipe
from lamina.tabular.table import Table
from lamina.tabular.tabular_file import to_parts
from lamina.tabular.target import Target
from lamina.tabular.uses import ColumnUses

Array = NDArray[Any]

LEAST_ROWS = 10  # fewer can be neither learnt from nor scored
BATCH_ROWS = 1 << 14  # rows predicted at a time: bounds the memory


class BaseTabular(Explainable, FromFiles, BaseEstimator):
    """Parameters, the way from a raw table to x, and the training of the members."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "preset": [StrOptions(set(PRESETS))],
        "neighbours": [None, "boolean"],
        "max_seconds": [None, Interval(Real, 0, None, closed="neither")],
        "types": [None, Mapping],
        "random_state": ["random_state"],
        "n_threads": [None, Interval(Integral, 1, None, closed="left")],
        "verbose": ["verbose"],
    }

    preset: str
    neighbours: bool | None
    max_seconds: float | None
    types: Mapping[str, str] | None
    random_state: Any
    n_threads: int | None
    verbose: bool | int
    n_features_in_: int
    report_: FitReport
    target_: Target
    _out_of_fold: NDArray[np.float32]  # the members' mean output (n, d_out)
    histories_: list[History]
    _stages: dict[str, float]  # seconds of the parts of fit
    _on_epoch: Callable[[EpochReport], Any] | None = None
    _uses: ColumnUses | None = None  # found already, in more rows than fit gets
    _role: ClassVar[str]
    _share_of_time: ClassVar[float] = 1.0  # of max_seconds, for the members

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.non_deterministic = self.max_seconds is not None
        return tags

    # --- from X to x --------------------------------------------------------------------------

    def _table_to_fit(self, X: Any) -> Table:
        """Return X as a table, and remember its columns as scikit-learn does."""
        where = f"{type(self).__name__}.fit"
        self.__dict__.pop("target_", None)  # of another fit
        refuse_sparse(X, where)
        if isinstance(X, Table):
            table = X
            self.feature_names_in_ = np.array(table.names, dtype=object)
            self.n_features_in_ = len(table.names)
        elif hasattr(X, "columns") or hasattr(X, "column_names") or isinstance(X, Mapping):
            table = as_table(X, where=where)
            self.feature_names_in_ = np.array(table.names, dtype=object)
            self.n_features_in_ = len(table.names)
        else:
            X = validate_data(self, X, dtype=None, ensure_all_finite=False)
            table = as_table(X, where=where)
        if table.n_rows < LEAST_ROWS:
            raise DataError(
                f"{where}: expected at least {LEAST_ROWS} rows, got n_samples = {table.n_rows}. "
                "Add rows: from so few nothing can be learnt that a score could show."
            )
        return table

    def _table_to_predict(self, X: Any, where: str) -> Table:
        refuse_sparse(X, where)
        if isinstance(X, Table):
            return X
        names = getattr(self, "feature_names_in_", None)
        text = self.inputs_.uses.text_columns
        if hasattr(X, "columns") or hasattr(X, "column_names") or isinstance(X, Mapping):
            table = as_table(X, where=where, text_columns=text)
            if names is None and len(table.names) == self.n_features_in_:
                columns = table.columns.values()  # fitted on an array: by position
                return as_table(
                    Table({f"x{i}": c for i, c in enumerate(columns)}, table.n_rows), where=where
                )
            return table
        array = validate_data(self, X, dtype=None, ensure_all_finite=False, reset=False)
        return as_table(
            array, None if names is None else list(names), where=where, text_columns=text
        )

    def _output(self, X: Any, where: str) -> NDArray[np.float64]:
        """Return the members' mean output (n, d_out) for the rows of X."""
        outputs = [output for _, output in self._outputs(X, where)]
        empty = np.empty((0, self.ensemble_.spec.d_out))
        return np.concatenate([empty, *outputs])

    def _outputs(self, X: Any, where: str) -> Iterator[tuple[Array, Array]]:
        """Yield x, widened, and the members' mean output for the rows of X, some at a time."""
        check_is_fitted(self)
        table = self.inputs_.prepare(self._table_to_predict(X, where), where, warn=True)
        for start in range(0, table.n_rows, BATCH_ROWS):
            x = self._widened(self.inputs_.write(table.take(slice(start, start + BATCH_ROWS))))
            yield x, self.ensemble_(x)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one model file, all or nothing; `lamina.load` reads it.

        Parameters
        ----------
        path : str or path-like
            A file that is there is replaced once the new one is whole.

        Raises
        ------
        ModelFileError
            `path` cannot be written.
        SpecError
            Classes or parameters are neither numbers nor text.
        """
        check_is_fitted(self)
        modelfile.write(path, self._role, *to_parts(self))

    # --- fit ----------------------------------------------------------------------------------

    def _weights(self, sample_weight: Any, table: Table) -> Array | None:
        """Return the rows' weights, checked; None where all are alike."""
        if sample_weight is None:
            return None
        where = f"{type(self).__name__}.fit"
        sized = np.empty((table.n_rows, 1))
        weight: Array = _check_sample_weight(sample_weight, sized, dtype=np.float64)
        if weight.min() < 0:
            raise DataError(
                f"{where}: expected sample_weight not negative, got {weight.min():g}. "
                "Give rows to be ignored the weight 0."
            )
        if np.count_nonzero(weight) < 2:
            raise DataError(
                f"{where}: expected at least two rows of positive sample_weight, got "
                f"{np.count_nonzero(weight)}. Pass other weights."
            )
        return np.asarray(weight / weight[weight > 0].mean())

    def _learn(
        self,
        table: Table,
        y: Array,
        head: ClassHead | NumberHead,
        strata: NDArray[np.int64] | None,
        weight: Array | None,
    ) -> tuple[Learned, Array]:
        """Train the members; sets inputs_, ensemble_, report_ and returns them with x, widened."""
        began = time.perf_counter()
        where = f"{type(self).__name__}.fit"
        recipe = find_recipe(self.preset, where).for_rows(table.n_rows)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        uses = self._uses or find_uses(table, self.types, where=where)
        uses_found = time.perf_counter()
        prepared = uses.apply(table, where)
        inputs = Inputs.fit(prepared, uses)
        x = inputs.write(prepared)
        background = draw_background(x, weight, seed)
        x_written = time.perf_counter()
        weight32 = None if weight is None else weight.astype(np.float32)
        neighbours, x, tried = find_neighbours(
            Rows(x, y, inputs.cells, weight32),
            head.objective,
            recipe,
            wanted=self.neighbours,
            seed=seed,
            n_threads=self.n_threads,
            max_seconds=self._seconds_left(began, self._share_of_time),
        )
        neighbours_found = time.perf_counter()
        added = () if neighbours is None else neighbours.cells
        learned = learn(
            x,
            y,
            ColumnEmbeddings((*inputs.cells, *added), recipe.n_features),
            head.objective,
            recipe,
            strata=strata,
            sample_weight=weight32,
            rng=np.random.default_rng(seed),
            n_threads=self.n_threads,
            max_seconds=self._seconds_left(began, self._share_of_time),
            on_epoch=self._told_each_epoch(),
        )
        histories = learned.histories
        self.inputs_, self.neighbours_, self.ensemble_ = inputs, neighbours, learned.ensemble
        self.background_ = background
        self.__dict__.pop("held_out_", None)  # of an earlier `fit_files`
        self.histories_ = [replace(h, state=None) for h in histories]
        self._stages = {
            "find what columns are for": uses_found - began,
            "make columns numbers": x_written - uses_found,
            "find neighbours": neighbours_found - x_written,
            "train": time.perf_counter() - neighbours_found,
        }
        self.report_ = FitReport(
            n_rows=table.n_rows,
            n_members=len(histories),
            epochs=tuple(h.epochs for h in histories),
            best_epochs=tuple((h.best_epoch or 0) + 1 for h in histories),
            stopped=tuple(h.stopped for h in histories),
            seed=seed,
            n_threads=default_n_threads(self.n_threads),
            isa=isa(),
            notes=(*table.notes, *uses.notes, *tried),
            seconds=time.perf_counter() - began,
        )
        return learned, x

    def _told_each_epoch(self) -> Callable[[EpochReport], Any] | None:
        return self._on_epoch or (_print_epoch if self.verbose else None)

    def _seconds_left(self, began: float, share: float = 1.0) -> float | None:
        if self.max_seconds is None:
            return None
        seconds = check_number(self.max_seconds, "max_seconds", "fit", 0.0, closed="neither")
        return max(share * seconds - (time.perf_counter() - began), 1e-3)


def _print_epoch(report: EpochReport) -> None:
    score = "" if report.validation_score is None else f", score {report.validation_score:.4f}"
    print(  # noqa: T201 (verbose, as scikit-learn's contract says)
        f"member {report.member + 1}, epoch {report.epoch + 1}/{report.max_epochs}: "
        f"loss {report.train_loss:.4f}{score}"
    )


def check_length(y: Array, table: Table, where: str) -> None:
    """Refuse a target of another length than the table."""
    if len(y) != table.n_rows:
        raise ShapeError(
            f"{where}: expected y of {table.n_rows} rows, as many as X has, got {len(y)}: "
            "inconsistent numbers of samples. Pass one target a row."
        )


def refuse_sparse(X: Any, where: str) -> None:
    """Refuse a sparse matrix: a table has values."""
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError(
            f"{where}: expected a table, got a sparse matrix; sparse input is not supported. "
            "Pass X.toarray(), or use lamina.MLPClassifier or MLPRegressor."
        )
