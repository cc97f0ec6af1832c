"""A trained dense layer as the start of a mixture of experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lamina.core.checks import check_number
from lamina.core.errors import SpecError
from lamina.transformer.feed_forward import FeedForward, GatedFeedForward
from lamina.transformer.mixture import MixtureOfExperts


def check_dense(ffn: Any, where: str) -> FeedForward | GatedFeedForward:
    """Refuse what is not one of this room's dense layers."""
    if isinstance(ffn, FeedForward | GatedFeedForward):
        return ffn
    raise SpecError(
        f"{where}: expected a FeedForward or GatedFeedForward, got a {type(ffn).__name__}. Make "
        f"one and copy the layer's weights into it."
    )


def upcycle(
    ffn: FeedForward | GatedFeedForward,
    n_experts: int,
    top_k: int = 2,
    *,
    router_std: float = 0.02,
    **options: Any,
) -> MixtureOfExperts:
    """Return a mixture whose every expert is a copy of `ffn`: the same function at first.

    Shares that add up to 1 make it so, to rounding, whatever the router chooses; training then
    tells the experts apart.

    Parameters
    ----------
    ffn : FeedForward or GatedFeedForward
        Copied, not changed.
    n_experts : int
    top_k : int, default 2
    router_std : float, default 0.02
        Of the normal distribution that the router's weights are drawn from (torch's generator).
    **options
        Of `MixtureOfExperts` (balance, scores, jitter, capacity_factor, …), but for those that
        `ffn` settles, and for renormalise and n_shared, which would change the function.

    Returns
    -------
    MixtureOfExperts
        On the device, of the dtype and in the mode of `ffn`.

    Raises
    ------
    SpecError
        If `ffn` is no such layer, an option is not free or unknown, or top_k exceeds n_experts.

    References
    ----------
    Komatsuzaki et al. 2022, arXiv:2212.05055.

    Examples
    --------
    >>> import torch
    >>> from lamina.transformer import FeedForward, upcycle
    >>> ffn = FeedForward(8, 32)
    >>> moe = upcycle(ffn, n_experts=4)
    >>> x = torch.randn(10, 8)
    >>> torch.allclose(moe(x), ffn(x), atol=1e-6)
    True
    """
    ffn = check_dense(ffn, "upcycle")
    check_number(router_std, "router_std", "upcycle", 0.0)
    free = {"scores", "jitter", "balance", "balance_weight", "z_weight", "bias_rate"}
    free |= {"capacity_factor", "drop"}
    if unknown := sorted(set(options) - free):
        raise SpecError(
            f"upcycle: expected options among {', '.join(sorted(free))}, got {unknown[0]!r}. The "
            f"others follow the dense layer, or would change its function."
        )
    first = next(ffn.parameters())
    moe = MixtureOfExperts(
        ffn.d_model,
        ffn.d_ff,
        n_experts,
        top_k,
        activation=ffn.activation,
        gated=isinstance(ffn, GatedFeedForward),
        bias=ffn.weights().b_down is not None,
        dropout=ffn.dropout,
        precision=ffn.precision,
        native=ffn.native,
        device=first.device,
        dtype=first.dtype,
        **options,
    )
    with torch.no_grad():
        for name, p in ffn.named_parameters():
            moe.get_parameter(name).copy_(p.expand_as(moe.get_parameter(name)))
    nn.init.normal_(moe.router.weight, std=router_std)
    return moe.train(ffn.training)
