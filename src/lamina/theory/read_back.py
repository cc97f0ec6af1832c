"""The way back: the Boolean function that a network computes, as a table and as a formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import check_number
from lamina.core.errors import DataError, SpecError
from lamina.core.network import Network
from lamina.theory.circuit_check import MOST_EXHAUSTIVE, every
from lamina.theory.truth_table import (
    MOST_TABLED,
    Bits,
    product_text,
    sum_of_products,
    symmetric_values,
    variables_of,
)

MOST_PRODUCTS: Final = 100


@dataclass(frozen=True)
class BooleanFunction:
    """What a network answers at every input of 0 and 1.

    Attributes
    ----------
    names, outputs : tuple of str
    table : array of bool (2^n, outputs)
        Row r is the answer at the input that writes r in binary.
    formulas : tuple of str or None
        One an output, in the notation of `circuit`; None where it would have more than 100
        products, or 17 variables and more.
    units : dict of str to (str or None)
        The same of every hidden step unit, ``h1_2`` for the second of layer 1.
    margin : float
        The smallest |z| of all step units at all inputs: how far the nearest is from its
        threshold. 0.5 for the networks of `circuit`; rounding could matter near 0.
    """

    names: tuple[str, ...]
    outputs: tuple[str, ...]
    table: Bits
    formulas: tuple[str | None, ...]
    units: dict[str, str | None]
    margin: float

    def __str__(self) -> str:
        named = dict(zip(self.outputs, self.formulas, strict=True))
        return "\n".join(
            f"{name} = {text if text is not None else 'too long a formula: see table'}"
            for name, text in {**self.units, **named}.items()
        )


def boolean_function(
    net: Network, names: Sequence[str] | None = None, *, threshold: float | None = None
) -> BooleanFunction:
    """Read the Boolean function out of a network, by running it on every input of 0 and 1.

    Parameters
    ----------
    net : Network
        Of at most 20 inputs; of step units, or any other with a threshold.
    names : sequence of str, optional
        Of the inputs; x1, x2, … by default.
    threshold : float, optional
        Count an output above it as 1: for trained networks, 0.5 after a sigmoid. By default
        every output must be 0 or 1.

    Returns
    -------
    BooleanFunction

    Raises
    ------
    SpecError, DataError
        Too many inputs, names that do not fit, or an output that is neither 0 nor 1.

    Notes
    -----
    A formula is a parity or a count of ones where the function is one, else an irredundant sum
    of prime implicants (Minato 1992) of the function or of its negation, whichever is shorter.

    Examples
    --------
    >>> from lamina import theory
    >>> print(theory.boolean_function(theory.circuit("(a | b) & ~(a & b)").network, "ab"))
    h1_1 = a & b
    h1_2 = a | b
    y = a ^ b
    """
    where = "boolean_function"
    if not isinstance(net, Network):
        raise SpecError(
            f"{where}: expected a lamina.Network, got a {type(net).__name__}. Pass circuit.network."
        )
    n = net.spec.d_in
    if n > MOST_EXHAUSTIVE:
        raise DataError(
            f"{where}: expected at most {MOST_EXHAUSTIVE} inputs, got {n}, which have {2.0**n:.2g} "
            "values. Fix some of them, and build a smaller network."
        )
    known = tuple(names) if names is not None else tuple(f"x{i + 1}" for i in range(n))
    if len(known) != n or len(set(known)) != n:
        raise SpecError(
            f"{where}: expected {n} different names, got {known}. Pass one name an input."
        )
    if threshold is not None:
        threshold = check_number(threshold, "threshold", where)
    answers, hidden, margin = _run_everywhere(net, threshold, where)
    d_out = net.spec.d_out
    outputs = ("y",) if d_out == 1 else tuple(f"y{i + 1}" for i in range(d_out))
    return BooleanFunction(
        known,
        outputs,
        answers,
        tuple(formula(column, known) for column in answers.T),
        {name: formula(column, known) for name, column in hidden.items()},
        margin,
    )


def _run_everywhere(
    net: Network, threshold: float | None, where: str
) -> tuple[Bits, dict[str, Bits], float]:
    """The outputs (2^n, d_out), the hidden step units (2^n,), and the smallest |z|."""
    spec = net.spec
    steps = [i for i, name in enumerate(spec.activations) if name == "step"]
    answers: list[Bits] = []
    hidden: list[list[Bits]] = [[] for _ in steps]
    margin = np.inf
    for x in every(spec.d_in):
        seen = net.trace(x)
        answers.append(_as_answers(seen.h[-1], x, threshold, where))
        for parts, i in zip(hidden, steps, strict=True):
            # Not h, to which a residual connection may have added the layer before
            parts.append(seen.z[i] >= 0)
            margin = min(margin, float(np.abs(seen.z[i]).min()))
        if spec.output == "step":
            margin = min(margin, float(np.abs(seen.z[-1]).min()))
    units = {
        f"h{i + 1}_{k + 1}": column
        for parts, i in zip(hidden, steps, strict=True)
        for k, column in enumerate(np.concatenate(parts).T)
    }
    return np.concatenate(answers), units, margin


def _as_answers(y: NDArray[Any], x: NDArray[np.uint8], threshold: float | None, where: str) -> Bits:
    if threshold is not None:
        return np.asarray(y > threshold)
    wrong = ~np.isin(y, (0, 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{where}: expected outputs of 0 and 1, got {y[row, column]:g} at "
            f"{''.join(map(str, x[row].tolist()))}. Use step units, or pass threshold=0.5."
        )
    return np.asarray(y == 1)


def formula(table: Bits, names: Sequence[str]) -> str | None:
    """Return a truth table (2^n,) as an expression, None if it would be too long."""
    used = variables_of(table)
    if not used:
        return str(int(table[0]))
    n = len(names)
    # The table of the variables that matter, the others at 0
    cube = table.reshape((2,) * n)[tuple(slice(None) if i in used else 0 for i in range(n))]
    small = cube.ravel()
    known = [names[i] for i in used]
    counted = _count_text(small, known)
    if counted is not None:
        return counted
    if len(known) > MOST_TABLED:
        return None
    plain, negated = sum_of_products(small), sum_of_products(~small)
    size = sum(map(len, plain)) + len(plain), sum(map(len, negated)) + len(negated)
    products = plain if size[0] <= size[1] + 2 else negated
    if len(products) > MOST_PRODUCTS:
        return None
    if products is negated and len(products) == 1:  # ~(~a & b) = a | ~b
        return " | ".join(known[i] if not value else f"~{known[i]}" for i, value in products[0])
    text = " | ".join(product_text(product, known) for product in products)
    return text if products is plain else f"~({text})"


def _count_text(table: Bits, names: Sequence[str]) -> str | None:
    """A function of the number of ones, where that has a name."""
    values = symmetric_values(table)
    n = len(names)
    if values is None or n < 2:
        return None
    changes = (np.flatnonzero(np.diff(values)) + 1).tolist()
    every_one = ", ".join(names)
    if len(changes) == n:  # it changes with every one
        text = " ^ ".join(names)
        return text if values[1] else f"~({text})"
    if len(changes) == 1 and 1 < changes[0] < n:
        k = changes[0]
        if 2 * k == n + 1:
            text = f"majority({every_one})"
            return text if values[-1] else f"~{text}"
        return f"at_least({k}, {every_one})" if values[-1] else f"at_most({k - 1}, {every_one})"
    if len(changes) == 2 and changes[1] == changes[0] + 1 and changes[0] < n:
        text = f"exactly({changes[0]}, {every_one})"
        return text if values[changes[0]] else f"~{text}"
    return None
