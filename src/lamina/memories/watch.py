"""Hooks that tell the coefficients of a layer's memories during a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from lamina.bridges.huggingface import Block
from lamina.memories.live_model import second_matrix


def watch_coefficients(block: Block, take: Callable[[Any, Any], None], hooks: ExitStack) -> None:
    """Call ``take(h, active)`` at each pass: coefficients and activity, (n_tokens, d_ff).

    The coefficients are what the second matrix reads; a memory is active where what comes before
    the activation is positive, which of a gated layer is the gate.
    """
    gate: list[Any] = []

    def keep_gate(_module: Any, _inputs: Any, output: Any) -> None:
        half = block.weights["w_gate"].half
        gate[:] = [output if half is None else output.narrow(-1, half * block.d_ff, block.d_ff)]

    def tell(_module: Any, inputs: tuple[Any, ...]) -> None:
        h = inputs[0].reshape(-1, block.d_ff)
        take(h, gate[0].reshape(-1, block.d_ff) > 0 if block.gated else h > 0)

    outer = second_matrix(block).owner
    hooks.callback(outer.register_forward_pre_hook(tell).remove)
    if block.gated:
        owner = block.weights["w_gate"].owner
        hooks.callback(owner.register_forward_hook(keep_gate).remove)
