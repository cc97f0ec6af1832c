"""Contact sheets of volumes: three cuts of the grid, of the field and of what differs; spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.fields import draw_spectra, radial_spectrum
from lamina.plots.style import plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_volume_field(cuts: list[tuple[str, Floats, Floats]], *, psnr: float, title: str) -> Figure:
    """Return the contact sheet of a volume.

    Parameters
    ----------
    cuts : list of (axis, signal, field)
        Three, the middle across an axis: (height, width, channels), NaN where missing.
    psnr : float
        In dB.
    title : str
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(11.2, 8.4), layout="constrained"
    )
    grid = figure.subplots(3, 4)
    known = np.concatenate([signal[~np.isnan(signal)] for _, signal, _ in cuts])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    errors = [np.abs(field - signal).mean(axis=2) for _, signal, field in cuts]
    found = np.concatenate([error[~np.isnan(error)] for error in errors])
    most = (float(found.max()) if found.size else 0.0) or 1e-12
    shown = None
    for row, (axis, signal, field) in enumerate(cuts):
        for column, pixels in ((0, signal), (1, field)):
            grid[row, column].imshow(
                pixels.mean(axis=2), cmap="gray", vmin=low, vmax=high, interpolation="nearest"
            )
        shown = grid[row, 2].imshow(
            errors[row], cmap="cividis", vmin=0, vmax=most, interpolation="nearest"
        )
        for axes in grid[row, :3]:
            axes.set_xticks([])
            axes.set_yticks([])
        grid[row, 0].set_ylabel(f"across {plain(axis, 4)}")
        filled = [np.where(np.isnan(signal), low, a) for a in (signal, field)]
        spectra = [radial_spectrum(a) for a in (*filled, filled[0] - filled[1])]
        draw_spectra(grid[row, 3], spectra, "cycles a sample")
    for axes, name in zip(grid[0, :3], ("Signal", "Field", "Error"), strict=True):
        axes.set_title(name)
    assert shown is not None  # noqa: S101
    bar = figure.colorbar(shown, ax=list(grid[:, 2]), shrink=0.6, location="bottom")
    bar.outline.set_visible(False)
    figure.suptitle(plain(f"{title}, {psnr:.2f} dB", 90), x=0.01, ha="left", fontweight="bold")
    return figure
