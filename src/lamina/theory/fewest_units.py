"""The fewest threshold functions that a function of up to four variables is one of.

Functions are whole numbers whose bit r is the value at input r. A hidden layer of k threshold
functions h_1 … h_k computes f if f = g(h_1, …, h_k) for a threshold function g. As negations of
threshold functions are threshold functions, g may be taken to rise in every argument: for k = 2
AND or OR; for k = 3 also the majority, h_1 & (h_2 | h_3) and h_1 | h_2 & h_3; there are no other
rising functions that need all three. OR, and the last, are the others' negations.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.theory.truth_table import Bits, all_inputs

Masks = NDArray[np.int64]

MOST_VARIABLES: Final = 4
# The output unit over (h_1, h_2, …): weights and threshold
_GATES: Final[dict[str, tuple[tuple[int, ...], int]]] = {
    "h1 & h2": ((1, 1), 2),
    "h1 & h2 & h3": ((1, 1, 1), 3),
    "majority(h1, h2, h3)": ((1, 1, 1), 2),
    "h1 & (h2 | h3)": ((2, 1, 1), 3),
}
COUNTS: Final = {1: 4, 2: 14, 3: 104, 4: 1882}


@dataclass(frozen=True)
class Combination:
    """f = ``sum w_i h_i >= threshold``, or its negation; ``hidden`` are tables (2^n,)."""

    hidden: tuple[Bits, ...]
    weights: tuple[int, ...]
    threshold: int
    negated: bool


def fewest_units(table: Bits) -> Combination | None:
    """Return the fewest threshold functions for a function that is none; None: not three.

    The function is then parity of four variables, or its negation.
    """
    n = len(table).bit_length() - 1
    found = _search(sum(1 << r for r in np.flatnonzero(table).tolist()), n)
    if found is None:
        return None
    gate, hidden, negated = found
    tables = tuple(np.array([mask >> r & 1 for r in range(1 << n)], bool) for mask in hidden)
    return Combination(tables, *_GATES[gate], negated)


def _search(f: int, n: int) -> tuple[str, tuple[int, ...], bool] | None:
    """Return the output gate, the hidden functions, and whether all is negated; None: not three."""
    full = (1 << (1 << n)) - 1
    for gate, find in (
        ("h1 & h2", _as_and),
        ("h1 & h2 & h3", _as_and_of_three),
        ("majority(h1, h2, h3)", _as_majority),
        ("h1 & (h2 | h3)", _as_and_of_or),
    ):
        for negated in (False, True):
            hidden = find(full & ~f if negated else f, n)
            if hidden is not None:
                return gate, hidden, negated
    return None


def _as_and(f: int, n: int) -> tuple[int, ...] | None:
    """F = h1 & h2: both contain f, and what they have beyond it is disjoint."""
    wide = _containing(f, n)
    pair = _first((wide[:, np.newaxis] & wide) == f)
    return None if pair is None else (int(wide[pair[0]]), int(wide[pair[1]]))


def _as_and_of_three(f: int, n: int) -> tuple[int, ...] | None:
    wide = _containing(f, n)
    both = wide[:, np.newaxis] & wide
    for h in wide.tolist():
        pair = _first((both & h) == f)
        if pair is not None:
            return int(wide[pair[0]]), int(wide[pair[1]]), h
    return None


def _as_majority(f: int, n: int) -> tuple[int, ...] | None:
    """No input may be wrong in two of three: errors are disjoint."""
    errors = _minimal(threshold_functions(n) ^ f)
    apart = (errors[:, np.newaxis] & errors) == 0
    for i, e in enumerate(errors.tolist()):
        near = errors[apart[i]]
        pair = _first((near[:, np.newaxis] & near) == 0)
        if pair is not None:
            return e ^ f, int(near[pair[0]]) ^ f, int(near[pair[1]]) ^ f
    return None


def _as_and_of_or(f: int, n: int) -> tuple[int, ...] | None:
    """h1 contains f; within h1, h2 and h3 have nothing beyond f, and all of f together."""
    functions = threshold_functions(n)
    for first in _containing(f, n).tolist():
        inner = functions[(functions & first & ~f) == 0]
        pair = _first((inner[:, np.newaxis] & f | inner & f) == f)
        if pair is not None:
            return first, int(inner[pair[0]]), int(inner[pair[1]])
    return None


def _containing(f: int, n: int) -> Masks:
    """The threshold functions that are 1 where f is, and contain no other such."""
    functions = threshold_functions(n)
    return _minimal(functions[(functions & f) == f])


def _minimal(masks: Masks) -> Masks:
    """The sets that contain no other of them."""
    kept: list[int] = []
    for mask in sorted(np.unique(masks).tolist(), key=int.bit_count):
        if not any(other & ~mask == 0 for other in kept):
            kept.append(mask)
    return np.array(kept, np.int64)


def _first(matrix: NDArray[np.bool_]) -> tuple[int, int] | None:
    at = np.argwhere(matrix)
    return (int(at[0, 0]), int(at[0, 1])) if len(at) else None


@functools.cache
def threshold_functions(n: int) -> Masks:
    """Return all threshold functions of n ≤ 4 variables, as sets of inputs.

    Weights of up to 3 are enough for them (Muroga 1971); their number is checked.
    """
    weights = np.array(list(itertools.product(range(-3, 4), repeat=n)))
    sums = weights @ all_inputs(n).T.astype(np.int64)  # (7^n, 2^n)
    bits = 1 << np.arange(1 << n)
    masks = np.unique(np.concatenate([(sums >= t) @ bits for t in range(-3 * n, 3 * n + 2)]))
    if len(masks) != COUNTS[n]:
        raise AssertionError(f"{len(masks)} threshold functions of {n} variables")
    return masks
