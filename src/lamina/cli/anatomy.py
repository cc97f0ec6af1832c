"""``lamina anatomy``: where a Transformer's parameters, arithmetic and time go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import json_option, one_line, print_json
from lamina.cli.proof import check_plot, plot_option

if TYPE_CHECKING:
    from lamina.transformer.take_apart import Anatomy


@click.command("anatomy", epilog="Example: lamina anatomy llama-3.1-405b --context 8192")
@click.argument("model", required=False)
@click.option(
    "--context",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="How many positions the token sees whose FLOPs are counted.",
)
@click.option("--measure", is_flag=True, help="Load the weights and time a forward pass by role.")
@plot_option
@click.option("--list", "as_list", is_flag=True, help="List the built-in configurations.")
@json_option
def command(
    model: str | None,
    context: int,
    measure: bool,
    plot: str | None,
    as_list: bool,
    as_json: bool,
) -> None:
    """Show where a Transformer's parameters, FLOPs and bytes go.

    MODEL is a folder with a config.json, such a file, a .gguf file, or a built-in name such as
    gpt2 or mixtral-8x7b. Weights are not read (but with --measure) and never downloaded, so that
    the largest model takes a second. Counted are embedding, attention, channel mixer (the MLP),
    norms, router and head, in all and for one token.
    """
    if as_list:
        _print_list(as_json)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'; --list shows what is built in.")
    check_plot(plot, "anatomy")
    _stay_offline()
    from lamina.transformer.take_apart import anatomy

    source: Any = model
    if measure:
        from lamina.transformer.local_model import load_local

        source = load_local(model, "anatomy")
    found = anatomy(source, context=context)
    if plot is not None:
        from pathlib import Path

        from lamina.core.modelfile import write_atomically
        from lamina.plots.style import to_file

        write_atomically(plot, [to_file(found.plot(), Path(plot).suffix.lower())], "anatomy")
    if as_json:
        print_json(found.to_dict())
    else:
        _print_table(found)


def _stay_offline() -> None:
    """Keep transformers from asking its hub; it reads these when it is imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"


def _print_list(as_json: bool) -> None:
    from lamina.transformer.presets import PRESETS

    if as_json:
        print_json({name: {"source": source, **says} for name, (source, says) in PRESETS.items()})
        return
    for name, (source, _) in PRESETS.items():
        click.echo(f"{name:<16}{source}")


def _print_table(found: Anatomy) -> None:
    from rich.console import Console
    from rich.table import Table

    from lamina.transformer import anatomy_text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(anatomy_text.headings(found)):
        table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    *roles, total = anatomy_text.rows(found)
    for row in roles:
        table.add_row(*row, style="bold" if row[0] == "channel mixer" else None)
    table.add_section()
    table.add_row(*total)
    click.echo(f"{one_line(anatomy_text.title(found))}\n")
    # A pipe has no width of its own, and a table cut to 80 columns would lose digits
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    click.echo("")
    for sentence in anatomy_text.statements(found):
        click.echo(one_line(sentence))
