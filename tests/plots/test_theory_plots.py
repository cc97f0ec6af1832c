"""Figures of activations, health and what was learned: drawn, labelled, from whatever arrays."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lamina.plots.activations import plot_activation, plot_activations
from lamina.plots.boundary import plot_line, plot_plane
from lamina.plots.diagram import plot_network
from lamina.plots.features import plot_features
from lamina.plots.health import plot_health, plot_health_curves
from lamina.plots.hidden import plot_hidden
from lamina.plots.images import plot_components, plot_images
from lamina.plots.style import to_svg

EVIL = "<script>alert('$x_{$')</script>&\x00\x1b[31m\n城市"
Z = np.linspace(-2.0, 2.0, 9)
NAN = float("nan")

FIGURES: dict[str, Callable[[], Any]] = {
    "activation": lambda: plot_activation(EVIL, Z, np.tanh(Z), 1 - np.tanh(Z) ** 2, flat=(-1, 1)),
    "activations": lambda: plot_activations([EVIL, *"abcde"], Z, [Z] * 6, [np.ones(9)] * 6),
    "one activation": lambda: plot_activations(["a"], Z, [Z], [np.ones(9)]),
    "health": lambda: plot_health(
        [EVIL, "2\nrelu"], np.array([1.0, 0.0]), np.array([NAN, 2.0]), {"dead": np.array([0.0, 1])}
    ),
    "no health": lambda: plot_health(["1"], np.zeros(1), np.array([NAN]), {}),
    "curves": lambda: plot_health_curves(
        np.arange(3), {EVIL: np.ones((3, 2)), "b": np.full((3, 2), NAN), "c": np.zeros((3, 2))},
        log=(EVIL, "b", "c"),
    ),
    "features": lambda: plot_features(
        [EVIL, "1\ntanh"], np.array([4.0, 8]), np.array([2.0, 3]), np.array([NAN, 0.1]),
        np.array([0.5, 1.0]), score_name=EVIL,
    ),
    "ranks": lambda: plot_features(["0"], np.ones(1), np.ones(1), np.array([NAN]), np.array([NAN])),
    "line of a probability": lambda: plot_line(
        Z, Z / 4 + 0.5, Z, EVIL, kind="probability", level=0.5, labels=np.resize([EVIL, "b"], 9),
        classes=(EVIL, "b"), crossings=np.zeros(1), held=EVIL,
    ),
    "line of classes": lambda: plot_line(
        Z, np.sign(Z) + 1, Z, "x", kind="classes", level=None, classes=(0, 1, 2)
    ),
    "plane of classes": lambda: plot_plane(
        Z, Z, np.tile(np.sign(Z) + 1, (9, 1)), np.zeros((3, 2)), (EVIL, "b"), kind="classes",
        level=None, labels=np.array([EVIL, "b", "c"]), classes=(EVIL, "b", "c"),
    ),
    "plane of numbers": lambda: plot_plane(
        Z, Z, np.tile(Z, (9, 1)), np.zeros((20, 2)), "ab", kind="number", level=None,
        labels=np.arange(20.0),
    ),
    "flat plane": lambda: plot_plane(
        Z, Z, np.ones((9, 9)), np.zeros((2, 2)), "ab", kind="number", level=1.0
    ),
    "hidden": lambda: plot_hidden(
        np.eye(2), np.eye(2), [np.eye(2)] * 2, [np.eye(2)] * 2, boundary=[np.eye(2)],
        readout=(np.ones(2), -1.0), labels=np.array([EVIL, "b"]),
    ),
    "nothing hidden": lambda: plot_hidden(
        np.eye(2), np.zeros((2, 2)), [], [], readout=(np.zeros(2), 1.0), explained=0.5
    ),
    "components": lambda: plot_components(np.array([1.0, -2.0]), [EVIL, "b"], title=EVIL),
    "zero weights": lambda: plot_network(
        (2, 1), [np.zeros((1, 2))], [np.zeros(1)], sources=[(0,)], functions=["input", EVIL],
        names=([EVIL, "b"], [EVIL]),
    ),
    "images": lambda: plot_images(np.zeros((3, 2, 2)), [EVIL, "b", "c"], title=EVIL),
    "colours": lambda: plot_images(np.ones((1, 3, 2, 2)), ["a"], title="a"),
    "channels": lambda: plot_images(np.ones((1, 4, 2, 2)), ["a"], title="a", shared=False),
}  # fmt: skip
NO_AXES = ("zero weights", "images", "colours", "channels")  # drawings, and pictures


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_title_and_labels_and_is_written_from_any_names(name: str) -> None:
    figure = FIGURES[name]()
    assert figure.axes[0].get_title(loc="left") or figure.get_suptitle()
    assert name in NO_AXES or any(a.get_xlabel() for a in figure.axes)
    svg = to_svg(figure)
    root = ET.fromstring(svg)  # well-formed whatever the names are
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    assert svg == to_svg(FIGURES[name]())  # the same arrays, the same bytes


def test_an_activation_is_drawn_with_a_gap_where_it_jumps() -> None:
    z = np.linspace(-1, 1, 201)
    figure = plot_activation("step", z, np.heaviside(z, 1.0), np.zeros_like(z), flat=(0, 0))
    curve = next(c for c in figure.axes[0].lines if c.get_label() == "phi(z)").get_ydata()
    assert np.flatnonzero(np.isnan(curve)).tolist() == [100]
    assert len(figure.axes[0].patches) == 2  # saturated on either side


def test_colours_span_what_they_are_told_to() -> None:
    image = np.stack([np.full((2, 2), v) for v in (-1.0, 0.0, 1.0)])[np.newaxis]
    shown = plot_images(image, ["a"], title="a", span=(-1.0, 1.0)).axes[0].images[0].get_array()
    assert np.asarray(shown)[0, 0].tolist() == [0.0, 0.5, 1.0]


def test_logarithmic_axes_write_plain_numbers() -> None:
    figure = plot_health(list("abc"), np.array([1.0, 0.1, 0.001]), np.ones(3), {})
    figure.draw_without_rendering()
    axis = figure.axes[0].yaxis
    texts = [t.get_text() for t in axis.get_ticklabels(minor=False)]
    assert "0.01" in texts
    assert not any("$" in t or "e" in t for t in texts)
