"""``lamina memories search``: neurons by token, by trigger text, or by likeness."""

from __future__ import annotations

from dataclasses import asdict

import click

from lamina.cli.console import json_option, one_line, print_json
from lamina.cli.memories_model import matching, neuron_of, shown


@click.command("search", epilog="Example: lamina memories search model.bank --token Paris")
@click.argument("bank")
@click.option("--token", help="Neurons whose value promotes this token.")
@click.option("--text", help="Neurons that fire on these words, or shortly after them.")
@click.option("--like", metavar="LAYER:NEURON", help="Neurons whose value points the same way.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@json_option
def command(
    bank: str, token: str | None, text: str | None, like: str | None, top: int, as_json: bool
) -> None:
    """Find the neurons that know something.

    One of --token, --text and --like. The score is the token's logit, the share of the neuron's
    triggers, or the cosine.
    """
    if sum(each is not None for each in (token, text, like)) != 1:
        raise click.UsageError("expected one of --token, --text and --like.")
    from lamina import memories

    with memories.open(bank) as opened:
        if token is not None:
            found = opened.neurons_promoting(token, top)
        elif text is not None:
            found = opened.neurons_triggered_by(text, top)
        else:
            assert like is not None  # noqa: S101
            found = opened.neurons_alike(*neuron_of(like, "--like"), top)
        rows = [
            {
                **asdict(each),
                "promotes": [p.text for p in opened.promotes(each.layer, each.neuron, 5)],
                "trigger": asdict(matching(opened, each.layer, each.neuron, text)),
            }
            for each in found
        ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("no neuron found.")
    for row in rows:
        promoted = " ".join(one_line(repr(p)) for p in row["promotes"])
        place = f"{row['layer']}:{row['neuron']}"
        click.echo(f"{place:>10}  {row['score']:8.3f}  {promoted}")
        trigger = row["trigger"]
        click.echo(f"{'':22}{shown(trigger['before'], trigger['token'], trigger['after'])}")
