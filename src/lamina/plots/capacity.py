"""Picture of how a key-value memory's recall falls and its interference grows with its pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.plots.style import BLUE, GREEN, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_capacity(
    n_pairs: Floats,
    relu: Floats,
    softmax: Floats,
    relu_interference: Floats,
    softmax_interference: Floats,
) -> Figure:
    """Return recall and interference over the number of pairs, of ReLU and of softmax.

    Parameters
    ----------
    n_pairs : (m,) float64
    relu, softmax : (m,) float64
        Shares of queries that recall their own value.
    relu_interference, softmax_interference : (m,) float64
        Relative distances of the answers from their own values.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, pair, title in (
        (left, (relu, softmax), "Recall"),
        (right, (relu_interference, softmax_interference), "Interference"),
    ):
        axes.plot(n_pairs, pair[0], color=BLUE, marker="o", ms=4, label="ReLU, thresholds")
        axes.plot(n_pairs, pair[1], color=GREEN, ls="--", marker="s", ms=4, label="softmax")
        axes.set_title(title)
        axes.set_xlabel("pairs stored")
        axes.set_xscale("log")
        axes.set_ylim(0, None)
        axes.grid()
    left.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    left.set_ylim(0, 1.02)
    right.set_ylabel("distance from the value, relative")
    left.legend()
    return figure
