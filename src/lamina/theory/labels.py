"""The classes of labelled points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import shape_of
from lamina.core.errors import DataError, ShapeError


def as_labels(y: object, n: int, where: str) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the classes in sorted order, two or more, and each row's place among them.

    Parameters
    ----------
    y : array-like (n,) or (n, 1)
        Numbers, booleans or text.
    n : int
        The rows of x.
    where : str
        The function, for the error sentence.

    Raises
    ------
    ShapeError
        There is not one label a row.
    DataError
        A label is missing, labels are of kinds that have no order, or all are of one class.
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # (n,)
    if labels.shape != (n,):
        raise ShapeError(
            f"{where}: expected y of shape ({n},), got {shape_of(y)}. "
            "Pass one class for each row of x."
        )
    found = labels.tolist()
    if any(label is None or label != label for label in found):
        raise DataError(f"{where}: expected a class in every row of y, got None or NaN. Drop them.")
    try:
        classes = sorted(set(found))
    except TypeError as error:  # unhashable, or text beside numbers
        raise DataError(
            f"{where}: expected classes in y that have an order, got {error}. "
            "Pass numbers, or text, throughout."
        ) from error
    if len(classes) < 2:
        got = f"only {classes[0]!r} in all {n} rows" if classes else "no rows"
        raise DataError(f"{where}: expected two classes in y, got {got}. Add rows of another.")
    place = {label: k for k, label in enumerate(classes)}
    return classes, np.array([place[label] for label in found])
