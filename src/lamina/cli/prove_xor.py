"""``lamina prove xor``: no linear unit computes the exclusive or."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lamina.cli.console import json_option
from lamina.cli.proof import Proof, check_plot, plot_option, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lamina.theory.certificate import Separability

CORNERS = [[0, 0], [0, 1], [1, 0], [1, 1]]
XOR = [0, 1, 1, 0]


@click.command("xor", epilog="Example: lamina prove xor --plot xor.png")
@json_option
@plot_option
def command(as_json: bool, plot: str | None) -> None:
    """Prove that no linear unit computes the exclusive or.

    The centre of the square lies half-way between the corners where it is 1, and half-way between
    those where it is 0: no line has the one pair on one side and the other pair on the other.
    """
    from lamina.cli.exact_text import exact_text, vector
    from lamina.theory.linear_separability import separability
    from lamina.theory.perceptron_rule import perceptron

    check_plot(plot, "prove xor")
    r = separability(CORNERS, XOR)
    run = perceptron(CORNERS, XOR)
    if r.point is None or r.positive_mix is None or r.negative_mix is None or run.cycle is None:
        raise AssertionError("the exclusive or became separable")
    up = [c for c, y in zip(CORNERS, XOR, strict=True) if y]
    down = [c for c, y in zip(CORNERS, XOR, strict=True) if not y]
    mixes = (_mix(r.positive_mix, up), _mix(r.negative_mix, down))
    proof = Proof(
        "No linear unit w1·x1 + w2·x2 + b is positive exactly where x1 xor x2 is 1.",
        (
            f"where xor is 1:  {mixes[0]} = {vector(r.point)}",
            f"where xor is 0:  {mixes[1]} = {vector(r.point)}",
            "The two convex hulls share that point. A linear unit that is positive on (0, 1) and",
            "(1, 0) is positive there; one that is not positive on (0, 0) and (1, 1) is not.",
            f"Checked in fractions, without the solver: {'yes' if r.verify() else 'NO'}.",
            f"The perceptron rule agrees: {run.n_mistakes} mistakes in one epoch bring its weights "
            "back to 0, so it goes round for ever.",
        ),
        (
            "Write down the four conditions on w1, w2 and b:",
            "  (0, 1): w2 + b > 0      (1, 0): w1 + b > 0",
            "  (0, 0): b ≤ 0           (1, 1): w1 + w2 + b ≤ 0",
            "The first two add up to w1 + w2 + 2b > 0, the last two to w1 + w2 + 2b ≤ 0.",
        ),
        {
            "separable": False,
            "positive_mix": exact_text(r.positive_mix),
            "negative_mix": exact_text(r.negative_mix),
            "point": exact_text(r.point),
            "verified": r.verify(),
            "perceptron_cycle_epochs": list(run.cycle),
        },
    )
    show(proof, as_json, plot, "prove xor", lambda: _draw(r))


def _mix(weights: tuple[object, ...], corners: list[list[int]]) -> str:
    return " + ".join(f"{w}·({a}, {b})" for w, (a, b) in zip(weights, corners, strict=True))


def _draw(r: Separability) -> Figure:
    import numpy as np

    from lamina.plots.separability import plot_common_point

    mix = np.empty(4)
    mix[r.positive], mix[~r.positive] = np.asarray(r.positive_mix), np.asarray(r.negative_mix)
    point = np.asarray(r.point).tolist()
    classes = ("x1 xor x2 = 0", "x1 xor x2 = 1")
    return plot_common_point(np.array(CORNERS, np.float64), r.positive, mix, point, classes=classes)
