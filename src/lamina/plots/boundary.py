"""What a model says along a line or over a plane, with the rows it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import require_extra
from lamina.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    new_figure,
    plain,
    styled,
    write_numbers_out,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
_COLOURS = (ORANGE, BLUE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#8C564B", "#999933")
_MARKS = "soD^vPX<"
_MOST_POINTS = 3_000
_MOST_NAMED = 12  # classes in the legend


@styled
def plot_line(
    u: Floats,
    values: Floats,
    points: Floats,
    name: str,
    *,
    kind: str,
    level: float | None,
    labels: NDArray[Any] | None = None,
    classes: Sequence[Any] = (),
    crossings: Floats | None = None,
    held: str = "",
) -> Figure:
    """Return a figure of a model's values along one column.

    Parameters
    ----------
    u, values : (n_u,) float64
    points : (n,) float64
        The rows' column: at their label where that is a number or one of `classes`, else below.
    name : str
        Of the column.
    kind : {"number", "probability", "classes"}
    level : float or None
    labels : (n,) or None
    classes : sequence
    crossings : (k,) float64, optional
        Where the value crosses the level.
    held : str
        What other columns are.
    """
    figure, axes = new_figure()
    at = _heights(labels, kind, classes)
    few = np.random.default_rng(0).permutation(len(points))[:_MOST_POINTS]
    if at is None:
        axes.plot(points[few], np.zeros(len(few)), "|", color=GREY, ms=9, clip_on=False,
                  transform=axes.get_xaxis_transform(), label="rows")  # fmt: skip
    else:
        axes.plot(points[few], at[few], ".", color=GREY, ms=5, alpha=0.6, label="rows")
    axes.plot(u, values, color=BLUE, lw=2.2, label="model",
              drawstyle="steps-mid" if kind == "classes" else "default")  # fmt: skip
    if level is not None:
        axes.axhline(level, color=GREY, lw=1, ls=(0, (4, 3)))
    for k, place in enumerate(np.array([]) if crossings is None else crossings):
        axes.axvline(place, color=ORANGE, lw=1.2, label="boundary" if k == 0 else None)
    if kind == "classes" and len(classes):
        axes.set_yticks(range(len(classes)), [plain(c, 16) for c in classes])
    second = len(classes) == 2 and kind == "probability"
    number = {"number": "prediction", "classes": "class"}.get(kind, kind)
    axes.set_ylabel(f"probability of {plain(classes[1], 24)}" if second else number)
    axes.set_xlabel(plain(name))
    axes.set_title(_title("Along one column", held))
    write_numbers_out(axes.xaxis)
    axes.grid()
    axes.legend()
    return figure


@styled
def plot_plane(
    u: Floats,
    v: Floats,
    values: Floats,
    points: Floats,
    names: Sequence[str],
    *,
    kind: str,
    level: float | None,
    labels: NDArray[Any] | None = None,
    classes: Sequence[Any] = (),
    held: str = "",
) -> Figure:
    """Return a figure of a model's values over two columns, or over a plane.

    Parameters
    ----------
    u, v : (n_u,), (n_v,) float64
    values : (n_v, n_u) float64
        Numbers, probabilities, or places among `classes`.
    points : (n, 2) float64
    names : two str
    kind, level, labels, classes, held
        As for `plot_line`.
    """
    figure, axes = new_figure(6.4, 4.8)
    if kind == "classes":
        _areas(axes, u, v, values, len(classes))
    else:
        _landscape(figure, axes, u, v, values, kind, level, classes)
    _rows(figure, axes, points, labels, kind, classes, values)
    if level is not None and values.min() < level < values.max():
        axes.contour(u, v, values, [level], colors=INK, linewidths=1.6)
    axes.set(xlim=(u[0], u[-1]), ylim=(v[0], v[-1]))
    axes.set_xlabel(plain(names[0]))
    axes.set_ylabel(plain(names[1]))
    axes.set_title(_title("Decision boundary" if kind != "number" else "Prediction", held))
    write_numbers_out(axes.xaxis, axes.yaxis)
    return figure


def _areas(axes: Any, u: Floats, v: Floats, values: Floats, n_classes: int) -> None:
    """Fill the area of each class, and draw where one ends."""
    colors: Any = require_extra("matplotlib.colors", "plots")
    paint = colors.ListedColormap([_COLOURS[k % len(_COLOURS)] for k in range(max(n_classes, 1))])
    most = max(n_classes, 1) - 0.5
    axes.pcolormesh(u, v, values, cmap=paint, vmin=-0.5, vmax=most, alpha=0.28, rasterized=True)
    for k in range(n_classes):
        inside = (values == k).astype(float)
        if 0 < inside.mean() < 1:
            axes.contour(u, v, inside, [0.5], colors=INK, linewidths=0.9)


def _landscape(
    figure: Figure, axes: Any, u: Floats, v: Floats, values: Floats, kind: str,
    level: float | None, classes: Sequence[Any],
) -> None:  # fmt: skip
    """Paint numbers; from orange to blue where a level divides them."""
    low, high = (0.0, 1.0) if kind == "probability" else (float(values.min()), float(values.max()))
    paint: Any = "cividis"
    if level is not None:
        colors: Any = require_extra("matplotlib.colors", "plots")
        paint = colors.LinearSegmentedColormap.from_list("sides", [ORANGE, "#FFFFFF", BLUE])
        reach = max(high - level, level - low) or 1.0
        low, high = level - reach, level + reach
    image = axes.pcolormesh(
        u, v, values, cmap=paint, vmin=low, vmax=high, alpha=0.6, rasterized=True
    )
    bar = figure.colorbar(image, ax=axes)
    second = len(classes) == 2 and kind == "probability"
    number = "prediction" if kind == "number" else kind
    bar.set_label(f"probability of {plain(classes[1], 24)}" if second else number)
    bar.outline.set_visible(False)


def _rows(
    figure: Figure, axes: Any, points: Floats, labels: NDArray[Any] | None, kind: str,
    classes: Sequence[Any], values: Floats,
) -> None:  # fmt: skip
    few = np.random.default_rng(0).permutation(len(points))[:_MOST_POINTS]
    size = 30 if len(points) < 50 else 16 if len(points) < 500 else 8
    if labels is None:
        axes.scatter(*points[few].T, s=size, color=INK, lw=0, alpha=0.5)
        return
    different = sorted(set(labels.tolist()), key=str)
    if len(different) > _MOST_NAMED or (kind == "number" and len(different) > len(_COLOURS)):
        if labels.dtype.kind in "fiu":
            low, high = float(values.min()), float(values.max())
            axes.scatter(*points[few].T, c=labels[few].astype(float), s=size, cmap="cividis",
                         vmin=low, vmax=high, edgecolors="white", lw=0.4)  # fmt: skip
        else:
            axes.scatter(*points[few].T, s=size, color=INK, lw=0, alpha=0.5)
        return
    order = [c for c in classes if c in different] if classes else []
    order += [c for c in different if c not in order]
    for label in order:
        k = list(classes).index(label) if label in classes else order.index(label)
        rows = few[labels[few] == label]
        axes.scatter(*points[rows].T, s=size, color=_COLOURS[k % len(_COLOURS)],
                     marker=_MARKS[k % len(_MARKS)], edgecolors="white", lw=0.5,
                     label=plain(label, 20))  # fmt: skip
    figure.legend(loc="outside right upper", markerscale=1.3)


def _heights(labels: NDArray[Any] | None, kind: str, classes: Sequence[Any]) -> Floats | None:
    """Where rows are drawn: at their number, or at the place of their class."""
    if labels is None:
        return None
    if len(classes) and kind != "number":
        place = {label: float(k) for k, label in enumerate(classes)}
        return np.array([place.get(label, np.nan) for label in labels.tolist()])
    return labels.astype(np.float64) if labels.dtype.kind in "fiub" else None


def _title(what: str, held: str) -> str:
    return f"{what}\n{plain(held, 70)}" if held else what
