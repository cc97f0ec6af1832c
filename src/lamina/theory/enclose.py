"""Enclosures of an expression over boxes: its values, and whether it is defined there at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lamina.theory import interval as iv
from lamina.theory import smooth
from lamina.theory.evaluate import run
from lamina.theory.expression import Expression, Step
from lamina.theory.interval import Interval
from lamina.theory.taylor import Boxes, Taylor


def taylor_model(expression: Expression, boxes: Boxes) -> tuple[Taylor, NDArray[np.bool_]]:
    """Enclose an expression over each box.

    Parameters
    ----------
    expression : Expression
    boxes : Boxes
        Of at least ``expression.d_in`` dimensions.

    Returns
    -------
    model : Taylor
        Of shape (B, 1).
    defined : array of bool (B,)
        False where it may be undefined somewhere in the box: the model says nothing then.
    """
    x = Taylor.inputs(boxes)
    defined = np.ones((boxes.n, 1), bool)

    def const(step: Step) -> Taylor:
        if step.op == "var":
            return x.column(int(step.value or 0))
        return Taylor.number(boxes, constant(step))

    def operate(step: Step, taken: Sequence[Taylor]) -> Taylor:
        nonlocal defined
        a, b = taken[0], taken[-1]
        match step.op:
            case "neg":
                return -a
            case "add":
                return a + b
            case "sub":
                return a - b
            case "mul":
                return a * b
            case "div":
                defined &= _without_zero(b.range)
                return a * b.smooth(smooth.RECIPROCAL)
            case "pow":
                n = int(step.value or 0)
                if n < 0:
                    defined &= _without_zero(a.range)
                return a.smooth(smooth.power(n))
            case "tan":
                cosine = a.smooth(smooth.COS)
                defined &= _without_zero(cosine.range)
                return a.smooth(smooth.SIN) * cosine.smooth(smooth.RECIPROCAL)
            case "abs":
                return smooth.absolute(a)
            case "relu":
                return a.positive_part()
            case "sign":
                return a.bounded(iv.sign(a.range))
            case "max":
                return smooth.maximum(a, b)
            case "min":
                return -smooth.maximum(-a, -b)
        if step.op == "log":
            defined &= a.range.lo > 0
        elif step.op == "sqrt":
            defined &= a.range.lo >= 0
        return a.smooth(smooth.ELEMENTARY[step.op])

    with np.errstate(all="ignore"):
        model = run(expression, const, operate)
    return model, defined[:, 0]


def at_points(expression: Expression, x: NDArray[np.float64]) -> tuple[Interval, NDArray[np.bool_]]:
    """Enclose the values (n,) at rows x (n, d); True where it is surely undefined."""
    with np.errstate(all="ignore"):
        value, undefined = _intervals(expression, [Interval.of(c) for c in x.T], len(x))
    shape = (len(x),)
    spread = Interval(np.broadcast_to(value.lo, shape), np.broadcast_to(value.hi, shape))
    return spread, undefined


def _intervals(
    expression: Expression, columns: Sequence[Interval], n: int
) -> tuple[Interval, NDArray[np.bool_]]:
    undefined = np.zeros(n, bool)

    def const(step: Step) -> Interval:
        return columns[int(step.value or 0)] if step.op == "var" else constant(step)

    def operate(step: Step, taken: Sequence[Interval]) -> Interval:
        nonlocal undefined
        a, b = taken[0], taken[-1]
        match step.op:
            case "neg":
                return -a
            case "add":
                return a + b
            case "sub":
                return a - b
            case "mul":
                return a * b
            case "div":
                undefined = undefined | _is_zero(b)
                return a / b
            case "pow":
                n = int(step.value or 0)
                if n < 0:
                    undefined = undefined | _is_zero(a)
                return a.power(n)
            case "tan":
                return iv.sin(a) / iv.cos(a)
            case "max":
                return Interval(np.maximum(a.lo, b.lo), np.maximum(a.hi, b.hi))
            case "min":
                return Interval(np.minimum(a.lo, b.lo), np.minimum(a.hi, b.hi))
        if step.op in ("log", "sqrt"):
            undefined = undefined | (a.hi <= 0 if step.op == "log" else a.hi < 0)
        return _UNARY[step.op](a)

    value = run(expression, const, operate)
    return Interval(value.lo, value.hi), undefined


_UNARY: dict[str, Callable[[Interval], Interval]] = {
    "sin": iv.sin,
    "cos": iv.cos,
    "exp": iv.exp,
    "log": iv.log,
    "sqrt": iv.sqrt,
    "abs": iv.absolute,
    "sign": iv.sign,
    "tanh": iv.tanh,
    "sigmoid": iv.sigmoid,
    "relu": iv.positive_part,
}


def constant(step: Step) -> Interval:
    """The interval around a number as it is written."""
    if step.op in ("pi", "e"):
        return iv.PI if step.op == "pi" else iv.E
    value = Fraction(step.value or 0)
    near = np.array(float(value))
    error = value - Fraction(float(near))
    if error == 0:
        return Interval(near, near)
    return Interval(np.nextafter(near, -np.inf), np.nextafter(near, np.inf))


def _without_zero(z: Interval) -> NDArray[np.bool_]:
    return (z.lo > 0) | (z.hi < 0)


def _is_zero(z: Interval) -> NDArray[np.bool_]:
    return np.asarray((z.lo == 0) & (z.hi == 0))
