"""Running records of one layer's coefficients: largest ones, counts, and a sample for quantiles."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SAMPLE: Final = 256  # tokens kept for quantiles: a rank is then right within 3 % (one sigma)


class Running:
    """What is kept of a layer while tokens stream by; of one size whatever their number.

    Attributes
    ----------
    top : (d_ff, top_k) tensor of float32
        The largest coefficients, -inf where there were fewer tokens.
    place : (d_ff, top_k) tensor of int64
        Where: sequence * max_length + token.
    n_active, total : (d_ff,) tensor of float64
        Tokens on which the neuron was active; the sum of its coefficients.
    sample : (m, d_ff) tensor, m <= SAMPLE
        Coefficients of a uniform sample of tokens, those with the least `priority`.
    """

    NAMES = ("top", "place", "n_active", "total", "sample", "priority")

    def __init__(self, d_ff: int, top_k: int) -> None:
        import torch

        self.top = torch.full((d_ff, top_k), -torch.inf)
        self.place = torch.full((d_ff, top_k), -1, dtype=torch.int64)
        self.n_active = torch.zeros(d_ff, dtype=torch.float64)
        self.total = torch.zeros(d_ff, dtype=torch.float64)
        self.sample = torch.zeros(0, d_ff)
        self.priority = torch.zeros(0, dtype=torch.float64)

    def add(self, h: Any, active: Any, place: Any, priority: Any) -> None:
        """Take in n tokens: coefficients and their activity (n, d_ff), places, priorities (n,)."""
        import torch

        k = self.top.shape[1]
        best = torch.topk(h.T.contiguous(), min(k, len(h)), dim=1)  # (d_ff, <= k)
        values = torch.cat([self.top, best.values], dim=1)
        places = torch.cat([self.place, place[best.indices]], dim=1)
        order = torch.argsort(values, dim=1, descending=True, stable=True)[:, :k]
        self.top, self.place = values.gather(1, order), places.gather(1, order)
        self.n_active += active.sum(0)
        self.total += h.sum(0, dtype=torch.float64)
        chosen = torch.topk(priority, min(SAMPLE, len(priority)), largest=False).indices
        sample = torch.cat([self.sample, h[chosen]])
        ranks = torch.cat([self.priority, priority[chosen]])
        kept = torch.topk(ranks, min(SAMPLE, len(ranks)), largest=False).indices
        self.sample, self.priority = sample[kept], ranks[kept]

    def state(self) -> dict[str, Any]:
        """Return the tensors by name."""
        return {name: getattr(self, name).contiguous() for name in self.NAMES}

    def quantiles(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the sample's quantiles, (d_ff, len(QUANTILES))."""
        found = np.quantile(self.sample.numpy(), QUANTILES, axis=0)
        return np.ascontiguousarray(found.T, dtype=np.float32)
