"""``lamina memories record``: a corpus streamed through a model once."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import click

from lamina.cli.console import json_option, print_json
from lamina.cli.memories_model import load, read_texts

if TYPE_CHECKING:
    from lamina.memories.recording import RecordProgress


class Stop:
    """Holds the first Ctrl-C back until a batch is done; the second ends it at once."""

    def __init__(self) -> None:
        self.wanted = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """End here if that is wanted."""
        if self.wanted:
            raise KeyboardInterrupt

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        click.echo("\nends after this batch; Ctrl-C again ends it at once.", err=True)


@click.command(
    "record", epilog="Example: lamina memories record models/SmolLM2-135M corpus.txt -o model.bank"
)
@click.argument("model")
@click.argument("corpus", nargs=-1, required=True)
@click.option("-o", "--out", required=True, help="The bank to write.")
@click.option(
    "--top-k", type=click.IntRange(1), default=20, show_default=True, help="Triggers kept."
)
@click.option(
    "--max-length", type=click.IntRange(4), default=128, show_default=True, help="Tokens together."
)
@click.option("--max-bytes", type=click.IntRange(1), help="Read only so much of the corpus.")
@click.option("--layer", "layers", type=click.IntRange(0), multiple=True, help="Only this one.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
def command(
    model: str,
    corpus: tuple[str, ...],
    out: str,
    top_k: int,
    max_length: int,
    max_bytes: int | None,
    layers: tuple[int, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Record what makes each neuron of a model fire.

    MODEL is a folder with config.json, safetensors and a tokenizer, or a .gguf file; nothing is
    downloaded. CORPUS is one or more files of text, or - for standard input. Ctrl-C ends it after
    the batch that is running: the same command goes on there, after a kill at the last checkpoint.
    """
    from lamina import memories
    from lamina.cli.console import check_output

    check_output(out, "memories record", [model, *corpus])
    texts = read_texts(corpus, max_bytes, "memories record")
    loaded, tokenizer = load(model, "memories record")
    since = time.monotonic()
    last = 0.0

    def tell(done: RecordProgress) -> None:
        nonlocal last
        stop.check()
        now = time.monotonic()
        if quiet or now - last < (0.2 if sys.stderr.isatty() else 10.0):
            return
        last = now
        rate = done.n_tokens / max(now - since, 1e-9)
        line = f"{done.n_tokens:,} tokens of {done.n_sequences:,} sequences, {rate:,.0f} a second"
        click.echo(
            f"\r{line}" if sys.stderr.isatty() else line, err=True, nl=not sys.stderr.isatty()
        )

    try:
        with Stop() as stop:
            bank = memories.record(
                loaded,
                tokenizer,
                texts,
                out,
                layers=layers or None,
                top_k=top_k,
                max_length=max_length,
                progress=tell,
            )
    except KeyboardInterrupt:
        kept = Path(f"{out}.recording.state").exists()
        click.echo(
            "\nlamina: stopped; the same command goes on from here."
            if kept
            else "\nlamina: stopped before anything was kept.",
            err=True,
        )
        raise click.exceptions.Exit(130) from None
    if not quiet and sys.stderr.isatty():
        click.echo("", err=True)
    with bank:
        told = {
            "bank": out,
            "tokens": bank.facts["n_tokens"],
            "layers": len(bank.d_ff),
            "neurons": sum(bank.d_ff.values()),
            "seconds": round(time.monotonic() - since, 1),
        }
    if as_json:
        print_json(told)
        return
    click.echo(
        f"{told['neurons']:,} neurons of {told['layers']} layers on {told['tokens']:,} tokens, in "
        f"{told['seconds']:.0f} s: {out}"
    )
    click.echo(f"Look into it with: lamina memories show {out}, or lamina memories browse {out}")
