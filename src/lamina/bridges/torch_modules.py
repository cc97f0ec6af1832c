"""The PyTorch modules that ``to_torch`` needs beside PyTorch's own; imports torch, so import late.

They live at the top of a module, not inside ``to_torch``, so that what it returns can be pickled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lamina.core.spec import NetworkSpec


class Sine(nn.Module):
    """sin(z)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(z)


class SquaredReLU(nn.Module):
    """max(z, 0)^2."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.relu(z).square()


class Exp(nn.Module):
    """exp(z)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.exp(z)


class _StepFunction(torch.autograd.Function):
    """1 where z >= 0, else 0; its derivative is 0."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:  # noqa: ARG004 (torch's signature)
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # noqa: ARG004
        return torch.zeros_like(grad_outputs[0])


class Step(nn.Module):
    """1 where z >= 0, else 0; its derivative is 0."""

    def forward(self, z: Tensor) -> Tensor:
        return _StepFunction.apply(z)  # type: ignore[no-any-return,no-untyped-call]


class LayeredGraph(nn.Module):
    """A network with skips or residuals: layer l reads h_{l-1} and the h_j of its skips.

    Parameters
    ----------
    spec : NetworkSpec
        The network; `from_torch` reads it back.
    linears : list of nn.Linear
        One a layer.
    activations : list of nn.Module
        One a layer; the last is the output unit.
    """

    def __init__(
        self, spec: NetworkSpec, linears: list[nn.Linear], activations: list[nn.Module]
    ) -> None:
        super().__init__()
        self.spec = spec
        self.linears = nn.ModuleList(linears)
        self.activations = nn.ModuleList(activations)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return y_pred (..., d_out) for x (..., d_in)."""
        h = [x]
        for layer in range(1, self.spec.n_layers + 1):
            u = torch.cat([h[j] for j in self.spec.sources(layer)], dim=-1)  # (..., fan_in_l)
            out = self.activations[layer - 1](self.linears[layer - 1](u))
            if layer < self.spec.n_layers:
                out = self.dropout(out)
            h.append(out + h[-1] if self.spec.residual_at(layer) else out)
        return h[-1]
