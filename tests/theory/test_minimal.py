"""The fewest hidden units, against brute force; the function read back out of a network."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import lamina
from lamina import theory
from lamina.core.errors import DataError, SpecError
from lamina.theory.fewest_units import threshold_functions
from lamina.theory.read_back import formula
from lamina.theory.truth_table import all_inputs, sum_of_products


def test_there_are_as_many_threshold_functions_as_published():
    assert [len(threshold_functions(n)) for n in (1, 2, 3, 4)] == [4, 14, 104, 1882]  # A000609


def brute_force(n: int) -> dict[int, int]:
    """Fewest hidden units of every function, by combining all threshold functions in all ways."""
    rows = 1 << n
    known = threshold_functions(n).tolist()
    fewest = dict.fromkeys(known, 0)
    for k in (2, 3):
        gates = threshold_functions(k).tolist()
        for hidden in itertools.combinations(known, k):
            index = [
                sum((h >> r & 1) << (k - 1 - i) for i, h in enumerate(hidden)) for r in range(rows)
            ]
            for gate in gates:
                f = sum((gate >> i & 1) << r for r, i in enumerate(index))
                fewest.setdefault(f, k)
        if len(fewest) == 1 << rows:
            break
    return fewest


def test_two_variables_agree_with_brute_force():
    for f, k in brute_force(2).items():
        assert theory.minimal_circuit([f >> r & 1 for r in range(4)]).n_hidden == k


def test_three_variables_agree_with_brute_force_over_pairs():
    known = threshold_functions(3)
    pairs = {
        int(f)
        for a in known
        for f in (a & known, a | known, a & (255 ^ known), a | (255 ^ known))
        for f in f
    }
    sizes = {f: theory.minimal_circuit([f >> r & 1 for r in range(8)]).n_hidden for f in range(256)}
    for f, k in sizes.items():
        assert k == (0 if f in known else 2 if f in pairs else 3)
    parity = sum(1 << r for r in range(8) if r.bit_count() % 2)
    assert sizes[parity] == 3


def test_of_four_variables_only_parity_needs_four_units():
    rng = np.random.default_rng(0)
    for table in rng.integers(0, 2, (40, 16)):
        made = theory.minimal_circuit(table)
        assert made.n_hidden <= 3
        assert made.circuit.n_hidden == made.n_hidden
        assert made.circuit.network(all_inputs(4)).ravel().tolist() == table.tolist()
        assert not made.circuit.network.spec.skips
    odd = all_inputs(4).sum(axis=1) % 2
    for table in (odd, 1 - odd):
        made = theory.minimal_circuit(table)
        assert made.n_hidden == 4
        assert made.circuit.network(all_inputs(4)).ravel().tolist() == table.tolist()


def test_functions_of_four_variables_with_two_units_are_those_that_a_pair_has_as_its_and_or_or():
    known = threshold_functions(4)
    both, either = known[:, np.newaxis] & known, known[:, np.newaxis] | known
    for table in np.random.default_rng(5).integers(0, 2, (12, 16)):
        f = int(table @ (1 << np.arange(16)))
        pair = bool((both == f).any() or (either == f).any())
        assert theory.minimal_circuit(table).n_hidden == (2 if pair else 3)


def test_the_proof_says_what_was_exhausted():
    proof = theory.minimal_circuit("parity(a, b, c, d)").proof
    assert len(proof) == 4
    assert "no three of the 1,882 threshold functions" in proof[-1]
    assert theory.minimal_circuit("a & b").proof[0].startswith("it is a threshold function")
    with pytest.raises(SpecError, match="1 to 4 variables, got 5"):
        theory.minimal_circuit("a ^ b ^ c ^ d ^ e")


# --- the way back --------------------------------------------------------------------------------


def test_every_function_of_three_variables_is_read_back_as_a_formula_of_itself():
    x = all_inputs(3)
    for f in range(256):
        table = np.array([f >> r & 1 for r in range(8)], bool)
        read = theory.boolean_function(theory.circuit(table).network, "abc")
        assert np.array_equal(read.table[:, 0], table)
        text = read.formulas[0]
        assert text is not None
        if text in ("0", "1"):
            assert (table == int(text)).all()
            continue
        again = theory.circuit(text)
        assert np.array_equal(again(x[:, ["abc".index(name) for name in again.names]])[:, 0], table)


def test_random_sums_of_products_are_right_prime_and_irredundant():
    rng = np.random.default_rng(2)
    x = all_inputs(6).astype(bool)

    def value(product: tuple) -> np.ndarray:
        return np.all([x[:, i] == v for i, v in product], axis=0) | np.zeros(64, bool)

    for density in (0.1, 0.5, 0.9):
        for _ in range(10):
            table = rng.random(64) < density
            products = sum_of_products(table)
            values = [value(p) for p in products]
            assert np.array_equal(np.any(values, axis=0), table)
            for k, product in enumerate(products):
                assert not np.array_equal(np.any(values[:k] + values[k + 1 :], axis=0), table)
                for j in range(len(product)):
                    wider = value(product[:j] + product[j + 1 :])
                    assert (wider & ~table).any()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("(a | b) & ~(a & b)", "a ^ b"),
        ("a == b", "~(a ^ b)"),
        ("~(~a & ~b & ~c)", "a | b | c"),
        ("a & (b | c) | b & c", "majority(a, b, c)"),
        ("at_least(2, a, b, c, d)", "at_least(2, a, b, c, d)"),
        ("at_most(1, a, b, c, d)", "at_most(1, a, b, c, d)"),
        ("exactly(2, a, b, c, d)", "exactly(2, a, b, c, d)"),
        ("(a & b) | (a & ~b)", "a"),
        ("a & ~a", "0"),
        ("a -> b", "~a | b"),
    ],
)
def test_formulas_are_simplified(text: str, read: str):
    made = theory.circuit(text)
    assert theory.boolean_function(made.network, made.names).formulas == (read,)


def test_units_are_read_as_well_and_the_margin_is_half():
    read = theory.boolean_function(theory.circuit("a ^ b").network, "ab")
    assert read.units == {"h1_1": "a & b", "h1_2": "a | b"}
    assert read.margin == 0.5
    assert str(read).splitlines()[-1] == "y = a ^ b"


def test_a_trained_network_is_read_with_a_threshold():
    net = lamina.Network(2, (2,), 1, activation="tanh", output="sigmoid", rng=0)
    net.weights[0], net.biases[0] = [[5, 5], [5, 5]], [-7.5, -2.5]
    net.weights[1], net.biases[1] = [[-6, 6]], [-6]
    assert theory.boolean_function(net, "ab", threshold=0.5).formulas == ("a ^ b",)
    with pytest.raises(SpecError, match="expected threshold to be a number"):
        theory.boolean_function(net, "ab", threshold=float("nan"))
    with pytest.raises(DataError, match=r"outputs of 0 and 1, got .* at 00.* threshold=0\.5"):
        theory.boolean_function(net)


def test_long_formulas_are_left_out_and_wide_networks_refused():
    rng = np.random.default_rng(0)
    assert formula(rng.random(1 << 12) < 0.5, [f"x{i}" for i in range(12)]) is None
    wide = theory.boolean_function(theory.majority(19).network)
    assert str(wide.formulas[0]).startswith("majority(x1, x2")
    with pytest.raises(DataError, match="at most 20 inputs, got 21"):
        theory.boolean_function(theory.majority(21).network)
    with pytest.raises(SpecError, match="2 different names"):
        theory.boolean_function(theory.circuit("a & b").network, ["a"])
