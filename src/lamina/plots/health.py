"""Signals, gradients and idle units: layer by layer, and epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREEN, GREY, ORANGE, plain, styled, use_log_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
_COLOURS = (ORANGE, BLUE, GREEN)


@styled
def plot_health(
    labels: Sequence[str], signal: Floats, gradient: Floats, idle: Mapping[str, Floats]
) -> Figure:
    """Return a figure of how signals and gradients fare from layer to layer.

    Parameters
    ----------
    labels : sequence of n_layers str
        May have two lines.
    signal, gradient : (n_layers,) float64
        Drawn on a logarithmic scale; NaN where there is none.
    idle : mapping of name to (n_layers,) float64
        Shares of the units that are dead, saturated and the like.
    """
    n = len(labels)
    figure = _new(max(6.4, 1.6 + 0.75 * n), 5.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    place = np.arange(n)
    shown = False
    for curve, colour, marker, label in (
        (signal, BLUE, "o", "signal: spread of h over rows"),
        (gradient, ORANGE, "s", "gradient: length of d loss / d z"),
    ):
        good = np.isfinite(curve) & (curve > 0)
        shown |= bool(good.any())
        top.plot(place[good], curve[good], color=colour, marker=marker, ms=5, lw=1.6, label=label)
    if shown:
        use_log_scale(top.yaxis)
        top.legend()
    top.set_title("Signals and gradients by layer")
    top.set_ylabel("size")
    top.grid()
    width = 0.8 / max(len(idle), 1)
    for i, (name, share) in enumerate(idle.items()):
        at = place + (i - (len(idle) - 1) / 2) * width
        bottom.bar(at, share, width=0.92 * width, color=_COLOURS[i % 3], label=plain(name))
    bottom.set_ylim(0, 1)
    bottom.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    bottom.set_ylabel("units")
    bottom.set_xticks(place, ["\n".join(plain(t) for t in text.split("\n")) for text in labels])
    bottom.set_xlabel("layer")
    bottom.grid(axis="y")
    if idle:
        bottom.legend(ncols=3)
    top.set_xlabel("")
    return figure


@styled
def plot_health_curves(
    epochs: NDArray[Any], panels: Mapping[str, Floats], *, log: Sequence[str] = ()
) -> Figure:
    """Return a figure of each layer's numbers over the epochs, a panel a quantity.

    Parameters
    ----------
    epochs : (n_records,) int
    panels : mapping of title to (n_records, n_layers) float64
        NaN where there is none.
    log : sequence of titles
        Those on a logarithmic scale.
    """
    n_columns = 2 if len(panels) > 1 else 1
    n_rows = -(-max(len(panels), 1) // n_columns)
    figure = _new(4.3 * n_columns + 0.8, 2.6 * n_rows + 0.6)
    colours = require_extra("matplotlib", "plots").colormaps["viridis"]
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for i, (title, curves) in enumerate(panels.items()):
        axes = grid.flat[i]
        n_layers = curves.shape[1]
        for layer in range(n_layers):
            colour = colours(0.9 * layer / max(n_layers - 1, 1))
            y = curves[:, layer]
            if title in log:
                y = np.where(y > 0, y, np.nan)
            axes.plot(epochs, y, color=colour, marker=".", lw=1.4, label=f"layer {layer + 1}")
        if title in log and np.nanmax(curves, initial=0.0) > 0:
            use_log_scale(axes.yaxis)
        elif title not in log:
            axes.set_ylim(bottom=0.0)
        axes.set_title(plain(title, 48), fontsize=10)
        axes.set_xlabel("epoch" if i + n_columns >= len(panels) else "")
        axes.grid(color=GREY, alpha=0.3)
        axes.locator_params(axis="x", integer=True)
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper")
    return figure


def _new(width: float, height: float) -> Figure:
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(width, height), layout="constrained"
    )
    return figure
