"""Formulas: what is read, what is refused and how, and their values against Python's own."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest

from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.theory import feature_map, parse_expression, polynomial_map
from lamina.theory.evaluate import exactly, in_float64
from lamina.theory.expression import FUNCTIONS

FORMULAS = {
    "sin(6*x)": lambda a, b: math.sin(6 * a),
    "x1*x2 - x2**3/7": lambda a, b: a * b - b**3 / 7,
    "-x1**2": lambda a, b: -(a**2),
    "2**-3 + x2**-2": lambda a, b: 0.125 + b**-2,
    "max(x1, x2, 0.5)": lambda a, b: max(a, b, 0.5),
    "min(x1, x2)": lambda a, b: min(a, b),
    "abs(x1) + sign(x1 - x2)": lambda a, b: abs(a) + ((a > b) - (a < b)),
    "exp(x1)*log(x2) + sqrt(x2)": lambda a, b: math.exp(a) * math.log(b) + math.sqrt(b),
    "tan(x1) - cos(pi*x2)": lambda a, b: math.tan(a) - math.cos(math.pi * b),
    "tanh(x1) + sigmoid(x2) + relu(x1) + e": lambda a, b: (
        math.tanh(a) + 1 / (1 + math.exp(-b)) + max(a, 0) + math.e
    ),
    "1 - +x1": lambda a, b: 1 - a,
    "3": lambda a, b: 3.0,
}


@pytest.mark.parametrize("text", FORMULAS)
def test_values_are_those_of_pythons_own_arithmetic(text):
    x = np.random.default_rng(0).uniform([-1.5, 0.1], [1.5, 3.0], (50, 2))
    wanted = [FORMULAS[text](a, b) for a, b in x.tolist()]
    np.testing.assert_allclose(
        in_float64(parse_expression(text), x), wanted, rtol=1e-14, atol=1e-14
    )


def test_decimals_are_exact_and_rational_formulas_stay_so():
    f = parse_expression("0.1*x1 + x2**-2 - relu(-1e-3)")
    assert exactly(f, [Fraction(1, 3), Fraction(2, 7)]) == Fraction(1, 30) + Fraction(49, 4)
    with pytest.raises(DataError, match=r"expected a rational formula.*'sin\(x\)'"):
        exactly(parse_expression("sin(x)"), [Fraction(1)])
    with pytest.raises(DataError, match=r"division by zero at \(0\)"):
        exactly(parse_expression("1/x"), [Fraction(0)])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("y + 1", r"expected the names x .*got 'y'\. Call the variables x1 to"),
        ("sin", r"got 'sin'\. Give the function its argument: sin\(x\)"),
        ("f(x)", r"expected the functions sin, cos.*got 'f'\. Use one"),
        ("__import__('os')", r"got '__import__'"),
        ("x.real", r"got 'x\.real'"),
        ("x.conjugate()", r"got 'x\.conjugate'"),
        ("(lambda: 1)()", r"got '\(?lambda: 1\)?'"),
        ("x[0]", r"got 'x\[0\]'"),
        ("x^2", r"got 'x\^2'\. Write powers with \*\*"),
        ("x < 1", r"got 'x < 1'"),
        ("x if x else 1", r"got 'x if x else 1'"),
        ("9**9**9", r"whole number from -1000 to 1000 after \*\*, got '9\*\*9'"),
        ("9**99999", r"after \*\*, got '99999'"),
        ("((x**900)**900)", r"at most 1000 factors"),
        ("x**0.5", r"after \*\*, got '0\.5'\. Write roots with sqrt"),
        ("x**x", r"after \*\*, got 'x'"),
        ("1e999999999", r"powers of ten up to 300"),
        ("1" * 61, r"at most 60 characters"),
        ("2j", r"expected real numbers"),
        ("'x'", r"expected real numbers"),
        ("True", r"expected real numbers"),
        ("sin(x, x)", r"expected one argument for sin, got 2"),
        ("max(x)", r"expected two or more arguments for max, got 1"),
        ("sin(x=1)", r"expected the functions"),
        ("max(*x)", r"."),
        ("x1001", r"got 'x1001'"),
        ("x0", r"got 'x0'"),
        ("2x", r"cannot be read at character"),
        ("sin(6*x", r"cannot be read at character"),
        ("x,x", r"expected one formula, got 2"),
        ("()", r"expected a formula, got"),
        ("", r"expected a formula, got nothing"),
        ("x\x00", r"cannot be read"),
        ("x+" * 1500 + "x", r"at most 2000 characters, got 3001"),
        ("-" * 1990 + "x", r"."),
        ("(" * 900 + "x" + ")" * 900, r"."),
    ],
)
def test_what_is_no_formula_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(SpecError, match=sentence) as caught:
        parse_expression(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("expression: expected ")
    assert len(str(caught.value)) < 400


def test_a_function_of_python_is_refused():
    with pytest.raises(SpecError, match="as text, got function"):
        parse_expression(lambda x: x)


def test_nothing_of_python_is_ever_called(monkeypatch):
    monkeypatch.setitem(sys.modules["builtins"].__dict__, "eval", None)
    monkeypatch.setitem(sys.modules["builtins"].__dict__, "exec", None)
    for name in FUNCTIONS:
        parse_expression(f"{name}(x1, x2)" if name in ("max", "min") else f"{name}(x1)")


def test_features_are_the_formulas_of_each_row():
    phi = feature_map("x1, x2, x1*x2")
    x = np.random.default_rng(0).normal(size=(20, 2))
    np.testing.assert_array_equal(phi(x), np.column_stack([x, x[:, 0] * x[:, 1]]))
    assert phi.names == ("x1", "x2", "x1*x2")
    assert (phi.d_in, len(phi)) == (2, 3)
    assert phi(np.empty((0, 2))).shape == (0, 3)


def test_features_of_fractions_are_exact_fractions():
    from decimal import Decimal

    phi = feature_map(["x1*x2", "x1/x2"])
    exact = phi(np.array([[Fraction(1, 3), Decimal("0.1")]], dtype=object))
    assert exact.dtype == object
    assert exact.tolist() == [[Fraction(1, 30), Fraction(10, 3)]]


def test_polynomial_features_are_all_monomials():
    from sklearn.preprocessing import PolynomialFeatures

    x = np.random.default_rng(1).normal(size=(7, 3))
    for only in (False, True):
        wanted = PolynomialFeatures(4, include_bias=False, interaction_only=only).fit_transform(x)
        ours = polynomial_map(3, 4, interaction_only=only)(x)
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)


def test_feature_maps_refuse_what_they_cannot_take():
    with pytest.raises(ShapeError, match=r"of shape \(n, 2\) or wider, got \(4, 1\)"):
        feature_map("x1*x2")(np.ones((4, 1)))
    with pytest.raises(DataError, match=r"'log\(x1\)' to be defined at every row.*row 1"):
        feature_map("log(x1)")([[1.0], [-1.0]])
    with pytest.raises(DataError, match="finite"):
        feature_map("x1")([[np.nan]])
    with pytest.raises(SpecError, match="at most 10000 features"):
        polynomial_map(100, 4)
    with pytest.raises(SpecError, match="expected formulas"):
        feature_map([])
    with pytest.raises(SpecError, match="expected formulas as text"):
        feature_map(3)
