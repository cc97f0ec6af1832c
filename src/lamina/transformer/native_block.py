"""One block of a Hugging Face model, run by the engine: what stands in for its forward.

The module and its parameters stay where they are; only ``module.forward`` is another function, an
attribute of the instance. So state_dict, optimisers, devices, hooks on the block and deep copies
work on, and to restore a block is to delete that attribute. Where the engine does not do (another
device or dtype, dropout within the block while training, gradients in int8), the original runs.

A family without a module for the block is patched at its parts: the first layer computes all of it,
and those after it, seeing rows of width d_model where they expect d_ff, pass them on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lamina.bridges.huggingface import Block
from lamina.transformer.operators import Weights, run
from lamina.transformer.packs import NO_SLOT, PackSlot
from lamina.transformer.tensors import native_precision

# What an MLP of GPT-2's shape does after its second layer
DROPOUT_AFTER = ("c_fc", "c_proj")


class NativeBlock:
    """The forward of a block by the engine.

    Parameters
    ----------
    block : Block
    precision : {"float32", "bfloat16", "int8"}
        Of the products; what comes out has the dtype of what goes in.
    original : callable, optional
        What runs where the engine does not; None: the block as its class has it.
    """

    def __init__(
        self, block: Block, precision: str, original: Callable[..., Tensor] | None = None
    ) -> None:
        self.block = block
        self.precision = precision
        self.fallback = original
        parts = ("up", "gate", "down") if block.gated else ("in", "no gate", "out")
        # In the order of Weights: None where the block has no such matrix or bias
        self._matrices = [
            block.weights.get(f"{kind}_{part}") for part in parts for kind in ("w", "b")
        ]
        self._slot = PackSlot()

    def drop_pack(self) -> None:
        """Forget the packed weights."""
        self._slot.drop()

    def weights(self) -> Weights:
        """Return the block's parameters, views of them where two lie in one."""
        tensors: list[Any] = [None if m is None else m.tensor for m in self._matrices]
        return Weights(*tensors)

    def __call__(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
        """Return what the block makes of x (..., d_model); experts take their ids and shares."""
        block = self.block
        weights = self.weights()
        if not self._is_on(x, weights, more, named):
            return self.original(x, *more, **named)
        slot = NO_SLOT if block.module.training else self._slot.number
        if block.kind == "experts":
            ids, share = _route(*more, **named)
            return run(
                x, weights, str(block.activation), self.precision,
                experts=ids, share=share, slot=slot,
            )  # fmt: skip
        y = run(x, weights, str(block.activation), self.precision, slot=slot)
        return block.module.dropout(y) if block.module.training and self._drops_after() else y

    def original(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
        """Return what the block's own class makes of x."""
        if self.fallback is not None:
            return self.fallback(x, *more, **named)
        module = self.block.module
        if self.block.form == "inline":  # the parts after this one run on their own
            return _raw(self._parts()[0], x)
        if self.block.form == "spread":
            return _raw(module.intermediate, x)
        return _raw(module, x, *more, **named)

    def whole_original(self, x: Tensor, *more: Any) -> Tensor:
        """Return what all parts of the original make of x, patched or not."""
        if self.block.form in ("module", "experts"):
            return self.original(x, *more)
        y = x
        for part in self._parts():
            y = _raw(part, y)
        return y

    def patches(self) -> list[tuple[nn.Module, Callable[..., Tensor]]]:
        """Return the modules whose forward is to be another, and what it is to be."""
        first, *rest = self._parts()
        return [(first, self), *((part, PassedOn(part, self.block.d_model)) for part in rest)]

    def why_not(self) -> str:
        """Return why the block cannot be run by the engine, or nothing."""
        block, weights = self.block, self.weights()
        if block.activation not in ("gelu", "gelu_tanh", "relu", "squared_relu", "silu"):
            return f"its activation or gate, {block.activation_name}, is not the engine's"
        if any(t is not None and t.device.type != "cpu" for t in weights):
            return f"its weights are on {weights.w_up.device}, not on the CPU"
        kinds = {t.dtype for t in weights if t is not None}
        if not kinds <= {torch.float32, torch.bfloat16} or len(kinds) > 1:
            names = sorted(str(kind).removeprefix("torch.") for kind in kinds)
            return f"its weights are {' and '.join(names)}, not float32 or bfloat16"
        parts = self._parts()
        if not all(isinstance(part, nn.Module) for part in parts):
            return "its activation is a function, not a module"
        if block.form in ("inline", "spread") and block.d_model == block.d_ff:
            return "d_ff equals d_model, and its parts cannot tell rows apart"
        if getattr(block.module, "_is_expert_parallel", False):
            return "its experts are spread over several processes"
        if any("forward" in part.__dict__ for part in parts):
            return "another library has replaced its forward"
        hooked = [m for part in self._inner() for m in part.modules()]
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in hooked):
            return "hooks watch its inner layers, which the engine would pass by"
        return ""

    def _parts(self) -> list[Any]:
        """Return the modules that make up the block, in the order of their call."""
        block, module = self.block, self.block.module
        if block.form == "inline":
            return [
                block.weights["w_in"].owner,
                _activation_of(module),
                block.weights["w_out"].owner,
            ]
        if block.form == "spread":
            return [module.intermediate, module.output.dense]
        return [module]

    def _inner(self) -> list[Any]:
        """Return the modules that are not called any more."""
        module = self.block.module
        if self.block.form == "inline":
            return self._parts()
        if self.block.form == "spread":
            return [*module.intermediate.children(), module.output.dense]
        return list(module.children())

    def _is_on(self, x: Tensor, weights: Weights, more: Any, named: Any) -> bool:
        if native_precision(x, weights.w_up, None, "accelerate") is None:
            return False
        if self.block.kind != "experts" and (more or named):
            return False
        module = self.block.module
        if module.training and self._drops_within():
            return False
        if self.precision != "int8" or not torch.is_grad_enabled():
            return True
        return not any(t is not None and t.requires_grad for t in (x, *weights))

    def _drops_after(self) -> bool:
        return DROPOUT_AFTER[0] in self.block.module._modules and hasattr(
            self.block.module, "dropout"
        )

    def _drops_within(self) -> bool:
        """Whether training drops hidden units, which the engine does not."""
        module = self.block.module
        if self.block.form in ("inline", "spread"):
            return bool(getattr(module, "activation_dropout", 0.0))
        if self._drops_after():
            return False
        return any(isinstance(m, nn.Dropout) and m.p > 0 for m in module.modules())


class PassedOn:
    """The forward of a part that has nothing left to do: rows of width d_model pass."""

    def __init__(self, part: nn.Module, d_model: int) -> None:
        self.part = part
        self.d_model = d_model

    def __call__(self, x: Tensor) -> Tensor:
        """Return x if the first layer has done it all, else what the part makes of it."""
        return x if x.shape[-1] == self.d_model else _raw(self.part, x)


def _raw(module: Any, *inputs: Any, **named: Any) -> Tensor:
    """Call a module's forward as its class has it."""
    y: Tensor = type(module).forward(module, *inputs, **named)
    return y


def _activation_of(module: Any) -> Any:
    for name in ("activation_fn", "act_fn", "act", "activation"):
        if callable(getattr(module, name, None)):
            return getattr(module, name)
    raise AttributeError("activation_fn")


def _route(top_k_index: Tensor, top_k_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the experts and shares of every row; named as transformers' experts name them."""
    return top_k_index, top_k_weights
