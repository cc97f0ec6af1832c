"""Linear separability: exact answers against construction, linear programs and closed forms."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog
from sklearn.svm import SVC
from tests.theory.point_sets import KNOWN, point_set

from lamina import DataError, ShapeError, SpecError, theory

CORNERS = [[0, 0], [0, 1], [1, 0], [1, 1]]
HALF = Fraction(1, 2)


def check(seed: int) -> None:
    """Hold that a random point set gets a proof that holds, and the answer of a float LP."""
    kind, x, y = point_set(seed)
    r = theory.separability(x, y, max_margin=seed % 3 == 0)
    assert r.verify(), (seed, kind)
    assert r.kind in KNOWN.get(kind, (r.kind,)), (seed, kind, r.kind)
    assert r.separable or len(r.support) <= r.points.d + 2  # Carathéodory
    gap = float_gap(x, y)
    if gap > 1e-6:  # below that a float LP decides nothing
        assert r.separable, (seed, kind, gap)
    elif kind in ("integers", "decimals", "fractions", "ties", "small"):  # gaps there are larger
        assert not r.separable, (seed, kind, gap)


def float_gap(x: object, y: list[int]) -> float:
    """Return the largest gap that SciPy's HiGHS finds, weights in [-1, 1], columns scaled."""
    values = np.array(x, dtype=float)
    spread = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    signs = np.where(np.array(y) == 1, 1.0, -1.0)[:, np.newaxis]
    z = signs * np.column_stack([scaled, np.ones(len(scaled))])
    result = linprog(
        np.append(np.zeros(z.shape[1]), -1.0),
        A_ub=np.column_stack([-z, np.ones(len(z))]),
        b_ub=np.zeros(len(z)),
        bounds=[*[(-1, 1)] * z.shape[1], (0, 1)],
        method="highs",
    )
    assert result.status == 0
    return float(-result.fun)


@pytest.mark.parametrize("seed", range(120))
def test_random_point_sets_are_decided_and_the_proof_holds(seed: int) -> None:
    check(seed)


@pytest.mark.slow
def test_a_thousand_point_sets_are_decided_and_the_proofs_hold() -> None:
    for seed in range(1000):
        check(seed)


def test_xor_has_the_centre_of_the_square_as_certificate() -> None:
    r = theory.separability(CORNERS, [0, 1, 1, 0])
    assert r.weights is r.bias is r.margin is None
    assert r.positive_mix == r.negative_mix == r.point == (HALF, HALF)
    assert (r.kind, r.support, r.verify()) == ("none", (0, 1, 2, 3), True)
    assert np.allclose(r.positive_mix @ np.array([[0, 1], [1, 0]]), r.point)


@pytest.mark.parametrize(
    "outputs", [o for o in product([0, 1], repeat=4) if len(set(o)) == 2], ids=str
)
def test_of_two_inputs_all_functions_but_xor_and_its_negation_are_separable(
    outputs: tuple[int, ...],
) -> None:
    r = theory.separability(CORNERS, outputs)
    assert r.separable == (outputs not in ((0, 1, 1, 0), (1, 0, 0, 1)))
    assert r.verify()


def test_of_three_inputs_exactly_104_functions_are_separable() -> None:
    cube = list(product([0, 1], repeat=3))
    found = 2  # the constants, which have one class
    for outputs in product([0, 1], repeat=8):
        if 0 < sum(outputs) < 8:
            r = theory.separability(cube, outputs)
            assert r.verify()
            found += r.separable
    assert found == 104  # Muroga 1971; OEIS A000609


def test_a_float_is_its_binary_value_and_text_is_its_decimal() -> None:
    # 0.1 + 0.2 is above 0.3 in float64, but not in decimals
    floats = theory.separability([[0.3], [0.1 + 0.2]], [0, 1])
    assert floats.separable
    assert floats.margin == pytest.approx(2.0**-55, rel=0.02)  # half of one unit in the last place
    for three in ("0.3", Decimal("0.3"), Fraction(3, 10)):
        assert not theory.separability(
            [[three], [Fraction("0.1") + Fraction("0.2")]], [0, 1]
        ).separable
    assert theory.separability([[2**53], [2**53 + 1]], [0, 1]).separable  # one float64


def test_coordinates_far_beyond_float64_are_decided() -> None:
    huge, tiny = 10**400, Fraction(1, 10**400)
    for max_margin in (False, True):
        r = theory.separability([[huge], [huge + tiny]], ["a", "b"], max_margin=max_margin)
        assert r.separable
        assert r.verify()
        assert not r.float_separates
        assert r.weights.shape == (1,)
        assert abs(r.bias) > 0  # perhaps infinite, no error
    wide = np.array([[1e300, 5e-324], [1e300, 0.0], [-1e300, 0.0]])
    r = theory.separability(wide, [1, 0, 0])
    assert r.separable
    assert r.verify()


def test_touching_classes_are_weakly_separable_only() -> None:
    r = theory.separability([[0], [1], [1], [2]], [0, 0, 1, 1])
    assert (r.kind, r.point, r.support) == ("weak", (1,), (1, 2))
    assert -r.weak_bias / r.weak_weights[0] == 1
    assert r.weights is None
    assert r.verify()
    segment = theory.separability([[0, 0], [2, 0], [1, 0], [1, 1]], [0, 0, 1, 1])
    assert segment.kind == "weak"
    assert segment.verify()


def test_identical_classes_have_no_plane_at_all() -> None:
    r = theory.separability([[3, 4], [3, 4]], ["no", "yes"])
    assert r.kind == "none"
    assert r.positive_mix == r.negative_mix == (1,)
    assert r.verify()


def test_the_maximum_margin_is_that_of_the_closed_form_and_of_a_support_vector_machine() -> None:
    r = theory.separability(CORNERS, [0, 0, 0, 1], max_margin=True)
    assert (*r.exact_weights, r.exact_bias) == (2, 2, -3)
    assert r.margin_squared == Fraction(1, 8)
    assert r.support == (1, 2, 3)
    rng = np.random.default_rng(0)
    for d in (2, 5, 10):
        x = rng.normal(size=(60, d))
        y = (x[:, 0] + 0.3 * x[:, 1] > 0.2).astype(int)
        x[:, 0] += np.where(y == 1, 0.2, -0.2)
        r = theory.separability(x, y, max_margin=True)
        svm = SVC(kernel="linear", C=1e8, tol=1e-8).fit(x, y)
        assert r.margin == pytest.approx(1 / np.linalg.norm(svm.coef_), rel=1e-4)
        assert r.weights == pytest.approx(svm.coef_[0], rel=1e-2)
        assert r.verify()
        assert theory.separability(x, y).margin <= r.margin * (1 + 1e-12)


def test_verify_refuses_every_forged_proof() -> None:
    good = theory.separability(CORNERS, [0, 0, 0, 1], max_margin=True)
    weights, mix = good.exact_weights, good.nearest_positive_mix
    assert good.verify()
    for forged in (
        {"exact_weights": type(weights)([weights[0], -weights[1]])},
        {"exact_bias": good.exact_bias + 1},  # touches a row
        {"margin_squared": good.margin_squared * 2},
        {"nearest_positive_mix": type(mix)([w / 2 for w in mix])},
        {"nearest_negative_mix": type(mix)([Fraction(1), Fraction(0), Fraction(0)])},
    ):
        assert not replace(good, **forged).verify(), forged
    turned = {
        "exact_weights": type(weights)([-w for w in weights]),
        "exact_bias": -good.exact_bias,
        "margin_squared": Fraction(9, 8),  # of the row that is furthest on the wrong side
        "nearest_positive_mix": None,
    }
    assert not replace(good, **turned).verify()
    xor = theory.separability(CORNERS, [0, 1, 1, 0])
    vector = type(xor.point)
    for forged in (
        {"positive_mix": vector([Fraction(1), Fraction(0)])},
        {"positive_mix": vector([Fraction(3, 2), -HALF])},
        {"negative_mix": vector([HALF, Fraction(49, 100)])},
        {"point": vector([HALF, Fraction(1)])},
        {"interior_positive_mix": vector([Fraction(1), Fraction(0)])},
        {"interior_positive_mix": None},
        {"kind": "weak"},
        {"kind": "strict"},
    ):
        assert not replace(xor, **forged).verify(), forged
    weak = theory.separability([[0], [1], [1], [2]], [0, 0, 1, 1])
    as_interior = {
        "kind": "none",
        "interior_positive_mix": weak.positive_mix,  # not all positive
        "interior_negative_mix": weak.negative_mix,
    }
    assert not replace(weak, **as_interior).verify()
    assert not replace(weak, weak_bias=weak.weak_bias + 1).verify()
    assert not replace(weak, weak_weights=vector([Fraction(0)]), weak_bias=Fraction(0)).verify()


def test_the_proof_outlives_what_the_caller_does_to_the_arrays() -> None:
    x = np.array([[0.0], [1.0]])
    r = theory.separability(x, [0, 1])
    x[:] = 0
    assert r.verify()


@pytest.mark.parametrize("case", ["apart", "mixed", "barely", "flat"])
def test_five_thousand_rows_of_twenty_columns_are_decided(case: str) -> None:
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(5000, 20)), rng.normal(size=20)
    y = x @ w > 0
    if case == "mixed":
        y = rng.integers(0, 2, 5000)
    elif case == "barely":
        x -= np.outer((x @ w) / (w @ w), w)
        x += np.outer(np.where(y, 1e-13, -1e-13), w)
    elif case == "flat":  # on one plane to rounding
        x -= np.outer((x @ w) / (w @ w), w)
    r = theory.separability(x, y)
    assert r.separable == (case in ("apart", "barely"))
    if case == "mixed":
        rows = np.concatenate([np.flatnonzero(r.positive), np.flatnonzero(~r.positive)])
        mix = np.concatenate([np.asarray(r.positive_mix), -np.asarray(r.negative_mix)])
        assert np.abs(mix @ x[rows]).max() < 1e-12
        assert np.count_nonzero(mix) <= 22
    elif r.separable:
        assert r.float_separates
        assert ((x @ r.weights + r.bias > 0) == y).all() or case == "barely"


# --- several classes ------------------------------------------------------------------------------


def test_three_classes_in_a_row() -> None:
    x, y = [[0], [1], [2]], ["a", "b", "c"]
    pairs = theory.separability_by_class(x, y, "pairs")
    rest = theory.separability_by_class(x, y, "rest")
    layer = theory.separability_by_class(x, y, "argmax")
    assert list(pairs.results) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs.separable
    assert [r.separable for r in rest.results.values()] == [True, False, True]
    (r,) = layer.results.values()
    assert r.separable
    assert (np.array(x) @ r.weights.T + r.biases).argmax(axis=1).tolist() == [0, 1, 2]
    assert pairs.verify()
    assert rest.verify()
    assert layer.verify()


@pytest.mark.parametrize("seed", range(12))
def test_a_softmax_layer_exists_exactly_where_a_linear_program_finds_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d, k = 14 + 2 * seed, 2 + seed % 3, 3
    x = rng.integers(-9, 10, (n, d))
    y = (x @ rng.normal(size=(d, k)) + rng.normal(size=k)).argmax(axis=1)
    y[:k] = range(k) if seed % 2 else y[:k]
    y[0], y[1] = 0, 1
    r = theory.separability_by_class(x, y, "argmax").results[None]
    rows = []
    for xi, c in zip(np.column_stack([x, np.ones(n)]), y, strict=True):
        for other in set(y.tolist()) - {c}:
            row = np.zeros((k, d + 1))
            row[c], row[other] = xi, -xi
            rows.append(row.ravel())
    a = -np.array(rows)
    result = linprog(np.zeros(a.shape[1]), a, -np.ones(len(a)), bounds=(None, None))
    assert r.separable == (result.status == 0)
    assert r.verify()
    if not r.separable:
        pair = next(iter(r.mix))
        assert not replace(r, mix={**r.mix, pair: r.mix[pair] * 2}).verify()
    else:
        forged = type(r.exact_biases)([Fraction(10**6), *r.exact_biases[1:]])  # class 0 everywhere
        assert not replace(r, exact_biases=forged).verify()


def test_a_pinwheel_is_separable_in_pairs_but_not_by_a_softmax_layer() -> None:
    # Three arms, each turning by more than 120 degrees: a symmetric layer has sectors of 120
    x = [[100, 0], [-32, 38], [-50, 87], [-17, -47], [-50, -87], [49, 9]]
    y = [0, 0, 1, 1, 2, 2]
    pairs = theory.separability_by_class(x, y, "pairs")
    assert pairs.separable
    layer = theory.separability_by_class(x, y, "argmax")
    assert not layer.separable
    assert len({i for i, _ in layer.results[None].mix}) > 4  # no two classes prove it
    assert layer.verify()


@pytest.mark.parametrize("d", [24, 40])
def test_many_columns_are_decided_from_a_guessed_support(d: int) -> None:
    rng = np.random.default_rng(d)
    x, y = rng.normal(size=(6 * d, d)), rng.integers(0, 2, 6 * d)
    r = theory.separability(x, y)
    assert r.kind == "none"
    assert len(r.support) == d + 2
    assert r.verify()
    x[:, 0] = np.abs(x[:, 0])
    x[y == 0, 0] = 0.0  # now the plane x[0] = 0 touches every row of class 0
    x[0], x[-1] = 0.0, 0.0
    y[0], y[-1] = 0, 1
    r = theory.separability(x, y)
    assert r.kind == "weak"
    assert r.verify()


def test_on_iris_only_setosa_is_apart() -> None:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    pairs = theory.separability_by_class(x, y)
    assert {p for p, r in pairs.results.items() if not r.separable} == {(1, 2)}
    assert pairs.verify()


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "kind", "said"),
    [
        ([[0.0], [np.nan]], [0, 1], DataError, r"finite numbers in x, got nan at \[1, 0\]"),
        ([["1"], ["inf"]], [0, 1], DataError, "got 'inf'"),
        ([["1"], ["one"]], [0, 1], DataError, "got 'one'"),
        ([["1"], ["1e999999999"]], [0, 1], DataError, "at most 5,000 digits"),
        ([["1"], ["1/0"]], [0, 1], DataError, "got '1/0'"),
        ([[1], [1j]], [0, 1], DataError, "got 1j"),
        ([[0], [1]], [1, 1], DataError, "expected two classes in y, got only 1 in all 2 rows"),
        ([[0], [1], [2]], [0, 1, 2], DataError, "got 3. Use separability_by_class"),
        ([[0], [1]], [0, 1, 1], ShapeError, r"y of shape \(2,\), got \(3,\)"),
        ([[0], [1]], [0, None], DataError, "got None or NaN"),
        ([[0], [1]], [0.0, np.nan], DataError, "got None or NaN"),
        ([0, 1], [0, 1], ShapeError, r"x of shape \(n, d\), got \(2,\)"),
        ([[0, 1], [1]], [0, 1], ShapeError, "rows of equal length"),
        (np.zeros((2, 0)), [0, 1], ShapeError, "at least 1 column"),
        (np.zeros((0, 2)), [], DataError, "got no rows"),
        (np.array(["2020-01-01"], "M8[D]"), [0], DataError, "got dtype datetime64"),
        (None, [0], DataError, "got None"),
    ],
)
def test_bad_input_gets_one_sentence(x: object, y: object, kind: type, said: str) -> None:
    for call in (theory.separability, theory.perceptron):
        with pytest.raises(kind, match=said.replace("Use separability_by_class", "")) as caught:
            call(x, y)
        assert "\n" not in str(caught.value)


def test_an_unknown_way_to_ask_several_classes() -> None:
    with pytest.raises(SpecError, match="how to be one of pairs, rest, argmax"):
        theory.separability_by_class([[0], [1]], [0, 1], "triples")
