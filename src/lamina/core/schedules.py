"""Learning-rate schedules: how the learning rate moves over the steps of a run.

A schedule is a frozen dataclass, made by the lower-case function of its name; called with step
indices 0 … n_steps - 1 and the run's n_steps it returns the learning rate of each. Warm-up and
periods are shares of the run, so that one schedule fits runs of any length.

Linear warm-up, common to most: for t < n_warm = round(warmup * n_steps), lr (t + 1) / n_warm.
After it s = (t - n_warm) / (n_steps - n_warm) runs from 0 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_number

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """What all schedules share: the peak learning rate `lr` and `__call__`."""

    lr: float

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high, closed = _RANGES[field.name]
            value = check_number(
                getattr(self, field.name), field.name, type(self).__name__, low, high, closed
            )
            object.__setattr__(self, field.name, value)

    def __call__(self, step: npt.ArrayLike, n_steps: int) -> Float64:
        """Return the learning rates of `step` (an index or an array of them) of `n_steps`."""
        t = np.asarray(step, np.float64)
        # NumPy's scalars take other routines than its arrays, which may round otherwise; a run
        # that is resumed needs the very bits, whatever part of it is asked for.
        return self._lr(t.reshape(-1), n_steps).reshape(t.shape)

    def _lr(self, t: Float64, n_steps: int) -> Float64:
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """lr at every step."""

    def _lr(self, t: Float64, n_steps: int) -> Float64:  # noqa: ARG002
        return np.full(t.shape, self.lr)


@dataclass(frozen=True)
class Cosine(Schedule):
    """final + (lr - final) (1 + cos(pi s)) / 2 after the warm-up."""

    warmup: float = 0.0
    final: float = 0.0

    def _lr(self, t: Float64, n_steps: int) -> Float64:
        s, warm = _progress(t, n_steps, self.warmup)
        return warm * (self.final + (self.lr - self.final) * (1 + np.cos(np.pi * s)) / 2)


@dataclass(frozen=True)
class Linear(Schedule):
    """lr + (final - lr) s after the warm-up."""

    warmup: float = 0.0
    final: float = 0.0

    def _lr(self, t: Float64, n_steps: int) -> Float64:
        s, warm = _progress(t, n_steps, self.warmup)
        return warm * (self.lr + (self.final - self.lr) * s)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """lr factor^floor(t / period), period = round(every * n_steps)."""

    every: float = 0.3
    factor: float = 0.1

    def _lr(self, t: Float64, n_steps: int) -> Float64:
        period = max(1, round(self.every * n_steps))
        return np.asarray(self.lr * self.factor ** np.floor(t / period))


@dataclass(frozen=True)
class Exponential(Schedule):
    """lr decay^s after the warm-up, so that it ends at decay times its peak."""

    warmup: float = 0.0
    decay: float = 0.01

    def _lr(self, t: Float64, n_steps: int) -> Float64:
        s, warm = _progress(t, n_steps, self.warmup)
        return np.asarray(warm * self.lr * self.decay**s)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine from start * lr up to lr at step warmup n_steps - 1, then one to end * lr."""

    warmup: float = 0.3
    start: float = 1 / 25
    end: float = 4e-6

    def _lr(self, t: Float64, n_steps: int) -> Float64:
        top = max(self.warmup * n_steps - 1, 0.0)  # the step of the peak
        fall = max(n_steps - 1 - top, 1e-9)
        rise = _cosine(1.0, self.start, np.minimum(t / max(top, 1e-9), 1.0))
        down = _cosine(self.end, 1.0, np.clip((t - top) / fall, 0.0, 1.0))
        return self.lr * np.where(t < top, rise, down)


@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """lr min((t + 1) / n_warm, sqrt(n_warm / (t + 1))), n_warm = max(1, round(warmup n_steps))."""

    warmup: float = 0.1

    def _lr(self, t: Float64, n_steps: int) -> Float64:
        n_warm = max(1, round(self.warmup * n_steps))
        return self.lr * np.minimum((t + 1) / n_warm, np.sqrt(n_warm / (t + 1)))


_RANGES: dict[str, tuple[float, float, str]] = {
    "lr": (0.0, math.inf, "neither"),
    "warmup": (0.0, 1.0, "left"),
    "final": (0.0, math.inf, "both"),
    "every": (0.0, 1.0, "right"),
    "factor": (0.0, 1.0, "right"),
    "decay": (0.0, 1.0, "right"),
    "start": (0.0, 1.0, "right"),
    "end": (0.0, 1.0, "both"),
}


def _progress(t: Float64, n_steps: int, warmup: float) -> tuple[Float64, Float64]:
    """Return s in [0, 1] after the warm-up (0 within it) and the warm-up's factor (1 after it)."""
    n_warm = round(warmup * n_steps)
    s = np.clip((t - n_warm) / max(n_steps - n_warm, 1), 0.0, 1.0)
    return s, np.minimum((t + 1) / max(n_warm, 1), 1.0)


def _cosine(to: float, since: float, s: Float64) -> Float64:
    """Half a cosine from `since` at s = 0 to `to` at s = 1."""
    return np.asarray(to + (since - to) * (1 + np.cos(np.pi * s)) / 2)


def constant(lr: float) -> Schedule:
    """Return the schedule lr at every step: the same as passing the number.

    Parameters
    ----------
    lr : float, > 0
    """
    return Constant(lr)


def cosine(lr: float, warmup: float = 0.0, final: float = 0.0) -> Schedule:
    """Return a cosine decay: final + (lr - final) (1 + cos(pi s)) / 2.

    Parameters
    ----------
    lr : float, > 0
        The peak.
    warmup : float in [0, 1), default 0.0
        The share of the steps spent rising to `lr` in a line; 0.05 steadies deep networks.
    final : float, ≥ 0, default 0.0
        The learning rate it falls towards; raise it to keep learning until the end.

    References
    ----------
    Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.

    Examples
    --------
    >>> cosine(1.0)([0, 50], 100).round(12).tolist()
    [1.0, 0.5]
    """
    return Cosine(lr, warmup, final)


def linear(lr: float, warmup: float = 0.0, final: float = 0.0) -> Schedule:
    """Return a straight fall: lr + (final - lr) s. Parameters as for `cosine`."""
    return Linear(lr, warmup, final)


def step_decay(lr: float, every: float = 0.3, factor: float = 0.1) -> Schedule:
    """Return a staircase: lr factor^floor(t / period), period = round(every * n_steps).

    Parameters
    ----------
    lr : float, > 0
        The first level.
    every : float in (0, 1], default 0.3
        The length of a level as a share of the run.
    factor : float in (0, 1], default 0.1
        Each level is so many times the one before.
    """
    return StepDecay(lr, every, factor)


def exponential(lr: float, warmup: float = 0.0, decay: float = 0.01) -> Schedule:
    """Return a geometric decay: lr decay^s.

    Parameters
    ----------
    lr : float, > 0
        The peak.
    warmup : float in [0, 1), default 0.0
        As for `cosine`.
    decay : float in (0, 1], default 0.01
        What is left of `lr` at the end of the run.
    """
    return Exponential(lr, warmup, decay)


def one_cycle(lr: float, warmup: float = 0.3, start: float = 1 / 25, end: float = 4e-6) -> Schedule:
    """Return one cycle: a cosine from start * lr up to lr, then one down to end * lr.

    Parameters
    ----------
    lr : float, > 0
        The peak, often several times what a constant rate would bear.
    warmup : float in [0, 1), default 0.3
        The peak is at step warmup * n_steps - 1.
    start, end : float in (0, 1] and [0, 1], default 1/25 and 4e-6
        First and last learning rate as shares of `lr`.

    References
    ----------
    Smith and Topin 2018, arXiv:1708.07120; the cosine form and defaults are PyTorch's OneCycleLR.
    """
    return OneCycle(lr, warmup, start, end)


def inverse_sqrt(lr: float, warmup: float = 0.1) -> Schedule:
    """Return the Transformer's schedule: lr min((t + 1) / n_warm, sqrt(n_warm / (t + 1))).

    Parameters
    ----------
    lr : float, > 0
        The peak, reached after the warm-up.
    warmup : float in [0, 1), default 0.1
        The share of the steps spent rising; at least one step.

    References
    ----------
    Vaswani et al. 2017, arXiv:1706.03762, eq. 3, scaled to peak at `lr`.
    """
    return InverseSqrt(lr, warmup)


def learning_rates(lr: float | Schedule, start: int, stop: int, n_steps: int) -> npt.NDArray[Any]:
    """Return the learning rates of steps start … stop - 1 of a run of `n_steps`."""
    if isinstance(lr, Schedule):
        return lr(np.arange(start, stop), n_steps)
    return np.full(stop - start, lr)
