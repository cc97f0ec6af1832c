"""Adders, comparators, parity and majority of any size, as the literature builds them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np

from lamina.core.checks import check_choice, check_count
from lamina.core.errors import SpecError
from lamina.theory.circuit_layers import lay_out
from lamina.theory.circuits import Circuit, Truth
from lamina.theory.signals import Signal, Signals
from lamina.theory.truth_table import Bits

MOST_BITS: Final = 48  # so that sums of powers of two stay exact in float64
MOST_INPUTS: Final = 2000
RELATIONS: Final = ("<", "<=", ">", ">=", "==", "!=")


def adder(n: int, *, ripple: bool = False) -> Circuit:
    """Return a circuit that adds two numbers of n bits.

    Parameters
    ----------
    n : int
        Bits of each number, 1 to 48.
    ripple : bool, default False
        Carry from digit to digit: n hidden layers of one unit and small weights, instead of one
        hidden layer whose units read every lower digit with powers of two as weights.

    Returns
    -------
    Circuit
        Inputs ``a2 a1 a0 b2 b1 b0`` (for n = 3), outputs ``s3 s2 s1 s0``: highest digit first.

    Raises
    ------
    SpecError
        n is not such a number.

    Notes
    -----
    n hidden units, the carries: carry i is 1 where the lower digits sum to 2^i or more, and
    s_i = a_i + b_i + c_i - 2 c_(i+1), one output unit that reads the inputs directly.

    References
    ----------
    Siu, Roychowdhury and Kailath (1995), "Discrete neural computation", chapter 2.

    Examples
    --------
    >>> from lamina import theory
    >>> theory.adder(2)([1, 1, 0, 1]).tolist()  # 3 + 1 = 4
    [1, 0, 0]
    """
    n = _check_size(n, "n", "adder", MOST_BITS)
    signals = Signals(2 * n)
    a = [signals.input(n - 1 - i) for i in range(n)]  # a[i] has the weight 2^i
    b = [signals.input(2 * n - 1 - i) for i in range(n)]
    carries: list[Signal] = [signals.const(0)]
    for i in range(n):
        if ripple:
            carries.append(signals.threshold([a[i], b[i], carries[i]], (1, 1, 1), 2))
            continue
        powers = [1 << j for j in range(i + 1)]
        carries.append(signals.threshold([*a[: i + 1], *b[: i + 1]], [*powers, *powers], 2 << i))
    sums = [carries[n]]
    for i in reversed(range(n)):
        total = signals.plus(signals.plus(a[i], b[i], 1), carries[i], 1)
        sums.append(signals.plus(total, carries[i + 1], -2))

    def truth(x: Bits) -> Bits:
        return _bits_of(_number(x[:, :n]) + _number(x[:, n:]), n + 1)

    names = [f"{letter}{i}" for letter in "ab" for i in reversed(range(n))]
    outputs = [f"s{i}" for i in reversed(range(n + 1))]
    return _built(
        signals, sums, names, outputs, truth, f"the sum of two numbers of {_bit_count(n)}"
    )


def comparator(n: int, relation: str = "<") -> Circuit:
    """Return a circuit that compares two numbers of n bits.

    Parameters
    ----------
    n : int
        Bits of each number, 1 to 48.
    relation : {"<", "<=", ">", ">=", "==", "!="}, default "<"

    Returns
    -------
    Circuit
        Inputs ``a2 a1 a0 b2 b1 b0`` (for n = 3). An order is a single unit; equality needs two.

    Raises
    ------
    SpecError
        n or the relation is not such a one.

    Examples
    --------
    >>> from lamina import theory
    >>> print(theory.comparator(2))
    a < b, numbers of 2 bits   inputs: a1, a0, b1, b0
    y = [-2 a1 - a0 + 2 b1 + b0 - 0.5 > 0]
    """
    n = _check_size(n, "n", "comparator", MOST_BITS)
    check_choice(relation, RELATIONS, "relation", "comparator")
    signals = Signals(2 * n)
    inputs = [signals.input(i) for i in range(2 * n)]
    powers = [1 << i for i in reversed(range(n))]
    more = [*powers, *(-p for p in powers)]  # the weights of a - b
    not_less = signals.threshold(inputs, more, 0)
    greater = signals.threshold(inputs, more, 1)
    equal = signals.plus(not_less, greater, -1)
    result = {
        "<": not_less.negated,
        ">=": not_less,
        ">": greater,
        "<=": greater.negated,
        "==": equal,
        "!=": equal.negated,
    }[relation]
    compare = {
        "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
        "==": np.equal, "!=": np.not_equal,
    }[relation]  # fmt: skip

    def truth(x: Bits) -> Bits:
        return np.asarray(compare(_number(x[:, :n]), _number(x[:, n:])), bool)[:, np.newaxis]

    names = [f"{letter}{i}" for letter in "ab" for i in reversed(range(n))]
    return _built(
        signals, [result], names, ["y"], truth, f"a {relation} b, numbers of {_bit_count(n)}"
    )


def majority(n: int) -> Circuit:
    """Return a circuit that is 1 where more than half of n inputs are: a single unit.

    Raises
    ------
    SpecError
        n is not from 1 to 2,000.
    """
    n = _check_size(n, "n", "majority", MOST_INPUTS)
    signals = Signals(n)
    result = signals.at_least(n // 2 + 1, [signals.input(i) for i in range(n)])
    return _built(
        signals,
        [result],
        _numbered(n),
        ["y"],
        lambda x: (2 * x.sum(axis=1) > n)[:, np.newaxis],
        f"the majority of {n} inputs",
    )


def parity(n: int, *, depth: int | None = 1, skips: bool = False) -> Circuit:
    """Return a circuit that is 1 where an odd number of n inputs are.

    Parameters
    ----------
    n : int
        1 to 2,000.
    depth : int or None, default 1
        Hidden layers, at most. None with skips: as many as give the fewest units.
    skips : bool, default False
        Let every layer read the inputs again. Without, each layer reads the one before it only.

    Returns
    -------
    Circuit

    Raises
    ------
    SpecError
        n or depth is not such a number, or ``depth=None`` without skips.

    Notes
    -----
    Hidden units: n in one layer without skips (at least 1, … at least n, with alternating signs);
    n // 2 in one layer with skips; and about d n^(1/d) in d layers with skips, which find the
    number of ones digit by digit, from the highest: with binary digits, floor(log2 n).

    References
    ----------
    Muroga (1959); Siu, Roychowdhury and Kailath (1991), "Depth-size tradeoffs for neural
    computation".

    Examples
    --------
    >>> from lamina import theory
    >>> theory.parity(16).n_hidden, theory.parity(16, depth=None, skips=True).n_hidden
    (16, 4)
    """
    n = _check_size(n, "n", "parity", MOST_INPUTS)
    if depth is None and not skips:
        raise SpecError(
            "parity: expected a number of hidden layers as depth, got None without skips. "
            "Pass skips=True for the fewest units of any depth."
        )
    layers = n.bit_length() if depth is None else check_count(depth, "depth", "parity")
    signals = Signals(n)
    inputs = [signals.input(i) for i in range(n)]
    result = _by_digits(signals, inputs, layers) if skips else _by_groups(signals, inputs, layers)
    return _built(
        signals,
        [result],
        _numbered(n),
        ["y"],
        lambda x: (x.sum(axis=1) % 2 == 1)[:, np.newaxis],
        f"the parity of {n} inputs",
        skips=skips,
    )


def _by_groups(signals: Signals, inputs: list[Signal], depth: int) -> Signal:
    """Parities of groups, parities of those, and so on, ``depth`` times."""
    values = inputs
    for left in range(depth, 0, -1):
        size = next(k for k in range(1, len(values) + 1) if k**left >= len(values))
        values = [signals.count_parity(values[i : i + size]) for i in range(0, len(values), size)]
    return values[0]


def _by_digits(signals: Signals, inputs: list[Signal], depth: int) -> Signal:
    """Take even multiples off the number of ones, largest first, until 0 or 1 is left."""
    _, ratios = _digits(len(inputs) // 2, depth)
    left = len(inputs)  # the most that the remainder can be
    signs: list[tuple[Signal, int]] = [(signal, 1) for signal in inputs]
    block = 2
    for ratio in ratios:
        block *= ratio
    for ratio in (*reversed(ratios), 1):
        terms = [s for s, _ in signs], [w for _, w in signs]
        units = [signals.threshold(*terms, m * block) for m in range(1, left // block + 1)]
        signs += [(unit, -block) for unit in units]
        left = min(left, block - 1)
        block //= ratio
    total = signals.const(0)
    for signal, w in signs:
        total = signals.plus(total, signal, w)
    return total


@functools.cache
def _digits(most: int, depth: int) -> tuple[int, tuple[int, ...]]:
    """The fewest units that write numbers up to ``most`` in ``depth`` digits, and the bases.

    A digit of base r needs r - 1 units; the highest as many as its largest value. Bases run from
    the lowest digit up, without the highest.
    """
    best: tuple[int, tuple[int, ...]] = (most, ())
    if depth > 1:
        for ratio in range(2, int(most**0.5) + 3):
            units, ratios = _digits(most // ratio, depth - 1)
            if units and ratio - 1 + units < best[0]:
                best = (ratio - 1 + units, (ratio, *ratios))
    return best


def _built(
    signals: Signals,
    results: Sequence[Signal],
    names: Sequence[str],
    outputs: Sequence[str],
    truth: Truth,
    text: str,
    skips: bool = True,
) -> Circuit:
    return Circuit(names, outputs, lay_out(signals, results, skips), truth, text)


def _check_size(value: object, name: str, where: str, most: int) -> int:
    n = check_count(value, name, where)
    if n > most:
        raise SpecError(
            f"{where}: expected {name} to be at most {most:,}, got {n:,}. Pass a smaller number."
        )
    return n


def _bit_count(n: int) -> str:
    return f"{n} bit{'s' if n > 1 else ''}"


def _numbered(n: int) -> list[str]:
    return [f"x{i + 1}" for i in range(n)]


def _number(x: Bits) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The numbers that rows of bits write, the highest first."""
    return x.astype(np.int64) @ (1 << np.arange(x.shape[1] - 1, -1, -1, dtype=np.int64))


def _bits_of(numbers: np.ndarray[tuple[int], np.dtype[np.int64]], n: int) -> Bits:
    return np.asarray(numbers[:, np.newaxis] >> np.arange(n - 1, -1, -1) & 1, bool)
