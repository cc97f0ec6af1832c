"""Layer by layer: how many directions features take, and what a linear unit reads out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREY, ORANGE, PALE, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_features(
    labels: Sequence[str],
    width: Floats,
    rank: Floats,
    margin: Floats,
    score: Floats,
    *,
    score_name: str = "accuracy",
) -> Figure:
    """Return a figure of each layer's rank, margin and probe.

    Parameters
    ----------
    labels : sequence of n str
        May have two lines.
    width, rank : (n,) float64
        Units, and the directions they take.
    margin : (n,) float64
        Over the features' scale; NaN where the classes are not separable.
    score : (n,) float64
        Of a linear probe; NaN where there is none. Panels of nothing but NaN are left out.
    score_name : str
        What the score is.
    """
    has_margin, has_score = bool(np.isfinite(margin).any()), bool(np.isfinite(score).any())
    n_panels = 1 + has_margin + has_score
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(max(5.6, 1.6 + 0.9 * len(labels)), 0.9 + 1.7 * n_panels), layout="constrained"
    )
    panels = list(figure.subplots(n_panels, 1, sharex=True, squeeze=False)[:, 0])
    place = np.arange(len(labels))
    axes = panels.pop(0)
    axes.set_title("What each layer makes of the rows")
    axes.bar(place, width, color=PALE, width=0.7, label="units")
    axes.bar(place, rank, color=BLUE, width=0.45, label="effective rank")
    axes.set_ylim(0.0, 1.3 * float(width.max(initial=1.0)))  # room for the legend
    axes.set_ylabel("directions")
    axes.legend(ncols=2)
    if has_margin:
        axes = panels.pop(0)
        good = np.isfinite(margin)
        axes.plot(place[good], margin[good], "o-", color=BLUE)
        axes.plot(place[~good], np.zeros((~good).sum()), "x", color=ORANGE, label="not separable")
        axes.set_ylim(bottom=0.0 - 0.06 * float(np.nanmax(margin)))
        axes.set_ylabel("margin / scale")
        if not good.all():
            axes.legend()
    if has_score:
        axes = panels.pop(0)
        axes.plot(place, score, "o-", color=BLUE)
        axes.axhline(1.0, color=GREY, lw=0.8, ls=(0, (4, 3)))
        axes.set_ylabel(f"probe {plain(score_name, 20)}")
    axes.set_xticks(place, ["\n".join(plain(t) for t in text.split("\n")) for text in labels])
    axes.set_xlabel("layer")
    for axes in figure.axes:
        axes.grid(axis="y")
    return figure
