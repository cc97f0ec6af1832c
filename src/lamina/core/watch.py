"""Between epochs: score the held-out rows, record, keep the best, report, stop or go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core import metrics
from lamina.core.batch_ensemble import BatchEnsemble
from lamina.core.engine import Engine
from lamina.core.errors import DataError
from lamina.core.history import EpochReport, History
from lamina.core.losses import Loss
from lamina.core.network import Network

Array = npt.NDArray[Any]
Callback = Callable[[EpochReport], object]


@dataclass(frozen=True)
class Rows:
    """Checked rows: x (n, d_in), y as the engine takes it, weights (n,) or None.

    With an `index`, int32 and rising, only the rows it names; x and y may then be shared.
    """

    x: Array
    y: Array
    sample_weight: Array | None = None
    index: Array | None = None

    def __len__(self) -> int:
        return len(self.x if self.index is None else self.index)

    def take(self, index: Array) -> Rows:
        """Return the rows of `index`, copied; shared by name where these are rows by name."""
        if self.index is not None:
            return replace(self, index=self.index[index])
        w = None if self.sample_weight is None else self.sample_weight[index]
        return Rows(self.x[index], self.y[index], w)

    def copied(self) -> Rows:
        """Return the rows themselves, without an index."""
        return self if self.index is None else replace(self, index=None).take(self.index)


@dataclass(frozen=True)
class Plan:
    """How a run is to go: `train`'s arguments, checked."""

    loss: Loss
    batch_size: int
    max_epochs: int
    max_seconds: float
    patience: int | None
    callbacks: tuple[Callback, ...]
    seed: int
    n_threads: int
    precision: str = "float32"
    member: int = 0


def hold_out(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to train on and those held out, drawn by `seed`: at least one of each."""
    n = len(rows)
    if n < 2:
        raise DataError(
            f"train: expected at least 2 rows to hold some out, got {n}. "
            "Pass more rows, or validation=None."
        )
    n_held = min(max(round(fraction * n), 1), n - 1)
    order = np.random.default_rng(seed).permutation(n)
    return rows.take(np.sort(order[n_held:])), rows.take(np.sort(order[:n_held])).copied()


def score(loss: Loss, y: Array, y_pred: Array, value: float, sample_weight: Array | None) -> float:
    """Return accuracy for classes, R² for numbers, else minus the loss `value`."""
    if loss.name == "cross_entropy":
        labels = y if y.ndim == 1 else y.argmax(axis=1)
        return metrics.accuracy(labels, y_pred.argmax(axis=1), sample_weight)
    if loss.name == "binary_cross_entropy":
        return metrics.accuracy(y > 0.5, y_pred > 0.5, sample_weight)
    if loss.name in ("squared_error", "absolute_error", "huber"):
        return metrics.r2(y, y_pred, sample_weight)
    return -value


class Watch:
    """The one who stands by a run and its history.

    Parameters
    ----------
    net : Network
        Given the epoch's parameters before callbacks are called.
    engine : Engine
        The engine that trains; it scores the held-out rows.
    validation : Rows or None
    plan : Plan
    history : History
        Written to. Empty, or what a resumed run continues.
    best_theta : array (n_params,), optional
        The best parameters so far, where a run is resumed.
    """

    def __init__(
        self,
        net: Network | BatchEnsemble,
        engine: Engine,
        validation: Rows | None,
        plan: Plan,
        history: History,
        best_theta: Array | None = None,
    ) -> None:
        self.net = net
        self.engine = engine
        self.validation = validation
        self.plan = plan
        self.history = history
        self.best_theta = best_theta
        self.theta = net.theta
        self.is_best = False
        self.began = time.perf_counter()
        self.before = history.times[-1] if history.times else 0.0

    @property
    def each_epoch(self) -> bool:
        """Whether there is something to do after every single epoch."""
        return self.validation is not None or bool(self.plan.callbacks)

    def seconds_left(self) -> float:
        """Return how much of this call's time is left."""
        return self.plan.max_seconds - (time.perf_counter() - self.began)

    def record(
        self, losses: Array, theta: Array, scored: tuple[float, Array] | None = None
    ) -> None:
        """Score and write down epochs just completed.

        Parameters
        ----------
        losses : array (n_epochs,)
            One epoch's only, where `each_epoch` holds.
        theta : array (n_params,)
            The parameters now, which the engine holds too; not to be changed afterwards.
        scored : (float, array (n, d_out)), optional
            Loss and y_pred of the held-out rows, where they are known.
        """
        history = self.history
        pair = self._score(scored)  # all that takes time comes first: Ctrl-C finds whole records
        since = history.times[-1] if history.times else 0.0
        now = self.before + time.perf_counter() - self.began
        history.times.extend(np.linspace(since, now, len(losses) + 1)[1:].tolist())
        history.train_loss.extend(losses.tolist())
        self.theta = theta
        self.is_best = False
        if pair is None:
            return
        value, its_score = pair
        best = history.best_epoch
        self.is_best = best is None or value < history.validation_loss[best]
        history.validation_loss.append(value)
        history.validation_score.append(its_score)
        if self.is_best:
            history.best_epoch = history.epochs - 1
            self.best_theta = theta

    def decide(self, lr: float) -> str | None:
        """Report the epoch recorded last; return why the run should stop, or None.

        Parameters
        ----------
        lr : float
            The learning rate of its last step.
        """
        history, plan = self.history, self.plan
        last = history.epochs - 1
        is_asked_to = self._report(last, lr)
        since_best = 0 if history.best_epoch is None else last - history.best_epoch
        if plan.patience is not None and since_best >= plan.patience:
            return "patience"
        if is_asked_to:
            return "callback"
        return "max_seconds" if self.seconds_left() <= 0 else None

    def _report(self, last: int, lr: float) -> bool:
        """Call every callback; return whether one of them asks to stop."""
        history, plan = self.history, self.plan
        if not plan.callbacks:
            return False
        self.net.theta = self.theta
        has_scores = self.validation is not None
        report = EpochReport(
            last,
            plan.max_epochs,
            history.train_loss[last],
            history.validation_loss[last] if has_scores else None,
            history.validation_score[last] if has_scores else None,
            lr,
            history.times[last],
            self.is_best,
            plan.member,
        )
        answers = [callback(report) for callback in plan.callbacks]
        return any(answer is True or answer is np.True_ for answer in answers)

    def _score(self, scored: tuple[float, Array] | None) -> tuple[float, float] | None:
        """Return loss and score of the held-out rows, if there are any."""
        rows, plan = self.validation, self.plan
        if rows is None:
            return None
        value, y_pred = scored or self._predict(rows)
        return value, score(plan.loss, rows.y, y_pred, value, rows.sample_weight)

    def _predict(self, rows: Rows) -> tuple[float, Array]:
        plan = self.plan
        value = self.engine.evaluate(
            rows.x,
            rows.y,
            plan.loss,
            sample_weight=rows.sample_weight,
            n_threads=plan.n_threads,
        )
        return value, self.engine.forward(rows.x, plan.n_threads)
