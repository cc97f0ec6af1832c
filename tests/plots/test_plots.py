"""Figures: what is drawn, with which labels, from any names; what is said without matplotlib."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lamina.core.errors import MissingExtraError
from lamina.plots.dependence import plot_dependence, plot_dependence_map
from lamina.plots.explanations import plot_attributions, plot_importances
from lamina.plots.learning import plot_learning_curves
from lamina.plots.scores import plot_calibration, plot_confusion, plot_residuals
from lamina.plots.style import plain, to_png, to_svg

EVIL = "<script>alert('$x_{$')</script>&\x00\x1b[31m\n城市"
GRID = np.linspace(0.0, 1.0, 5)


def normal(shape: Any) -> Any:
    return np.random.default_rng(0).normal(size=shape)


FIGURES: dict[str, Callable[[], Any]] = {
    "learning": lambda: plot_learning_curves(
        [[9.0, 2, 1, 0.9], [8.0, 2, 1]], [[3.0, 2, 1.5, 1.6], []], [3, 1], loss=EVIL
    ),
    "no curves": lambda: plot_learning_curves([], [], []),
    "calibration": lambda: plot_calibration(
        GRID, GRID, (GRID - 0.1, GRID + 0.1), np.full(5, 20), what=EVIL, error=0.0123
    ),
    "confusion": lambda: plot_confusion(np.array([[8, 2], [0, 0]]), [EVIL, "b"]),
    "many classes": lambda: plot_confusion(np.eye(20, dtype=int), [f"c{i}" for i in range(20)]),
    "residuals": lambda: plot_residuals(normal(300), normal(300), target=EVIL),
    "two residuals": lambda: plot_residuals(np.arange(2.0), np.arange(2.0)),
    "importances": lambda: plot_importances(
        [EVIL, *"abcdef"], np.arange(7.0), np.full(7, np.nan), loss="log loss", most=3
    ),
    "attributions": lambda: plot_attributions(
        [EVIL, *"abcdef"], [EVIL, *"123456"], np.linspace(-1, 1, 7), 2.0, 2.0, most=3
    ),
    "nothing attributed": lambda: plot_attributions(["a"], ["1"], np.zeros(1), 0.0, 0.0),
    "numbers": lambda: plot_dependence(EVIL, GRID, GRID, np.tile(GRID, (80, 1)), output=EVIL),
    "dates": lambda: plot_dependence(
        "day", np.datetime64("2020-01-01T00:00:00") + 86400 * np.arange(5), GRID
    ),
    "levels": lambda: plot_dependence("c", np.array([EVIL, "b"], object), GRID[:2], GRID[None, :2]),
    "map": lambda: plot_dependence_map(
        [EVIL, "day"],
        [np.array([EVIL, "b"], object), np.datetime64("2020-01-01T00:00:00") + np.arange(5)],
        normal((2, 5)),
        output="prediction",
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_title_and_labels_and_is_written_from_any_names(name: str) -> None:
    figure = FIGURES[name]()
    axes = figure.axes[0]
    assert axes.get_title(loc="left")
    assert axes.get_xlabel()
    svg = to_svg(figure)
    root = ET.fromstring(svg)  # well-formed whatever the names are
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    assert svg == to_svg(FIGURES[name]())  # the same arrays, the same bytes
    assert to_png(figure, 40).startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


def test_importances_are_drawn_from_the_largest_down() -> None:
    figure = plot_importances(["a", "b", "c"], np.array([1.0, 3, 2]), np.zeros(3), most=2)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["c", "b"]  # from the bottom
    assert [bar.get_width() for bar in axes.patches] == [2.0, 3.0]
    assert axes.get_title(loc="left") == "Importance (the first 2 of 3 columns)"


def test_attributions_lead_from_the_baseline_to_the_prediction() -> None:
    values = np.array([0.5, -2.0, 0.25, 0.125])
    figure = plot_attributions(list("abcd"), list("wxyz"), values, 1.0, -0.125, most=2)
    axes = figure.axes[0]
    bars = axes.patches
    assert [t.get_text() for t in axes.get_yticklabels()] == ["b = x", "a = w", "2 other columns"]
    assert [bar.get_width() for bar in bars] == [-2.0, 0.5, 0.375]
    assert bars[0].get_x() == 1.0
    assert bars[-1].get_x() + bars[-1].get_width() == -0.125
    low, high = axes.get_xlim()
    assert low < -1.0
    assert high > 1.0


def test_confusion_shows_shares_and_counts() -> None:
    figure = plot_confusion(np.array([[75, 25], [0, 4]]), ["no", "yes"])
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == ["75%\n75", "25%\n25", "0%\n0", "100%\n4"]


def test_names_stay_plain() -> None:
    assert plain("a\nb\x1b") == "a\\nb\\x1b"
    assert plain("x" * 50, 10) == "x" * 9 + "…"


def test_the_users_style_is_neither_read_nor_changed() -> None:
    import matplotlib as mpl

    before = to_svg(FIGURES["numbers"]())
    with mpl.rc_context({"axes.grid": True, "lines.linewidth": 9.0, "axes.facecolor": "black"}):
        assert to_svg(FIGURES["numbers"]()) == before
        assert mpl.rcParams["axes.facecolor"] == "black"


def test_without_matplotlib_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "lamina\[plots\]"'):
        FIGURES["numbers"]()
