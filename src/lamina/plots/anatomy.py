"""Where a Transformer's parameters, arithmetic and time go: a bar a measure, a colour a role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lamina.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    new_figure,
    plain,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {
    "embedding": GREY,
    "attention": BLUE,
    "channel mixer": ORANGE,
    "norm": GREEN,
    "router": PURPLE,
    "head": "#56B4E9",
    "other": PALE,
}
_NARROW = 0.05  # a smaller part of a bar has no room for its share in words


@styled
def plot_anatomy(
    name: str, roles: Sequence[str], measures: Mapping[str, Sequence[float]]
) -> Figure:
    """Return a figure of each role's share of each measure.

    Parameters
    ----------
    name : str
        Of the model.
    roles : sequence of str
    measures : mapping of name to one number a role
        What is measured in any unit; shares are drawn.
    """
    figure, axes = new_figure(7.2, 1.5 + 0.62 * len(measures))
    for place, numbers in enumerate(measures.values()):
        whole, left = sum(numbers) or 1.0, 0.0
        for role, number in zip(roles, numbers, strict=True):
            share = number / whole
            label = plain(role) if place == 0 else None
            axes.barh(place, share, 0.62, left, color=_COLOURS.get(role, PALE), label=label)
            if share >= _NARROW:
                colour = INK if role == "other" else "white"
                text = f"{share:.0%}"
                middle = left + share / 2
                axes.text(middle, place, text, ha="center", va="center", color=colour, fontsize=9)
            left += share
    axes.set_yticks(range(len(measures)), [plain(measure) for measure in measures])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title(f"Anatomy of {plain(name)}")
    figure.legend(loc="outside lower center", ncols=len(roles))
    return figure
