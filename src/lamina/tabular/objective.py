"""scikit-learn's losses of its multilayer perceptron, in terms of the engine's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.losses import BinaryCrossEntropy, CrossEntropy, Loss, Poisson, SquaredError

Array = npt.NDArray[Any]

OUTPUT_UNITS = {"identity": "identity", "logistic": "sigmoid", "softmax": "softmax", "exp": "exp"}
"""``out_activation_`` -> the engine's output unit."""


@dataclass(frozen=True)
class Objective:
    """What training minimises, and how it is reported.

    The engine averages a loss over the outputs, scikit-learn's gradients sum over them: the
    output weights make up for it. ``value * value_scale`` plus the weighted mean of
    ``row_constants`` is then the loss that scikit-learn prints, without the penalty.

    Attributes
    ----------
    loss : Loss
    output : str
        The engine's output unit.
    output_weight : array (d_out,) or None
    value_scale : float
        1 / d_out for the squared error, whose gradient sums over the outputs while its reported
        value averages over them; else 1.
    """

    loss: Loss
    output: str
    output_weight: Array | None
    value_scale: float = 1.0

    @classmethod
    def of(cls, name: str, out_activation: str, d_out: int, dtype: Any) -> Objective:
        """Return the objective of scikit-learn's loss `name`.

        Parameters
        ----------
        name : {"squared_error", "poisson", "log_loss"}
        out_activation : str
            For log_loss, "softmax" tells one class of several from yes-or-no outputs.
        d_out : int
        dtype : numpy.dtype
        """
        if name == "squared_error":  # (1/2) sum_j (y_pred_j - y_j)^2
            return cls(SquaredError(), "identity", np.full(d_out, d_out / 2, dtype), 1 / d_out)
        if name == "log_loss" and out_activation == "softmax":
            return cls(CrossEntropy(), "softmax", None)
        weight = np.full(d_out, d_out, dtype) if d_out > 1 else None
        if name == "poisson":
            return cls(Poisson(), "exp", weight)
        return cls(BinaryCrossEntropy(), "sigmoid", weight)

    def clipped(self, y_pred: Array, y: Array, sample_weight: Array | None) -> float | None:
        """Return the mean log loss of probabilities clipped to [eps, 1 - eps], or None.

        The engine's log losses are exact; scikit-learn's are clipped, which tells where a line
        search overshoots so far that outputs saturate. None for other losses.
        """
        if not isinstance(self.loss, BinaryCrossEntropy | CrossEntropy):
            return None
        eps = np.finfo(y_pred.dtype).eps
        p = np.clip(y_pred, eps, 1 - eps)
        if y.ndim == 1:
            p_true = np.take_along_axis(p, y[:, np.newaxis].astype(np.intp), axis=1)
        else:
            p_true = np.where(y > 0.5, p, 1 - p)
        return float(np.average(-np.log(p_true).sum(axis=1), weights=sample_weight))

    def row_constants(self, y: Array) -> Array | None:
        """Return what scikit-learn adds to a row's loss, shape (n,): sum_j y_j log y_j - y_j."""
        if not isinstance(self.loss, Poisson):
            return None
        y = y.astype(np.float64)
        logs = np.log(y, out=np.zeros_like(y), where=y > 0)
        return np.asarray((y * logs - y).sum(axis=1))
