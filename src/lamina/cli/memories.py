"""``lamina memories``: what the feed-forward layers of a Transformer know."""

from __future__ import annotations

import importlib

import click

# Each in the module memories_NAME of this room, imported when it is asked for
VERBS: tuple[str, ...] = ("record", "show", "search", "agree", "explain", "edit", "browse")


class Memories(click.Group):
    """The group of what can be done with memories."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the verbs in the order of use."""
        return list(VERBS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Import the verb's module and return its command."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"lamina.cli.memories_{cmd_name}").command
        return command


@click.group(
    "memories",
    cls=Memories,
    epilog="Example: lamina memories record MODEL corpus.txt -o model.bank",
)
def command() -> None:
    """Read, search and edit what feed-forward layers know.

    A bank holds what makes each neuron of a model fire, and the tokens that its value promotes. It
    is recorded once, from a corpus, and read without the model.
    """
