"""A run whose loss is computed in Python, a step at a time."""

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


class JetRun(Run):
    """A training run of a `JetLoss`; parameters as for `Run`, whose moments and steps it takes."""

    __slots__ = ("batch_size", "jet_loss", "l2", "seed")

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
        # The engine's part never sees a row, nor uses its loss.
        super().__init__(
            engine, SquaredError(), optimizer, hyper, batch_size=1, seed=seed, n_threads=n_threads
        )
        self.jet_loss, self.batch_size, self.seed = loss, batch_size, seed
        self.l2 = float(hyper.get("l2", 0.0))

    def epochs(
        self,
        x: Array,
        y: Array,
        lr: Array,
        *,
        first_epoch: int,
        n_epochs: int,
        sample_weight: Array | None = None,
        output_weight: Array | None = None,  # noqa: ARG002 (of the engine's own losses)
        order: Array | None = None,
        shuffle: bool = True,
        seconds: float = math.inf,
    ) -> tuple[Array, bool]:
        """Train for up to `n_epochs`, as `Run.epochs` does; outputs have no weights here.

        The order of rows comes from (seed, epoch) as well, by another generator.

        Raises
        ------
        Exception
            Whatever the loss raises; the engine holds the parameters of the last whole step.
        """
        began, n = time.perf_counter(), len(x)
        losses: list[float] = []
        steps = math.ceil(n / self.batch_size)
        for epoch in range(n_epochs):
            if losses and time.perf_counter() - began > seconds:
                break
            if order is not None:
                rows = order[epoch]
            elif shuffle:
                rows = np.random.default_rng([self.seed, first_epoch + epoch]).permutation(n)
            else:
                rows = np.arange(n)
            total = 0.0
            for step in range(steps):
                index = rows[step * self.batch_size : (step + 1) * self.batch_size]
                w = None if sample_weight is None else sample_weight[index]
                value = self._step(x[index], y[index], w, float(lr[epoch * steps + step]))
                if not math.isfinite(value):
                    return np.array(losses), True
                total += value * len(index)
            losses.append(total / n)
        return np.array(losses), False

    def _step(self, x: Array, y: Array, sample_weight: Array | None, lr: float) -> float:
        """Take a step on a batch; return its loss before it, the penalty included."""
        engine = self.engine
        grad = np.empty(engine.n_params, engine.dtype)
        value = engine.evaluate(
            x, y, self.jet_loss, sample_weight=sample_weight, grad=grad, n_threads=self.n_threads
        )
        if not math.isfinite(value):
            return value
        if self.l2:
            theta = engine.get_parameters().astype(np.float64)
            weights = [theta[weight] for weight, _ in engine.spec.slices()]
            value += 0.5 * self.l2 * sum(float(w @ w) for w in weights)
        self.apply(grad, lr)
        return value
