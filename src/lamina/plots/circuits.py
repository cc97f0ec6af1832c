"""Networks as diagrams: the units of a circuit, and a network's layers before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lamina.plots.style import BLUE, GREY, INK, ORANGE, PALE, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Place = tuple[int, int]
MOST_LABELLED = 60  # edges with their weights written beside them
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
        From and to. Blue is positive, orange negative.
    title : str
    """
    tall = max(len(layer) for layer in nodes)
    height = min(TALLEST, max(2.8, 0.75 * tall + 1.0))
    figure, axes = new_figure(min(16.0, max(4.5, 2.0 * len(nodes))), height)
    wide = 1.9
    at = {
        (layer, i): (wide * layer, (len(names) - 1) / 2 - i)
        for layer, names in enumerate(nodes)
        for i in range(len(names))
    }
    few = len(edges) <= MOST_LABELLED
    for source, target, weight in edges:
        _draw_edge(axes, at[source], at[target], weight, few, target[0] - source[0] > 1)
    size = 0.30 if tall <= 18 else 0.42
    for place, (x, y) in at.items():
        name, inside = nodes[place[0]][place[1]]
        _draw_node(axes, x, y, plain(name, 12), inside, size, place[0] == 0)
    last = len(nodes) - 1
    for layer in range(len(nodes)):
        what = "inputs" if layer == 0 else "outputs" if layer == last else f"layer {layer}"
        axes.annotate(
            what, (wide * layer, -(tall - 1) / 2 - 0.75), ha="center", color=GREY, fontsize=9
        )
    axes.set_xlim(-0.6, wide * last + 0.6)
    axes.set_ylim(-(tall - 1) / 2 - 1.0, (tall - 1) / 2 + 0.6)
    axes.set_title(plain(title, 60))
    axes.set_xlabel("a unit is 1 where its sum reaches the number in it; blue +, orange −")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _draw_edge(
    axes: Any, start: tuple[float, float], end: tuple[float, float], weight: float, label: bool,
    far: bool,
) -> None:  # fmt: skip
    color = BLUE if weight > 0 else ORANGE
    bend = 0.18 if far else 0.0
    axes.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-",
            "color": color,
            "lw": min(3.0, 0.9 + 0.35 * abs(weight)) if label else 0.5,
            "alpha": 0.9 if label else 0.35,
            "connectionstyle": f"arc3,rad={bend}",
        },
        zorder=1,
    )
    if label:
        share = 0.68  # nearer to the unit that reads, where edges lie apart
        x = start[0] + share * (end[0] - start[0])
        y = start[1] + share * (end[1] - start[1]) - bend * 0.4 * (end[0] - start[0])
        axes.text(
            x, y, f"{weight:+g}".replace("-", "−"), color=color, fontsize=8, ha="center",
            va="center", zorder=2,
            bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.85},
        )  # fmt: skip


def _draw_node(
    axes: Any, x: float, y: float, name: str, inside: str, size: float, is_input: bool
) -> None:
    axes.plot(
        [x], [y], "s" if is_input else "o", ms=27 if size < 0.4 else 8, mfc="white" if is_input else
        "#F4F4F4", mec=INK, mew=1.0, zorder=3,
    )  # fmt: skip
    if is_input:
        axes.text(x, y, name, ha="center", va="center", fontsize=9, zorder=4)
        return
    if size < 0.4:
        axes.text(x, y, inside, ha="center", va="center", fontsize=8, zorder=4)
        axes.text(x, y + 0.27, name, ha="center", va="bottom", fontsize=9, zorder=4)


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
