"""What the feed-forward layer and the mixture of experts share: who computes, and with what."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lamina.core.checks import check_choice, check_count, check_number
from lamina.core.errors import DataError, ShapeError
from lamina.transformer.operators import Weights, run
from lamina.transformer.packs import NO_SLOT, Packed
from lamina.transformer.plain import PHI, in_plain_torch
from lamina.transformer.tensors import native_precision


def check_rows(x: Tensor, d_model: int, where: str) -> None:
    """Refuse what is no floating tensor (..., d_model)."""
    if x.dim() < 1 or x.shape[-1] != d_model:
        raise ShapeError(
            f"{where}: expected x of shape (..., {d_model}), got {tuple(x.shape)}. "
            f"Pass rows as wide as the layer's d_model."
        )
    if not x.is_floating_point():
        raise DataError(
            f"{where}: expected floating numbers, got {x.dtype}. Convert them with x.float()."
        )


class Mixer(Packed):
    """What all layers share; a subclass has the parameters and says what they are to the engine."""

    d_model: int
    d_ff: int
    activation: str
    dropout: float
    precision: str | None
    native: bool

    def settle(
        self,
        d_model: int,
        d_ff: int,
        activation: str,
        dropout: float,
        precision: str | None,
        native: bool,
    ) -> None:
        """Check and store what every layer is called with."""
        where = type(self).__name__
        self.d_model = check_count(d_model, "d_model", where)
        self.d_ff = check_count(d_ff, "d_ff", where)
        self.activation = check_choice(activation, PHI, "activation", where)
        self.dropout = check_number(dropout, "dropout", where, 0.0, 1.0, closed="left")
        if precision is not None:
            check_choice(precision, ("bfloat16",), "precision", where)
        self.precision = precision
        self.native = bool(native)

    def weights(self) -> Weights:
        """Return the parameters as the engine names them."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw weights and biases from ±1 / sqrt(fan_in), uniformly, as ``nn.Linear`` does."""
        w_up, b_up, w_gate, b_gate, w_down, b_down = self.weights()
        with torch.no_grad():
            for matrix, bias in ((w_up, b_up), (w_gate, b_gate), (w_down, b_down)):
                for t in (matrix, bias):
                    if t is not None and matrix is not None:
                        bound = 1 / math.sqrt(matrix.shape[-1])
                        t.uniform_(-bound, bound)

    def path(self, x: Tensor) -> str:
        """Return what would compute this x now: "float32", "bfloat16" (the engine) or "torch"."""
        return self._precision(x) or "torch"

    def _precision(self, x: Tensor) -> str | None:
        if not self.native:
            return None
        return native_precision(x, self.weights().w_up, self.precision, type(self).__name__)

    def mix(self, x: Tensor, experts: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        """Return y (..., d_model), by the engine or by PyTorch's operators.

        Parameters
        ----------
        x : Tensor (..., d_model)
        experts, share : Tensor (n, top_k), optional
            Of a mixture: which experts see each row, and their weights.
        """
        precision = self._precision(x)
        if precision is not None:
            slot = NO_SLOT if self.training else self._slot_number
            weights = self.weights()
            kinds = (self.activation, precision)
            return run(x, weights, *kinds, experts=experts, share=share, slot=slot)
        if self.precision is None or x.dtype != torch.float32:
            return in_plain_torch(x, self.weights(), self.activation, experts, share)
        with torch.autocast(x.device.type, torch.bfloat16):
            y = in_plain_torch(x, self.weights(), self.activation, experts, share)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        rest = f", dropout={self.dropout}" if self.dropout else ""
        rest += f", precision={self.precision!r}" if self.precision else ""
        rest += "" if self.native else ", native=False"
        bias = self.weights().b_up is not None
        return f"{self.d_model}, {self.d_ff}, activation={self.activation!r}, bias={bias}{rest}"


def maybe_parameter(made: bool, *shape: int, **kinds: Any) -> nn.Parameter | None:
    """Return a parameter of that shape, not yet filled, or None."""
    return nn.Parameter(torch.empty(shape, **kinds)) if made else None
