"""How predictions meet what happened: calibration, confusion, residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.plots.style import BLUE, GREY, INK, ORANGE, new_figure, plain, styled, write_numbers_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@styled
def plot_calibration(
    predicted: Floats,
    share: Floats,
    interval: tuple[Floats, Floats],
    count: NDArray[Any],
    *,
    what: str,
    error: float,
) -> Figure:
    """Return a figure of the share of rows that came true against the probability predicted.

    Parameters
    ----------
    predicted, share : (n_bins,) float64
        The mean probability in each bin, and the share of its rows that came true.
    interval : low and high, each (n_bins,)
        Of the share.
    count : (n_bins,) int
        Rows in each bin.
    what : str
        What is predicted.
    error : float
        The expected calibration error.
    """
    figure, axes = new_figure(5.2, 4.8)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=(0, (4, 3)), label="perfect")
    off = np.abs(np.stack(interval) - share)
    axes.errorbar(
        predicted, share, yerr=off, fmt="o", ms=5, color=BLUE, lw=1, label="bins (95 % interval)"
    )
    axes.set_title(f"Calibration: expected error {error:.3f}")
    axes.set_xlabel(f"predicted probability of {plain(what)}")
    axes.set_ylabel(f"share of rows that are {plain(what)}")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.grid()
    axes.legend(loc="upper left")
    total, least, most = int(count.sum()), int(count.min()), int(count.max())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    axes.annotate(
        f"{total:,} values, {each} a bin",
        (0.98, 0.02),
        xycoords="axes fraction",
        ha="right",
        color=GREY,
        fontsize=9,
    )
    return figure


@styled
def plot_confusion(counts: NDArray[Any], names: Sequence[str]) -> Figure:
    """Return a figure of how often each class was predicted as which.

    Parameters
    ----------
    counts : (n_classes, n_classes) int
        Row: the true class; column: the predicted one.
    names : sequence of n_classes str
    """
    n = len(names)
    size = float(np.clip(2.6 + 0.45 * n, 4.0, 9.0))
    figure, axes = new_figure(size + 0.8, size)
    rows = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(rows, 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    labels = [plain(name, 18) for name in names]
    axes.set_xticks(
        range(n), labels, rotation=45 if n > 2 else 0, ha="right" if n > 2 else "center"
    )
    axes.set_yticks(range(n), labels)
    axes.tick_params(length=0, labelsize=9 if n <= 16 else 7)
    if n <= 12:
        for i, j in np.ndindex(n, n):
            text = f"{share[i, j]:.0%}\n{counts[i, j]:,}" if n <= 6 else f"{counts[i, j]:,}"
            colour = "white" if share[i, j] > 0.55 else INK
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_title("Confusion")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=lambda v, _: f"{v:.0%}")
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return figure


@styled
def plot_residuals(y: Floats, y_pred: Floats, *, target: str = "target") -> Figure:
    """Return a figure of what was missed, against what was predicted, with running quantiles.

    Parameters
    ----------
    y, y_pred : (n,) float64
        In the target's unit.
    target : str
        Its name.
    """
    figure, axes = new_figure(6.4, 4.4)
    residual = y - y_pred
    shown = np.random.default_rng(0).permutation(len(y))[:4000]
    axes.scatter(
        y_pred[shown],
        residual[shown],
        s=7,
        color=BLUE,
        alpha=float(np.clip(300 / max(len(shown), 1), 0.12, 0.6)),
        lw=0,
        rasterized=True,
        label="rows",
    )
    axes.axhline(0, color=INK, lw=0.8)
    n_bins = int(np.clip(len(y) // 25, 1, 20))
    if n_bins >= 4:
        order = np.array_split(np.argsort(y_pred, kind="stable"), n_bins)
        centre = [np.median(y_pred[rows]) for rows in order]
        quantiles = np.array([np.quantile(residual[rows], (0.1, 0.5, 0.9)) for rows in order])
        axes.plot(centre, quantiles[:, 1], color=ORANGE, lw=1.6, label="median")
        for k, label in ((0, "10 % and 90 %"), (2, None)):
            axes.plot(centre, quantiles[:, k], color=ORANGE, lw=1.2, ls=(0, (4, 2)), label=label)
    if len(y) >= 50:  # one row far away must not hide all others
        low, high = np.quantile(residual, (0.002, 0.998))
        pad = 0.15 * (high - low)
        if high > low:
            axes.set_ylim(min(low - pad, 0), max(high + pad, 0))
    name = plain(target)
    axes.set_title("Residuals")
    axes.set_xlabel(f"predicted {name}")
    axes.set_ylabel(f"true − predicted {name}")
    axes.grid()
    write_numbers_out(axes.xaxis, axes.yaxis)
    legend = axes.legend(ncols=3, loc="upper left")
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    return figure
