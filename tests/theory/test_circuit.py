"""Circuits: exact at every input, the sizes of the literature, and clear refusals."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest

import lamina
from lamina import theory
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.theory.boolean_parser import parse


def rows(n: int) -> np.ndarray:
    return np.array(list(itertools.product((0, 1), repeat=n)))


@pytest.mark.parametrize(
    "text", ["(a | b) & ~(a & b)", "a ^ b", "a xor b", "a != b", "parity(a, b)"]
)
def test_xor_is_and_or_and_their_difference(text: str):
    net = theory.circuit(text).network
    assert isinstance(net, lamina.Network)
    assert net.spec.activations == ("step",)
    assert net.spec.output == "step"
    assert net.weights[0].tolist() == [[1, 1], [1, 1]]
    assert net.biases[0].tolist() == [-1.5, -0.5]
    assert net.weights[1].tolist() == [[-1, 1]]
    assert net.biases[1].tolist() == [-0.5]
    assert net(rows(2)).ravel().tolist() == [0, 1, 1, 0]


def test_columns_are_in_order_of_first_appearance():
    made = theory.circuit("c & ~a | 0 & b")
    assert made.names == ("c", "a", "b")
    assert made.network([[1, 0, 0], [0, 1, 0]]).ravel().tolist() == [1, 0]


def python_value(text: str, names: tuple[str, ...], row: np.ndarray) -> int:
    """What Python makes of an expression whose operators it shares."""
    values = {name: bool(v) for name, v in zip(names, row, strict=True)}
    return int(bool(eval(text.replace("~", " not "), {}, values)))


SHARED = [
    "a and b or c",
    "a or b and not c",
    "not a and b",
    "not (a or b) and c",
    "a | b & c ^ d",
    "a ^ b | c & d",
    "a == b | c",
    "a != (b & c)",
    "a and b | c",
    "a | b and c ^ d",
]


@pytest.mark.parametrize("text", SHARED)
def test_operators_bind_as_in_python(text: str):
    made = theory.circuit(text)
    for row in rows(len(made.names)):
        assert made(row)[0] == python_value(text, made.names, row)


FUNCTIONS = {
    "a -> b": lambda a, b: not a or b,
    "a >> b >> c": lambda a, b, c: not a or (not b or c),
    "a <-> b": operator.eq,
    "implies(a, b)": lambda a, b: not a or b,
    "iff(a, b)": operator.eq,
    "if(a, b, c)": lambda a, b, c: b if a else c,
    "mux(a, b, ~b)": lambda a, b: a == b,
    "majority(a, b, c, d)": lambda *v: 2 * sum(v) > len(v),
    "at_least(2, a, b, c, d)": lambda *v: sum(v) >= 2,
    "at_most(2, a, b, c, d)": lambda *v: sum(v) <= 2,
    "exactly(2, a, b, c, d)": lambda *v: sum(v) == 2,
    "at_least(2, a, b, a)": lambda a, b: a,
    "at_least(0, a)": lambda a: True,
    "exactly(5, a, b)": lambda a, b: False,
    "parity(a, b, c, d, e)": lambda *v: sum(v) % 2,
    "nand(a, b, c)": lambda *v: not all(v),
    "nor(a, b, c)": lambda *v: not any(v),
    "and(a, or(b, c))": lambda a, b, c: a and (b or c),
    "¬a ∨ (b ∧ c) ⊕ d": lambda a, b, c, d: not a or ((b and c) != d),
    "a XOR b AND c": lambda a, b, c: a != (b and c),
    "a ^ ~a": lambda a: True,
    "a ^ b ^ a": lambda a, b: b,
    "(a ^ b) & (b ^ c) | if(d, a ^ c, exactly(1, a, b, c))": lambda a, b, c, d: (
        (a != b and b != c) or ((a != c) if d else a + b + c == 1)
    ),
}


@pytest.mark.parametrize("text", FUNCTIONS)
@pytest.mark.parametrize("skips", [True, False])
def test_functions_mean_what_their_names_say(text: str, skips: bool):
    made = theory.circuit(text, skips=skips)
    for row in rows(len(made.names)):
        wanted = bool(FUNCTIONS[text](*row.tolist()))
        assert made(row)[0] == wanted
        assert made.expected(row)[0] == wanted
    assert skips or not made.network.spec.skips


def test_every_function_of_three_variables_is_compiled_exactly():
    x = rows(3)
    sizes = []
    for value in range(256):
        table = [value >> row & 1 for row in range(8)]
        made = theory.circuit(table)
        assert made.network(x).ravel().tolist() == table
        sizes.append(made.n_hidden)
    assert sizes.count(0) == 104  # the threshold functions need no hidden layer
    assert max(sizes) == 3


def test_random_functions_of_four_variables_are_compiled_exactly():
    x = rows(4)
    for table in np.random.default_rng(0).integers(0, 2, (200, 16)):
        for skips in (True, False):
            assert theory.circuit(table, skips=skips).n_hidden <= 3  # all but parity
            assert theory.circuit(table, skips=skips).network(x).ravel().tolist() == table.tolist()


def random_expression(rng: np.random.Generator, depth: int) -> str:
    if depth == 0 or rng.random() < 0.15:
        return str(rng.choice(list("abcdefg01"), p=[0.13] * 7 + [0.045] * 2))
    parts = [random_expression(rng, depth - 1) for _ in range(int(rng.integers(2, 4)))]
    kind = rng.integers(6)
    if kind == 0:
        return f"~({parts[0]})"
    if kind == 1:
        return f"at_least({rng.integers(4)}, {', '.join(parts)})"
    if kind == 2:
        return f"if({parts[0]}, {parts[1]}, {parts[-1]})"
    return "(" + f" {'&|^'[kind - 3]} ".join(parts) + ")"


def test_random_nested_expressions_are_compiled_exactly():
    rng = np.random.default_rng(3)
    for _ in range(150):
        text = f"a & ({random_expression(rng, 4)})"
        for skips in (True, False):
            made = theory.circuit(text, skips=skips)
            assert made.verify(), (text, str(made))


def test_verification_is_independent_of_the_network_and_finds_a_fault():
    made = theory.circuit("majority(a, b, c) ^ d")
    assert made.verify().exhaustive
    bias = made.network.biases[0].copy()
    made.network.biases[0] = bias + 1.0
    found = made.verify()
    assert not found
    assert found.counterexample is not None
    wrong = np.array(found.counterexample)
    assert made(wrong)[0] != (2 * wrong[:3].sum() > 3) ^ wrong[3]
    assert "wrong at" in str(found)


def test_up_to_twenty_variables_are_tried_exhaustively_and_more_at_random():
    names = [f"x{i}" for i in range(20)]
    checked = theory.circuit(" & ".join(names)).verify()
    assert (checked.n_inputs, checked.exhaustive, checked.seed) == (1 << 20, True, None)
    large = theory.circuit(" & ".join([*names, *(f"y{i}" for i in range(20))]))
    checked = large.verify(n_samples=5000, seed=7)
    assert (checked.n_inputs, checked.exhaustive, checked.seed) == (5000, False, 7)
    assert "drawn with seed 7" in str(checked)
    with pytest.raises(DataError, match=r"at most 20 variables .* got 40"):
        large.verify(exhaustive=True)
    large.network.biases[0] = large.network.biases[0] - 1.0  # now it is never 1
    assert large.verify(n_samples=100).counterexample == (1,) * 40


def test_parts_that_are_threshold_functions_become_one_unit():
    assert theory.circuit("a & (b | c & (d | e))").widths == ()
    assert theory.circuit("(a & ~b) | (a & b)").widths == ()
    assert theory.circuit("a & (b | (c ^ d))").widths == (2,)
    assert theory.circuit(" | ".join(f"(x{i} | y{i})" for i in range(300))).widths == ()
    shared = theory.circuit("(a & b & c ^ d) | (a & b & c ^ e)")
    assert shared.widths[0] == 1  # a & b & c is one unit, made once


def test_depth_of_brackets_and_length_of_chains_have_no_recursion_limit():
    deep = "(" * 20_000 + "a" + ")" * 20_000
    assert theory.circuit(deep).widths == ()
    assert theory.circuit("~" * 20_001 + "a")([1]).tolist() == [0]
    chain = theory.circuit(" -> ".join(f"x{i}" for i in range(200)))
    assert chain.verify(n_samples=2000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a & | b", r"character 5 of 'a & \| b', got '\|'"),
        ("a b", "an operator such as"),
        ("(a & (b", r"a '\)' for the '\(' at character 6"),
        ("a)", "an operator or the end at character 2"),
        ("f(a)", "one of the functions and, or"),
        ("at_least(a, b)", r"as in at_least\(2, a, b, c\)"),
        ("2 & a", "a name, 0, 1"),
        ("", "got the end"),
        ("a == b == c", "brackets around one of two comparisons"),
        ("if(a, b)", "3 arguments in if"),
        ("a + b", r"got '\+'"),
        ("1", "at least one name"),
        ("__import__('os')", "one of the functions"),
        ("a.b", r"got '\.'"),
        ("x" * 300_000, "at most 200,000 characters"),
        (" & ".join(f"(x{i} ^ y{i})" for i in range(5000)), "at most 20,000,000 parameters"),
    ],
)
def test_bad_expressions_are_refused_in_a_sentence(text: str, says: str):
    with pytest.raises(SpecError, match=says):
        theory.circuit(text)


@pytest.mark.parametrize(
    ("v", "error", "says"),
    [
        ([0, 0.5], DataError, "inputs of 0 and 1"),
        ([0, 2], DataError, "inputs of 0 and 1"),
        ([0, 1, 1], ShapeError, r"\(rows, 2\)"),
        ([np.nan, 0], DataError, "inputs of 0 and 1"),
        (["a", "b"], DataError, "inputs of 0 and 1"),
    ],
)
def test_inputs_that_are_not_bits_are_refused(v: list, error: type, says: str):
    with pytest.raises(error, match=says):
        theory.circuit("a & b")(v)


def test_truth_tables_come_as_text_arrays_and_mappings():
    wanted = [0, 1, 1, 0]
    for table in (
        "0110",
        wanted,
        np.array(wanted, bool),
        {(0, 1): 1, (1, 0): True},
        {"01": 1, "10": 1},
    ):
        assert theory.circuit(table)(rows(2)).ravel().tolist() == wanted
    half_adder = theory.circuit([[0, 0], [0, 1], [0, 1], [1, 0]], names=["a", "b"])
    assert half_adder(rows(2)).tolist() == [[0, 0], [0, 1], [0, 1], [1, 0]]
    assert half_adder.n_hidden == 2
    for bad in ("011", "0120", [[]], {(0, 1): 2}, {(0,): 1, (0, 1): 1}, np.zeros(1 << 17)):
        with pytest.raises((DataError, SpecError)):
            theory.circuit(bad)
    with pytest.raises(SpecError, match="2 different names"):
        theory.circuit("0110", names=["a", "a"])


def number(bits: np.ndarray) -> np.ndarray:
    return bits @ (1 << np.arange(bits.shape[1])[::-1])


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("ripple", [False, True])
def test_adders_add(n: int, ripple: bool):
    made = theory.adder(n, ripple=ripple)
    x = rows(2 * n)
    assert made.widths == ((1,) * n if ripple else (n,))
    assert np.array_equal(number(made(x)), number(x[:, :n]) + number(x[:, n:]))
    assert made.verify()


def test_wide_adders_are_exact_in_float64():
    made = theory.adder(48)
    assert made.network.dtype == np.float64
    a = np.array([(1 << 47) + 12345, (1 << 48) - 1])
    b = np.array([(1 << 46) + 987654321, 1])
    digits = np.arange(48)[::-1]
    y = made(np.hstack([a[:, None] >> digits & 1, b[:, None] >> digits & 1]))
    assert [int("".join(map(str, row)), 2) for row in y] == (a + b).tolist()


@pytest.mark.parametrize(
    ("relation", "compare", "hidden"),
    [
        ("<", np.less, 0),
        ("<=", np.less_equal, 0),
        (">", np.greater, 0),
        (">=", np.greater_equal, 0),
        ("==", np.equal, 2),
        ("!=", np.not_equal, 2),
    ],
)
def test_comparators_compare(relation: str, compare: np.ufunc, hidden: int):
    made = theory.comparator(3, relation)
    x = rows(6)
    assert np.array_equal(made(x).ravel(), compare(number(x[:, :3]), number(x[:, 3:])))
    assert made.n_hidden == hidden


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10])
def test_parity_takes_as_many_units_as_the_literature_says(n: int):
    x = rows(n)
    odd = x.sum(axis=1) % 2
    made = {
        "layer": theory.parity(n),
        "layer with skips": theory.parity(n, skips=True),
        "two layers with skips": theory.parity(n, depth=2, skips=True),
        "any depth with skips": theory.parity(n, depth=None, skips=True),
        "two layers": theory.parity(n, depth=2),
    }
    for name, circuit in made.items():
        assert np.array_equal(circuit(x).ravel(), odd), name
    assert made["layer"].widths == ((n,) if n > 1 else ())
    assert made["layer with skips"].n_hidden == n // 2
    assert made["any depth with skips"].n_hidden == int(np.log2(n))
    assert not made["two layers"].network.spec.skips


def test_parity_of_many_inputs_needs_few_units_where_depth_is_allowed():
    assert theory.parity(1000, depth=None, skips=True).n_hidden == 9
    two = theory.parity(1000, depth=2, skips=True)
    assert two.n_hidden <= 2 * np.sqrt(500) + 1
    assert two.verify(n_samples=3000)
    with pytest.raises(SpecError, match="skips=True"):
        theory.parity(4, depth=None)
    with pytest.raises(SpecError, match="at most 2,000"):
        theory.parity(10_000)


def test_a_trace_shows_every_unit_layer_by_layer():
    lines = theory.circuit("(a | b) & ~(a & b)").trace([0, 1]).lines()
    assert lines == [
        "input  a = 0  b = 1",
        "layer 1  h1  z = a + b - 1.5   = -0.5  -> 0",
        "layer 1  h2  z = a + b - 0.5   =  0.5  -> 1",
        "output   y   z = h2 - h1 - 0.5 =  0.5  -> 1",
    ]


def test_thresholds_are_never_met_with_equality():
    made = theory.circuit("at_least(2, a, b, c) ^ (c -> d) | exactly(2, a, b, d)")
    seen = made.network.trace(rows(4))
    assert min(np.abs(z).min() for z in seen.z) == 0.5


def test_chains_become_one_step_of_the_program():
    assert [step.n for step in parse("a & b & c & d").program if step.name == "and"] == [4]


def test_a_circuit_too_large_to_be_seen_is_not_drawn():
    assert len(theory.parity(12).plot().axes[0].lines) == 12 * 12 + 12 + 12 + 12 + 1
    with pytest.raises(SpecError, match="at most 3,000 connections"):
        theory.parity(60).plot()


def test_units_are_never_called_what_a_variable_is():
    assert theory.circuit("h1 ^ y").equations() == [
        "h_1 = [h1 + y - 1.5 > 0]",
        "h_2 = [h1 + y - 0.5 > 0]",
        "y_ = [h_2 - h_1 - 0.5 > 0]",
    ]
