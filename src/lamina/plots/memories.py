"""Pictures of what the memories of each layer do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_layers(
    agreement: Floats,
    chance: Floats,
    active: Floats,
    differs: Floats,
    coverage: Floats,
    coverage_chance: Floats,
    settled: Floats,
    cases: Floats,
) -> Figure:
    """Return six panels over the layers, in the order of Geva et al. 2021.

    Parameters
    ----------
    agreement, chance : (n_layers,) float64
        Shares of values whose top token follows their key's best trigger.
    active, differs : (n_layers,) float64
        Shares of memories that are active, of outputs that predict what no memory does.
    coverage, coverage_chance : (n_layers,) float64
        Shares of triggers that hold an n-gram shared by others of the neuron.
    settled : (n_layers,) float64
        Shares of places where the residual predicts what the model does.
    cases : (4, n_layers) float64
        Shares where the prediction is the residual's, the layer's, both's, neither's.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 6.0), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    layers = np.arange(len(agreement), dtype=np.float64)
    _lines(panels[0], layers, "Triggers that share an n-gram", coverage, coverage_chance)
    _lines(panels[1], layers, "Value and next token agree", agreement, chance)
    _lines(panels[2], layers, "Memories active", active)
    _lines(panels[3], layers, "Output is no memory's prediction", differs)
    _lines(panels[4], layers, "Residual predicts as the model", settled)
    names = ("residual", "layer", "both", "neither")
    colours = (BLUE, ORANGE, GREEN, PURPLE)
    bottom = np.zeros(len(layers))
    for shares, name, colour in zip(cases, names, colours, strict=True):
        panels[5].bar(layers, shares, bottom=bottom, width=1.0, color=colour, label=name)
        bottom = bottom + shares
    panels[5].set_title("Whose prediction the sum is")
    panels[5].legend(loc="lower right", fontsize=8, frameon=True, facecolor="white", framealpha=0.9)
    for axes in panels:
        axes.set_xlabel("layer")
        axes.set_xlim(-0.5, len(layers) - 0.5)
        axes.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g}%")
    for axes in (*panels[2:4], *panels[4:]):
        axes.set_ylim(0, 1.0)
    return figure


def _lines(
    axes: Axes, layers: Floats, title: str, ours: Floats, chance: Floats | None = None
) -> None:
    axes.plot(layers, ours, color=BLUE, marker="o", ms=3, label="measured")
    if chance is not None:
        axes.plot(layers, chance, color=GREY, ls="--", label="chance")
        axes.legend(fontsize=8)
    axes.set_title(title)
    axes.set_ylim(0, None)
    axes.grid()
