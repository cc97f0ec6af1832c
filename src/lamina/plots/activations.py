"""Activations and their derivatives, one by one or all together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREY, ORANGE, PALE, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_activation(
    name: str,
    z: Floats,
    value: Floats,
    derivative: Floats,
    *,
    flat: tuple[float | None, float | None] = (None, None),
) -> Figure:
    """Return a figure of an activation and its derivative.

    Parameters
    ----------
    name : str
    z, value, derivative : (n,) float64
        z rising; a jump is drawn as a gap.
    flat : (float or None, float or None)
        Below the first and above the second the activation saturates: shaded.
    """
    figure, axes = new_figure(6.4, 4.0)
    below, above = flat
    label = "saturated"
    for low, high in ((z[0], below), (above, z[-1])):
        if low is not None and high is not None and low < high:
            axes.axvspan(low, high, color=PALE, alpha=0.5, lw=0, label=label)
            label = "_"  # one entry in the legend is enough
    axes.axhline(0, color=GREY, lw=0.6)
    axes.axvline(0, color=GREY, lw=0.6)
    _draw(axes, z, value, derivative, 2.2)
    axes.set_title(f"{plain(name)} and its derivative")
    axes.set_xlabel("z")
    axes.set_xlim(z[0], z[-1])
    axes.grid()
    axes.legend(loc="upper left")
    return figure


@styled
def plot_activations(
    names: Sequence[str], z: Floats, values: Sequence[Floats], derivatives: Sequence[Floats]
) -> Figure:
    """Return a figure with a small picture of each activation, all to one scale.

    Parameters
    ----------
    names : sequence of n str
    z : (n_z,) float64
    values, derivatives : sequences of n arrays (n_z,)
    """
    n = len(names)
    n_columns = min(n, 5)
    n_rows = -(-n // n_columns)
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(2.3 * n_columns + 0.4, 2.1 * n_rows + 0.5), layout="constrained"
    )
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    for i, axes in enumerate(grid.flat):
        if i >= n:
            axes.set_axis_off()
            continue
        axes.axhline(0, color=GREY, lw=0.6)
        axes.axvline(0, color=GREY, lw=0.6)
        _draw(axes, z, values[i], derivatives[i], 1.8)
        axes.set_title(plain(names[i], 18), fontsize=10)
        axes.set_xlabel("z" if i >= n_columns * (n_rows - 1) else "")
        axes.set(xlim=(z[0], z[-1]), ylim=(-2.2, 3.2))
        axes.grid()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    spare = grid.flat[-1]
    if n < grid.size:
        spare.legend(handles, labels, loc="center", fontsize=11)
    else:
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _draw(axes: Any, z: Floats, value: Floats, derivative: Floats, width: float) -> None:
    """Draw phi and phi', each with gaps where it jumps."""
    axes.plot(z, _with_gaps(z, value), color=BLUE, lw=width, label="phi(z)")
    axes.plot(z, _with_gaps(z, derivative), color=ORANGE, lw=0.65 * width, label="phi'(z)")


def _with_gaps(z: Floats, curve: Floats) -> Floats:
    """Return a curve with NaN where it rises far more steeply than any activation."""
    steep = np.abs(np.diff(curve, prepend=curve[0])) > 20.0 * np.diff(z, prepend=z[0] - 1.0)
    return np.where(steep, np.nan, curve)
