"""Constructed networks: within the bound at dense samples, with close to the fewest units."""

import numpy as np
import pytest

from lamina.core.errors import DataError, SpecError
from lamina.theory import approximate
from lamina.theory.evaluate import in_float64
from lamina.theory.interval import Interval
from lamina.theory.piecewise import bends, n_proved_bends, n_proved_steps, steps

BUMP = "exp(-4*(x1**2 + x2**2))"
ONE_D = [("abs(x)", (-1, 1)), ("sin(6*x)", (0, 1)), ("exp(x)", (0, 2)), ("sqrt(x)", (0, 1))]


def dense_error(a, n=100_001):
    x = np.random.default_rng(0).uniform(a.box[:, 0], a.box[:, 1], (n, len(a.box)))
    x = np.concatenate([x, a.box.T, a.certificate.at[np.newaxis]]).astype(a.network.dtype)
    error = np.abs(a.network(x)[:, 0] - in_float64(a.expression, x.astype(np.float64)))
    return float(error.max())


@pytest.mark.parametrize("activation", ["relu", "step", "tanh", "sigmoid"])
@pytest.mark.parametrize(("f", "box"), ONE_D)
def test_bound_holds_and_is_within_three_times_the_sampled_error(f, box, activation):
    a = approximate(f, box, tolerance=0.02, activation=activation)
    dense = dense_error(a)
    assert a.reached
    assert dense <= a.error_bound <= 0.02
    assert a.error_bound <= 3 * dense
    assert a.network.spec.widths == (a.n_units,)
    assert a.network.spec.activations == (activation,)
    if activation in ("relu", "step"):
        assert a.n_units_at_least <= a.n_units <= 1.1 * a.n_units_at_least + 3


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_a_bump_in_two_dimensions(activation):
    a = approximate(BUMP, [(-1, 1), (-1, 1)], 0.05, activation)
    dense = dense_error(a)
    assert dense <= a.error_bound <= 0.05
    assert a.error_bound <= 3 * dense
    assert a.n_units <= 100


def test_three_dimensions():
    a = approximate("x1*x2 + x3**2", [(-1, 1)] * 3, 0.2, "tanh", max_seconds=20)
    assert a.reached
    assert dense_error(a) <= a.error_bound <= 0.2


def test_boxes_far_from_the_origin_and_of_unequal_sides():
    a = approximate("sin((x1 - 1000)/3) * (x2/100)", [(1000, 1004), (-100, 50)], 0.1, "tanh")
    assert a.reached
    assert dense_error(a) <= a.error_bound


def test_relu_counts_come_close_to_theory_as_the_tolerance_falls():
    a = approximate("sin(6*x)", (0, 1), 1e-4)
    assert a.reached
    assert a.n_units == pytest.approx(a.n_units_theory, rel=0.06)
    assert a.n_units_at_least <= a.n_units <= a.n_units_at_least + 6


def test_no_polygon_with_fewer_bends_comes_as_close():
    # An independent bound: the best free straight line on each of k even pieces of x^2 misses by
    # h^2 / 16 |f''|; k + 1 bends at tolerance eps leave one piece of length 1 / (k + 1) unbent.
    eps = 1e-3
    a = approximate("x**2", (0, 1), eps)
    fewest = int(np.ceil(np.sqrt(2 / (16 * eps)))) - 1
    assert fewest - 1 <= a.n_units_at_least <= a.n_units <= fewest + 2


def test_only_bends_and_steps_that_hold_are_counted():
    x = np.linspace(0, 1, 1001)
    f = Interval.of(np.sin(6 * x))
    found = bends(x, f.lo, 0.01)
    assert n_proved_bends(x, f, found, 0.01) == len(found) > 5
    assert n_proved_bends(x, f, found, 0.011) == 0  # each was taken as short as it can be
    assert n_proved_bends(x, Interval.of(3 * x), found, 0.01) == 0
    pairs = steps(f.lo, 0.01)
    assert n_proved_steps(f, pairs, 0.01) == len(pairs) > 100
    assert n_proved_steps(f, pairs, 0.02) == 0
    assert n_proved_steps(Interval(f.lo - 1, f.hi + 1), pairs, 0.01) == 0


@pytest.mark.parametrize(("f", "box"), [("sqrt(x)", (0, 1)), ("sin(1/x)", (0.01, 1))])
def test_samples_are_dense_where_f_bends_most(f, box):
    a = approximate(f, box, 1e-3)
    assert a.reached
    assert dense_error(a) <= a.error_bound
    assert a.n_units <= 1.03 * a.n_units_at_least + 3


def test_more_units_than_there_may_be_leave_the_best_there_is():
    a = approximate("sin(6*x)", (0, 1), 2e-9, max_seconds=1.0)
    assert not a.reached
    assert dense_error(a) <= a.error_bound < 1e-3
    assert 100 < a.n_units <= 20_000


def test_float32_is_certified_with_its_rounding():
    a = approximate("sin(6*x)", (0, 1), 0.01, dtype="float32")
    assert a.network.dtype == np.float32
    assert dense_error(a) <= a.error_bound <= 0.01


def test_a_constant_takes_no_unit_and_a_line_one():
    assert approximate("3", (0, 1), 0.01).n_units == 0
    assert approximate("2*x + 1", (0, 1), 1e-6).n_units == 1
    assert approximate("sin(x)", (0, 1), 5.0).n_units == 0


@pytest.mark.alone
@pytest.mark.parametrize("activation", ["relu", "step", "tanh"])
def test_what_cannot_be_reached_is_said_with_a_bound_that_holds(activation):
    a = approximate("sign(x - 0.3)", (0, 1), 0.01, activation, max_seconds=1.0)
    assert not a.reached
    assert dense_error(a) <= a.error_bound <= 2.0
    assert a.seconds < 4


@pytest.mark.alone
def test_max_seconds_gives_a_looser_bound():
    a = approximate("sin(9*x1)*cos(9*x2)", [(-1, 1), (-1, 1)], 1e-3, "relu", max_seconds=0.5)
    assert not a.reached
    assert dense_error(a) <= a.error_bound < np.inf
    assert a.seconds < 5


def test_the_same_call_gives_the_same_network():
    one, two = (approximate(BUMP, [(-1, 1), (-1, 1)], 0.1, "tanh") for _ in range(2))
    np.testing.assert_array_equal(one.network.theta, two.network.theta)
    assert one.error_bound == two.error_bound


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (("sin(q)", (0, 1), 0.1), SpecError, "got 'q'"),
        (("sin(x)", (1, 1), 0.1), SpecError, "low < high"),
        (("sin(x)", (0, 1), 0.0), SpecError, "tolerance"),
        (("sin(x)", (0, 1), -1), SpecError, "tolerance"),
        (("sin(x)", (0, 1), np.nan), SpecError, "tolerance"),
        (("sin(x)", (0, 1), 0.1, "gelu"), SpecError, "relu, sigmoid, tanh, step"),
        (("x1", [(0, 1)] * 4, 0.1), SpecError, "at most 3 dimensions, got 4"),
        (("x2", (0, 1), 0.1), SpecError, "got 'x2' with x2"),
        (("x1*x2", [(0, 1)] * 2, 0.1, "step"), SpecError, "one dimension only"),
        (("log(x)", (-1, 1), 0.1), DataError, "to be defined"),
        (("1/x", (-1, 1), 0.1), DataError, r"near \(0\)"),
    ],
)
def test_bad_calls_are_one_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        approximate(*call)
    assert "\n" not in str(caught.value)
