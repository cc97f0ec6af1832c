"""``lamina prove activations``: what each activation is, and what it costs here."""

from __future__ import annotations

import click

from lamina.cli.console import json_option
from lamina.cli.proof import Proof, check_plot, plot_option, show

_CLAIM = (
    "An activation's formula decides where its units saturate, how gradients pass and what it costs"
)
_CHECK = (
    "Every formula is a Python expression of z: evaluate it, and its derivative by differences.",
    "sigmoid(0) = 0.5 with slope 0.25, its largest: ten layers pass at most 0.25^10 = 1e-6 of a "
    "gradient, where all weights are 1.",
    "relu(-1) = 0 with slope 0: a unit that is negative on every row never learns again.",
)


@click.command("activations", epilog="Example: lamina prove activations gelu --plot gelu.png")
@click.argument("name", required=False)
@json_option
@plot_option
def command(name: str | None, as_json: bool, plot: str | None) -> None:
    """Show what is known about every activation, or all about one.

    Formula, range, where it saturates, and the time it needs on this machine.
    """
    from lamina.theory.activation_gallery import activations

    check_plot(plot, "prove activations")
    gallery = activations(name)
    if name is None:
        lines, draw = str(gallery).splitlines(), gallery.plot
    else:
        lines, draw = str(gallery[name]).splitlines(), gallery[name].plot
    proof = Proof(_CLAIM, tuple(lines), _CHECK, {"activations": gallery.to_dict()})
    show(proof, as_json, plot, "prove activations", draw)
