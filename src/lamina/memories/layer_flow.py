"""What flows through each layer of a live model: the residual, the memories' sum, and both."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from lamina.memories.live_model import LiveModel, second_matrix


@dataclass
class LayerFlow:
    """One layer's hidden states during a forward pass, (n_sequences, n_tokens, d_model) each.

    Attributes
    ----------
    input : tensor
        What comes in from the layer before.
    residual : tensor
        The stream before the feed-forward layer's output is added.
    ffn : tensor
        What is added: the layer's output, after a norm of its own where the family has one.
    raw, ffn_norm : tensor and module, or None
        The layer's sum of memories before that norm, and the norm.
    output : tensor
        The layer's output: the sum of residual and ffn, normed in post-norm families such as BERT.
    """

    input: Any = None
    ffn: Any = None
    raw: Any = None
    ffn_norm: Any = None
    output: Any = None
    normed: list[tuple[Any, Any]] = field(default_factory=list)  # inputs and outputs of its norms

    @property
    def post_norm(self) -> bool:
        """Whether the layer norms the stream itself, so that nothing goes straight through."""
        return any(_same(after, self.output) for _, after in self.normed)

    @property
    def residual(self) -> Any:
        """The stream before, found from what came after."""
        for before, after in self.normed:
            if _same(after, self.output):  # post-norm: the norm's input is the sum
                return before - self.ffn
        return self.output - self.ffn


def watch_layers(live: LiveModel, hooks: ExitStack) -> list[LayerFlow]:
    """Hook a model so that each forward pass fills the flows, one a feed-forward layer."""
    flows = []
    for block in live.blocks:
        flow = LayerFlow()
        layer = live.model.get_submodule(f"{block.stack}.{block.layer}")
        outer = second_matrix(block).owner

        def begin(_module: Any, inputs: Any, named: Any, flow: LayerFlow = flow) -> None:
            flow.input = inputs[0] if inputs else named["hidden_states"]
            flow.normed.clear()

        def keep_ffn(_module: Any, _inputs: Any, output: Any, flow: LayerFlow = flow) -> None:
            flow.ffn = output

        def keep_norm(module: Any, inputs: Any, output: Any, flow: LayerFlow = flow) -> None:
            if flow.ffn is not None and _same(inputs[0], flow.ffn):  # Gemma 2 norms what it adds
                flow.raw, flow.ffn_norm, flow.ffn = flow.ffn, module, output
            flow.normed.append((inputs[0], output))

        def keep_output(_module: Any, _inputs: Any, output: Any, flow: LayerFlow = flow) -> None:
            flow.output = output[0] if isinstance(output, tuple) else output
            if flow.ffn is not None and flow.ffn.numel() == flow.output.numel():
                flow.ffn = flow.ffn.reshape(flow.output.shape)  # OPT flattens it to rows

        hooks.callback(layer.register_forward_pre_hook(begin, with_kwargs=True).remove)
        hooks.callback(outer.register_forward_hook(keep_ffn).remove)
        for module in layer.modules():
            if "norm" in type(module).__name__.lower():
                hooks.callback(module.register_forward_hook(keep_norm).remove)
        hooks.callback(layer.register_forward_hook(keep_output).remove)
        flows.append(flow)
    return flows


def _same(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and a.data_ptr() == b.data_ptr())
