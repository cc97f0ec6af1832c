"""``lamina prove depth``: a few units in each of many layers, or exponentially many in one."""

from __future__ import annotations

import click

from lamina.cli.console import json_option
from lamina.cli.proof import Proof, check_plot, plot_option, show

VERB = "prove depth"
MOST_DEPTHS = 6  # lines of a table that people read


@click.command("depth", epilog="Example: lamina prove depth --folds 8 --plot sawtooth.png")
@click.option("--folds", type=int, default=6, show_default=True, help="Layers of the deep network.")
@json_option
@plot_option
def command(folds: int, as_json: bool, plot: str | None) -> None:
    """Show that depth saves units: the sawtooth of Telgarsky (2016).

    A deep network of two relu units a layer folds the line again and again; a network with one
    hidden layer that comes within 1/2 of the result needs a unit for each turn but one. Both are
    built, and checked in fractions.
    """
    from lamina.theory.sawtooth import sawtooth

    check_plot(plot, VERB)
    saw = sawtooth(folds)
    verified = saw.verify()
    n = saw.n_pieces
    least = {depth: saw.n_units_at_least(depth) for depth in range(1, folds + 1)}
    deep, shallow = 2 * folds, n
    checked = "both are the sawtooth, exactly" if folds <= 12 else "the deep one is the sawtooth"
    checked = checked if verified else "not the sawtooth, a bug in lamina"
    proof = Proof(
        f"{folds} hidden layer{'s make' if folds > 1 else ' makes'} a sawtooth of {n} straight "
        f"pieces with 2 relu units a layer; one hidden layer needs at least {least[1]} "
        f"unit{'s' if least[1] > 1 else ''} to come within 1/2 of it.",
        (
            f"deep        {deep} units, {saw.deep.n_params} parameters: tent(tent(…tent(x)…)), "
            f"tent(x) = 2 relu(x) - 4 relu(x - 1/2)",
            f"shallow     {shallow} units, {3 * n + 1} parameters: a kink at each k/{n}",
            f"verified    {checked}: k/{n} -> k mod 2, straight between",
            "",
            "hidden layers   units without which none comes within 1/2",
            *(f"{depth:>13}   {units}" for depth, units in list(least.items())[:MOST_DEPTHS]),
        ),
        (
            f"between k/{n} and (k+1)/{n} the sawtooth goes from 0 to 1 or back: what is less than "
            f"1/2 away crosses 1/2 {n} times,",
            f"once on a straight piece at most. m relu units in one hidden layer bend the line m "
            f"times, into m + 1 pieces: m >= {least[1]}.",
            "with L layers, each of m_l units multiplies the pieces by m_l + 1 at most: "
            "(m/L + 1)^L of m units in all.",
        ),
        {
            "folds": folds,
            "n_pieces": n,
            "deep_units": deep,
            "shallow_units": shallow,
            "units_at_least": {str(depth): units for depth, units in least.items()},
            "verified": verified,
        },
    )
    show(proof, as_json, plot, VERB, saw.plot)
