"""Scores of a fitted estimator on the rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError
from lamina.tabular.scores import class_scores, number_scores
from lamina.tabular.table import Column, Table
from lamina.tabular.tabular_classifier import TabularClassifier
from lamina.tabular.target import class_places


def score_rows(
    est: Any, table: Table, column: Column, rows: NDArray[np.intp], *, where: str
) -> dict[str, float]:
    """Return the scores by name: accuracy, log_loss and auc, or r2, rmse and mae.

    Parameters
    ----------
    est : TabularClassifier or TabularRegressor
        Of one target.
    table : Table
        Rows to predict.
    column : Column
        Their targets, none missing.
    rows : (n,) int
        Which rows of the user's table they are, for sentences.

    Raises
    ------
    DataError
        A class that fit never saw, text where numbers were, or an estimator of several targets.
    """
    if isinstance(est, TabularClassifier):
        if est.head_.multilabel:
            _refuse_several(where)
        return class_scores(
            class_places(column, est.classes_, rows, where), est.predict_proba(table)
        )
    if est.ensemble_.spec.d_out > 1:
        _refuse_several(where)
    if column.kind != "number":
        raise DataError(
            f"{where}: expected target {column.name!r} to hold numbers as in fit, got "
            f"{column.kind} values. Correct the column."
        )
    return number_scores(np.asarray(column.values, np.float64), est.predict(table))


def _refuse_several(where: str) -> None:
    raise DataError(
        f"{where}: expected a model of one target, got one of several. "
        "Score it in Python: lamina.load(path).score(X, y)."
    )
