"""Diagnoses: networks made ill on purpose are found to be, and healthy ones are left in peace."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from tests.tolerances import assert_close, rounding

import lamina
from lamina import theory
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.functions import ACTIVATIONS
from lamina.core.losses import resolve_loss
from lamina.theory.diagnosis import Diagnosis
from lamina.theory.layer_signals import backward, copies

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6))
Y = (X[:, :1] * X[:, 1:2] + X[:, 2:3]).astype(np.float64)


def net(depth: int = 3, width: int = 32, **options: Any) -> lamina.Network:
    return lamina.Network(6, (width,) * depth, 1, rng=0, **options)


def kinds(found: Diagnosis) -> list[str]:
    return [verdict.kind for verdict in found.verdicts]


# --- healthy ones ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS} - {"step", "sigmoid", "squared_relu"}))
def test_a_network_as_drawn_is_healthy(name: str) -> None:
    for depth in (1, 4):
        found = theory.diagnose(net(depth, 64, activation=name), X, Y)
        assert found.healthy, str(found)
    assert "healthy: nothing found" in str(found)


def test_a_network_that_trained_well_is_healthy() -> None:
    trained = net(2, activation="relu")
    lamina.train(trained, X, Y, max_epochs=100, rng=0, batch_size=32)
    found = theory.diagnose(trained, X, Y)
    assert found.healthy
    assert found.loss == pytest.approx(trained.loss(X, Y))
    assert found.loss < 0.2


def test_a_deep_residual_network_does_not_fade_as_the_plain_one_does() -> None:
    plain = net(12, activation="sigmoid")
    assert kinds(theory.diagnose(plain, X)) == ["vanishing_signal", "vanishing_gradient"]
    residual = net(12, activation="sigmoid", residual=True)  # its sums drift, and saturate
    assert kinds(theory.diagnose(residual, X)) == ["saturated"] * 2


# --- ill ones -------------------------------------------------------------------------------------


def test_sigmoids_ten_deep_with_small_weights_fade() -> None:
    sick = net(10, activation="sigmoid")
    sick.theta = 0.3 * sick.theta
    found = theory.diagnose(sick, X, Y)
    assert kinds(found) == ["vanishing_signal", "vanishing_gradient"]
    text = str(found)
    assert "(these are 0.29" in text or "(these are 0.3" in text
    assert "instead of sigmoid, whose slope is at most 1/4" in text


def test_tiny_weights_are_all_that_is_blamed() -> None:
    sick = net(1, activation="tanh")
    sick.theta = 1e-4 * sick.theta
    (verdict,) = theory.diagnose(sick, X).verdicts
    assert verdict.kind == "vanishing_signal"
    assert re.fullmatch(r"Draw larger weights \(these are .* the usual size\)\.", verdict.advice)
    sick.theta = 0 * sick.theta
    found = theory.diagnose(sick, X)
    assert kinds(found) == ["copies", "vanishing_signal"]
    assert found.verdicts[1].advice == "Draw larger weights (these are 0)."


def test_relus_with_large_weights_explode() -> None:
    sick = net(4)
    sick.theta = 10 * sick.theta
    found = theory.diagnose(sick, X, Y)
    assert kinds(found) == ["exploding_signal", "exploding_gradient"]
    assert re.search(r"these are (9\.\d+|10) times the usual size", found.verdicts[0].advice)


def test_relus_with_a_bias_of_minus_ten_are_dead() -> None:
    sick = net(3)
    sick.biases[1] = np.full(32, -10.0)
    found = theory.diagnose(sick, X, Y)
    assert kinds(found) == ["dead"]
    assert found.verdicts[0].layer == 2
    assert found.verdicts[0].finding.startswith("layer 2: all 32 relu units are 0 on all 300 rows")
    assert found.layers[1].dead.tolist() == list(range(32))
    assert found.layers[0].gradient_norm == 0.0


def test_some_dead_units_are_named_and_few_are_no_verdict() -> None:
    sick = net(1)
    bias = np.zeros(32)
    bias[[3, 30]] = -50.0
    sick.biases[0] = bias
    found = theory.diagnose(sick, X)
    assert found.layers[0].dead.tolist() == [3, 30]
    assert found.healthy
    bias[:10] = -50.0
    sick.biases[0] = bias
    assert "11 of 32 relu units" in theory.diagnose(sick, X).verdicts[0].finding


def test_tanh_with_large_weights_is_saturated() -> None:
    sick = net(2, activation="tanh")
    sick.weights[0] = 200 * sick.weights[0]
    found = theory.diagnose(sick, X)
    assert kinds(found) == ["saturated"]
    assert re.search(r"; its weights are 2\d\d times the usual", found.verdicts[0].finding)
    flat = np.abs(1 - np.tanh(sick.trace(X).z[0].astype(float)) ** 2) < 0.01
    assert found.layers[0].saturated.tolist() == np.flatnonzero(flat.mean(0) >= 0.95).tolist()


def test_relus_that_never_bend_are_linear() -> None:
    sick = net(2)
    sick.biases[0] = np.full(32, 50.0)
    found = theory.diagnose(sick, X)
    assert "linear" in kinds(found)
    assert found.layers[0].linear.tolist() == list(range(32))
    leaky = net(1, activation="leaky_relu")
    leaky.biases[0] = np.full(32, -50.0)  # linear on the other side
    assert kinds(theory.diagnose(leaky, X)) == ["linear"]


def test_steps_pass_no_gradient() -> None:
    assert kinds(theory.diagnose(net(2, activation="step"), X)) == ["no_gradient"]


def test_an_overflow_is_found_where_it_happens() -> None:
    sick = net(3)
    sick.weights[1] = np.full((32, 32), 1e38)
    found = theory.diagnose(sick, X, Y)
    assert kinds(found)[-1] == "overflow"
    assert found.verdicts[-1].layer == 2
    assert found.layers[0].backward is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_units_that_repeat_others_are_copies() -> None:
    sick = net(1)
    sick.weights[0] = np.ones((32, 6))
    found = theory.diagnose(sick, X)
    assert kinds(found) == ["copies"]
    assert found.layers[0].copies == (tuple(range(32)),)


def test_a_layer_that_loses_directions_is_ill_conditioned() -> None:
    sick = net(2)
    weight = np.array(sick.weights[1])
    weight[:, 5] = weight[:, 4]  # two inputs read alike: rank 31
    sick.weights[1] = weight
    found = theory.diagnose(sick, X)
    assert kinds(found) == ["ill_conditioned"]
    assert found.layers[1].condition > 1e6


def test_columns_of_x_are_judged() -> None:
    x = X.copy()
    x[:, 0] *= 1000
    x[:, 1] = 7.0
    x[:, 2] += 40.0
    found = theory.diagnose(net(1), x)
    data = [v for v in found.verdicts if v.layer == 0]
    assert [v.kind for v in data] == ["constant_input", "input_scale", "input_scale"]
    assert data[0].finding == "column 1 of x has one value in all rows."
    assert "column 0 of x varies 1.0" in data[1].finding
    assert "column 2 of x lies up to" in data[2].finding
    assert [v.kind for v in theory.diagnose(net(1), 1e4 * X).verdicts] == ["input_scale"]


def test_targets_far_from_one_are_named() -> None:
    assert kinds(theory.diagnose(net(1), X, 1e4 * Y)) == ["target_scale"]


# --- the numbers ----------------------------------------------------------------------------------


def test_signals_of_a_chain_of_multiples_are_powers() -> None:
    depth, c = 4, 0.5
    chain = lamina.Network(6, (6,) * depth, 6, activation="identity", dtype="float64", rng=0)
    for layer in range(depth + 1):
        chain.weights[layer] = c * np.eye(6)
    found = theory.diagnose(chain, X)
    spreads = [layer.spread for layer in found.layers]
    whole = math.sqrt(X.var(axis=0).mean())
    assert_close(spreads, whole * c ** np.arange(1, depth + 2), rounding(np.float64, 8))
    back = [layer.backward for layer in found.layers]
    assert_close(back, back[-1] * c ** np.arange(depth, -1, -1), rounding(np.float64, 8))
    assert back[-1] == pytest.approx(1.0, rel=0.1)  # a random direction of length 1 on average
    assert [layer.condition for layer in found.layers] == [1.0] * (depth + 1)
    assert found.layers[0].stable_rank == pytest.approx(6.0)


def test_backward_signals_give_the_engines_gradients() -> None:
    wired = lamina.Network(
        6, (8, 8, 8), 2, activation=("tanh", "gelu", "sine"), residual=True,
        skips={3: (0, 1), 4: (1,)}, dtype="float64", rng=1,
    )  # fmt: skip
    y = RNG.normal(size=(300, 2))
    trace, loss = wired.trace(X), resolve_loss(None, "identity")
    grad_z = 2 * (trace.h[-1] - y) / 2  # squared error is a mean over outputs
    found = backward(wired.spec, wired.theta, trace.z, grad_z)
    h = [X, *trace.h]
    exact = wired.gradients(X, y, loss)
    for layer in range(1, 5):
        u = np.concatenate([h[j] for j in wired.spec.sources(layer)], axis=1)
        ours = found[layer - 1].T @ u / len(X)
        assert_close(ours, exact.weights[layer - 1], rounding(np.float64, 300))
    lengths = [layer.backward for layer in theory.diagnose(wired, X, y).layers]
    wanted = [math.sqrt((b**2).sum(axis=1).mean()) for b in found]
    assert_close(lengths, wanted, rounding(np.float64, 300))


def test_norms_of_gradients_are_the_engines() -> None:
    small = net(2, dtype="float64")
    found = theory.diagnose(small, X, Y, "huber")
    exact = small.gradients(X, Y, "huber")
    for layer, weight, gradient in zip(found.layers, small.weights, exact.weights, strict=True):
        assert layer.gradient_norm == pytest.approx(np.linalg.norm(gradient))
        assert layer.gradient_ratio == pytest.approx(
            np.linalg.norm(gradient) / np.linalg.norm(weight)
        )
    assert found.loss == pytest.approx(small.loss(X, Y, "huber"))


def test_wide_layers_are_measured_as_narrow_ones_are() -> None:
    wide = lamina.Network(600, (700,), 1, rng=0)
    weight = np.array(wide.weights[0])
    weight[650] = weight[7]
    wide.weights[0] = weight
    found = theory.diagnose(wide, RNG.normal(size=(20, 600))).layers[0]
    assert found.copies == ((7, 650),)
    s = np.linalg.svd(weight.astype(float), compute_uv=False)
    assert found.condition == pytest.approx(s[0] / s[-1], rel=1e-6)
    assert found.stable_rank == pytest.approx((s**2).sum() / s[0] ** 2)


def test_copies_are_those_that_symmetries_of_the_activation_make() -> None:
    w, b = np.array([[1.0, 2], [-1, -2], [2, 4], [1, 2], [0, 0]]), np.array([3.0, -3, 6, 3, 0])
    assert copies(w, b, "tanh") == ((0, 1, 3),)
    assert copies(w, b, "relu") == ((0, 2, 3),)
    assert copies(w, b, "identity") == ((0, 1, 2, 3),)
    assert copies(w, b, "gelu") == ((0, 3),)
    assert copies(np.zeros((3, 2)), np.zeros(3), "gelu") == ((0, 1, 2),)
    assert copies(np.array([[1.0], [2.0]]), np.zeros(2), "relu") == ()  # one input only


# --- what goes in and out -------------------------------------------------------------------------


def test_estimators_are_diagnosed_with_their_own_classes() -> None:
    labels = np.where(X[:, 0] > 0, "yes", "no")
    model = lamina.MLPClassifier((8,), solver="lbfgs", max_iter=50, random_state=0)
    model.fit(X, labels)
    found = theory.diagnose(model, X, labels)
    assert found.loss is not None
    assert found.loss < 0.1
    with pytest.raises(DataError, match="expected classes seen in fit in y, got 'maybe'"):
        theory.diagnose(model, X, np.full(300, "maybe"))


def test_encoded_inputs_are_left_to_the_encoding() -> None:
    coded = lamina.Network(6, (16,), 1, encoding=lamina.Fourier(2), rng=0)
    assert theory.diagnose(coded, X / 10).healthy


def test_rows_beyond_the_most_are_thinned_evenly() -> None:
    assert theory.diagnose(net(1), X, Y, n_rows=100).n_rows == 100


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: theory.diagnose("net", X), SpecError, "expected a lamina.Network or a fitted MLP"),
        (lambda: theory.diagnose(net(), X[:, :2]), ShapeError, r"x of shape \(n, 6\), got \(300"),
        (lambda: theory.diagnose(net(), X[:0]), ShapeError, "at least 2 rows, got 0"),
        (lambda: theory.diagnose(net(), X * np.nan), DataError, "finite numbers in x"),
        (lambda: theory.diagnose(net(), X, Y[:5]), ShapeError, "expected y of shape"),
        (lambda: theory.diagnose(net(), X, Y, "hinge"), SpecError, "expected loss to be one of"),
        (
            lambda: theory.diagnose(net(), X, Y, lamina.Sobolev(1.0)),
            SpecError,
            "diagnose: expected a loss of predictions, got sobolev",
        ),
        (lambda: theory.diagnose(net(), X, n_rows=1), SpecError, "n_rows to be a whole number"),
        (lambda: theory.LiveDiagnosis("net", X), SpecError, "LiveDiagnosis: expected the lamina"),
        (lambda: theory.LiveDiagnosis(net(), X, every=0), SpecError, "every to be a whole"),
    ],
)
def test_bad_input_gets_one_sentence(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()


def test_a_diagnosis_is_json() -> None:
    found = theory.diagnose(net(2), X, Y)
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert facts["healthy"] is True
    assert [layer["width"] for layer in facts["layers"]] == [32, 32, 1]


# --- live -----------------------------------------------------------------------------------------


def test_a_live_diagnosis_follows_the_training() -> None:
    watched, lines = net(2), []
    before = [np.array(w, np.float64) for w in watched.weights]
    live = theory.LiveDiagnosis(watched, X, Y, every=2, report=lines.append)
    lamina.train(watched, X, Y, max_epochs=5, callbacks=live, rng=0)
    assert live.epochs == [0, 2, 4]
    assert len(lines) == 3
    assert lines[0].startswith("epoch    0  loss ")
    assert lines[0].endswith("  healthy")
    for record, epochs in ((1, 2), (2, 4)):
        twin = net(2)
        lamina.train(twin, X, Y, max_epochs=epochs, rng=0)
        after = [np.array(w, np.float64) for w in twin.weights]
        for change, a, b in zip(live.updates[record], before, after, strict=True):
            assert change == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(b), rel=1e-5)
        before = after
    assert live.diagnoses[2].loss == pytest.approx(twin.loss(X, Y), rel=1e-6)
    curves = live.curves()
    assert {a.shape for a in curves.values()} == {(3, 3)}
    json.dumps(live.to_dict(), allow_nan=False)
    assert str(live) == "\n".join(lines)


def test_a_rate_far_too_high_kills_units_live() -> None:
    watched, lines = net(3), []
    live = theory.LiveDiagnosis(watched, X, Y, report=lines.append)
    sgd = lamina.SGD(0.12)
    lamina.train(watched, X, Y, max_epochs=10, optimizer=sgd, callbacks=live, rng=0)
    assert live.diagnoses[0].healthy
    assert "dead" in kinds(live.diagnoses[-1])
    assert sum("units are 0 on all 300 rows" in line for line in lines) >= 1
