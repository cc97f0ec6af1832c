"""Heads: from a target's values to y, and from the members' mean output to predictions.

* `ClassHead`: y are classes 0 … K-1, or rows of 0 and 1 (multi-label); outputs are probabilities.
* `NumberHead`: y = (v - centre) / scale for each target; with loss "poisson" y = v / scale and the
  output unit is exp. Squared errors are predicted within the range that fit saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from lamina.core.errors import ModelFileError
from lamina.core.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Loss,
    Poisson,
    SquaredError,
)
from lamina.tabular.learner import Objective

Array = NDArray[Any]
Floats = NDArray[np.float64]

NUMBER_LOSSES: dict[str, Loss] = {
    "squared_error": SquaredError(),
    "absolute_error": AbsoluteError(),
    "poisson": Poisson(),
}


@dataclass(frozen=True, eq=False)
class ClassHead:
    """Probabilities of classes, sharpened or softened by one temperature.

    ::

        p_k = q_k^(1/T) / sum_j q_j^(1/T),   q the members' mean probabilities

    Parameters
    ----------
    n_outputs : int
        Classes, or labels.
    multilabel : bool
        Whether each output is a label of its own.
    temperature : float > 0
        T. Above 1 the members are less sure together than each output says.
    """

    n_outputs: int
    multilabel: bool = False
    temperature: float = 1.0

    @property
    def objective(self) -> Objective:
        """What the members learn."""
        if self.multilabel:
            return Objective(self.n_outputs, "sigmoid", BinaryCrossEntropy())
        return Objective(self.n_outputs, "softmax", CrossEntropy())

    def probabilities(self, output: Array) -> Floats:
        """Return probabilities (n, n_outputs) for the members' mean output."""
        return tempered(np.asarray(output, np.float64), self.temperature, self.multilabel)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return {
            "n_outputs": self.n_outputs,
            "multilabel": self.multilabel,
            "temperature": self.temperature,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> ClassHead:
        """Rebuild; `ModelFileError` if it makes no sense."""
        n, temperature = state["n_outputs"], float(state["temperature"])
        if not (isinstance(n, int) and n >= 1 and 0 < temperature < np.inf):
            raise ModelFileError("load: expected classes and a temperature, got others.")
        return cls(n, state["multilabel"] is True, temperature)


def tempered(probability: Floats, temperature: float, multilabel: bool) -> Floats:
    """Return p^(1/T), normalised over classes, or over each label and its absence."""
    if temperature == 1.0:
        return probability
    tiny = np.finfo(np.float32).tiny
    logs = np.log(np.clip(probability, tiny, None)) / temperature
    if multilabel:
        others = np.log(np.clip(1.0 - probability, tiny, None)) / temperature
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(others - logs, -700, 700))))
    scaled = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class NumberHead:
    """Numbers in the targets' own unit.

    Parameters
    ----------
    loss : str
        A key of `NUMBER_LOSSES`.
    centre, scale : (n_targets,) float64
    low, high : (n_targets,) float64
        Between these predictions stay.
    """

    loss: str
    centre: Floats
    scale: Floats
    low: Floats = field(repr=False)
    high: Floats = field(repr=False)

    @classmethod
    def fit(cls, values: Floats, weight: Floats | None, loss: str) -> NumberHead:
        """Find centre and scale of targets (n, n_targets)."""
        if loss == "poisson":
            centre = np.zeros(values.shape[1])
            scale = np.average(values, axis=0, weights=weight)
        else:
            centre = np.average(values, axis=0, weights=weight)
            scale = np.sqrt(np.average((values - centre) ** 2, axis=0, weights=weight))
        scale = np.where(scale > 0, scale, 1.0)
        return cls(loss, centre, scale, values.min(axis=0), values.max(axis=0))

    @property
    def objective(self) -> Objective:
        """What the members learn."""
        output = "exp" if self.loss == "poisson" else "identity"
        return Objective(len(self.centre), output, NUMBER_LOSSES[self.loss])

    def encode(self, values: Floats) -> NDArray[np.float32]:
        """Return y (n, n_targets)."""
        return ((values - self.centre) / self.scale).astype(np.float32)

    def numbers(self, output: Array) -> Floats:
        """Return predictions (n, n_targets) for the members' mean output."""
        values = self.centre + self.scale * np.asarray(output, np.float64)
        return np.clip(values, self.low, self.high)

    @property
    def least(self) -> float:
        """What no target can be below."""
        return 0.0 if self.loss == "poisson" else -np.inf

    def least_loss(self, values: Floats) -> float:
        """Return the mean loss that predictions equal to targets (n, n_targets) would have."""
        if self.loss != "poisson":
            return 0.0
        y = np.asarray(self.encode(values), np.float64)
        return float((y - xlogy(y, y)).mean())

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, with the arrays of `arrays`."""
        return {"loss": self.loss}

    def arrays(self) -> dict[str, Array]:
        """Return the numbers, (4, n_targets)."""
        return {"head": np.stack([self.centre, self.scale, self.low, self.high])}

    @classmethod
    def from_json(cls, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> NumberHead:
        """Rebuild; `ModelFileError` if it makes no sense."""
        numbers = arrays["head"]
        if numbers.ndim != 2 or len(numbers) != 4 or not np.isfinite(numbers).all():
            raise ModelFileError("load: expected the scale of a target, got other numbers.")
        centre, scale, low, high = np.asarray(numbers, np.float64)
        if state["loss"] not in NUMBER_LOSSES or not (scale > 0).all() or not (low <= high).all():
            raise ModelFileError("load: expected the scale of a target, got other numbers.")
        return cls(state["loss"], centre, scale, low, high)
