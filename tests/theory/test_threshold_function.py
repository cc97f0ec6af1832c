"""Threshold functions: known counts, exact certificates, agreement with an independent LP."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lamina import theory
from lamina.core.errors import DataError, SpecError
from lamina.theory.exact_simplex import Optimum, Ray, maximise
from lamina.theory.threshold_function import _as_mixes, is_threshold_function


def tables(n: int) -> list[list[int]]:
    """Every truth table of n variables."""
    return [[value >> row & 1 for row in range(1 << n)] for value in range(1 << (1 << n))]


@pytest.mark.parametrize(("n", "count"), [(1, 4), (2, 14), (3, 104)])  # OEIS A000609
def test_all_threshold_functions_of_up_to_three_variables_are_recognised(n: int, count: int):
    results = [is_threshold_function(table) for table in tables(n)]
    assert all(result.verify() for result in results)
    assert sum(result.is_threshold for result in results) == count
    assert all(result.is_minimal for result in results if result.is_threshold)


def test_all_1882_threshold_functions_of_four_variables_are_recognised():
    half = tables(4)[::2]  # those that are 0 at 0000; the others are their negations
    assert 2 * sum(is_threshold_function(table).is_threshold for table in half) == 1882


def test_random_functions_of_four_variables_agree_with_an_independent_linear_program():
    from scipy.optimize import linprog

    rows = np.array([[r >> 3 & 1, r >> 2 & 1, r >> 1 & 1, r & 1, 1] for r in range(16)])
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(30, 4))
    close = [(rows[:, :4] @ w > w.sum() / 2).astype(int) for w in weights]
    for table in [*rng.integers(0, 2, (30, 16)), *close]:
        sides = np.where(table, 1, -1)[:, np.newaxis] * rows
        feasible = linprog(np.zeros(5), -sides, -np.ones(16), bounds=(None, None)).status == 0
        result = is_threshold_function(table)
        assert result.is_threshold == feasible
        assert result.verify()


@pytest.mark.parametrize("n", [6, 9, 12])
def test_functions_of_many_variables_have_a_certificate_either_way(n: int):
    rng = np.random.default_rng(n)
    x = np.array([[r >> i & 1 for i in range(n)] for r in range(1 << n)])
    w = rng.integers(-9, 10, n)
    yes = is_threshold_function(x @ w >= 2)
    no = is_threshold_function((x[:, 0] & x[:, 1] | x[:, 2] & x[:, 3]) & (x.sum(axis=1) < n))
    assert yes.is_threshold
    assert yes.verify()
    assert not no.is_threshold
    assert no.verify()


@pytest.mark.parametrize("n", [5, 7])
def test_rising_functions_have_a_certificate_either_way(n: int):
    rng = np.random.default_rng(n)
    x = np.array([[r >> i & 1 for i in range(n)] for r in range(1 << n)])
    decided = []
    for _ in range(60):
        products = rng.random((int(rng.integers(2, 7)), n)) < 0.5
        signs = rng.integers(0, 2, n)
        table = [any(all(row[p] == signs[p]) for p in products) for row in x]
        result = is_threshold_function(table)
        assert result.verify()
        decided.append(result.is_threshold)
    assert 5 < sum(decided) < 55


def test_mixtures_are_raised_to_one_mean():
    ray = Ray((Fraction(2), Fraction(1), Fraction(1)))
    low, high = _as_mixes(ray, np.array([[1, 0, 0]]), np.array([[1, 1, 0], [1, 0, 1]]))
    assert low == high == {(1, 1, 0): Fraction(1, 2), (1, 0, 1): Fraction(1, 2)}


def test_a_wrong_certificate_does_not_verify():
    yes = is_threshold_function("a & (b | c)")
    assert (yes.weights, yes.threshold, yes.bias) == ((2, 1, 1), 3, -2.5)
    assert not replace(yes, threshold=2).verify()
    assert not replace(yes, weights=(1, 1, 1)).verify()
    no = is_threshold_function("a & b | c & d")
    assert no.verify()
    assert not replace(no, false_mix=no.true_mix).verify()
    assert not replace(no, point=(Fraction(1), *(no.point or ())[1:])).verify()
    first = next(iter(no.true_mix))
    assert not replace(no, true_mix={**no.true_mix, first: Fraction(2)}).verify()


def test_xor_lies_at_the_middle_of_both_sides():
    result = is_threshold_function("a ^ b")
    assert result.point == (Fraction(1, 2), Fraction(1, 2))
    assert set(result.true_mix.values()) == set(result.false_mix.values()) == {Fraction(1, 2)}


def test_the_simplex_method_finds_what_scipy_finds():
    from scipy.optimize import linprog

    rng = np.random.default_rng(1)
    for _ in range(20):
        m, n = rng.integers(1, 6, 2)
        c, a, b = rng.integers(-5, 6, n), rng.integers(-5, 6, (m, n)), rng.integers(0, 9, m)
        ours, theirs = maximise(c, a, b), linprog(-c, a, b)
        if isinstance(ours, Ray):
            assert theirs.status == 3  # unbounded
            assert sum(int(v) * x for v, x in zip(c, ours.x, strict=True)) > 0
        else:
            assert isinstance(ours, Optimum)
            assert float(ours.value) == pytest.approx(-theirs.fun, abs=1e-9)
            assert sum(int(v) * p for v, p in zip(b, ours.prices, strict=True)) == ours.value


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (" & ".join("abcdefghijklmn"), SpecError, "1 to 12 variables, got 14"),
        ([0, 1, 1], DataError, "2, 4, 8"),
        ([0, 2], DataError, "only 0 and 1"),
        (np.zeros((4, 2)), SpecError, "2 outputs"),
        ("1", SpecError, "got 0"),
    ],
)
def test_bad_functions_are_refused_in_a_sentence(function: object, error: type, says: str):
    with pytest.raises(error, match=says):
        theory.is_threshold_function(function)
