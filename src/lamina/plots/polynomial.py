"""A function, the closest polynomial, and the points that keep all polynomials away from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREY, INK, ORANGE, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Function = Callable[[NDArray[np.float64]], NDArray[Any]]


@styled
def plot_polynomial_distance(
    f: Function,
    polynomial: Function,
    box: tuple[float, float],
    points: NDArray[np.float64],
    bound: float,
    *,
    name: str,
    degree: int,
) -> Figure:
    """Return a figure of f and the closest polynomial, and of their difference below.

    Parameters
    ----------
    f, polynomial : function
        From x (n,) to values (n,).
    box : (float, float)
    points : array (degree + 2,)
        Where the proof looks.
    bound : float
        No polynomial of the degree comes closer.
    name : str
        f as written.
    degree : int
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(7.2, 6.0), layout="constrained"
    )
    x = np.linspace(*box, 2001)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.plot(x, f(x), color=GREY, lw=3, alpha=0.6, label=plain(name))
    above.plot(x, polynomial(x), color=BLUE, lw=1.3, label=f"the closest, degree {degree}")
    above.plot(points, f(points), "o", ms=4, color=ORANGE, label="points of the proof")
    title = f"No polynomial of degree {degree} comes closer than {bound:.4g}"
    above.set_title(title if bound else f"The closest polynomial of degree {degree}")
    above.set_ylabel("value")
    above.grid(axis="y")
    above.legend()
    below.plot(x, polynomial(x) - f(x), color=BLUE, lw=1, label="polynomial − function")
    below.plot(points, polynomial(points) - f(points), "o", ms=4, color=ORANGE)
    for level in (-bound, bound):
        below.axhline(level, color=INK, lw=0.8, ls="--")
    below.set_xlabel("x")
    below.set_ylabel("difference")
    below.set_ylim(-1.6 * max(bound, 1e-12), 1.6 * max(bound, 1e-12))
    below.grid(axis="y")
    below.legend(loc="upper right")
    return figure
