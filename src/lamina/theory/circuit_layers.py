"""From units wired together to the layers of a network of step units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lamina.core.errors import SpecError
from lamina.core.network import Network
from lamina.core.spec import NetworkSpec
from lamina.theory.signals import Signal, Signals

MOST_PARAMETERS: Final = 20_000_000
Terms = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Unit:
    """A step unit: 1 where ``sum w_i u_i >= threshold``.

    ``terms`` are pairs (source, w_i), where a source is (0, i) for input i, or (layer, i) for
    unit i of that layer, both from 0.
    """

    terms: tuple[tuple[tuple[int, int], int], ...]
    threshold: int

    @property
    def bias(self) -> float:
        """Half a unit off every sum there can be, so that rounding never decides."""
        return 0.5 - self.threshold


Layers = list[list[Unit]]


def lay_out(signals: Signals, outputs: Sequence[Signal], skips: bool) -> Layers:
    """Return the units layer by layer, the outputs last.

    Each unit lies one layer above the highest that it reads. Without ``skips``, what is read from
    further below is passed on by units that copy it.
    """
    n = signals.n_inputs
    ends = [_output_unit(signals, output) for output in outputs]
    needed = _needed(signals, [terms for terms, _ in ends])
    level = dict.fromkeys(range(n), 0)
    for i in needed:
        level[i] = 1 + max(level[j] for j, _ in signals.gates[i - n].terms)
    last = 1 + max((level[j] for terms, _ in ends for j, _ in terms), default=0)
    parts: list[list[tuple[int, Terms, int]]] = [[] for _ in range(last + 1)]  # id, terms, t
    for i in needed:
        gate = signals.gates[i - n]
        parts[level[i]].append((i, gate.terms, gate.threshold))
    parts[last] = [(-1, terms, t) for terms, t in ends]
    if not skips:
        _pass_on(parts, level)
    place = {i: (0, i) for i in range(n)}
    copies: dict[tuple[int, int], tuple[int, int]] = {}  # (id, layer) of a copy
    layers: Layers = []
    for layer in range(1, last + 1):
        units = parts[layer] if layer == last else _in_order(parts[layer])
        for k, (i, _, _) in enumerate(units):
            if i >= n and level.get(i) == layer:
                place[i] = (layer, k)
            copies[i, layer] = (layer, k)
        layers.append(
            [
                Unit(tuple((copies.get((j, layer - 1), place[j]), w) for j, w in terms), threshold)
                for _, terms, threshold in units
            ]
        )
    return layers


def _output_unit(signals: Signals, output: Signal) -> tuple[Terms, int]:
    """The output's own unit; one that is a unit's value, or its negation, takes its place."""
    plain = output if output.is_plain else output.negated
    if plain.is_plain and plain.terms[0][0] >= signals.n_inputs:
        gate = signals.gates[plain.terms[0][0] - signals.n_inputs]
        if output.is_plain:
            return gate.terms, gate.threshold
        return tuple((i, -w) for i, w in gate.terms), 1 - gate.threshold
    return output.terms, 1 - output.const


def _needed(signals: Signals, roots: list[Terms]) -> list[int]:
    """The units that the outputs read, directly or not, in the order they were made."""
    n = signals.n_inputs
    waiting = [i for terms in roots for i, _ in terms if i >= n]
    found: set[int] = set()
    while waiting:
        i = waiting.pop()
        if i not in found:
            found.add(i)
            waiting += [j for j, _ in signals.gates[i - n].terms if j >= n]
    return sorted(found)


def _in_order(units: list[tuple[int, Terms, int]]) -> list[tuple[int, Terms, int]]:
    """Units that read the same sum side by side, the highest threshold first."""
    first: dict[Terms, int] = {}
    for i, terms, _ in units:
        first.setdefault(terms, i)
    return sorted(units, key=lambda unit: (first[unit[1]], -unit[2]))


def _pass_on(parts: list[list[tuple[int, Terms, int]]], level: dict[int, int]) -> None:
    """Add a unit that copies each source to every layer between it and its last reader."""
    last_read: dict[int, int] = {}
    for layer, units in enumerate(parts):
        for _, terms, _ in units:
            for j, _ in terms:
                last_read[j] = max(last_read.get(j, 0), layer)
    for j, reader in last_read.items():
        for layer in range(level[j] + 1, reader):
            parts[layer].append((j, ((j, 1),), 1))


def make_network(n_inputs: int, layers: Layers, where: str) -> Network:
    """Return the network of step units of these layers.

    Raises
    ------
    SpecError
        A sum would not be exact in float64, or the network would be too large.
    """
    largest = max(
        sum(abs(w) for _, w in unit.terms) + abs(unit.bias) for layer in layers for unit in layer
    )
    if largest > 2**50:
        raise SpecError(
            f"{where}: expected weights whose sums are exact in float64, got a unit that sums up "
            f"to {largest:.3g}. Use fewer bits, or a deeper circuit."
        )
    skips = {
        layer: tuple(
            j for j in sorted({j for unit in units for (j, _), _ in unit.terms}) if j < layer - 1
        )
        for layer, units in enumerate(layers, start=1)
    }
    widths = [len(layer) for layer in layers]
    sizes = [n_inputs, *widths]
    n_params = sum(
        width * (1 + sizes[layer - 1] + sum(sizes[j] for j in skips[layer]))
        for layer, width in enumerate(widths, start=1)
    )
    if n_params > MOST_PARAMETERS:
        raise SpecError(
            f"{where}: expected a network of at most {MOST_PARAMETERS:,} parameters, got "
            f"{n_params:,}. Split the expression, or give it fewer variables."
        )
    spec = NetworkSpec.create(
        n_inputs,
        widths[:-1],
        widths[-1],
        activation="step",
        output="step",
        skips={layer: sources for layer, sources in skips.items() if sources},
        dtype="float32" if largest < 2**22 else "float64",
    )
    theta = np.zeros(spec.n_params, spec.dtype)
    for layer, (units, (weight, bias)) in enumerate(
        zip(layers, spec.slices(), strict=True), start=1
    ):
        start = dict(
            zip(spec.sources(layer), np.cumsum([0, *(sizes[j] for j in spec.sources(layer))]),
                strict=False)
        )  # fmt: skip
        matrix = theta[weight].reshape(len(units), -1)  # (d_l, fan_in_l), a view
        for k, unit in enumerate(units):
            for (j, i), w in unit.terms:
                matrix[k, start[j] + i] = w
        theta[bias] = [unit.bias for unit in units]
    return Network.from_spec(spec, theta)
