"""The solvers sgd and adam: scikit-learn's loop of epochs around the engine's training run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from lamina.core.engine import Engine, Run, make_engine
from lamina.tabular.coefficients import Array, network_spec
from lamina.tabular.objective import Objective
from lamina.tabular.rows import Rows


@dataclass
class Optimizer:
    """An optimiser between calls: its settings, frozen when it was made, and its memory.

    ``partial_fit`` continues from here, also after unpickling; as in scikit-learn, parameters
    changed by ``set_params`` in the meantime take effect with the next ``fit``.
    """

    solver: str
    settings: dict[str, float | bool]
    learning_rate_init: float
    schedule: str
    power_t: float
    learning_rate: float
    dropout_seed: int
    m: Array | None = None
    v: Array | None = None
    step: int = 0

    @classmethod
    def of(cls, est: Any) -> Optimizer:
        """Return a fresh optimiser with the estimator's settings."""
        settings: dict[str, float | bool]
        if est.solver == "adam":
            settings = {"beta_1": est.beta_1, "beta_2": est.beta_2, "epsilon": est.epsilon}
            settings["epsilon_hat"] = True  # scikit-learn's form
        else:
            settings = {"momentum": est.momentum, "nesterov": bool(est.nesterovs_momentum)}
        return cls(
            est.solver,
            settings,
            float(est.learning_rate_init),
            est.learning_rate if est.solver == "sgd" else "constant",
            est.power_t,
            float(est.learning_rate_init),
            # Drawn only if used: else the draws after it would differ from scikit-learn's.
            int(est._random_state.randint(2**31)) if est.dropout > 0 else 0,
        )

    def run(self, engine: Engine, objective: Objective, est: Any, batch_size: int) -> Run:
        """Return a training run that continues this optimiser."""
        run = Run(
            engine,
            objective.loss,
            self.solver,
            {
                **self.settings,
                "l2": est.alpha,
                "l2_per_row": True,
                "value_scale": objective.value_scale,
            },
            batch_size=batch_size,
            seed=self.dropout_seed,
            n_threads=est.n_threads,
        )
        if self.m is not None and self.v is not None and self.m.shape == (engine.n_params,):
            run.set_state(self.m, self.v, self.step)
        return run

    def remember(self, run: Run) -> None:
        """Take the run's memory over."""
        self.m, self.v = run.get_state()
        self.step = run.step

    def epoch_ends(self, t: int) -> None:
        """Set the learning rate of the next epoch, after t rows in all."""
        if self.schedule == "invscaling":
            self.learning_rate = self.learning_rate_init / (t + 1) ** self.power_t

    def wants_to_stop(self, message: str, verbose: bool) -> bool:
        """Stop, or if adaptive go on with a fifth of the learning rate until that is tiny."""
        if self.schedule != "adaptive":
            ending, stop = " Stopping.", True
        elif self.learning_rate <= 1e-6:
            ending, stop = " Learning rate too small. Stopping.", True
        else:
            self.learning_rate /= 5.0
            ending, stop = f" Setting learning rate to {self.learning_rate:f}", False
        if verbose:
            print(message + ending)  # noqa: T201 (scikit-learn's contract)
        return stop


def fit_stochastic(
    est: Any, rows: Rows, theta: Array, dims: tuple[int, ...], *, incremental: bool, first: bool
) -> Array:
    """Train by epochs; return theta and set the attributes that record the fit.

    Parameters
    ----------
    est : BaseMLP
    rows : Rows
        In the dtype of theta.
    theta : array (n_params,)
        Where to start.
    dims : tuple of int
    incremental : bool
        One epoch only, from the optimiser that is there.
    first : bool
        Whether theta is freshly drawn.
    """
    if not incremental or not hasattr(est, "_optimizer"):
        est._optimizer = Optimizer.of(est)
    optimizer: Optimizer = est._optimizer
    if est.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    watch = _Watch.of(est, theta if first else None)
    train = rows
    if est.early_stopping:
        train, held_out = _split(est, rows)
        watch.score = _scorer(est, held_out)
    n = len(train)
    batch_size = _batch_size(est.batch_size, n)

    names = est._activations(len(dims) - 2)
    engine = make_engine(
        network_spec(dims, names, est._output_unit(), theta.dtype, est.dropout), theta
    )
    objective = Objective.of(est.loss, est.out_activation_, dims[-1], theta.dtype)
    run = optimizer.run(engine, objective, est, batch_size)
    epoch = _Epoch(run, train, objective, batch_size)
    order = np.arange(n, dtype=np.int64) if est.shuffle else None
    try:
        est.n_iter_ = 0
        for _ in range(est.max_iter):
            if order is not None:
                # In place, this is scikit-learn's order[permutation], composed epoch by epoch.
                est._random_state.shuffle(order)
            loss = epoch(order, optimizer.learning_rate)
            est.n_iter_ += 1
            est.loss_ = loss
            est.t_ += n
            est.loss_curve_.append(loss)
            if est.verbose:
                print(f"Iteration {est.n_iter_}, loss = {loss:.8f}")  # noqa: T201
            watch.epoch_ends(engine)
            optimizer.epoch_ends(est.t_)
            if est._no_improvement_count > est.n_iter_no_change:
                if optimizer.wants_to_stop(watch.message(), est.verbose):
                    break
                est._no_improvement_count = 0
            if incremental or watch.lost(engine, loss):
                break
            if est.n_iter_ == est.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({est.max_iter}) reached and the "
                    "optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=5,
                )
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    optimizer.remember(run)
    return engine.get_parameters() if watch.best is None else watch.best


# --- one epoch --------------------------------------------------------------------------------


class _Epoch:
    """One epoch in the engine, and its loss as scikit-learn reports it.

    Called with the order of the rows (None: as they come) and the learning rate. One call into
    the engine; where rows are sparse, one a batch.
    """

    def __init__(self, run: Run, rows: Rows, objective: Objective, batch_size: int) -> None:
        self.run, self.rows, self.objective = run, rows, objective
        self.batch_size = batch_size
        self.constants = objective.row_constants(rows.target)
        self.starts = np.arange(0, len(rows), batch_size)
        self.counts = np.diff(self.starts, append=len(rows))
        self.lr = np.empty(1 if rows.sparse else len(self.starts))
        self.loss = np.empty(1)
        self.done = 0  # with the seed, what decides the dropout masks

    def __call__(self, order: Array | None, learning_rate: float) -> float:
        self.lr.fill(learning_rate)
        if self.rows.sparse:
            loss = self._by_steps(order)
        else:
            loss = self._engine_epoch(self.rows, order)
        return loss if self.constants is None else loss + self._offset(order)

    def _engine_epoch(self, rows: Rows, order: Array | None) -> float:
        self.run.native.epochs(
            rows.x,
            rows.target,
            rows.sample_weight,
            self.objective.output_weight,
            None if order is None else order[np.newaxis],  # (1, n)
            False,
            self.done,
            1,
            self.lr,
            self.loss,
            math.inf,
        )
        self.done += 1
        return float(self.loss[0])

    def _by_steps(self, order: Array | None) -> float:
        total = 0.0
        for start, count in zip(self.starts, self.counts, strict=True):
            where = slice(start, start + count)
            batch = self.rows.take(where if order is None else order[where])
            dense = Rows(batch.dense(), batch.target, batch.sample_weight)
            total += self._engine_epoch(dense, None) * count
        return total / len(self.rows)

    def _offset(self, order: Array | None) -> float:
        """The weighted mean of the rows' constants in each batch, averaged as the losses are."""
        constants, weight = self.constants, self.rows.sample_weight
        assert constants is not None  # noqa: S101 (for mypy)
        if weight is None:
            return float(constants.mean())
        weight = weight.astype(np.float64)
        if order is not None:
            constants, weight = constants[order], weight[order]
        sums = np.add.reduceat(constants * weight, self.starts)
        weights = np.add.reduceat(weight, self.starts)
        means = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
        return float(means @ self.counts / len(self.rows))


def _batch_size(batch_size: Any, n: int) -> int:
    if batch_size == "auto":
        return min(200, n)
    if batch_size > n:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=6,
        )
    return int(np.clip(batch_size, 1, n))


# --- when to stop -----------------------------------------------------------------------------


class _Watch:
    """Counts epochs without improvement of the loss or, early stopping, of the score.

    Attributes
    ----------
    best : array (n_params,) or None
        The parameters to end with; None for those of the last step.
    """

    def __init__(self, est: Any, best: Array | None) -> None:
        self.est = est
        self.best = best
        self.score: Callable[[Engine], float] | None = None

    @classmethod
    def of(cls, est: Any, start: Array | None) -> _Watch:
        """Return a watch that goes on where an earlier fit of a warm start ended."""
        if not hasattr(est, "loss_curve_"):
            est.loss_curve_ = []
            est._no_improvement_count = 0
        if est.early_stopping and getattr(est, "validation_scores_", None) is None:
            est.validation_scores_ = []
            est.best_validation_score_ = -np.inf
            est.best_loss_ = None
        elif not est.early_stopping and getattr(est, "best_loss_", None) is None:
            est.best_loss_ = np.inf
            est.validation_scores_ = None
            est.best_validation_score_ = None
        # After a warm start without any better score scikit-learn keeps the last parameters.
        return cls(est, start if est.early_stopping else None)

    def epoch_ends(self, engine: Engine) -> None:
        """Judge the epoch by its score or, without one, by its loss."""
        est = self.est
        if self.score is None:
            loss = est.loss_curve_[-1]
            worse = loss > est.best_loss_ - est.tol
            est._no_improvement_count = est._no_improvement_count + 1 if worse else 0
            est.best_loss_ = min(est.best_loss_, loss) if loss == loss else est.best_loss_
            return
        score = self.score(engine)
        est.validation_scores_.append(score)
        if est.verbose:
            print(f"Validation score: {score:f}")  # noqa: T201
        worse = score < est.best_validation_score_ + est.tol
        est._no_improvement_count = est._no_improvement_count + 1 if worse else 0
        if score > est.best_validation_score_:
            est.best_validation_score_ = score
            self.best = engine.get_parameters()

    def message(self) -> str:
        """Say what did not improve, in scikit-learn's words."""
        what = "Training loss" if self.score is None else "Validation score"
        return (
            f"{what} did not improve more than tol={self.est.tol:f} for "
            f"{self.est.n_iter_no_change} consecutive epochs."
        )

    def lost(self, engine: Engine, loss: float) -> bool:
        """Whether no further epoch can bring finite parameters back, nor an earlier best."""
        if math.isfinite(loss) or self.score is not None:
            return False
        return not bool(np.isfinite(engine.get_parameters()).all())


def _split(est: Any, rows: Rows) -> tuple[Rows, Rows]:
    """Hold rows out for validation: the very rows that scikit-learn would hold out."""
    train, held_out = train_test_split(
        np.arange(len(rows)),
        random_state=est._random_state,
        test_size=est.validation_fraction,
        stratify=est._strata(rows.target),
    )
    if len(held_out) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            f"dataset. (got {len(held_out)} of {len(rows)} rows)"
        )
    return rows.take(train), rows.take(held_out)


def _scorer(est: Any, held_out: Rows) -> Callable[[Engine], float]:
    blocks = list(held_out.blocks())
    score = est._scorer(held_out.target, held_out.sample_weight)

    def scorer(engine: Engine) -> float:
        y_pred = [engine.forward(block.dense(), est.n_threads) for block in blocks]
        return float(score(y_pred[0] if len(y_pred) == 1 else np.concatenate(y_pred)))

    return scorer
