"""Scores of predictions by name, as `FitReport`, the command line and reports quote them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core import metrics

Array = NDArray[Any]


def class_scores(codes: Array, probabilities: Array) -> dict[str, float]:
    """Return accuracy, log_loss, and auc where there are two classes and both occur.

    Parameters
    ----------
    codes : int (n,)
        The true classes, as columns of ``probabilities``.
    probabilities : float (n, n_classes)
        Rows with NaN are left out; no scores if all are.
    """
    known = ~np.isnan(probabilities).any(axis=1)
    y, p = codes[known], probabilities[known]
    if not len(y):
        return {}
    found = {
        "accuracy": metrics.accuracy(y, np.argmax(p, axis=1)),
        "log_loss": metrics.log_loss(y, p),
    }
    if p.shape[1] == 2 and 0 < np.count_nonzero(y) < y.size:
        found["auc"] = area_under_curve(y == 1, p[:, 1])
    return found


def number_scores(y: Array, y_pred: Array) -> dict[str, float]:
    """Return r2, rmse and mae of numbers (n,) or (n, n_targets), rows with NaN left out."""
    known = ~np.isnan(y_pred.reshape(len(y_pred), -1)).any(axis=1)
    if not known.any():
        return {}
    pair = y[known], y_pred[known]
    return {"r2": metrics.r2(*pair), "rmse": metrics.rmse(*pair), "mae": metrics.mae(*pair)}


def area_under_curve(positive: NDArray[np.bool_], score: Array) -> float:
    """Return the area under the ROC curve: how often a positive row scores above a negative one.

    Ties count one half: (mean rank of the positives - (n_positive + 1) / 2) / n_negative.
    """
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # ties share their mean rank
    n_positive = int(np.count_nonzero(positive))
    above = float(ranks[positive].mean()) - (n_positive + 1) / 2
    return above / (positive.size - n_positive)
