"""The value of an expression: in float64, and exactly on fractions where it is rational."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError
from lamina.core.functions import sigmoid
from lamina.theory.expression import Expression, Step

_FLOAT: Final[dict[str, Callable[..., Any]]] = {
    "neg": np.negative,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda z: np.maximum(z, 0.0),
    "max": np.maximum,
    "min": np.minimum,
}
_EXACT: Final[dict[str, Callable[..., Any]]] = {
    "neg": lambda a: -a,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "abs": abs,
    "sign": lambda a: Fraction((a > 0) - (a < 0)),
    "relu": lambda a: max(a, Fraction(0)),
    "max": max,
    "min": min,
}


def run(
    expression: Expression,
    const: Callable[[Step], Any],
    operate: Callable[[Step, Sequence[Any]], Any],
) -> Any:
    """Go through the instructions in any arithmetic.

    Parameters
    ----------
    expression : Expression
    const : function
        The value of the steps const, pi, e and var.
    operate : function
        The value of any other step, from the values that it takes.
    """
    values: list[Any] = []
    for step in expression.steps:
        taken = [values[i] for i in step.args]
        values.append(operate(step, taken) if taken else const(step))
    return values[-1]


def in_float64(expression: Expression, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values (n,) of rows x (n, d); NaN or infinity where it is undefined."""

    def const(step: Step) -> Any:
        if step.op == "var":
            return x[:, int(step.value or 0)]
        named = {"pi": math.pi, "e": math.e}
        return np.float64(named[step.op] if step.op in named else float(step.value or 0))

    def operate(step: Step, taken: Sequence[Any]) -> Any:
        if step.op == "pow":
            return np.power(taken[0], float(step.value or 0))
        return _FLOAT[step.op](*taken)

    with np.errstate(all="ignore"):
        value = np.asarray(run(expression, const, operate), np.float64)
    return np.array(np.broadcast_to(value, (len(x),)))


def exactly(expression: Expression, row: Sequence[Fraction], where: str = "expression") -> Fraction:
    """Return the value at one row of fractions, as a fraction.

    Raises
    ------
    DataError
        It divides by zero there, or is not rational.
    """
    if not expression.is_rational:
        raise DataError(
            f"{where}: expected a rational formula for exact numbers, got {expression.text!r}. "
            f"Pass x as floats, or use only + - * / **, abs, sign, relu, max and min."
        )

    def const(step: Step) -> Fraction:
        return row[int(step.value or 0)] if step.op == "var" else Fraction(step.value or 0)

    def operate(step: Step, taken: Sequence[Fraction]) -> Fraction:
        if step.op == "pow":
            return taken[0] ** int(step.value or 0)  # a Fraction: the exponent is whole
        return Fraction(_EXACT[step.op](*taken))

    try:
        return Fraction(run(expression, const, operate))
    except ZeroDivisionError:
        at = ", ".join(str(v) for v in row[: max(expression.d_in, 1)])
        raise DataError(
            f"{where}: expected {expression.text!r} to be defined at every row, got a division by "
            f"zero at ({at}). Leave such rows out, or change the formula."
        ) from None
