"""Arrays as pictures: weights of units, inputs that excite them; vectors as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, INK, ORANGE, new_figure, plain, styled, write_numbers_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
MOST_NAMED = 32  # components; more names are a smear


@styled
def plot_images(
    images: Floats,
    names: Sequence[str],
    *,
    title: str = "",
    value: str = "value",
    shared: bool = True,
    span: tuple[float, float] | None = None,
) -> Figure:
    """Return a figure of images side by side.

    Parameters
    ----------
    images : (n, height, width) or (n, channels, height, width) float64
        Three channels are red, green and blue, stretched to what each image holds; one, or numbers
        without channels, are drawn in two colours, white at 0; other channels are averaged.
    names : sequence of n str
    title, value : str
        Of the figure, and what the numbers are.
    shared : bool
        Whether one scale of colours is for all images.
    span : (float, float), optional
        What black and white are in images of three channels; None stretches each.
    """
    images = np.asarray(images, np.float64)
    in_colour = images.ndim == 4 and images.shape[1] == 3
    if images.ndim == 4 and not in_colour:
        images = images.mean(axis=1)  # (n, height, width)
    n = len(images)
    side = int(np.ceil(np.sqrt(n)))
    n_columns = min(range(side, 2 * side + 1), key=lambda c: (-n % c, c)) if n > 1 else 1
    n_rows = -(-n // n_columns)
    high, wide = images.shape[-2:]
    cell = 4.6 if n == 1 else 1.5
    across = cell * min(2.0, max(0.5, wide / high))
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(across * n_columns + 1.0, cell * n_rows + 0.8), layout="constrained"
    )
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    most = float(np.abs(images).max(initial=0.0)) or 1.0
    shown: Any = None
    for i, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if i >= n:
            continue
        if in_colour:
            axes.imshow(_as_colours(images[i], span), interpolation="nearest")
        else:
            scale = most if shared else float(np.abs(images[i]).max()) or 1.0
            shown = axes.imshow(images[i], cmap="RdBu_r", vmin=-scale, vmax=scale)
        axes.set_title(plain(names[i], 24), fontsize=8, loc="center", fontweight="normal", pad=2.0)
    if shown is not None and (shared or n == 1):
        bar = figure.colorbar(shown, ax=grid, shrink=0.7)
        bar.set_label(plain(value))
        bar.outline.set_visible(False)
    figure.suptitle(plain(title, 80), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


@styled
def plot_components(values: Floats, names: Sequence[str] | None = None, *, title: str) -> Figure:
    """Return a figure of the numbers of a vector as bars.

    Parameters
    ----------
    values : (d,) float64
    names : sequence of d str, optional
    title : str
    """
    d = len(values)
    figure, axes = new_figure(float(np.clip(2.0 + 0.3 * d, 4.0, 10.0)), 3.6)
    axes.bar(np.arange(d), values, color=np.where(values >= 0, BLUE, ORANGE), width=0.8)
    axes.axhline(0, color=INK, lw=0.8)
    if d <= MOST_NAMED:
        labels = [f"x{j}" for j in range(d)] if names is None else [plain(n, 16) for n in names]
        turned = names is not None and d > 4
        axes.set_xticks(np.arange(d), labels, rotation=45 if turned else 0)
    axes.set_title(plain(title, 80))
    axes.set_xlabel("column of x")
    axes.set_ylabel("value")
    axes.grid(axis="y")
    write_numbers_out(axes.yaxis)
    return figure


def _as_colours(image: Floats, span: tuple[float, float] | None) -> Floats:
    """Return (channels, height, width) as (height, width, channels) in [0, 1]."""
    if span is not None:
        low, high = span
        return np.moveaxis(np.clip((image - low) / (high - low), 0.0, 1.0), 0, -1)
    middle, spread = image.mean(), image.std() or 1.0
    stretched = np.clip(0.5 + (image - middle) / (6.0 * spread), 0.0, 1.0)
    return np.moveaxis(stretched, 0, -1)
