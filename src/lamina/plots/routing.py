"""Pictures of a mixture of experts: the load of each, and over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.plots.style import BLUE, GREEN, GREY, ORANGE, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_load(counts: NDArray[np.int64], title: str) -> Figure:
    """Return bars of each expert's load over the mean; lines at half of it and twice.

    Parameters
    ----------
    counts : (n_experts,) int64
    title : str
    """
    from matplotlib.figure import Figure

    n = len(counts)
    relative = counts / max(1e-9, float(counts.mean()))
    figure = Figure(figsize=(max(5.0, min(14.0, 1.5 + 0.3 * n)), 3.4), layout="constrained")
    axes = figure.subplots()
    even = (relative >= 0.5) & (relative <= 2.0)
    axes.bar(np.arange(n), relative, color=np.where(even, BLUE, ORANGE).tolist())
    for height, style in ((0.5, ":"), (1.0, "-"), (2.0, ":")):
        axes.axhline(height, color=GREY, lw=0.9, ls=style)
    axes.set_ylim(0, max(2.2, 1.1 * float(relative.max(initial=0.0))))
    axes.set_xlabel("expert")
    axes.set_ylabel("load / mean")
    axes.set_title(plain(title))
    return figure


@styled
def plot_load_over_time(
    load: Floats, load_entropy: Floats, router_entropy: Floats, dropped: Floats
) -> Figure:
    """Return a map of the load (experts over steps), and curves of what sums it up.

    Parameters
    ----------
    load : (n_steps, n_experts) float64
        Rows add up to 1.
    load_entropy, router_entropy, dropped : (n_steps,) float64
        In [0, 1].
    """
    from matplotlib.figure import Figure

    n_steps, n_experts = load.shape
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    image = top.imshow(
        load.T * n_experts,
        aspect="auto",
        cmap="cividis",
        vmin=0.0,
        vmax=2.0,
        interpolation="nearest",
        extent=(-0.5, n_steps - 0.5, n_experts - 0.5, -0.5),
    )
    figure.colorbar(image, ax=top, label="load / mean", extend="max")
    top.set_ylabel("expert")
    top.set_title("Load of the experts")
    steps = np.arange(n_steps)
    for values, colour, style, label in (
        (load_entropy, BLUE, "-", "entropy of the load"),
        (router_entropy, GREEN, "--", "entropy of a token's scores"),
        (dropped, ORANGE, "-.", "dropped"),
    ):
        bottom.plot(steps, values, color=colour, ls=style, lw=1.6, label=label)
    bottom.set_ylim(-0.02, 1.05)
    bottom.set_xlabel("step")
    bottom.set_ylabel("share")
    bottom.grid()
    bottom.legend()
    return figure
