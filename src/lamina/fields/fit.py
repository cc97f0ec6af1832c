"""Training of a field: rounds of rows, a learning rate that falls with time, the best kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_count, check_number
from lamina.core.engine import Run, default_n_threads, isa, make_engine
from lamina.core.errors import DivergenceError, SpecError
from lamina.core.network import Network
from lamina.core.optim import native_hyper
from lamina.fields.recipe import Recipe
from lamina.fields.signal import Signal

Array = npt.NDArray[Any]
Score = Callable[[Callable[[Array], Array]], float]

DEFAULT_SECONDS: Final = 30.0
SECONDS_BETWEEN_REPORTS: Final = 0.2
SECONDS_BETWEEN_SNAPSHOTS: Final = 1.0
# Multiplications of a round, forward: about a tenth of a second of two cores, so that a time
# limit and Ctrl-C are kept, and Python's share is small.
ROUND_WORK: Final = 1 << 31
LEAST_ROUND, MOST_ROUND = 1 << 13, 1 << 18  # rows


@dataclass(frozen=True)
class FitProgress:
    """What a progress function is told, some five times a second.

    Attributes
    ----------
    psnr : float
        Live: of the rows of the last round, each before its step, in dB.
    step : int
        Steps taken.
    seconds : float
        Since `fit` began.
    share : float
        How much of the run is over, in [0, 1].
    lr : float
        The learning rate.
    field : Callable
        The field so far, for a preview: coordinates (n, d_in) to values (n, d_out), and of a scene
        a `Camera` to a picture.
    """

    psnr: float
    step: int
    seconds: float
    share: float
    lr: float
    field: Callable[[Any], Array] = field(repr=False, compare=False)


@dataclass(frozen=True)
class FieldReport:
    """What a fit leaves behind, and how to repeat it.

    Attributes
    ----------
    psnr : float
        Of the finished field, as `Field.psnr` measures it, in dB, on what it was fitted to.
    n_params, n_values : int
        Numbers in the field, and in the signal.
    seconds : float
    n_steps, batch_size : int
        Steps taken, and rows in each.
    seed, n_threads, isa
        With the same of all, ``fit(signal, repeat=report)`` gives the same bits.
    stopped : str
        Why it ended: "max_seconds", "max_steps", "target_psnr", "callback", or "interrupted"
        (Ctrl-C, after which the best so far was kept; only this run cannot be repeated).
    learning_rates : array (n_rounds,)
        One a round, as time or steps decided them. Not kept in model files.
    """

    psnr: float
    n_params: int
    n_values: int
    seconds: float
    n_steps: int
    batch_size: int
    seed: int
    n_threads: int
    isa: str
    stopped: str
    learning_rates: Array = field(repr=False, compare=False)


@dataclass(frozen=True)
class Limits:
    """When a fit ends: whichever comes first. `repeat` is an earlier run to take again."""

    max_seconds: float
    max_steps: float
    target_psnr: float
    repeat: FieldReport | None

    @classmethod
    def check(
        cls,
        where: str,
        max_seconds: float | None,
        max_steps: int | None,
        target_psnr: float | None,
        repeat: FieldReport | None,
    ) -> Limits:
        """Return checked limits; without any of time or steps, `DEFAULT_SECONDS`."""
        if repeat is not None:
            return cls._of(repeat, where, (max_seconds, max_steps, target_psnr))
        if max_seconds is None and max_steps is None:
            max_seconds = DEFAULT_SECONDS
        return cls(
            math.inf
            if max_seconds is None
            else check_number(max_seconds, "max_seconds", where, 0.0, closed="right"),
            math.inf if max_steps is None else check_count(max_steps, "max_steps", where),
            math.inf if target_psnr is None else check_number(target_psnr, "target_psnr", where),
            None,
        )

    @classmethod
    def _of(cls, repeat: object, where: str, others: tuple[object, ...]) -> Limits:
        if not isinstance(repeat, FieldReport) or not len(repeat.learning_rates):
            raise SpecError(
                f"{where}: expected repeat to be the report of a field fitted in this session, "
                f"got {repeat!r:.80}. Model files do not keep the learning rates."
            )
        if others != (None, None, None):
            raise SpecError(
                f"{where}: expected repeat alone, got it with another limit. "
                "The report says how long to train: leave the limits out."
            )
        return cls(math.inf, repeat.n_steps, math.inf, repeat)


class Fitting:
    """A fit under way.

    Parameters
    ----------
    net : Network
        Given the result, in the signal's own units.
    signal : Signal
    recipe : Recipe
    limits : Limits
    seed : int
    n_threads : int, optional
    score : callable
        PSNR of a function of coordinates on the signal.
    progress : callable, optional
        Called with a `FitProgress`; returns True to stop.
    began : float
        `time.perf_counter()` when the caller's work began: limits count from there.
    """

    def __init__(
        self,
        net: Network,
        signal: Signal,
        recipe: Recipe,
        limits: Limits,
        seed: int,
        n_threads: int | None,
        score: Score,
        progress: Callable[[FitProgress], object] | None,
        began: float,
    ) -> None:
        self.net, self.signal, self.recipe, self.limits = net, signal, recipe, limits
        self.seed, self.score, self.progress, self.began = seed, score, progress, began
        self.n_threads = default_n_threads(n_threads)
        self.mean, self.spread = signal.statistics()
        self.engine = make_engine(net.spec, net.theta)
        kind, hyper = native_hyper(recipe.optimizer)
        hyper = {**hyper, "bfloat16": recipe.precision == "bfloat16"}
        self.size = round_size(recipe.work, signal.n_rows, recipe.batch_size)
        self.batch_size = min(recipe.batch_size, self.size)
        self.run = Run(
            self.engine,
            signal.loss,
            kind,
            hyper,
            batch_size=self.batch_size,
            seed=seed,
            n_threads=self.n_threads,
        )
        self.rates: list[float] = []
        self.epoch = 0
        self.loss = math.inf
        self.best = net.theta, math.inf  # parameters, and the loss of the round that led there
        self.next_snapshot = self.next_look = began
        self.last_report = -math.inf  # the first round is told at once
        self.round_seconds = 0.0

    # --- the loop --------------------------------------------------------------------------------

    def go(self) -> FieldReport:
        """Train until a limit is met, or Ctrl-C; the network then holds the best parameters."""
        try:
            stopped = self._stop_reason()
            while stopped is None:
                self._round()
                stopped = self._stop_reason() or self._tell()
        except KeyboardInterrupt:
            stopped = "interrupted"
        self.signal.release()
        psnr = self._result(stopped == "interrupted")
        return FieldReport(
            psnr,
            self.net.n_params,
            self.signal.n_values,
            time.perf_counter() - self.began,
            self.run.step,
            self.batch_size,
            self.seed,
            self.n_threads,
            isa(),
            stopped,
            np.array(self.rates),
        )

    def _round(self) -> None:
        """Train on the next rows at the learning rate of this moment."""
        since = time.perf_counter()
        x, y = self.signal.draw(len(self.rates), self.size, self.seed)
        left = self.limits.max_steps - self.run.step
        if left * self.batch_size < len(x):
            x, y = x[: int(left) * self.batch_size], y[: int(left) * self.batch_size]
        steps = -(-len(x) // self.batch_size)
        n_epochs = 1
        if self.size == self.signal.n_rows:  # a small signal: several passes
            n_epochs = int(min(-(-LEAST_ROUND // len(x)), left // steps))
        lr = self._learning_rate()
        losses, diverged = self.run.epochs(
            x, y, np.full(n_epochs * steps, lr), first_epoch=self.epoch, n_epochs=n_epochs
        )
        if diverged or not math.isfinite(float(losses[-1])):
            raise DivergenceError(
                "fit: expected a loss that stays finite, got one that does not. "
                "Scale the signal's values down, or use preset='hash'."
            )
        self.rates.append(lr)
        self.epoch += n_epochs
        self.loss = float(losses[-1])
        now = time.perf_counter()
        self.round_seconds = now - since
        if now > self.next_snapshot and self.loss < self.best[1]:
            self.best = self.engine.get_parameters(), self.loss
            later = time.perf_counter()
            self.next_snapshot = later + max(SECONDS_BETWEEN_SNAPSHOTS, 20 * (later - now))

    def _share(self) -> float:
        """How much of the run is over, by the limit that is nearest."""
        # What measuring the finished field will take, at worst: a forward pass is a third of a step
        measuring = 0.6 * self.round_seconds * self.signal.n_rows / self.size
        spare = min(measuring + self.round_seconds, 0.2 * self.limits.max_seconds)
        by_time = (time.perf_counter() - self.began) / (self.limits.max_seconds - spare)
        return min(max(by_time, self.run.step / self.limits.max_steps), 1.0)

    def _learning_rate(self) -> float:
        if self.limits.repeat is not None:
            return float(self.limits.repeat.learning_rates[len(self.rates)])
        return self.recipe.learning_rate(self._share())

    def _stop_reason(self) -> str | None:
        if not self.rates:
            return None
        if self._reached_target():
            return "target_psnr"
        if self.run.step >= self.limits.max_steps:
            return "max_steps" if self.limits.repeat is None else self.limits.repeat.stopped
        return "max_seconds" if self._share() >= 1.0 else None

    def _reached_target(self) -> bool:
        """Measure the field once the live PSNR says that it should be good enough."""
        since = time.perf_counter()
        target = self.limits.target_psnr
        if math.isinf(target) or since < self.next_look or self.live_psnr() < target:
            return False
        reached = self.score(self.values) >= target
        now = time.perf_counter()
        self.next_look = now + 5 * (now - since)
        return reached

    def _tell(self) -> str | None:
        """Report, if it is time to; return "callback" if that asks to stop."""
        now = time.perf_counter()
        if self.progress is None or now - self.last_report < SECONDS_BETWEEN_REPORTS:
            return None
        self.last_report = now
        report = FitProgress(
            self.live_psnr(),
            self.run.step,
            now - self.began,
            self._share(),
            self.rates[-1],
            self.values,
        )
        return "callback" if self.progress(report) is True else None

    # --- the result ------------------------------------------------------------------------------

    def live_psnr(self) -> float:
        """PSNR of the last round's rows, each before its step, or of the signal's probe."""
        probe = self.signal.probe()
        if probe is not None:
            coordinates, values = probe
            error = self.values(coordinates) - values.reshape(len(coordinates), -1)
            return psnr_of(float(np.mean(np.square(error, dtype=np.float64))), self.signal.peak)
        return psnr_of(self.loss * self.spread**2, self.signal.peak)

    def values(self, coordinates: Array) -> Array:
        """Return the field so far at coordinates (n, d_in), in the signal's units."""
        y = self.engine.forward(np.asarray(coordinates, np.float32), self.n_threads)
        return np.asarray(y * np.float32(self.spread) + self.mean.astype(np.float32))

    def _result(self, was_interrupted: bool) -> float:
        """Give the network the result, and return its PSNR.

        After Ctrl-C that is the better of the parameters of now and of an earlier round.
        """
        self._hand_over(self.engine.get_parameters())
        psnr = self.score(self.net)
        theta, loss = self.best
        if was_interrupted and loss < math.inf:
            latest = self.net.theta
            self._hand_over(theta)
            earlier = self.score(self.net)
            if earlier > psnr:
                return earlier
            self.net.theta = latest
        return psnr

    def _hand_over(self, theta: Array) -> None:
        """Give the network parameters, with mean and spread put into its last layer.

        It then speaks the signal's own units.
        """
        theta = theta.copy()
        weight, bias = self.net.spec.slices()[-1]
        theta[weight] = theta[weight].astype(np.float64) * self.spread
        theta[bias] = theta[bias].astype(np.float64) * self.spread + self.mean
        self.net.theta = theta


def round_size(work: int, n_rows: int, batch_size: int) -> int:
    """Return the rows of a round, from the multiplications that a row takes."""
    rows = min(max(ROUND_WORK // max(work, 1), LEAST_ROUND), MOST_ROUND)
    return min(max(rows // batch_size, 1) * batch_size, n_rows)


def psnr_of(mse: float, peak: float) -> float:
    """Return 10 log10(peak^2 / mse) in dB; infinite where nothing differs."""
    return 10.0 * math.log10(peak * peak / mse) if mse > 0 else math.inf
