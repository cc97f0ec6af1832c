"""What no linear unit can know of a pattern that moves, and what a feature can."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError, ShapeError
from lamina.theory.certificate import Separability
from lamina.theory.exact import ExactVector, as_points, fraction
from lamina.theory.groups import Group, as_pattern, generators_of, orbit
from lamina.theory.linear_separability import decide


@dataclass(frozen=True, eq=False)
class InvariantSeparability:
    """Whether a linear unit tells two patterns apart under every image of a group.

    Attributes
    ----------
    separable : bool
    orbit_a, orbit_b : array (n_images, *shape)
        Every image of the two patterns.
    mean_a, mean_b : ExactVector (n_pixels,)
        The means of the orbits. If they are equal, that point is in both convex hulls, and uniform
        weights prove that no hyperplane separates the orbits. If they differ, their difference is
        a direction that every image of a pattern has the same product with, and it separates.
    proof : Separability
        Of the two orbits as labelled points: a is positive.
    """

    orbit_a: NDArray[Any] = field(repr=False)
    orbit_b: NDArray[Any] = field(repr=False)
    mean_a: ExactVector
    mean_b: ExactVector
    proof: Separability
    generators: tuple[tuple[int, ...], ...] = field(repr=False)

    @property
    def separable(self) -> bool:
        """Whether some linear unit tells the patterns apart, however the group moves them."""
        return self.proof.separable

    def verify(self) -> bool:
        """Check in fractions that the orbits are closed, and the proof of (in)separability."""
        every: list[tuple[Fraction, ...]] = []
        sides: list[bool] = []
        for images, mean in ((self.orbit_a, self.mean_a), (self.orbit_b, self.mean_b)):
            rows = [tuple(fraction(v) for v in row) for row in _exact_rows(images)]
            every += rows
            sides += [not sides] * len(rows)  # a is positive
            known = set(rows)
            if any(tuple(row[i] for i in p) not in known for row in rows for p in self.generators):
                return False
            n = len(rows)
            if any(sum(c) != n * m for c, m in zip(zip(*rows, strict=True), mean, strict=True)):
                return False
        proved = [tuple(fraction(v) for v in row) for row in self.proof.points.values]
        if proved != every or self.proof.positive.tolist() != sides:
            return False
        return self.separable == (self.mean_a != self.mean_b) and self.proof.verify()


def invariant_separability(a: object, b: object, group: Group = "cyclic") -> InvariantSeparability:
    """Decide whether a linear unit tells two patterns apart under every image of a group.

    The theorem: it can if and only if the means of the two orbits differ. For averaging over the
    group turns any separating w into an invariant one, which sees of a pattern only its orbit's
    mean. Under shifts the mean is the number of black pixels: equal counts, no linear unit.

    Parameters
    ----------
    a, b : array-like (n,) or (height, width), of one shape
    group : as in `orbit`, default "cyclic"

    Returns
    -------
    InvariantSeparability

    Raises
    ------
    ShapeError, SpecError, DataError
        The patterns are of different shapes, one is an image of the other; as in `orbit`.

    References
    ----------
    Minsky and Papert 1969, "Perceptrons", the group invariance theorem (section 2.3).

    Examples
    --------
    >>> from lamina import theory
    >>> r = theory.invariant_separability([1, 1, 0, 0, 0], [1, 0, 1, 0, 0])
    >>> r.separable, [str(v) for v in r.mean_a], r.verify()
    (False, ['2/5', '2/5', '2/5', '2/5', '2/5'], True)
    """
    where = "invariant_separability"
    first, second = as_pattern(a, where, "a"), as_pattern(b, where, "b")
    if first.shape != second.shape:
        raise ShapeError(
            f"{where}: expected patterns of one shape, got {first.shape} and {second.shape}. "
            "Pad the smaller one."
        )
    generators = tuple(generators_of(group, first.shape, where))
    orbit_a, orbit_b = orbit(first, generators), orbit(second, generators)
    rows = np.concatenate([_exact_rows(orbit_a), _exact_rows(orbit_b)])
    points = as_points(rows, "pattern", where)
    n_a, n_b = len(orbit_a), len(orbit_b)
    images = {tuple(row) for row in rows[:n_a].tolist()}
    if tuple(rows[n_a].tolist()) in images:
        raise DataError(
            f"{where}: expected two patterns, got b as an image of a under the group: nothing "
            "can tell them apart. Choose another pattern or a smaller group."
        )
    means = [
        [Fraction(sum(map(fraction, c)), len(part)) for c in zip(*part, strict=True)]
        for part in (points.values[:n_a], points.values[n_a:])
    ]
    positive = np.arange(n_a + n_b) < n_a
    if means[0] == means[1]:
        mixes = (ExactVector([Fraction(1, n_a)] * n_a), ExactVector([Fraction(1, n_b)] * n_b))
        proof = Separability(
            "none",
            ("b", "a"),
            points,
            positive,
            support=tuple(range(n_a + n_b)),
            positive_mix=mixes[0],
            negative_mix=mixes[1],
            point=ExactVector(means[0]),
            interior_positive_mix=mixes[0],
            interior_negative_mix=mixes[1],
        )
    else:
        w = [p - q for p, q in zip(*means, strict=True)]
        proof = _invariant_plane(points, positive, w, means)
    return InvariantSeparability(
        orbit_a, orbit_b, ExactVector(means[0]), ExactVector(means[1]), proof, generators
    )


def _invariant_plane(
    points: Any, positive: Any, w: list[Fraction], means: list[list[Fraction]]
) -> Separability:
    """Return the proof by the plane half-way between the two means: each orbit is at one side."""
    ends = [sum((u * v for u, v in zip(w, mean, strict=True)), Fraction(0)) for mean in means]
    squared = sum((u * u for u in w), Fraction(0)) / 4
    rounded = decide(points, positive, ("b", "a"))
    return Separability(
        "strict",
        ("b", "a"),
        points,
        positive,
        exact_weights=ExactVector(w),
        exact_bias=-sum(ends, Fraction(0)) / 2,
        margin_squared=squared,
        float_separates=rounded.float_separates,
    )


def autocorrelation(pattern: object) -> NDArray[Any]:
    """Return the circular autocorrelation, which is the same for every shift of a pattern.

    ``r[k] = Σᵢ pattern[i] · pattern[i + k]``, indices taken around; in two dimensions k is a pair.
    For 0/1 patterns: how many pairs of black pixels are k apart. Its Fourier transform is the power
    spectrum.

    Parameters
    ----------
    pattern : array-like (n,) or (height, width)

    Returns
    -------
    array of the same shape; integers for integers, exact for Fractions

    Raises
    ------
    ShapeError, DataError
        As in `orbit`.

    Examples
    --------
    >>> from lamina import theory
    >>> theory.autocorrelation([1, 1, 0, 0, 0]).tolist()
    [2, 1, 0, 0, 1]
    >>> theory.autocorrelation([0, 0, 1, 1, 0]).tolist()
    [2, 1, 0, 0, 1]
    """
    values = as_pattern(pattern, "autocorrelation")
    result = np.empty_like(values)
    axes = tuple(range(values.ndim))
    for k in np.ndindex(values.shape):
        result[k] = (values * np.roll(values, [-i for i in k], axes)).sum()
    return result


def _exact_rows(images: NDArray[Any]) -> NDArray[Any]:
    flat = images.reshape(len(images), -1)
    return as_points(flat, "pattern", "orbit").values
