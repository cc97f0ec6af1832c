"""The router of a mixture of experts: who gets which token, and what keeps the load even."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from lamina.core.checks import check_choice, check_count, check_number
from lamina.core.errors import SpecError


class Routing(NamedTuple):
    """What a router decided for n tokens.

    Attributes
    ----------
    logits : Tensor (n, n_experts)
    scores : Tensor (n, n_experts)
        Softmax or sigmoid of the logits.
    experts : int64 Tensor (n, top_k)
        The chosen ones, best first.
    share : Tensor (n, top_k)
        Their weights in the sum; 0 where capacity dropped a token.
    kept : bool Tensor (n, top_k) or None
        What capacity left; None: everything.
    """

    logits: Tensor
    scores: Tensor
    experts: Tensor
    share: Tensor
    kept: Tensor | None

    def counts(self) -> Tensor:
        """Return (n_experts,) float: how many tokens chose each expert, dropped ones included."""
        ones = torch.ones_like(self.experts.view(-1), dtype=self.logits.dtype)
        zeros = self.logits.new_zeros(self.logits.shape[1])
        return zeros.scatter_add(0, self.experts.view(-1), ones)


class Router(nn.Module):
    """Linear scores, the top_k of them, and their weights; in float32 at least.

    Parameters
    ----------
    d_model, n_experts, top_k : int
    scores : {"softmax", "sigmoid"}
        Over all experts, before the choice.
    renormalise : bool
        Whether the shares of a token add up to 1.
    jitter : float in [0, 1)
        In training, the router's input is multiplied by numbers from [1 - jitter, 1 + jitter].
    bias_rate : float or None
        None: no selection bias. Otherwise what its update adds or takes away.
    device, dtype
        Of the weight.

    Attributes
    ----------
    weight : Parameter (n_experts, d_model)
    selection_bias : float32 buffer (n_experts,) or None
        Added to the scores for the choice alone; float32 in a module of any dtype.
    """

    selection_bias: Tensor | None
    # How many tokens chose each expert in the last training pass; what the bias learns from next.
    pending: Tensor | None

    def __init__(
        self,
        d_model: int,
        n_experts: int,
        top_k: int,
        *,
        scores: str,
        renormalise: bool,
        jitter: float,
        bias_rate: float | None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = "MixtureOfExperts"
        self.n_experts = check_count(n_experts, "n_experts", where)
        self.top_k = check_count(top_k, "top_k", where)
        if self.top_k > self.n_experts:
            raise SpecError(
                f"{where}: expected top_k of at most the {n_experts} experts, got {top_k}. "
                f"Choose fewer, or have more experts."
            )
        self.scores = check_choice(scores, ("softmax", "sigmoid"), "scores", where)
        self.renormalise = bool(renormalise)
        self.jitter = check_number(jitter, "jitter", where, 0.0, 1.0, closed="left")
        self.bias_rate = bias_rate
        self.weight = nn.Parameter(torch.empty(n_experts, d_model, device=device, dtype=dtype))
        for name in ("selection_bias", "pending"):
            values = None if bias_rate is None else torch.zeros(n_experts, device=device)
            self.register_buffer(name, values, persistent=name == "selection_bias")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight from ±1 / sqrt(d_model), uniformly, and clear the selection bias."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.selection_bias is not None:
            nn.init.zeros_(self.selection_bias)

    def forward(self, x: Tensor) -> Routing:
        """Return the `Routing` of tokens x (n, d_model)."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._route(x.to(dtype))
        return self._route(x.to(dtype))

    def _route(self, x: Tensor) -> Routing:
        if self.jitter and self.training:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        logits = functional.linear(x, self.weight.to(x.dtype))  # (n, n_experts)
        if self.scores == "softmax":
            scores = logits.softmax(dim=-1)
        else:
            scores = logits.sigmoid()
        learns = self.training and not in_backward()
        if self.selection_bias is None or self.pending is None:
            share, experts = scores.topk(self.top_k, dim=-1)  # (n, top_k)
        else:
            # DIFF(DeepSeek-V3, section 2.1.2: after each step): before the next training pass, so
            # that a pass that gradient checkpointing repeats within a step chooses as it did.
            if learns:
                with torch.no_grad():
                    error = self.pending.mean() - self.pending
                    self.selection_bias.add_(error.sign(), alpha=self.bias_rate or 0.0)
            experts = (scores + self.selection_bias).topk(self.top_k, dim=-1).indices
            share = scores.gather(1, experts)
        if self.renormalise:
            share = share / share.sum(dim=-1, keepdim=True)
        routing = Routing(logits, scores, experts, share, None)
        if self.pending is not None and learns:
            with torch.no_grad():
                self.pending.copy_(routing.counts())
        return routing

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        before = self.selection_bias
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        after = self.selection_bias
        if before is not None and after is not None and after.dtype.itemsize < 4:
            # Steps of 1e-3 and counts would be lost in 8 bits.
            self.selection_bias = before.to(after.device)
            self.pending = torch.zeros_like(self.selection_bias)
        return self


def in_backward() -> bool:
    """Tell whether autograd is at work: gradient checkpointing repeats a forward pass there."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def drop_beyond(routing: Routing, capacity: int, policy: str) -> Routing:
    """Return the routing with at most `capacity` tokens an expert; the others' share is 0.

    Parameters
    ----------
    routing : Routing
    capacity : int
    policy : {"position", "score"}
        Who is kept: first choices before second ones and then earlier tokens (GShard,
        arXiv:2006.16668, algorithm 1), or the highest scores (V-MoE, arXiv:2106.05974, sec. 4.1).
    """
    experts, share = routing.experts, routing.share
    n, top_k = experts.shape
    by_choice = experts.T.reshape(-1)  # (top_k n,): all first choices, then all second ones
    order = torch.arange(n * top_k, device=experts.device)
    if policy == "score":
        score = routing.scores.gather(1, experts).T.reshape(-1)
        order = score.argsort(descending=True, stable=True)
    chosen = functional.one_hot(by_choice[order], routing.logits.shape[1])  # (top_k n, n_experts)
    place = (chosen.cumsum(dim=0) * chosen).sum(dim=1) - 1  # in the queue of its expert
    kept = torch.empty_like(place, dtype=torch.bool).scatter(0, order, place < capacity)
    kept = kept.view(top_k, n).T  # (n, top_k)
    return routing._replace(share=share * kept, kept=kept)


def balance_loss(routing: Routing) -> Tensor:
    """Return n_experts sum_e f_e P_e, which is 1 at an even load.

    f_e is the share of choices that fell on e, without gradient; P_e the mean of its probability
    (sigmoid scores are divided by their sum). Fedus et al. 2022, arXiv:2101.03961, eqs. 4 to 6,
    with top_k = 1; GShard's form for more.
    """
    total = routing.scores.sum(dim=-1, keepdim=True)
    probability = (routing.scores / total).mean(dim=0)  # (n_experts,)
    counts = routing.counts()
    return len(counts) * (counts / counts.sum() * probability).sum()


def z_loss(routing: Routing) -> Tensor:
    """Return the mean of (log sum_e exp(logit_e))^2 (Zoph et al. 2022, arXiv:2202.08906, eq. 5)."""
    return routing.logits.logsumexp(dim=-1).square().mean()
