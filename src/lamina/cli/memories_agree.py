"""``lamina memories agree``: how often values promote what follows their keys."""

from __future__ import annotations

from dataclasses import asdict

import click

from lamina.cli.console import json_option, print_json


@click.command("agree", epilog="Example: lamina memories agree model.bank")
@click.argument("bank")
@json_option
def command(bank: str, as_json: bool) -> None:
    """Count how often a value promotes the next token.

    By layer: the share of neurons whose value's top token is the one that follows their strongest
    trigger (Geva et al. 2021, figure 4), beside chance, and the share of memories that are active.
    """
    from lamina import memories

    with memories.open(bank) as opened:
        rows = [
            {**asdict(each), "active": active}
            for each, active in zip(opened.agreement(), opened.active_share(), strict=True)
        ]
    if as_json:
        print_json(rows)
        return
    click.echo("layer  agree   chance    active")
    for row in rows:
        click.echo(
            f"{row['layer']:5}  {row['share']:6.2%}  {row['chance']:8.4%}  {row['active']:6.1%}"
        )
