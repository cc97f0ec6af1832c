"""Importances of columns, and what each column adds to one row's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.plots.style import BLUE, GREY, INK, ORANGE, new_figure, plain, styled, write_numbers_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_importances(
    columns: Sequence[str], mean: Floats, spread: Floats, *, loss: str = "loss", most: int = 20
) -> Figure:
    """Return a bar for each of the ``most`` important columns, with its spread over shuffles.

    Parameters
    ----------
    columns : sequence of n_columns str
    mean, spread : (n_columns,) float64
        The rise of the loss, and its standard deviation.
    loss : str
        What the loss is.
    """
    order = np.argsort(-mean, kind="stable")[:most][::-1]
    figure, axes = new_figure(6.4, 1.3 + 0.28 * len(order))
    place = np.arange(len(order))
    axes.barh(place, mean[order], height=0.66, color=BLUE)
    axes.errorbar(
        mean[order], place, xerr=np.nan_to_num(spread[order]), fmt="none", ecolor=INK, lw=1.1
    )
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(place, [plain(columns[j], 30) for j in order])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    write_numbers_out(axes.xaxis)
    left_out = len(columns) - len(order)
    more = f" (the first {len(order)} of {len(columns)} columns)" if left_out else ""
    axes.set_title(f"Importance{more}")
    axes.set_xlabel(f"rise of the {loss} when the column is shuffled")
    return figure


@styled
def plot_attributions(
    columns: Sequence[str],
    cells: Sequence[str],
    values: Floats,
    baseline: float,
    prediction: float,
    *,
    output: str = "prediction",
    most: int = 12,
) -> Figure:
    """Return the way from the baseline to one row's prediction, a bar for each column.

    Parameters
    ----------
    columns, cells : sequences of n_columns str
        The names, and the row's values.
    values : (n_columns,) float64
        What each adds; ``baseline + values.sum() = prediction``.
    output : str
        What is predicted.
    most : int
        Columns shown, those that add or take most; the others are one bar together.
    """
    order = np.argsort(-np.abs(values), kind="stable")
    kept, others = order[:most], order[most:]
    steps = [float(values[j]) for j in kept]
    labels = [f"{plain(columns[j], 24)} = {plain(cells[j], 20)}" for j in kept]
    if len(others):
        steps.append(float(values[others].sum()))
        labels.append(f"{len(others)} other column{'' if len(others) == 1 else 's'}")
    figure, axes = new_figure(7.0, 1.7 + 0.32 * len(steps))
    ends = baseline + np.cumsum(steps)
    starts = ends - steps
    place = np.arange(len(steps))
    colours = [BLUE if step >= 0 else ORANGE for step in steps]
    axes.barh(place, steps, left=starts, height=0.64, color=colours)
    for i, end in enumerate(ends[:-1]):
        axes.plot([end, end], [i, i + 1], color=GREY, lw=0.7)
    wide = float(np.ptp([baseline, *ends])) or 1.0
    for i, step in enumerate(steps):
        right = max(starts[i], ends[i]) + 0.012 * wide
        axes.text(right, i, f"{step:+.3g}".replace("-", "−"), va="center", fontsize=9)
    axes.axvline(baseline, color=GREY, lw=1, ls=(0, (4, 3)))
    axes.axvline(prediction, color=INK, lw=1)
    axes.set_yticks(place, labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    reach = [baseline, *ends]
    axes.set_xlim(min(reach) - 0.05 * wide, max(reach) + 0.16 * wide)  # room for the numbers
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    write_numbers_out(axes.xaxis)
    axes.set_title(f"From the mean {baseline:.4g} (dashed) to {prediction:.4g}")
    axes.set_xlabel(plain(output, 60))
    return figure
