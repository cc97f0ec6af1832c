"""Contact sheets of shapes: the mesh, the field, what differs, and a slice through both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, ORANGE, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]


@styled
def plot_shape_field(
    mesh: Array, field: Array, off: Array, slices: list[Array], *, title: str, psnr: float
) -> Figure:
    """Return the contact sheet of a shape.

    Parameters
    ----------
    mesh, field : uint8 (height, width, 4)
        Pictures of the mesh and of the field.
    off : (n,)
        Distances of the field's surface from the mesh, of the box's diagonal.
    slices : two arrays (size, size)
        Exact distances and the field's on the plane z = 0; y runs up.
    title : str
    psnr : float
        In dB.
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(9.6, 7.6), layout="constrained"
    )
    grid = figure.subplots(2, 2)
    for axes, picture, name in ((grid[0, 0], mesh, "Mesh"), (grid[0, 1], field, "Field")):
        axes.imshow(picture)
        axes.set_title(name)
        axes.set_axis_off()
    axes = grid[1, 0]
    span = (-1, 1, -1, 1)
    axes.imshow(slices[1], cmap="RdBu", vmin=-0.6, vmax=0.6, extent=span)
    levels = np.arange(-0.6, 0.61, 0.1)
    flipped = [a[::-1] for a in slices]
    axes.contour(flipped[1], levels=levels, extent=span, colors="#555555", linewidths=0.5)
    axes.contour(flipped[0], levels=[0.0], extent=span, colors=ORANGE, linewidths=2.2)
    axes.contour(flipped[1], levels=[0.0], extent=span, colors=BLUE, linewidths=0.9)
    axes.set_title("Plane z = 0: mesh (orange), field (blue)")
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes = grid[1, 1]
    percent = 100 * off
    axes.hist(percent, bins=np.linspace(0, max(float(np.quantile(percent, 0.995)), 1e-6), 50))
    axes.set_title("Surface's distance from the mesh")
    axes.set_xlabel("% of the box's diagonal")
    axes.set_yticks([])
    figure.suptitle(plain(f"{title}, {psnr:.2f} dB", 90), x=0.01, ha="left", fontweight="bold")
    return figure
