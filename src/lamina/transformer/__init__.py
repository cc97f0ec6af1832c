"""Transformer: the channel mixer and the mixture of experts as PyTorch modules on the engine.

Public names are looked up when first used; they need the extra ``[torch]``.
"""

from __future__ import annotations

from typing import Any

from lamina.core.errors import require_extra
from lamina.late import look_up

# The public names and the modules that hold them, in the order of docs/transformer.md.
_HOME: dict[str, str] = {
    "FeedForward": "lamina.transformer.feed_forward",
    "GatedFeedForward": "lamina.transformer.feed_forward",
    "MixtureOfExperts": "lamina.transformer.mixture",
    "RoutingStatistics": "lamina.transformer.statistics",
    "plot_routing": "lamina.transformer.statistics",
    "upcycle": "lamina.transformer.sparse_upcycling",
    "split": "lamina.transformer.moefication",
    "SplitFeedForward": "lamina.transformer.moefication",
    "compute_curve": "lamina.transformer.curve",
    "ComputeCurve": "lamina.transformer.curve",
    "accelerate": "lamina.transformer.swap",
    "restore": "lamina.transformer.swap",
    "Acceleration": "lamina.transformer.acceleration",
    "BlockReport": "lamina.transformer.acceleration",
    "register_experts": "lamina.transformer.experts_interface",
    "anatomy": "lamina.transformer.take_apart",
    "Anatomy": "lamina.transformer.take_apart",
    "RoleCost": "lamina.transformer.take_apart",
}

__all__ = [*_HOME]  # noqa: PLE0604 (all are strings)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        require_extra("torch", "torch")
    return look_up(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
