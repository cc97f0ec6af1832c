"""Linear regions: closed forms, brute force by sampling, exact areas, bounds of the literature."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from tests.tolerances import assert_close, rounding

import lamina
from lamina import theory
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.theory.cells import area, cut, neighbours, vertex


def network(d: int, widths: tuple[int, ...], d_out: int = 1, **options: object) -> lamina.Network:
    net = lamina.Network(d, widths, d_out, rng=0, **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    for layer in range(len(widths) + 1):
        net.biases[layer] = 0.3 * rng.normal(size=net.biases[layer].shape)
    return net


def sawtooth(k: int) -> lamina.Network:
    """The tent map composed with itself k times (Telgarsky 2016): 2^k pieces on [0, 1]."""
    net = lamina.Network(1, (2,) * k, 1, rng=0)
    net.weights[0], net.biases[0] = [[1], [1]], [0, -0.5]
    for layer in range(1, k):
        net.weights[layer], net.biases[layer] = [[2, -4]] * 2, [0, -0.5]
    net.weights[k], net.biases[k] = [[2, -4]], [0]
    return net


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_sawtooth_has_two_to_the_depth_pieces(k: int):
    found = theory.regions_on_line(sawtooth(k), [0], [1])
    assert found.n_regions == found.n_pieces == 2**k
    assert found.breaks == tuple(Fraction(i, 2**k) for i in range(1, 2**k))
    assert np.array_equal(np.abs(found.slopes.ravel()), np.full(2**k, 2.0**k))


@pytest.mark.parametrize("n", [1, 4, 9])
def test_lines_in_general_position_cut_as_zaslavsky_says(n: int):
    angle = np.pi * (np.arange(n) + 0.3) / n
    net = lamina.Network(2, (n,), 1, rng=0)
    net.weights[0] = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    net.biases[0] = 0.1 * np.cos(3 * np.arange(n) + 1)
    found = theory.regions_in_window(net, ((-20, 20), (-20, 20)))
    assert found.n_regions == 1 + n + math.comb(n, 2)
    assert found.bounds[-1].value == found.n_regions


def test_lines_through_one_point_or_along_the_border_make_no_false_regions():
    net = lamina.Network(2, (4,), 1, rng=0)
    net.weights[0] = [[1, 0], [0, 1], [1, 1], [1, 0]]
    net.biases[0] = [0, 0, 0, 1]  # three through (0, 0); the last is the window's left side
    assert theory.regions_in_window(net).n_regions == 6
    net.biases[0] = [0, 0, 1e-7, 1]
    assert theory.regions_in_window(net).n_regions == 7  # one of them a millionth wide


NETWORKS = {
    "relu": {},
    "leaky_relu": {"activation": "leaky_relu"},
    "step": {"activation": "step"},
    "mixed": {"activation": ["relu", "identity", "leaky_relu"]},
    "residual": {"residual": True},
    "skips": {"skips": {2: (0,), 3: (0, 1), 4: (2,)}},
    "both": {"activation": "leaky_relu", "skips": {3: (0,)}, "residual": True, "dropout": 0.5},
    "jumps": {"activation": ["relu", "step", "relu"], "residual": True},
    "classes": {"output": "softmax"},
    "decision": {"output": "step"},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_regions_tile_the_window_and_know_every_sampled_pattern(name: str, dtype: str):
    net = network(3, (7, 7, 7), 2, dtype=dtype, **NETWORKS[name])
    found = theory.regions_in_window(net, ((-1, 2), (-2, 1)), axes=(2, 0), at=[0, 0.25, 0])
    assert sum(found.sizes()) == 9
    assert len(np.unique(found.patterns, axis=0)) == found.n_regions
    seen, unknown = found.sample(4000, seed=3)
    assert unknown == 0
    assert seen > found.n_regions // 3
    assert all(found.n_regions <= bound.value for bound in found.bounds if bound.kind == "upper")


@pytest.mark.parametrize("name", ["relu", "both", "jumps", "classes"])
def test_the_network_is_affine_on_every_region_with_the_slope_that_is_said(name: str):
    net = network(2, (6, 6, 6), 2, dtype="float64", **NETWORKS[name])
    found = theory.regions_in_window(net)
    for polygon, slope in zip(found.polygons, found.slopes, strict=True):
        middle = polygon.mean(axis=0)
        near = middle + 0.3 * (polygon - middle)
        z = net.trace(np.vstack([middle, near])).z[-1]
        assert_close(z[1:], z[0] + (near - middle) @ slope.T, rounding("float64", 400))


def test_pieces_are_regions_of_one_map_that_touch():
    net = network(2, (5, 4), 1)
    net.weights[1] = net.weights[1] * np.array([1, 1, 0, 1, 0])  # two units that nothing reads
    found = theory.regions_in_window(net, ((-2, 2), (-2, 2)))
    without = lamina.Network(2, (3, 4), 1, rng=0)
    without.weights[0], without.biases[0] = net.weights[0][[0, 1, 3]], net.biases[0][[0, 1, 3]]
    without.weights[1], without.biases[1] = net.weights[1][:, [0, 1, 3]], net.biases[1]
    without.weights[2], without.biases[2] = net.weights[2], net.biases[2]
    smaller = theory.regions_in_window(without, ((-2, 2), (-2, 2)))
    assert found.n_regions > smaller.n_regions
    assert found.n_pieces == smaller.n_pieces
    hidden = network(2, (5,), 1)
    hidden.weights[1] = np.zeros((1, 5))
    constant = theory.regions_in_window(hidden)
    assert (constant.n_pieces, constant.n_regions > 4) == (1, True)


def test_pieces_of_one_map_that_lie_apart_are_two():
    net = lamina.Network(1, (2,), 1, rng=0)  # 0, up, and flat at 0 again only beyond: a trapezium
    net.weights[0], net.biases[0] = [[1], [-1]], [-1, -1]  # relu(x - 1) + relu(-x - 1)
    net.weights[1], net.biases[1] = [[1, 1]], [0]
    assert theory.regions_on_line(net, [-2], [2]).n_pieces == 3
    plane = lamina.Network(2, (2,), 1, rng=0)
    plane.weights[0], plane.biases[0] = [[1, 0], [1, 0]], [-0.5, 0.5]
    plane.weights[1], plane.biases[1] = [[1, -1]], [0]  # flat on the left and on the right
    assert theory.regions_in_window(plane, ((-1, 1), (0, 1))).n_pieces == 3


def test_a_line_agrees_with_the_window_it_lies_in():
    net = network(2, (12, 12), 1)
    t = np.linspace(0, 1, 20001)[:, np.newaxis]
    x = np.array([-1.0, 0.3]) + t * np.array([2.0, -0.9])
    found = theory.regions_on_line(net, [-1, 0.3], [1, -0.6])
    trace = net.trace(x)
    patterns = np.hstack(trace.z[:2]) > 0
    changes = 1 + np.any(patterns[1:] != patterns[:-1], axis=1).sum()
    assert changes <= found.n_regions <= changes + 2  # a narrow one may fall between two points
    assert found.sample(2000)[1] == 0


def test_bounds_are_those_of_the_papers():
    spec = lamina.Network(2, (4, 4), 1, rng=0).spec
    values = {bound.source.split(":")[0]: bound.value for bound in theory.region_bounds(spec, 2)}
    assert values["each layer's hyperplanes cut each region"] == 11 * 11
    lower = [b.value for b in theory.region_bounds(spec, 2) if b.kind == "lower"]
    assert lower == [(4 // 2) ** 2 * 11]
    narrow = lamina.Network(2, (1, 4), 1, rng=0).spec
    # j_1 = 0 leaves one dimension, j_1 = 1 none: (1 + 4) + (1) (Serra et al. 2018, theorem 1)
    assert theory.region_bounds(narrow, 2)[-1].value == 6


def test_serras_bound_is_the_sum_of_the_theorem():
    widths, d = [3, 2, 4], 2
    total = 0
    for j in itertools.product(*(range(n + 1) for n in widths)):
        if all(
            j[i] <= min([d, widths[i], *(widths[k] - j[k] for k in range(i))])
            for i in range(len(widths))
        ):
            total += math.prod(math.comb(n, k) for n, k in zip(widths, j, strict=True))
    spec = lamina.Network(2, widths, 1, rng=0).spec
    serra = [b.value for b in theory.region_bounds(spec, 2) if "Serra" in b.source]
    assert serra == [total]


@pytest.mark.parametrize(
    ("spec", "dimension"),
    [
        (network(2, (4,)), 2),
        (network(2, (4,), activation="tanh").spec, 2),
        (network(2, (4,)).spec, 0),
        (network(2, (4,)).spec, 1.5),
    ],
)
def test_bounds_of_what_has_no_regions_are_refused(spec: object, dimension: object) -> None:
    with pytest.raises(SpecError, match="region_bounds: expected"):
        theory.region_bounds(spec, dimension)  # type: ignore[arg-type]


def test_regions_print_in_a_line() -> None:
    net = network(2, (40, 40))
    for found in (theory.regions_in_window(net), theory.regions_on_line(net, [-1, -1], [1, 1])):
        wanted = f"({found.n_regions} regions, {found.n_pieces} linear pieces)"
        assert repr(found) == type(found).__name__ + wanted


def test_a_cut_is_exact():
    square = [vertex([Fraction(a), Fraction(b)]) for a, b in [(0, 0), (1, 0), (1, 1), (0, 1)]]
    above, below = cut(square, [-1, 2, 2, -1])  # 3 x - 1
    assert area(above) == Fraction(2, 3)
    assert area(below) == Fraction(1, 3)
    assert neighbours([above, below]) in ([(0, 1)], [(1, 0)])
    top, bottom = cut(above, [v[1] * 2 - v[2] for v in above])
    assert sorted(map(sorted, neighbours([top, bottom, below]))) == [[0, 1], [0, 2], [1, 2]]


@pytest.mark.parametrize(
    ("options", "arguments", "error", "says"),
    [
        ({"activation": "tanh"}, {}, SpecError, "got 'tanh', which is not piecewise linear"),
        ({"encoding": lamina.HashGrid()}, {}, SpecError, "the encoding HashGrid"),
        ({}, {"window": ((1, 1), (0, 1))}, DataError, "it is empty"),
        ({}, {"window": ((1, 2),)}, ShapeError, "two pairs"),
        ({}, {"window": ((0, np.nan), (0, 1))}, DataError, "finite"),
        ({}, {"axes": (0, 0)}, SpecError, "two different inputs"),
        ({}, {"axes": (0, 2)}, SpecError, "from 0 to 1"),
        ({}, {"axes": 1}, SpecError, "two inputs"),
        ({}, {"at": [0]}, ShapeError, "a point of 2 numbers"),
        ({}, {"most": 5}, DataError, "at most 5 regions"),
    ],
)
def test_bad_windows_and_networks_are_refused(
    options: dict, arguments: dict, error: type, says: str
):
    net = network(2, (9,), **options)
    with pytest.raises(error, match=says):
        theory.regions_in_window(net, **arguments)


def test_bad_lines_are_refused():
    net = network(2, (3,))
    with pytest.raises(DataError, match="the same twice"):
        theory.regions_on_line(net, [0, 1], [0, 1])
    with pytest.raises(ShapeError, match="start to be a point of 2 numbers"):
        theory.regions_on_line(net, [0], [1, 1])
    with pytest.raises(SpecError, match="Use regions_on_line"):
        theory.regions_in_window(network(1, (3,)))
    with pytest.raises(SpecError, match=r"expected a lamina\.Network"):
        theory.regions_on_line("net", [0], [1])  # type: ignore[arg-type]


def test_pictures_show_every_region_and_every_bend():
    net = network(2, (5, 5), 2)
    window = theory.regions_in_window(net)
    assert len(window.plot().axes[0].collections[0].get_paths()) == window.n_regions
    line = theory.regions_on_line(net, [-1, -1], [1, 1])
    axes = line.plot().axes[0]
    assert len(axes.lines[-1].get_xdata()) == len(line.bends)
