"""What the verbs of ``lamina prove`` print: a claim, its evidence, how to check it by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import check_output, one_line, print_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plot_option = click.option(
    "--plot", metavar="FILE", help="Draw it: a .png, .svg or .pdf file (needs matplotlib)."
)


@dataclass(frozen=True)
class Proof:
    """A claim and why to believe it.

    ``evidence`` holds lines of text; ``check`` says how to check them without this program;
    ``facts`` is the same for machines.
    """

    claim: str
    evidence: tuple[str, ...]
    check: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def check_plot(path: str | None, verb: str) -> None:
    """Raise `DataError` before the work unless a picture can be written to ``path`` after it."""
    if path is None:
        return
    from lamina.core.errors import DataError, require_extra

    if Path(path).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise DataError(
            f"{verb}: expected --plot to end in .png, .svg or .pdf, got {path!r}. Rename it."
        )
    check_output(path, verb, (), "--plot")
    require_extra("matplotlib", "plots")


def show(
    proof: Proof, as_json: bool, plot: str | None, verb: str, draw: Callable[[], Figure] | None
) -> None:
    """Print a proof, and write its picture if one is asked for and there is one."""
    if plot is not None and draw is not None:
        from lamina.core.modelfile import write_atomically
        from lamina.plots.style import to_file

        write_atomically(plot, [to_file(draw(), Path(plot).suffix.lower())], verb)
    if as_json:
        picture = {} if plot is None else {"plot": plot}
        print_json({"claim": proof.claim, **proof.facts, "check": list(proof.check), **picture})
        return
    for title, lines in (
        ("Claim", (proof.claim,)),
        ("Evidence", proof.evidence),
        ("Check by hand", proof.check),
    ):
        click.echo(title)
        for line in lines:
            click.echo(f"  {one_line(line)}".rstrip())
        click.echo("")
    if plot is not None:
        click.echo(f"drawn in {plot}")
