"""Boolean expressions: a short program for a stack, and what it can be run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Step:
    """One step of a program: what to do with the top ``n`` values of the stack.

    ``name`` is var (push variable k), const (push k), not, and, or, xor, at_least (k), exactly
    (k), implies or if.
    """

    name: str
    n: int = 0
    k: int = 0


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its variables in the order of first appearance, and its program."""

    text: str
    names: tuple[str, ...]
    program: tuple[Step, ...]

    def evaluate(self, x: Bits) -> Bits:
        """Return the values (n,) at the rows of ``x``, booleans (n, variables)."""
        columns = list(np.ascontiguousarray(x.T))
        return np.broadcast_to(run(self.program, columns, _Arrays()), (len(x),)).copy()


class Algebra(Protocol[Value]):
    """What a program can be run on: arrays of booleans, or the signals of a circuit."""

    def const(self, value: int) -> Value:
        """Return 0 or 1."""

    def not_(self, a: Value) -> Value:
        """Return 1 - a."""

    def and_(self, values: Sequence[Value]) -> Value:
        """Return 1 where all are."""

    def or_(self, values: Sequence[Value]) -> Value:
        """Return 1 where one is."""

    def xor(self, values: Sequence[Value]) -> Value:
        """Return 1 where an odd number are."""

    def at_least(self, k: int, values: Sequence[Value]) -> Value:
        """Return 1 where k or more are."""

    def exactly(self, k: int, values: Sequence[Value]) -> Value:
        """Return 1 where k are."""

    def if_(self, condition: Value, yes: Value, no: Value) -> Value:
        """Return yes where the condition holds, no elsewhere."""


class _Arrays:
    """The algebra of arrays of booleans: what an expression means."""

    def const(self, value: int) -> Bits:
        return np.array(bool(value))

    def not_(self, a: Bits) -> Bits:
        return ~a

    def and_(self, values: Sequence[Bits]) -> Bits:
        return self.at_least(len(values), values)

    def or_(self, values: Sequence[Bits]) -> Bits:
        return self.at_least(1, values)

    def xor(self, values: Sequence[Bits]) -> Bits:
        return np.asarray(_count(values) % 2 == 1)

    def at_least(self, k: int, values: Sequence[Bits]) -> Bits:
        return np.asarray(_count(values) >= k)

    def exactly(self, k: int, values: Sequence[Bits]) -> Bits:
        return np.asarray(_count(values) == k)

    def if_(self, condition: Bits, yes: Bits, no: Bits) -> Bits:
        return np.where(condition, yes, no)


def _count(values: Sequence[Bits]) -> NDArray[np.int64]:
    total = np.zeros((), np.int64)
    for value in values:
        total = total + value
    return total


def run(program: Sequence[Step], variables: Sequence[Value], algebra: Algebra[Value]) -> Value:
    """Return the value of a program on the values of its variables."""
    stack: list[Value] = []
    for step in program:
        if step.name == "var":
            stack.append(variables[step.k])
            continue
        if step.name == "const":
            stack.append(algebra.const(step.k))
            continue
        values = stack[len(stack) - step.n :]
        del stack[len(stack) - step.n :]
        match step.name:
            case "not":
                result = algebra.not_(values[0])
            case "and":
                result = algebra.and_(values)
            case "or":
                result = algebra.or_(values)
            case "xor":
                result = algebra.xor(values)
            case "at_least":
                result = algebra.at_least(step.k, values)
            case "exactly":
                result = algebra.exactly(step.k, values)
            case "implies":
                result = algebra.or_([algebra.not_(values[0]), values[1]])
            case _:
                result = algebra.if_(*values)
        stack.append(result)
    return stack[0]
