"""The sawtooth, deep and shallow: exact in fractions, and out of reach for fewer units."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

import lamina
from lamina.core.errors import SpecError
from lamina.theory import approximate, learned_against, sawtooth
from lamina.theory.exact_pieces import exact_corners


def tent(x, n):
    for _ in range(n):
        x = 2 * x if x < Fraction(1, 2) else 2 - 2 * x
    return x


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_both_networks_are_the_tent_composed_with_itself(n):
    saw = sawtooth(n)
    assert saw.verify()
    assert saw.deep.spec.widths == (2,) * n
    assert saw.shallow.spec.widths == (2**n,)
    x = [Fraction(i, 3 * 2**10) for i in range(0, 3 * 2**10 + 1, 7)]
    wanted = [float(tent(v, n)) for v in x]
    for net in (saw.deep, saw.shallow):
        value = net(np.array([[float(v)] for v in x]))[:, 0]
        np.testing.assert_allclose(value, wanted, atol=1e-10)


def test_a_changed_weight_is_seen():
    saw = sawtooth(4)
    saw.deep.weights[2] = saw.deep.weights[2] * (1 + 2**-40)
    assert not saw.verify()


def test_units_at_least_are_those_of_the_count_of_pieces():
    saw = sawtooth(6)
    assert saw.n_units_at_least() == 63
    for depth in range(1, 9):
        m = saw.n_units_at_least(depth)
        assert (m / depth + 1) ** depth >= 64 * (1 - 1e-12)
        assert ((m - 1) / depth + 1) ** depth < 64
    assert saw.n_units_at_least(6) <= 12


def test_fewer_units_leave_a_point_half_away():
    saw = sawtooth(4)
    assert saw.counterexample(saw.deep) is None
    rng = np.random.default_rng(0)
    for seed in range(20):
        net = lamina.Network(1, (14,), 1, dtype="float64", rng=seed)
        net.biases[0] = rng.normal(0, 1, 14)
        x = saw.counterexample(net)
        assert x is not None
        assert abs(net([[x]])[0, 0] - (round(16 * x) % 2)) >= 0.5


def test_corners_of_a_random_network_are_where_its_slope_changes():
    for seed in range(5):
        net = lamina.Network(
            1, (5, 4), 1, dtype="float64", rng=seed, skips={2: (0,), 3: (1,)}, residual=False
        )
        net.biases[0] = np.random.default_rng(seed).normal(0, 0.5, 5)
        corners = exact_corners(net, Fraction(-2), Fraction(2))
        assert all(a[0] < b[0] for a, b in itertools.pairwise(corners))
        x = np.array([float(c[0]) for c in corners])
        dense = np.linspace(-2, 2, 4001)[:, None]
        straight = np.interp(dense[:, 0], x, [float(c[1]) for c in corners])
        np.testing.assert_allclose(net(dense)[:, 0], straight, atol=1e-12)


def test_bad_calls_are_one_sentence():
    for n in (0, 17, 2.5):
        with pytest.raises(SpecError, match="n_folds"):
            sawtooth(n)
    with pytest.raises(SpecError, match="relu or identity units"):
        exact_corners(lamina.Network(1, (3,), 1, activation="tanh"), Fraction(0), Fraction(1))


def test_learned_networks_are_certified_at_equal_width():
    a = approximate("sin(6*x)", (0, 1), 0.02)
    learned = learned_against(a, n_seeds=2, max_epochs=200)
    x = np.linspace(0, 1, 20_001)[:, None]
    for net, certificate in zip(learned.networks, learned.certificates, strict=True):
        assert net.spec.widths == (a.n_units,)
        dense = np.abs(net(x)[:, 0] - np.sin(6 * x[:, 0])).max()
        assert dense <= certificate.upper <= 1.5 * dense
        assert dense < 0.5  # it did learn
    with pytest.raises(SpecError, match="no gradient"):
        learned_against(approximate("x", (0, 1), 0.2, "step"))
    with pytest.raises(SpecError, match="with units"):
        learned_against(approximate("x", (0, 1), 2.0))
    with pytest.raises(SpecError, match=r"expected what theory.approximate returns, got str"):
        learned_against("x")
