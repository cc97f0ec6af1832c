"""Pictures of a mixture of experts: the load of each, and over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.plots.style import BLUE, GREEN, GREY, INK, ORANGE, plain, styled

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


@styled
def plot_specialisation(lift: Floats, names: list[str], title: str) -> Figure:
    """Return a map of how much more of a class of tokens each expert takes than its share.

    Parameters
    ----------
    lift : (n_experts, n_classes) float64
        The share of a class among an expert's tokens over that among all; 1 is no preference.
    names : list of str
        Of the classes.
    title : str
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.8 + 0.8 * len(names), 1.6 + 0.32 * len(lift)), layout="constrained")
    axes = figure.subplots()
    shown = np.log2(np.maximum(lift, 2.0**-4))
    image = axes.imshow(shown, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
    for (i, j), value in np.ndenumerate(lift):
        colour = "white" if abs(shown[i, j]) > 2 else INK
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), [plain(name) for name in names])
    axes.set_yticks(range(len(lift)))
    axes.set_ylabel("expert")
    axes.set_title(plain(title))
    bar = figure.colorbar(image, ax=axes, label="times its share")
    bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    return figure


@styled
def plot_losses(curves: dict[str, tuple[Floats, Floats]], unit: str) -> Figure:
    """Return held-out losses over training steps, one line a model.

    Parameters
    ----------
    curves : dict of name to (steps, losses)
    unit : str
        Of the losses.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    styles = ("-", "--", "-.", ":")
    for i, (name, (steps, losses)) in enumerate(curves.items()):
        colour = (BLUE, ORANGE, GREEN, GREY)[i % 4]
        axes.plot(steps, losses, color=colour, ls=styles[i % 4], label=plain(name))
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.grid()
    axes.legend()
    return figure
