"""A scene's weights, tuned to its pictures while they are rounded: as `tuning`, by rays.

What counts is what rays show: the derivatives of the colours that random rays of the scene's own
cameras see, by the weights of both networks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.engine import default_n_threads, make_engine
from lamina.core.network import Network
from lamina.fields.cameras import Views, as_views
from lamina.fields.field import Field
from lamina.fields.fit import FitProgress, Limits
from lamina.fields.occupancy import OccupancyGrid
from lamina.fields.quantised import Quantised
from lamina.fields.radiance import Answer, RadianceRun
from lamina.fields.radiance_field import RadianceField
from lamina.fields.radiance_fit import MOST_SAMPLES, RadianceFitting
from lamina.fields.radiance_render import STEP, Frame, hierarchical, narrowed, places_of
from lamina.fields.steps import DEAD_ZONE, StepChooser
from lamina.fields.tuning import LAYERS_LR, N_PHASES, TABLE_LR
from lamina.fields.volume_rendering import render, render_backward

Array = npt.NDArray[Any]

PASSES, RAYS = 16, 256  # of the measurement: a ray has 256 samples at most


def squared_derivatives(field: Field) -> Array:
    """Return (d colour / d theta)^2, summed over channels and averaged over rays, up to a factor.

    The gradient of sum v C has, over random signs v, the square's expectation as its own.
    """
    assert isinstance(field, RadianceField)  # noqa: S101
    rng = np.random.default_rng(0)
    threads = default_n_threads(field.n_threads)
    pair = field.network, field.colour_network
    run = RadianceRun(field.preset, *pair, MOST_SAMPLES, 0, threads)
    total = np.zeros(field.n_params)
    for _ in range(PASSES):
        origins, directions, near, far = _rays(field, rng)
        if field.preset == "classic":
            samples, lengths = hierarchical(run.density, origins, directions, near, far, None)
        else:
            offset = rng.uniform(size=len(origins))
            samples = field.occupancy.march(origins, directions, near, far, offset)
            lengths = np.full(len(samples.ray), STEP)
        if not len(samples.ray):
            continue
        places, encoded = places_of(field.preset, origins, directions, samples)
        said = run.forward(places, encoded)
        behind = rng.uniform(size=(len(origins), 3))
        seen = render(said.density * lengths, said.colours, samples.ray, len(origins), behind)
        signs = rng.choice(np.array([-1.0, 1.0]), behind.shape)
        optical, colours = render_backward(seen, said.colours, samples.ray, behind, signs)
        gradients = run.gradients(places, said, optical * lengths, colours)
        total += np.concatenate(gradients).astype(np.float64) ** 2
    return total


def _rays(field: RadianceField, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Return rays through places drawn from all cameras' pictures, those that meet the scene."""
    origins, directions = np.empty((RAYS, 3)), np.empty((RAYS, 3))
    which = rng.integers(len(field.cameras), size=RAYS)
    across = rng.uniform(size=(RAYS, 2))
    for i in np.unique(which):
        camera, of = field.cameras[i], which == i
        size = np.array([camera.width, camera.height])
        origins[of], directions[of] = camera.rays(*(across[of] * size).T)
    o, d, near, far = field.frame.rays(origins, directions)
    if field.preset == "classic":
        near, far = narrowed(field.occupancy, o, d, near, far)
    hit = far > near
    return o[hit], d[hit], near[hit], far[hit]


class Tuning:
    """Training of weights that are rounded in every step.

    Parameters
    ----------
    field : RadianceField
    signal : object
        Posed pictures, as `RadianceField.fit` takes them.
    chooser : StepChooser
    progress : callable, optional
    """

    def __init__(
        self,
        field: Field,
        signal: Any,
        chooser: StepChooser,
        progress: Callable[[FitProgress], object] | None,
    ) -> None:
        assert isinstance(field, RadianceField)  # noqa: S101
        self.fitting = _RoundedFitting(field, as_views(signal, "compress"), chooser, progress)

    def go(self, max_seconds: float, max_steps: float) -> Array:
        """Train, and return weights that are not rounded yet."""
        return self.fitting.tune(Limits(max_seconds, max_steps, math.inf, None))

    def score(self, weights: Quantised) -> float:
        """Return the PSNR of a scene of these weights, of pixels of all pictures."""
        self.fitting.rounded.show(weights)
        return self.fitting.score()


class _RoundedRun(RadianceRun):
    """Two networks whose rounded weights are seen, and whose gradients go to smooth ones."""

    def __init__(
        self,
        preset: str,
        pair: tuple[Network, Network],
        seed: int,
        threads: int,
        parts: list[slice],
    ) -> None:
        super().__init__(preset, *pair, MOST_SAMPLES, seed, threads)
        self.smooth, self.parts = self.engines, parts
        self.engines = make_engine(pair[0].spec), make_engine(pair[1].spec)
        self.steps: tuple[float, ...] = ()

    def theta(self) -> Array:
        """Return the smooth weights."""
        return np.concatenate([engine.get_parameters() for engine in self.smooth])

    def show(self, weights: Quantised) -> None:
        """Take these for the rounded weights."""
        theta, n = weights.theta(self.parts), self.trunk.n_params
        self.engines[0].set_parameters(theta[:n])
        self.engines[1].set_parameters(theta[n:])

    def forward(self, places: Array, directions: Array) -> Answer:
        """Return what the networks say with their weights rounded as they are now."""
        self.show(Quantised.of(self.theta(), self.parts, self.steps, DEAD_ZONE))
        return super().forward(places, directions)

    def step(
        self, places: Array, said: Answer, grad_density: Array, grad_colours: Array, lr: float
    ) -> None:
        """Apply the rounded weights' gradients to the smooth ones."""
        gradients = self.gradients(places, said, grad_density, grad_colours)
        for run, gradient in zip(self.runs, gradients, strict=True):
            run.apply(gradient, lr)


class _RoundedFitting(RadianceFitting):
    """A fit that goes on with rounded weights, in a scene whose empty places are known."""

    def __init__(
        self,
        field: RadianceField,
        views: Views,
        chooser: StepChooser,
        progress: Callable[[FitProgress], object] | None,
    ) -> None:
        pair = field.network, field.colour_network
        frame: Frame = field.frame
        occupancy: OccupancyGrid = field.occupancy
        super().__init__(
            field.preset,
            pair,
            views,
            frame,
            Limits(math.inf, math.inf, math.inf, None),
            field.seed,
            field.n_threads,
            "float32",
            progress,
            time.perf_counter(),
            occupancy,
        )
        self.chooser, self.phase = chooser, -1
        self.rounded = _RoundedRun(field.preset, pair, field.seed, self.n_threads, chooser.parts)
        self.run = self.rounded
        self.highest = LAYERS_LR if field.preset == "classic" else TABLE_LR

    def tune(self, limits: Limits) -> Array:
        """Train until a limit is met, or Ctrl-C; return the smooth weights."""
        self.limits, self.began = limits, time.perf_counter()
        try:
            stopped = None
            while stopped is None:
                self._step()
                stopped = self._stop_reason() or self._tell()
        except KeyboardInterrupt:
            pass
        return self.rounded.theta()

    def _step(self) -> None:
        if int(self._share() * N_PHASES) > self.phase:
            self.phase = int(self._share() * N_PHASES)
            self.rounded.steps = self.chooser.near(self.rounded.theta()).steps
        super()._step()

    def _learning_rate(self) -> float:
        return self.highest * (0.01 + 0.495 * (1 + math.cos(math.pi * self._share())))
