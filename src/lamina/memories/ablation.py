"""Full effects: the whole model run without each of some memories."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

import numpy as np

from lamina.memories.explanation import Ablated, Ablation
from lamina.memories.forward_pass import ForwardPass
from lamina.memories.live_model import second_matrix

AT_ONCE: Final = 16  # memories that are ablated in one pass


def ablate(
    seen: ForwardPass, ids: list[int], token: int, chosen: list[tuple[int, int, float]]
) -> Ablation:
    """Run the model without each (layer, neuron, direct effect) at the last position.

    Logits are those of direct effects: the unembedding's, scaled, before any soft cap.
    """
    import torch
    from scipy.stats import spearmanr

    live = seen.live
    found: list[Ablated] = []
    for start in range(0, len(chosen), AT_ONCE):
        part = chosen[start : start + AT_ONCE]
        logits: list[Any] = []
        with ExitStack() as hooks:
            for row, (layer, neuron, _) in enumerate(part):

                def silence(_module: Any, inputs: Any, row: int = row, neuron: int = neuron) -> Any:
                    h = inputs[0].clone()
                    # some layers flatten (n, tokens, d_ff) to rows before their second matrix
                    h.view(len(part) + 1, -1, h.shape[-1])[row, -1, neuron] = 0.0  # noqa: B023
                    return (h, *inputs[1:])

                outer = second_matrix(live.blocks[layer]).owner
                hooks.callback(outer.register_forward_pre_hook(silence).remove)

            def keep(_module: Any, _inputs: Any, output: Any) -> None:
                logits[:] = (seen.scale * output[:, -1, token].double()).tolist()  # noqa: B023

            hooks.callback(live.head.register_forward_hook(keep).remove)
            # the last row is whole: compared within one batch, rounding is the same for all
            live.model(input_ids=torch.tensor([ids] * (len(part) + 1)), use_cache=False)
        found += [
            Ablated(layer, neuron, direct, logits[-1] - logit)
            for (layer, neuron, direct), logit in zip(part, logits[:-1], strict=True)
        ]
    pairs = np.array([[each.direct, each.full] for each in found])
    rank = float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic) if len(found) > 2 else float("nan")
    return Ablation(tuple(found), rank)
