"""Picture of accuracy against compute, of a layer that uses a share of its experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.plots.style import BLUE, GREEN, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_compute_curve(
    compute: Floats, error: Floats, mass: Floats, best_error: Floats, best_mass: Floats
) -> Figure:
    """Return relative error and kept activation mass over the share of experts used.

    Parameters
    ----------
    compute, error, mass : (m,) float64
        As the router chooses.
    best_error, best_mass : (m,) float64
        As an oracle would.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, values, best, title in (
        (left, error, best_error, "Relative error"),
        (right, mass, best_mass, "Kept activation mass"),
    ):
        axes.plot(compute, values, color=BLUE, marker="o", ms=4, label="router")
        axes.plot(compute, best, color=GREEN, ls="--", marker="s", ms=4, label="oracle")
        axes.set_title(title)
        axes.set_xlabel("share of the experts used")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, None)
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        axes.grid()
        axes.legend()
    return figure
