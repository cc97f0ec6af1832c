"""The engine as an ``experts_implementation`` of transformers."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from lamina.bridges.huggingface import experts_block
from lamina.core.errors import SpecError
from lamina.transformer.native_block import NativeBlock

NAME: Final = "lamina"
_KEPT_AT: Final = "_lamina_experts"


def register_experts() -> str | None:
    """Make the engine an ``experts_implementation`` of transformers, by the name "lamina".

    For those who choose it the way transformers offers, in place of `accelerate`, which also checks
    every block. Products are in the dtype of the weights, float32 or bfloat16.

    Returns
    -------
    str or None
        "lamina", to pass on; None where this transformers has no such interface.

    Examples
    --------
    >>> from transformers import MixtralConfig, MixtralForCausalLM
    >>> from lamina import transformer
    >>> config = MixtralConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1,
    ...     num_attention_heads=2, num_key_value_heads=1, vocab_size=99)
    >>> config._experts_implementation = transformer.register_experts()
    >>> model = MixtralForCausalLM(config)  # or from_pretrained(..., experts_implementation=...)
    """
    try:
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    except ImportError:
        return None
    if NAME not in ALL_EXPERTS_FUNCTIONS:
        ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
    return NAME


def experts_forward(
    self: torch.nn.Module, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Return what a module of experts makes of rows (n, d_model); transformers calls it."""
    native = self.__dict__.get(_KEPT_AT)
    if native is None:
        native = self.__dict__[_KEPT_AT] = _make(self)
    y: Tensor = native(hidden_states, top_k_index, top_k_weights)
    return y


def _make(module: Any) -> NativeBlock:
    block = experts_block(module)
    if block is None:
        raise SpecError(
            f"lamina experts: expected fused gate_up_proj and down_proj, got "
            f"{type(module).__name__}. Choose another experts_implementation."
        )
    half = block.weights["w_down" if block.gated else "w_out"].tensor.dtype == torch.bfloat16
    native = NativeBlock(
        block, "bfloat16" if half else "float32", _Bound(_eager_forward(module), module)
    )
    reason = native.why_not()
    if reason:
        raise SpecError(
            f"lamina experts: expected experts that the engine can run, got "
            f"{type(module).__name__}: {reason}. Choose another experts_implementation."
        )
    return native


def _eager_forward(module: Any) -> Any:
    """Return the forward as the family wrote it, below the interface that led here."""
    forward = type(module).forward
    return getattr(forward, "__wrapped__", forward)


class _Bound:
    """A function with the module that it is called on; a deep copy of it has the module's copy."""

    def __init__(self, function: Any, module: Any) -> None:
        self.function, self.module = function, module

    def __call__(self, *inputs: Any) -> Any:
        """Call it."""
        return self.function(self.module, *inputs)
