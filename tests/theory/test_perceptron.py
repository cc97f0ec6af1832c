"""The perceptron rule against a plain loop, and Novikoff's bound against it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize

from lamina import SpecError, theory

CORNERS = [[0, 0], [0, 1], [1, 0], [1, 1]]


def plain_rule(
    x: list[list[Fraction]], y: list[int], epochs: int
) -> tuple[list[Fraction], list[int]]:
    w = [Fraction(0)] * (len(x[0]) + 1)
    mistakes = []
    for _ in range(epochs):
        before = len(mistakes)
        for i, row in enumerate(x):
            s = 1 if y[i] else -1
            if s * sum(a * b for a, b in zip(w, [*row, 1], strict=True)) <= 0:
                w = [a + s * b for a, b in zip(w, [*row, 1], strict=True)]
                mistakes.append(i)
        if len(mistakes) == before:
            break
    return w, mistakes


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_plain_rule_and_keeps_novikoffs_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(90, 1 + seed)) if seed % 2 else rng.integers(-4, 5, (90, 1 + seed)) / 3
    y = (x[:, 0] * 2 - x.sum(axis=1) / 3 > 0.1).astype(int)
    x[:, 0] += np.where(y == 1, 0.5, -0.5)
    run = theory.perceptron(x, y)
    w, mistakes = plain_rule([[Fraction(v) for v in row] for row in x.tolist()], y.tolist(), 1000)
    assert run.converged
    assert (*run.weights, run.bias) == (*w,)
    assert list(run.mistakes) == mistakes
    assert sum(run.mistakes_by_epoch) == run.n_mistakes <= run.bound
    assert run.verify()
    z = np.where(y == 1, 1.0, -1.0)[:, None] * np.column_stack([x, np.ones(len(x))])
    assert float(run.radius_squared) == pytest.approx((z * z).sum(axis=1).max())
    start = np.asarray(run.best)
    best = minimize(
        lambda v: v @ v,
        2 * start / (z @ start).min(),
        jac=lambda v: 2 * v,
        constraints={"type": "ineq", "fun": lambda v: z @ v - 1, "jac": lambda v: z},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert float(run.margin_squared) == pytest.approx(1 / best.fun, rel=1e-5)


def test_on_and_it_errs_18_times_of_at_most_51() -> None:
    run = theory.perceptron(CORNERS, [0, 0, 0, 1])
    w, mistakes = plain_rule(CORNERS, [0, 0, 0, 1], 100)
    assert (run.n_mistakes, run.bound) == (len(mistakes), 51) == (18, 51)
    history = run.history
    assert len(history) == 19
    assert history[0] == ((0, 0), 0)
    assert (*history[-1][0], history[-1][1]) == (*w,)


def test_on_xor_it_goes_round_for_ever() -> None:
    run = theory.perceptron(CORNERS, [0, 1, 1, 0])
    assert not run.converged
    assert run.cycle == (0, 1)
    assert run.bound is None
    assert run.margin_squared == 0
    assert run.verify()
    w, _ = plain_rule(CORNERS, [0, 1, 1, 0], run.cycle[1])
    assert not any(w)


def test_a_cap_ends_it() -> None:
    x, y = [[0.0], [1.0]], [0, 1]
    assert theory.perceptron(x, y).converged
    run = theory.perceptron([[0], [1000], [1001]], [0, 0, 1], max_epochs=7)
    assert not run.converged
    assert len(run.mistakes_by_epoch) == 7
    assert run.verify()
    with pytest.raises(SpecError, match="max_epochs"):
        theory.perceptron(x, y, max_epochs=0)


def test_verify_refuses_forged_runs() -> None:
    run = theory.perceptron(CORNERS, [0, 0, 0, 1])
    for forged in (
        {"bias": run.bias + 1},
        {"mistakes": run.mistakes[:-1]},
        {"mistakes": run.mistakes[::-1]},
        {"radius_squared": run.radius_squared + 1},
        {"margin_squared": run.margin_squared * 2},
        {"margin_squared": Fraction(0)},
    ):
        assert not replace(run, **forged).verify(), forged
