"""collapse: equal to the original to rounding, with skips, residuals, encodings; nothing lost."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina import theory
from lamina.core import reference
from lamina.core.errors import DataError, SpecError


def random_network(seed: int, dtype: str) -> lamina.Network:
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 8))
    widths = rng.choice([3, 4, 5], depth, p=[0.5, 0.25, 0.25])
    names = ["identity", "identity", "relu", "tanh", "gelu"]
    net = lamina.Network(
        3,
        widths.tolist(),
        2,
        activation=[str(rng.choice(names)) for _ in widths],
        skips={
            layer: [j for j in range(layer - 1) if rng.random() < 0.4]
            for layer in range(2, depth + 2)
        },
        residual=bool(seed % 2),
        dropout=0.2,
        output=str(rng.choice(["identity", "sigmoid", "softmax"])),
        dtype=dtype,
        rng=seed,
    )
    for layer in range(depth + 1):
        net.biases[layer] = rng.normal(size=net.biases[layer].shape)
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_deep_networks_are_equal_to_rounding(dtype: str):
    rng = np.random.default_rng(0)
    for seed in range(80):
        net = random_network(seed, dtype)
        flat = theory.collapse(net)
        assert "identity" not in flat.spec.activations
        assert flat.spec.output == net.spec.output
        assert flat.dtype == net.dtype
        x = rng.normal(size=(40, 3))
        slow = reference.forward(net.spec, net.theta, x).h[-1]  # the twin, in float64
        terms = sum(net.spec.fan_in(layer) for layer in range(1, net.spec.n_layers + 1))
        assert_close(flat(x), slow, rounding(dtype, terms), f"network {seed}")


def test_a_deep_linear_network_is_one_matrix():
    net = lamina.Network(3, (50, 20, 50), 2, activation="identity", dtype="float64", rng=0)
    flat = theory.collapse(net)
    assert flat.spec.widths == ()
    w1, w2, w3, w4 = net.weights
    assert_close(flat.weights[0], w4 @ w3 @ w2 @ w1, rounding("float64", 120))


def test_exact_products_are_rounded_once():
    net = lamina.Network(2, (3, 2), 2, activation="identity", dtype="float64", rng=1)
    flat = theory.collapse(net, exact=True)
    exact = [[[Fraction(float(v)) for v in row] for row in w] for w in net.weights]
    for i in range(2):
        for k in range(2):
            wanted = sum(
                exact[2][i][a] * exact[1][a][b] * exact[0][b][k] for a in range(2) for b in range(3)
            )
            assert flat.weights[0][i, k] == float(wanted)


def test_a_network_without_linear_layers_keeps_its_bits():
    net = lamina.Network(3, (8, 8), 2, residual=True, skips={3: (0,)}, rng=0)
    report = theory.collapse_report(net)
    assert report.folded == ()
    assert report.network.spec == net.spec
    assert_same_bits(report.network.theta, net.theta)
    assert report.network is not net


def test_residual_connections_stay_where_they_still_fit():
    net = lamina.Network(
        8, (8,) * 5, 8, residual=True, activation=["identity", *["relu"] * 4], rng=0
    )
    flat = theory.collapse(net)
    assert flat.spec.widths == (8,) * 4
    assert flat.spec.residual
    x = np.random.default_rng(0).normal(size=(20, 8))
    assert_close(flat(x), net(x), rounding("float32", 50))


def test_the_encoding_and_its_table_stay():
    net = lamina.Network(
        2, (6, 6), 1, activation=["identity", "relu"], encoding=lamina.HashGrid(), rng=0
    )
    net.table = np.random.default_rng(1).normal(size=net.table.shape)
    flat = theory.collapse(net)
    assert flat.encoding == net.encoding
    assert_same_bits(flat.table, net.table)
    x = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    assert_close(flat(x), net(x), rounding("float32", 50))


def test_what_was_folded_is_said():
    net = lamina.Network(3, (9, 9, 4), 2, activation=["relu", "identity", "relu"], rng=0)
    report = theory.collapse_report(net)
    assert report.folded == (2,)
    assert str(report) == (
        f"4 layers to 3, {net.n_params} parameters to {report.network.n_params}; "
        "linear hidden layers folded: 2"
    )


def test_products_that_overflow_and_other_objects_are_refused():
    net = lamina.Network(1, (1,), 1, activation="identity", rng=0)
    net.weights[0] = net.weights[1] = [[1e30]]
    with pytest.raises(DataError, match="fit into float32"):
        theory.collapse(net)
    with pytest.raises(SpecError, match=r"expected a lamina\.Network"):
        theory.collapse("net")  # type: ignore[arg-type]
