"""The fewest hidden units for a function of up to four variables, with proof by exhaustion.

Functions are whole numbers whose bit r is the value at input r. A hidden layer of k threshold
functions h_1 … h_k computes f if f = g(h_1, …, h_k) for a threshold function g. As negations of
threshold functions are threshold functions, g may be taken to rise in every argument: for k = 2
AND or OR; for k = 3 also the majority, h_1 & (h_2 | h_3) and h_1 | h_2 & h_3; there are no other
rising functions that need all three. OR, and the last, are the others' negations.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import SpecError
from lamina.theory.boolean_parser import parse
from lamina.theory.circuit_layers import lay_out
from lamina.theory.circuits import Circuit, free_name
from lamina.theory.signals import Signal, Signals
from lamina.theory.threshold_function import (
    find_threshold,
    is_table_text,
    is_threshold_function,
    table_of,
)
from lamina.theory.truth_table import Bits, all_inputs

Masks = NDArray[np.int64]

MOST_VARIABLES: Final = 4
# The output unit over (h_1, h_2, …): weights and threshold
_GATES: Final[dict[str, tuple[tuple[int, ...], int]]] = {
    "h1 & h2": ((1, 1), 2),
    "h1 & h2 & h3": ((1, 1, 1), 3),
    "majority(h1, h2, h3)": ((1, 1, 1), 2),
    "h1 & (h2 | h3)": ((2, 1, 1), 3),
}
_COUNTS: Final = {1: 4, 2: 14, 3: 104, 4: 1882}


@dataclass(frozen=True)
class MinimalCircuit:
    """A circuit of one hidden layer, or none, with as few units as there can be.

    Attributes
    ----------
    circuit : Circuit
        No unit reads further back than one layer.
    n_hidden : int
    proof : tuple of str
        Why fewer are not enough.
    """

    circuit: Circuit
    n_hidden: int
    proof: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([str(self.circuit), *self.proof])


def minimal_circuit(function: object) -> MinimalCircuit:
    """Return a network of one hidden layer with the fewest units that computes a function.

    Parameters
    ----------
    function : str or array-like (2^n,)
        An expression as for `circuit`, or a truth table; of at most 4 variables.

    Returns
    -------
    MinimalCircuit

    Raises
    ------
    SpecError, DataError
        The function cannot be read, or has too many variables.

    Notes
    -----
    All threshold functions (1,882 of four variables) are tried, two at a time and three at a
    time; of the ways each may differ from f, only those that contain no other are needed. Of the
    65,536 functions of four variables 1,882 need no hidden unit, all others two or three, but for
    parity and its negation, which need four. A few milliseconds.

    Units that read the inputs directly beside the hidden layer are not allowed here; with them
    `parity` of four needs two.

    Examples
    --------
    >>> from lamina import theory
    >>> theory.minimal_circuit("a ^ b").n_hidden
    2
    >>> theory.minimal_circuit("parity(a, b, c, d)").n_hidden
    4
    """
    where = "minimal_circuit"
    table = table_of(function, MOST_VARIABLES, where)
    n = len(table).bit_length() - 1
    names = [f"x{i + 1}" for i in range(n)]
    text = f"truth table of {n} variables"
    if isinstance(function, str) and not is_table_text(function):
        names, text = list(parse(function, where).names), function.strip()
    decided = is_threshold_function(table)
    signals = Signals(n)
    inputs = [signals.input(i) for i in range(n)]
    if decided.is_threshold:
        result = _unit(signals, inputs, table)
        proof: tuple[str, ...] = ("it is a threshold function: no hidden unit is needed",)
        return _made(signals, result, names, table, text, 0, proof)
    found = _search(_mask(table), n)
    proof = _proof(decided.point, n, 4 if found is None else len(found[1]))
    if found is None:  # parity of four, or its negation: at least 1, … at least 4, in turn
        result = signals.count_parity(inputs)
        odd = bool(table[1])
        return _made(signals, result if odd else result.negated, names, table, text, 4, proof)
    gate, hidden, negated = found
    units = [_unit(signals, inputs, _table(mask, n)) for mask in hidden]
    result = signals.threshold(units, *_GATES[gate])
    result = result.negated if negated else result
    return _made(signals, result, names, table, text, len(hidden), proof)


def _made(
    signals: Signals,
    result: Signal,
    names: list[str],
    table: Bits,
    text: str,
    n_hidden: int,
    proof: tuple[str, ...],
) -> MinimalCircuit:
    n = len(names)

    def truth(x: Bits) -> Bits:
        return np.asarray(table[x.astype(np.int64) @ (1 << np.arange(n)[::-1])])[:, np.newaxis]

    layers = lay_out(signals, [result], skips=False)
    made = Circuit(names, [free_name("y", names)], layers, truth, text)
    if made.n_hidden != n_hidden or not made.verify():
        raise AssertionError(f"minimal_circuit: {made} is not what was found")
    return MinimalCircuit(made, n_hidden, proof)


def _proof(point: object, n: int, k: int) -> tuple[str, ...]:
    count = f"the {_COUNTS[n]:,} threshold functions of {n} variables"
    at = ", ".join(map(str, point)) if isinstance(point, tuple) else ""
    lines = [
        f"none is not enough: it is no threshold function, as inputs where it is 1 and inputs "
        f"where it is 0 have the same mean ({at})",
        "one is not enough: an output unit that reads one unit is that unit, or its negation",
    ]
    if k > 2:
        lines.append(f"two are not enough: no two of {count} have it as their AND or OR")
    if k > 3:
        lines.append(
            f"three are not enough: of no three of {count} is it the AND, OR, majority, "
            "h1 & (h2 | h3) or h1 | h2 & h3, and an output unit can be no other"
        )
    return tuple(lines)


def _unit(signals: Signals, inputs: list[Signal], table: Bits) -> Signal:
    found = find_threshold(table)
    if found is None:
        raise SpecError("minimal_circuit: expected a threshold function. Please report this.")
    return signals.threshold(inputs, *found)


# --- the search ----------------------------------------------------------------------------------


def _search(f: int, n: int) -> tuple[str, tuple[int, ...], bool] | None:
    """Return the output gate, the hidden functions, and whether all is negated; None: not three."""
    full = (1 << (1 << n)) - 1
    for gate, find in (
        ("h1 & h2", _as_and),
        ("h1 & h2 & h3", _as_and_of_three),
        ("majority(h1, h2, h3)", _as_majority),
        ("h1 & (h2 | h3)", _as_and_of_or),
    ):
        for negated in (False, True):
            hidden = find(full & ~f if negated else f, n)
            if hidden is not None:
                return gate, hidden, negated
    return None


def _as_and(f: int, n: int) -> tuple[int, ...] | None:
    """F = h1 & h2: both contain f, and what they have beyond it is disjoint."""
    wide = _containing(f, n)
    pair = _first((wide[:, np.newaxis] & wide) == f)
    return None if pair is None else (int(wide[pair[0]]), int(wide[pair[1]]))


def _as_and_of_three(f: int, n: int) -> tuple[int, ...] | None:
    wide = _containing(f, n)
    both = wide[:, np.newaxis] & wide
    for h in wide.tolist():
        pair = _first((both & h) == f)
        if pair is not None:
            return int(wide[pair[0]]), int(wide[pair[1]]), h
    return None


def _as_majority(f: int, n: int) -> tuple[int, ...] | None:
    """No input may be wrong in two of three: errors are disjoint."""
    errors = _minimal(threshold_functions(n) ^ f)
    apart = (errors[:, np.newaxis] & errors) == 0
    for i, e in enumerate(errors.tolist()):
        near = errors[apart[i]]
        pair = _first((near[:, np.newaxis] & near) == 0)
        if pair is not None:
            return e ^ f, int(near[pair[0]]) ^ f, int(near[pair[1]]) ^ f
    return None


def _as_and_of_or(f: int, n: int) -> tuple[int, ...] | None:
    """h1 contains f; within h1, h2 and h3 have nothing beyond f, and all of f together."""
    functions = threshold_functions(n)
    for first in _containing(f, n).tolist():
        inner = functions[(functions & first & ~f) == 0]
        pair = _first((inner[:, np.newaxis] & f | inner & f) == f)
        if pair is not None:
            return first, int(inner[pair[0]]), int(inner[pair[1]])
    return None


def _containing(f: int, n: int) -> Masks:
    """The threshold functions that are 1 where f is, and contain no other such."""
    functions = threshold_functions(n)
    return _minimal(functions[(functions & f) == f])


def _minimal(masks: Masks) -> Masks:
    """The sets that contain no other of them."""
    kept: list[int] = []
    for mask in sorted(np.unique(masks).tolist(), key=int.bit_count):
        if not any(other & ~mask == 0 for other in kept):
            kept.append(mask)
    return np.array(kept, np.int64)


def _first(matrix: NDArray[np.bool_]) -> tuple[int, int] | None:
    at = np.argwhere(matrix)
    return (int(at[0, 0]), int(at[0, 1])) if len(at) else None


@functools.cache
def threshold_functions(n: int) -> Masks:
    """Return all threshold functions of n ≤ 4 variables, as sets of inputs.

    Weights of up to 3 are enough for them (Muroga 1971); their number is checked.
    """
    weights = np.array(list(itertools.product(range(-3, 4), repeat=n)))
    sums = weights @ all_inputs(n).T.astype(np.int64)  # (7^n, 2^n)
    bits = 1 << np.arange(1 << n)
    masks = np.unique(np.concatenate([(sums >= t) @ bits for t in range(-3 * n, 3 * n + 2)]))
    if len(masks) != _COUNTS[n]:
        raise AssertionError(f"{len(masks)} threshold functions of {n} variables")
    return masks


def _mask(table: Bits) -> int:
    return sum(1 << r for r in np.flatnonzero(table).tolist())


def _table(mask: int, n: int) -> Bits:
    return np.array([mask >> r & 1 for r in range(1 << n)], bool)
