"""Boolean functions as networks of step units that compute them exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.network import Network
from lamina.theory.boolean_expression import run
from lamina.theory.boolean_parser import parse
from lamina.theory.circuit_check import Verification, check
from lamina.theory.circuit_layers import Layers, Unit, lay_out, make_network
from lamina.theory.signals import Signal, Signals
from lamina.theory.table_signals import table_signal
from lamina.theory.threshold_function import is_table_text
from lamina.theory.truth_table import Bits, as_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Truth = Callable[[Bits], Bits]
MOST_DRAWN: Final = 3000


class Circuit:
    """A Boolean function, and a network of step units that computes it exactly.

    Made by `circuit`, `adder`, `comparator`, `parity`, `majority` and `minimal_circuit`.

    Attributes
    ----------
    names : tuple of str
        The variables, in the order of the network's columns.
    outputs : tuple of str
        The names of the network's outputs; ``y`` if there is one.
    network : Network
        0 and 1 in, (n, variables); 0 and 1 out, (n, outputs).
    layers : list of list of Unit
        The same as whole numbers: each unit's weights and threshold, the outputs last.
    text : str
        What it computes.
    """

    def __init__(
        self, names: Sequence[str], outputs: Sequence[str], layers: Layers, truth: Truth, text: str
    ) -> None:
        self.names = tuple(names)
        self.outputs = tuple(outputs)
        self.layers = layers
        self.text = text
        self._truth = truth
        # Hidden units are h1, h2, … unless a variable is
        self._hidden_letter = free_name("h", self.names)
        self.network: Network = make_network(len(self.names), layers, "circuit")

    @property
    def widths(self) -> tuple[int, ...]:
        """Units in each hidden layer."""
        return tuple(len(layer) for layer in self.layers[:-1])

    @property
    def n_hidden(self) -> int:
        """Hidden units."""
        return sum(self.widths)

    def __call__(self, v: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return the outputs, 0 and 1, for the rows of ``v``, or for one input.

        Parameters
        ----------
        v : array-like (n, variables) or (variables,)
            0 and 1, or booleans.

        Returns
        -------
        array of uint8 (n, outputs), or (outputs,) for one input

        Raises
        ------
        ShapeError, DataError
            Another number of columns, or a value that is neither 0 nor 1.
        """
        rows = _as_bits(v, len(self.names), "circuit")
        y = self.network(np.atleast_2d(rows)).astype(np.uint8)
        return y[0] if rows.ndim == 1 else y

    def expected(self, v: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return what the outputs should be, from the definition and not from the network."""
        rows = _as_bits(v, len(self.names), "circuit.expected")
        y = self._truth(np.atleast_2d(rows).astype(bool)).astype(np.uint8)
        return y[0] if rows.ndim == 1 else y

    def verify(
        self, *, exhaustive: bool | None = None, n_samples: int = 100_000, seed: int = 0
    ) -> Verification:
        """Compare the network with the definition.

        Parameters
        ----------
        exhaustive : bool, optional
            At all 2^n inputs; by default up to 20 variables, the most there may be.
        n_samples : int, default 100,000
            How many inputs otherwise: the all-zero and all-one input, those one bit away from
            them, then random ones, half of them with a random share of ones.
        seed : int, default 0
            Draws them.

        Returns
        -------
        Verification
            True where all outputs are right, else with the first wrong input.

        Raises
        ------
        DataError
            ``exhaustive=True`` and more than 20 variables.
        """
        return check(
            lambda x: self.network(x) > 0.5,
            self._truth,
            len(self.names),
            exhaustive=exhaustive,
            n_samples=n_samples,
            seed=seed,
            where="circuit.verify",
        )

    def trace(self, v: npt.ArrayLike) -> CircuitTrace:
        """Return every unit's sum and value at one input, printable layer by layer.

        Parameters
        ----------
        v : array-like (variables,)
        """
        row = _as_bits(v, len(self.names), "circuit.trace")
        if row.ndim != 1:
            raise ShapeError(
                f"circuit.trace: expected one input of shape ({len(self.names)},), got {row.shape}."
                " Pass one row."
            )
        seen = self.network.trace(row[np.newaxis])
        return CircuitTrace(
            self, tuple(row.tolist()), [z[0] for z in seen.z], [h[0] for h in seen.h]
        )

    def unit_name(self, layer: int, i: int) -> str:
        """Return the name of a unit: a variable for layer 0, else h1, h2_3 or an output's."""
        if layer == 0:
            return self.names[i]
        if layer == len(self.layers):
            return self.outputs[i]
        number = f"{i + 1}" if len(self.layers) == 2 else f"{layer}_{i + 1}"
        return f"{self._hidden_letter}{number}"

    def unit_text(self, unit: Unit) -> str:
        """Return a unit's sum, ``a + b - 1.5``; it is 1 where that is positive."""
        parts = []
        for source, w in unit.terms:
            size = "" if abs(w) == 1 else f"{abs(w)} "
            parts.append(("- " if w < 0 else "+ ") + size + self.unit_name(*source))
        parts.append(("- " if unit.bias < 0 else "+ ") + f"{abs(unit.bias):.15g}")
        return " ".join(parts).removeprefix("+ ").replace("- ", "-", 1 if parts[0][0] == "-" else 0)

    def equations(self) -> list[str]:
        """Return one line a unit: ``h1 = [a + b - 1.5 > 0]``."""
        return [
            f"{self.unit_name(layer, i)} = [{self.unit_text(unit)} > 0]"
            for layer, units in enumerate(self.layers, start=1)
            for i, unit in enumerate(units)
        ]

    def __str__(self) -> str:
        return "\n".join([f"{self.text}   inputs: {', '.join(self.names)}", *self.equations()])

    def __repr__(self) -> str:
        return f"Circuit({self.text!r:.60}, {len(self.names)} inputs, hidden units {self.widths})"

    def plot(self) -> Figure:
        """Return a picture of the units with their weights and thresholds.

        Raises
        ------
        SpecError
            There are more than 3,000 connections: nothing could be seen.
        """
        from lamina.plots.circuits import plot_circuit

        n_edges = sum(len(unit.terms) for units in self.layers for unit in units)
        if n_edges > MOST_DRAWN:
            raise SpecError(
                f"circuit: expected at most {MOST_DRAWN:,} connections in a picture, got "
                f"{n_edges:,}. Draw a smaller circuit of the kind."
            )

        edges = [
            (source, (layer, i), w)
            for layer, units in enumerate(self.layers, start=1)
            for i, unit in enumerate(units)
            for source, w in unit.terms
        ]
        nodes = [[(name, "") for name in self.names]]
        for layer, units in enumerate(self.layers, start=1):
            nodes.append(
                [(self.unit_name(layer, i), f"{u.threshold - 0.5:g}") for i, u in enumerate(units)]
            )
        return plot_circuit(nodes, edges, title=self.text)


@dataclass(frozen=True)
class CircuitTrace:
    """One input on its way through a circuit: ``z`` and ``h``, one array a layer."""

    circuit: Circuit
    v: tuple[int, ...]
    z: list[npt.NDArray[Any]]
    h: list[npt.NDArray[Any]]

    def lines(self) -> list[str]:
        """Return the input, then one line a unit."""
        made = self.circuit
        rows = [
            (
                f"layer {layer}" if layer < len(made.layers) else "output",
                made.unit_name(layer, i),
                made.unit_text(unit),
                f"{float(self.z[layer - 1][i]):g}",
                f"{int(self.h[layer - 1][i])}",
            )
            for layer, units in enumerate(made.layers, start=1)
            for i, unit in enumerate(units)
        ]
        wide = [max(len(row[k]) for row in rows) for k in range(4)]
        head = "input  " + "  ".join(f"{n} = {v}" for n, v in zip(made.names, self.v, strict=True))
        return [
            head,
            *(
                f"{a:<{wide[0]}}  {b:<{wide[1]}}  z = {c:<{wide[2]}} = {z:>{wide[3]}}  -> {h}"
                for a, b, c, z, h in rows
            ),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def circuit(function: object, *, skips: bool = True, names: Sequence[str] | None = None) -> Circuit:
    """Return a network of step units that computes a Boolean function exactly.

    Parameters
    ----------
    function : str or array-like (2^n,) or (2^n, outputs) or mapping
        An expression: names, 0, 1, ``& | ^ ~``, ``and or xor not``, ``->`` (or ``>>``), ``<->``
        (or ``==``), and the functions ``majority(a, b, c)``, ``at_least(2, a, b, c)``,
        ``at_most``, ``exactly``, ``parity``, ``implies``, ``iff``, ``if(condition, yes, no)``,
        ``nand``, ``nor``. Or a truth table of up to 16 variables: ``"0110"``, an array whose row
        r belongs to the input that writes r in binary, or ``{(0, 1): 1, (1, 0): 1}``.
    skips : bool, default True
        Let a unit read layers further below; False gives a plain chain of layers, with units
        that copy what is read later.
    names : sequence of str, optional
        The variables of a truth table; x1, x2, … by default.

    Returns
    -------
    Circuit
        ``.network(v)`` takes the variables as columns in order of first appearance.

    Raises
    ------
    SpecError, DataError
        The expression or table cannot be read, or asks for too large a network.

    Notes
    -----
    Negation needs no unit. A part that is a threshold function becomes one unit; a ^ b is OR(a,
    b) - AND(a, b). Thresholds lie halfway between whole numbers, so that no sum is ever a tie and
    float32 is exact. A truth table of up to four variables takes the fewest units that one hidden
    layer can have, of which `minimal_circuit` gives the proof; a larger one becomes a sum of
    products.

    References
    ----------
    McCulloch and Pitts (1943), "A logical calculus of the ideas immanent in nervous activity".

    Examples
    --------
    >>> from lamina import theory
    >>> xor = theory.circuit("(a | b) & ~(a & b)")
    >>> print(xor)
    (a | b) & ~(a & b)   inputs: a, b
    h1 = [a + b - 1.5 > 0]
    h2 = [a + b - 0.5 > 0]
    y = [h2 - h1 - 0.5 > 0]
    >>> xor.network([[0, 0], [0, 1], [1, 0], [1, 1]]).ravel().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    if isinstance(function, str) and not is_table_text(function):
        if names is not None:
            raise SpecError(
                "circuit: expected names with a truth table only, got an expression. "
                "Its variables have names: leave out names=."
            )
        return _of_expression(function, skips)
    table = as_table(function, "circuit")
    n = len(table).bit_length() - 1
    known = [f"x{i + 1}" for i in range(n)] if names is None else [str(name) for name in names]
    if len(known) != n or len(set(known)) != n:
        raise SpecError(
            f"circuit: expected {n} different names for a truth table of {n} variables, got "
            f"{known}. Pass one name a variable."
        )
    return circuit_of_table(table, known, skips)


def _of_expression(text: str, skips: bool) -> Circuit:
    expression = parse(text)
    n = len(expression.names)
    if n == 0:
        raise SpecError(
            f"circuit: expected an expression with at least one name, got {text!r:.60}. "
            "A network needs an input: write a | ~a for a constant."
        )
    signals = Signals(n)
    result = run(expression.program, [signals.input(i) for i in range(n)], signals)
    layers = lay_out(signals, [result], skips)
    return Circuit(
        expression.names,
        [free_name("y", expression.names)],
        layers,
        lambda x: expression.evaluate(x)[:, np.newaxis],
        text.strip(),
    )


def free_name(name: str, taken: Sequence[str]) -> str:
    """Return a name that begins no other: with as many underscores as it takes."""
    while any(known.startswith(name) for known in taken):
        name += "_"
    return name


def circuit_of_table(table: Bits, names: Sequence[str], skips: bool = True) -> Circuit:
    """Return the circuit of a truth table (2^n, outputs)."""
    signals = Signals(len(names))
    results: list[Signal] = [table_signal(signals, column) for column in table.T]
    n = len(names)
    outputs = [free_name("y", names)]
    if len(results) > 1:
        outputs = [f"{outputs[0]}{i + 1}" for i in range(len(results))]

    def truth(x: Bits) -> Bits:
        index = x.astype(np.int64) @ (1 << np.arange(n - 1, -1, -1))
        return np.asarray(table[index])

    return Circuit(
        names, outputs, lay_out(signals, results, skips), truth, f"truth table of {n} variables"
    )


def _as_bits(v: npt.ArrayLike, n: int, where: str) -> npt.NDArray[np.uint8]:
    """Return 0 and 1 as (n,) or (rows, n)."""
    rows = np.asarray(v)
    if rows.ndim not in (1, 2) or rows.shape[-1] != n:
        raise ShapeError(
            f"{where}: expected inputs of shape (rows, {n}) or ({n},), got {rows.shape}. "
            "Pass one column a variable."
        )
    if rows.dtype.kind not in "biuf" or not np.isin(rows, (0, 1)).all():
        raise DataError(
            f"{where}: expected inputs of 0 and 1, got something else. "
            "Compare with a threshold first, for example x > 0."
        )
    return rows.astype(np.uint8)
