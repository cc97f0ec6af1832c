"""Keys from text: what a model's own feed-forward layer reads at the end of each text."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError, SpecError, require_extra
from lamina.memories.live_model import (
    LiveModel,
    check_length,
    check_tokenizer,
    not_called,
)

WHERE: Final = "memories.keys_from_text"
BATCH: Final = 16  # texts that run together


def keys_from_text(
    model: Any, tokenizer: Any, texts: Iterable[str], layer: int, *, unit: bool = True
) -> npt.NDArray[np.float32]:
    """Return the hidden states that a feed-forward layer reads at the last token of each text.

    Parameters
    ----------
    model : transformers model
        Plain or gated feed-forward layers, on the CPU; run in evaluation mode.
    tokenizer : fast tokenizer
    texts : iterable of str
        Prompts; the last token that is not special counts.
    layer : int
        Counted from 0.
    unit : bool
        Divide each by its length, as `KeyValueMemory.store` wants them.

    Returns
    -------
    keys : (n, d_model) float32

    Raises
    ------
    DataError
        No text, a text without a token or longer than the model reads, or a tokenizer that does
        not match.
    SpecError
        A model without feed-forward layers that can be read, or no such layer.
    """
    import torch

    require_extra("transformers", "torch")
    live = LiveModel.find(model, WHERE)
    check_tokenizer(model, tokenizer, WHERE)
    if not 0 <= layer < len(live.blocks):
        raise SpecError(
            f"{WHERE}: expected a layer from 0 to {len(live.blocks) - 1}, got {layer}. Count from "
            "0."
        )
    block = live.blocks[layer]
    first = block.weights["w_gate" if block.gated else "w_in"].owner
    ids, ends = _tokenize(model, tokenizer, [texts] if isinstance(texts, str) else texts)
    by_length: dict[int, list[int]] = {}
    for number, each in enumerate(ids):
        by_length.setdefault(len(each), []).append(number)
    seen: list[Any] = []
    found = np.empty((len(ids), block.d_model), np.float32)
    was_training = model.training
    model.eval()
    try:
        with ExitStack() as hooks, torch.no_grad():

            def keep(_module: Any, inputs: Any) -> None:
                seen[:] = [inputs[0]]

            hooks.callback(first.register_forward_pre_hook(keep).remove)
            base = getattr(model, "base_model", model)
            for n_tokens, numbers in by_length.items():  # as long as each other: no padding
                for start in range(0, len(numbers), BATCH):
                    part = numbers[start : start + BATCH]
                    base(input_ids=torch.tensor([ids[i] for i in part]))
                    if not seen:
                        raise not_called(model, WHERE)
                    states = seen[0].reshape(len(part), n_tokens, block.d_model)
                    rows = torch.arange(len(part)), torch.tensor([ends[i] for i in part])
                    found[part] = states[rows].float().numpy()
    finally:
        model.train(was_training)
    if unit:
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-30)
    return found


def _tokenize(
    model: Any, tokenizer: Any, texts: Iterable[str]
) -> tuple[list[list[int]], list[int]]:
    """Return each text's tokens, and where the last that is not special stands."""
    ids, ends = [], []
    for text in texts:
        if not isinstance(text, str):
            raise DataError(
                f"{WHERE}: expected texts of str, got {type(text).__name__}. Decode it."
            )
        parts = tokenizer(text, return_special_tokens_mask=True)
        plain = [i for i, s in enumerate(parts["special_tokens_mask"]) if not s]
        if not plain:
            raise DataError(
                f"{WHERE}: expected texts with a token each, got {text!r}. Leave it out."
            )
        check_length(model, len(parts["input_ids"]), WHERE)
        ids.append(list(parts["input_ids"]))
        ends.append(plain[-1])
    if not ids:
        raise DataError(f"{WHERE}: expected at least one text, got none. Pass some.")
    return ids, ends
