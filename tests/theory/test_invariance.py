"""Orbits against brute force, the invariance theorem against linear programs, the example of 16."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import linprog

from lamina import DataError, ShapeError, SpecError, theory


def test_a_cyclic_orbit_is_every_roll() -> None:
    pattern = np.array([3, 1, 4, 1, 5])
    expected = np.array([np.roll(pattern, k) for k in range(5)])
    assert np.array_equal(theory.orbit(pattern, "cyclic"), expected)
    assert theory.orbit([1, 0, 1, 0], "cyclic").tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def images(arrays: list[np.ndarray]) -> set[tuple[int, ...]]:
    return {tuple(a.ravel().tolist()) for a in arrays}


def test_orbits_of_squares_are_their_shifts_reflections_and_rotations() -> None:
    square = np.arange(9).reshape(3, 3) ** 2
    shifts = [np.roll(square, (i, j), (0, 1)) for i in range(3) for j in range(3)]
    mirrored = [square, square[::-1], square[:, ::-1], square[::-1, ::-1]]
    turned = [np.rot90(s, k) for s in (square, square[::-1]) for k in range(4)]
    for group, expected in (("cyclic", shifts), ("reflection", mirrored), ("dihedral", turned)):
        found = theory.orbit(square, group)
        assert found.shape == (len(expected), 3, 3)
        assert images(list(found)) == images(expected)
        assert np.array_equal(found[0], square)


def test_orbits_of_permutations() -> None:
    pattern = [1, 1, 2, 3]
    assert images(list(theory.orbit(pattern, "permutations"))) == set(permutations(pattern))
    line = [1, 2, 3, 4]
    dihedral = [np.roll(p, k) for p in (line, line[::-1]) for k in range(4)]
    assert images(list(theory.orbit(line, "dihedral"))) == images(dihedral)
    # image[i] = pattern[p[i]]; the products are found too
    assert theory.orbit([5, 6, 7], [[1, 2, 0]]).tolist() == [[5, 6, 7], [6, 7, 5], [7, 5, 6]]
    assert len(theory.orbit([1, 2, 3, 4], [[1, 0, 2, 3], [0, 1, 3, 2]])) == 4


def test_the_two_patterns_of_sixteen_pixels_are_not_linearly_separable_but_a_network_does_it() -> (
    None
):
    a, b = theory.translation_patterns()
    assert a.shape == b.shape == (16,)
    assert a.sum() == b.sum() == 4
    r = theory.invariant_separability(a, b)
    assert len(r.orbit_a) == len(r.orbit_b) == 16
    assert r.mean_a == r.mean_b == (Fraction(1, 4),) * 16
    assert not r.separable
    assert set(r.proof.positive_mix) == {Fraction(1, 16)}
    assert r.verify()
    trained = theory.translation_network()
    assert trained.n_correct == 32
    assert np.array_equal(trained.x[:16], r.orbit_a)
    assert np.array_equal(trained.network(trained.x)[:, 0] > 0.5, trained.y == 1)
    assert np.abs(trained.probability - 0.5).min() > 0.3  # not by a hair
    features = np.array([theory.autocorrelation(image) for image in trained.x])
    easy = theory.separability(features, trained.y)
    assert easy.separable
    assert easy.verify()


@pytest.mark.parametrize("seed", range(10))
def test_the_theorem_agrees_with_a_linear_program_over_the_orbits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = ("cyclic", "reflection", "dihedral")[seed % 3]
    a = rng.integers(0, 3, 6)
    b = rng.permutation(a) if seed % 2 else rng.integers(0, 3, 6)
    if tuple(b) in images(list(theory.orbit(a, group))):
        b[0] += 1
    r = theory.invariant_separability(a, b, group)
    z = np.concatenate([r.orbit_a, -r.orbit_b.astype(int)])
    bias = np.repeat([1.0, -1.0], [len(r.orbit_a), len(r.orbit_b)])
    rows = np.column_stack([z, bias])
    found = linprog(np.zeros(7), -rows, -np.ones(len(rows)), bounds=(None, None)).status == 0
    assert r.separable == found
    assert r.verify()


def test_a_direction_between_the_means_separates_where_they_differ() -> None:
    r = theory.invariant_separability([1, 1, 1, 0], [1, 0, 0, 0])
    assert r.separable
    assert len(set(r.proof.exact_weights)) == 1  # invariant under shifts
    assert r.proof.margin_squared == Fraction(1, 4)
    assert r.verify()
    assert not replace(r, mean_a=r.mean_b).verify()
    assert not replace(r, orbit_a=r.orbit_a[:2]).verify()
    two = theory.invariant_separability([1, 1, 0, 0], [1, 0, 1, 0])
    assert two.verify()
    assert not replace(two, orbit_a=two.orbit_a[[0, 2]]).verify()  # of the same mean, not closed
    assert not replace(two, proof=r.proof).verify()  # of other points


def test_autocorrelation_is_invariant_and_its_transform_the_power_spectrum() -> None:
    rng = np.random.default_rng(0)
    for pattern in (rng.integers(0, 5, 12), rng.integers(0, 2, (5, 7)), rng.normal(size=8)):
        found = theory.autocorrelation(pattern)
        spectrum = np.abs(np.fft.fftn(pattern)) ** 2
        assert np.allclose(np.fft.fftn(found), spectrum, atol=1e-9)
    for image in theory.orbit(rng.integers(0, 2, (4, 5)), "cyclic"):
        assert np.array_equal(
            theory.autocorrelation(image), theory.autocorrelation(np.roll(image, 1, 0))
        )


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda: theory.orbit([1, 2], "rotations"), SpecError, "cyclic, reflection, dihedral"),
        (lambda: theory.orbit([1, 2], 3), SpecError, "or a list of permutations, got 3"),
        (lambda: theory.orbit([1, 2], [[0, 0]]), SpecError, "hold 0 to 1 once each"),
        (lambda: theory.orbit([1, 2], [[0, 1, 2]]), SpecError, "The pattern has 2 pixels"),
        (lambda: theory.orbit(range(9), "permutations"), SpecError, "at most 20,000 images"),
        (lambda: theory.orbit(np.zeros((2, 3)), "dihedral"), SpecError, "a square pattern"),
        (lambda: theory.orbit(np.zeros((2, 3, 3)), "cyclic"), ShapeError, "(height, width)"),
        (lambda: theory.orbit([], "cyclic"), ShapeError, "expected pattern of shape"),
        (lambda: theory.orbit([1.0, np.inf], "cyclic"), DataError, "finite numbers"),
        (lambda: theory.orbit(["a", "b"], "cyclic"), DataError, "of numbers"),
        (
            lambda: theory.invariant_separability([1, 0], [1, 0, 0]),
            ShapeError,
            "patterns of one shape",
        ),
        (lambda: theory.invariant_separability([1, 0], [0, 1]), DataError, "an image of a"),
    ],
)
def test_bad_input_gets_one_sentence(call: object, kind: type, said: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
