"""Learning curves: the loss of each member, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lamina.plots.style import BLUE, GREY, ORANGE, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def plot_learning_curves(
    train_losses: Sequence[Sequence[float]],
    held_out_losses: Sequence[Sequence[float]],
    best_epochs: Sequence[int],
    *,
    loss: str = "loss",
) -> Figure:
    """Return a figure of the members' training and held-out losses.

    Parameters
    ----------
    train_losses, held_out_losses : one sequence a member, one number an epoch
        The second may be empty.
    best_epochs : sequence of int
        Of each member, from 1: the epoch that was kept.
    loss : str
        What the loss is, with its unit.
    """
    figure, axes = new_figure()
    alpha = max(0.25, 1.0 / max(len(train_losses), 1) ** 0.5)
    for i, losses in enumerate(train_losses):
        label = "training rows" if i == 0 else None
        axes.plot(np.arange(1, len(losses) + 1), losses, color=GREY, alpha=alpha, lw=1, label=label)
    for i, losses in enumerate(held_out_losses):
        label = "held-out fold" if i == 0 else None
        axes.plot(np.arange(1, len(losses) + 1), losses, color=BLUE, alpha=alpha, lw=1, label=label)
    kept = [
        (best, losses[best - 1])
        for best, losses in zip(best_epochs, held_out_losses, strict=False)
        if 1 <= best <= len(losses)
    ]
    if kept:
        axes.plot(*zip(*kept, strict=True), "o", ms=4, color=ORANGE, label="epoch kept")
    n = len(train_losses)
    axes.set_title(f"Learning curves of {n} member{'' if n == 1 else 's'}")
    axes.set_xlabel("epoch")
    axes.set_ylabel(plain(loss))
    axes.locator_params(axis="x", integer=True)
    axes.grid(axis="y")
    if train_losses:
        axes.legend()
    _cut_first_epochs(axes, [*train_losses, *held_out_losses])
    return figure


def _cut_first_epochs(axes: object, curves: Sequence[Sequence[float]]) -> None:
    """Let the first epochs run out of the picture where they would flatten all others."""
    values = np.concatenate([np.asarray(c, np.float64) for c in curves if len(c)] or [np.zeros(1)])
    values = values[np.isfinite(values)]
    if values.size < 10:
        return
    low, middle, high = values.min(), np.quantile(values, 0.95), values.max()
    if high - low > 4 * (middle - low) > 0:
        axes.set_ylim(low - 0.08 * (middle - low), low + 1.6 * (middle - low))  # type: ignore[attr-defined]
