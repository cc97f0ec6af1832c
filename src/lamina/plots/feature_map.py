"""Two classes in the space of three features, and the plane between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREY, INK, ORANGE, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_feature_map(
    features: Floats,
    positive: NDArray[np.bool_],
    weights: Sequence[float] | Floats,
    bias: float,
    names: Sequence[object],
    *,
    title: str = "A plane separates the classes",
) -> Figure:
    """Return a figure of points in three dimensions and of the plane w·x + b = 0.

    Parameters
    ----------
    features : array (n, 3)
    positive : array (n,) of bool
    weights, bias : three numbers, a number
    names : sequence of three
        Of the axes.
    title : str
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(6.4, 5.6), layout="constrained"
    )
    axes: Any = figure.add_subplot(projection="3d")
    w = np.asarray(weights, np.float64)
    _plane(axes, features, w, bias)
    for chosen, colour, marker, label in (
        (positive, BLUE, "o", "class 1"),
        (~positive, ORANGE, "s", "class 0"),
    ):
        points = features[chosen]
        axes.scatter(*points.T, color=colour, marker=marker, s=60, label=label, depthshade=False)
        # A thread from each point to the plane shows on which side it is.
        feet = points - ((points @ w + bias) / (w @ w))[:, np.newaxis] * w
        for point, foot in zip(points, feet, strict=True):
            axes.plot(*np.stack([point, foot]).T, color=colour, lw=1, ls=":")
    for set_label, name in zip(
        (axes.set_xlabel, axes.set_ylabel, axes.set_zlabel), names, strict=True
    ):
        set_label(plain(name))
    axes.set_title(title)
    axes.view_init(elev=18, azim=-62)
    axes.locator_params(nbins=4)
    axes.legend(loc="upper left")
    return figure


def _plane(axes: Any, features: Floats, w: Floats, bias: float) -> None:
    """The part of the plane near the points, laid out over the two axes it is least steep in."""
    low, high = features.min(axis=0), features.max(axis=0)
    pad = 0.15 * np.maximum(high - low, 1e-9)
    low, high = low - pad, high + pad
    up = int(np.abs(w * (high - low)).argmax())  # solve for this coordinate
    flat = [k for k in range(3) if k != up]
    a, b = np.meshgrid(*(np.linspace(low[k], high[k], 41) for k in flat))
    c = -(w[flat[0]] * a + w[flat[1]] * b + bias) / w[up]
    c[(c < low[up]) | (c > high[up])] = np.nan
    surface = [a, b, c]
    x, y, z = (surface[[*flat, up].index(k)] for k in range(3))
    axes.plot_surface(x, y, z, color=GREY, alpha=0.35, linewidth=0, antialiased=False)
    axes.plot_wireframe(x, y, z, color=INK, alpha=0.25, lw=0.4, rstride=8, cstride=8)
