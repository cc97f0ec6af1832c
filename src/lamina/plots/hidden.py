"""The input plane, and what a hidden layer makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREEN, INK, ORANGE, PALE, PURPLE, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
_COLOURS = (ORANGE, BLUE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#8C564B", "#999933")
_MARKS = "soD^vPX<"
_GRID = ("#9A9A9A", "#C98BB0")  # lines of constant x1, of constant x2


@styled
def plot_hidden(
    points: Floats,
    hidden: Floats,
    lines: Sequence[Floats],
    hidden_lines: Sequence[Floats],
    *,
    boundary: Sequence[Floats] = (),
    readout: tuple[Floats, float] | None = None,
    labels: NDArray[Any] | None = None,
    layer: int = 1,
    explained: float = 1.0,
) -> Figure:
    """Return a figure of two planes side by side.

    Parameters
    ----------
    points, hidden : (n, 2) float64
        The rows in either plane.
    lines, hidden_lines : sequences of (n_steps, 2) float64
        A grid, the first half of its lines across the other, and what becomes of it.
    boundary : sequence of (k, 2) float64
        Pieces of the line where the output changes sides, in the input plane.
    readout : (array (2,), float), optional
        w and b of the line w·h + b = 0 in the hidden plane.
    labels : (n,), optional
    layer : int
    explained : float
        The share of the hidden variance shown; below 1 the plane is one of principal components.
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(10.4, 4.8), layout="constrained"
    )
    left, right = figure.subplots(1, 2)
    for axes, grid, rows in ((left, lines, points), (right, hidden_lines, hidden)):
        _draw_grid(axes, grid)
        _draw_rows(axes, rows, labels)
    lines_module: Any = require_extra("matplotlib.collections", "plots")
    if len(boundary):
        left.add_collection(
            lines_module.LineCollection(list(boundary), colors=INK, linewidths=1.8, zorder=3)
        )
    if readout is not None:
        _draw_line(right, *readout)
    own = bool(len(lines))
    left.set_title("The input")
    left.set_xlabel("x1" if own else "first principal component")
    left.set_ylabel("x2" if own else "second principal component")
    right.set_title(f"Behind hidden layer {layer}")
    whole = explained >= 1.0
    share = f" ({explained:.0%} of the variance)" if not whole else ""
    right.set_xlabel("h1" if whole else "first principal component")
    right.set_ylabel("h2" if whole else f"second{share}")
    if labels is not None:
        handles, names = left.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", markerscale=1.2)
    return figure


def _draw_grid(axes: Any, lines: Sequence[Floats]) -> None:
    for k, line in enumerate(lines):
        color = _GRID[0] if k < len(lines) // 2 else _GRID[1]
        axes.plot(*line.T, color=color, lw=0.8, zorder=1)
    if not len(lines):
        axes.grid(color=PALE)


def _draw_rows(axes: Any, rows: Floats, labels: NDArray[Any] | None) -> None:
    """Draw rows, largest where several lie on one place, so that all are seen."""
    size = 70 if len(rows) < 20 else 22 if len(rows) < 300 else 10
    if labels is None:
        axes.scatter(*rows.T, s=size, color=INK, zorder=4)
        return
    for k, label in enumerate(sorted(set(labels.tolist()), key=str)):
        mine = rows[labels == label]
        axes.scatter(
            *mine.T, s=size, color=_COLOURS[k % len(_COLOURS)], marker=_MARKS[k % len(_MARKS)],
            edgecolors="white", lw=0.8 if size > 30 else 0.3, zorder=4, label=plain(label, 20),
        )  # fmt: skip


def _draw_line(axes: Any, weights: Floats, bias: float) -> None:
    """Draw w·h + b = 0, without making the picture wider."""
    length = float(weights @ weights)
    if length == 0.0:
        return
    limits = axes.get_xlim(), axes.get_ylim()
    foot = -bias * weights / length
    axes.axline(foot, foot + np.array([-weights[1], weights[0]]), color=INK, lw=1.8, zorder=3)
    axes.set(xlim=limits[0], ylim=limits[1])
