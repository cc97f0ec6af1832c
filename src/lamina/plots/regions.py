"""Linear regions: polygons of a window, and a network along a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREEN, INK, ORANGE, PALE, PURPLE, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_OUTPUTS = 8


@styled
def plot_window(
    polygons: Sequence[NDArray[Any]],
    pieces: NDArray[Any],
    steepness: NDArray[Any],
    window: tuple[tuple[float, float], tuple[float, float]],
    *,
    labels: tuple[str, str] = ("x1", "x2"),
    title: str = "linear regions",
) -> Figure:
    """Return a figure of a network's regions in a plane.

    Parameters
    ----------
    polygons : sequence of arrays (m, 2)
    pieces : array of int, one a polygon
        The linear piece of each: one shade a piece.
    steepness : array, one a polygon
        The size of the gradient, which is the colour.
    window : ((x0, x1), (y0, y1))
    labels, title : str
    """
    collections: Any = require_extra("matplotlib.collections", "plots")
    figure, axes = new_figure(6.4, 5.6)
    rng = np.random.default_rng(0)
    # Pieces of equal steepness would run into one another: a little light of their own.
    light = rng.uniform(0.0, 0.12, int(pieces.max()) + 1)[pieces]
    shown = np.asarray(steepness, np.float64)
    span = max(float(shown.max() - shown.min()), 1e-300)
    filled = collections.PolyCollection(
        list(polygons),
        array=shown + light * span,
        cmap="Blues",
        edgecolors=INK,
        linewidths=0.6 if len(polygons) < 500 else 0.3 if len(polygons) < 5000 else 0.1,
    )
    filled.set_clim(float(shown.min()) - 0.1 * span, float(shown.max()) + 0.4 * span)
    axes.add_collection(filled)
    figure.colorbar(filled, ax=axes, label="size of the gradient", shrink=0.8)
    axes.set_xlim(*window[0])
    axes.set_ylim(*window[1])
    axes.set_xlabel(plain(labels[0]))
    axes.set_ylabel(plain(labels[1]))
    axes.set_title(plain(title, 80))
    axes.set_axisbelow(False)
    return figure


@styled
def plot_line(
    t: NDArray[Any],
    y: NDArray[Any],
    breaks: Sequence[float],
    bends: Sequence[float],
    *,
    of: str = "y",
    title: str = "along a line",
) -> Figure:
    """Return a figure of a network's outputs along a segment.

    Parameters
    ----------
    t : array (m,)
        From 0 at the start to 1 at the end, with all breaks among them.
    y : array (m, outputs)
    breaks, bends : sequence of float
        Where regions end, and those where the slope changes as well.
    of, title : str
    """
    figure, axes = new_figure(7.2, 4.0)
    for at in breaks:
        axes.axvline(at, color=PALE, lw=0.8, zorder=0)
    colors = (BLUE, ORANGE, GREEN, PURPLE)
    for k in range(min(y.shape[1], MOST_OUTPUTS)):
        label = f"{of}{k + 1}" if y.shape[1] > 1 else None
        axes.plot(t, y[:, k], color=colors[k % 4], lw=1.4, label=label)
        where = np.asarray(bends)
        axes.plot(where, np.interp(where, t, y[:, k]), "o", ms=3.5, color=colors[k % 4])
    axes.set_xlim(0.0, 1.0)
    axes.set_title(plain(title, 80))
    axes.set_xlabel("from start (0) to end (1); a dot where the slope changes")
    axes.set_ylabel(plain(of))
    if y.shape[1] > 1:
        axes.legend()
    return figure
