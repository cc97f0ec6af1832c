"""A model's output head run by the engine: from hidden states to logits, without gradients.

The head is one matrix of (vocabulary, d_model), in a small model as large as half of its
feed-forward networks, and read whole for every token. Only the module's ``forward`` is another
function, as with `native_block`; with gradients, in training and on other devices the original
runs.
"""

from __future__ import annotations

import atexit
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from lamina.core.grouped import ExpertWeights, GroupedLinear
from lamina.transformer.packs import PackSlot, find_slot
from lamina.transformer.tensors import (
    FLOAT32,
    as_array,
    as_result,
    is_watched,
    memory,
    native_precision,
    threads,
)

# Rows in bfloat16: beyond, PyTorch is as fast or faster, as the engine's float32 logits have to be
# rounded (50 MB of them for 256 rows of SmolLM2)
MOST_HALF_ROWS: Final = 32


class NativeHead:
    """The forward of an output head by the engine.

    Parameters
    ----------
    module : torch.nn.Linear
    precision : {"float32", "bfloat16", "int8"}
        Of the products; logits have the dtype of what goes in.
    """

    def __init__(self, module: nn.Linear, precision: str) -> None:
        self.module = module
        self.precision = precision
        self._slot = PackSlot()

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (..., vocabulary) of x (..., d_model)."""
        module = self.module
        learns = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *module.parameters()))
        is_other = learns or module.training
        if is_other or native_precision(x, module.weight, None, "accelerate") is None:
            return self.original(x)
        half = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        if half and x.numel() > MOST_HALF_ROWS * x.shape[-1]:
            return self.original(x)
        return self.by_engine(x)

    def by_engine(self, x: Tensor) -> Tensor:
        """Return the same, whatever is faster."""
        weight, bias = self.module.weight, self.module.bias
        half = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        rows = x.reshape(-1, x.shape[-1])
        compiling = torch.compiler.is_compiling() or is_watched(rows)
        multiply = linear_alone if compiling else _multiply
        y: Tensor = multiply(rows, weight, bias, self.precision, half, self._slot.number)
        return y.view(*x.shape[:-1], y.shape[-1])

    def original(self, x: Tensor) -> Tensor:
        """Return what PyTorch makes of x."""
        return nn.Linear.forward(self.module, x)

    def why_not(self) -> str:
        """Return why the engine cannot run it, or nothing."""
        weight = self.module.weight
        if weight.device.type != "cpu":
            return f"its weights are on {weight.device}, not on the CPU"
        if weight.dtype not in (torch.float32, torch.bfloat16):
            own = str(weight.dtype).removeprefix("torch.")
            return f"its weights are {own}, not float32 or bfloat16"
        if "forward" in self.module.__dict__:
            return "another library has replaced its forward"
        return ""


@lru_cache(maxsize=16)
def _engine(d_model: int, n_logits: int, precision: str) -> GroupedLinear:
    lower = None if precision == FLOAT32 else precision
    return GroupedLinear(1, d_model, n_logits, precision=lower, on_host=True)


def _multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None, precision: str, half: bool, slot: int
) -> Tensor:
    engine = _engine(weight.shape[1], weight.shape[0], precision)
    y = memory(torch.Size((len(x), weight.shape[0])))
    tensors = [weight] if bias is None else [weight, bias]

    def pack() -> Any:
        arrays = as_array(weight)[np.newaxis], None if bias is None else as_array(bias)[np.newaxis]
        return engine.pack([ExpertWeights(*arrays)], n_threads=threads())

    keeper = find_slot(slot, tensors)
    packed = pack() if keeper is None else keeper.get(tensors, engine, pack)
    offsets = np.array([0, len(x)])
    engine.run(packed, as_array(x), y.numpy(), offsets=offsets, n_threads=threads())
    return as_result(y, half)


linear_alone = torch.library.custom_op("lamina::linear", _multiply, mutates_args=())


@linear_alone.register_fake
def _(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    kind = torch.bfloat16 if rest[2] else torch.float32
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=kind)


@atexit.register
def _let_go() -> None:
    """Free the engines while they still can be."""
    _engine.cache_clear()
