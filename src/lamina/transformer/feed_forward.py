"""The feed-forward layer of a Transformer, plain and gated: its channel mixer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lamina.core.checks import check_choice, check_count, check_number
from lamina.core.errors import DataError, ShapeError
from lamina.transformer.operators import Weights, native_precision, run
from lamina.transformer.packs import NO_SLOT, Packed

# The same functions as the engine's, for wherever it does not run.
PHI: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "relu": functional.relu,
    "squared_relu": lambda z: functional.relu(z).square(),
    "silu": functional.silu,
}


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


def in_plain_torch(x: Tensor, weights: Weights, activation: str) -> Tensor:
    """Return what the engine computes, by PyTorch's own operators, for dense weights."""
    w_up, b_up, w_gate, b_gate, w_down, b_down = weights
    h = functional.linear(x, w_up, b_up)  # (..., d_ff)
    if w_gate is None:
        h = PHI[activation](h)
    else:
        h = PHI[activation](functional.linear(x, w_gate, b_gate)) * h
    return functional.linear(h, w_down, b_down)  # (..., d_model)


class _Mixer(Packed):
    """What both layers share; a subclass has the parameters and says what they are to the engine.

    A small ``__init__`` each stores what it is called with, for ``extra_repr``.
    """

    d_model: int
    d_ff: int
    activation: str
    dropout: float
    precision: str | None
    native: bool

    def _settle(
        self,
        d_model: int,
        d_ff: int,
        activation: str,
        dropout: float,
        precision: str | None,
        native: bool,
    ) -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        """Return y (..., d_model) for x (..., d_model), each position by itself."""
        check_rows(x, self.d_model, type(self).__name__)
        precision = self._precision(x)
        if precision is None:
            y = self._plain(x)
        else:
            slot = NO_SLOT if self.training else self._slot_number
            y = run(x, self.weights(), self.activation, precision, slot=slot)
        return functional.dropout(y, self.dropout, self.training) if self.dropout else y

    def _plain(self, x: Tensor) -> Tensor:
        if self.precision is None or x.dtype != torch.float32:
            return in_plain_torch(x, self.weights(), self.activation)
        with torch.autocast(x.device.type, torch.bfloat16):
            return in_plain_torch(x, self.weights(), self.activation).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        rest = f", dropout={self.dropout}" if self.dropout else ""
        rest += f", precision={self.precision!r}" if self.precision else ""
        rest += "" if self.native else ", native=False"
        bias = self.weights().b_up is not None
        return f"{self.d_model}, {self.d_ff}, activation={self.activation!r}, bias={bias}{rest}"


def _parameter(made: bool, *shape: int, **kinds: Any) -> nn.Parameter | None:
    return nn.Parameter(torch.empty(shape, **kinds)) if made else None


class FeedForward(_Mixer):
    """``y = phi(x w_in^T + b_in) w_out^T + b_out``, at each position by itself.

    On CPU tensors in float32 or bfloat16 the native engine computes it, forward and backward;
    elsewhere PyTorch's own operators do (float64, other devices, ``torch.func``).

    Parameters
    ----------
    d_model, d_ff : int, at least 1
        Width of the rows, and of the hidden layer; usually d_ff = 4 d_model.
    activation : {"gelu", "gelu_tanh", "relu", "squared_relu", "silu"}, default "gelu"
    bias : bool, default True
        Whether there are b_in and b_out.
    dropout : float in [0, 1), default 0
        Share of y that training sets to zero, the rest scaled up (GPT-2's residual dropout).
    precision : None or "bfloat16", default None
        "bfloat16" multiplies float32 tensors in bfloat16 with float32 sums, for about twice the
        speed at 8 bits of precision; needs AMX or AVX-512-BF16. Tensors in bfloat16, and those
        under ``torch.autocast("cpu", torch.bfloat16)``, take that path by themselves.
    native : bool, default True
        False always uses PyTorch's operators: for second derivatives.
    device, dtype
        Of the parameters, as for ``nn.Linear``.

    Attributes
    ----------
    w_in : Parameter (d_ff, d_model)
    b_in : Parameter (d_ff,) or None
    w_out : Parameter (d_model, d_ff)
    b_out : Parameter (d_model,) or None

    Raises
    ------
    SpecError
        If an argument is not as above, or precision="bfloat16" meets a CPU without such products.
    ShapeError, DataError
        Of a call, if x is not of shape (..., d_model) or holds no floating numbers.

    Notes
    -----
    4 d_model d_ff operations a row forward, twice that backward. In evaluation mode without
    gradients the weights are packed once, which takes their bytes again (half in bfloat16).
    NaN passes through to its own row.

    References
    ----------
    Vaswani et al. 2017, arXiv:1706.03762, section 3.3.

    Examples
    --------
    >>> import torch
    >>> from lamina.transformer import FeedForward
    >>> ffn = FeedForward(8, 32)
    >>> ffn
    FeedForward(8, 32, activation='gelu', bias=True)
    >>> x = torch.zeros(2, 5, 8, requires_grad=True)
    >>> y = ffn(x)
    >>> y.shape, ffn.path(x)
    (torch.Size([2, 5, 8]), 'float32')
    >>> y.sum().backward()
    >>> ffn.w_in.grad.shape
    torch.Size([32, 8])
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: str = "gelu",
        *,
        bias: bool = True,
        dropout: float = 0.0,
        precision: str | None = None,
        native: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._settle(d_model, d_ff, activation, dropout, precision, native)
        kinds = {"device": device, "dtype": dtype}
        self.w_in = nn.Parameter(torch.empty(d_ff, d_model, **kinds))
        self.b_in = _parameter(bias, d_ff, **kinds)
        self.w_out = nn.Parameter(torch.empty(d_model, d_ff, **kinds))
        self.b_out = _parameter(bias, d_model, **kinds)
        self.reset_parameters()

    def weights(self) -> Weights:
        """Return the parameters as the engine names them."""
        return Weights(self.w_in, self.b_in, None, None, self.w_out, self.b_out)


class GatedFeedForward(_Mixer):
    """``y = (phi(x w_gate^T + b_gate) * (x w_up^T + b_up)) w_down^T + b_down``.

    SwiGLU with "silu", GEGLU with "gelu", ReGLU with "relu" (Shazeer 2020, arXiv:2002.05202). It
    runs where and as `FeedForward` does.

    Parameters
    ----------
    d_model, d_ff : int, at least 1
        Width of the rows, and of the hidden layer; about 8/3 d_model has as many weights as
        `FeedForward` with 4 d_model.
    activation : {"silu", "gelu", "gelu_tanh", "relu", "squared_relu"}, default "silu"
    bias : bool, default False
        Whether there are b_gate, b_up and b_down; the Llama family has none.
    dropout, precision, native, device, dtype
        As of `FeedForward`.

    Attributes
    ----------
    w_gate, w_up : Parameter (d_ff, d_model)
    w_down : Parameter (d_model, d_ff)
    b_gate, b_up : Parameter (d_ff,) or None
    b_down : Parameter (d_model,) or None

    Notes
    -----
    6 d_model d_ff operations a row forward, twice that backward.

    Examples
    --------
    >>> import torch
    >>> from lamina.transformer import GatedFeedForward
    >>> swiglu = GatedFeedForward(8, 24)
    >>> swiglu(torch.zeros(3, 8)).shape, sorted(swiglu.state_dict())
    (torch.Size([3, 8]), ['w_down', 'w_gate', 'w_up'])
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: str = "silu",
        *,
        bias: bool = False,
        dropout: float = 0.0,
        precision: str | None = None,
        native: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._settle(d_model, d_ff, activation, dropout, precision, native)
        kinds = {"device": device, "dtype": dtype}
        self.w_gate = nn.Parameter(torch.empty(d_ff, d_model, **kinds))
        self.b_gate = _parameter(bias, d_ff, **kinds)
        self.w_up = nn.Parameter(torch.empty(d_ff, d_model, **kinds))
        self.b_up = _parameter(bias, d_ff, **kinds)
        self.w_down = nn.Parameter(torch.empty(d_model, d_ff, **kinds))
        self.b_down = _parameter(bias, d_model, **kinds)
        self.reset_parameters()

    def weights(self) -> Weights:
        """Return the parameters as the engine names them."""
        return Weights(self.w_up, self.b_up, self.w_gate, self.b_gate, self.w_down, self.b_down)
