"""Threshold units wired together: what a Boolean expression compiles to.

A *signal* is a whole-number combination of inputs and units whose value is always 0 or 1, such as
``OR(a, b) - AND(a, b)`` for a ^ b or ``1 - a`` for ~a; neither needs a unit of its own. A unit is
1 where a combination of signals reaches its threshold. Equal units are made once, and a unit that
reads units is rewritten to read what they read wherever the whole is still a threshold function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.theory.threshold_function import find_threshold
from lamina.theory.truth_table import all_inputs

MOST_MERGED: Final = 7
"""Signals that a merged unit may read: its truth table has two to this power rows."""
MOST_FLAT: Final = 100
"""Signals of an OR that is made part of the OR around it: long nested chains stay linear."""
MOST_COUNTED: Final = 64
"""Signals that a parity of parities is flattened to at most: it has as many units as signals."""


@dataclass(frozen=True)
class Signal:
    """``const + sum w_i u_i`` with terms (i, w_i), u_i input or unit i; its value is 0 or 1."""

    const: int
    terms: tuple[tuple[int, int], ...] = ()

    @property
    def negated(self) -> Signal:
        """1 - self."""
        return Signal(1 - self.const, tuple((i, -w) for i, w in self.terms))

    @property
    def is_plain(self) -> bool:
        """Whether it is one input or one unit, as it stands."""
        return self.const == 0 and len(self.terms) == 1 and self.terms[0][1] == 1


@dataclass(frozen=True)
class Gate:
    """A unit: 1 where ``sum w_i u_i >= threshold``, terms (i, w_i).

    ``leaves`` and ``weights`` say the same of signals, which terms expands to inputs and units,
    with a threshold of its own.
    """

    terms: tuple[tuple[int, int], ...]
    threshold: int
    leaves: tuple[Signal, ...]
    weights: tuple[int, ...]
    leaf_threshold: int


class Signals:
    """The units made so far, and the operations that make them: an `Algebra`."""

    def __init__(self, n_inputs: int) -> None:
        self.n_inputs = n_inputs
        self.gates: list[Gate] = []  # unit n_inputs + i
        self._made: dict[tuple[tuple[tuple[int, int], ...], int], Signal] = {}
        self._parities: dict[Signal, tuple[Signal, ...]] = {}

    def input(self, i: int) -> Signal:
        """Return the signal of input i."""
        return Signal(0, ((i, 1),))

    # --- what the unit is ----------------------------------------------------------------------

    def threshold(
        self, signals: Sequence[Signal], weights: Sequence[int], threshold: int
    ) -> Signal:
        """Return the signal of ``sum w_i s_i >= threshold``, making a unit where it needs one."""
        return self._made_of(*_collect(signals, weights, threshold))

    def _made_of(self, leaves: dict[Signal, int], t: int) -> Signal:
        """The same of distinct positive signals."""
        low = sum(w for w in leaves.values() if w < 0)
        high = sum(w for w in leaves.values() if w > 0)
        if t <= low or t > high:
            return Signal(int(t <= low))
        if len(leaves) == 1:
            ((leaf, w),) = leaves.items()
            return leaf if w > 0 else leaf.negated
        terms, t_terms = _expand(leaves, t)
        if not terms:
            return Signal(int(t_terms <= 0))
        # A unit and its negation are one unit: that of which more weights are positive.
        direction = sum(w for _, w in terms) or terms[0][1]
        if direction < 0:
            leaves = {leaf: -w for leaf, w in leaves.items()}
            terms = tuple((i, -w) for i, w in terms)
            t, t_terms = 1 - t, 1 - t_terms
        divisor = math.gcd(*(w for _, w in terms))
        key = (tuple((i, w // divisor) for i, w in terms), -(-t_terms // divisor))
        if key not in self._made:
            self._made[key] = Signal(0, ((self.n_inputs + len(self.gates), 1),))
            self.gates.append(Gate(*key, tuple(leaves), tuple(leaves.values()), t))
        return self._made[key] if direction > 0 else self._made[key].negated

    def gate(self, signals: Sequence[Signal], weights: Sequence[int], threshold: int) -> Signal:
        """Return ``sum w_i s_i >= threshold``, merged with the units that it reads if it can be."""
        leaves, t = _collect(signals, weights, threshold)
        if len(leaves) <= MOST_MERGED:
            merged = self._merge(leaves, t)
            if merged is not None:
                return merged
        return self.threshold(tuple(leaves), tuple(leaves.values()), t)

    # --- merging -------------------------------------------------------------------------------

    def _merge(self, leaves: dict[Signal, int], t: int) -> Signal | None:
        """Read the leaves of leaves instead, all at once or one after another; None: nothing to."""
        inner = [leaf for leaf in leaves if self._sources(leaf) != {leaf}]
        apart = [leaf for leaf in inner if self._is_apart(leaf, leaves)]
        for opened in (inner, *([leaf] for leaf in apart)):
            merged = self._inlined(leaves, t, opened) if opened else None
            if merged is not None:
                return merged
        return None

    def _is_apart(self, leaf: Signal, leaves: Iterable[Signal]) -> bool:
        """Tell whether a leaf reads nothing that another leaf, kept as it is, reads as well.

        Else XOR = AND(OR(a, b), NAND(a, b)) would become a + b - 2 AND(a, b), whose output reads
        the inputs again.
        """
        rest = (self._sources(other) | {other} for other in leaves if other != leaf)
        return self._sources(leaf).isdisjoint(frozenset().union(*rest))

    def _inlined(self, leaves: dict[Signal, int], t: int, opened: list[Signal]) -> Signal | None:
        """Return the threshold function with the ``opened`` leaves replaced by what they read."""
        sources = tuple(
            dict.fromkeys(
                source
                for leaf in leaves
                for source in (
                    sorted(self._sources(leaf), key=_order) if leaf in opened else [leaf]
                )
            )
        )
        if len(sources) > MOST_MERGED:
            return None
        rows = all_inputs(len(sources)).astype(np.int64)
        values = dict(zip(sources, rows.T, strict=True))
        total = np.zeros(len(rows), np.int64)
        for leaf, w in leaves.items():
            total += w * self._value(leaf, values)
        found = find_threshold(total >= t)
        if found is None:
            return None
        weights, threshold = found
        used = [(s, w) for s, w in zip(sources, weights, strict=True) if w]
        return self.gate([s for s, _ in used], [w for _, w in used], threshold)

    def _sources(self, leaf: Signal) -> set[Signal]:
        """The signals that the units of a leaf read; inputs stand for themselves."""
        found: set[Signal] = set()
        for i, _ in leaf.terms:
            if i < self.n_inputs:
                found.add(self.input(i))
            else:
                found.update(self.gates[i - self.n_inputs].leaves)
        return found

    def _value(self, leaf: Signal, values: dict[Signal, NDArray[np.int64]]) -> NDArray[np.int64]:
        """The value of a leaf at the rows of its sources."""
        if leaf in values:
            return values[leaf]
        total = np.full(len(next(iter(values.values()))), leaf.const, np.int64)
        for i, w in leaf.terms:
            if i < self.n_inputs:
                total += w * values[self.input(i)]
                continue
            gate = self.gates[i - self.n_inputs]
            z = sum(v * values[s] for s, v in zip(gate.leaves, gate.weights, strict=True))
            total += w * (z >= gate.leaf_threshold)
        return total

    # --- the algebra ---------------------------------------------------------------------------

    def const(self, value: int) -> Signal:
        """Return 0 or 1."""
        return Signal(value)

    def not_(self, a: Signal) -> Signal:
        """Return 1 - a: no unit."""
        return a.negated

    def and_(self, values: Sequence[Signal]) -> Signal:
        """Return 1 where all are: one unit, however the ANDs are nested."""
        flat = self._flat([value.negated for value in values])
        if any(value.negated in flat for value in flat):
            return Signal(0)
        return self.gate([value.negated for value in flat], (1,) * len(flat), len(flat))

    def or_(self, values: Sequence[Signal]) -> Signal:
        """Return 1 where one is: one unit, however the ORs are nested."""
        flat = self._flat(values)
        if any(value.negated in flat for value in flat):
            return Signal(1)
        return self.gate(tuple(flat), (1,) * len(flat), 1)

    def _flat(self, values: Sequence[Signal]) -> dict[Signal, None]:
        """The distinct signals of an OR of ORs."""
        flat: dict[Signal, None] = {}
        for value in values:
            parts = self._or_parts(value)
            flat.update(dict.fromkeys(parts if len(parts) <= MOST_FLAT else (value,)))
        return flat

    def _or_parts(self, value: Signal) -> tuple[Signal, ...]:
        """The signals that an OR is the OR of."""
        positive = value if value.is_plain else value.negated
        if not positive.is_plain or positive.terms[0][0] < self.n_inputs:
            return (value,)
        gate = self.gates[positive.terms[0][0] - self.n_inputs]
        if any(abs(w) != 1 for w in gate.weights):
            return (value,)
        low = sum(w for w in gate.weights if w < 0)
        if value.is_plain and gate.leaf_threshold == low + 1:
            return tuple(
                s if w > 0 else s.negated for s, w in zip(gate.leaves, gate.weights, strict=True)
            )
        if not value.is_plain and gate.leaf_threshold == low + len(gate.weights):
            return tuple(
                s.negated if w > 0 else s for s, w in zip(gate.leaves, gate.weights, strict=True)
            )
        return (value,)

    def at_least(self, k: int, values: Sequence[Signal]) -> Signal:
        """Return 1 where k or more are."""
        return self.gate(values, (1,) * len(values), k)

    def exactly(self, k: int, values: Sequence[Signal]) -> Signal:
        """Return 1 where k are: two units, at least k and at least k + 1."""
        return self.plus(self.at_least(k, values), self.at_least(k + 1, values), -1)

    def if_(self, condition: Signal, yes: Signal, no: Signal) -> Signal:
        """Return yes where the condition holds, no elsewhere: a sum, as at most one term is 1."""
        first = self.and_([condition, yes])
        second = self.and_([condition.negated, no])
        return self.plus(first, second, 1)

    def xor(self, values: Sequence[Signal]) -> Signal:
        """Return 1 where an odd number are: n units, at least 1 to at least n, with signs."""
        odd: dict[Signal, None] = {}
        flips = 0
        for value in values:
            leaf, sign = _literal(value)
            flips += sign < 0
            if not leaf.terms:
                flips += leaf.const
                continue
            parts = self._parities.get(leaf, (leaf,))
            for part in parts if len(odd) + len(parts) <= MOST_COUNTED else (leaf,):
                if part in odd:
                    del odd[part]  # a ^ a = 0
                else:
                    odd[part] = None
        total = self.count_parity(tuple(odd))
        return total.negated if flips % 2 else total

    def count_parity(self, leaves: Sequence[Signal]) -> Signal:
        """Return the parity of distinct positive signals as it stands, nothing flattened."""
        total = Signal(0)
        for k in range(1, len(leaves) + 1):
            unit = self._made_of(dict.fromkeys(leaves, 1), k)
            total = self.plus(total, unit, 1 if k % 2 else -1)
        if len(leaves) > 1:
            self._parities[total] = tuple(leaves)
        return total

    def plus(self, a: Signal, b: Signal, factor: int) -> Signal:
        """Return a + factor b: the caller knows that this is 0 or 1."""
        return _sum([(a, 1), (b, factor)])


def _order(signal: Signal) -> tuple[int, tuple[tuple[int, int], ...]]:
    return signal.const, signal.terms


def _literal(signal: Signal) -> tuple[Signal, int]:
    """Return a signal or its negation, the same one for both, and which: 1 or -1."""
    other = signal.negated
    return (signal, 1) if _order(signal) <= _order(other) else (other, -1)


def _collect(
    signals: Sequence[Signal], weights: Sequence[int], threshold: int
) -> tuple[dict[Signal, int], int]:
    """Return the weights of distinct positive signals, and the threshold that goes with them."""
    leaves: dict[Signal, int] = {}
    for signal, w in zip(signals, weights, strict=True):
        leaf, sign = _literal(signal)
        if sign < 0:  # w (1 - leaf)
            threshold -= w
        if leaf.terms:
            leaves[leaf] = leaves.get(leaf, 0) + sign * w
        else:
            threshold -= sign * w * leaf.const
    return {leaf: w for leaf, w in leaves.items() if w}, threshold


def _expand(leaves: dict[Signal, int], t: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """Return the terms of ``sum w_i leaf_i``, and the threshold less its constant."""
    total = _sum(leaves.items())
    return total.terms, t - total.const


def _sum(parts: Iterable[tuple[Signal, int]]) -> Signal:
    """``sum w_i s_i``; the caller knows that it is 0 or 1."""
    const = 0
    terms: dict[int, int] = {}
    for signal, w in parts:
        const += w * signal.const
        for i, v in signal.terms:
            terms[i] = terms.get(i, 0) + w * v
    return Signal(const, tuple(sorted((i, v) for i, v in terms.items() if v)))
