"""Linear separability, decided exactly: a hyperplane, or a point that both convex hulls share."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError, ShapeError
from lamina.theory.certificate import Separability
from lamina.theory.direct import in_cone_of_many, mix_to_zero
from lamina.theory.exact import ExactVector, Integers, Points, as_points, fraction
from lamina.theory.hyperplane import (
    MaximumMargin,
    Plane,
    maximum_margin,
    nearest_in_floats,
    plane_of_integers,
    short_plane,
)
from lamina.theory.labels import as_labels
from lamina.theory.linear_program import in_cone, positive_direction
from lamina.theory.min_norm import Nearest

_MANY = 24  # columns from which solving on a guessed support beats the simplex method


def separability(x: object, y: object, *, max_margin: bool = False) -> Separability:
    """Decide whether a linear unit can tell two classes apart, and prove it.

    Either w, b with ``w·x + b > 0`` on the positive rows and ``< 0`` on the negative ones, or
    convex weights λ, μ with ``Σ λᵢ x⁺ᵢ = Σ μⱼ x⁻ⱼ``: then no such w, b exist, as w·x + b of that
    point would be positive and negative at once. Exactly one of the two is true.

    Parameters
    ----------
    x : array-like (n, d), d ≥ 1
        Finite numbers, taken as the exact values they hold: a float is its binary fraction, an
        int, Fraction or Decimal is itself, text such as "0.1" is that decimal.
    y : array-like (n,)
        Two classes: numbers, booleans or text. The higher one, in sorted order, is the positive.
    max_margin : bool, default False
        Whether to find the hyperplane of maximum margin (the hard-margin support vector machine),
        exactly, rather than one that is near it. Costs more where coordinates have many digits.

    Returns
    -------
    Separability
        ``r.verify()`` checks the proof in fractions.

    Raises
    ------
    ShapeError
        ``x`` is not 2-D or has no columns, or ``y`` has another length.
    DataError
        A value is not a finite number, or there are not exactly two classes.

    Notes
    -----
    Floats find a candidate (Wolfe 1976), integers check it; where that fails, an exact simplex
    method decides. 5,000 rows of 20 columns take a second or two.

    References
    ----------
    Minsky and Papert 1969, "Perceptrons"; Gordan 1873 and Stiemke 1915 for the two alternatives.

    Examples
    --------
    >>> from lamina import theory
    >>> corners = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> r = theory.separability(corners, [0, 0, 0, 1])  # and
    >>> r.weights.tolist(), r.bias, r.verify()
    ([1.0, 1.0], -1.5, True)
    >>> r = theory.separability(corners, [0, 1, 1, 0])  # exclusive or
    >>> r.weights is None, [str(v) for v in r.positive_mix], [str(v) for v in r.point]
    (True, ['1/2', '1/2'], ['1/2', '1/2'])
    >>> r.verify()
    True
    """
    where = "separability"
    points = as_points(x, "x", where)
    if points.d == 0:
        raise ShapeError(f"{where}: expected x with at least 1 column, got 0. Add a column.")
    classes, codes = as_labels(y, points.n, where)
    if len(classes) > 2:
        raise DataError(
            f"{where}: expected two classes in y, got {len(classes)}. Use "
            "separability_by_class, which takes them in pairs or one against the rest."
        )
    return decide(points, codes == 1, (classes[0], classes[1]), max_margin)


def decide(
    points: Points,
    positive: NDArray[np.bool_],
    classes: tuple[Any, Any],
    max_margin: bool = False,
) -> Separability:
    """Do the work of `separability` on checked points."""
    guess = nearest_in_floats(points, positive)
    plane, weights = _decide(points, positive, guess)
    if weights is not None:
        return _not_separable(points, positive, classes, weights)
    if plane is None:
        raise AssertionError("the plane that the linear program found does not separate")
    best = maximum_margin(points, positive, guess) if max_margin else None
    return _separable(points, positive, classes, plane, best)


def common_point(points: Points, positive: NDArray[np.bool_]) -> dict[int, Fraction] | None:
    """Return weights of rows, half of them of each class, that mix to one point; None if apart."""
    return _decide(points, positive, nearest_in_floats(points, positive))[1]


def _decide(
    points: Points, positive: NDArray[np.bool_], guess: Nearest
) -> tuple[Plane | None, dict[int, Fraction] | None]:
    """Return a plane, or weights of rows, half of them of each class, that mix to one point."""
    plane = short_plane(points, positive, guess.point)
    if plane is not None:
        return plane, None
    rows = signed_rows(points, positive)
    if points.d >= _MANY:
        shares: dict[int, float] = {}
        for pair, share in zip(guess.corners, guess.weights, strict=True):
            shares |= {i: shares.get(i, 0.0) + share for i in pair}
        direct = mix_to_zero(rows, _signed_floats(points, positive), shares)
        if direct is not None:
            return None, direct
    v, weights = positive_direction(rows, sorted({i for pair in guess.corners for i in pair}))
    if v is None:
        return None, weights
    w, _ = plane_of_integers(points, v)
    return short_plane(points, positive, w), None


def signed_rows(points: Points, positive: NDArray[np.bool_]) -> Integers:
    """Return s·(x, 1) of each row, s = ±1 its class: a plane separates if all products are > 0."""
    ones = np.ones((points.n, 1), dtype=object)
    rows: Integers = np.concatenate([points.integers, ones], axis=1)  # (n, d + 1)
    rows[~positive] *= -1
    return rows


def _signed_floats(points: Points, positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows = np.concatenate([points.approximate, np.ones((points.n, 1))], axis=1)
    rows[~positive] *= -1
    return rows


def _separable(
    points: Points,
    positive: NDArray[np.bool_],
    classes: tuple[Any, Any],
    plane: Plane,
    best: MaximumMargin | None,
) -> Separability:
    nearest: dict[str, Any] = {}
    if best is not None:
        plane = best.plane
        up, down = np.flatnonzero(positive).tolist(), np.flatnonzero(~positive).tolist()
        nearest = {
            "nearest_positive_mix": _dense(best.positive_weights, up),
            "nearest_negative_mix": _dense(best.negative_weights, down),
            "support": tuple(sorted([*best.positive_weights, *best.negative_weights])),
        }
    return Separability(
        "strict",
        classes,
        points,
        positive,
        exact_weights=ExactVector(plane.weights),
        exact_bias=plane.bias,
        margin_squared=plane.margin_squared,
        float_separates=_rounded_separates(points, positive, plane),
        **nearest,
    )


def _rounded_separates(points: Points, positive: NDArray[np.bool_], plane: Plane) -> bool:
    try:
        weights = [Fraction(float(w)) for w in plane.weights]
        v = points.plane_to_integers(weights, Fraction(float(plane.bias)))
    except OverflowError:
        return False
    return all(a > 0 for a in signed_rows(points, positive) @ np.array(v, dtype=object))


def _not_separable(
    points: Points,
    positive: NDArray[np.bool_],
    classes: tuple[Any, Any],
    weights: dict[int, Fraction],
) -> Separability:
    up, down = np.flatnonzero(positive).tolist(), np.flatnonzero(~positive).tolist()
    mixed = {i: 2 * w for i, w in weights.items()}  # each class has half of the weight
    point = [Fraction(0)] * points.d
    for i in up:
        if i in mixed:
            values = zip(point, points.values[i], strict=True)
            point = [a + mixed[i] * fraction(value) for a, value in values]
    rows = signed_rows(points, positive)
    target = [-sum(column) for column in rows.T.tolist()]
    answer = None
    if points.d >= _MANY:
        floats = _signed_floats(points, positive)
        answer = in_cone_of_many(rows, floats, target, -floats.sum(axis=0))
    v, extra = answer or in_cone(rows, target)
    found: dict[str, Any] = {}
    if extra is None:
        w, b = plane_of_integers(points, v or [])
        found = {"weak_weights": ExactVector(w), "weak_bias": b}
    else:  # Σ rows + Σ extra·rows = 0: every row with weight 1 or more
        full = {i: 1 + extra.get(i, Fraction(0)) for i in range(points.n)}
        total = sum(full[i] for i in up)
        full = {i: w / total for i, w in full.items()}
        found = {
            "interior_positive_mix": _dense(full, up),
            "interior_negative_mix": _dense(full, down),
        }
    return Separability(
        "none" if extra is not None else "weak",
        classes,
        points,
        positive,
        support=tuple(sorted(mixed)),
        positive_mix=_dense(mixed, up),
        negative_mix=_dense(mixed, down),
        point=ExactVector(point),
        **found,
    )


def _dense(weights: dict[int, Fraction], rows: list[int]) -> ExactVector:
    return ExactVector(weights.get(i, Fraction(0)) for i in rows)
