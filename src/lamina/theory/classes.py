"""Separability of several classes: in pairs, one against the rest, and all at once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from lamina.core.checks import check_choice
from lamina.core.errors import ShapeError
from lamina.theory.argmax import ArgmaxSeparability, decide_argmax
from lamina.theory.certificate import Separability
from lamina.theory.exact import Points, as_points
from lamina.theory.labels import as_labels
from lamina.theory.linear_separability import decide

How = Literal["pairs", "rest", "argmax"]


@dataclass(frozen=True, eq=False)
class ClassSeparability:
    """The answers for several classes.

    Attributes
    ----------
    how : {"pairs", "rest", "argmax"}
    classes : tuple
        The labels, sorted.
    results : dict
        For pairs: (label, label) to `Separability`, the second label positive. For rest: label to
        `Separability`, that label positive. For argmax: one `ArgmaxSeparability` under None.
    """

    how: How
    classes: tuple[Any, ...]
    results: Mapping[Hashable, Separability | ArgmaxSeparability]

    @property
    def separable(self) -> bool:
        """Whether all of them are strictly separable."""
        return all(r.separable for r in self.results.values())

    def verify(self) -> bool:
        """Check every proof in fractions."""
        return all(r.verify() for r in self.results.values())


def separability_by_class(
    x: object, y: object, how: How = "pairs", *, max_margin: bool = False
) -> ClassSeparability:
    """Decide which of several classes a linear layer can tell apart, and prove it.

    Parameters
    ----------
    x : array-like (n, d), d ≥ 1
        As in `separability`.
    y : array-like (n,)
        Two classes or more.
    how : {"pairs", "rest", "argmax"}, default "pairs"
        pairs: every class from every other one. rest: each from all others together, one linear
        unit a class, each right by itself. argmax: whether one linear layer gives every row's
        class the highest output, as softmax needs. rest implies argmax, argmax implies pairs.
    max_margin : bool, default False
        As in `separability`, for pairs and rest.

    Returns
    -------
    ClassSeparability

    Raises
    ------
    SpecError, ShapeError, DataError
        ``how`` is another word; as in `separability`.

    Examples
    --------
    Three classes in a row: the middle one is not linearly separable from the rest, and yet a
    linear layer with softmax gets all of them right.

    >>> from lamina import theory
    >>> x, y = [[0], [1], [2]], ["a", "b", "c"]
    >>> rest = theory.separability_by_class(x, y, "rest")
    >>> [label for label, r in rest.results.items() if not r.separable]
    ['b']
    >>> theory.separability_by_class(x, y, "argmax").separable
    True
    """
    where = "separability_by_class"
    check_choice(how, ("pairs", "rest", "argmax"), "how", where)
    points = as_points(x, "x", where)
    if points.d == 0:
        raise ShapeError(f"{where}: expected x with at least 1 column, got 0. Add a column.")
    classes, codes = as_labels(y, points.n, where)
    results: dict[Hashable, Separability | ArgmaxSeparability] = {}
    if how == "argmax":
        results[None] = decide_argmax(points, codes, tuple(classes))
    elif how == "rest":
        for k, label in enumerate(classes):
            results[label] = decide(points, codes == k, (f"not {label}", label), max_margin)
    else:
        for a, b in combinations(range(len(classes)), 2):
            rows = np.flatnonzero((codes == a) | (codes == b))
            pair = (classes[a], classes[b])
            results[pair] = _pair(points, codes, rows, b, pair, max_margin)
    return ClassSeparability(how, tuple(classes), results)


def _pair(
    points: Points, codes: Any, rows: Any, positive: int, pair: tuple[Any, Any], max_margin: bool
) -> Separability:
    return decide(points.take(rows), codes[rows] == positive, pair, max_margin)
