"""A truth table as signals: one unit, few units, a count of ones, or a sum of products."""

from __future__ import annotations

import numpy as np

from lamina.theory.fewest_units import MOST_VARIABLES as MOST_SMALL
from lamina.theory.fewest_units import fewest_units
from lamina.theory.signals import Signal, Signals
from lamina.theory.threshold_function import MOST_VARIABLES, find_threshold
from lamina.theory.truth_table import Bits, sum_of_products, symmetric_values


def table_signal(signals: Signals, table: Bits) -> Signal:
    """Return the signal of a truth table (2^n,) of all the inputs."""
    n = signals.n_inputs
    inputs = [signals.input(i) for i in range(n)]
    if n <= MOST_VARIABLES:
        found = find_threshold(table)
        if found is not None:
            return signals.threshold(inputs, *found)
    few = fewest_units(table) if n <= MOST_SMALL else None
    if few is not None:
        units = [table_signal(signals, hidden) for hidden in few.hidden]  # single units each
        whole = signals.threshold(units, few.weights, few.threshold)
        return whole.negated if few.negated else whole
    products = sum_of_products(table)
    other = sum_of_products(~table)
    fewest = min(len(products), len(other))
    values = symmetric_values(table)
    if values is not None and np.count_nonzero(np.diff(values)) <= fewest:
        return _by_count(signals, values)
    of_zeros = len(other) < len(products)
    parts = [
        signals.and_([inputs[i] if value else inputs[i].negated for i, value in cube])
        for cube in (other if of_zeros else products)
    ]
    whole = signals.or_(parts)
    return whole.negated if of_zeros else whole


def _by_count(signals: Signals, values: Bits) -> Signal:
    """A function of the number of ones: one unit wherever it changes (Muroga 1959)."""
    inputs = [signals.input(i) for i in range(signals.n_inputs)]
    total = signals.const(int(values[0]))
    for k in np.flatnonzero(np.diff(values)) + 1:
        unit = signals.at_least(int(k), inputs)
        total = signals.plus(total, unit, 1 if values[k] else -1)
    return total
