"""``lamina prove circuit``: a Boolean function as a network that computes it exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import json_option
from lamina.cli.network_file import open_network
from lamina.cli.proof import Proof, check_plot, plot_option, show

if TYPE_CHECKING:
    from lamina.theory.circuits import Circuit

VERB = "prove circuit"
MOST_ROWS = 16  # of a table that people read
MOST_UNITS = 60


@click.command("circuit", epilog='Example: lamina prove circuit "(a | b) & ~(a & b)"')
@click.argument("expression", metavar="EXPR")
@click.option(
    "--input", "bits", metavar="BITS", help="Trace one input, such as 01, layer by layer."
)
@click.option("--minimal", is_flag=True, help="Fewest hidden units, with proof: 4 variables.")
@click.option(
    "--no-skips", is_flag=True, help="A plain chain of layers; units copy what is needed."
)
@click.option("--exhaustive", is_flag=True, help="Insist on all inputs: at most 20 variables.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws inputs beyond that.")
@json_option
@plot_option
def command(
    expression: str,
    bits: str | None,
    minimal: bool,
    no_skips: bool,
    exhaustive: bool,
    seed: int,
    as_json: bool,
    plot: str | None,
) -> None:
    """Compile a Boolean function to step units, and verify it.

    EXPR has names, 0, 1, & | ^ ~ (or: and or xor not), -> and <->, and the functions majority(a,
    b, c), at_least(2, a, b, c), at_most, exactly, parity, if(condition, yes, no), implies, iff,
    nand, nor; or it is a truth table such as 0110. Nothing is trained. Up to 20 variables the
    network is run on every input there is; beyond, on 100,000 drawn ones.

    EXPR may also be a model file of up to 20 inputs: its Boolean function is then read out of it.
    """
    from lamina.core.errors import DataError
    from lamina.theory.circuits import circuit
    from lamina.theory.minimal import minimal_circuit

    check_plot(plot, VERB)
    if expression.endswith(".lamina"):
        if plot is not None:
            raise DataError(
                f"{VERB}: expected an expression with --plot, got a model. Drop --plot."
            )
        _read_back(expression, as_json)
        return
    fewest = minimal_circuit(expression) if minimal else None
    made = circuit(expression, skips=not no_skips) if fewest is None else fewest.circuit
    row = None if bits is None else _row(bits, made.names)
    checked = made.verify(exhaustive=True if exhaustive else None, seed=seed)
    n = made.n_hidden
    layers = len(made.widths)
    hidden = "A single step unit, without a hidden layer,"
    if n:
        hidden = (
            f"A network of {n} hidden step unit{'s' if n > 1 else ''} in {layers} "
            f"layer{'s' if layers > 1 else ''}"
        )
    if fewest is not None and n:
        hidden += ", and no fewer in one layer,"
    proof = Proof(
        f"{hidden} computes {made.text}: {checked}.",
        (*_evidence(made, row), *(("", *fewest.proof) if fewest else ())),
        tuple(_check(made)),
        {
            "expression": expression,
            "inputs": list(made.names),
            "widths": list(made.widths),
            "units": _units(made),
            "verified": {
                "passed": checked.passed,
                "exhaustive": checked.exhaustive,
                "n_inputs": checked.n_inputs,
                "seed": checked.seed,
                "counterexample": checked.counterexample,
            },
            **({} if fewest is None else {"proof": list(fewest.proof)}),
            **({} if row is None else {"trace": made.trace(row).lines()}),
        },
    )
    show(proof, as_json, plot, VERB, made.plot)


def _read_back(path: str, as_json: bool) -> None:
    """Show the function that a network computes."""
    from lamina.theory.read_back import boolean_function

    read = boolean_function(open_network(path, VERB))
    proof = Proof(
        f"The network in {path} computes a Boolean function of {', '.join(read.names)}.",
        (
            *str(read).splitlines(),
            f"read from its answers at all {len(read.table):,} inputs of 0 and 1"
            + (f"; no step unit's sum is nearer to 0 than {read.margin:g}" if read.units else ""),
        ),
        ("run the network at a few inputs, and work the formula out at the same.",),
        {
            "names": list(read.names),
            "formulas": dict(zip(read.outputs, read.formulas, strict=True)),
            "units": read.units,
            "margin": read.margin,
        },
    )
    show(proof, as_json, None, VERB, None)


def _row(bits: str, names: tuple[str, ...]) -> list[int]:
    from lamina.core.errors import DataError

    cells = bits.replace(",", "").replace(" ", "")
    if len(cells) != len(names) or set(cells) - {"0", "1"}:
        example = ("01" * len(names))[: len(names)]
        raise DataError(
            f"{VERB}: expected --input to have {len(names)} digits 0 or 1 (for "
            f"{', '.join(names)}), got {bits!r}. Write, for example, --input {example}."
        )
    return [int(cell) for cell in cells]


def _units(made: Circuit) -> list[dict[str, Any]]:
    return [
        {
            "name": made.unit_name(layer, i),
            "layer": layer,
            "weights": {made.unit_name(*source): w for source, w in unit.terms},
            "bias": unit.bias,
        }
        for layer, units in enumerate(made.layers, start=1)
        for i, unit in enumerate(units)
    ]


def _evidence(made: Circuit, row: list[int] | None) -> list[str]:
    lines = made.equations()
    if len(lines) > MOST_UNITS:
        lines = [
            *lines[:MOST_UNITS],
            f"… and {len(lines) - MOST_UNITS} more units (--json lists all)",
        ]
    if row is not None:
        return [*lines, "", *made.trace(row).lines()]
    if 1 << len(made.names) > MOST_ROWS or len(lines) > 8:
        return lines
    return [*lines, "", *_table(made)]


def _table(made: Circuit) -> list[str]:
    """Every input, with the value of every unit."""
    from lamina.theory.truth_table import all_inputs

    rows = all_inputs(len(made.names))
    columns = [*made.names]
    for layer, units in enumerate(made.layers, start=1):
        columns += [made.unit_name(layer, i) for i in range(len(units))]
    lines = ["  ".join(columns)]
    seen = made.network.trace(rows).h
    for r, row in enumerate(rows.tolist()):
        values = [*row, *(int(v) for h in seen for v in h[r])]
        lines.append(
            "  ".join(f"{v:>{len(name)}}" for v, name in zip(values, columns, strict=True))
        )
    return lines


def _check(made: Circuit) -> list[str]:
    lines = [
        "put 0 and 1 into the inputs, and work the lines out from the first to the last: "
        "[…] is 1 where the sum is positive, else 0;",
        "compare the last with the definition. No sum is ever 0: weights are whole, biases halves.",
    ]
    if len(made.names) > 4:
        lines.append("--input shows one input layer by layer.")
    return lines
