"""Networks as diagrams: the units of a circuit, and a network's layers before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.plots.style import BLUE, GREY, INK, ORANGE, PALE, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Place = tuple[int, int]
MOST_LABELLED = 24  # edges with their weights written beside them
MOST_MARKED = 80  # those other than 1 and -1
WIDE = 2.0  # from layer to layer, where units are 1 apart
TALLEST = 14.0  # inches


@styled
def plot_circuit(
    nodes: Sequence[Sequence[tuple[str, str]]],
    edges: Sequence[tuple[Place, Place, float]],
    *,
    title: str = "circuit",
) -> Figure:
    """Return a diagram of threshold units, layer by layer from left to right.

    Parameters
    ----------
    nodes : one sequence a layer, inputs first, of (name, text inside)
    edges : sequence of ((layer, i), (layer, i), weight)
        From and to. Blue is positive, orange negative. Weights stand beside up to 24 edges, and
        those other than 1 and -1 beside up to 80.
    title : str
    """
    tall = max(len(layer) for layer in nodes)
    height = min(TALLEST, max(3.0, 0.72 * tall + 1.2))
    figure, axes = new_figure(min(16.0, max(5.5, 2.7 * len(nodes) - 1.0)), height)
    at = {
        (layer, i): (WIDE * layer, (len(names) - 1) / 2 - i)
        for layer, names in enumerate(nodes)
        for i in range(len(names))
    }
    every = len(edges) <= MOST_LABELLED
    some = sum(abs(w) != 1 for _, _, w in edges) <= MOST_MARKED
    for source, target, weight in edges:
        label = every or (some and abs(weight) != 1)
        _draw_edge(axes, at[source], at[target], weight, label, len(edges) <= 200)
    for place, (x, y) in at.items():
        name, inside = nodes[place[0]][place[1]]
        _draw_node(axes, x, y, plain(name, 12), inside, tall <= 16, place[0] == 0)
    last = len(nodes) - 1
    for layer in range(len(nodes)):
        what = "inputs" if layer == 0 else "outputs" if layer == last else f"layer {layer}"
        axes.annotate(
            what, (WIDE * layer, -(tall - 1) / 2 - 0.85), ha="center", color=GREY, fontsize=9
        )
    axes.set_xlim(-0.6, WIDE * last + 0.6)
    axes.set_ylim(-(tall - 1) / 2 - 1.0, (tall - 1) / 2 + 0.7)
    axes.set_title(plain(title, 60))
    told = "" if every else "; edges without a number: ±1" if some else ""
    axes.set_xlabel(f"a unit is 1 where its sum reaches the number in it; blue +, orange −{told}")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _draw_edge(
    axes: Any,
    start: tuple[float, float],
    end: tuple[float, float],
    weight: float,
    label: bool,
    strong: bool,
) -> None:
    """Draw a line, or a curve around the layers between."""
    color = BLUE if weight > 0 else ORANGE
    layers = round((end[0] - start[0]) / WIDE)
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    side = 1.0 if middle[1] >= 0 else -1.0
    bend = (middle[0], middle[1] + side * 0.5 * (layers - 1))
    t = np.linspace(0.0, 1.0, 2 if layers == 1 else 30)
    x = (1 - t) ** 2 * start[0] + 2 * t * (1 - t) * bend[0] + t**2 * end[0]
    y = (1 - t) ** 2 * start[1] + 2 * t * (1 - t) * bend[1] + t**2 * end[1]
    width = min(3.0, 0.9 + 0.3 * abs(weight)) if strong else 0.5
    axes.plot(x, y, color=color, lw=width, alpha=0.85 if strong else 0.35, zorder=1)
    if label:
        share = 1 - 0.32 / layers  # nearer to the unit that reads, where edges lie apart
        axes.text(
            float((1 - share) ** 2 * start[0] + 2 * share * (1 - share) * bend[0])
            + share**2 * end[0],
            float((1 - share) ** 2 * start[1] + 2 * share * (1 - share) * bend[1])
            + share**2 * end[1],
            f"{weight:+g}".replace("-", "−"),
            color=color,
            fontsize=8,
            ha="center",
            va="center",
            zorder=2,
            bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.85},
        )


def _draw_node(
    axes: Any, x: float, y: float, name: str, inside: str, large: bool, is_input: bool
) -> None:
    """Draw a unit with its threshold, or an input."""
    shape, size = "s" if is_input else "o", 27 if large else 7
    fill = "white" if is_input else "#F4F4F4"
    axes.plot([x], [y], shape, ms=size, mfc=fill, mec=INK, mew=1.0, zorder=3)
    if is_input and large:
        axes.text(x, y, name, ha="center", va="center", fontsize=9, zorder=4)
    elif is_input:
        axes.text(x - 0.09, y, name, ha="right", va="center", fontsize=8, zorder=4)
    elif large:
        axes.text(x, y, inside, ha="center", va="center", fontsize=8, zorder=4)
        axes.text(
            x, y + 0.4, name, ha="center", va="center", fontsize=9, zorder=4,
            bbox={"boxstyle": "round,pad=0.05", "fc": "white", "ec": "none", "alpha": 0.85},
        )  # fmt: skip


@styled
def plot_layers(
    networks: Sequence[tuple[Sequence[int], Sequence[str], int]], *, folded: Sequence[int] = ()
) -> Figure:
    """Return a network's layers as bars, before and after linear ones were folded.

    Parameters
    ----------
    networks : two of (widths from the input on, what each layer is, parameters)
    folded : sequence of int
        The layers of the first that the second lacks.
    """
    figure, axes = new_figure(7.2, 3.6)
    most = max(max(widths) for widths, _, _ in networks)
    for row, (widths, names, n_params) in enumerate(networks):
        for layer, (width, name) in enumerate(zip(widths, names, strict=True)):
            gone = row == 0 and layer in folded
            height = 0.15 + 0.55 * width / most
            axes.bar(
                layer, height, 0.55, bottom=1.0 - row - height / 2, color=PALE if gone else BLUE,
                edgecolor=GREY, hatch="//" if gone else None,
            )  # fmt: skip
            axes.text(
                layer, 1.0 - row - 0.47, f"{width}\n{plain(name, 12)}", ha="center", va="center",
                fontsize=8, color=GREY if gone else INK,
            )  # fmt: skip
        what = f"{'before' if row == 0 else 'after'}\n{n_params:,}\nparameters"
        axes.text(-0.6, 1.0 - row, what, ha="right", va="center", fontsize=9)
    longest = max(len(widths) for widths, _, _ in networks)
    axes.set_xlim(-1.6, longest - 0.4)
    axes.set_ylim(-0.7, 1.5)
    n = len(folded)
    axes.set_title(f"{n} linear hidden layer{'' if n == 1 else 's'} folded")
    axes.set_xlabel("layers from input to output; hatched: without a non-linearity")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure
