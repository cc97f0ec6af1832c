"""What a split layer loses by using fewer experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lamina.core.errors import SpecError
from lamina.transformer.feed_forward import FeedForward, GatedFeedForward
from lamina.transformer.moefication import SplitFeedForward, check_sample
from lamina.transformer.sparse_upcycling import check_dense

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ComputeCurve:
    """Accuracy against compute, one entry a number of experts.

    Attributes
    ----------
    top_k : (m,) int64
    compute : (m,) float64
        Share of the experts that are used, and so of the layer's operations.
    error : (m,) float64
        Length of the difference from the dense layer's results over the length of these.
    mass : (m,) float64
        Share of the activation mass, sum of |h|, that the used experts hold.
    best_error, best_mass : (m,) float64
        The same where an oracle chooses the experts that may add most to each row.
    """

    top_k: NDArray[np.int64]
    compute: Floats
    error: Floats
    mass: Floats
    best_error: Floats
    best_mass: Floats

    def plot(self) -> Figure:
        """Return a picture; needs ``lamina[plots]``."""
        from lamina.plots.compute import plot_compute_curve

        return plot_compute_curve(
            self.compute, self.error, self.mass, self.best_error, self.best_mass
        )

    def __str__(self) -> str:
        head = "experts  compute   error    mass  oracle: error    mass"
        rows = zip(
            *(getattr(self, n).tolist() for n in ("top_k", "compute", "error", "mass")),
            self.best_error.tolist(),
            self.best_mass.tolist(),
            strict=True,
        )
        form = "{:7d}  {:6.1%}  {:7.4f}  {:5.1%}        {:7.4f}  {:5.1%}"
        return "\n".join([head, *(form.format(*row) for row in rows)])


@torch.no_grad()
def compute_curve(
    experts: SplitFeedForward,
    ffn: FeedForward | GatedFeedForward,
    x: Tensor,
    top_k: Sequence[int] | None = None,
) -> ComputeCurve:
    """Measure a split layer against the dense one it was made from, on rows of x.

    Parameters
    ----------
    experts : SplitFeedForward
        From `split`; its top_k is left as it is.
    ffn : FeedForward or GatedFeedForward
    x : Tensor (..., d_model)
        Rows that `split` did not see.
    top_k : sequence of int, optional
        Default: about eight numbers from 1 to n_experts.

    Raises
    ------
    SpecError, ShapeError, DataError
        If the layers are no such pair, a number is out of range, or x has no rows, NaN or infinity.

    Examples
    --------
    >>> import torch
    >>> from lamina.transformer import FeedForward, compute_curve, split
    >>> ffn, x = FeedForward(8, 32, "relu"), torch.randn(600, 8)
    >>> experts = split(ffn, 4, x[:500], max_epochs=1, rng=0)
    >>> curve = compute_curve(experts, ffn, x[500:])
    >>> curve.top_k.tolist(), bool(curve.error[-1] < 1e-5), float(curve.mass[-1]) > 0.999
    ([1, 2, 3, 4], True, True)
    """
    ffn = check_dense(ffn, "compute_curve")
    if not isinstance(experts, SplitFeedForward):
        raise SpecError(
            f"compute_curve: expected what split returned, got a {type(experts).__name__}. "
            f"Call split first."
        )
    n = experts.n_experts
    numbers = top_k or np.unique(np.geomspace(1, n, 8).round().astype(int)).tolist()
    if min(numbers) < 1 or max(numbers) > n:
        raise SpecError(
            f"compute_curve: expected numbers from 1 to the {n} experts, got {list(numbers)}. "
            f"Leave out those beyond."
        )
    first = next(ffn.parameters())
    rows = check_sample(x, ffn.d_model, "compute_curve").to(first.device)
    dense = ffn(rows.to(first.dtype)).double()
    mass, effect = experts.masses(rows)
    guess = experts.router(rows)
    found: list[list[float]] = []
    for k in numbers:
        found.append([])
        for scores in (guess, effect):
            chosen = scores.topk(k).indices  # (n, k)
            y = experts.of_experts(rows.to(first.dtype), chosen).double()
            error = (y - dense).norm() / dense.norm().clamp_min(1e-300)
            found[-1] += [float(error), float(mass.gather(1, chosen).sum() / mass.sum())]
    error, kept, best_error, best_kept = np.array(found).T
    counts = np.array(numbers, np.int64)
    return ComputeCurve(counts, counts / n, error, kept, best_error, best_kept)
