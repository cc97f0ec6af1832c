"""The proof that two classes are separable, or are not, and its check in fractions.

The check adds and multiplies fractions and does nothing else. It shares no arithmetic with what
finds the proofs: it reads the values as they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.theory.exact import ExactVector, Points, fraction, root, to_float

Kind = Literal["strict", "weak", "none"]


@dataclass(frozen=True, eq=False)
class Separability:
    """Whether a hyperplane separates two classes, with the proof.

    Attributes
    ----------
    kind : {"strict", "weak", "none"}
        strict: some w, b have w·x + b > 0 on every positive row and < 0 on every negative one, so
        a linear unit does it. weak: not strict, but ≥ 0 and ≤ 0, with at least one row off the
        plane. none: neither.
    classes : tuple
        The negative label and the positive one: the lower and the higher.
    weights, bias, margin : array (d,) of float, float, float; None unless strict
        A hyperplane and the distance of the nearest row from it: the largest there is if
        ``max_margin`` was asked for.
    exact_weights, exact_bias, margin_squared : ExactVector, Fraction, Fraction; None unless strict
        The same without rounding; this is what `verify` checks.
    float_separates : bool or None
        Whether the rounded ``weights`` and ``bias`` separate too, in exact arithmetic.
    positive_mix, negative_mix : ExactVector (n_positive,), (n_negative,); None if strict
        Convex weights of the rows of each class, in their order, at most d + 2 of them not zero,
        with Σ positive_mix·x⁺ = Σ negative_mix·x⁻.
    point : ExactVector (d,); None if strict
        That sum: a point of both convex hulls.
    support : tuple of int
        The rows of x that carry the proof: those with weight in the mixes, or the support vectors
        of a maximum margin.
    weak_weights, weak_bias : ExactVector, Fraction; None unless weak
        The hyperplane that separates weakly.
    interior_positive_mix, interior_negative_mix : ExactVector; None unless none
        Convex weights, all of them positive, that give one point: the relative interiors of the
        hulls meet, so that no hyperplane separates even weakly.
    nearest_positive_mix, nearest_negative_mix : ExactVector; None unless ``max_margin``
        Convex weights of the nearest points of the hulls, whose distance is twice the margin.
    """

    kind: Kind
    classes: tuple[Any, Any]
    points: Points = field(repr=False)
    positive: NDArray[np.bool_] = field(repr=False)
    support: tuple[int, ...] = ()
    exact_weights: ExactVector | None = None
    exact_bias: Fraction | None = None
    margin_squared: Fraction | None = None
    float_separates: bool | None = None
    positive_mix: ExactVector | None = None
    negative_mix: ExactVector | None = None
    point: ExactVector | None = None
    weak_weights: ExactVector | None = None
    weak_bias: Fraction | None = None
    interior_positive_mix: ExactVector | None = None
    interior_negative_mix: ExactVector | None = None
    nearest_positive_mix: ExactVector | None = None
    nearest_negative_mix: ExactVector | None = None

    @property
    def separable(self) -> bool:
        """Whether a linear unit can tell the classes apart on these rows."""
        return self.kind == "strict"

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """The hyperplane's weights as floats (d,), or None."""
        return None if self.exact_weights is None else np.asarray(self.exact_weights)

    @property
    def bias(self) -> float | None:
        """The hyperplane's bias as a float, or None."""
        return None if self.exact_bias is None else to_float(self.exact_bias)

    @property
    def margin(self) -> float | None:
        """The distance of the nearest row from the hyperplane, or None."""
        return None if self.margin_squared is None else root(self.margin_squared)

    def __repr__(self) -> str:
        what = {
            "strict": f"margin={self.margin:.6g}" if self.margin is not None else "",
            "weak": f"certificate of {len(self.support)} rows and a plane that touches",
            "none": f"certificate of {len(self.support)} rows",
        }[self.kind]
        n, d = self.points.n, self.points.d
        return f"Separability({self.kind!r}, {n} rows of {d} columns, {what})"

    def verify(self) -> bool:
        """Check the proof in fractions, from the values as they came; trusts no solver.

        Returns
        -------
        bool
            True if every equation and inequality of the proof holds exactly.

        Notes
        -----
        A hyperplane costs n·d products of fractions (a second for 5,000 rows of 20 columns); a
        certificate only its few rows.
        """
        return _verify(self)


def _verify(r: Separability) -> bool:
    """Return whether every equation and inequality of a proof holds exactly."""
    if r.kind == "strict":
        return _strict(r)
    if r.positive_mix is None or r.negative_mix is None or r.point is None:
        return False
    if not _same_point(r, r.positive_mix, r.negative_mix, r.point):
        return False
    if r.kind == "weak":
        if r.weak_weights is None or r.weak_bias is None:
            return False
        sides = list(_sides(r, r.weak_weights, r.weak_bias))
        return min(sides) >= 0 and max(sides) > 0
    if r.interior_positive_mix is None or r.interior_negative_mix is None:
        return False
    mixes = (r.interior_positive_mix, r.interior_negative_mix)
    return all(w > 0 for mix in mixes for w in mix) and _same_point(r, *mixes, None)


def _strict(r: Separability) -> bool:
    """Every row on its side, the nearest at the margin; a maximum margin is the half distance."""
    if r.exact_weights is None or r.exact_bias is None or r.margin_squared is None:
        return False
    nearest = min(_sides(r, r.exact_weights, r.exact_bias))
    length = sum((w * w for w in r.exact_weights), Fraction(0))
    if nearest <= 0 or nearest**2 != r.margin_squared * length:
        return False
    if r.nearest_positive_mix is None or r.nearest_negative_mix is None:
        return True
    # No plane has a margin above half the distance of two points, one of each hull.
    if not (_convex(r.nearest_positive_mix) and _convex(r.nearest_negative_mix)):
        return False
    ends = _ends(r, r.nearest_positive_mix, r.nearest_negative_mix)
    distance = sum(((a - b) ** 2 for a, b in zip(*ends, strict=True)), Fraction(0))
    return distance == 4 * r.margin_squared


def _sides(r: Separability, weights: Sequence[Fraction], bias: Fraction) -> Iterable[Fraction]:
    """Yield s·(w·x + b) of every row: positive on its own side."""
    for row, positive in zip(r.points.values, r.positive, strict=True):
        value = bias
        for w, a in zip(weights, row, strict=True):
            if w and a:
                value += w * fraction(a)
        yield value if positive else -value


def _convex(mix: Sequence[Fraction]) -> bool:
    return all(w >= 0 for w in mix) and sum(mix) == 1


def _same_point(
    r: Separability,
    positive_mix: Sequence[Fraction],
    negative_mix: Sequence[Fraction],
    point: Sequence[Fraction] | None,
) -> bool:
    if not (_convex(positive_mix) and _convex(negative_mix)):
        return False
    up, down = _ends(r, positive_mix, negative_mix)
    return up == down and (point is None or up == list(point))


def _ends(
    r: Separability, positive_mix: Sequence[Fraction], negative_mix: Sequence[Fraction]
) -> tuple[list[Fraction], list[Fraction]]:
    """Return Σ λᵢ x⁺ᵢ and Σ μⱼ x⁻ⱼ."""
    ends = []
    for mask, mix in ((r.positive, positive_mix), (~r.positive, negative_mix)):
        rows = np.flatnonzero(mask)
        total = [Fraction(0)] * r.points.values.shape[1]
        for i, w in zip(rows, mix, strict=True):
            if w:
                row = r.points.values[i]
                total = [t + w * fraction(a) if a else t for t, a in zip(total, row, strict=True)]
        ends.append(total)
    return ends[0], ends[1]
