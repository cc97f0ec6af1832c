"""``lamina prove approximate``: a network with one hidden layer near a function, with a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamina.cli.box_text import box_as_text, box_option, read_box, rounded_up
from lamina.cli.console import check_output, json_option
from lamina.cli.proof import Proof, check_plot, plot_option, show

if TYPE_CHECKING:
    from lamina.theory.approximation import Approximation
    from lamina.theory.learned import Learned

VERB = "prove approximate"
MOST_KNOTS = 20  # of a table that people read
STOPPED = {
    "time": "--max-seconds was over",
    "boxes": "the bound would need more boxes than are allowed",
}


@click.command(
    "approximate",
    epilog='Example: lamina prove approximate "sin(6*x)" --tolerance 0.01 --plot sine.png',
)
@click.argument("expression", metavar="EXPR")
@box_option("0:1")
@click.option("--tolerance", type=float, default=0.01, show_default=True, help="Greatest error.")
@click.option(
    "--activation",
    type=click.Choice(["relu", "sigmoid", "tanh", "step"]),
    default="relu",
    show_default=True,
    help="Of the hidden units.",
)
@click.option("--max-seconds", type=float, help="Take the best found by then, and its bound.")
@click.option(
    "--learn", type=int, metavar="N", help="Train N networks of equal width for comparison."
)
@click.option("--out", metavar="FILE", help="Save the network, for lamina.load.")
@json_option
@plot_option
def command(
    expression: str,
    box: str,
    tolerance: float,
    activation: str,
    max_seconds: float | None,
    learn: int | None,
    out: str | None,
    as_json: bool,
    plot: str | None,
) -> None:
    """Build a network with one hidden layer near a function, and prove how near.

    EXPR is a formula in x (or x1, x2, x3) with + - * / **, pi, e and sin, cos, tan, exp, log, sqrt,
    abs, sign, tanh, sigmoid, relu, max, min. Put -- before one that begins with a minus sign. The
    bound holds at every number of the box, the rounding of the network's arithmetic included.
    """
    from lamina.theory.approximation import approximate
    from lamina.theory.expression import parse_expression

    check_plot(plot, VERB)
    if out is not None:
        check_output(out, VERB, ())
    f = parse_expression(expression)
    pairs = read_box(box, max(f.d_in, 1), VERB)
    found = approximate(f, pairs, tolerance, activation, max_seconds=max_seconds)
    learned = None
    if learn is not None:
        from lamina.theory.learned import learned_against

        learned = learned_against(found, n_seeds=learn, max_seconds=max_seconds)
    if out is not None:
        found.network.save(out)
    n = found.n_units
    units = f"{n} {activation} unit{'' if n == 1 else 's'}" if n else "no unit, a constant,"
    where = box_as_text(pairs)
    claim = (
        f"A network with one hidden layer of {units} stays within "
        f"{rounded_up(found.error_bound)} of {f.text} on {where}."
    )
    if not found.reached:
        why = STOPPED.get(found.certificate.stopped, "no network that was tried comes closer")
        claim += f" The tolerance {tolerance:g} was not reached: {why}."
    proof = Proof(
        claim,
        tuple(_evidence(found, learned)),
        tuple(_check(found)),
        _facts(found, learned, pairs),
    )
    show(proof, as_json, plot, VERB, found.plot)


def _evidence(a: Approximation, learned: Learned | None) -> list[str]:
    c = a.certificate
    at = ", ".join(f"{v:.6g}" for v in c.at)
    lines = [
        f"proved      |network - function| <= {rounded_up(a.error_bound)} everywhere, in "
        f"{c.n_boxes:,} boxes with every rounding bounded",
        f"attained    at least {c.lower:.4g}, at x = {at}",
        f"units       {a.n_units} used",
    ]
    if a.n_units_theory is not None:
        formula = "∫ sqrt|f''| / (4 sqrt(tolerance))" if a.activation == "relu" else ""
        formula = formula or "total variation / (2 tolerance), by steep units"
        lines.append(f"theory      {a.n_units_theory:.1f} = {formula}")
    if a.n_units_at_least is not None:
        lines.append(
            f"no fewer    than {a.n_units_at_least} {a.activation} units can do it in one hidden "
            f"layer (proved)"
        )
    lines.append(f"time        {a.seconds:.2f} s")
    if learned is not None:
        errors = sorted(learned.errors)
        lines += [
            "",
            f"learned     {len(errors)} networks of the same width, L-BFGS from seeds "
            f"{learned.seeds[0]} to {learned.seeds[-1]}, proved bounds:",
            f"            {', '.join(f'{e:.4g}' for e in errors)}",
        ]
    knots = a.knots()
    if a.activation in ("relu", "step") and len(a.box) == 1 and 0 < len(knots) <= MOST_KNOTS:
        lines += ["", *_table(a)]
    return lines


def _table(a: Approximation) -> list[str]:
    """The network at its knots, and the function."""
    import numpy as np

    from lamina.theory.evaluate import in_float64

    x = np.array([a.box[0, 0], *a.knots(), a.box[0, 1]])[:, np.newaxis]
    y, wanted = a.network(x)[:, 0], in_float64(a.expression, x)
    lines = [f"{'x':>12}  {'network':>12}  {'function':>12}  {'difference':>12}"]
    rows = zip(x[:, 0], y, wanted, y - wanted, strict=True)
    return [*lines, *("  ".join(f"{v:>12.6f}" for v in row) for row in rows)]


def _check(a: Approximation) -> list[str]:
    if a.activation == "relu" and len(a.box) == 1 and a.n_units:
        return [
            "between neighbouring knots the network is a straight line: the difference is greatest",
            "at a knot or where the function's slope is the line's. Work both out.",
        ]
    if a.activation == "step" and len(a.box) == 1 and a.n_units:
        return [
            "between neighbouring knots the network is constant: the difference is greatest at a",
            "knot or where the function turns. Work both out.",
        ]
    return [
        "--out FILE saves the network: y = offset + sum of out * phi(weight . x + bias), one term",
        "a unit. Compare it with the function anywhere in the box: the bound holds at every point.",
    ]


def _facts(
    a: Approximation, learned: Learned | None, pairs: list[tuple[float, float]]
) -> dict[str, Any]:
    c = a.certificate
    facts: dict[str, Any] = {
        "expression": a.expression.text,
        "box": [list(p) for p in pairs],
        "activation": a.activation,
        "tolerance": a.tolerance,
        "reached": a.reached,
        "error_bound": a.error_bound,
        "error_attained": c.lower,
        "attained_at": [float(v) for v in c.at],
        "n_units": a.n_units,
        "n_units_theory": a.n_units_theory,
        "n_units_at_least": a.n_units_at_least,
        "n_boxes": c.n_boxes,
        "stopped": c.stopped,
        "seconds": a.seconds,
        "network": {
            "weights": [w.tolist() for w in a.network.weights],
            "biases": [b.tolist() for b in a.network.biases],
        },
    }
    if learned is not None:
        facts["learned"] = {
            "seeds": list(learned.seeds),
            "error_bounds": [float(e) for e in learned.errors],
        }
    return facts
