"""Training of a scene: rays drawn from all pictures, samples along them, one step after another."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from lamina.core.engine import default_n_threads, isa
from lamina.core.errors import DataError, DivergenceError
from lamina.core.network import Network
from lamina.fields.cameras import Camera, Views
from lamina.fields.fit import FieldReport, FitProgress, Limits, psnr_of
from lamina.fields.occupancy import CELLS, OccupancyGrid, Samples
from lamina.fields.radiance import RadianceRun
from lamina.fields.radiance_render import STEP, Frame, Tracer, hierarchical, narrowed, places_of
from lamina.fields.volume_rendering import render, render_backward

Array = npt.NDArray[Any]

DEFAULT_SECONDS: Final = 120.0
TARGET_SAMPLES: Final = 1 << 15  # of a step: rays are drawn until there are about so many
MOST_SAMPLES: Final = 1 << 17
FIRST_RAYS, MOST_RAYS = 1 << 9, 1 << 15
UPDATE_EVERY: Final = 16  # steps, of the occupancy grid
UPDATE_CELLS: Final = 1 << 14
HIGHEST_LR, LAST_LR = 1e-2, 2e-4
CLASSIC_RAYS: Final = 256  # of a step, of so many that are drawn
CLASSIC_DRAWN: Final = 4096
CLASSIC_LR, CLASSIC_LAST_LR = 5e-4, 5e-5
HULL_VIEWS: Final = 64
SCORED_RAYS: Final = 1 << 12
SECONDS_BETWEEN_REPORTS: Final = 0.5


class RadianceFitting:
    """A scene's fit under way.

    Parameters
    ----------
    preset : str
    networks : pair of Network
    views : Views
    frame : Frame
    limits : Limits
    seed : int
    n_threads : int or None
    precision : str
    progress : callable or None
    began : float
    occupancy : OccupancyGrid, optional
        What is known of the scene: it stays as it is. None: it is learned.
    """

    def __init__(
        self,
        preset: str,
        networks: tuple[Network, Network],
        views: Views,
        frame: Frame,
        limits: Limits,
        seed: int,
        n_threads: int | None,
        precision: str,
        progress: Callable[[FitProgress], object] | None,
        began: float,
        occupancy: OccupancyGrid | None = None,
    ) -> None:
        self.preset, self.views, self.frame, self.limits = preset, views, frame, limits
        self.seed, self.progress, self.began = seed, progress, began
        self.n_threads = default_n_threads(n_threads)
        self.run = RadianceRun(preset, *networks, MOST_SAMPLES, seed, self.n_threads, precision)
        self.rng = np.random.default_rng([seed, 2])
        self.is_explored = occupancy is not None
        self.occupancy = OccupancyGrid(STEP) if occupancy is None else occupancy
        if views.pixels.shape[3] == 4 and not self.is_explored:
            self.occupancy.allow(_hull(views, frame))
        self.rates: list[float] = []
        self.losses: list[float] = []
        # A small set of pictures is not worth more: rays would come twice
        self.most_rays = min(MOST_RAYS, max(64, views.pixels[..., 0].size // 16))
        self.n_rays = min(FIRST_RAYS, self.most_rays)
        self.last_report = -math.inf  # the first step is told at once

    # --- the loop --------------------------------------------------------------------------------

    def go(self) -> str:
        """Train until a limit is met, or Ctrl-C; return why it ended."""
        stopped = None
        try:
            while stopped is None:
                self._step()
                stopped = self._stop_reason() or self._tell()
        except KeyboardInterrupt:
            stopped = "interrupted"
        self.run.hand_over()
        return stopped

    def report(self, psnr: float, stopped: str) -> FieldReport:
        """Return the report of what `go` did."""
        return FieldReport(
            psnr,
            self.run.trunk.n_params + self.run.colour.n_params,
            self.views.pixels[..., :3].size,
            time.perf_counter() - self.began,
            len(self.rates),
            TARGET_SAMPLES if self.preset == "hash" else CLASSIC_RAYS,
            self.seed,
            self.n_threads,
            isa(),
            stopped,
            np.array(self.rates),
        )

    def _step(self) -> None:
        k = len(self.rates)
        lr = self._learning_rate()
        origins, directions, near, far, background, target = self._draw()
        if self.preset == "classic":
            samples, lengths = hierarchical(
                self.run.density, origins, directions, near, far, self.rng
            )
        else:
            if k % UPDATE_EVERY == 0 and k and not self.is_explored:
                self.occupancy.update(self.run.density, UPDATE_CELLS, self.rng)
            offset = self.rng.uniform(size=len(origins))
            samples = self.occupancy.march(origins, directions, near, far, offset)
            lengths = np.full(len(samples.ray), STEP, np.float32)
            samples, lengths, n_rays = _cut(samples, lengths, len(origins), MOST_SAMPLES)
            background, target = background[:n_rays], target[:n_rays]
            share = TARGET_SAMPLES / max(len(samples.ray), 1)
            self.n_rays = int(np.clip(n_rays * min(share, 2.0), 64, self.most_rays))
        self.rates.append(lr)
        n_rays = len(target)
        if len(samples.ray):
            places, encoded = places_of(self.preset, origins, directions, samples)
            said = self.run.forward(places, encoded)
            seen = render(said.density * lengths, said.colours, samples.ray, n_rays, background)
            error = seen.colour - target
            grad_optical, grad_colours = render_backward(
                seen, said.colours, samples.ray, background, error * (2.0 / error.size)
            )
            self.run.step(places, said, grad_optical * lengths, grad_colours, lr)
        else:
            error = background - target
        loss = float(np.mean(error**2)) if error.size else 0.0
        if not math.isfinite(loss):
            raise DivergenceError(
                "RadianceField.fit: expected a loss that stays finite, got one that does not. "
                "Pass another rng, or preset='hash'."
            )
        self.losses.append(loss)

    def _draw(self) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Return rays through pixels drawn from all pictures, their backgrounds and colours."""
        n = CLASSIC_DRAWN if self.preset == "classic" else self.n_rays
        which = self.rng.integers(self.views.pixels[..., 0].size, size=n)
        which.sort()  # pictures one after another
        origins, directions = self._rays(which)
        mixed = self.rng.permutation(n)  # so that a cut drops rays of any picture
        background = np.ones((n, 3), np.float32)
        if self.views.pixels.shape[3] == 4:
            background = self.rng.uniform(size=(n, 3)).astype(np.float32)
        target = self.views.colours(which[mixed], background)
        o, d, near, far = self.frame.rays(origins[mixed], directions[mixed])
        if self.preset == "classic":
            # DIFF(Mildenhall 2020, section 5): samples lie where the pictures' outlines allow the
            # scene to be, and rays that miss it are not drawn: they teach nothing.
            near, far = narrowed(self.occupancy, o, d, near, far)
            hit = np.flatnonzero(far > near)[:CLASSIC_RAYS]
            o, d, near, far = o[hit], d[hit], near[hit], far[hit]
            background, target = background[hit], target[hit]
        return o, d, near, far, background, target

    def _rays(self, which: Array) -> tuple[Array, Array]:
        """Return rays through the middles of flat pixel numbers, which do not fall."""
        _, height, width, _ = self.views.pixels.shape
        pixel = which % (height * width)
        row, column = pixel // width + 0.5, pixel % width + 0.5
        origins, directions = np.empty((len(which), 3)), np.empty((len(which), 3))
        pictures = np.arange(len(self.views.cameras) + 1) * height * width
        ends = np.searchsorted(which, pictures)
        for i in np.flatnonzero(np.diff(ends)):
            of = slice(ends[i], ends[i + 1])
            origins[of], directions[of] = self.views.cameras[i].rays(column[of], row[of])
        return origins, directions

    def _share(self) -> float:
        by_time = (time.perf_counter() - self.began) / (0.97 * self.limits.max_seconds)
        return min(max(by_time, len(self.rates) / self.limits.max_steps), 1.0)

    def _learning_rate(self) -> float:
        if self.limits.repeat is not None:
            return float(self.limits.repeat.learning_rates[len(self.rates)])
        high, low = (HIGHEST_LR, LAST_LR)
        if self.preset == "classic":
            high, low = CLASSIC_LR, CLASSIC_LAST_LR
        return low + (high - low) * 0.5 * (1 + math.cos(math.pi * self._share()))

    def _stop_reason(self) -> str | None:
        if self.live_psnr() >= self.limits.target_psnr:
            return "target_psnr"
        if len(self.rates) >= self.limits.max_steps:
            return "max_steps" if self.limits.repeat is None else self.limits.repeat.stopped
        return "max_seconds" if self._share() >= 1.0 else None

    def _tell(self) -> str | None:
        now = time.perf_counter()
        if self.progress is None or now - self.last_report < SECONDS_BETWEEN_REPORTS:
            return None
        self.last_report = now
        report = FitProgress(
            self.live_psnr(),
            len(self.rates),
            now - self.began,
            self._share(),
            self.rates[-1],
            self.picture,
        )
        return "callback" if self.progress(report) is True else None

    def tracer(self) -> Tracer:
        """Return what shows the scene so far."""
        trunk, colour = self.run.engines
        threads, bfloat16 = self.n_threads, self.run.bfloat16
        return Tracer(
            self.preset,
            lambda x: trunk.forward(x, threads, bfloat16=bfloat16),
            lambda x: colour.forward(x, threads),
            self.occupancy,
            self.frame,
        )

    def picture(self, view: Camera) -> Array:
        """Return what a camera sees of the scene so far, over white, uint8."""
        return np.asarray(np.rint(255 * self.tracer().picture(view, np.ones(3))[0]), np.uint8)

    def score(self) -> float:
        """Return the PSNR of `SCORED_RAYS` pixels, spread over all pictures, over white."""
        n = self.views.pixels[..., 0].size
        which = np.unique(np.linspace(0, n - 1, SCORED_RAYS).astype(np.int64))
        origins, directions = self._rays(which)
        white = np.ones((len(which), 3), np.float32)
        seen = self.tracer().see(origins, directions, np.ones(3))[0]
        error = seen - self.views.colours(which, white)
        return psnr_of(float(np.mean(error**2)), 1.0)

    def live_psnr(self) -> float:
        """PSNR of the last steps' rays, each before its step."""
        return psnr_of(float(np.mean(self.losses[-20:])), 1.0) if self.losses else -math.inf


def _cut(samples: Samples, lengths: Array, n_rays: int, most: int) -> tuple[Samples, Array, int]:
    """Return the samples of as many whole rays as have at most so many."""
    if len(samples.ray) <= most:
        return samples, lengths, n_rays
    n_rays = int(samples.ray[most])
    stop = int(np.searchsorted(samples.ray, n_rays))
    return Samples(samples.ray[:stop], samples.distance[:stop]), lengths[:stop], n_rays


def _hull(views: Views, frame: Frame) -> Array:
    """Return the cells that no picture sees as empty all over: bool (CELLS**3,).

    Raises
    ------
    DataError
        No camera sees any of the box, or the pictures leave nothing in it.
    """
    n = CELLS
    line = (2 * np.arange(n) + 1) / n - 1
    middles = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    world = middles / frame.scale + np.array(frame.middle)
    radius = math.sqrt(3.0) / n / frame.scale
    alive, is_seen = np.arange(n**3), False
    chosen = np.linspace(0, len(views.cameras) - 1, min(HULL_VIEWS, len(views.cameras)))
    for i in np.unique(chosen.astype(int)):
        camera, cover = views.cameras[i], views.pixels[i, :, :, 3] > 0
        local = (world[alive] - camera.eye) @ camera.matrix[:, :3]
        depth = -local[:, 2]
        ahead = depth > 2 * radius
        safe = np.where(ahead, depth, 1.0)
        column = np.floor(camera.centre[0] + camera.focal[0] * local[:, 0] / safe)
        row = np.floor(camera.centre[1] - camera.focal[1] * local[:, 1] / safe)
        inside = (
            ahead & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        )
        is_seen |= bool(inside.any())
        nearest = float(safe[inside].min()) if inside.any() else 1.0
        reach = int(np.ceil(max(camera.focal) * radius / max(nearest - radius, 1e-9))) + 1
        grown = maximum_filter(cover, size=2 * min(reach, max(cover.shape)) + 1)
        keep = ~inside
        keep[inside] = grown[row[inside].astype(int), column[inside].astype(int)]
        alive = alive[keep]
    if not is_seen or not len(alive):
        raise DataError(
            "RadianceField.fit: expected a scene in the box that cameras see, got pictures that "
            "show nothing there. Pass bounds=(low, high), the scene's box in the cameras' world."
        )
    allowed = np.zeros(n**3, bool)
    allowed[alive] = True
    return allowed
