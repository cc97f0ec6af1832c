"""Partial dependence: how the prediction moves with one column, or two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.plots.style import BLUE, GREY, INK, new_figure, plain, styled, write_numbers_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
MOST_CURVES = 60  # of single rows; more are a smear


@styled
def plot_dependence(
    column: str,
    grid: NDArray[Any],
    mean: Floats,
    individual: Floats | None = None,
    *,
    output: str = "prediction",
) -> Figure:
    """Return the mean prediction at each value of a column.

    Parameters
    ----------
    column : str
    grid : (n_grid,) float64, datetime64 or str
        Levels (str) are dots, the others a line with a tick at each value.
    mean : (n_grid,) float64
    individual : (n_rows, n_grid) float64, optional
        Curves of single rows; at most `MOST_CURVES` are drawn.
    output : str
        What is predicted.
    """
    figure, axes = new_figure()
    curves = _few(individual)
    if _is_levels(grid):
        place = np.arange(len(grid))
        figure.set_size_inches(6.4, max(4.0, 1.4 + 0.3 * len(grid)))
        for k, curve in enumerate(curves):
            spread = place + 0.25 * np.sin(k)  # side by side rather than one on another
            axes.plot(curve, spread, ".", color=GREY, alpha=0.35, ms=3)
        axes.plot(mean, place, "o", color=BLUE, ms=7)
        axes.set_yticks(place, [plain(level, 30) for level in grid])
        axes.invert_yaxis()
        axes.margins(y=0.06)
        write_numbers_out(axes.xaxis)
        axes.set_xlabel(f"mean {plain(output, 60)}")
        axes.set_ylabel(plain(column))
    else:
        for curve in curves:
            axes.plot(grid, curve, color=GREY, alpha=0.3, lw=0.7)
        axes.plot(grid, mean, color=BLUE, lw=2.2)
        axes.plot(grid, np.zeros(len(grid)), "|", color=INK, ms=7, clip_on=False,
                  transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set_xlabel(f"{plain(column)} (ticks: quantiles of the rows)")
        axes.set_ylabel(f"mean {plain(output, 44)}")
        write_numbers_out(axes.yaxis)
        if grid.dtype.kind == "M":
            figure.autofmt_xdate(rotation=30)
        else:
            write_numbers_out(axes.xaxis)
    rows = "" if individual is None else ", mean and single rows"
    axes.set_title(f"Partial dependence on {plain(column)}{rows}")
    axes.grid()
    return figure


@styled
def plot_dependence_map(
    columns: Sequence[str], grids: Sequence[NDArray[Any]], mean: Floats, *, output: str
) -> Figure:
    """Return a map of the mean prediction by two columns.

    Parameters
    ----------
    columns : two str
    grids : two arrays
        As for `plot_dependence`; a field of the map is as wide as any other, whatever its value.
    mean : (n_grid_0, n_grid_1) float64
    output : str
        What is predicted.
    """
    figure, axes = new_figure(6.8, 5.2)
    image = axes.imshow(mean.T, cmap="cividis", origin="lower", aspect="auto")
    for axis, grid, column in zip((axes.xaxis, axes.yaxis), grids, columns, strict=True):
        axis.set_ticks(np.arange(len(grid)), [_shown(value) for value in grid])
        axis.set_label_text(plain(column))
    axes.tick_params(length=0, labelsize=8)
    axes.tick_params(axis="x", rotation=45)
    axes.set_title("Partial dependence on two columns")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(f"mean {plain(output, 44)}")
    bar.outline.set_visible(False)
    return figure


def _few(individual: Floats | None) -> list[Floats]:
    if individual is None:
        return []
    step = max(1, len(individual) // MOST_CURVES)
    return list(individual[::step][:MOST_CURVES])


def _is_levels(grid: NDArray[Any]) -> bool:
    return grid.dtype.kind in "OUS"


def _shown(value: Any) -> str:
    if isinstance(value, np.datetime64):
        return str(value).removesuffix("T00:00:00")
    return plain(value, 16) if isinstance(value, str) else f"{value:.4g}"
