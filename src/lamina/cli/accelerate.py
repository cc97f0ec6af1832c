"""``lamina accelerate``: what the engine would do for a Transformer on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from lamina.cli.console import json_option, one_line, print_json

if TYPE_CHECKING:
    from lamina.transformer.model_speed import ModelSpeed


@click.command("accelerate", epilog="Example: lamina accelerate models/SmolLM2-135M --dtype int8")
@click.argument("model")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32", "int8"]),
    default="bfloat16",
    show_default=True,
    help="Of the products' factors.",
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Length of the prompt that the whole model is timed on.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of both sides [default: all].")
@json_option
def command(model: str, dtype: str, tokens: int, threads: int | None, as_json: bool) -> None:
    """Try the engine on a Transformer's feed-forward blocks.

    MODEL is a folder with config.json and safetensors, or a .gguf file; nothing is downloaded and
    nothing is written. Each block is compared with its original, in error and in speed, then the
    whole model: on a prompt, and token by token after it. In Python it is one line:
    lamina.transformer.accelerate(model).
    """
    _prepare(threads)
    import torch

    from lamina.transformer.local_model import load_local
    from lamina.transformer.model_speed import model_speed
    from lamina.transformer.swap import accelerate

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_local(model, "accelerate")
    report = accelerate(loaded, dtype)
    speed = model_speed(loaded, tokens)
    if as_json:
        print_json({**report.to_dict(), "model": speed._asdict()})
        return
    click.echo(one_line_each(str(report)))
    for sentence in _sentences(speed, str(loaded.dtype).removeprefix("torch.")):
        click.echo(sentence)


def one_line_each(text: str) -> str:
    """Return lines with whatever would steer a terminal escaped: paths come from files."""
    return "\n".join(one_line(line) for line in text.splitlines())


def _prepare(threads: int | None) -> None:
    """Set what torch and transformers read when they are imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    if threads is not None:
        os.environ["LAMINA_NUM_THREADS"] = str(threads)


def _sentences(speed: ModelSpeed, dtype: str) -> list[str]:
    before, after = speed.prefill
    said = [
        f"The whole model, in {dtype}: {speed.n_tokens} tokens in {1e3 * before:.1f} ms as it was, "
        f"{1e3 * after:.1f} ms accelerated ({before / after:.2f} times as fast)."
    ]
    if speed.decode is not None:
        before, after = speed.decode
        said.append(
            f"One token after them: {1e3 * before:.1f} ms and {1e3 * after:.1f} ms "
            f"({before / after:.2f} times as fast)."
        )
    return said
