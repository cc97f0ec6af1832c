"""What an activation costs on this machine: two networks that differ in nothing else, timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lamina.core.engine import make_engine
from lamina.core.initialize import initialize
from lamina.core.losses import SquaredError
from lamina.core.spec import NetworkSpec

# One input and one output: a unit's products are two multiplications, and the rest is activation.
N_ROWS, WIDTH = 256, 512
N_ROUNDS = 60


@dataclass(frozen=True)
class Cost:
    """Nanoseconds an element on one thread, beyond those of an identity.

    Attributes
    ----------
    forward : float
        phi(z).
    backward : float
        phi(z) in a forward pass, and phi'(z) in the backward pass after it.
    """

    forward: float
    backward: float


def measure(names: Sequence[str], dtype: str = "float32") -> dict[str, Cost]:
    """Time activations through the engine.

    Parameters
    ----------
    names : sequence of str
        Activations.
    dtype : {"float32", "float64"}

    Returns
    -------
    dict of name to Cost
        The median over rounds of the difference to an identity of the same round; one that is
        below zero, by the clock's noise, counts as 0.

    Notes
    -----
    All networks are timed in turn, round after round: what else the machine does meets all alike.
    60 rounds of 256 rows of 512 units, about a third of a second for all activations.
    """
    spent = {name: np.empty((N_ROUNDS, 2)) for name in ("identity", *names)}
    passes = {name: _passes(name, dtype) for name in spent}
    for round_ in range(-1, N_ROUNDS):  # the first is not counted: it touches memory
        for name, (forward, backward) in passes.items():
            seconds = _seconds(forward), _seconds(backward)
            if round_ >= 0:
                spent[name][round_] = seconds
    beyond = {name: np.median(s - spent["identity"], axis=0) for name, s in spent.items()}
    each = 1e9 / (N_ROWS * WIDTH)
    return {name: Cost(*(float(max(s, 0.0)) * each for s in beyond[name])) for name in names}


def _passes(name: str, dtype: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a forward pass, and one with a backward pass, on one thread."""
    spec = NetworkSpec.create(1, (WIDTH,), 1, activation=name, dtype=dtype)
    engine = make_engine(spec, initialize(spec, 0))
    x = np.random.default_rng(0).normal(size=(N_ROWS, 1)).astype(dtype)
    y, out = np.zeros_like(x), np.empty_like(x)
    grad, loss = np.empty(spec.n_params, dtype), SquaredError()
    return (
        lambda: engine.forward(x, 1, out),
        lambda: engine.evaluate(x, y, loss, grad=grad, n_threads=1),
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
