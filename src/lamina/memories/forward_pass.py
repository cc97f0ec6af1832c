"""One pass of a prompt through a model: coefficients, streams, logits, and direct effects."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.errors import SpecError
from lamina.memories.final_norm import Readout
from lamina.memories.layer_flow import LayerFlow, watch_layers
from lamina.memories.live_model import LiveModel, not_called, second_matrix, values_of
from lamina.memories.watch import watch_coefficients

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ForwardPass:
    """What one pass over a prompt showed.

    Attributes
    ----------
    live : LiveModel
    flows : list of LayerFlow
        Row 0 is the prompt; row 1 is without the last feed-forward layer, a check on the model.
    coefficients : list of (n_tokens, d_ff) tensor
    final : (n_tokens, d_model) float64
        The stream before the final norm.
    logits : (n_tokens, vocabulary) tensor
        The model's own.
    scale : float
        What it multiplies the unembedding's by: 1 in most families, not in Cohere and Granite.
    cap : float or None
        What it then caps them softly at, as Gemma 2 does.
    """

    live: LiveModel
    flows: list[LayerFlow]
    coefficients: list[Any]
    final: Floats
    logits: Any
    scale: float
    cap: float | None

    @classmethod
    def run(cls, live: LiveModel, ids: list[int], where: str) -> ForwardPass:
        """Run a prompt; SpecError if the memories do not go straight into the stream."""
        import torch

        kept: dict[int, Any] = {}
        seen: dict[str, Any] = {}
        n = len(ids)
        with ExitStack() as hooks:

            def leave_out(_module: Any, _inputs: Any, output: Any) -> Any:
                left = output.clone()
                left.view(2, n, -1)[1] = 0.0
                return left

            # hooked first: the flows must see the very tensor that the model goes on with
            last = second_matrix(live.blocks[-1]).owner
            hooks.callback(last.register_forward_hook(leave_out).remove)
            flows = watch_layers(live, hooks)
            for layer, block in enumerate(live.blocks):

                def take(h: Any, _active: Any, layer: int = layer) -> None:
                    kept[layer] = h[:n].double()

                watch_coefficients(block, take, hooks)
            end = live.head if live.norm is None else live.norm

            def keep_final(_module: Any, inputs: Any) -> None:
                seen["final"] = inputs[0].double()

            def keep_head(_module: Any, _inputs: Any, output: Any) -> None:
                seen["head"] = output[0]

            hooks.callback(end.register_forward_pre_hook(keep_final).remove)
            hooks.callback(live.head.register_forward_hook(keep_head).remove)
            logits = live.model(input_ids=torch.tensor([ids, ids]), use_cache=False).logits[0]
        if len(kept) < len(flows) or len(seen) < 2:
            raise not_called(live.model, where)
        _check_straight(live, flows, seen["final"], where)
        scale, cap = _after_head(live, seen["head"], logits, where)
        coefficients = [kept[layer] for layer in range(len(flows))]
        return cls(live, flows, coefficients, seen["final"][0].numpy(), logits, scale, cap)

    def readout(self, tokens: list[int], where: str) -> Readout:
        """Return the readout of a token at each position."""
        found = Readout.of(self.live, tokens, self.final, self.scale)
        if found is None:
            raise SpecError(
                f"{where}: expected a final norm like LayerNorm or RMSNorm, got "
                f"{type(self.live.norm).__name__}. Choose another model."
            )
        return found

    def probabilities(self, streams: Any) -> Any:
        """Return what a stream predicts, (n, d_model) -> (n, vocabulary) probabilities."""
        import torch

        logits = self.scale * self.live.unembed(streams).float()
        return torch.softmax(_capped(logits, self.cap), 1)

    def effects(self, readout: Readout, layer: int) -> Floats:
        """Return the direct effect of a layer's memories at each position, (n_tokens, d_ff)."""
        import torch

        flow, h = self.flows[layer], self.coefficients[layer]
        values = values_of(self.live.blocks[layer])
        if flow.ffn_norm is None:
            return readout.effects(values.double().numpy(), h.numpy())
        found = []  # what is added is normed first: without the memory, all of it changes
        for position, c in enumerate(h):
            raw = flow.raw[0, position]
            left = flow.ffn_norm(raw - c[:, None].to(raw.dtype) * values)
            change = torch.as_tensor(flow.ffn_norm(raw) - left)
            found.append(readout.effects_at(position, change.double().numpy()))
        return np.stack(found)


def _check_straight(live: LiveModel, flows: list[LayerFlow], final: Any, where: str) -> None:
    """Refuse a model where what memories add does not reach the final stream as it is."""
    import torch

    name = type(live.model).__name__
    if flows[0].post_norm:
        raise SpecError(
            f"{where}: expected layers that norm what they read, got {name}, which norms the "
            "stream itself: nothing goes straight through. Choose a decoder such as GPT-2 or Llama."
        )
    added = flows[-1].ffn.double()
    wanted = added[0] - added[1]  # a norm may make something of 0
    change = final[0] - final[1]
    eps = torch.finfo(flows[-1].ffn.dtype).eps  # of the stream: it may be far larger
    room = 1e-3 * float(wanted.norm()) + 16 * eps * float(final[0].norm())
    if wanted.shape != change.shape or float((wanted - change).norm()) > room:
        raise SpecError(
            f"{where}: expected layers that add their memories to the stream as they are, got "
            f"{name}, which scales or gates them. Choose a decoder such as GPT-2 or Llama."
        )


def _capped(logits: Any, cap: float | None) -> Any:
    return logits if cap is None else cap * (logits / cap).tanh()


def _after_head(live: LiveModel, head: Any, logits: Any, where: str) -> tuple[float, float | None]:
    """Return the scale and the soft cap that make the unembedding's logits the model's."""
    cap = getattr(live.model.config, "final_logit_softcapping", None)
    head, logits = head.double(), logits.double()
    scale = 1.0 if cap else float((head * logits).sum() / (head * head).sum().clamp_min(1e-300))
    scale = 1.0 if abs(scale - 1.0) < 1e-6 else scale
    error = float((_capped(scale * head, cap) - logits).abs().max())
    if error > 2e-2 * float(logits.abs().max()):
        raise SpecError(
            f"{where}: expected logits that are the unembedding's, scaled or softly capped, got "
            f"others in {type(live.model).__name__}. Choose another model."
        )
    return scale, cap
