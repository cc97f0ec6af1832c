"""The method `explain` of both estimators: arguments checked, then handed to `explain.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from lamina.core.checks import check_count, resolve_rng
from lamina.core.ensemble import Ensemble
from lamina.core.errors import SpecError
from lamina.tabular.explain import Subject, attributions, dependence, importance
from lamina.tabular.explained import Attributions, Dependence, Explanation, Importance
from lamina.tabular.head import ClassHead, NumberHead
from lamina.tabular.inputs import Inputs
from lamina.tabular.mixing import BATCH_ROWS, Floats
from lamina.tabular.neighbours import Neighbours
from lamina.tabular.row_losses import check_scoring, row_losses
from lamina.tabular.table import Table

Kind = Literal["attributions", "importance", "dependence"]
KINDS = ("attributions", "importance", "dependence")
N_SHUFFLES = 5


class Explainable:
    """Explanations of a fitted estimator's predictions."""

    inputs_: Inputs
    ensemble_: Ensemble
    head_: ClassHead | NumberHead
    background_: NDArray[np.float32]
    neighbours_: Neighbours | None
    n_threads: int | None

    @overload
    def explain(
        self, X: Any, y: None = ..., *, n_repeats: int | None = ..., rng: Any = ...
    ) -> Attributions: ...
    @overload
    def explain(
        self,
        X: Any,
        y: None = ...,
        *,
        kind: Literal["attributions"],
        n_repeats: int | None = ...,
        rng: Any = ...,
    ) -> Attributions: ...
    @overload
    def explain(
        self,
        X: Any,
        y: Any,
        *,
        kind: Literal["importance"],
        scoring: str | None = ...,
        n_repeats: int | None = ...,
        rng: Any = ...,
    ) -> Importance: ...
    @overload
    def explain(
        self,
        X: Any,
        y: None = ...,
        *,
        kind: Literal["dependence"],
        columns: str | Sequence[str],
        individual: bool = ...,
        rng: Any = ...,
    ) -> Dependence: ...

    def explain(
        self,
        X: Any,
        y: Any = None,
        *,
        kind: Kind = "attributions",
        columns: str | Sequence[str] | None = None,
        scoring: str | None = None,
        n_repeats: int | None = None,
        individual: bool = False,
        rng: Any = 0,
    ) -> Explanation:
        """Explain predictions by the table's columns.

        Parameters
        ----------
        X : table-like, n rows
            As for `predict`: for "attributions" the rows to explain; for the others, rows like
            those the model is used on, best ones it was not fitted on.
        y : array-like, optional
            The rows' targets, for "importance" only.
        kind : {"attributions", "importance", "dependence"}, default "attributions"
            * "attributions": what each column adds to each row's prediction (Shapley values); they
              sum to the prediction minus the background rows' mean prediction.
            * "importance": how much the loss rises when a column's values are shuffled.
            * "dependence": the mean prediction with a column, or two, set to each of its values.
        columns : str or two of them, optional
            What the prediction shall depend on, for "dependence" only.
        scoring : {"log_loss", "error_rate"} or {"squared_error", "absolute_error"}, optional
            The loss whose rise is an importance; the first of each pair by default.
        n_repeats : int ≥ 1, optional
            For "importance" the number of shuffles, 5 by default. For "attributions" the pairs of
            orders drawn for each background row: None is exact for up to 5 columns and 1 beyond;
            more make the `error` smaller.
        individual : bool, default False
            For "dependence" on one column: keep each row's curve.
        rng : int or numpy.random.Generator, default 0
            The seed of shuffles, orders and samples: the same one, the same result.

        Returns
        -------
        Attributions, Importance or Dependence
            Arrays with names; each has ``to_dict()`` and ``plot()``.

        Raises
        ------
        SpecError, DataError
            An argument does not suit the kind, or the table the model.

        Notes
        -----
        Probabilities of classes are explained as such, numbers in the target's unit. Of free text,
        dates and numbers that miss values, all that was made of a column counts as that column.

        Cost in predicted rows: "attributions" 2 · 128 · n_repeats · (n_columns - 1) a row, or
        128 · (2^n_columns - 2), at most 3,840, where exact; "importance" n · n_columns · n_repeats
        of at most 10,000 rows; "dependence" about 25 · n of at most 500 rows. The background, 128
        encoded rows of the training table, is part of the fitted estimator.

        Examples
        --------
        >>> import lamina, numpy as np
        >>> X = {"width": np.arange(40.0), "colour": ["red", "blue"] * 20}
        >>> y = np.arange(40.0) + 10 * (np.arange(40) % 2)
        >>> model = lamina.TabularRegressor(random_state=0).fit(X, y)
        >>> why = model.explain({"width": [30.0], "colour": ["blue"]})
        >>> why.columns, why.values.shape
        (('width', 'colour'), (1, 2, 1))
        >>> bool(np.allclose(why.values.sum(axis=1), why.prediction - why.baseline))
        True
        >>> model.explain(X, y, kind="importance").order.tolist()
        [0, 1]
        """
        check_is_fitted(self)
        where = f"{type(self).__name__}.explain"
        _check_arguments(kind, y, columns, scoring, n_repeats, individual, where)
        repeats = None if n_repeats is None else check_count(n_repeats, "n_repeats", where)
        generator = resolve_rng(rng)
        table = self._table_to_predict(X, where)
        subject = self._subject()
        if kind == "attributions":
            return attributions(subject, table, n_repeats=repeats, rng=generator, where=where)
        if kind == "dependence":
            names = (columns,) if isinstance(columns, str) else tuple(columns or ())
            return dependence(
                subject, table, names, individual=individual, rng=generator, where=where
            )
        chosen = check_scoring(scoring, self.head_, where)
        losses = row_losses(self.head_, self._encoded_target(y, table, where), chosen)
        return importance(
            subject,
            table,
            losses,
            chosen,
            n_repeats=repeats or N_SHUFFLES,
            rng=generator,
            where=where,
        )

    def _subject(self) -> Subject:
        unit = "probability" if isinstance(self.head_, ClassHead) else "prediction"
        return Subject(
            self._predictions, self.inputs_, self.background_, self._output_names(), unit
        )

    def _predictions(self, x: NDArray[np.float32]) -> Floats:
        """Return probabilities or numbers (n, n_outputs) for rows of x."""
        output = self.ensemble_(self._widened(x))
        head = self.head_
        return head.probabilities(output) if isinstance(head, ClassHead) else head.numbers(output)

    @property
    def _cells(self) -> tuple[int, ...]:
        """Of x as the network reads it: the table's columns, then what neighbours add."""
        added = () if self.neighbours_ is None else self.neighbours_.cells
        return (*self.inputs_.cells, *added)

    def _widened(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return x (n, d_in) of the table's columns as the network reads it."""
        return x if self.neighbours_ is None else self.neighbours_.widen(x, self.n_threads)

    def _predictions_of(self, table: Table, where: str) -> Floats:
        """Return probabilities or numbers (n, n_outputs) for the rows of a table."""
        table = self.inputs_.prepare(table, where)
        parts = [
            self._predictions(self.inputs_.write(table.take(slice(start, start + BATCH_ROWS))))
            for start in range(0, max(table.n_rows, 1), BATCH_ROWS)
        ]
        return np.concatenate(parts)

    def _table_to_predict(self, X: Any, where: str) -> Table:
        raise NotImplementedError

    def _output_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _encoded_target(self, y: Any, table: Table, where: str) -> NDArray[Any]:
        raise NotImplementedError


def _check_arguments(
    kind: object,
    y: object,
    columns: object,
    scoring: object,
    n_repeats: object,
    individual: object,
    where: str,
) -> None:
    """Refuse an argument that belongs to another kind of explanation."""
    if kind not in KINDS:
        raise SpecError(
            f"{where}: expected kind to be one of {', '.join(map(repr, KINDS))}, got {kind!r:.80}. "
            "Choose one of these."
        )
    if kind == "importance" and y is None:
        raise SpecError(
            f"{where}: expected y with kind='importance', got None. Pass the rows' targets."
        )
    if kind == "dependence" and columns is None:
        raise SpecError(
            f"{where}: expected columns with kind='dependence', got None. Name one column, or two."
        )
    given = {
        "y": (y is not None, ("importance",)),
        "columns": (columns is not None, ("dependence",)),
        "scoring": (scoring is not None, ("importance",)),
        "n_repeats": (n_repeats is not None, ("importance", "attributions")),
        "individual": (individual is not False, ("dependence",)),
    }
    for name, (is_given, kinds) in given.items():
        if is_given and kind not in kinds:
            raise SpecError(
                f"{where}: expected {name} only with kind={' or '.join(map(repr, kinds))}, "
                f"got it with {kind!r}. Leave it out."
            )
