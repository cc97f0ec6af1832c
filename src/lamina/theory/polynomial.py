"""Why polynomial activations are not enough: a distance that no width overcomes, in fractions.

A network with one hidden layer of units phi, phi a polynomial of degree k, is a polynomial of
degree k at most, however many units it has. How far a function is from all of those is bounded
from below by k + 2 points (de la Vallée Poussin): every polynomial p of degree ≤ k has

    sum_i w_i p(x_i) = 0,   w_i = 1 / prod_{j != i} (x_i - x_j),   so that
    max_i |f(x_i) - p(x_i)| ≥ |sum_i w_i f(x_i)| / sum_i |w_i|.

References
----------
Leshno, Lin, Pinkus and Schocken (1993), "Multilayer feedforward networks with a nonpolynomial
activation function can approximate any function". Cheney (1966), "Introduction to approximation
theory", chapter 3, for the bound and Remez's exchange that finds the points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import check_count
from lamina.core.errors import SpecError
from lamina.theory.certify import as_box
from lamina.theory.enclose import at_points
from lamina.theory.evaluate import exactly, in_float64, run
from lamina.theory.expression import Expression, Step, parse_expression

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Float64 = NDArray[np.float64]

_WHERE: Final = "polynomial_distance"
_MOST_DEGREE: Final = 40
_GRID: Final = 4097  # so that points are short fractions on short boxes


@dataclass(frozen=True)
class PolynomialDistance:
    """A proof that polynomials of a degree stay away from a function.

    Attributes
    ----------
    expression : Expression
    box : array (1, 2)
    degree : int
        Of the polynomials, at most.
    points : tuple of Fraction
        degree + 2 points of the box, rising.
    weights : tuple of Fraction
        w_i of the module's first lines, scaled so that sum |w_i| = 1: they annul every polynomial
        of the degree.
    values : tuple of pairs of Fraction
        Enclosures of f at the points; both ends are equal where f is rational.
    bound : Fraction
        No polynomial of the degree is closer to f than this, all over the box.
    coefficients : array (degree + 1,)
        Of Chebyshev polynomials on the box: the closest polynomial, in floats. Not part of the
        proof; its error shows how sharp the bound is.
    """

    expression: Expression
    box: Float64
    degree: int
    points: tuple[Fraction, ...]
    weights: tuple[Fraction, ...]
    values: tuple[tuple[Fraction, Fraction], ...]
    bound: Fraction
    coefficients: Float64

    def __repr__(self) -> str:
        away = f"at least {float(self.bound):.6g} from {self.expression.text!r}"
        return f"PolynomialDistance(degree {self.degree}: {away})"

    @property
    def is_polynomial(self) -> bool:
        """Whether f, as it is written, is a polynomial of the degree: then the distance is 0.

        Terms that cancel are not looked for: x**9 - x**9 counts as degree 9.
        """
        return _written_degree(self.expression) <= self.degree

    def verify(self) -> bool:
        """Check in fractions that the weights annul 1, x, …, x^degree and give the bound."""
        low, high = (Fraction(float(v)) for v in self.box[0])
        annul = all(
            sum((w * x**power for w, x in zip(self.weights, self.points, strict=True)), Fraction(0))
            == 0
            for power in range(self.degree + 1)
        )
        inside = low <= min(self.points) and max(self.points) <= high
        one = sum(map(abs, self.weights)) == 1
        return annul and inside and one and self.bound == _bound(self.weights, self.values)

    def polynomial(self, x: Float64) -> Float64:
        """The closest polynomial at x (n,)."""
        low, high = self.box[0]
        t = (2 * x - low - high) / (high - low)
        return np.asarray(np.polynomial.chebyshev.chebval(t, self.coefficients))

    def plot(self) -> Figure:
        """Return a figure of the function, the closest polynomial and the points of the proof."""
        from lamina.plots.polynomial import plot_polynomial_distance

        return plot_polynomial_distance(
            lambda x: in_float64(self.expression, x[:, np.newaxis]),
            self.polynomial,
            (float(self.box[0, 0]), float(self.box[0, 1])),
            np.array([float(x) for x in self.points]),
            float(self.bound),
            name=self.expression.text,
            degree=self.degree,
        )


def polynomial_distance(
    f: str | Expression, degree: int, box: object = (-1, 1)
) -> PolynomialDistance:
    """Bound from below how close polynomials come to a function, and with them a kind of network.

    Networks with one hidden layer of units that are polynomials of degree k are polynomials of
    degree k; with L hidden layers, of degree k^L. No number of units changes that.

    Parameters
    ----------
    f : str or Expression
        Of one variable.
    degree : int
        0 to 40.
    box : pair, default (-1, 1)

    Returns
    -------
    PolynomialDistance

    Raises
    ------
    SpecError
        An argument is not as described, or f is not defined all over the box.

    Examples
    --------
    >>> from lamina import theory
    >>> p = theory.polynomial_distance("abs(x)", 2)
    >>> p.bound, p.points
    (Fraction(1, 8), (Fraction(-1, 2), Fraction(0, 1), Fraction(1, 2), Fraction(1, 1)))
    >>> p.verify()
    True
    """
    expression = parse_expression(f)
    ends = as_box(box, _WHERE, most=1)
    degree = check_count(degree, "degree", _WHERE, 0)
    if expression.d_in > 1 or degree > _MOST_DEGREE:
        raise SpecError(
            f"{_WHERE}: expected a function of x alone and a degree of at most {_MOST_DEGREE}, got "
            f"{expression.text!r} and {degree}. Fix the other variables, or lower the degree."
        )
    x = np.linspace(ends[0, 0], ends[0, 1], _GRID)
    value = in_float64(expression, x[:, np.newaxis])
    if not np.isfinite(value).all():
        raise SpecError(
            f"{_WHERE}: expected {expression.text!r} to be defined all over the box, got "
            f"{value[~np.isfinite(value)][0]} at {x[~np.isfinite(value)][0]:g}. Make it smaller."
        )
    index, coefficients = _remez(x, value, degree)
    points = tuple(Fraction(float(v)) for v in x[index])
    weights = _annihilator(points)
    values = tuple(_value(expression, point) for point in points)
    bound = _bound(weights, values)
    return PolynomialDistance(
        expression, ends, degree, points, weights, values, bound, coefficients
    )


def _written_degree(f: Expression) -> float:
    """A degree that f, a polynomial, has at most; infinity if it is not written as one."""

    def operate(step: Step, degrees: Sequence[float]) -> float:
        if step.op == "pow" and (step.value == 0 or max(degrees) == 0):
            return 0
        if step.op == "pow":
            power = int(step.value or 0)
            return power * degrees[0] if power > 0 else math.inf
        if step.op in ("neg", "add", "sub"):
            return max(degrees)
        if step.op == "mul":
            return sum(degrees)
        if step.op == "div" and degrees[1] == 0:
            return degrees[0]
        return 0 if max(degrees) == 0 else math.inf  # functions of constants are constants

    return float(run(f, lambda step: 1 if step.op == "var" else 0, operate))


def _annihilator(points: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """Weights of a divided difference, scaled to sum |w_i| = 1."""
    raw = [
        1 / math.prod((x - other for j, other in enumerate(points) if j != i), start=Fraction(1))
        for i, x in enumerate(points)
    ]
    total = sum(map(abs, raw))
    return tuple(w / total for w in raw)


def _value(f: Expression, x: Fraction) -> tuple[Fraction, Fraction]:
    """An enclosure of f(x); exact where f is rational."""
    if f.is_rational:
        exact = exactly(f, [x], _WHERE)
        return exact, exact
    found, _ = at_points(f, np.array([[float(x)]]))
    return Fraction(float(found.lo[0])), Fraction(float(found.hi[0]))


def _bound(
    weights: tuple[Fraction, ...], values: tuple[tuple[Fraction, Fraction], ...]
) -> Fraction:
    """The least |sum w_i f_i| for f_i within their enclosures."""
    pairs = list(zip(weights, values, strict=True))
    low = sum((min(w * a, w * b) for w, (a, b) in pairs), Fraction(0))
    high = sum((max(w * a, w * b) for w, (a, b) in pairs), Fraction(0))
    return max(low, -high, Fraction(0))


def _remez(x: Float64, f: Float64, degree: int) -> tuple[NDArray[np.intp], Float64]:
    """Exchange points until the error of the closest polynomial has equal extremes there."""
    if degree == 0:  # the middle of the values; where two starts see the same, none is exchanged
        ends = np.sort([int(f.argmin()), int(f.argmax())])
        index = ends if ends[0] < ends[1] else np.array([0, len(x) - 1])
        return index, np.array([0.5 * (f.min() + f.max())])
    n = degree + 2
    t = np.linspace(-1.0, 1.0, len(x))
    basis = np.polynomial.chebyshev.chebvander(t, degree)  # (grid, degree + 1)
    # Not quite Chebyshev's points: symmetric ones see nothing of an even function.
    start = -np.cos(math.pi * np.arange(n) / (n - 1))
    start = start + 0.02 * (1 - start**2)
    index = np.clip(np.searchsorted(t, start), 0, len(t) - 1)
    best, least = -1.0, math.inf
    points, closest = index, np.zeros(degree + 1)
    for _ in range(60):
        alternating = (-1.0) ** np.arange(n)
        system = np.column_stack([basis[index], alternating])
        solution = np.linalg.solve(system, f[index])
        coefficients, level = solution[:-1], abs(float(solution[-1]))
        if level > best:
            best, points = level, index
        error = f - basis @ coefficients
        if np.abs(error).max() < least:
            least, closest = float(np.abs(error).max()), coefficients
        extremes = _extremes(error)
        if len(extremes) < n or np.abs(error).max() <= level * (1 + 1e-9):
            break
        starts = range(len(extremes) - n + 1)
        runs = [extremes[s : s + n] for s in starts]
        top = int(np.abs(error).argmax())
        holding = [r for r in runs if top in r] or runs
        index = max(holding, key=lambda r: float(np.abs(error[r]).min()))
    return points, closest


def _extremes(error: Float64) -> NDArray[np.intp]:
    """The index of the greatest |error| of each run of one sign."""
    sign = np.sign(error)
    cuts = np.flatnonzero(np.diff(sign) != 0) + 1
    found = [
        piece[int(np.abs(error[piece]).argmax())]
        for piece in np.split(np.arange(len(error)), cuts)
        if sign[piece[0]] != 0
    ]
    return np.array(found, np.intp)
