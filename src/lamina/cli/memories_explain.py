"""``lamina memories explain``: which memories made a model say what it says."""

from __future__ import annotations

from contextlib import nullcontext

import click

from lamina.cli.console import json_option, one_line, print_json
from lamina.cli.memories_model import load


@click.command(
    "explain",
    epilog='Example: lamina memories explain models/SmolLM2-135M "The capital of France is"',
)
@click.argument("model")
@click.argument("prompt")
@click.option("--answer", help="Explain this answer [default: the model's own].")
@click.option(
    "--top", type=click.IntRange(1), default=10, show_default=True, help="Memories shown."
)
@click.option(
    "--ablate", type=click.IntRange(0), default=0, help="Also run the model without the first N."
)
@click.option("--bank", metavar="PATH", help="Show triggers from this bank of the model.")
@json_option
def command(
    model: str,
    prompt: str,
    answer: str | None,
    top: int,
    ablate: int,
    bank: str | None,
    as_json: bool,
) -> None:
    """Explain a prompt by the memories that fired.

    MODEL is a folder or a .gguf file. Memories are ranked by their direct effect on the answer's
    logit: what it loses when the memory is taken out of the last hidden state.
    """
    from lamina import memories

    opened = None if bank is None else memories.open(bank)  # before the model: it is quicker
    loaded, tokenizer = load(model, "memories explain")
    with opened or nullcontext():
        found = memories.explain(
            loaded, tokenizer, prompt, answer=answer, k=top, ablate=ablate, bank=opened
        )
    if as_json:
        print_json(found.to_dict())
        return
    click.echo("\n".join(one_line(line) for line in str(found).splitlines()))
