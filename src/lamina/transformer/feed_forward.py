"""The feed-forward layer of a Transformer, plain and gated: its channel mixer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lamina.transformer.mixer import Mixer, check_rows, maybe_parameter
from lamina.transformer.operators import Weights


class _Dense(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        """Return y (..., d_model) for x (..., d_model), each position by itself."""
        check_rows(x, self.d_model, type(self).__name__)
        y = self.mix(x)
        return functional.dropout(y, self.dropout, self.training) if self.dropout else y


class FeedForward(_Dense):
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
        self.settle(d_model, d_ff, activation, dropout, precision, native)
        kinds = {"device": device, "dtype": dtype}
        self.w_in = nn.Parameter(torch.empty(d_ff, d_model, **kinds))
        self.b_in = maybe_parameter(bias, d_ff, **kinds)
        self.w_out = nn.Parameter(torch.empty(d_model, d_ff, **kinds))
        self.b_out = maybe_parameter(bias, d_model, **kinds)
        self.reset_parameters()

    def weights(self) -> Weights:
        """Return the parameters as the engine names them."""
        return Weights(self.w_in, self.b_in, None, None, self.w_out, self.b_out)


class GatedFeedForward(_Dense):
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
        self.settle(d_model, d_ff, activation, dropout, precision, native)
        kinds = {"device": device, "dtype": dtype}
        self.w_gate = nn.Parameter(torch.empty(d_ff, d_model, **kinds))
        self.b_gate = maybe_parameter(bias, d_ff, **kinds)
        self.w_up = nn.Parameter(torch.empty(d_ff, d_model, **kinds))
        self.b_up = maybe_parameter(bias, d_ff, **kinds)
        self.w_down = nn.Parameter(torch.empty(d_model, d_ff, **kinds))
        self.b_down = maybe_parameter(bias, d_model, **kinds)
        self.reset_parameters()

    def weights(self) -> Weights:
        """Return the parameters as the engine names them."""
        return Weights(self.w_up, self.b_up, self.w_gate, self.b_gate, self.w_down, self.b_down)
