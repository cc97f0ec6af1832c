"""``lamina info``: the engine, and what it found on this machine."""

from __future__ import annotations

import click

from lamina.cli.console import json_option, print_json


@click.command("info", epilog="Example: lamina info --json")
@json_option
def command(as_json: bool) -> None:
    """Show the engine and this machine.

    That is: version, instruction sets in use and available, threads, precisions.
    """
    from lamina.core.engine import info

    found = info()
    if as_json:
        print_json(dict(found))
    else:
        click.echo(str(found))
