"""The same layers by PyTorch's own operators, for wherever the engine does not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from lamina.core.errors import DataError
from lamina.transformer.operators import Weights, say_nan

PHI: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "relu": functional.relu,
    "squared_relu": lambda z: functional.relu(z).square(),
    "silu": functional.silu,
}


def in_plain_torch(
    x: Tensor,
    weights: Weights,
    activation: str,
    experts: Tensor | None = None,
    share: Tensor | None = None,
) -> Tensor:
    """Return what the engine computes: see `operators.run`."""
    if experts is None:
        return _dense(x, weights, activation)
    rows = x.reshape(-1, x.shape[-1])  # (n, d_model)
    share = torch.ones(experts.shape, dtype=x.dtype, device=x.device) if share is None else share
    if _by_shapes_alone(x):
        y = _all_experts(rows, weights, activation, experts, share)
    else:
        if x.device.type == "cpu" and bool((bad := share.isnan().any(dim=1)).any()):
            raise DataError(say_nan(int(bad.sum()), len(rows)))
        y = _chosen_experts(rows, weights, activation, experts, share)
    out = torch.get_autocast_dtype(x.device.type) if _autocast(x) else x.dtype
    return y.to(out).view(x.shape)


def _autocast(x: Tensor) -> bool:
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def _by_shapes_alone(x: Tensor) -> bool:
    """Tell whether the values of a routing cannot be looked at: to compile, on meta, under vmap."""
    return (
        torch.compiler.is_compiling()
        or x.device.type == "meta"
        or torch._C._are_functorch_transforms_active()
    )


def _dense(x: Tensor, weights: Weights, activation: str) -> Tensor:
    w_up, b_up, w_gate, b_gate, w_down, b_down = weights
    h = functional.linear(x, w_up, b_up)  # (..., d_ff)
    if w_gate is None:
        h = PHI[activation](h)
    else:
        h = PHI[activation](functional.linear(x, w_gate, b_gate)) * h
    return functional.linear(h, w_down, b_down)  # (..., d_model)


def _expert(weights: Weights, e: int) -> Weights:
    return Weights(*(None if t is None else t[e] for t in weights))  # type: ignore[arg-type]


def _chosen_experts(
    x: Tensor, weights: Weights, activation: str, experts: Tensor, share: Tensor
) -> Tensor:
    y = torch.zeros(x.shape, dtype=share.dtype, device=x.device)
    for e in range(len(weights.w_up)):
        row, k = torch.where(experts == e)
        made = _dense(x[row], _expert(weights, e), activation)  # (rows of e, d_model)
        y = y.index_add(0, row, made * share[row, k, None])
    return y


def _all_experts(
    x: Tensor, weights: Weights, activation: str, experts: Tensor, share: Tensor
) -> Tensor:
    """Send every row to every expert, which costs n_experts / top_k times as much."""
    y = torch.zeros(x.shape, dtype=share.dtype, device=x.device)
    for e in range(len(weights.w_up)):
        of_e = (share * (experts == e)).sum(dim=1, keepdim=True)  # (n, 1)
        y = y + of_e * _dense(x, _expert(weights, e), activation)
    return y
