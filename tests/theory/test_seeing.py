"""Boundaries, hidden spaces and diagrams: what is drawn is where it should be."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina import theory
from lamina.core.errors import DataError, ShapeError, SpecError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
CORNERS = [[0, 0], [0, 1], [1, 0], [1, 1]]
XOR = [0, 1, 1, 0]


def linear(weights: Any, bias: Any, output: str = "sigmoid") -> lamina.Network:
    w = np.atleast_2d(weights)
    net = lamina.Network(w.shape[1], (), len(w), output=output, dtype="float64", rng=0)
    net.weights[0], net.biases[0] = w, np.atleast_1d(bias)
    return net


@pytest.fixture
def textbook() -> lamina.Network:
    net = lamina.Network(2, (2,), 1, dtype="float64", rng=0)
    net.weights[0], net.biases[0] = [[1, 1], [1, 1]], [0, -1]
    net.weights[1] = [[1, -2]]
    return net


# --- decision boundaries --------------------------------------------------------------------------


def test_a_linear_boundary_on_a_line_is_where_the_formula_says() -> None:
    found = theory.decision_boundary(linear(2.0, -1.0), X[:, :1])
    assert found.kind == "probability"
    assert_close(found.crossings, [0.5], 1e-3)
    assert_close(found.values, 1 / (1 + np.exp(1 - 2 * found.axes[0])), rounding(np.float64, 4))


def test_values_over_a_plane_are_the_models_own() -> None:
    net = linear([1.0, 2.0], 0.25)
    found = theory.decision_boundary(net, X[:, :2], resolution=7)
    assert found.values.shape == (7, 7)
    for i, j in np.ndindex(7, 7):
        at = np.array([[found.axes[0][i], found.axes[1][j]]])
        assert found.values[j, i] == pytest.approx(net(at)[0, 0], rel=1e-12)
    assert_same_bits(found.points, X[:, :2])
    assert found.axes[0][0] < X[:, 0].min()
    assert found.axes[0][-1] > X[:, 0].max()


def test_other_columns_are_held_at_their_medians() -> None:
    net = linear([1.0, 2.0, 3.0, 4.0], 0.0, "identity")
    found = theory.decision_boundary(net, X, columns=(2, 0), resolution=5)
    median = np.median(X, axis=0)
    wanted = (
        3 * found.axes[0][np.newaxis] + found.axes[1][:, np.newaxis] + 2 * median[1] + 4 * median[3]
    )
    assert_close(found.values, wanted, rounding(np.float64, 8))
    assert found.names == ("x3", "x1")
    assert found.held == "2 other columns at the median"
    assert_same_bits(found.points, X[:, [2, 0]])


def test_a_plane_through_many_columns_is_that_of_scikit_learns_pca() -> None:
    from sklearn.decomposition import PCA

    x = X * [5.0, 1.0, 3.0, 0.5] + 1.0
    pca = PCA(2).fit(x)
    net = linear([1.0, -1.0, 0.5, 2.0], 0.0, "identity")
    found = theory.decision_boundary(net, x, resolution=3)
    signs = np.sign((found.points * pca.transform(x)).sum(axis=0))
    assert_close(found.points * signs, pca.transform(x), rounding(np.float64, 60))
    at = np.array([[found.axes[0][2], found.axes[1][1]]]) * signs
    assert found.values[1, 2] == pytest.approx(net(pca.inverse_transform(at))[0, 0])
    assert found.held.startswith("plane through the mean, 9")
    assert f"{pca.explained_variance_ratio_.sum():.0%}" in found.held


def test_models_of_all_kinds_are_read() -> None:
    labels = np.where(X[:, 0] > 0, "yes", "no")
    options: dict[str, Any] = {"resolution": 4, "columns": (0, 1)}
    x2 = X[:, :2]
    model = lamina.MLPClassifier((4,), solver="lbfgs", alpha=1.0, random_state=0)
    model.fit(x2, labels)
    two = theory.decision_boundary(model, x2, labels, **options)
    assert (two.kind, two.classes, two.level) == ("probability", ("no", "yes"), 0.5)
    grid = np.stack([m.ravel() for m in np.meshgrid(*two.axes)], axis=1)
    assert_close(two.values.ravel(), model.predict_proba(grid)[:, 1], rounding(np.float64, 8))
    many = np.array(["a", "b", "c"])[np.digitize(X[:, 0], [-0.4, 0.4])]
    model.fit(x2, many)
    found = theory.decision_boundary(model, x2, many, **options)
    assert found.kind == "classes"
    said = np.array(found.classes)[found.values.ravel().astype(int)]
    assert said.tolist() == model.predict(grid).tolist()
    hard = SimpleNamespace(predict=model.predict, classes_=model.classes_)
    assert_same_bits(theory.decision_boundary(hard, x2, many, **options).values, found.values)
    one = theory.decision_boundary(model, x2, output=2, **options)
    assert_close(one.values.ravel(), model.predict_proba(grid)[:, 2], rounding(np.float64, 8))
    plain = theory.decision_boundary(lambda rows: rows[:, 0] ** 2, x2, **options)
    assert (plain.kind, plain.level) == ("number", None)
    assert_close(plain.values.ravel(), grid[:, 0] ** 2, rounding(np.float64))
    soft = lamina.Network(2, (4,), 3, output="softmax", rng=0)
    areas = theory.decision_boundary(soft, x2, **options)
    assert areas.values.ravel().tolist() == soft(grid).argmax(axis=1).tolist()


def test_a_number_changes_sides_half_way_between_two_labels() -> None:
    found = theory.decision_boundary(linear(1.0, 0.0, "identity"), [[0.0], [4.0]], [1, 3])
    assert found.level == 2.0
    assert_close(found.crossings, [2.0], rounding(np.float64, 64))


def test_boundaries_are_json_and_print() -> None:
    found = theory.decision_boundary(linear(1.0, 0.0), X[:, :1], X[:, 0] > 0, resolution=5)
    json.dumps(found.to_dict(), allow_nan=False)
    assert repr(found) == "DecisionBoundary(probability over x1: 5 values)"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"model": 3}, SpecError, "expected a Network, an estimator with predict, or a function"),
        ({"model": lambda rows: ["a"] * len(rows)}, DataError, "a model that gives a number"),
        ({"x": X[:, :2]}, ShapeError, r"x of shape \(n, 4\), got \(60, 2\)"),
        ({"x": X[:0]}, ShapeError, "at least 1 row"),
        ({"x": X * np.inf}, DataError, "finite numbers in x"),
        ({"y": [1, 2]}, ShapeError, r"expected y of shape \(60,\), got \(2,\)"),
        ({"columns": (0, 4)}, SpecError, "different ones from 0 to 3, or 'pca', got"),
        ({"columns": (1, 1)}, SpecError, "different ones"),
        ({"columns": (0, 1, 2)}, SpecError, "one or two different ones"),
        ({"columns": "umap"}, SpecError, "expected columns 'pca', or indices, got 'umap'"),
        ({"output": 1}, SpecError, "expected output from 0 to 0, got 1"),
        (
            {"model": lambda rows: rows, "output": 4},
            SpecError,
            "expected output from 0 to 3, got 4",
        ),
        ({"names": ["a"]}, ShapeError, "expected 4 names, one a column, got 1"),
        ({"names": "abcd"}, ShapeError, "expected 4 names"),
        ({"resolution": 1}, SpecError, "resolution to be a whole number"),
    ],
)
def test_bad_input_gets_one_sentence(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    given = {"model": linear([1.0, 2.0, 3.0, 4.0], 0.0), "x": X, **options}
    with pytest.raises(error, match=f"decision_boundary: .*{says}"):
        theory.decision_boundary(**given)


# --- hidden spaces --------------------------------------------------------------------------------


def test_the_exclusive_or_is_parted_by_the_readout(textbook: lamina.Network) -> None:
    found = theory.hidden_space(textbook, CORNERS, XOR)
    assert found.hidden.tolist() == [[0, 0], [1, 0], [1, 0], [2, 1]]
    w, b = found.readout
    assert (w.tolist(), b) == ([1.0, -2.0], -0.5)
    assert ((found.hidden @ w + b > 0) == np.array(XOR, bool)).all()
    ends = np.concatenate(found.boundary)
    assert len(ends) > 100
    assert np.abs(textbook(ends) - 0.5).max() < 1e-9
    total = ends.sum(axis=1)  # relu(s) - 2 relu(s - 1) = 1/2 at s = 1/2 and 3/2
    assert np.minimum(np.abs(total - 0.5), np.abs(total - 1.5)).max() < 1e-9
    assert found.explained == 1.0


def test_the_grid_goes_through_the_layer(textbook: lamina.Network) -> None:
    found = theory.hidden_space(textbook, CORNERS, XOR, n_lines=5)
    assert len(found.lines) == len(found.hidden_lines) == 10
    for line, bent in zip(found.lines, found.hidden_lines, strict=True):
        assert_close(bent, textbook.trace(line).h[0], rounding(np.float64, 4))
    assert len({float(v) for v in found.lines[0][:, 0]}) == 1  # of constant x0


def test_more_than_two_units_or_columns_are_shown_by_principal_components() -> None:
    from sklearn.decomposition import PCA

    wide = lamina.Network(4, (8, 6), 3, activation="tanh", output="softmax", rng=0)
    found = theory.hidden_space(wide, X, X[:, 0] > 0, 2)
    pca = PCA(2).fit(wide.trace(X).h[1].astype(float))
    assert found.explained == pytest.approx(pca.explained_variance_ratio_.sum())
    theirs = pca.transform(wide.trace(X).h[1].astype(float))
    signs = np.sign((found.hidden * theirs).sum(axis=0))
    assert_close(found.hidden * signs, theirs, 1e-6)
    assert found.lines == []
    assert found.boundary == []
    assert found.readout is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_two_softmax_outputs_have_one_line() -> None:
    net = lamina.Network(2, (2,), 2, activation="tanh", output="softmax", dtype="float64", rng=3)
    net.biases[1] = [0.1, -0.2]
    found = theory.hidden_space(net, CORNERS)
    w, b = found.readout
    p = net(np.array(CORNERS, float))
    assert_close(found.hidden @ w + b, np.log(p[:, 1] / p[:, 0]), rounding(np.float64, 16))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"layer": 2}, SpecError, "a hidden layer from 1 to 1, got layer 2. Layer 2 is the output"),
        ({"layer": 0}, SpecError, "a hidden layer from 1 to 1, got layer 0"),
        ({"net": linear(1.0, 0.0), "x": [[1.0], [2.0]]}, SpecError, "a network with a hidden"),
        ({"net": 5}, SpecError, r"expected a lamina\.Network"),
        ({"x": [[1.0]]}, ShapeError, r"x of shape \(n, 2\)"),
        ({"y": [1, 2]}, ShapeError, "expected y of shape"),
    ],
)
def test_a_hidden_space_that_is_not_there_gets_one_sentence(
    textbook: lamina.Network, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    given = {"net": textbook, "x": CORNERS, **options}
    with pytest.raises(error, match=f"hidden_space: .*{says}"):
        theory.hidden_space(**given)


# --- diagrams and images --------------------------------------------------------------------------


def edges(figure: Any) -> dict[Any, tuple[tuple[float, ...], float]]:
    """Return colour and width of each edge by its ends' places."""
    found = {}
    for collection in figure.axes[0].collections:
        for k, path in enumerate(collection.get_segments()):
            color = tuple(np.round(collection.get_colors()[k][:3], 3))
            found[tuple(map(tuple, path))] = color, float(collection.get_linewidths()[k])
    return found


def test_edges_carry_sign_and_size_and_units_their_numbers(textbook: lamina.Network) -> None:
    figure = theory.network_diagram(textbook, names=["a", "b"], outputs=["a xor b"])
    drawn = edges(figure)
    assert len(drawn) == 6
    out = {ends[0][1]: look for ends, look in drawn.items() if ends[1][0] == 5.2}
    (up, wide_up), (down, wide_down) = out[0.5], out[-0.5]  # of weights 1 and -2
    assert up[2] > up[0]  # blue
    assert down[0] > down[2]  # orange
    assert wide_down == 4.0
    assert wide_up == pytest.approx(0.3 + 3.7 / 2)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert {"a", "b", "a xor b", "relu", "identity", "0", "−1"} <= set(texts)
    shown = [t.get_text() for t in theory.network_diagram(textbook, [1, 1]).axes[0].texts]
    assert shown[:5] == ["1", "1", "2", "1", "0"]  # x, h and y of (1, 1)


def test_wide_layers_show_their_largest_units_and_skips_are_dashed() -> None:
    net = lamina.Network(3, (30, 4), 2, skips={3: (0,)}, rng=0)
    weight = np.array(net.weights[0])
    weight[[7, 19]] = 50.0
    net.weights[0] = weight
    figure = theory.network_diagram(net, most=2)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert "relu\n2 of 30 units" in texts
    styles = [c.get_linestyles()[0][1] for c in figure.axes[0].collections if len(c.get_paths())]
    assert sum(style is not None for style in styles) == 1
    heights = [a[1] for a, _ in edges(figure) if a[0] == 2.6]
    assert set(heights) == {0.5, -0.5}


def test_weights_are_laid_out_as_what_they_read() -> None:
    net = lamina.Network(6, (3,), 1, rng=0)
    figure = theory.weights_as_images(net, 1, (2, 3), units=[2, 0])
    pictures = [a.images[0].get_array() for a in figure.axes if a.images][:2]
    assert_same_bits(np.asarray(pictures[0]), net.weights[0][2].astype(float).reshape(2, 3))
    assert_same_bits(np.asarray(pictures[1]), net.weights[0][0].astype(float).reshape(2, 3))
    largest = np.argsort(-np.linalg.norm(net.weights[0], axis=1))
    titles = [a.get_title() for a in theory.weights_as_images(net, shape=(2, 3), most=2).axes]
    assert titles[:2] == [f"unit {k}" for k in largest[:2]]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda n: theory.network_diagram(n, [1, 2, 3]), ShapeError, r"x of shape \(n, 2\)"),
        (lambda n: theory.network_diagram(n, CORNERS), ShapeError, "x as one row, got 4"),
        (lambda n: theory.network_diagram(n, names=["a"]), ShapeError, "expected 2 names, got 1"),
        (lambda n: theory.network_diagram(n, most=1), SpecError, "most to be a whole number"),
        (lambda n: theory.weights_as_images(n), ShapeError, "as 2 is no square, got none"),
        (lambda n: theory.weights_as_images(n, 1, (3, 2)), ShapeError, "of 2 numbers"),
        (lambda n: theory.weights_as_images(n, 3), SpecError, "a layer from 1 to 2, got 3"),
        (
            lambda n: theory.weights_as_images(n, 1, (1, 2), units=[2]),
            SpecError,
            "expected units from 0 to 1, got",
        ),
        (lambda n: theory.weights_as_images("n"), SpecError, r"expected a lamina\.Network"),
    ],
)
def test_a_picture_that_cannot_be_gets_one_sentence(
    textbook: lamina.Network, call: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=f"(network_diagram|weights_as_images): .*{says}"):
        call(textbook)
