"""How memories compose a layer's output, and how layers refine the residual's prediction."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lamina.core.errors import DataError, SpecError, require_extra
from lamina.memories.layer_flow import LayerFlow, watch_layers
from lamina.memories.live_model import LiveModel, check_tokenizer, values_of
from lamina.memories.sequences import cut
from lamina.memories.watch import watch_coefficients

WHERE: Final = "memories.measure_refinement"
ROWS: Final = 256  # values or places that are projected at a time: 256 * vocabulary float32


@dataclass(frozen=True)
class Refinement:
    """What one feed-forward layer does to predictions, over places of a corpus.

    Every prediction is the top token of ``lm_head(norm(.))``: of a memory's value, of the layer's
    sum of them (ffn), of the residual stream before it, and of the stream after it.

    Attributes
    ----------
    layer, n : int
        n is the number of places.
    active : float
        Mean share of the layer's memories that are active.
    differs : float
        Share of places where ffn's prediction is that of no memory of the layer.
    differs_active : float
        The same of the memories that are active.
    settled : float
        Share of places where the residual's prediction is already the model's own.
    probability : float
        Mean probability that the residual gives the model's own prediction.
    residual, ffn, agreement, composition : float
        Shares of places where the prediction after the layer is the residual's only, ffn's only,
        both's, or neither's: a compromise.
    """

    layer: int
    n: int
    active: float
    differs: float
    differs_active: float
    settled: float
    probability: float
    residual: float
    ffn: float
    agreement: float
    composition: float


def measure_refinement(
    model: Any,
    tokenizer: Any,
    texts: Iterable[str],
    *,
    n_places: int = 1000,
    max_length: int = 128,
    rng: int | np.random.Generator = 0,
) -> list[Refinement]:
    """Measure at random places how memories make up layers' outputs, and layers predictions.

    Parameters
    ----------
    model : transformers model
        With an unembedding; plain or gated feed-forward layers; run in evaluation mode.
    tokenizer : fast tokenizer
    texts : iterable of str
    n_places : int
        Tokens, at most, chosen at random among all that are not special.
    max_length : int
        Tokens of a sequence, special ones included.
    rng : int or Generator

    Returns
    -------
    list of Refinement
        One a layer.

    Raises
    ------
    DataError
        No text, or a tokenizer that does not match.
    SpecError
        A model without feed-forward layers or without an unembedding, or a number out of range.

    References
    ----------
    Geva et al. 2021, arXiv:2012.14913, section 5, figures 8 to 11: no norm is applied there.
    """
    import torch

    require_extra("transformers", "torch")
    live = LiveModel.find(model, WHERE)
    check_tokenizer(model, tokenizer, WHERE)
    if n_places < 1 or max_length < 4:
        raise SpecError(
            f"{WHERE}: expected n_places >= 1 and max_length >= 4, got {n_places} and "
            f"{max_length}. Raise them."
        )
    if live.head is None:
        raise SpecError(
            f"{WHERE}: expected a model with an unembedding, got {type(model).__name__}. Load it "
            "with its language model's head, as AutoModelForCausalLM does."
        )
    chosen = _choose(cut(texts, tokenizer, max_length, WHERE), n_places, np.random.default_rng(rng))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            tops = [_top(live, values_of(block)) for block in live.blocks]
            sums = [_Sums(live, top) for top in tops]
            for ids, places in chosen:
                _add(live, sums, ids, places)
            for each in sums:
                each.count()
    finally:
        model.train(was_training)
    return [each.result(layer) for layer, each in enumerate(sums)]


class _Sums:
    """Counts of one layer, over the places so far."""

    def __init__(self, live: LiveModel, top: Any) -> None:
        self.live, self.top = live, top  # (d_ff,) each memory's top token
        self.n = 0
        self.counts = np.zeros(9)
        self.waiting: list[tuple[Any, ...]] = []

    def add(self, flow: LayerFlow, active: Any, final: Any, places: Any) -> None:
        """Take in the places of one sequence; active is (n, d_ff), final (n,) tokens.

        They wait until there are many: the unembedding is read from memory for each product.
        """
        states = (flow.residual, flow.ffn, flow.output)
        self.waiting.append((*(x[0, places] for x in states), active, final))
        if sum(len(rows[-1]) for rows in self.waiting) >= ROWS:
            self.count()

    def count(self) -> None:
        """Count what waits."""
        import torch

        if not self.waiting:
            return
        residual, ffn, output, active, final = (
            torch.cat(parts) for parts in zip(*self.waiting, strict=True)
        )
        self.waiting = []
        before = self.live.unembed(residual).float()
        r = before.argmax(1)
        y, o = _top(self.live, ffn), _top(self.live, output)
        probability = torch.softmax(before, 1).gather(1, final[:, None])[:, 0]
        alike = y[:, None] == self.top
        self.n += len(r)
        self.counts += [
            float(row.double().sum())
            for row in (
                active.double().mean(1),
                ~alike.any(1),
                ~(alike & active).any(1),
                r == final,
                probability,
                (o == r) & (o != y),
                (o == y) & (o != r),
                (o == r) & (o == y),
                (o != r) & (o != y),
            )
        ]

    def result(self, layer: int) -> Refinement:
        return Refinement(layer, self.n, *(self.counts / self.n).tolist())


def _add(live: LiveModel, sums: list[_Sums], ids: list[int], places: list[int]) -> None:
    """Run one sequence, and take in its places."""
    import torch

    with ExitStack() as hooks:
        flows = watch_layers(live, hooks)
        actives: dict[int, Any] = {}
        for layer, block in enumerate(live.blocks):

            def keep(_h: Any, active: Any, layer: int = layer) -> None:
                actives[layer] = active[places]

            watch_coefficients(block, keep, hooks)
        logits = live.model(input_ids=torch.tensor([ids])).logits
    final = logits[0, places].argmax(1)
    for layer, (each, flow) in enumerate(zip(sums, flows, strict=True)):
        each.add(flow, actives[layer], final, places)


def _choose(
    sequences: Iterable[dict[str, Any]], n_places: int, rng: np.random.Generator
) -> list[tuple[list[int], list[int]]]:
    """Return the sequences with places that were drawn: token ids, and the places."""
    kept = [
        (s["ids"], [i for i, special in enumerate(s["special"]) if not special]) for s in sequences
    ]
    every = [(number, i) for number, (_, places) in enumerate(kept) for i in places]
    if not every:
        raise DataError(f"{WHERE}: expected texts with at least one token, got none. Pass some.")
    drawn = rng.choice(len(every), min(n_places, len(every)), replace=False)
    by_sequence: dict[int, list[int]] = {}
    for number, i in sorted(every[k] for k in drawn):
        by_sequence.setdefault(number, []).append(i)
    return [(kept[number][0], places) for number, places in by_sequence.items()]


def _top(live: LiveModel, vectors: Any) -> Any:
    """Return the top token of each vector, in parts."""
    import torch

    parts = vectors.split(ROWS)
    return torch.cat([live.unembed(part.contiguous()).argmax(1) for part in parts])
