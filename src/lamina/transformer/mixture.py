"""A mixture of experts: many feed-forward layers, of which each token uses a few."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lamina.core.checks import check_choice, check_count, check_number
from lamina.core.errors import DataError, SpecError
from lamina.transformer.feed_forward import FeedForward, GatedFeedForward
from lamina.transformer.mixer import Mixer, check_rows, maybe_parameter
from lamina.transformer.operators import Weights
from lamina.transformer.routing import (
    Router,
    Routing,
    balance_loss,
    drop_beyond,
    in_backward,
    z_loss,
)
from lamina.transformer.statistics import RoutingStatistics, routing_statistics


class MixtureOfExperts(Mixer):
    """``y = sum over the chosen e of share_e f_e(x)``, f_e gated or plain feed-forward layers.

    A linear router scores every expert for every token; the top_k highest compute, and their
    results are weighted by the scores. All experts run in one call of the engine, forward and
    backward, where `FeedForward` does.

    Parameters
    ----------
    d_model, d_ff : int, at least 1
        Width of the rows, and of each expert's hidden layer.
    n_experts : int, default 8
    top_k : int, default 2, at most n_experts
        Experts a token.
    activation : str, default "silu"
        As of `FeedForward`.
    gated : bool, default True
        Whether experts are gated (Mixtral, OLMoE, DeepSeek) or plain (Switch).
    bias : bool, default False
        Whether experts have biases.
    scores : {"softmax", "sigmoid"}, default "softmax"
        Over all experts, before the choice; "sigmoid" as in DeepSeek-V3.
    renormalise : bool, default True
        Whether a token's shares add up to 1 (Mixtral); False as in OLMoE and Switch.
    jitter : float in [0, 1), default 0
        In training the router, and it alone, sees x times numbers from [1 - jitter, 1 + jitter].
    balance : {"loss", "bias"} or None, default "loss"
        What keeps the load even: a term of `aux_loss` (Switch, GShard), or a bias that the choice
        alone sees (DeepSeek-V3, arXiv:2412.19437, section 2.1.2), so that the loss is the task's.
    balance_weight : float, default 0.01
        Of the balance loss in `aux_loss`; raise it where experts stay idle.
    z_weight : float, default 0
        Of the z-loss in `aux_loss`; 1e-3 (ST-MoE) where the router's logits grow without end.
    bias_rate : float, default 1e-3
        What one training pass adds to the selection bias of an expert with less than the mean
        load, and takes from one with more.
    n_shared : int, default 0
        Experts that see every token, as one layer of width n_shared d_ff; its result is added.
    capacity_factor : float or None, default None
        None drops nothing. Otherwise an expert takes at most
        ceil(capacity_factor n top_k / n_experts) of n tokens, in training and evaluation; a token
        that is dropped gets nothing from that expert.
    drop : {"position", "score"}, default "position"
        Who stays where capacity ends: first choices and then earlier tokens, or higher scores.
    dropout, precision, native, device, dtype
        As of `FeedForward`.

    Attributes
    ----------
    w_gate, w_up : Parameter (n_experts, d_ff, d_model)
    w_down : Parameter (n_experts, d_model, d_ff)
    w_in, w_out : Parameter
        In the place of these where experts are plain.
    b_gate, b_up, b_down; b_in, b_out : Parameter (n_experts, width) or None
    router : Router
    shared : FeedForward, GatedFeedForward or None

    Raises
    ------
    SpecError
        If an argument is not as above.
    ShapeError, DataError
        Of a call: if x is not (..., d_model), has no tokens, or its scores are NaN.

    Notes
    -----
    top_k times the operations of an expert's dense layer a token. The router computes in float32
    under autocast and for bfloat16 too. With gradient checkpointing `aux_loss` has a gradient only
    under ``use_reentrant=False``. Dropped tokens are computed and not added, so that capacity
    bounds what each expert learns from, not the time. The selection bias follows the tokens of this
    process alone.

    References
    ----------
    Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2022, arXiv:2101.03961; Zoph et al. 2022,
    arXiv:2202.08906; DeepSeek-AI 2024, arXiv:2412.19437.

    Examples
    --------
    >>> import torch
    >>> from lamina.transformer import MixtureOfExperts
    >>> _ = torch.manual_seed(0)
    >>> moe = MixtureOfExperts(8, 16, n_experts=4, top_k=2)
    >>> y = moe(torch.randn(2, 10, 8))
    >>> loss = y.square().mean() + moe.aux_loss
    >>> loss.backward()
    >>> y.shape, moe.load.shape, moe.router.weight.grad.shape
    (torch.Size([2, 10, 8]), torch.Size([4]), torch.Size([4, 8]))
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        n_experts: int = 8,
        top_k: int = 2,
        *,
        activation: str = "silu",
        gated: bool = True,
        bias: bool = False,
        scores: str = "softmax",
        renormalise: bool = True,
        jitter: float = 0.0,
        balance: str | None = "loss",
        balance_weight: float = 0.01,
        z_weight: float = 0.0,
        bias_rate: float = 1e-3,
        n_shared: int = 0,
        capacity_factor: float | None = None,
        drop: str = "position",
        dropout: float = 0.0,
        precision: str | None = None,
        native: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = "MixtureOfExperts"
        self.settle(d_model, d_ff, activation, dropout, precision, native)
        if balance is not None:
            check_choice(balance, ("loss", "bias"), "balance", where)
        self.balance = balance
        self.balance_weight = check_number(balance_weight, "balance_weight", where, 0.0)
        self.z_weight = check_number(z_weight, "z_weight", where, 0.0)
        check_number(bias_rate, "bias_rate", where, 0.0)
        self.capacity_factor = capacity_factor
        if capacity_factor is not None:
            check_number(capacity_factor, "capacity_factor", where, 0.0, closed="neither")
        self.drop = check_choice(drop, ("position", "score"), "drop", where)
        self.gated = bool(gated)
        kinds = {"device": device, "dtype": dtype}
        self.router = Router(
            d_model,
            n_experts,
            top_k,
            scores=scores,
            renormalise=renormalise,
            jitter=jitter,
            bias_rate=bias_rate if balance == "bias" else None,
            **kinds,
        )
        self._make_experts(bias, kinds)
        self.reset_parameters()
        self.n_shared = check_count(n_shared, "n_shared", where, low=0)
        self.shared = self._make_shared(bias, kinds) if n_shared else None
        self._routing: Routing | None = None

    def _make_experts(self, bias: bool, kinds: dict[str, Any]) -> None:
        e, inner, outer = self.router.n_experts, self.d_ff, self.d_model

        def matrix(width: int, before: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(e, width, before, **kinds))

        if self.gated:
            self.w_gate, self.w_up = matrix(inner, outer), matrix(inner, outer)
            self.w_down = matrix(outer, inner)
            self.b_gate = maybe_parameter(bias, e, inner, **kinds)
            self.b_up = maybe_parameter(bias, e, inner, **kinds)
            self.b_down = maybe_parameter(bias, e, outer, **kinds)
        else:
            self.w_in, self.w_out = matrix(inner, outer), matrix(outer, inner)
            self.b_in = maybe_parameter(bias, e, inner, **kinds)
            self.b_out = maybe_parameter(bias, e, outer, **kinds)

    def _make_shared(self, bias: bool, kinds: dict[str, Any]) -> nn.Module:
        kind = GatedFeedForward if self.gated else FeedForward
        return kind(
            self.d_model,
            self.n_shared * self.d_ff,
            self.activation,
            bias=bias,
            precision=self.precision,
            native=self.native,
            **kinds,
        )

    def weights(self) -> Weights:
        """Return the experts' parameters as the engine names them."""
        if self.gated:
            return Weights(self.w_up, self.b_up, self.w_gate, self.b_gate, self.w_down, self.b_down)
        return Weights(self.w_in, self.b_in, None, None, self.w_out, self.b_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return y (..., d_model) for x (..., d_model); see `load` and `aux_loss` after it."""
        check_rows(x, self.d_model, "MixtureOfExperts")
        rows = x.reshape(-1, self.d_model)  # (n, d_model)
        if len(rows) == 0:
            raise DataError(
                "MixtureOfExperts: expected at least one token, got none. Leave empty batches out."
            )
        routing = self.router(rows)
        if self.capacity_factor is not None:
            slots = self.capacity_factor * routing.experts.numel() / self.router.n_experts
            routing = drop_beyond(routing, math.ceil(slots), self.drop)
        if not in_backward():  # a pass that a checkpoint repeats says nothing new
            self._routing = routing
        y = self.mix(rows, routing.experts, routing.share)
        if self.shared is not None:
            y = y + self.shared(rows)
        y = functional.dropout(y, self.dropout, self.training) if self.dropout else y
        return y.view(x.shape)

    @property
    def routing(self) -> Routing:
        """What the router decided in the last pass.

        Raises
        ------
        SpecError
            If there was none.
        """
        if self._routing is None:
            raise SpecError(
                "MixtureOfExperts: expected a forward pass before its load or loss is asked for, "
                "got none. Call the module first."
            )
        return self._routing

    @property
    def load(self) -> Tensor:
        """(n_experts,): each expert's share of the last pass's choices; they add up to 1."""
        counts = self.routing.counts().detach()
        return counts / counts.sum()

    @property
    def balance_loss(self) -> Tensor:
        """The last pass's balance loss: 1 where the load is even, n_experts at worst."""
        return balance_loss(self.routing)

    @property
    def z_loss(self) -> Tensor:
        """The last pass's z-loss."""
        return z_loss(self.routing)

    @property
    def aux_loss(self) -> Tensor:
        """What to add to the task's loss: the balance loss and the z-loss, each by its weight.

        Zero where neither is asked for (``balance="bias"`` or None, z_weight 0).
        """
        loss = self.routing.logits.new_zeros(())
        if self.balance == "loss" and self.balance_weight:
            loss = loss + self.balance_weight * self.balance_loss
        return loss + self.z_weight * self.z_loss if self.z_weight else loss

    def statistics(self) -> RoutingStatistics:
        """Return the last pass's load, entropy, dropped tokens and dead experts."""
        return routing_statistics(self.routing)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_routing": None}  # it may hang on a graph

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        r = self.router
        text = f"{self.d_model}, {self.d_ff}, n_experts={r.n_experts}, top_k={r.top_k}"
        text += f", activation={self.activation!r}, gated={self.gated}, balance={self.balance!r}"
        text += "" if self.capacity_factor is None else f", capacity_factor={self.capacity_factor}"
        text += f", precision={self.precision!r}" if self.precision else ""
        return text + ("" if self.native else ", native=False")
