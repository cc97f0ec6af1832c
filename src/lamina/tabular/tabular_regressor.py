"""TabularRegressor: numbers for a raw table's rows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import column_or_1d

from lamina.core.errors import DataError, ShapeError
from lamina.tabular.head import NUMBER_LOSSES, NumberHead
from lamina.tabular.scores import number_scores
from lamina.tabular.table import Table
from lamina.tabular.tabular_base import BaseTabular, check_length
from lamina.tabular.tabular_file import from_parts
from lamina.tabular.target import as_numbers, as_target
from lamina.tabular.uncertain import Uncertain

if TYPE_CHECKING:
    from lamina.tabular.stream import Streamed

Array = NDArray[Any]
N_STRATA = 32  # of the target's order: folds get the same share of small and large targets


class TabularRegressor(RegressorMixin, Uncertain):
    """Regressor of raw tables: no preprocessing to write, nothing to tune.

    Columns are numbers, categories, booleans, dates or text, with missing values; each becomes a
    trainable embedding. An ensemble of multilayer perceptrons learns on folds of the rows, in one
    pass of the engine.

    Parameters
    ----------
    preset : {"fast", "default", "best"}, default "default"
        "fast" takes about a third of the time, "best" several times as long.
    loss : {"squared_error", "absolute_error", "poisson"}, default "squared_error"
        What is predicted: the mean, the median, or the mean of counts and other targets ≥ 0 whose
        spread grows with them.
    neighbours : bool, optional
        Whether the network also reads the mean targets of the training rows nearest by the numeric
        columns. The model then keeps those columns' values, as ranks, and the targets of up to
        50,000 rows; a prediction takes two to four times as long. None lets a pilot on held-out
        rows decide, from 500 rows on (preset "fast": never). True skips the pilot. False is for
        models that must hold no training table: what remains of the rows is `background_` and the
        predictions out of fold.
    max_seconds : float > 0, optional
        Begin no further epoch after so long; members share the time. Results then depend on it.
    types : mapping of column to use, optional
        Overrides what a column is for: "number", "category", "boolean", "date", "text", "drop".
    random_state : int, RandomState or None
        The seed: folds, first weights, order of rows.
    n_threads : int ≥ 1, optional
        None is all that the machine grants; see `lamina.info`.
    verbose : bool, default False
        Print a line an epoch.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X had column names.
    ensemble_ : lamina.Ensemble
    inputs_ : the columns' way into the network
    neighbours_ : Neighbours or None
        The training rows kept, where neighbours are read; `report_.notes` says so.
    background_ : ndarray (at most 128, d_in) of float32
        Rows that it learnt from, encoded: what `explain` compares with.
    out_of_fold_ : ndarray (n,) or (n, n_targets)
        Predictions for the training rows, each by members that did not see it.
    held_out_ : ndarray (n_held,)
        After `fit_files` only: the target of the rows that `out_of_fold_` is then about.
    quantiles_ : Quantiles
        What `predict_interval` and `predict_quantiles` read; `fit_files` learns none.
    report_ : FitReport
        How the fit went; its `scores` are of the training rows, by members that did not see them.
    target_ : Target
        The target's column, where ``lamina fit`` made the model.
    histories_ : list of lamina.History
        The members' learning curves; not in model files.

    Raises
    ------
    DataError
        The table or the target cannot be learnt from; the sentence says why.

    References
    ----------
    Gorishniy et al. 2022, arXiv:2203.05556 (embeddings of numbers); Holzmüller et al. 2024,
    arXiv:2407.04491 (strong defaults).

    Examples
    --------
    >>> import lamina, numpy as np
    >>> X = {"width": np.arange(40.0), "colour": ["red", "blue"] * 20}
    >>> y = np.arange(40.0) + 10 * (np.arange(40) % 2)
    >>> model = lamina.TabularRegressor(random_state=0).fit(X, y)
    >>> model.predict(X).shape
    (40,)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseTabular._parameter_constraints,
        "loss": [StrOptions(set(NUMBER_LOSSES))],
    }

    loss: str
    head_: NumberHead
    out_of_fold_: NDArray[np.float64]
    held_out_: NDArray[np.float64]
    _n_dims: int
    _role = "tabular_regressor"

    def __init__(
        self,
        preset: str = "default",
        *,
        loss: str = "squared_error",
        neighbours: bool | None = None,
        max_seconds: float | None = None,
        types: Mapping[str, str] | None = None,
        random_state: Any = None,
        n_threads: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.preset = preset
        self.loss = loss
        self.neighbours = neighbours
        self.max_seconds = max_seconds
        self.types = types
        self.random_state = random_state
        self.n_threads = n_threads
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TabularRegressor:
        """Learn to predict y from the rows of X.

        Parameters
        ----------
        X : table-like, n rows
            A pandas, polars or pyarrow frame, a mapping of names to columns, a NumPy array.
        y : array-like (n,) or (n, n_targets) of numbers
        sample_weight : array-like (n,), optional

        Returns
        -------
        self
        """
        began = time.perf_counter()
        self._validate_params()
        table = self._table_to_fit(X)
        where = "TabularRegressor.fit"
        if y is None:
            raise DataError(f"{where}: requires y to be passed, but the target y is None.")
        weight = self._weights(sample_weight, table)
        values = as_target(y, where)
        if values.ndim == 2 and values.shape[1] == 1:
            values = column_or_1d(values, warn=True)
        self._n_dims = values.ndim
        values = as_numbers(values, where)
        values = values.reshape(len(values), -1)
        check_length(values, table, where)
        self._check_target(values, weight)
        head = NumberHead.fit(values, weight, self.loss)
        learned, x = self._learn(table, head.encode(values), head, _strata(values), weight)
        self.head_ = head
        self._keep_out_of_fold(learned.out_of_fold.astype(np.float32))
        scores = number_scores(self._shaped(values), self.out_of_fold_)
        left = self._seconds_left(began)
        self.quantiles_ = self._learn_quantiles(x, values, learned, weight, left)
        seconds = time.perf_counter() - began
        self.report_ = replace(self.report_, scores=scores, seconds=seconds)
        return self

    def _keep_out_of_fold(self, output: NDArray[np.float32]) -> None:
        self._out_of_fold = output
        self.out_of_fold_ = self._shaped(self.head_.numbers(output))

    def _take_streamed(self, done: Streamed) -> dict[str, float]:
        assert isinstance(done.target.head, NumberHead)  # noqa: S101 (what a regression has)
        self.__dict__.pop("quantiles_", None)  # of another fit
        self._n_dims, self.head_ = 1, done.target.head
        self.held_out_ = done.held_values
        self._keep_out_of_fold(done.held_output)
        return number_scores(self.held_out_, self.out_of_fold_)

    def _check_target(self, values: Array, weight: Array | None) -> None:
        where = "TabularRegressor.fit"
        seen = values if weight is None else values[weight > 0]
        constant = seen.min(axis=0) == seen.max(axis=0)
        if constant.all():
            raise DataError(
                f"{where}: expected y to vary, got {seen[0, 0]:g} in every row. "
                "Choose another target."
            )
        if self.loss == "poisson" and seen.min() < 0:
            raise DataError(
                f"{where}: expected y not negative with loss='poisson', got {seen.min():g}. "
                "Use another loss."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(seen.std(axis=0)).all():
                raise DataError(
                    f"{where}: expected y within float64's range, got numbers up to "
                    f"{np.abs(seen).max():g}. Rescale it."
                )

    def _shaped(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        return numbers[:, 0] if self._n_dims == 1 else numbers

    def _output_names(self) -> tuple[str, ...]:
        n_targets = len(self.head_.centre)
        if n_targets == 1:
            return ("prediction",)
        return tuple(f"target {k}" for k in range(n_targets))

    def _encoded_target(self, y: Any, table: Table, where: str) -> Array:
        values = as_target(y, where)
        values = as_numbers(values, where)
        check_length(values, table, where)
        values = np.asarray(values).reshape(len(values), -1)
        n_targets = len(self.head_.centre)
        if values.shape[1] != n_targets:
            raise ShapeError(
                f"{where}: expected y of {n_targets} targets as in fit, got {values.shape[1]}. "
                "Pass the same targets, in the same order."
            )
        return values

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return predictions in y's unit, (n,) or (n, n_targets)."""
        output = self._output(X, "TabularRegressor.predict")
        return self._shaped(self.head_.numbers(output))


def regressor_from_parts(spec: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
    """Make a regressor of what `modelfile.read` returned; for `lamina.load`."""
    return from_parts(TabularRegressor, spec, arrays)


def _strata(values: Array) -> NDArray[np.int64]:
    """Return strata of rows whose first targets are alike, in order."""
    n = len(values)
    order = np.empty(n, np.int64)
    order[np.argsort(values[:, 0], kind="stable")] = np.arange(n)
    return order * min(N_STRATA, max(n // 16, 1)) // n
