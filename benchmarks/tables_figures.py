"""The figures of benchmarks/tables_page.py, in the style of lamina's plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tables_summary import REFERENCE

from lamina.plots.style import GREY, INK, PALE, new_figure, plain, styled, use_log_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Ours in blues, from light to dark; peers by colours and markers that nobody confuses with them.
LOOKS = {
    "lamina-fast": ("#56B4E9", "o"),
    "lamina": ("#0072B2", "o"),
    "lamina-best": ("#08306B", "o"),
    "hgb": (GREY, "|"),
    "mlp": ("#8C6D46", "v"),
    "lightgbm": ("#009E73", "s"),
    "xgboost": ("#D55E00", "^"),
    "catboost": ("#AA4499", "D"),
    "realmlp-td": (INK, "X"),
    "tabm-d": ("#CC9900", "P"),
}
FAR = 6.0  # times the reference's error, or its part: what is farther off is drawn at the edge


def look(method: str) -> tuple[str, str]:
    """Return a method's colour and marker."""
    return LOOKS.get(method, (GREY, "*"))


@styled
def plot_scores(tables: list[str], methods: list[str], ratio: np.ndarray) -> Figure:
    """Return a figure of each method's error over the reference's, a line a table.

    Parameters
    ----------
    tables, methods : list of str
    ratio : (n_methods, n_tables)
        NaN where there is none.
    """
    figure, axes = new_figure(9.6, 1.5 + 0.36 * len(tables))
    first = methods.index("lamina") if "lamina" in methods else 0
    order = np.argsort(np.nan_to_num(ratio[first], nan=np.inf))[::-1]
    height = np.arange(len(tables), dtype=float)
    axes.hlines(height, 1 / FAR, FAR, color=PALE, lw=0.8, zorder=0)
    axes.axvline(1.0, color=GREY, lw=1.2, label=REFERENCE)
    peers = [m for m in methods if not m.startswith("lamina")]
    for method in [*peers, *(m for m in methods if m.startswith("lamina"))]:
        if method == REFERENCE:
            continue
        colour, marker = look(method)
        ours = method.startswith("lamina")
        values = np.clip(ratio[methods.index(method)][order], 1 / FAR, FAR)
        size = 64 if ours else 40
        axes.scatter(
            values, height, s=size, marker=marker, color=colour, alpha=0.95, lw=0, label=method,
            zorder=3 if ours else 2,
        )  # fmt: skip
    use_log_scale(axes.xaxis)
    low, high = np.nanmin(ratio), np.nanmax(ratio)
    axes.set_xlim(max(low, 1 / FAR) / 1.12, min(high, FAR) * 1.12)
    axes.set_yticks(height, [plain(tables[i]) for i in order])
    axes.set_ylim(-0.7, len(tables) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"error over {REFERENCE}'s on the same rows (left is better)")
    figure.legend(loc="outside upper center", ncols=min(len(methods), 9), handletextpad=0.2)
    return figure


@styled
def plot_costs(rows: list[dict[str, Any]], key: str, label: str) -> Figure:
    """Return a figure of the score against a cost, a point a method, with what nobody beats.

    Parameters
    ----------
    rows : of `summarise`
    key : str
        The cost's.
    label : str
        Of the axis.
    """
    figure, axes = new_figure(6.6, 4.6)
    axes.axhline(1.0, color=PALE, lw=1.0, zorder=0)
    for row in rows:
        colour, marker = look(row["method"])
        off = np.abs(np.array(row["interval"])[:, np.newaxis] - row["score"])
        axes.errorbar(
            row[key], row["score"], yerr=off, fmt="o" if marker == "|" else marker, ms=8,
            color=colour, lw=1.0, capsize=2,
        )  # fmt: skip
        axes.annotate(
            row["method"], (row[key], row["score"]), (7, 5), textcoords="offset points",
            color=colour, fontsize=9.5, fontweight="bold" if row["method"] == "lamina" else None,
        )  # fmt: skip
    front = pareto([(row[key], row["score"]) for row in rows])
    axes.step(*zip(*front, strict=True), where="post", color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    use_log_scale(axes.xaxis)
    use_log_scale(axes.yaxis)
    costs = [row[key] for row in rows]
    axes.set_xlim(min(costs) / 1.6, max(costs) * 3.0)
    axes.set_xlabel(label)
    axes.set_ylabel(f"error over {REFERENCE}'s, geometric mean")
    axes.grid(axis="y")
    return figure


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, error) that no other point beats in both, by cost."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front
