"""A run of L-BFGS: SciPy's driver over the engine's loss and gradient of all rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.batch_ensemble import BatchEnsemble
from lamina.core.engine import make_engine
from lamina.core.errors import DivergenceError
from lamina.core.history import History
from lamina.core.network import Network
from lamina.core.optim import LBFGS
from lamina.core.watch import Plan, Rows, Watch

Array = npt.NDArray[Any]


class Objective:
    """loss + l2/2 |W|^2 and its gradient, as functions of a float64 theta."""

    def __init__(self, net: Network | BatchEnsemble, rows: Rows, plan: Plan, l2: float) -> None:
        self.engine = make_engine(net.spec)
        self.rows, self.plan, self.l2 = rows, plan, l2
        self.grad = np.empty(self.engine.n_params, self.engine.dtype)
        self.is_weight = np.zeros(self.engine.n_params, bool)
        for weight, _ in net.spec.slices():
            self.is_weight[weight] = True

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Return the objective and its gradient."""
        self.engine.set_parameters(theta)
        rows = self.rows
        value = self.engine.evaluate(
            rows.x,
            rows.y,
            self.plan.loss,
            sample_weight=rows.sample_weight,
            grad=self.grad,
            n_threads=self.plan.n_threads,
        )
        weights = np.where(self.is_weight, theta, 0.0)
        value += 0.5 * self.l2 * float(weights @ weights)
        return value, self.grad.astype(np.float64) + self.l2 * weights


def minimise(
    net: Network | BatchEnsemble,
    rows: Rows,
    validation: Rows | None,
    optimizer: LBFGS,
    plan: Plan,
    history: History,
) -> None:
    """Run L-BFGS; the network then holds the result, or the last iterate if an error ends it."""
    from scipy.optimize import OptimizeResult, minimize

    objective = Objective(net, rows, plan, optimizer.l2)
    engine = objective.engine
    watch = Watch(net, engine, validation, plan, history)
    theta = net.theta.astype(np.float64)
    value, _ = objective(theta)
    if not math.isfinite(value):
        raise DivergenceError(
            "train: expected a finite loss to begin with, got NaN or infinity. "
            "Standardise x and y, or make the network anew."
        )
    reason = None

    def after_iteration(intermediate_result: OptimizeResult) -> None:
        nonlocal theta, reason
        theta = intermediate_result.x.copy()
        now = theta.astype(engine.dtype)
        engine.set_parameters(now)
        watch.record(np.array([intermediate_result.fun]), now)
        reason = watch.decide(math.nan)
        if reason is not None:
            raise StopIteration

    dtype = engine.dtype
    try:
        result = minimize(
            objective,
            theta,
            jac=True,
            method="L-BFGS-B",
            callback=after_iteration,
            options={
                "maxiter": plan.max_epochs,
                "maxfun": 100 * plan.max_epochs,
                "maxcor": optimizer.memory,
                "gtol": optimizer.tol,
                # Smaller relative falls of the loss than this are noise of the arithmetic.
                "ftol": 4 * np.finfo(dtype).eps if dtype == np.float32 else 0.0,
            },
        )
    except BaseException as error:
        net.theta = theta
        if isinstance(error, KeyboardInterrupt):
            history.stopped = "interrupted"
            error.history = history  # type: ignore[attr-defined]
        raise
    net.theta = theta if watch.best_theta is None else watch.best_theta
    # Status 0: the gradient or the fall of the loss is small enough; 1: iterations or evaluations
    # are used up; 2: the line search found nothing lower, though the gradient is not small.
    ended = {0: "converged", 1: "max_epochs"}
    history.stopped = reason or ended.get(result.status, "line_search")
