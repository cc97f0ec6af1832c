"""``lamina prove``: claims about multilayer perceptrons, each with its evidence."""

from __future__ import annotations

import importlib

import click

# Each in the module prove_NAME of this room, imported when it is asked for
CLAIMS: tuple[str, ...] = (
    "xor",
    "separable",
    "translation",
    "features",
    "circuit",
    "collapse",
    "regions",
    "hidden",
    "approximate",
    "polynomial",
    "depth",
    "activations",
    "diagnose",
)


class Claims(click.Group):
    """The group of all claims."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the claims in the order of docs/theory.md."""
        return list(CLAIMS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Import the claim's module and return its command."""
        if cmd_name not in CLAIMS:
            return None
        command: click.Command = importlib.import_module(f"lamina.cli.prove_{cmd_name}").command
        return command


@click.group("prove", cls=Claims, epilog="Example: lamina prove xor --plot xor.png")
def command() -> None:
    """Prove what a linear unit cannot do, and what a network can.

    Every claim prints what is claimed, the evidence, and how to check it by hand.
    """
