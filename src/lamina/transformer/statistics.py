"""What a routing looked like: load, entropy, dropped tokens, dead experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import ShapeError, SpecError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lamina.transformer.routing import Routing


@dataclass(frozen=True)
class RoutingStatistics:
    """Of the tokens of one pass, or by ``+`` of several.

    Attributes
    ----------
    counts : (n_experts,) int64
        How many tokens chose each expert, dropped ones included.
    n_tokens, top_k : int
    n_dropped : int
        Choices that capacity dropped.
    router_entropy : float
        Mean entropy of a token's probabilities, in nats: 0 where the router is sure, log n_experts
        where it knows nothing.
    """

    counts: NDArray[np.int64]
    n_tokens: int
    top_k: int
    n_dropped: int
    router_entropy: float

    @property
    def load(self) -> NDArray[np.float64]:
        """(n_experts,): each expert's share of all choices; they add up to 1."""
        return self.counts / max(1, self.n_tokens * self.top_k)

    @property
    def load_entropy(self) -> float:
        """Entropy of the load over log n_experts: 1 where it is even, 0 where one has it all."""
        load = self.load[self.load > 0]
        return float(-(load * np.log(load)).sum() / np.log(max(2, len(self.counts))))

    @property
    def dropped(self) -> float:
        """Share of the choices that capacity dropped."""
        return self.n_dropped / max(1, self.n_tokens * self.top_k)

    @property
    def dead(self) -> list[int]:
        """The experts that no token chose."""
        return [int(e) for e in np.flatnonzero(self.counts == 0)]

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest load over the mean load."""
        relative = self.load * len(self.counts)
        return float(relative.min()), float(relative.max())

    def __add__(self, other: RoutingStatistics) -> RoutingStatistics:
        """Return the statistics of both passes' tokens together.

        Raises
        ------
        ShapeError
            If they are of mixtures of another size.
        """
        if not isinstance(other, RoutingStatistics):
            return NotImplemented
        if (len(self.counts), self.top_k) != (len(other.counts), other.top_k):
            raise ShapeError(
                f"RoutingStatistics: expected {len(self.counts)} experts, top {self.top_k}, got "
                f"{len(other.counts)}, top {other.top_k}. Add up passes of one mixture."
            )
        n = self.n_tokens + other.n_tokens
        entropies = self.router_entropy * self.n_tokens + other.router_entropy * other.n_tokens
        return RoutingStatistics(
            self.counts + other.counts,
            n,
            self.top_k,
            self.n_dropped + other.n_dropped,
            entropies / max(1, n),
        )

    def plot(self) -> Figure:
        """Return a picture of the load; needs ``lamina[plots]``."""
        from lamina.plots.routing import plot_load

        return plot_load(self.counts, f"{self.n_tokens} tokens, {self.dropped:.1%} dropped")

    def __str__(self) -> str:
        low, high = self.spread
        dead = f", dead: {', '.join(map(str, self.dead))}" if self.dead else ""
        return (
            f"{len(self.counts)} experts, top {self.top_k}, {self.n_tokens} tokens: load "
            f"{low:.2f} to {high:.2f} of the mean, entropy {self.load_entropy:.3f}, "
            f"{self.dropped:.1%} dropped{dead}"
        )


def routing_statistics(routing: Routing) -> RoutingStatistics:
    """Return the statistics of one pass."""
    scores = routing.scores.detach().double()
    p = scores / scores.sum(dim=-1, keepdim=True)
    entropy = float(-p.xlogy(p).sum(dim=-1).mean())
    n, top_k = routing.experts.shape
    n_dropped = 0 if routing.kept is None else int((~routing.kept).sum())
    counts: Any = routing.counts().detach().cpu().numpy()
    return RoutingStatistics(counts.astype(np.int64), n, top_k, n_dropped, entropy)


def plot_routing(steps: Sequence[RoutingStatistics]) -> Figure:
    """Return a picture of load and entropies over training: one `RoutingStatistics` a step.

    Raises
    ------
    SpecError
        If there are none, or they are of several mixtures.
    """
    if not steps or len({len(s.counts) for s in steps}) != 1:
        raise SpecError(
            f"plot_routing: expected statistics of one mixture's passes, got {len(steps)} of "
            f"{len({len(s.counts) for s in steps})} sizes. Pass a list of moe.statistics()."
        )
    from lamina.plots.routing import plot_load_over_time

    load = np.stack([s.load for s in steps])
    log_e = np.log(max(2, load.shape[1]))
    return plot_load_over_time(
        load,
        np.array([s.load_entropy for s in steps]),
        np.array([s.router_entropy / log_e for s in steps]),
        np.array([s.dropped for s in steps]),
    )
