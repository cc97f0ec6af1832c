"""``lamina memories show``: a bank, one of its layers, or a neuron."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import facts, json_option, one_line, print_json
from lamina.cli.memories_model import neuron_of, shown

if TYPE_CHECKING:
    from lamina.memories import Bank


@click.command("show", epilog="Example: lamina memories show model.bank 18:1459")
@click.argument("bank")
@click.argument("which", required=False, metavar="[LAYER[:NEURON]]")
@click.option(
    "--top", type=click.IntRange(1), default=10, show_default=True, help="Rows of a list."
)
@click.option("--card", type=click.Path(), help="Write an HTML page: a neuron's, or the bank's.")
@json_option
def command(bank: str, which: str | None, top: int, card: str | None, as_json: bool) -> None:
    """Show a bank, a layer of it, or one neuron.

    A neuron: the tokens on which it fired most, each in [brackets] between what came before and
    after, the tokens that its value promotes, how often it is active, and the neurons like it.
    """
    from lamina import memories

    with memories.open(bank) as opened:
        if which is None:
            told = overview(opened)
        elif ":" in which:
            told = neuron(opened, *neuron_of(which, "WHICH"), top)
        else:
            if not which.isdigit():
                raise click.UsageError(f"expected LAYER or LAYER:NEURON, got {which!r}.")
            told = layer(opened, int(which), top)
        if card is not None:
            if which is not None and ":" not in which:
                raise click.UsageError("expected LAYER:NEURON for --card, or no layer at all.")
            if which is None:
                memories.write_overview(opened, card)
            else:
                memories.write_card(opened, *neuron_of(which, "WHICH"), card)
    if as_json:
        print_json(told)
    elif which is None:
        _print_overview(told)
    elif ":" in which:
        _print_neuron(told)
    else:
        _print_layer(told)
    if card is not None:
        click.echo(f"wrote {card}", err=True)


def overview(bank: Bank) -> dict[str, Any]:
    """Return what a bank was recorded of, and its layers."""
    shares = bank.active_share()
    return {
        "model": bank.facts["model"],
        "tokens": bank.facts["n_tokens"],
        "top_k": bank.facts["top_k"],
        "layers": [
            {"layer": number, "neurons": n, "active": share}
            for (number, n), share in zip(bank.d_ff.items(), shares, strict=True)
        ],
    }


def layer(bank: Bank, number: int, top: int) -> dict[str, Any]:
    """Return the neurons of a layer that fire hardest, each with a trigger and a promoted token."""
    bank.check(number, 0, "show")
    return {
        "layer": number,
        "neurons": [
            {
                "neuron": each.neuron,
                "coefficient": each.score,
                "trigger": asdict(bank.triggers(number, each.neuron, 1)[0]),
                "promotes": [p.text for p in bank.promotes(number, each.neuron, 5)],
            }
            for each in bank.strongest(number, top)
        ],
    }


def neuron(bank: Bank, number: int, index: int, top: int) -> dict[str, Any]:
    """Return all that a bank knows of a neuron."""
    return {
        "layer": number,
        "neuron": index,
        "statistics": bank.statistics(number, index),
        "triggers": [asdict(each) for each in bank.triggers(number, index, top)],
        "patterns": [asdict(each) for each in bank.patterns(number, index)[:top]],
        "promotes": [asdict(each) for each in bank.promotes(number, index, top)],
        "alike": [asdict(each) for each in bank.neurons_alike(number, index, 5)],
    }


def _print_overview(told: dict[str, Any]) -> None:
    n = sum(each["neurons"] for each in told["layers"])
    facts(
        [
            ("model", told["model"]),
            ("tokens", f"{told['tokens']:,}"),
            ("neurons", f"{n:,} in {len(told['layers'])} layers"),
            ("triggers of each", told["top_k"]),
        ]
    )
    click.echo("\nlayer  neurons  active")
    for each in told["layers"]:
        click.echo(f"{each['layer']:5}  {each['neurons']:7,}  {each['active']:6.1%}")


def _print_layer(told: dict[str, Any]) -> None:
    click.echo("neuron  coefficient  promotes; trigger")
    for each in told["neurons"]:
        promoted = " ".join(one_line(repr(text)) for text in each["promotes"])
        click.echo(f"{each['neuron']:6}  {each['coefficient']:11.3f}  {promoted}")
        click.echo(f"{'':21}{_in_context(each['trigger'])}")


def _print_neuron(told: dict[str, Any]) -> None:
    statistics = told["statistics"]
    quantiles = ", ".join(f"{float(q):g}: {v:.3f}" for q, v in statistics["quantiles"].items())
    facts(
        [
            ("neuron", f"{told['layer']}:{told['neuron']}"),
            ("active", f"{statistics['rate']:.1%} of tokens"),
            ("mean coefficient", f"{statistics['mean']:.4f}"),
            ("quantiles", quantiles),
            ("promotes", " ".join(repr(each["text"]) for each in told["promotes"])),
            (
                "neurons alike",
                ", ".join(f"{n['layer']}:{n['neuron']} ({n['score']:.2f})" for n in told["alike"]),
            ),
        ]
    )
    if told["patterns"]:
        click.echo("\nshared by its triggers")
        for each in told["patterns"]:
            click.echo(
                f"  {one_line(repr(each['text']))}: {each['n_triggers']} triggers, "
                f"{each['lift']:.3g} times as often as elsewhere"
            )
    click.echo("\nfires most on")
    for each in told["triggers"]:
        click.echo(f"{each['coefficient']:9.3f}  {_in_context(each)}")


def _in_context(trigger: dict[str, Any]) -> str:
    return shown(trigger["before"], trigger["token"], trigger["after"])
