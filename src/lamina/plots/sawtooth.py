"""The sawtooth of Telgarsky: its folds, and how many units each depth needs for the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREY, ORANGE, styled, write_numbers_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_DRAWN = 4  # folds with a panel of their own


@styled
def plot_sawtooth(n_folds: int, least: Mapping[int, int]) -> Figure:
    """Return a figure of the first folds, layer by layer, and of units against depth.

    Parameters
    ----------
    n_folds : int
    least : mapping of int to int
        For each number of hidden layers, the units without which no relu network comes within 1/2.
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(9.0, 5.0), layout="constrained"
    )
    left, right = np.asarray(figure.subfigures(1, 2), object).tolist()
    drawn = min(n_folds, _MOST_DRAWN)
    chosen = sorted({*range(1, drawn), n_folds})
    panels = np.atleast_1d(left.subplots(len(chosen), 1, sharex=True))
    for folds, axes in zip(chosen, panels, strict=True):
        turns = np.arange(2**folds + 1)
        axes.plot(turns / 2**folds, turns % 2, color=BLUE, lw=1.4 if folds < 7 else 0.5)
        axes.set_title(f"after {folds} hidden layer{'s' if folds > 1 else ''}: {2**folds} pieces")
        axes.set_yticks([0, 1])
    panels[-1].set_xlabel("x")
    axes = right.subplots()
    depth = np.array(list(least))
    axes.plot(depth, list(least.values()), "o-", color=ORANGE, label="fewer cannot (proved)")
    axes.plot([n_folds], [2 * n_folds], "s", color=BLUE, ms=8, label="the deep network")
    axes.plot([1], [2**n_folds], "D", color=GREY, ms=7, label="the shallow network")
    axes.set_yscale("log", base=2)
    write_numbers_out(axes.yaxis)
    axes.set_xlabel("hidden layers")
    axes.set_ylabel("hidden units")
    axes.set_title(f"Units for {2**n_folds} pieces")
    axes.locator_params(axis="x", integer=True)
    axes.grid(axis="y")
    axes.legend()
    return figure
