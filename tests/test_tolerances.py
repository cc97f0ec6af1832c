"""The comparator is tested itself: a comparator that accepts nonsense makes every test pass."""

import numpy as np
import pytest
from tests.tolerances import (
    LOOSEST,
    assert_close,
    assert_same_bits,
    assert_small,
    difference_step,
    finite_difference,
    rounding,
    sampling,
)

VALUES = np.linspace(-2.0, 3.0, 12).reshape(3, 4)


def test_equal_values_are_close():
    assert_close(VALUES, VALUES.copy(), 0.0)
    assert_close(VALUES.tolist(), VALUES, 0.0)
    assert_close(2.5, 2.5, 0.0)
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)), 0.0)
    assert_close(np.zeros(3), np.zeros(3), 0.0)


def test_an_error_is_close_up_to_the_tolerance_of_the_largest_value():
    assert_close(VALUES + 0.9e-6 * 3.0, VALUES, 1e-6)
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close(VALUES + 1.1e-6 * 3.0, VALUES, 1e-6)


@pytest.mark.parametrize(
    ("actual", "expected", "reason"),
    [
        (np.zeros_like(VALUES), VALUES, "exceeds"),
        (VALUES, np.zeros_like(VALUES), "exceeds"),
        (-VALUES, VALUES, "exceeds"),
        (VALUES.T, VALUES, "shape"),
        (VALUES.ravel(), VALUES, "shape"),
        (VALUES[:1], VALUES, "shape"),
        (VALUES[:, :1], VALUES, "shape"),
        (1.0, np.ones(3), "shape"),
        (np.zeros(0), VALUES, "shape"),
        (np.where(VALUES > 2.9, np.nan, VALUES), VALUES, "not finite"),
        (np.where(VALUES > 2.9, np.inf, VALUES), VALUES, "not finite"),
        (VALUES, np.where(VALUES > 2.9, np.nan, VALUES), "expected values are not finite"),
        (np.full(3, np.nan), np.full(3, np.nan), "not finite"),
        (np.full(3, np.inf), np.full(3, np.inf), "not finite"),
    ],
)
def test_the_comparator_rejects(actual, expected, reason):
    with pytest.raises(AssertionError, match=reason):
        assert_close(actual, expected, LOOSEST)


@pytest.mark.parametrize("tolerance", [-1e-9, 1.0, np.inf, np.nan])
def test_a_tolerance_that_proves_nothing_is_rejected(tolerance):
    with pytest.raises(AssertionError, match="proves nothing"):
        assert_close(VALUES, VALUES, tolerance)
    with pytest.raises(AssertionError, match="proves nothing"):
        assert_small(0.0, 1.0, tolerance)


def test_small_accepts_what_rounds_to_zero_only():
    assert_small([1e-9, -1e-9], 1.0, 1e-8)
    for bad in ([2e-8], [-2e-8], [np.nan], [np.inf]):
        with pytest.raises(AssertionError):
            assert_small(bad, 1.0, 1e-8)


def test_same_bits_tells_signed_zeros_dtypes_and_shapes_apart():
    assert_same_bits(VALUES, VALUES.copy())
    assert_same_bits(VALUES[:, ::2], VALUES[:, ::2].copy())
    for bad in (VALUES.astype(np.float32), VALUES.ravel(), np.nextafter(VALUES, 9)):
        with pytest.raises(AssertionError):
            assert_same_bits(bad, VALUES)
    with pytest.raises(AssertionError):
        assert_same_bits(np.array([-0.0]), np.array([0.0]))


def test_tolerances_grow_with_eps_and_fan_in():
    assert rounding(np.float64, 10) == 10 * rounding(np.float64, 1)
    ratio = np.finfo(np.float32).eps / np.finfo(np.float64).eps
    assert rounding(np.float32) == rounding(np.float64) * ratio
    assert rounding(np.float64, 0) == rounding(np.float64, 1)
    assert difference_step() == pytest.approx(6.055e-6, rel=1e-3)
    # The promises of the first issue: 1e-6 in float64, for sums as long as its tests'.
    assert finite_difference(100) < 1e-6
    assert sampling(20_000) == pytest.approx(0.05)
