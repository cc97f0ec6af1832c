"""A circuit compared with what it should compute: at every input, or at many drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import check_count, resolve_rng
from lamina.core.errors import DataError
from lamina.theory.truth_table import Bits, inputs_between

MOST_EXHAUSTIVE: Final = 20
CHUNK: Final = 1 << 15
Inputs = NDArray[np.uint8]


@dataclass(frozen=True)
class Verification:
    """What a check of a circuit found.

    Attributes
    ----------
    n_inputs : int
        How many inputs were tried.
    exhaustive : bool
        Whether those are all there are: then it is a proof.
    counterexample : tuple of int or None
        The first input whose output is wrong.
    seed : int or None
        That drew the inputs.
    """

    n_inputs: int
    exhaustive: bool
    counterexample: tuple[int, ...] | None = None
    seed: int | None = None

    @property
    def passed(self) -> bool:
        """Whether every output was right."""
        return self.counterexample is None

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        drawn = "all" if self.exhaustive else ""
        how = f"{drawn} {self.n_inputs:,} inputs".strip()
        if not self.exhaustive:
            how += f", drawn with seed {self.seed}" if self.seed is not None else ", drawn"
        if self.passed:
            return f"right at {how}"
        return f"wrong at {''.join(map(str, self.counterexample or ()))}, of {how}"


def check(
    answer: Callable[[Inputs], Bits],
    truth: Callable[[Bits], Bits],
    n: int,
    *,
    exhaustive: bool | None,
    n_samples: int,
    seed: int,
    where: str,
) -> Verification:
    """Compare two functions of n bits, each (rows, n) -> (rows, outputs)."""
    check_count(n_samples, "n_samples", where)
    if exhaustive is None:
        exhaustive = n <= MOST_EXHAUSTIVE
    if exhaustive and n > MOST_EXHAUSTIVE:
        raise DataError(
            f"{where}: expected at most {MOST_EXHAUSTIVE} variables for a check of all inputs, got "
            f"{n}, which have {2.0**n:.2g}. Leave out exhaustive: inputs are then drawn at random."
        )
    rows = every(n) if exhaustive else drawn(n, n_samples, seed)
    n_tried = 0
    for x in rows:
        wrong = np.any(answer(x) != truth(x.astype(bool)), axis=1)
        n_tried += len(x)
        if wrong.any():
            first = tuple(int(v) for v in x[int(wrong.argmax())])
            return Verification(n_tried, exhaustive, first, None if exhaustive else seed)
    return Verification(n_tried, exhaustive, None, None if exhaustive else seed)


def every(n: int) -> Iterator[Inputs]:
    """Yield all 2^n inputs, a chunk at a time."""
    for start in range(0, 1 << n, CHUNK):
        yield inputs_between(start, min(1 << n, start + CHUNK), n)


def drawn(n: int, n_samples: int, seed: int) -> Iterator[Inputs]:
    """Yield inputs where gates are most likely to differ, then random ones.

    All zeros, all ones, a single one, a single zero; then each row with a share of ones of its
    own, half of the rows with one half: a conjunction of forty is never seen true otherwise.
    """
    special = np.vstack([np.zeros(n), np.ones(n), np.eye(n), 1 - np.eye(n)]).astype(np.uint8)
    yield special[:n_samples]
    rng = resolve_rng(seed)
    left = n_samples - len(special)
    while left > 0:
        rows = min(CHUNK, left, 1 + (1 << 22) // n)  # a few dozen megabytes
        share = np.where(np.arange(rows) % 2, rng.random(rows), 0.5)
        yield (rng.random((rows, n)) < share[:, np.newaxis]).astype(np.uint8)
        left -= rows
