"""Rank-one model editing: a fact as one key and one value of a feed-forward layer.

Meng, Bau, Andonian and Belinkov 2022, "Locating and editing factual associations in GPT",
arXiv:2202.05262.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError, ShapeError, SpecError, require_extra
from lamina.memories.live_model import LiveModel, check_tokenizer, second_matrix
from lamina.memories.sequences import answer_tokens, cut
from lamina.memories.watch import watch_coefficients

SEQUENCES: Final = 16  # whose keys are multiplied at a time
RIDGE: Final = 1e-4  # of the covariance's mean diagonal: too few tokens leave directions unseen


class _EnoughError(Exception):
    """Ends a forward pass at the layer that was asked for."""


@dataclass(frozen=True)
class RomeSettings:
    """How the value of a fact is found; the defaults are for models of some 100 million parameters.

    Attributes
    ----------
    n_steps : int
        Of Adam.
    lr : float
    decay : float
        Weight of the squared length of the change, relative to the old value's.
    keep : float
        Weight of the Kullback-Leibler divergence of what follows "{subject} is a".
    clamp : float
        The change's length at most, in lengths of the old value.
    enough : float
        Stop once the answer's mean log-likelihood is above minus this.
    prefixes : tuple of str
        Put before the prompt, so that the key and the value hold in other contexts.
    """

    n_steps: int = 25
    lr: float = 0.5
    decay: float = 0.5
    keep: float = 0.0625
    clamp: float = 4.0
    enough: float = 0.25
    prefixes: tuple[str, ...] = (
        "",
        "It is often said that this is so. ",
        "The following was written in a book. ",
        "In the news today: ",
        "As everybody knows, ",
        "I asked my teacher, and she told me. ",
        "Q: What do you know? A: ",
        "However, there is more to tell. ",
    )


def key_covariance(
    model: Any, tokenizer: Any, texts: Iterable[str], layer: int, *, max_length: int = 128
) -> npt.NDArray[np.float64]:
    """Return the mean of ``k k^T`` over the keys that a layer's second matrix reads, not centred.

    Parameters
    ----------
    model : transformers model
    tokenizer : fast tokenizer
    texts : iterable of str
        Some hundred thousand tokens of ordinary text.
    layer : int
    max_length : int
        Tokens of a sequence.

    Returns
    -------
    covariance : (d_ff, d_ff) float64

    Raises
    ------
    DataError, SpecError
        No text, a tokenizer that does not match, or no such layer.
    """
    import torch

    where = "memories.key_covariance"
    require_extra("transformers", "torch")
    live = LiveModel.find(model, where)
    check_tokenizer(model, tokenizer, where)
    if not 0 <= layer < len(live.blocks):
        raise SpecError(
            f"{where}: expected a layer below {len(live.blocks)}, got {layer}. Count from 0."
        )
    block = live.blocks[layer]
    total = torch.zeros(block.d_ff, block.d_ff, dtype=torch.float64)
    n = 0
    was_training = model.training
    model.eval()
    try:
        with ExitStack() as hooks, torch.no_grad():
            kept: list[Any] = []

            def take(h: Any, _active: Any) -> None:
                kept.append(h)
                raise _EnoughError  # later layers do not matter

            watch_coefficients(block, take, hooks)
            base = getattr(model, "base_model", model)
            sequences = cut(texts, tokenizer, max_length, where)
            while part := list(islice(sequences, SEQUENCES)):
                kept.clear()
                for sequence in part:
                    with suppress(_EnoughError):
                        base(input_ids=torch.tensor([sequence["ids"]]))
                special = torch.tensor([s for sequence in part for s in sequence["special"]])
                rows = torch.cat(kept)[special == 0].float()
                total += (rows.T @ rows).double()
                n += len(rows)
    finally:
        model.train(was_training)
    if n == 0:
        raise DataError(f"{where}: expected texts with at least one token, got none. Pass some.")
    return np.asarray((total / n).numpy())


def rank_one(
    live: LiveModel,
    tokenizer: Any,
    prompt: str,
    subject: str,
    answer: str,
    layer: int,
    covariance: npt.ArrayLike | None,
    settings: RomeSettings,
    where: str,
) -> tuple[Any, Any]:
    """Return u (d_model,) and v (d_ff,), whose product is to be added to the second matrix."""
    import torch

    if not subject.strip() or subject not in prompt:
        raise DataError(
            f"{where}: expected a subject that is a part of the prompt {prompt!r}, got "
            f"{subject!r}. Write it as it stands there."
        )
    block = live.blocks[layer]
    inverse = _inverse(covariance, block.d_ff, where)
    batch = _Batch.of(tokenizer, prompt, subject, answer, settings.prefixes, where)
    was_training = live.model.training
    live.model.eval()
    try:
        with torch.no_grad():
            keys, values = _at_subject(live, layer, batch)
        change = _find_change(live, layer, batch, values[0], settings)
    finally:
        live.model.train(was_training)
    # Least disturbance of other keys, given that the bare prompt's key gives the value
    direction = inverse @ keys.double().mean(0).numpy()
    v = torch.from_numpy(direction / float(direction @ keys[0].double().numpy()))
    dtype = second_matrix(block).tensor.dtype
    wide = torch.float32 if dtype.itemsize < 4 else dtype
    return change.to(wide), v.to(wide)


@dataclass(frozen=True)
class _Batch:
    """The prompt behind each prefix with its answer, and "{subject} is a", padded to one length."""

    ids: Any  # (n, length)
    real: Any  # (n, length) 1 for tokens, 0 for padding
    subject_at: list[int]
    answer: list[int]
    answer_at: list[int]  # where the token before the answer stands, of all rows but the last
    n_prompts: int

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        prompt: str,
        subject: str,
        answer: str,
        prefixes: tuple[str, ...],
        where: str,
    ) -> _Batch:
        import torch

        tokens = answer_tokens(tokenizer, answer, prompt)
        rows, subject_at, answer_at = [], [], []
        for text in [*(prefix + prompt for prefix in prefixes), f"{subject} is a"]:
            parts = tokenizer(text, return_offsets_mapping=True)
            end = text.rfind(subject) + len(subject)
            inside = [i for i, (a, b) in enumerate(parts["offset_mapping"]) if a < end <= b]
            if not inside:
                raise DataError(
                    f"{where}: expected a subject that ends with a token of {text!r}, got "
                    f"{subject!r}. Choose whole words."
                )
            rows.append(list(parts["input_ids"]))
            subject_at.append(inside[-1])
            answer_at.append(len(parts["input_ids"]) - 1)
        n = len(prefixes)
        rows = [[*row, *tokens[:-1]] for row in rows[:n]] + rows[n:]
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        real = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return cls(ids, real, subject_at, tokens, answer_at, n)


def _inverse(covariance: npt.ArrayLike | None, d_ff: int, where: str) -> npt.NDArray[np.float64]:
    if covariance is None:
        return np.eye(d_ff)
    matrix = np.asarray(covariance, dtype=np.float64)
    if matrix.shape != (d_ff, d_ff):
        raise ShapeError(
            f"{where}: expected a covariance of shape {(d_ff, d_ff)}, got {matrix.shape}. Make it "
            "with key_covariance at the same layer."
        )
    if not np.isfinite(matrix).all():
        raise DataError(f"{where}: expected a finite covariance, got NaN. Make it anew.")
    ridge = RIDGE * float(np.trace(matrix)) / d_ff
    return np.asarray(np.linalg.inv(matrix + ridge * np.eye(d_ff)))


def _at_subject(live: LiveModel, layer: int, batch: _Batch) -> tuple[Any, Any]:
    """Return what the second matrix reads and gives at the subject's end behind each prefix."""
    import torch

    seen: list[Any] = []

    def keep(_module: Any, inputs: Any, output: Any) -> None:
        seen[:] = [inputs[0], output]

    handle = second_matrix(live.blocks[layer]).owner.register_forward_hook(keep)
    try:
        live.model(input_ids=batch.ids, attention_mask=batch.real)
    finally:
        handle.remove()
    rows = torch.arange(batch.n_prompts)
    at = torch.tensor(batch.subject_at[: batch.n_prompts])
    n = len(batch.ids)
    return tuple(each.view(n, -1, each.shape[-1])[rows, at].float() for each in seen)


def _find_change(
    live: LiveModel, layer: int, batch: _Batch, value: Any, settings: RomeSettings
) -> Any:
    """Return what to add to the value, so that the model answers as asked, by Adam."""
    import torch

    n, length = len(batch.ids), float(value.norm())
    rows, at = torch.arange(n), torch.tensor(batch.subject_at)
    change = torch.zeros_like(value, requires_grad=True)
    adam = torch.optim.Adam([change], lr=settings.lr)
    answer = torch.tensor(batch.answer)
    places = torch.tensor([[a + j for j in range(len(answer))] for a in batch.answer_at[:-1]])

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        added = torch.zeros_like(output).view(n, -1, output.shape[-1])
        added = added.index_put((rows, at), change.to(output.dtype).expand(n, -1))
        return output + added.view_as(output)

    usual = None
    handle = second_matrix(live.blocks[layer]).owner.register_forward_hook(add)
    try:
        with torch.enable_grad():
            for _ in range(settings.n_steps):
                logits = live.model(input_ids=batch.ids, attention_mask=batch.real).logits.float()
                after = torch.log_softmax(logits[-1, batch.answer_at[-1]], 0)
                if usual is None:
                    usual = after.detach()  # of the first step: nothing is changed yet
                told = torch.log_softmax(logits[rows[:-1, None], places], 2)
                loss = -told.gather(2, answer.expand(len(places), -1)[:, :, None]).mean()
                if float(loss.detach()) < settings.enough:
                    break
                drift = torch.nn.functional.kl_div(usual, after, log_target=True, reduction="sum")
                whole = loss + settings.keep * drift
                whole = whole + settings.decay * (change.norm() / length) ** 2
                (change.grad,) = torch.autograd.grad(whole, [change])
                adam.step()
                with torch.no_grad():
                    change *= min(1.0, settings.clamp * length / max(float(change.norm()), 1e-30))
    finally:
        handle.remove()
    return change.detach()
