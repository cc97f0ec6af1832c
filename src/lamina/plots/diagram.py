"""A network as circles and lines, whose colour is a weight's sign and whose width its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import BLUE, GREY, INK, ORANGE, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
_WIDEST, _THINNEST = 4.0, 0.3  # points
_RADIUS = 0.3
_FAINTEST = 0.02  # of the layer's largest weight; thinner edges are not drawn


@styled
def plot_network(
    dims: Sequence[int],
    weights: Sequence[Floats],
    biases: Sequence[Floats],
    *,
    sources: Sequence[Sequence[int]],
    functions: Sequence[str],
    names: tuple[Sequence[str], Sequence[str]],
    activations: Sequence[Floats] | None = None,
    most: int = 12,
) -> Figure:
    """Return a figure of a network.

    Parameters
    ----------
    dims : sequence of L + 1 int
        Units of each layer, the input first.
    weights, biases : sequences of L arrays (d_l, fan_in_l), (d_l,)
    sources : sequence of L sequences of int
        The layers whose units layer l reads, in the order of its weights' columns.
    functions : sequence of L + 1 str
        What each layer does.
    names : two sequences of str
        Of the inputs and of the outputs.
    activations : sequence of L + 1 arrays (d_l,), optional
        Shown in the units, instead of biases.
    most : int
        Units drawn of a layer.
    """
    shown = [_largest(layer, dims, weights, sources, most) for layer in range(len(dims))]
    tallest = max(len(units) for units in shown)
    figure, axes = new_figure(1.6 + 1.9 * len(dims), 1.5 + 0.62 * tallest)
    across = 2.6  # between layers, in units of the distance between circles
    place = {
        (layer, int(unit)): (layer * across, 0.5 * (len(units) - 1) - k)
        for layer, units in enumerate(shown)
        for k, unit in enumerate(units)
    }
    for layer, weight in enumerate(weights, start=1):
        _draw_edges(axes, place, weight, layer, dims, sources[layer - 1])
    inside = [np.zeros(dims[0]), *biases] if activations is None else list(activations)
    for layer, units in enumerate(shown):
        known = layer > 0 or activations is not None
        _draw_units(axes, place, layer, units, inside[layer], known)
    for j, layer, side in ((0, 0, -1), (1, len(dims) - 1, 1)):
        for unit in shown[layer]:
            x, y = place[layer, int(unit)]
            axes.text(x + side * 0.45, y, plain(names[j][int(unit)], 18), va="center",
                      ha="right" if side < 0 else "left", fontsize=9)  # fmt: skip
    bottom = -0.5 * (tallest - 1) - 0.75
    for layer, units in enumerate(shown):
        text = plain(functions[layer], 16)
        if len(units) < dims[layer]:
            text += f"\n{len(units)} of {dims[layer]} units"
        axes.text(layer * across, bottom, text, ha="center", va="top", color=GREY, fontsize=9)
    axes.set_aspect("equal")
    axes.set_xlim(-1.9, (len(dims) - 1) * across + 1.9)
    axes.set_ylim(bottom - 0.9, 0.5 * (tallest - 1) + 0.6)
    axes.set_axis_off()
    what = "biases" if activations is None else "activations"
    axes.set_title(f"Weights as edges (blue +, orange −), {what} in the units")
    return figure


def _largest(
    layer: int, dims: Sequence[int], weights: Sequence[Floats],
    sources: Sequence[Sequence[int]], most: int,
) -> NDArray[np.intp]:  # fmt: skip
    """Return the units to be drawn, in their order: those with the largest weights in and out."""
    if dims[layer] <= most:
        return np.arange(dims[layer])
    size = np.zeros(dims[layer])
    if layer > 0:
        size += (weights[layer - 1] ** 2).sum(axis=1)
    for after, read in enumerate(sources, start=1):
        if layer in read:
            start = sum(dims[j] for j in read[: list(read).index(layer)])
            size += (weights[after - 1][:, start : start + dims[layer]] ** 2).sum(axis=0)
    return np.sort(np.argsort(-size, kind="stable")[:most])


def _draw_edges(
    axes: Any, place: dict[tuple[int, int], tuple[float, float]], weight: Floats, layer: int,
    dims: Sequence[int], sources: Sequence[int],
) -> None:  # fmt: skip
    """Draw all weights into a layer, the largest on top; a skip's edges are dashed."""
    collections: Any = require_extra("matplotlib.collections", "plots")
    largest = float(np.abs(weight).max(initial=0.0)) or 1.0
    start = 0
    for source in sources:
        block = weight[:, start : start + dims[source]]  # (d_l, d_source)
        start += dims[source]
        edges = [
            (abs(float(w)) / largest, w > 0, place[source, j], place[layer, i])
            for (i, j), w in np.ndenumerate(block)
            if (source, j) in place and (layer, i) in place and abs(w) > _FAINTEST * largest
        ]
        edges.sort(key=lambda edge: edge[0])
        axes.add_collection(
            collections.LineCollection(
                [[a, b] for _, _, a, b in edges],
                colors=[BLUE if up else ORANGE for _, up, _, _ in edges],
                linewidths=[_THINNEST + (_WIDEST - _THINNEST) * size for size, *_ in edges],
                linestyles="-" if source == layer - 1 else "--",
                alpha=0.75 if source == layer - 1 else 0.45,
                zorder=1,
            )
        )


def _draw_units(
    axes: Any, place: dict[tuple[int, int], tuple[float, float]], layer: int,
    units: NDArray[np.intp], numbers: Floats, known: bool,
) -> None:  # fmt: skip
    """Draw circles, tinted by a number's sign and size, with the number in them."""
    patches: Any = require_extra("matplotlib.patches", "plots")
    colors: Any = require_extra("matplotlib.colors", "plots")
    largest = float(np.abs(numbers).max(initial=0.0)) or 1.0
    for unit in units:
        x, y = place[layer, int(unit)]
        number = float(numbers[unit])
        tint = np.array(colors.to_rgb(BLUE if number > 0 else ORANGE))
        strength = 0.55 * abs(number) / largest if known else 0.0
        axes.add_patch(
            patches.Circle(
                (x, y),
                _RADIUS,
                facecolor=1.0 - strength * (1.0 - tint),
                edgecolor=INK,
                lw=1.0,
                zorder=2,
            )
        )
        if known:
            text = f"{number:.2g}".replace("-", "−")
            axes.text(x, y, text, ha="center", va="center", fontsize=7, zorder=3)
