"""Explains a prompt: which memories fired on each token, and what each pushed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError, SpecError, require_extra
from lamina.memories.explanation import (
    Ablated,
    Ablation,
    Explanation,
    LayerPush,
    Position,
    Push,
)
from lamina.memories.final_norm import Readout
from lamina.memories.layer_flow import LayerFlow, watch_layers
from lamina.memories.live_model import LiveModel, check_tokenizer
from lamina.memories.watch import watch_coefficients

WHERE: Final = "memories.explain"
AT_ONCE: Final = 16  # memories that are ablated in one pass
Floats = npt.NDArray[np.float64]


def explain(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    answer: str | None = None,
    k: int = 10,
    ablate: int = 0,
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

    Returns
    -------
    Explanation

    Raises
    ------
    DataError
        An empty prompt or answer, or a tokenizer that does not match.
    SpecError
        A model that cannot be explained so, or a number out of range.

    Notes
    -----
    Effects are in closed form, in float64, from the coefficients and hidden states of one pass.
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
    ids = list(tokenizer(prompt)["input_ids"]) if prompt else []
    if not ids:
        raise DataError(f"{WHERE}: expected a prompt with a token, got {prompt!r}. Write one.")
    target = None if answer is None else answer_token(tokenizer, answer, prompt)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            seen = _Seen.run(live, ids)
            if target is None:
                target = int(seen.logits[-1].argmax())
            targets = [*ids[1:], target]
            every = [seen.effects(p, t) for p, t in enumerate(targets)]
            positions = tuple(
                _position(seen, tokenizer, ids, p, t, effects, k)
                for p, (t, effects) in enumerate(zip(targets, every, strict=True))
            )
            ablation = _ablate(live, ids, target, every[-1], ablate) if ablate else None
    finally:
        model.train(was_training)
    return Explanation(prompt, tokenizer.decode([target]), positions, ablation)


def answer_token(tokenizer: Any, answer: str, prompt: str) -> int:
    """Return the first token of an answer as it would follow a prompt."""

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    found = tokens(answer) if answer.strip() else []
    if not found:
        raise DataError(f"{WHERE}: expected an answer with a token, got {answer!r}. Write one.")
    spaced = tokens(" " + answer.lstrip())
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


@dataclass(frozen=True)
class _Seen:
    """What one pass over a prompt showed."""

    live: LiveModel
    flows: list[LayerFlow]
    coefficients: list[Any]  # (n_tokens, d_ff) each
    final: Floats  # (n_tokens, d_model), the stream before the final norm
    logits: Any  # (n_tokens, vocabulary)

    @classmethod
    def run(cls, live: LiveModel, ids: list[int]) -> _Seen:
        import torch

        kept: dict[int, Any] = {}
        final: list[Any] = []
        with ExitStack() as hooks:
            flows = watch_layers(live, hooks)
            for layer, block in enumerate(live.blocks):

                def take(h: Any, _active: Any, layer: int = layer) -> None:
                    kept[layer] = h.double()

                watch_coefficients(block, take, hooks)
            end = live.head if live.norm is None else live.norm

            def keep(_module: Any, inputs: Any) -> None:
                final[:] = [inputs[0][0].double().numpy()]

            hooks.callback(end.register_forward_pre_hook(keep).remove)
            logits = live.model(input_ids=torch.tensor([ids])).logits[0]
        if flows[0].post_norm:
            raise SpecError(
                f"{WHERE}: expected layers that norm what they read, got "
                f"{type(live.model).__name__}, which norms the stream itself: nothing goes "
                "straight through. Choose a decoder such as GPT-2 or Llama."
            )
        return cls(live, flows, [kept[i] for i in range(len(flows))], final[0], logits)

    def readout(self, position: int, token: int) -> Readout:
        found = Readout.of(self.live, token, self.final[position])
        if found is None:
            raise SpecError(
                f"{WHERE}: expected a final norm like LayerNorm or RMSNorm, got "
                f"{type(self.live.norm).__name__}. Choose another model."
            )
        return found

    def effects(self, position: int, token: int) -> list[Floats]:
        """Return every memory's direct effect on a token's logit, (d_ff,) of each layer."""
        readout, x = self.readout(position, token), self.final[position]
        found = []
        for block, flow, h in zip(self.live.blocks, self.flows, self.coefficients, strict=True):
            values = _values(block)
            c = h[position]
            if flow.ffn_norm is None:
                found.append(readout.effects(x, values.double().numpy(), c.numpy()))
            else:  # what is added is normed first: without the memory, all of it changes
                raw = flow.raw[0, position]
                left = flow.ffn_norm(raw - c[:, None].to(raw.dtype) * values)
                found.append(readout.effects(x, (flow.ffn_norm(raw) - left).double().numpy()))
        return found


def _position(
    seen: _Seen,
    tokenizer: Any,
    ids: list[int],
    position: int,
    token: int,
    effects: list[Floats],
    k: int,
) -> Position:
    """Explain one position for one token."""
    import torch

    live, logits = seen.live, seen.logits[position].float()
    readout, x = seen.readout(position, token), seen.final[position]
    layers = []
    for layer, flow in enumerate(seen.flows):
        added = [flow.residual[0, position] - flow.input[0, position], flow.ffn[0, position]]
        attention, ffn = readout.effects(x, torch.stack(added).double().numpy()).tolist()
        after = live.unembed(flow.output[0, position : position + 1]).float()[0]
        probability = float(torch.softmax(after, 0)[token])
        top = tokenizer.decode([int(after.argmax())])
        layers.append(LayerPush(layer, attention, ffn, top, probability))
    memories = []
    for layer, neuron in largest(effects, k):
        value = _values(live.blocks[layer])[neuron : neuron + 1]
        best = live.unembed(value).float()[0, : len(tokenizer)].topk(3).indices.tolist()
        memories.append(
            Push(
                layer,
                neuron,
                float(seen.coefficients[layer][position, neuron]),
                float(effects[layer][neuron]),
                tuple(tokenizer.decode([t]) for t in best),
            )
        )
    return Position(
        tokenizer.decode([ids[position]]),
        tokenizer.decode([token]),
        token,
        readout.logit(x),
        float(torch.softmax(logits, 0)[token]),
        tokenizer.decode([int(logits.argmax())]),
        tuple(layers),
        tuple(memories),
    )


def largest(effects: list[Floats], k: int) -> list[tuple[int, int]]:
    """Return the (layer, neuron) of the k effects largest in size, largest first."""
    places = [
        (layer, i) for layer, each in enumerate(effects) for i in np.argsort(-np.abs(each))[:k]
    ]
    places.sort(key=lambda at: -abs(effects[at[0]][at[1]]))
    return [(layer, int(i)) for layer, i in places[:k]]


def _ablate(live: LiveModel, ids: list[int], token: int, effects: list[Floats], n: int) -> Ablation:
    """Run the model without each of n memories at the last position."""
    import torch
    from scipy.stats import spearmanr

    chosen = largest(effects, n)
    whole = float(live.model(input_ids=torch.tensor([ids])).logits[0, -1, token])
    found = []
    for start in range(0, len(chosen), AT_ONCE):
        part = chosen[start : start + AT_ONCE]
        with ExitStack() as hooks:
            for row, (layer, neuron) in enumerate(part):
                block = live.blocks[layer]

                def silence(_module: Any, inputs: Any, row: int = row, neuron: int = neuron) -> Any:
                    h = inputs[0].clone()
                    # some layers flatten (n, tokens, d_ff) to rows before their second matrix
                    h.view(len(part), -1, h.shape[-1])[row, -1, neuron] = 0.0  # noqa: B023
                    return (h, *inputs[1:])

                outer = block.weights["w_down" if block.gated else "w_out"].owner
                hooks.callback(outer.register_forward_pre_hook(silence).remove)
            logits = live.model(input_ids=torch.tensor([ids] * len(part))).logits[:, -1, token]
        found += [
            Ablated(layer, neuron, float(effects[layer][neuron]), whole - float(logit))
            for (layer, neuron), logit in zip(part, logits, strict=True)
        ]
    pairs = np.array([[each.direct, each.full] for each in found])
    rank = float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic) if len(found) > 2 else float("nan")
    return Ablation(tuple(found), rank)


def _values(block: Any) -> Any:
    """Return a layer's values, (d_ff, d_model)."""
    return block.weights["w_down" if block.gated else "w_out"].tensor.T
