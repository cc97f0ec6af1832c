"""Two patterns that move: their shifts, what a linear unit sees, what a feature sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREY, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def plot_translation(
    orbits: tuple[NDArray[Any], NDArray[Any]],
    features: tuple[NDArray[Any], NDArray[Any]],
    probability: NDArray[Any],
) -> Figure:
    """Return a figure of two cyclic orbits, their means, invariant features, a network's answers.

    Parameters
    ----------
    orbits : two arrays (n_images, n_pixels)
    features : two arrays (n_features,)
        Of each pattern, the same for all of its shifts.
    probability : array (2 · n_images,)
        Of pattern a, by a network: first for all images of a, then of b.
    """
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(8.4, 5.4), layout="constrained"
    )
    axes = figure.subplots(2, 3, gridspec_kw={"width_ratios": [1, 1, 1.25]})
    for k, (images, color, name) in enumerate(zip(orbits, (BLUE, ORANGE), "AB", strict=True)):
        left, middle = axes[k, 0], axes[k, 1]
        left.imshow(images, cmap="Greys", vmin=0, vmax=images.max() * 1.25, aspect="auto")
        left.set_title(f"{name} and its shifts")
        left.set_xlabel("pixel")
        left.set_ylabel("shift")
        left.set_xticks([0, images.shape[1] - 1])
        left.set_yticks([0, len(images) - 1])
        middle.bar(np.arange(images.shape[1]), images.mean(axis=0), color=color)
        middle.set_ylim(0, 1)
        middle.set_title(f"mean of {name}'s shifts")
        middle.set_xlabel("pixel")
        middle.set_xticks([0, images.shape[1] - 1])
    where = np.arange(len(features[0]))
    for shift, values, color, name in zip((-0.2, 0.2), features, (BLUE, ORANGE), "AB", strict=True):
        axes[0, 2].bar(where + shift, values, width=0.4, color=color, label=name)
    axes[0, 2].set_title("pairs, whatever the shift")
    axes[0, 2].set_xlabel("distance between black pixels")
    axes[0, 2].set_ylabel("autocorrelation")
    axes[0, 2].legend()
    n = len(orbits[0])
    axes[1, 2].axhline(0.5, color=GREY, lw=0.8, ls="--")
    axes[1, 2].plot(np.arange(n), probability[:n], "o", ms=4, color=BLUE, label="shifts of A")
    axes[1, 2].plot(
        np.arange(len(probability) - n), probability[n:], "s", ms=4, color=ORANGE, label="of B"
    )
    axes[1, 2].set_ylim(-0.05, 1.05)
    axes[1, 2].set_title("network: probability of A")
    axes[1, 2].set_xlabel("shift")
    axes[1, 2].legend(loc="center right")
    return figure
