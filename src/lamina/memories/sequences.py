"""Cuts texts into sequences of tokens, and puts answers after prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lamina.core.errors import DataError


def cut(
    texts: Iterable[str], tokenizer: Any, max_length: int, where: str
) -> Iterator[dict[str, Any]]:
    """Cut texts into sequences of tokens, each with the very text that it covers.

    Parameters
    ----------
    texts : iterable of str, or one str
    tokenizer : fast tokenizer
    max_length : int
        Tokens of a sequence, special ones included.
    where : str
        The start of error sentences.

    Yields
    ------
    dict
        `text`; and for each token `ids`, `starts` and `ends` in the text, and whether it is
        `special`: those have 0 and 0.
    """
    if isinstance(texts, str):
        texts = [texts]
    for text in texts:
        if not isinstance(text, str):
            raise DataError(
                f"{where}: expected texts of str, got {type(text).__name__}. Decode bytes first."
            )
        parts = tokenizer(
            text,
            truncation=True,
            max_length=max_length,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        columns = (parts["input_ids"], parts["offset_mapping"], parts["special_tokens_mask"])
        for ids, offsets, special in zip(*columns, strict=True):
            covered = [o for o, s in zip(offsets, special, strict=True) if not s]
            if not covered:
                continue
            first, last = covered[0][0], covered[-1][1]
            yield {
                "text": text[first:last],
                "ids": list(ids),
                "starts": [
                    0 if s else a - first for (a, _), s in zip(offsets, special, strict=True)
                ],
                "ends": [0 if s else b - first for (_, b), s in zip(offsets, special, strict=True)],
                "special": list(special),
            }


def answer_tokens(tokenizer: Any, answer: str, prompt: str) -> list[int]:
    """Return an answer's tokens as they follow a prompt, after a space where neither has one."""
    spaced = answer if answer[0].isspace() or prompt[-1:].isspace() else " " + answer
    return list(tokenizer(spaced, add_special_tokens=False)["input_ids"])
