"""What the verbs on memories share: loading a model, naming a neuron, showing text safely."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import one_line

if TYPE_CHECKING:
    from lamina.memories import Bank, Trigger

_NEURON = re.compile(r"^(\d{1,6}):(\d{1,9})$")
PIECE = 4000  # characters of a text, at least, where a file has as many
AROUND = 60  # characters shown before and after a trigger


def load(path: str, verb: str) -> tuple[Any, Any]:
    """Return a model of this machine in float32, and its tokenizer."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("TQDM_DISABLE", "1")
    from lamina.core.errors import require_extra

    torch = require_extra("torch", "torch")
    require_extra("transformers", "torch").utils.logging.disable_progress_bar()
    from lamina.transformer.local_model import load_local, load_tokenizer

    return load_local(path, verb, torch.float32), load_tokenizer(path, verb)


def neuron_of(text: str, option: str) -> tuple[int, int]:
    """Return (layer, neuron) of L:N."""
    found = _NEURON.match(text)
    if found is None:
        raise click.UsageError(f"expected {option} LAYER:NEURON, such as 18:1459, got {text!r}.")
    return int(found[1]), int(found[2])


def read_texts(files: tuple[str, ...], max_bytes: int | None, verb: str) -> Iterator[str]:
    """Return the texts of some files, "-" for standard input, at most so many bytes.

    They are whole paragraphs, some thousand characters at a time: short texts would leave much of a
    pass to padding, and the model without context. They are read one after the other, as they are
    asked for; that all can be read is checked now.
    """
    from lamina.core.errors import DataError

    for name in files:
        try:
            if name != "-":
                Path(name).open("rb").close()
        except OSError as error:
            raise DataError(
                f"{verb}: expected a file of text, got {name!r}: {error.strerror}. Check the path."
            ) from error
    return _paragraphs(files, sys.maxsize if max_bytes is None else max_bytes)


def _paragraphs(files: tuple[str, ...], left: int) -> Iterator[str]:
    for name in files:
        lines: list[str] = []
        n_characters = 0
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            while line := file.readline(left):
                left -= len(line)
                text = line.decode("utf-8", errors="replace").replace("\r\n", "\n")
                lines.append(text)
                n_characters += len(text)
                if n_characters >= PIECE and not text.strip():
                    yield "".join(lines).strip()
                    lines, n_characters = [], 0
        if rest := "".join(lines).strip():
            yield rest


def matching(bank: Bank, layer: int, neuron: int, words: str | None) -> Trigger:
    """Return a neuron's strongest trigger, of those that hold the words if there is one."""
    triggers = bank.triggers(layer, neuron)
    if words is not None:
        for each in triggers:
            if words.lower() in (each.before[-AROUND:] + each.token).lower():
                return each
    return triggers[0]


def shown(before: str, token: str, after: str) -> str:
    """Return a trigger in its context on one line; nothing in it can steer a terminal."""
    head, tail = before[-AROUND:], after[:AROUND]
    return f"{one_line(head)}[{one_line(token)}]{one_line(tail)}"
