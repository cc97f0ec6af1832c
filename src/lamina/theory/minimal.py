"""The fewest hidden units for a function of up to four variables, with proof by exhaustion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamina.core.errors import SpecError
from lamina.theory.boolean_parser import parse
from lamina.theory.circuit_layers import lay_out
from lamina.theory.circuits import Circuit, free_name
from lamina.theory.fewest_units import COUNTS, MOST_VARIABLES, fewest_units
from lamina.theory.signals import Signal, Signals
from lamina.theory.threshold_function import (
    find_threshold,
    is_table_text,
    is_threshold_function,
    table_of,
)
from lamina.theory.truth_table import Bits


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
    found = fewest_units(table)
    proof = _proof(decided.point, n, 4 if found is None else len(found.hidden))
    if found is None:  # parity of four, or its negation: at least 1, … at least 4, in turn
        result = signals.count_parity(inputs)
        odd = bool(table[1])
        return _made(signals, result if odd else result.negated, names, table, text, 4, proof)
    units = [_unit(signals, inputs, hidden) for hidden in found.hidden]
    result = signals.threshold(units, found.weights, found.threshold)
    result = result.negated if found.negated else result
    return _made(signals, result, names, table, text, len(units), proof)


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
    count = f"the {COUNTS[n]:,} threshold functions of {n} variables"
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
