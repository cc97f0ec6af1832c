"""A run of Adam or SGD: the engine trains, in one call where nothing is to be done in between.

What makes a run repeatable: the order of rows and the dropout masks depend on the seed and the
epoch's index alone, so that a run cut anywhere between epochs and continued gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.batch_ensemble import BatchEnsemble
from lamina.core.engine import Member, Run, make_engine, train_together
from lamina.core.errors import DivergenceError
from lamina.core.history import History
from lamina.core.jet_loss import JetLoss
from lamina.core.jet_run import JetRun
from lamina.core.network import Network
from lamina.core.optim import SGD, AdamW, native_hyper
from lamina.core.schedules import learning_rates
from lamina.core.watch import Plan, Rows, Watch

Array = npt.NDArray[Any]

# The longest the engine runs before parameters and moments are copied: what is lost, and
# computed again, when a run diverges. The result does not depend on it.
SNAPSHOT_SECONDS = 2.0
# So many learning rates at most go to the engine at once (8 MB); 12 s of its smallest steps.
MAX_STEPS_A_CALL = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """Parameters and optimiser between two epochs; `epoch` is the next one's index."""

    epoch: int
    step: int
    theta: Array
    m: Array
    v: Array


class Descent:
    """A run under way.

    Parameters
    ----------
    net : Network
        Given the run's parameters when it ends, however it ends.
    rows, validation : Rows, Rows or None
    optimizer : AdamW or SGD
    plan : Plan
    history : History
        Written to. Empty, or what `state` belongs to.
    state : dict, optional
        ``History.state`` of the run to continue.
    """

    def __init__(
        self,
        net: Network | BatchEnsemble,
        rows: Rows,
        validation: Rows | None,
        optimizer: AdamW | SGD,
        plan: Plan,
        history: History,
        state: dict[str, Any] | None,
    ) -> None:
        self.net, self.rows, self.optimizer, self.plan = net, rows, optimizer, plan
        self.kind, hyper = native_hyper(optimizer)
        self.steps_an_epoch = math.ceil(len(rows) / plan.batch_size)
        self.engine = make_engine(net.spec, net.theta if state is None else state["theta"])
        self.run = self._make_run(hyper)
        if state is not None:
            self.run.set_state(state["m"], state["v"], state["step"])
        self.history = history
        best_theta = None if state is None else state["best_theta"]
        self.watch = Watch(net, self.engine, validation, plan, history, best_theta)
        self.saved = self._snapshot(0 if state is None else state["epoch"])
        is_done = self.saved.epoch >= plan.max_epochs
        self.reason: str | None = "max_epochs" if is_done else None

    def _make_run(self, hyper: dict[str, float | bool]) -> Run:
        plan = self.plan
        kind = {
            "batch_size": min(plan.batch_size, len(self.rows)),
            "seed": plan.seed,
            "n_threads": plan.n_threads,
        }
        if isinstance(plan.loss, JetLoss):
            return JetRun(self.engine, plan.loss, self.kind, hyper, **kind)
        hyper = {**hyper, "bfloat16": plan.precision == "bfloat16"}
        return Run(self.engine, plan.loss, self.kind, hyper, **kind)

    def go(self) -> None:
        """Train until there is a reason to stop; the network then holds the result."""
        try:
            while not self.is_over:
                losses, diverged = self._epochs(*self.next_epochs(self.watch.seconds_left()))
                self.take(losses, diverged)
        except BaseException as error:
            self.abandon(error)
            raise
        self.finish()

    @property
    def is_over(self) -> bool:
        """Whether there is a reason to stop."""
        return self.reason is not None

    def next_epochs(
        self, seconds: float, max_steps: int = MAX_STEPS_A_CALL
    ) -> tuple[int, float, Array]:
        """Return what the engine should do next: n_epochs, seconds and learning rates.

        Parameters
        ----------
        seconds : float
            How long it may take; no epoch begins later than that.
        max_steps : int
            The most steps to ask for, one epoch apart.
        """
        n_epochs = 1
        if not self.watch.each_epoch:
            at_most = max(1, max_steps // self.steps_an_epoch)
            n_epochs = min(self.plan.max_epochs - self.saved.epoch, at_most)
        seconds = min(SNAPSHOT_SECONDS, max(seconds, 0.0))
        return n_epochs, seconds, self._learning_rates(self.saved.epoch, n_epochs)

    def take(
        self, losses: Array, diverged: bool, scored: tuple[float, Array] | None = None
    ) -> None:
        """Go on from what the engine did, and decide whether that was all.

        Parameters
        ----------
        losses, diverged
            As `Run.epochs` returns them.
        scored : (float, array), optional
            As for `Watch.record`.

        Raises
        ------
        DivergenceError
            The run is rewound to the last epoch that left finite parameters.
        """
        now = self._snapshot(self.saved.epoch + len(losses))
        if diverged or not np.isfinite(now.theta).all():
            self._rewind(losses if diverged else losses[:-1])
            raise DivergenceError(self._diverged())
        self.watch.record(losses, now.theta, scored)
        self.saved = now
        reason = self.watch.decide(float(self._learning_rates(now.epoch - 1, 1)[-1]))
        self.reason = "max_epochs" if now.epoch >= self.plan.max_epochs else reason

    def abandon(self, error: BaseException) -> None:
        """End the run where an exception found it."""
        # The last whole step's parameters, or the last snapshot's where those are not finite.
        theta = self.engine.get_parameters()
        self.net.theta = theta if np.isfinite(theta).all() else self.saved.theta
        if isinstance(error, KeyboardInterrupt):
            self.close("interrupted")
            error.history = self.history  # type: ignore[attr-defined]

    def fail(self) -> None:
        """End a run that diverged and was rewound."""
        self.reason = "diverged"
        self.net.theta = self.saved.theta
        self.close(self.reason)

    def finish(self) -> None:
        """Give the network the result."""
        best = self.watch.best_theta
        self.net.theta = self.saved.theta if best is None else best
        self.close(self.reason or "max_epochs")

    def member(self, n_epochs: int, seconds: float, lr: Array, is_scored: bool = False) -> Member:
        """Return this run as one of several, about to do what `next_epochs` said."""
        held, rows = self.watch.validation, self.rows
        return Member(
            self.run,
            lr,
            self.saved.epoch,
            n_epochs,
            seconds,
            rows.index,
            rows.sample_weight,
            (held.x, held.y, held.sample_weight) if held is not None and is_scored else None,
        )

    def _epochs(self, n_epochs: int, seconds: float, lr: Array) -> tuple[Array, bool]:
        if self.rows.index is not None:
            alone = [self.member(n_epochs, seconds, lr)]
            outcome = train_together(alone, self.rows.x, self.rows.y, self.plan.n_threads)[0]
            return outcome.losses, outcome.diverged
        return self.run.epochs(
            self.rows.x,
            self.rows.y,
            lr,
            first_epoch=self.saved.epoch,
            n_epochs=n_epochs,
            sample_weight=self.rows.sample_weight,
            seconds=seconds,
        )

    def _learning_rates(self, epoch: int, n_epochs: int) -> Array:
        steps = self.steps_an_epoch
        n_steps = self.plan.max_epochs * steps
        return learning_rates(self.optimizer.lr, epoch * steps, (epoch + n_epochs) * steps, n_steps)

    def _snapshot(self, epoch: int) -> Snapshot:
        theta = self.engine.get_parameters()
        return Snapshot(epoch, self.run.step, theta, *self.run.get_state())

    def _rewind(self, losses: Array) -> None:
        """Return to the last epoch that left finite parameters, by doing all since again."""
        start = self.saved
        for n_epochs in range(len(losses), -1, -1):
            self.engine.set_parameters(start.theta)
            self.run.set_state(start.m, start.v, start.step)
            if n_epochs:
                self._epochs(n_epochs, math.inf, self._learning_rates(start.epoch, n_epochs))
            now = self._snapshot(start.epoch + n_epochs)
            if np.isfinite(now.theta).all():
                self.saved = now
                return

    def _diverged(self) -> str:
        return (
            f"train: expected a finite loss, got NaN or infinity in epoch {self.saved.epoch}. "
            "Lower lr, give it a warm-up, or standardise x and y; "
            "the network keeps the last finite parameters."
        )

    def close(self, reason: str) -> None:
        """Write down why the run ended and how it goes on."""
        saved, history = self.saved, self.history
        history.stopped = reason
        history.state = {
            "optimizer": self.kind,
            "batch_size": self.plan.batch_size,
            "n_rows": len(self.rows),
            "dtype": str(self.engine.dtype),
            "precision": self.plan.precision,
            "n_params": self.engine.n_params,
            "max_epochs": self.plan.max_epochs,
            "seed": self.plan.seed,
            "epoch": saved.epoch,
            "step": saved.step,
            "theta": saved.theta,
            "m": saved.m,
            "v": saved.v,
            "best_theta": self.watch.best_theta,
        }
