"""What a model says of rows, whatever kind of model it is: numbers, a probability, or classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import is_whole_number
from lamina.core.errors import DataError, SpecError
from lamina.core.functions import Float64
from lamina.core.network import Network


@dataclass(frozen=True)
class Reader:
    """A model, read.

    Attributes
    ----------
    read : callable
        Rows (n, d) to values (n,) of one number, or to the place of each row's class.
    kind : {"number", "probability", "classes"}
    classes : tuple
        Of "classes" and "probability", where they are known: values are places among them, or the
        probability of the second.
    level : float or None
        Where the value changes sides; None where it has none.
    """

    read: Callable[[Float64], Float64]
    kind: str
    classes: tuple[Any, ...]
    level: float | None


def read_model(model: Any, output: int | None, y: NDArray[Any] | None, where: str) -> Reader:
    """Return how to read a model.

    Parameters
    ----------
    model : Network, estimator with ``predict``, or function of rows
    output : int or None
        Which output of several numbers; None: the class, if the outputs are classes.
    y : array (n,) or None
        Two different numbers put the level of a single number half-way between them.
    where : str
        The function, for the error sentence.
    """
    if isinstance(model, Network):
        return _network(model, output, y, where)
    if hasattr(model, "predict_proba"):
        return _classifier(model, output, where)
    call = model.predict if hasattr(model, "predict") else model
    if not callable(call):
        raise SpecError(
            f"{where}: expected a Network, an estimator with predict, or a function of rows, got "
            f"{type(model).__name__}. Pass one of these."
        )
    classes = tuple(getattr(model, "classes_", ()))
    if classes:
        return Reader(_places(call, classes), "classes", classes, None)
    return Reader(_column(call, output, None, where), "number", (), _half_way(y))


def _network(net: Network, output: int | None, y: NDArray[Any] | None, where: str) -> Reader:
    kind, d_out = net.spec.output, net.spec.d_out
    if kind == "softmax" and output is None and d_out > 2:
        return Reader(lambda x: net(x).argmax(axis=1).astype(float), "classes", (), None)
    if kind == "softmax":
        chosen = 1 if output is None and d_out == 2 else output
        return Reader(_column(net, chosen, d_out, where), "probability", (), 0.5)
    read = _column(net, output, d_out, where)
    if kind == "sigmoid":
        return Reader(read, "probability", (), 0.5)
    return Reader(read, "number", (), 0.5 if kind == "step" else _half_way(y))


def _classifier(model: Any, output: int | None, where: str) -> Reader:
    classes = tuple(np.asarray(model.classes_).tolist()) if hasattr(model, "classes_") else ()
    if output is None and len(classes) > 2:
        return Reader(_places(model.predict, classes), "classes", classes, None)
    read = _column(model.predict_proba, 1 if output is None else output, None, where)
    return Reader(read, "probability", classes if len(classes) == 2 else (), 0.5)


def _places(
    predict: Callable[[Any], Any], classes: tuple[Any, ...]
) -> Callable[[Float64], Float64]:
    known = np.asarray(classes)

    def read(x: Float64) -> Float64:
        said = np.asarray(predict(x)).reshape(len(x), 1)
        return np.asarray((said == known).argmax(axis=1), np.float64)

    return read


def _column(
    call: Callable[[Any], Any], output: int | None, d_out: int | None, where: str
) -> Callable[[Float64], Float64]:
    """Return a function that takes one column of what ``call`` gives, and insists it is there."""

    def read(x: Float64) -> Float64:
        said = np.asarray(call(x))
        if said.dtype.kind not in "fiub" or said.shape[:1] != (len(x),) or said.ndim > 2:
            raise DataError(
                f"{where}: expected a model that gives a number, or a row of them, for each row, "
                f"got an array of {said.dtype} of shape {said.shape}. Wrap it in a function."
            )
        said = said.reshape(len(x), -1)
        if output is not None and not 0 <= output < said.shape[1]:
            raise SpecError(_bad_output(where, f"from 0 to {said.shape[1] - 1}", output))
        return said[:, 0 if output is None else output].astype(np.float64)

    if d_out is None:
        if output is not None and not is_whole_number(output):
            raise SpecError(_bad_output(where, "a whole number", output))
        return read
    fits = output is None or (is_whole_number(output) and 0 <= int(output) < d_out)
    if not fits:
        raise SpecError(_bad_output(where, f"from 0 to {d_out - 1}", output))
    return read


def _bad_output(where: str, expected: str, output: object) -> str:
    return f"{where}: expected output {expected}, got {output!r}. Pass the index of a column."


def _half_way(y: NDArray[Any] | None) -> float | None:
    """Return the middle of two labels; None if there are more, or they are no numbers."""
    if y is None or y.dtype.kind not in "fiub":
        return None
    found = np.unique(y)
    return float(found.astype(np.float64).mean()) if len(found) == 2 else None
