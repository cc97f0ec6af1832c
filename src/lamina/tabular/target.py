"""The target column: which task it poses, and how its values and the network's outputs relate.

* classification: class k of K is the index k; the network's softmax gives K probabilities;
* regression: y = (v - mean) / scale, so v_pred = mean + scale * y_pred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lamina.core import metrics
from lamina.core.errors import DataError, ModelFileError
from lamina.tabular.scores import area_under_curve
from lamina.tabular.table import CODED, Column, Kind, list_names

Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)

# Whole numbers with at most so many distinct values are taken for classes: 0/1, ratings, digits.
MAX_WHOLE_CLASSES = 10


@dataclass(frozen=True)
class Target:
    """What the model predicts.

    Parameters
    ----------
    name, kind
        The target column, as in `Column`.
    task : {"classification", "regression"}
        How it is predicted.
    classes : tuple of str
        The classes, sorted; empty for regression.
    mean, scale : float
        Centre and standard deviation of a regression target.
    """

    name: str
    kind: Kind
    task: Task
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def fit(cls, column: Column, task: Task | None = None) -> Target:
        """Describe the target; ``task=None`` finds the task from the values (see `find_task`).

        The column must have no missing values. Raises `DataError` if it cannot be learnt.
        """
        task = task or find_task(column)
        return _fit_classes(column) if task == "classification" else _fit_numbers(column)

    @property
    def d_out(self) -> int:
        """How many outputs the network has."""
        return max(1, len(self.classes))

    def encode(self, column: Column, where: str) -> NDArray[Any]:
        """Return y: class indices int32 (n,), or standardised numbers float32 (n, 1).

        Raises `DataError` for a class that `fit` never saw, or for text where numbers were.
        """
        if self.task == "regression":
            if column.kind != "number":
                raise DataError(
                    f"{where}: expected target {self.name!r} to hold numbers as in fit, got "
                    f"{column.kind} values. Correct the column."
                )
            standard: NDArray[np.float64] = (column.values - self.mean) / self.scale
            return standard.astype(np.float32)[:, np.newaxis]  # (n, 1)
        text = column.as_text()
        index = {name: k for k, name in enumerate(self.classes)}
        if self.kind == "boolean":
            index |= {"0": index["false"], "1": index["true"]}
        lookup = np.array([index.get(level, -1) for level in text.levels], dtype=np.int32)
        y: NDArray[np.int32] = lookup[text.values]
        if (y < 0).any():
            unknown = text.levels[text.values[np.argmin(y)]]
            raise DataError(
                f"{where}: expected target {self.name!r} to be one of the classes seen in fit, "
                f"{list_names(self.classes)}, got {unknown!r}. Leave such rows out or fit again."
            )
        return y

    def decode(self, output: NDArray[Any]) -> NDArray[Any]:
        """Return predictions for the network's output (n, d_out), as values of the target (n,)."""
        if self.task == "regression":
            return np.asarray(self.mean + self.scale * output[:, 0].astype(np.float64))
        return np.asarray(self.class_values()[np.argmax(output, axis=1)])

    def class_values(self) -> NDArray[Any]:
        """Return the classes as numbers, booleans or text, as the target column had them."""
        if self.kind == "number":
            values = np.array([float(c) for c in self.classes])
            return values.astype(np.int64) if all(float(v).is_integer() for v in values) else values
        if self.kind == "boolean":
            return np.array([c == "true" for c in self.classes])
        return np.array(self.classes, dtype=object)

    def scores(self, y: NDArray[Any], output: NDArray[Any]) -> dict[str, float]:
        """Return the scores of the network's output (n, d_out) against `encode`'s y.

        Classification: accuracy, log_loss, and auc where there are two classes and both occur.
        Regression, in the target's own unit: r2, rmse, mae.
        """
        if self.task == "regression":
            true, predicted = self.decode(y), self.decode(output)
            return {
                "r2": metrics.r2(true, predicted),
                "rmse": metrics.rmse(true, predicted),
                "mae": metrics.mae(true, predicted),
            }
        found = {
            "accuracy": metrics.accuracy(y, np.argmax(output, axis=1)),
            "log_loss": metrics.log_loss(y, output),
        }
        if len(self.classes) == 2 and 0 < np.count_nonzero(y) < y.size:
            found["auc"] = area_under_curve(y == 1, output[:, 1])
        return found

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return {
            "name": self.name,
            "kind": self.kind,
            "task": self.task,
            "classes": list(self.classes),
            "mean": self.mean,
            "scale": self.scale,
        }

    @classmethod
    def from_json(cls, state: Any) -> Target:
        """Rebuild from `to_json`; `ModelFileError` if it makes no sense."""
        try:
            _check_state(state)
            target = cls(**{**state, "classes": tuple(state["classes"])})
            target.class_values()
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"load: expected the target of a table model, got {error!s}. "
                "The file is damaged; fit the model again."
            ) from error
        return target


def find_task(column: Column) -> Task:
    """Return "classification" for text, booleans and few whole numbers, else "regression"."""
    if column.kind != "number":
        return "classification"
    distinct = np.unique(column.values)
    whole = bool((distinct == np.floor(distinct)).all())
    return "classification" if whole and distinct.size <= MAX_WHOLE_CLASSES else "regression"


def _fit_classes(column: Column) -> Target:
    """Find the classes of a classification target."""
    if column.kind not in (*CODED, "number"):
        raise DataError(
            f"fit: expected target {column.name!r} to hold numbers, text or booleans, got "
            f"{column.kind} values. Choose another column, or make classes of it."
        )
    text = column.as_text()
    classes = [text.levels[code] for code in np.unique(text.values)]
    classes.sort(key=float if column.kind == "number" else None)
    if len(classes) < 2:
        raise DataError(
            f"fit: expected at least two classes in target {column.name!r}, got only "
            f"{classes[0]!r} in every row. Choose another column, or add rows of another class."
        )
    if len(classes) > 20 and 2 * len(classes) > text.values.size:
        number = column.kind == "number"
        raise DataError(
            f"fit: expected classes in target {column.name!r} that repeat, got {len(classes)} "
            f"different values in {text.values.size} rows. "
            + ("Use --task regression." if number else "Choose another column.")
        )
    return Target(column.name, column.kind, "classification", tuple(classes))


def _fit_numbers(column: Column) -> Target:
    """Find centre and spread of a regression target."""
    if column.kind != "number":
        raise DataError(
            f"fit: expected numbers in target {column.name!r} for regression, got "
            f"{column.kind} values. Use --task classification, or another column."
        )
    values = column.values
    if values.min() == values.max():
        raise DataError(
            f"fit: expected target {column.name!r} to vary, got {values[0]:g} in every row. "
            "Choose another column."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = float(values.mean()), float(values.std())
    if not (np.isfinite(mean) and np.isfinite(scale) and scale > 0):
        raise DataError(
            f"fit: expected target {column.name!r} within float64's range, got numbers up to "
            f"{np.abs(values).max():g}. Rescale the column."
        )
    return Target(column.name, "number", "regression", mean=mean, scale=scale)


def _check_state(state: Mapping[str, Any]) -> None:
    """Raise ValueError for a state that `to_json` would not have written."""
    if set(state) != {"name", "kind", "task", "classes", "mean", "scale"}:
        raise ValueError("other fields")
    if state["task"] not in TASKS or state["kind"] not in (*CODED, "number"):
        raise ValueError("an unknown task or kind")
    if not isinstance(state["name"], str):
        raise ValueError("a name that is not text")
    numbers: list[Any] = [state["mean"], state["scale"]]
    if not all(isinstance(v, float) and np.isfinite(v) for v in numbers) or numbers[1] <= 0:
        raise ValueError("a mean and scale that are no finite numbers")
    classes = state["classes"]
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise ValueError("classes that are not text")
    if len(set(classes)) != len(classes) or (state["task"] == "classification") != bool(classes):
        raise ValueError("classes that do not suit the task")
    if state["kind"] == "boolean" and classes != ["false", "true"]:
        raise ValueError("booleans of other names")
