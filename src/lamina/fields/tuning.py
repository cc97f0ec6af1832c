"""Weights of one network, tuned to its signal while they are rounded.

The derivatives by the weights are measured at random places with random signs (Hutchinson's
estimator) and need no signal. With a signal, training goes on: the gradients of rounded weights
are applied to weights that are not rounded (straight-through: Bengio et al. 2013,
arXiv:1308.3432).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.engine import Run, default_n_threads, make_engine
from lamina.core.losses import SquaredError
from lamina.core.network import Network
from lamina.core.optim import Adam, native_hyper
from lamina.fields.field import Field
from lamina.fields.fit import FitProgress, psnr_of
from lamina.fields.quantised import Quantised
from lamina.fields.steps import DEAD_ZONE, StepChooser

Array = npt.NDArray[Any]

TABLE_LR, LAYERS_LR = 3e-3, 3e-4  # the highest learning rate with a hash grid, and without
BATCH_SIZE: Final = 1 << 13
N_PHASES: Final = 6  # steps are chosen anew so often, as weights move
SENSITIVITY_ROWS, SENSITIVITY_PASSES = 1 << 14, 6
SECONDS_BETWEEN_REPORTS: Final = 0.2


def squared_derivatives(field: Field) -> Array:
    """Return (d F / d theta)^2, summed over outputs and averaged over places, up to a factor.

    The gradient of sum v F has, over random signs v, the square's expectation as its own.
    """
    net = field.network
    spec, rng = net.spec, np.random.default_rng(0)
    engine = make_engine(spec, net.theta)
    gradient = np.zeros(net.n_params, np.float32)
    total = np.zeros(net.n_params)
    for _ in range(SENSITIVITY_PASSES):
        x = rng.uniform(-1.0, 1.0, (SENSITIVITY_ROWS, spec.d_in)).astype(np.float32)
        signs = rng.choice(np.array([-1.0, 1.0], np.float32), (len(x), spec.d_out))
        # (F - y)^2 with y = F - v has the gradient 2 v dF; v as large as F, lest it be rounded off
        values = engine.forward(x)
        size = np.float32(max(float(np.abs(values).max()), 1e-20))
        engine.evaluate(x, values - signs * size, SquaredError(), grad=gradient)
        total += (gradient.astype(np.float64) / float(size)) ** 2
    return total


class Tuning:
    """Training of weights that are rounded in every step.

    Parameters
    ----------
    field : Field
    signal : object
        What the field was fitted to.
    chooser : StepChooser
    progress : callable, optional
    """

    def __init__(
        self,
        field: Field,
        signal: Any,
        chooser: StepChooser,
        progress: Callable[[FitProgress], object] | None,
        **options: Any,
    ) -> None:
        signal = field._signal(signal, "compress", **options)
        self.field, self.signal, self.chooser = field, signal, chooser
        self.progress = progress
        self.n_threads = default_n_threads(field.n_threads)
        self.mean, self.spread = signal.statistics()
        spec = field.network.spec
        self.last = spec.slices()[-1]
        self.lr = TABLE_LR if math.prod(spec.table_shape) else LAYERS_LR
        # One engine holds the weights that the optimiser moves, the other those that are rounded
        self.smooth = make_engine(spec, self._standardised(field.network.theta))
        self.rounded = make_engine(spec)
        self.gradient = np.zeros(spec.n_params, np.float32)
        self.loss = math.inf
        self.last_report = time.perf_counter()

    def go(self, max_seconds: float, max_steps: float) -> Array:
        """Train, and return weights in the signal's units that are not rounded yet."""
        began, phase, n_steps, k = time.perf_counter(), -1, 0, 0
        kind, hyper = native_hyper(Adam(self.lr, beta_2=0.99, epsilon=1e-15))
        run = Run(
            self.smooth,
            self.signal.loss,
            kind,
            hyper,
            batch_size=BATCH_SIZE,
            seed=0,
            n_threads=self.n_threads,
        )
        steps: tuple[float, ...] = ()
        try:
            while True:
                x, y = self.signal.draw(k, 1 << 18, self.field.seed)
                k += 1
                size = min(BATCH_SIZE, len(x))
                for start in range(0, len(x) - size + 1, size):
                    seconds = time.perf_counter() - began
                    share = max(seconds / max_seconds, n_steps / max_steps)
                    if share >= 1.0 or self._tell(n_steps, seconds, share):
                        self.signal.release()
                        return self._in_units(self.smooth.get_parameters())
                    theta = self._in_units(self.smooth.get_parameters())
                    if int(share * N_PHASES) > phase:
                        phase = int(share * N_PHASES)
                        steps = self.chooser.near(theta).steps
                    self._round(theta, steps)
                    self._step(run, x[start : start + size], y[start : start + size], share)
                    n_steps += 1
        except KeyboardInterrupt:
            self.signal.release()
            return self._in_units(self.smooth.get_parameters())

    def score(self, weights: Quantised) -> float:
        """Return the PSNR of a field of these weights."""
        theta = weights.theta(self.chooser.parts)
        return self.field._score(Network.from_spec(self.field.network.spec, theta), self.signal)

    def _round(self, theta: Array, steps: tuple[float, ...]) -> None:
        parts = self.chooser.parts
        weights = Quantised.of(theta, parts, steps, DEAD_ZONE)
        self.rounded.set_parameters(self._standardised(weights.theta(parts)))

    def _step(self, run: Run, x: Array, y: Array, share: float) -> None:
        self.loss = self.rounded.evaluate(
            x, y, self.signal.loss, grad=self.gradient, n_threads=self.n_threads
        )
        if math.isfinite(self.loss):
            run.apply(self.gradient, self.lr * (0.01 + 0.5 * (1.0 + math.cos(math.pi * share))))

    def _tell(self, n_steps: int, seconds: float, share: float) -> bool:
        now = time.perf_counter()
        if (
            self.progress is None
            or n_steps == 0
            or now - self.last_report < SECONDS_BETWEEN_REPORTS
        ):
            return False
        self.last_report = now
        psnr = psnr_of(self.loss * self.spread**2, self.signal.peak)
        report = FitProgress(psnr, n_steps, seconds, share, self.lr, self._values)
        return self.progress(report) is True

    def _values(self, coordinates: Array) -> Array:
        y = self.rounded.forward(np.asarray(coordinates, np.float32), self.n_threads)
        return np.asarray(y * np.float32(self.spread) + self.mean.astype(np.float32))

    def _standardised(self, theta: Array) -> Array:
        """Return weights of the signal's units as weights of what training sees."""
        weight, bias = self.last
        result = theta.copy()
        result[weight] /= self.spread
        result[bias] = (result[bias] - self.mean) / self.spread
        return result

    def _in_units(self, theta: Array) -> Array:
        weight, bias = self.last
        theta[weight] = theta[weight].astype(np.float64) * self.spread
        theta[bias] = theta[bias].astype(np.float64) * self.spread + self.mean
        return theta
