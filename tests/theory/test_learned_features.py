"""Layers as feature maps: separation against linear programs, ranks and probes in closed form."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina import theory
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.theory.linear_readout import (
    MOST_EXACT,
    _float_margin,
    probe_classes,
    probe_numbers,
    rank_of,
    separate,
)

RNG = np.random.default_rng(0)
CORNERS = [[0, 0], [0, 1], [1, 0], [1, 1]]
XOR = [0, 1, 1, 0]


@pytest.fixture
def textbook() -> lamina.Network:
    net = lamina.Network(2, (2,), 1, rng=0)
    net.weights[0], net.biases[0] = [[1, 1], [1, 1]], [0, -1]
    net.weights[1] = [[1, -2]]
    return net


@pytest.fixture(scope="module")
def quadrants() -> tuple[lamina.Network, Any, Any]:
    """A network that learnt the sign of x0 x1."""
    x = RNG.normal(size=(400, 2))
    x[np.abs(x) < 0.1] = 0.1
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    net = lamina.Network(2, (16, 8), 1, activation="tanh", output="sigmoid", rng=0)
    adam = lamina.Adam(0.02)
    lamina.train(net, x, y, max_epochs=60, rng=0, batch_size=32, optimizer=adam)
    return net, x, y


def linear_program(h: Any, positive: Any) -> bool:
    """Whether a plane separates strictly, by SciPy: w·h + b ≥ 1 and ≤ -1 has a solution."""
    from scipy.optimize import linprog

    sign = np.where(positive, -1.0, 1.0)[:, np.newaxis]
    a = sign * np.column_stack([h, np.ones(len(h))])
    found = linprog(np.zeros(a.shape[1]), a, -np.ones(len(h)), bounds=(None, None))
    return found.status == 0


def test_the_exclusive_or_becomes_separable_behind_its_hidden_layer(
    textbook: lamina.Network,
) -> None:
    features = theory.learned_features(textbook, CORNERS, XOR)
    assert [f.separation.separable for f in features] == [False, True]
    assert all(f.separation.exact for f in features)
    assert features.separable_from == 1
    assert features[1](CORNERS).tolist() == [[0, 0], [1, 0], [1, 0], [2, 1]]
    proof = theory.separability(features[1](CORNERS), XOR)
    assert proof.verify()
    assert features[1].separation.margin == proof.margin
    # By hand: the line between (0, 0)-(2, 1) and (1, 0) is 1/sqrt 5 wide
    assert features[1].separation.margin == pytest.approx(0.5 / np.sqrt(5), rel=0.03)
    assert features[0].probe.score == 0.5
    assert features[1].probe.score == 1.0
    assert not features[1].probe.held_out


def test_a_trained_network_separates_more_from_layer_to_layer(quadrants: Any) -> None:
    net, x, y = quadrants
    features = theory.learned_features(net, x, y)
    assert len(features) == 3
    assert [f.separation.separable for f in features] == [False, True, True]
    assert features[0].probe.score < 0.7
    assert features[2].probe.score > 0.95
    assert features[1].probe.held_out
    for f in features:
        assert linear_program(f(x), y == 1) == f.separation.separable
    assert features[2].margin_ratio == pytest.approx(
        features[2].separation.margin / features[2].scale
    )


def test_features_are_the_networks_own(quadrants: Any) -> None:
    net, x, _ = quadrants
    features = theory.learned_features(net, x)
    assert_same_bits(features[0](x), x)
    for layer in (1, 2):
        h = features[layer](x)
        assert_same_bits(h, net.trace(x).h[layer - 1].astype(np.float64))
        assert features[layer].scale == pytest.approx(np.sqrt(((h - h.mean(0)) ** 2).sum(1).mean()))
    assert features[1].separation is None
    assert features[1].probe is None
    coded = lamina.Network(2, (4,), 1, encoding=lamina.Fourier(2), rng=0)
    assert theory.learned_features(coded, x)[0].width == coded.spec.layer_dims[0]


@pytest.mark.parametrize("seed", range(12))
def test_floats_and_fractions_and_a_linear_program_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 7))
    h = rng.normal(size=(60, d)) * 10.0 ** rng.integers(-3, 4) + rng.normal(size=d)
    if seed % 3 == 0:
        h = np.round(2 * h / np.abs(h).max() * 3)  # ties and duplicates
    w = rng.normal(size=d)
    along = (h - h.mean(0)) @ w
    positive = along > 0.3 * rng.normal(size=60) * (seed % 2) * np.abs(along).mean()
    if positive.all() or not positive.any():
        positive[0] = not positive[0]
    found = _float_margin(h, positive)
    exact = theory.separability(h, positive, max_margin=True)
    assert (found is not None) == (exact.weights is not None) == linear_program(h, positive)
    if found is not None:
        assert found <= exact.margin * (1 + 1e-9)  # a plane that is there, so none better
        assert found >= exact.margin * (1 - 1e-6)


def test_many_features_are_decided_by_floats_and_say_so() -> None:
    h = RNG.normal(size=(200, 30))
    assert h.size > MOST_EXACT
    apart = separate(h, (h[:, 0] > 0).astype(np.int64), 2)
    mixed = separate(h, RNG.integers(0, 2, 200), 2)
    assert (apart.separable, apart.exact) == (True, False)
    assert (mixed.separable, mixed.margin) == (False, None)


def test_several_classes_are_each_told_from_the_rest() -> None:
    codes = np.repeat([0, 1, 2], 20)
    on_a_line = codes[:, np.newaxis] + RNG.uniform(-0.3, 0.3, (60, 1))
    found = separate(on_a_line, codes, 3)
    assert (found.separable, found.n_separable) == (False, 2)  # the middle one lies between
    bent = np.column_stack([on_a_line, on_a_line**2])
    assert separate(bent, codes, 3).separable


def test_ranks_of_known_features() -> None:
    base = RNG.normal(size=(50, 3))
    q = np.linalg.qr(base - base.mean(0))[0]  # orthonormal columns of mean 0
    found = rank_of(q, 1e-16)
    assert found.numerical == 3
    assert_close([found.effective, found.stable], [3.0, 3.0], rounding(np.float64, 50))
    skewed = rank_of(q * [3.0, 4.0, 0.0] + 100.0, 2.2e-16)
    share = np.array([3.0, 4.0]) / 7.0
    assert skewed.numerical == 2
    assert skewed.effective == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert skewed.stable == pytest.approx(25 / 16)
    assert rank_of(np.ones((5, 2)), 1e-16).numerical == 0


def test_probes_score_on_rows_they_did_not_see() -> None:
    h = RNG.normal(size=(90, 60))
    noise = RNG.integers(0, 2, 90)
    found = probe_classes(h, noise, 2, 0)
    assert found.held_out
    assert found.score < 0.75  # 60 features learn 60 rows by heart, not the other 30
    exact = probe_numbers(h[:, :5], h[:, :5] @ np.ones((5, 1)), 0)
    assert exact.score == pytest.approx(1.0, abs=1e-3)
    few = probe_classes(h[:20], noise[:20], 2, 0)
    assert (few.held_out, few.score) == (False, 1.0)


def test_numbers_get_a_linear_regression(quadrants: Any) -> None:
    net, x, _ = quadrants
    features = theory.learned_features(net, x, 0.5 + x[:, 0])
    assert features.n_classes is None
    assert features[0].separation is None
    assert features[0].probe.score > 0.999
    assert "probe R2, held out" in str(features)


def test_estimators_and_their_labels_are_taken() -> None:
    x = RNG.normal(size=(120, 3))
    labels = np.array(["low", "mid", "high"])[np.digitize(x[:, 0], [-0.5, 0.5])]
    model = lamina.MLPClassifier((8,), solver="lbfgs", max_iter=200, random_state=0).fit(x, labels)
    features = theory.learned_features(model, x, labels)
    assert features.n_classes == 3
    assert features[0].separation.n_separable == 2


def test_results_print_and_are_json(quadrants: Any) -> None:
    net, x, y = quadrants
    features = theory.learned_features(net, x, y, n_rows=50)
    facts = json.loads(json.dumps(features.to_dict(), allow_nan=False))
    assert facts["n_rows"] == 50
    assert [layer["width"] for layer in facts["layers"]] == [2, 16, 8]
    lines = str(features).splitlines()
    assert lines[0] == "features of 50 rows of 2 classes"
    assert lines[3].split()[:3] == ["0", "input", "2"]
    with pytest.raises(IndexError, match="a layer from 0, the input, to 2, got 3"):
        features[3]
    assert [f.layer for f in features[1:]] == [1, 2]
    assert repr(features[1]) == "LayerFeatures(layer 1, tanh, 16 features)"


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        (("net", CORNERS), SpecError, r"expected a lamina\.Network or a fitted"),
        ((None, [[1, 2, 3]]), ShapeError, r"expected x of shape \(n, 2\)"),
        ((None, CORNERS[:1]), ShapeError, "at least 2 rows"),
        ((None, CORNERS, [0, 1]), ShapeError, "each of 4 rows of x, got shape"),
        ((None, CORNERS, [0, 0, 0, 0]), DataError, "two classes|at least two"),
        ((None, [[np.nan, 0]] * 4), DataError, "finite numbers in x"),
    ],
)
def test_bad_input_gets_one_sentence(
    textbook: lamina.Network, args: Any, error: type[Exception], says: str
) -> None:
    net, *rest = args
    with pytest.raises(error, match=f"learned_features: .*({says})"):
        theory.learned_features(textbook if net is None else net, *rest)
