"""A run whose loss is computed in Python: what `Run` of core/engine.py is for the engine's own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.engine import Engine, Run
from lamina.core.jet_loss import JetLoss
from lamina.core.losses import SquaredError

Array = NDArray[Any]


class JetRun:
    """A training run of a `JetLoss`: the parameters are as in `Run`, and so is each method.

    The order of rows comes from (seed, epoch) here as well, by another generator.
    """

    __slots__ = ("batch_size", "engine", "l2", "loss", "n_threads", "native_run", "seed")

    def __init__(
        self,
        engine: Engine,
        loss: JetLoss,
        optimizer: str,
        hyper: Mapping[str, float | bool],
        *,
        batch_size: int,
        seed: int,
        n_threads: int | None = None,
    ) -> None:
        self.engine, self.loss = engine, loss
        self.batch_size, self.seed, self.n_threads = batch_size, seed, n_threads
        self.l2 = float(hyper.get("l2", 0.0))
        # Holds the moments and takes the steps; it never sees a row, nor uses its loss.
        self.native_run = Run(
            engine, SquaredError(), optimizer, hyper, batch_size=1, seed=seed, n_threads=1
        )

    def epochs(
        self,
        x: Array,
        y: Array,
        lr: Array,
        *,
        first_epoch: int,
        n_epochs: int,
        sample_weight: Array | None = None,
        seconds: float = math.inf,
    ) -> tuple[Array, bool]:
        """Train for up to `n_epochs`; return the losses of those completed, and whether it diverged.

        Raises
        ------
        Exception
            Whatever the loss raises; the engine holds the parameters of the last whole step.
        """
        began = time.perf_counter()
        losses: list[float] = []
        steps = math.ceil(len(x) / self.batch_size)
        for epoch in range(n_epochs):
            if losses and time.perf_counter() - began > seconds:
                break
            order = np.random.default_rng([self.seed, first_epoch + epoch]).permutation(len(x))
            total = 0.0
            for step in range(steps):
                index = order[step * self.batch_size : (step + 1) * self.batch_size]
                w = None if sample_weight is None else sample_weight[index]
                value = self._step(x[index], y[index], w, float(lr[epoch * steps + step]))
                if not math.isfinite(value):
                    return np.array(losses), True
                total += value * len(index)
            losses.append(total / len(x))
        return np.array(losses), False

    def _step(self, x: Array, y: Array, sample_weight: Array | None, lr: float) -> float:
        """Take a step on a batch; return its loss before it, the penalty included."""
        engine = self.engine
        grad = np.empty(engine.n_params, engine.dtype)
        value = engine.evaluate(
            x, y, self.loss, sample_weight=sample_weight, grad=grad, n_threads=self.n_threads
        )
        if not math.isfinite(value):
            return value
        if self.l2:
            theta = engine.get_parameters().astype(np.float64)
            weights = [theta[weight] for weight, _ in engine.spec.slices()]
            value += 0.5 * self.l2 * sum(float(w @ w) for w in weights)
        self.native_run.apply(grad, lr)
        return value

    @property
    def step(self) -> int:
        """Steps taken since the run began."""
        return self.native_run.step

    def get_state(self) -> tuple[Array, Array]:
        """Return copies of the two moments."""
        return self.native_run.get_state()

    def set_state(self, m: Array, v: Array, step: int) -> None:
        """Continue from these moments, after `step` steps."""
        self.native_run.set_state(m, v, step)
