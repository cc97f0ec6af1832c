"""Two classes and the line between them, or the point that their convex hulls share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.plots.style import BLUE, GREY, INK, ORANGE, PALE, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
_MOST_POINTS = 4_000  # a class; more only blacken the picture


@styled
def plot_line(
    x: Floats,
    positive: NDArray[np.bool_],
    weights: Sequence[float],
    bias: float,
    margin: float,
    *,
    classes: Sequence[object] = ("0", "1"),
    names: Sequence[object] = ("x1", "x2"),
) -> Figure:
    """Return a figure of two classes in the plane, the line between them and its margin.

    Parameters
    ----------
    x : array (n, 2)
    positive : array (n,) of bool
    weights, bias : two numbers, a number
        The line is ``weights·x + bias = 0``.
    margin : float
        The distance of the nearest point: a band of twice that width is empty.
    classes, names : sequence of two
        The labels of the negative and the positive class; of the axes.
    """
    figure, axes = new_figure(5.6, 4.8)
    w = np.asarray(weights, np.float64)
    normal = w / np.linalg.norm(w)
    _window(axes, x)
    centre = x.mean(axis=0)
    foot = centre - (w @ centre + bias) / np.linalg.norm(w) * normal
    along = np.array([-normal[1], normal[0]])
    axes.axline(foot, foot + along, color=INK, lw=1.4, label="w·x + b = 0")
    for side in (-1, 1):
        edge = foot + side * margin * normal
        label = f"margin {margin:.4g}" if side == 1 else None
        axes.axline(edge, edge + along, color=GREY, lw=0.9, ls="--", label=label)
    _classes(axes, x, positive, classes)
    _name(axes, names, "A line separates the classes")
    return figure


@styled
def plot_common_point(
    x: Floats,
    positive: NDArray[np.bool_],
    mix: Floats,
    point: Sequence[float],
    *,
    classes: Sequence[object] = ("0", "1"),
    names: Sequence[object] = ("x1", "x2"),
) -> Figure:
    """Return a figure of two convex hulls and a point that both hold.

    Parameters
    ----------
    x : array (n, 2)
    positive : array (n,) of bool
    mix : array (n,)
        The convex weights of each class's rows, zero for most.
    point : two numbers
        What both mixes give.
    classes, names : sequence of two
        The labels of the negative and the positive class; of the axes.
    """
    figure, axes = new_figure(5.6, 4.8)
    _window(axes, x)
    for mask, color in ((~positive, ORANGE), (positive, BLUE)):
        corners = convex_hull(x[mask])
        axes.fill(*corners.T, facecolor=color, alpha=0.12, edgecolor=color, lw=1.0)
        for row, weight in zip(x[mask], mix[mask], strict=True):
            if weight > 0:
                ends = np.vstack([row, point])
                axes.plot(*ends.T, color=color, lw=0.6 + 2.4 * float(weight))
    _classes(axes, x, positive, classes)
    axes.plot(*point, "X", ms=11, color=INK, mec="white", label="a point of both hulls", zorder=5)
    _name(axes, names, "The convex hulls of the classes share a point")
    return figure


@styled
def plot_distances(
    distances: Floats, positive: NDArray[np.bool_], *, classes: Sequence[object] = ("0", "1")
) -> Figure:
    """Return a figure of the rows' signed distances from a hyperplane, for any dimension.

    Parameters
    ----------
    distances : array (n,)
        ``(w·x + b) / ‖w‖``.
    positive : array (n,) of bool
    classes : sequence of two
    """
    figure, axes = new_figure()
    bins = np.linspace(min(distances.min(), 0.0), max(distances.max(), 0.0), 61)
    for k, (mask, color) in enumerate(((~positive, ORANGE), (positive, BLUE))):
        label = f"{plain(classes[k])} ({int(mask.sum()):,} rows)"
        axes.hist(distances[mask], bins=bins.tolist(), color=color, alpha=0.75, label=label)
    axes.axvline(0.0, color=INK, lw=1.4)
    axes.set_title("On its own side of the hyperplane: every row")
    axes.set_xlabel("signed distance from the hyperplane")
    axes.set_ylabel("rows")
    axes.legend()
    return figure


@styled
def plot_answers(labels: Sequence[object], separable: NDArray[np.bool_]) -> Figure:
    """Return a figure of which pairs of classes are linearly separable.

    Parameters
    ----------
    labels : sequence of k
    separable : array (k, k) of bool, symmetric; the diagonal does not count
    """
    k = len(labels)
    figure, axes = new_figure(1.8 + 0.42 * k + 1.6, 1.6 + 0.42 * k)
    for i in range(k):
        for j in range(k):
            color = PALE if i == j else (BLUE if separable[i, j] else ORANGE)
            axes.add_patch(_square(j, i, color))
    axes.set_xlim(-0.5, k - 0.5)
    axes.set_ylim(k - 0.5, -0.5)
    axes.set_aspect("equal")
    names = [plain(label, 16) for label in labels]
    axes.set_xticks(range(k), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(k), names)
    for color, label in ((BLUE, "separable"), (ORANGE, "not separable")):
        axes.plot([], [], "s", ms=8, color=color, label=label)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    axes.set_title("Pairs of classes and a hyperplane")
    return figure


def _square(x: int, y: int, color: str) -> Any:
    from lamina.core.errors import require_extra

    patches = require_extra("matplotlib.patches", "plots")
    return patches.Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, color=color, lw=0)


def convex_hull(x: Floats) -> Floats:
    """Return the corners of a planar point set's convex hull, counter-clockwise.

    References
    ----------
    Andrew 1979, "Another efficient algorithm for convex hulls in two dimensions".
    """
    rows = np.unique(x, axis=0).tolist()
    if len(rows) < 3:
        return np.array(rows)
    halves = []
    for order in (rows, rows[::-1]):
        half: list[list[float]] = []
        for c in order:
            while len(half) > 1 and _turn(half[-2], half[-1], c) <= 0:
                half.pop()
            half.append(c)
        halves.append(half[:-1])
    return np.array([*halves[0], *halves[1]])


def _turn(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _window(axes: Axes, x: Floats) -> None:
    """Show all points with room around; both axes to one scale unless that would flatten them."""
    low, high = x.min(axis=0), x.max(axis=0)
    size = np.where(high > low, high - low, 2.0)
    middle = (low + high) / 2
    if 0.2 < size[0] / size[1] < 5:
        size = np.full(2, size.max())
        axes.set_aspect("equal")
    axes.set_xlim(middle[0] - 0.6 * size[0], middle[0] + 0.6 * size[0])
    axes.set_ylim(middle[1] - 0.6 * size[1], middle[1] + 0.6 * size[1])


def _classes(axes: Axes, x: Floats, positive: NDArray[np.bool_], classes: Sequence[object]) -> None:
    marks = ((~positive, ORANGE, "s"), (positive, BLUE, "o"))
    for label, (mask, color, marker) in zip(classes, marks, strict=True):
        rows = x[mask][:: 1 + int(mask.sum()) // _MOST_POINTS]
        size = 7 if len(rows) < 40 else 4 if len(rows) < 400 else 2.5
        axes.plot(*rows.T, marker, ms=size, color=color, mec="white", mew=0.4, label=plain(label))


def _name(axes: Axes, names: Sequence[object], title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(plain(names[0]))
    axes.set_ylabel(plain(names[1]))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
