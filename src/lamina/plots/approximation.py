"""A function, the network built for it, and their difference within the bound that is proved."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREY, INK, ORANGE, PALE, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Float64 = NDArray[np.float64]
Function = Callable[[Float64], NDArray[Any]]

_POINTS = 2001
_PER_AXIS = 161


@styled
def plot_approximation(
    f: Function,
    network: Function,
    box: Float64,
    error_bound: float,
    knots: Float64,
    *,
    name: str = "f",
    n_units: int = 0,
    activation: str = "",
) -> Figure:
    """Return a figure of a function and a network over a box, and of their difference.

    Parameters
    ----------
    f, network : function
        From rows (n, d) to values (n,).
    box : array (d, 2)
        Of two dimensions or more, the first two are drawn, through the middle of the others.
    error_bound : float
        The proved bound of the difference, drawn as a band.
    knots : array (k,)
        Where units bend, in one dimension.
    name : str
        The function as written.
    n_units : int
    activation : str
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(7.2, 6.0) if len(box) == 1 else (9.6, 4.0), layout="constrained"
    )
    title = f"{n_units} {activation} unit{'' if n_units == 1 else 's'} for {plain(name)}"
    if len(box) == 1:
        _line(figure, f, network, box, error_bound, knots, title)
    else:
        _maps(figure, f, network, box, error_bound, title)
    return figure


def _line(
    figure: Figure,
    f: Function,
    network: Function,
    box: Float64,
    error_bound: float,
    knots: Float64,
    title: str,
) -> None:
    """One dimension: both curves above, the difference in its band below."""
    x = np.unique(np.concatenate([np.linspace(box[0, 0], box[0, 1], _POINTS), knots]))[
        :, np.newaxis
    ]
    wanted, found = f(x), network(x)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.plot(x, wanted, color=GREY, lw=3, alpha=0.6, label="the function")
    above.plot(x, found, color=BLUE, lw=1.3, label="the network")
    if 0 < len(knots) <= 200:
        at = knots[:, np.newaxis]
        above.plot(at, network(at), "o", ms=3, color=ORANGE, label="a unit's knot")
    above.set_title(title)
    above.set_ylabel("value")
    above.grid(axis="y")
    above.legend()
    below.axhspan(-error_bound, error_bound, color=PALE, alpha=0.5, lw=0)
    below.axhline(error_bound, color=INK, lw=0.8, ls="--", label=f"proved: ±{error_bound:.4g}")
    below.axhline(-error_bound, color=INK, lw=0.8, ls="--")
    below.plot(x, found - wanted, color=BLUE, lw=1, label="network − function")
    below.set_xlabel("x")
    below.set_ylabel("difference")
    below.set_ylim(-1.45 * error_bound, 1.45 * error_bound)
    below.grid(axis="y")
    below.legend(loc="upper right", ncols=2)


def _maps(
    figure: Figure, f: Function, network: Function, box: Float64, error_bound: float, title: str
) -> None:
    """Two dimensions or more: the network, and the difference on a scale of the bound."""
    axes = [np.linspace(low, high, _PER_AXIS) for low, high in box[:2].tolist()]
    x1, x2 = np.meshgrid(*axes, indexing="ij")
    rows = np.tile(box.mean(axis=1), (x1.size, 1))  # (n, d)
    rows[:, 0], rows[:, 1] = x1.ravel(), x2.ravel()
    found = network(rows).reshape(x1.shape)
    difference = found - f(rows).reshape(x1.shape)
    left, right = figure.subplots(1, 2)
    pictures = (
        (left, found, title, {"cmap": "cividis"}),
        (
            right,
            difference,
            f"network − function; proved: ±{error_bound:.4g}",
            {"cmap": "RdBu_r", "vmin": -error_bound, "vmax": error_bound},
        ),
    )
    for panel, values, heading, style in pictures:
        mesh = panel.pcolormesh(x1, x2, values, shading="gouraud", rasterized=True, **style)
        figure.colorbar(mesh, ax=panel)
        panel.set_title(heading)
        panel.set_xlabel("x1")
        panel.set_ylabel("x2")
        panel.set_aspect("auto")
