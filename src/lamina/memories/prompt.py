"""Explains a prompt: which memories fired on each token, and what each pushed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lamina.core.errors import DataError, SpecError, require_extra
from lamina.memories.ablation import ablate as run_without
from lamina.memories.explanation import Explanation, LayerPush, Position, Push
from lamina.memories.final_norm import Readout
from lamina.memories.forward_pass import ForwardPass
from lamina.memories.live_model import LiveModel, check_length, check_tokenizer, values_of

if TYPE_CHECKING:
    from lamina.memories.bank import Bank

WHERE: Final = "memories.explain"
ROWS: Final = 128  # vectors that are projected at a time: 128 * vocabulary float32
N_TRIGGERS: Final = 3  # shown of each memory, where a bank is given
BEFORE: Final = 40  # characters before each

Fired = tuple[int, int, float, float]  # layer, neuron, coefficient, direct effect


def explain(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    answer: str | None = None,
    k: int = 10,
    ablate: int = 0,
    bank: Bank | None = None,
) -> Explanation:
    """Explain a prompt: for each token, the memories that fired, by their effect on the next.

    The **direct effect** of a memory on a token's logit is what the logit loses when coefficient
    times value is taken out of the final residual stream: the path that goes past all later
    layers, through the final norm, which is computed anew. What later layers make of the memory is
    in the full effect only, which `ablate` measures by running the model without it.

    Parameters
    ----------
    model : transformers model
        A decoder with an unembedding whose layers add to the stream and norm what they read
        (GPT-2, Llama, Gemma, … but not BERT); on the CPU.
    tokenizer : fast tokenizer
    prompt : str
        Special tokens are added as the tokenizer does.
    answer : str, optional
        What the last position is explained for: its first token, with a space before it where that
        is one token. By default the model's own first.
    k : int
        Memories of each position.
    ablate : int
        How many memories of the last position, from the top, to take out one by one.
    bank : Bank, optional
        Of this model: each memory then shows its strongest triggers.

    Returns
    -------
    Explanation

    Raises
    ------
    DataError
        An empty prompt or answer, an answer or prompt that the tokenizer or the model cannot
        take, a tokenizer that does not match, or a bank of another model.
    SpecError
        A model that cannot be explained so, or a number out of range.

    Notes
    -----
    Effects are in closed form, in float64, from the coefficients and hidden states of one pass.
    Logits are the unembedding's, with the family's scale if it has one, before a soft cap
    (Gemma 2); probabilities are after it.
    """
    import torch

    require_extra("transformers", "torch")
    live = LiveModel.find(model, WHERE)
    check_tokenizer(model, tokenizer, WHERE)
    if k < 1 or ablate < 0:
        raise SpecError(
            f"{WHERE}: expected k >= 1 and ablate >= 0, got {k} and {ablate}. Change them."
        )
    _check_decoder(live)
    if bank is not None:
        bank.check_model(model)
    ids = list(tokenizer(prompt)["input_ids"]) if prompt else []
    if not ids:
        raise DataError(f"{WHERE}: expected a prompt with a token, got {prompt!r}. Write one.")
    check_length(model, len(ids), WHERE)
    target = None if answer is None else answer_token(tokenizer, answer, prompt)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            seen = ForwardPass.run(live, ids, WHERE)
            target = int(seen.logits[-1].argmax()) if target is None else target
            targets = [*ids[1:], target]
            readout = seen.readout(targets, WHERE)
            fired = _strongest(seen, readout, max(k, ablate))
            layers = _layers(seen, readout, tokenizer, targets)
            shown = [each[:k] for each in fired]
            memories = _pushes(live, tokenizer, shown, bank)
            chosen = [(layer, i, effect) for layer, i, _, effect in fired[-1][:ablate]]
            ablation = run_without(seen, ids, target, chosen) if chosen else None
            chances = torch.softmax(seen.logits.float(), 1)
    finally:
        model.train(was_training)
    positions = tuple(
        Position(
            tokenizer.decode([ids[p]]),
            tokenizer.decode([token]),
            token,
            logit,
            float(chances[p, token]),
            tokenizer.decode([int(chances[p].argmax())]),
            layers[p],
            memories[p],
        )
        for p, (token, logit) in enumerate(zip(targets, readout.logits().tolist(), strict=True))
    )
    return Explanation(prompt, tokenizer.decode([target]), positions, ablation)


def answer_token(tokenizer: Any, answer: str, prompt: str) -> int:
    """Return the first token of an answer as it would follow a prompt."""

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    found = tokens(answer) if answer.strip() else []
    spaced = tokens(" " + answer.lstrip())
    if not found or (len(found) == 1 and found[0] == tokenizer.unk_token_id):
        raise DataError(
            f"{WHERE}: expected an answer with a token of the vocabulary, got {answer!r}. Write "
            "another."
        )
    if not answer[0].isspace() and not prompt[-1:].isspace() and len(spaced) <= len(found):
        return spaced[0]
    return found[0]


def _check_decoder(live: LiveModel) -> None:
    config = getattr(live.model, "config", None)
    if live.head is None or getattr(config, "is_encoder_decoder", False):
        raise SpecError(
            f"{WHERE}: expected a decoder with an unembedding, got {type(live.model).__name__}. "
            "Load it with AutoModelForCausalLM."
        )


def _strongest(seen: ForwardPass, readout: Readout, n: int) -> list[list[Fired]]:
    """Return at each position the n memories with the largest effects in size, largest first."""
    found: list[list[Fired]] = [[] for _ in seen.final]
    for layer, h in enumerate(seen.coefficients):
        every = seen.effects(readout, layer)
        best = np.argsort(-np.abs(every), axis=1, kind="stable")[:, :n]
        for p, (row, places) in enumerate(zip(every, best.tolist(), strict=True)):
            found[p] += [(layer, i, float(h[p, i]), float(row[i])) for i in places]
            found[p] = sorted(found[p], key=lambda each: -abs(each[3]))[:n]
    return found


def _layers(
    seen: ForwardPass, readout: Readout, tokenizer: Any, targets: list[int]
) -> list[tuple[LayerPush, ...]]:
    """Return at each position what each layer pushed, and what the stream after it predicts."""
    import torch

    found: list[list[LayerPush]] = [[] for _ in targets]
    for layer, flow in enumerate(seen.flows):
        added = (flow.residual[0] - flow.input[0], flow.ffn[0])
        both = [
            [
                readout.effects_at(p, each[p : p + 1].double().numpy())[0]
                for p in range(len(targets))
            ]
            for each in added
        ]
        tops: list[int] = []
        chances: list[float] = []
        for start in range(0, len(targets), ROWS):
            probabilities = seen.probabilities(flow.output[0, start : start + ROWS])
            tokens = torch.tensor(targets[start : start + ROWS])
            tops += probabilities.argmax(1).tolist()
            chances += probabilities.gather(1, tokens[:, None])[:, 0].tolist()
        for p, (attention, ffn) in enumerate(zip(*both, strict=True)):
            top = tokenizer.decode([tops[p]])
            found[p].append(LayerPush(layer, float(attention), float(ffn), top, chances[p]))
    return [tuple(each) for each in found]


def _pushes(
    live: LiveModel, tokenizer: Any, fired: list[list[Fired]], bank: Bank | None
) -> list[tuple[Push, ...]]:
    """Return the memories with what they promote and what fires them; each is looked up once."""
    import torch

    places = sorted({(layer, i) for each in fired for layer, i, _, _ in each})
    values = torch.stack([values_of(live.blocks[layer])[i] for layer, i in places])
    texts = {
        (place, is_negative): tuple(tokenizer.decode([token]) for token in row)
        for is_negative in (False, True)
        for place, row in zip(
            places, _tops(live, -values if is_negative else values, len(tokenizer)), strict=True
        )
    }
    triggers = {place: _triggers(bank, *place) for place in places}
    return [
        tuple(
            Push(
                layer,
                i,
                h,
                effect,
                texts[(layer, i), h < 0],
                texts[(layer, i), h >= 0],
                triggers[layer, i],
            )
            for layer, i, h, effect in each
        )
        for each in fired
    ]


def _tops(live: LiveModel, vectors: Any, n_tokens: int) -> list[list[int]]:
    """Return the first 3 tokens of each vector, by the final norm and the unembedding."""
    tops: list[list[int]] = []
    for start in range(0, len(vectors), ROWS):
        logits = live.unembed(vectors[start : start + ROWS]).float()[:, :n_tokens]
        tops += logits.topk(3).indices.tolist()
    return tops


def _triggers(bank: Bank | None, layer: int, neuron: int) -> tuple[str, ...]:
    """Return the text up to each of a memory's strongest triggers; none if it was not recorded."""
    if bank is None or layer not in bank.d_ff:
        return ()
    return tuple(t.before[-BEFORE:] + t.token for t in bank.triggers(layer, neuron, N_TRIGGERS))
