"""Losses row by row: what importances, worst groups and bootstrap intervals are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.tabular.head import ClassHead, NumberHead

Floats = NDArray[np.float64]

CLASS_SCORINGS = ("log_loss", "error_rate")
NUMBER_SCORINGS = ("squared_error", "absolute_error")
_TINY = float(np.finfo(np.float32).tiny)  # the least probability that a log is taken of


def check_scoring(scoring: object, head: ClassHead | NumberHead, where: str) -> str:
    """Return the scoring, or the head's first if it is None; `SpecError` for another."""
    known = CLASS_SCORINGS if isinstance(head, ClassHead) else NUMBER_SCORINGS
    if scoring is None:
        return known[0]
    if isinstance(scoring, str) and scoring in known:
        return scoring
    raise SpecError(
        f"{where}: expected scoring to be one of {', '.join(map(repr, known))}, "
        f"got {scoring!r:.80}. Leave it out for {known[0]!r}."
    )


def row_losses(
    head: ClassHead | NumberHead, target: NDArray[Any], scoring: str
) -> Callable[[Floats, NDArray[np.intp]], Floats]:
    """Return a function of predictions (m, n_outputs) and their rows (m,) to losses (m,).

    Parameters
    ----------
    head : ClassHead or NumberHead
        What the predictions are.
    target : (n,) int classes, (n, n_labels) of 0 and 1, or (n, n_targets) float64
    scoring : {"log_loss", "error_rate", "squared_error", "absolute_error"}
        Of several labels or targets the mean; the errors of several targets are in units of each
        one's spread in fit, as their own units may differ.
    """
    if isinstance(head, ClassHead):
        each = _label_losses if head.multilabel else _class_losses
        return lambda p, rows: each(p, target[rows], scoring)
    unit = head.scale if len(head.scale) > 1 else np.ones(1)
    squared = scoring == "squared_error"

    def errors(predictions: Floats, rows: NDArray[np.intp]) -> Floats:
        off = (predictions - target[rows]) / unit
        return np.asarray((off**2 if squared else np.abs(off)).mean(axis=1))

    return errors


def _class_losses(p: Floats, classes: NDArray[Any], scoring: str) -> Floats:
    if scoring == "error_rate":
        return np.asarray(np.argmax(p, axis=1) != classes, np.float64)
    true = np.take_along_axis(p, classes[:, np.newaxis], axis=1)[:, 0]
    return -np.log(np.maximum(true, _TINY))


def _label_losses(p: Floats, labels: NDArray[Any], scoring: str) -> Floats:
    if scoring == "error_rate":
        return np.asarray(((p > 0.5) != (labels > 0)).mean(axis=1))
    true = np.where(labels > 0, p, 1.0 - p)
    return np.asarray(-np.log(np.maximum(true, _TINY)).mean(axis=1))


def class_codes(y: NDArray[Any], classes: NDArray[Any], where: str) -> NDArray[np.intp]:
    """Return the index of each of y's values (n,) among the sorted classes.

    Raises
    ------
    DataError
        A value is none of the classes seen in fit.
    """
    try:
        place = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
        found = np.broadcast_to(classes[place] == y, (len(y),))  # unlike types: one False
    except TypeError:  # text among numbers, or the other way round
        index = {value: k for k, value in enumerate(classes.tolist())}
        place = np.array([index.get(value, -1) for value in y.tolist()])
        found = place >= 0
    if not found.all():
        row = int(np.argmin(found))
        shown = ", ".join(repr(c) for c in classes[:8].tolist())
        more = f" and {len(classes) - 8} more" if len(classes) > 8 else ""
        raise DataError(
            f"{where}: expected y of the classes seen in fit, {shown}{more}, got "
            f"{y[row : row + 1].tolist()[0]!r} in row {row}. Leave such rows out, or fit again."
        )
    return np.asarray(place, np.intp)


def check_labels(y: NDArray[Any], n_labels: int, where: str) -> NDArray[np.int32]:
    """Return y (n, n_labels) of 0 and 1 as whole numbers."""
    if y.ndim != 2 or y.shape[1] != n_labels:
        raise ShapeError(
            f"{where}: expected y of shape (n, {n_labels}) as in fit, got {y.shape}. "
            "Pass the same labels, in the same order."
        )
    if not np.isin(y, (0, 1)).all():
        raise DataError(f"{where}: expected labels of 0 and 1 in y, got others. Correct them.")
    return y.astype(np.int32)
