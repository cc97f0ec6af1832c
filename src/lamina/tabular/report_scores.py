"""The scores of a report: with intervals, beside those of a prediction that reads no column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.tabular.diagnosis import calibration_bins
from lamina.tabular.head import ClassHead, NumberHead
from lamina.tabular.intervals import (
    Interval,
    Statistic,
    auc_of,
    mean_of,
    r2_of,
    root_mean_of,
    score_intervals,
)
from lamina.tabular.row_losses import row_losses

Floats = NDArray[np.float64]
NONE = Interval(np.nan, np.nan, np.nan)
MOST_TARGETS = 8  # whose errors are listed each


@dataclass(frozen=True)
class Score:
    """One line of the report's scores.

    Parameters
    ----------
    name, what : str
        What it is called, and what it means.
    interval : Interval
    constant : float
        The score of predicting the scored rows' own class shares, or mean, for all; NaN for none.
    unit : {"", "share"}
        "share" is shown with four decimals.
    """

    name: str
    what: str
    interval: Interval
    constant: float
    unit: str = ""


def find_scores(
    head: ClassHead | NumberHead,
    target: NDArray[Any],
    predictions: Floats,
    name: str,
    rng: np.random.Generator,
) -> list[Score]:
    """Return the scores of predictions (n, n_outputs), the most telling first.

    Parameters
    ----------
    target : (n,) int classes, (n, n_labels) of 0 and 1, or (n, n_targets) float64
    name : str
        Of the target, as a unit.
    """
    if isinstance(head, NumberHead):
        return _number_scores(target, predictions, name, rng)
    return _class_scores(head, target, predictions, rng)


def _class_scores(
    head: ClassHead, target: NDArray[Any], p: Floats, rng: np.random.Generator
) -> list[Score]:
    n, rows = len(p), np.arange(len(p))
    log_loss = row_losses(head, target, "log_loss")
    error = row_losses(head, target, "error_rate")
    if head.multilabel:
        constant = np.broadcast_to(target.mean(axis=0), p.shape)
    else:
        constant = np.broadcast_to(np.bincount(target, minlength=p.shape[1]) / n, p.shape)
    statistics: dict[str, Statistic] = {
        "log_loss": mean_of(log_loss(p, rows)),
        "accuracy": mean_of(1.0 - error(p, rows)),
    }
    two = p.shape[1] == 2 and not head.multilabel
    if two:
        statistics["auc"] = auc_of(target == 1, p[:, 1])
    found = score_intervals(statistics, n, rng)
    a_label = " of a label" if head.multilabel else ""
    scores = [
        Score(
            "log loss",
            f"mean of −ln of the probability given to what happened{a_label}; lower is better",
            found["log_loss"],
            float(log_loss(constant, rows).mean()),
            "share",
        ),
        Score(
            "accuracy",
            f"share of {'labels' if head.multilabel else 'rows'} whose most probable class is true",
            found["accuracy"],
            float(1.0 - error(constant, rows).mean()),
            "share",
        ),
    ]
    if two:
        what = "how often a row of the second class gets a higher probability than one of the first"
        scores.insert(1, Score("AUC", what, found["auc"], 0.5, "share"))
    bins = calibration_bins(*calibrated_pairs(head, target, p))
    scores.append(
        Score(
            "calibration error",
            "expected, over bins of as many rows: share that came true against probability",
            Interval(bins.error, np.nan, np.nan),
            np.nan,
            "share",
        )
    )
    return scores


def calibrated_pairs(
    head: ClassHead, target: NDArray[Any], p: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the probabilities whose calibration is shown, and whether each came true.

    Of two classes the second one's, of more the predicted class's, of labels every one's.
    """
    if head.multilabel:
        return p.ravel(), np.asarray(target.ravel() > 0)
    if p.shape[1] == 2:
        return p[:, 1], np.asarray(target == 1)
    return p.max(axis=1), np.asarray(np.argmax(p, axis=1) == target)


def _number_scores(y: Floats, y_pred: Floats, name: str, rng: np.random.Generator) -> list[Score]:
    off = y - y_pred
    centre = y.mean(axis=0)
    k = y.shape[1]
    statistics: dict[str, Statistic] = {"r2": r2_of(y, y_pred)}
    for j in range(min(k, MOST_TARGETS)):
        statistics[f"rmse {j}"] = root_mean_of(off[:, j] ** 2)
        statistics[f"mae {j}"] = mean_of(np.abs(off[:, j]))
    found = score_intervals(statistics, len(y), rng)
    what = "share of the target's variance that is predicted"
    scores = [Score("R²", what + (", mean of targets" if k > 1 else ""), found["r2"], 0.0, "share")]
    for j in range(min(k, MOST_TARGETS)):
        of = f" of target {j}" if k > 1 else ""
        rmse, mae = found[f"rmse {j}"], found[f"mae {j}"]
        spread = y[:, j] - centre[j]
        unit = f"in units of {name}{of}"
        scores += [
            Score(f"RMSE{of}", f"root mean squared error, {unit}", rmse, float(spread.std())),
            Score(f"MAE{of}", f"mean absolute error, {unit}", mae, float(np.abs(spread).mean())),
        ]
    return scores
