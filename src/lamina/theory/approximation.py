"""Universal approximation, constructively: a network with one hidden layer, and a proved bound.

References
----------
Cybenko (1989); Hornik, Stinchcombe and White (1989), "Multilayer feedforward networks are universal
approximators"; Leshno et al. (1993), "Multilayer feedforward networks with a nonpolynomial
activation function can approximate any function".
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import check_choice, check_number, resolve_rng
from lamina.core.errors import SpecError
from lamina.core.network import Network
from lamina.theory.certify import Certificate, as_box
from lamina.theory.construction import Construction
from lamina.theory.evaluate import in_float64
from lamina.theory.expression import Expression, parse_expression

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Float64 = NDArray[np.float64]

_WHERE: Final = "approximate"
ACTIVATIONS: Final = ("relu", "sigmoid", "tanh", "step")


@dataclass(frozen=True)
class Approximation:
    """A network with one hidden layer near a function, and how near: proved, not sampled.

    Attributes
    ----------
    network : Network
        In float64 unless asked otherwise.
    error_bound : float
        For every x of the network's dtype in the box, ``network(x)`` as computed is at most this
        far from f(x) as written.
    reached : bool
        Whether error_bound ≤ tolerance. If not, the network is the best that was found, and
        `certificate.stopped` says what ended the search.
    n_units : int
        Hidden units used.
    n_units_theory : float or None
        What theory says: for relu, ∫ sqrt|f''| / (4 sqrt(tolerance)), and for step, the total
        variation / (2 tolerance), both asymptotically the least number; for sigmoid and tanh the
        latter too, which steep units need, the construction of the textbook proof. None beyond one
        dimension.
    n_units_at_least : int or None
        Proved for relu and step in one dimension: no network of that activation with one hidden
        layer of fewer units comes within the tolerance. None elsewhere.
    expression : Expression
    box : array (d, 2)
    activation : str
    tolerance : float
    certificate : Certificate
        The bound with its lower counterpart, a point where it is attained, and the cost.
    seconds : float
    """

    network: Network
    error_bound: float
    reached: bool
    n_units: int
    n_units_theory: float | None
    n_units_at_least: int | None
    expression: Expression
    box: Float64
    activation: str
    tolerance: float
    certificate: Certificate
    seconds: float

    def __repr__(self) -> str:
        bound = f"{self.error_bound:.4g} of {self.expression.text!r}"
        return f"Approximation({self.n_units} {self.activation} units, proved within {bound})"

    def plot(self) -> Figure:
        """Return a figure of the function, the network and their difference (needs matplotlib)."""
        from lamina.plots.approximation import plot_approximation

        def f(x: Float64) -> Float64:
            return in_float64(self.expression, x)

        return plot_approximation(
            f, lambda x: self.network(x)[:, 0], self.box, self.error_bound, self.knots(),
            name=self.expression.text, n_units=self.n_units, activation=self.activation,
        )  # fmt: skip

    def knots(self) -> Float64:
        """Where units bend, jump or are steepest within a box of one dimension, rising."""
        if len(self.box) > 1 or not self.n_units:
            return np.empty(0)
        weight, bias = self.network.weights[0][:, 0], self.network.biases[0]
        with np.errstate(all="ignore"):
            knots = np.unique(-bias.astype(np.float64) / weight.astype(np.float64))
        inside: Float64 = knots[(knots > self.box[0, 0]) & (knots < self.box[0, 1])]
        return inside


def approximate(
    f: str | Expression,
    box: object,
    tolerance: float,
    activation: str = "relu",
    *,
    max_seconds: float | None = None,
    dtype: str = "float64",
    rng: int | np.random.Generator | None = None,
) -> Approximation:
    """Build a network with one hidden layer within a tolerance of a function, with proof.

    Parameters
    ----------
    f : str or Expression
        The function, as ``theory.parse_expression`` reads it: ``"exp(-4*(x1**2 + x2**2))"``.
    box : pair or sequence of pairs
        ``(low, high)`` in one dimension; a pair a dimension in two or three.
    tolerance : float > 0
        The greatest error wanted, in units of f.
    activation : {"relu", "sigmoid", "tanh", "step"}, default "relu"
        In one dimension relu and step are laid with close to the least number of units. Smooth
        functions take far fewer units of sigmoid or tanh. step is for one dimension only.
    max_seconds : float > 0, optional
        Return the best found by then, with a bound that holds, though above the tolerance. None
        goes on to 20,000 units in one dimension (1,600 in two and three).
    dtype : {"float64", "float32"}, default "float64"
        Of the network. Its rounding is within the bound, at its worst: float32 adds up to 6e-8 a
        unit, times the size of what they add up.
    rng : int or numpy.random.Generator, optional
        In two and three dimensions, turn directions and shift thresholds at random, to see how
        much depends on their layout. None lays them out evenly, the same each time.

    Returns
    -------
    Approximation

    Raises
    ------
    SpecError
        An argument is not as described, or the box has more than three dimensions.
    DataError
        f is undefined or unbounded somewhere in the box.

    Notes
    -----
    One dimension, relu: the polygon with the fewest corners within f ± tolerance, a unit a corner
    (Imai and Iri 1986). step: the longest constant pieces. sigmoid, tanh: steep units laid along
    the axis. Two and three dimensions: units in evenly spread directions; both solve for the output
    weights by reweighted least squares, with more and more units until the certificate holds.

    Examples
    --------
    >>> from lamina import theory
    >>> a = theory.approximate("sin(6*x)", (0, 1), tolerance=0.01, activation="relu")
    >>> a.reached, a.error_bound <= 0.01, a.n_units, a.n_units_at_least
    (True, True, 12, 11)
    """
    expression = parse_expression(f)
    activation = check_choice(activation, ACTIVATIONS, "activation", _WHERE)
    ends = as_box(box, _WHERE, most=3)
    tolerance = check_number(tolerance, "tolerance", _WHERE, 0.0, closed="right")
    if max_seconds is not None:
        max_seconds = check_number(max_seconds, "max_seconds", _WHERE, 0.0, closed="right")
    if expression.d_in > len(ends):
        raise SpecError(
            f"{_WHERE}: expected a function of {len(ends)} variable{'s' if len(ends) > 1 else ''}, "
            f"as many as the box has dimensions, got {expression.text!r} with x{expression.d_in}. "
            f"Pass one pair (low, high) for each variable."
        )
    if activation == "step" and len(ends) > 1:
        raise SpecError(
            f"{_WHERE}: expected relu, sigmoid or tanh for a box of {len(ends)} dimensions, got "
            f"step, whose sums of half-spaces are laid out here in one dimension only. Choose "
            f"another activation."
        )
    generator = None if rng is None else resolve_rng(rng)
    work = Construction(expression, ends, tolerance, activation, dtype, max_seconds, generator)
    network, certificate = work.run()
    theory, least = work.counts()
    return Approximation(
        network=network,
        error_bound=certificate.upper,
        reached=certificate.upper <= tolerance,
        n_units=sum(network.spec.widths),
        n_units_theory=theory,
        n_units_at_least=least,
        expression=expression,
        box=ends,
        activation=activation,
        tolerance=tolerance,
        certificate=certificate,
        seconds=time.perf_counter() - work.start,
    )
