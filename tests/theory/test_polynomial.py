"""Polynomials stay away from what is none: known values, and every polynomial that is tried."""

from fractions import Fraction

import numpy as np
import pytest

from lamina.core.errors import SpecError
from lamina.theory import polynomial_distance
from lamina.theory.polynomial import PolynomialDistance


def test_known_best_errors_are_met():
    # Chebyshev: x^n has the best error 2^(1-n) among polynomials of degree n - 1 on [-1, 1].
    for n in (1, 2, 3, 4, 6):
        found = polynomial_distance(f"x**{n}", n - 1)
        assert float(found.bound) == pytest.approx(2.0 ** (1 - n), rel=1e-5)
        assert found.bound <= Fraction(1, 2 ** (n - 1))
    assert polynomial_distance("abs(x)", 3).bound == Fraction(1, 8)
    # Bernstein's constant: n E_n(|x|) -> 0.28017.
    found = polynomial_distance("abs(x)", 40)
    assert 40 * float(found.bound) == pytest.approx(0.28017, rel=2e-3)


@pytest.mark.parametrize(
    ("f", "wanted"), [("abs(x)", 0.5), ("cos(3*x)", (1 - np.cos(3)) / 2), ("exp(x)", np.sinh(1))]
)
def test_constants_stay_half_the_range_away(f: str, wanted: float) -> None:
    found = polynomial_distance(f, 0)
    assert found.verify()
    assert float(found.bound) == pytest.approx(wanted, rel=1e-5)
    assert polynomial_distance("3", 0).bound == 0


def test_a_polynomial_of_the_degree_is_no_distance_away():
    assert polynomial_distance("1 - 2*x + x**3/7", 3).bound == 0


@pytest.mark.parametrize("f", ["abs(x)", "exp(x)", "sin(6*x)", "relu(x - 0.2)"])
@pytest.mark.parametrize("degree", [0, 1, 2, 5, 8])
def test_no_fitted_polynomial_beats_the_bound(f, degree):
    found = polynomial_distance(f, degree, (-1, 2))
    assert found.verify()
    x = np.unique([*np.linspace(-1, 2, 4001), *map(float, found.points)])
    y = {
        "abs(x)": np.abs(x),
        "exp(x)": np.exp(x),
        "sin(6*x)": np.sin(6 * x),
        "relu(x - 0.2)": np.maximum(x - 0.2, 0),
    }[f]
    rng = np.random.default_rng(0)
    for _ in range(20):
        weight = rng.uniform(0, 1, len(x)) ** 2
        fitted = np.polynomial.Polynomial.fit(x, y, degree, w=weight)
        assert np.abs(fitted(x) - y).max() >= float(found.bound) * (1 - 1e-9)
    best = np.abs(found.polynomial(x) - y).max()
    assert (
        float(found.bound) * (1 - 1e-9) <= best <= float(found.bound) * 1.01
    )  # the bound is sharp


def test_verify_sees_every_part_of_the_proof():
    p = polynomial_distance("abs(x)", 3)
    for change in (
        {"bound": p.bound * 2},
        {"weights": (p.weights[0] * 2, *p.weights[1:])},
        {"points": (Fraction(-2), *p.points[1:])},
        {"degree": 4},
        {"values": ((Fraction(9), Fraction(9)), *p.values[1:])},
    ):
        broken = PolynomialDistance(**{**p.__dict__, **change})
        assert not broken.verify(), change


def test_bad_calls_are_one_sentence():
    for call, sentence in (
        (("x2", 3), "a function of x alone"),
        (("x", 41), "at most 40"),
        (("x", -1), "degree"),
        (("1/x", 3), "to be defined"),
        (("x", 2, [(0, 1), (0, 1)]), "at most 1 dimensions"),
    ):
        with pytest.raises(SpecError, match=sentence):
            polynomial_distance(*call)


@pytest.mark.parametrize(
    ("text", "degree"),
    [
        ("x**2", 2),
        ("pi*x**3/e - sin(1)", 3),
        ("-(x + 1)**2 * x / 3**-2", 3),
        ("x**0", 0),
        ("sin(x)**0 + max(1, 2)", 0),
    ],
)
def test_a_polynomial_is_known_from_its_degree_on(text: str, degree: int) -> None:
    found = polynomial_distance(text, degree)
    assert found.is_polynomial
    assert found.bound == 0
    if degree:
        below = polynomial_distance(text, degree - 1)
        assert not below.is_polynomial
        assert below.bound > 0


@pytest.mark.parametrize("text", ["abs(x)", "exp(x)", "1/(x + 2)", "(x + 2)**-1", "2/(x*x + 1)"])
def test_what_is_no_polynomial_is_never_called_one(text: str) -> None:
    assert not polynomial_distance(text, 40).is_polynomial
