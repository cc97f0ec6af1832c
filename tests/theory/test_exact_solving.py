"""The exact parts below the proofs: linear programs, linear systems, nearest points."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize

from lamina.theory.direct import in_cone_of_many, mix_to_zero
from lamina.theory.exact import as_points, root, solve, to_integers
from lamina.theory.linear_program import in_cone, positive_direction
from lamina.theory.min_norm import nearest_exact, nearest_float
from lamina.theory.padic import mix


def test_the_two_alternatives_of_the_linear_programs() -> None:
    rng = np.random.default_rng(3)
    answers = set()
    for _ in range(200):
        rows = rng.integers(-3, 4, (int(rng.integers(1, 12)), 3)).astype(object)
        v, weights = positive_direction(rows, [int(rng.integers(len(rows)))])
        answers.add(v is None)
        if v is not None:
            assert all(a > 0 for a in rows @ np.array(v, dtype=object))
        else:
            assert sum(weights.values()) == 1
            assert len(weights) <= 4
            assert min(weights.values()) > 0
            assert not any(sum(w * rows[i] for i, w in weights.items()))
        target = rng.integers(-3, 4, 3).tolist()
        v, weights = in_cone(rows, target)
        if v is not None:
            assert all(a >= 0 for a in rows @ np.array(v, dtype=object))
            assert np.dot(target, v) < 0
        else:
            assert min(weights.values(), default=1) >= 0
            assert (
                list(sum((w * rows[i] for i, w in weights.items()), np.zeros(3, object))) == target
            )
    assert answers == {True, False}


def test_bareiss_solves_exactly_and_knows_singular_systems() -> None:
    hilbert = [[Fraction(1, i + j + 1) for j in range(9)] for i in range(9)]
    common = 12252240 * 17 * 19
    whole = [[int(v * common) for v in row] for row in hilbert]
    x = [Fraction(k - 4, 7) for k in range(9)]
    right = [7 * sum(a * b for a, b in zip(row, x, strict=True)) for row in whole]
    assert solve(whole, [int(v) for v in right]) == [7 * v for v in x]
    assert solve([[0, 1], [1, 0]], [2, 3]) == [3, 2]
    assert solve([[1, 2], [2, 4]], [1, 2]) is None


def test_roots_beyond_float64() -> None:
    assert root(Fraction(2)) == 2**0.5
    assert root(Fraction(1, 10**500)) == pytest.approx(1e-250)
    assert root(Fraction(10**1000)) == np.inf
    assert root(Fraction(10**500)) == pytest.approx(1e250)


def test_integers_and_their_floats_are_the_same_points() -> None:
    whole = np.random.default_rng(0).integers(-(2**40), 2**40, (30, 3))
    a, b = as_points(whole, "x", "test"), as_points(whole / 2**20, "x", "test")
    for i in range(30):
        assert [v * 2**20 for v in b.row(i)] == a.row(i) == whole[i].tolist()
        for points in (a, b):
            rebuilt = zip(points.integers[i], points.shift, points.scale, strict=True)
            assert [Fraction(int(v) + m, s) for v, m, s in rebuilt] == points.row(i)


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_the_digits_of_dixon_and_the_elimination_of_bareiss_agree(size: int) -> None:
    rng = np.random.default_rng(size)
    for bits in (3, 60):
        rows = np.array(
            [[int(v) << (bits // 2) for v in r] for r in rng.integers(-9, 10, (size, size))],
            dtype=object,
        ) + rng.integers(-99, 100, (size, size)).astype(object)
        target = rng.integers(-9, 10, size).tolist()
        assert mix(rows, target) == solve(rows.T.tolist(), target)


def test_a_mix_of_fewer_rows_than_columns_exists_or_does_not() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(-(2**50), 2**50, (5, 9)).astype(object)
    weights = [Fraction(k - 2, 3 * k + 1) for k in range(5)]
    target = sum((w * row for w, row in zip(weights, rows, strict=True)), np.zeros(9, object))
    common = np.lcm.reduce([w.denominator for w in weights])
    found = mix(rows, [int(t * int(common)) for t in target])
    assert found == [w * int(common) for w in weights]
    assert mix(rows, [1] + [0] * 8) is None  # no mix gives it
    assert mix(np.concatenate([rows, rows[:1] * 2]), [0] * 9) is None  # dependent
    assert mix(np.array([[2**31 - 1]], dtype=object), [1]) is None  # zero modulo the prime


def test_certificates_on_a_guessed_support_are_exact_or_none() -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(-20, 21, (60, 6)).astype(object)
    floats = rows.astype(float) / 20
    target = (-rows.sum(axis=0)).tolist()
    v, extra = in_cone_of_many(rows, floats, target, -floats.sum(axis=0))
    assert v is None
    assert len(extra) <= 6
    assert min(extra.values()) > 0
    assert list(sum((w * rows[i] for i, w in extra.items()), np.zeros(6, object))) == target
    # as weights of all rows, far more than 7: Carathéodory
    every = {i: (1 + float(extra.get(i, 0))) for i in range(60)}
    zero = mix_to_zero(rows, floats, every)
    assert zero is not None
    assert len(zero) <= 7
    assert sum(zero.values()) == 1
    assert min(zero.values()) > 0
    assert not any(sum((w * rows[i] for i, w in zero.items()), np.zeros(6, object)))
    rows[:, 0] = np.abs(rows[:, 0]) + 1  # now there is no such mix, whatever is guessed
    floats = rows.astype(float) / 20
    assert mix_to_zero(rows, floats, every) is None
    target = (-rows.sum(axis=0)).tolist()
    v, extra = in_cone_of_many(rows, floats, target, -floats.sum(axis=0))
    assert extra is None
    assert all(a >= 0 for a in rows @ np.array(v, dtype=object))
    assert sum(a * b for a, b in zip(target, v, strict=True)) < 0
    rows[:40, 0] = 0  # and now it is zero on a face of many rows
    floats = rows.astype(float) / 20
    target = (-rows.sum(axis=0)).tolist()
    v, extra = in_cone_of_many(rows, floats, target, -floats.sum(axis=0))
    assert extra is None
    products = (rows @ np.array(v, dtype=object)).tolist()
    assert set(products[:40]) == {0}
    assert min(products[40:]) > 0


@pytest.mark.parametrize("seed", range(8))
def test_the_nearest_point_of_a_polytope_is_that_of_a_quadratic_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = 12, 2 + seed % 4
    corners = rng.integers(-9, 10, (n, d)) + rng.integers(0, 12)

    def lowest(direction: object) -> tuple[tuple[int], object]:
        i = int(np.argmin(corners @ np.array(direction)))
        return (i,), corners[i].tolist()

    def lowest_float(direction: np.ndarray) -> tuple[tuple[int], np.ndarray]:
        i = int(np.argmin(corners @ direction))
        return (i,), corners[i] / 20

    guess = nearest_float(lowest_float, d)
    for start in (None, guess):
        found = nearest_exact(lowest, lambda c: corners[c[0]].tolist(), d, start)
        assert sum(found.weights) == 1
        assert min(found.weights) > 0
        x = [
            sum(
                w * int(corners[c[0], j]) for c, w in zip(found.corners, found.weights, strict=True)
            )
            for j in range(d)
        ]
        assert x == list(found.point)
        squared = sum(a * a for a in x)
        # optimal: no corner is nearer along x
        assert min(sum(a * int(b) for a, b in zip(x, c, strict=True)) for c in corners) >= squared
    assert np.allclose(np.array(guess.point) * 20, [float(a) for a in found.point], atol=1e-6)
    best = minimize(
        lambda w: ((w @ corners) ** 2).sum(),
        np.full(n, 1 / n),
        jac=lambda w: 2 * corners @ (w @ corners),
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n)},
        method="SLSQP",
        options={"maxiter": 400, "ftol": 1e-14},
    )
    assert float(squared) == pytest.approx(best.fun, rel=1e-4, abs=1e-6)


def test_the_nearest_point_from_a_guess_of_dependent_corners() -> None:
    from lamina.theory.min_norm import Nearest

    corners = [[1, 1], [1, -1], [1, 0], [3, 0]]

    def lowest(direction: list[int]) -> tuple[tuple[int], list[int]]:
        i = min(
            range(4), key=lambda k: sum(a * b for a, b in zip(direction, corners[k], strict=True))
        )
        return (i,), corners[i]

    guess = Nearest(((0,), (1,), (2,), (3,)), (0.25,) * 4, ())
    found = nearest_exact(lowest, lambda c: corners[c[0]], 2, guess)
    assert found.point == (1, 0)


def test_short_integers_of_a_rational_vector() -> None:
    assert to_integers([Fraction(1, 2), Fraction(-1, 3), 0]) == [3, -2, 0]
    assert to_integers([4, 6]) == [2, 3]
    assert to_integers([0, 0]) == [0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_a_good_guess_leaves_the_exact_search_next_to_nothing_to_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(-(2**40), 2**40, (300, 12))
    corners[:, 0] = np.abs(corners[:, 0]) + 2**36
    asked = []

    def lowest(direction: object) -> tuple[tuple[int], object]:
        asked.append(direction)
        i = int(np.argmin(corners.astype(object) @ np.array(direction, dtype=object)))
        return (i,), corners[i].tolist()

    def lowest_float(direction: np.ndarray) -> tuple[tuple[int], np.ndarray]:
        i = int(np.argmin(corners @ direction))
        return (i,), corners[i] / 2.0**40

    guess = nearest_float(lowest_float, 12)
    found = nearest_exact(lowest, lambda c: corners[c[0]].tolist(), 12, guess)
    assert len(asked) <= 4  # two a search, rounded and exact
    assert len(found.corners) == len(guess.corners)
