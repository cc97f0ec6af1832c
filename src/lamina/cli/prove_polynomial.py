"""``lamina prove polynomial``: polynomial units are not enough, whatever the width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lamina.cli.box_text import box_as_text, box_option, read_box, rounded_down, rounded_up
from lamina.cli.console import json_option
from lamina.cli.proof import Proof, check_plot, plot_option, show

if TYPE_CHECKING:
    from fractions import Fraction

    from lamina.theory.polynomial import PolynomialDistance

VERB = "prove polynomial"
MOST_POINTS = 12  # of a table that people read
MOST_DIGITS = 24  # of a fraction that people read


@click.command("polynomial", epilog='Example: lamina prove polynomial "abs(x)" --degree 4')
@click.argument("expression", metavar="[EXPR]", default="abs(x)")
@click.option("--degree", type=int, default=3, show_default=True, help="Of the activation.")
@box_option("-1:1", 1)
@json_option
@plot_option
def command(expression: str, degree: int, box: str, as_json: bool, plot: str | None) -> None:
    """Show why activations must not be polynomials (Leshno et al. 1993).

    A hidden layer of polynomial units of degree k gives a polynomial of degree k, however wide it
    is. A few points prove, in fractions, how far all of those stay from EXPR (default abs(x)); a
    relu network comes closer.
    """
    from lamina.theory.approximation import approximate
    from lamina.theory.polynomial import polynomial_distance

    check_plot(plot, VERB)
    pairs = read_box(box, 1, VERB)
    found = polynomial_distance(expression, degree, pairs)
    bound = float(found.bound)
    closer = None
    if bound > 1e-9:
        closer = approximate(found.expression, pairs, 0.5 * bound, max_seconds=5.0)
    evidence = _evidence(found)
    if closer is not None and closer.reached:
        evidence.append(
            f"relu        {closer.n_units} units in one hidden layer: within "
            f"{rounded_up(closer.error_bound)} (proved)"
        )
    claim = (
        f"No network with one hidden layer of polynomial units of degree {degree}, of any width, "
        f"comes closer to {found.expression.text} on {box_as_text(pairs)} than "
        f"{_text(found.bound, True)}."
    )
    if found.is_polynomial:
        claim = (
            f"{found.expression.text} is itself a polynomial of degree {degree} at most: its "
            "distance from these is 0. Take a lower degree, or another function, such as abs(x)."
        )
    elif found.bound == 0:
        claim = (
            f"Polynomials of degree {degree} come so close to {found.expression.text} on "
            f"{box_as_text(pairs)} that no distance can be proved: take a lower degree."
        )
    facts = {
        "expression": found.expression.text,
        "box": [list(p) for p in pairs],
        "degree": degree,
        "is_polynomial": found.is_polynomial,
        "bound": bound,
        "bound_exact": str(found.bound) if found.bound.denominator.bit_length() < 4000 else None,
        "points": [float(p) for p in found.points],
        "weights": [float(w) for w in found.weights],
        "verified": found.verify(),
        "relu_units": None if closer is None else closer.n_units,
        "relu_error_bound": None if closer is None else closer.error_bound,
    }
    check = (
        f"sum w_i p(x_i) = 0 for p = 1, x, …, x^{degree}: so for all polynomials of the degree,",
        "and for every network of such units, which is one.",
        "Then |sum w_i f(x_i)| = |sum w_i (f - p)(x_i)| <= sum |w_i| max |f - p| = max |f - p|.",
    )
    show(Proof(claim, tuple(evidence), check, facts), as_json, plot, VERB, found.plot)


def _evidence(found: PolynomialDistance) -> list[str]:
    lines = []
    if len(found.points) <= MOST_POINTS:
        lines += [f"{'x':>14}  {'weight w':>24}  {'f(x)':>14}"]
        for x, w, (low, _) in zip(found.points, found.weights, found.values, strict=True):
            lines.append(f"{_text(x):>14}  {_text(w):>24}  {_text(low):>14}")
        lines.append("")
    lines.append(
        f"proved      |sum w f| = {_text(found.bound, True)}, with sum |w| = 1: "
        f"{'verified in fractions' if found.verify() else 'not verified, a bug in lamina'}"
    )
    return lines


def _text(value: Fraction, is_bound: bool = False) -> str:
    """A fraction as it is if it is short, else in digits; a lower bound is rounded down."""
    if is_bound and len(str(value.denominator)) > MOST_DIGITS // 2:
        return rounded_down(float(value))
    if value.denominator.bit_length() + value.numerator.bit_length() > 60:
        return f"{float(value):.6g}"
    text = str(value)
    return text if len(text) <= MOST_DIGITS else f"{float(value):.6g}"
