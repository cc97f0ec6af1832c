"""train: fit a network's parameters to data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.batch_ensemble import BatchEnsemble, plain_loss
from lamina.core.checks import as_matrix, as_weights, check_count, check_number, resolve_rng
from lamina.core.derivative_losses import DerivativeLoss
from lamina.core.descent import Descent
from lamina.core.engine import default_n_threads, isa, resolve_precision
from lamina.core.errors import SpecError
from lamina.core.history import History, check_resume, state_of
from lamina.core.lbfgs import minimise
from lamina.core.losses import Loss, resolve_loss
from lamina.core.network import Network
from lamina.core.optim import LBFGS, SGD, AdamW, native_hyper, resolve_optimizer
from lamina.core.schedules import Schedule
from lamina.core.spec import NetworkSpec
from lamina.core.watch import Callback, Plan, Rows, hold_out

Array = npt.NDArray[Any]


def train(
    net: Network | BatchEnsemble,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    loss: str | Loss | None = None,
    optimizer: AdamW | SGD | LBFGS | None = None,
    batch_size: int = 256,
    max_epochs: int = 100,
    max_seconds: float | None = None,
    validation: float | tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    patience: int | None = None,
    sample_weight: npt.ArrayLike | None = None,
    precision: str | None = None,
    callbacks: Callback | Iterable[Callback] = (),
    rng: int | np.random.Generator | None = None,
    n_threads: int | None = None,
    resume: History | None = None,
) -> History:
    """Train a network in place and return the history of the run.

    Parameters
    ----------
    net : Network or BatchEnsemble
        Begins with the parameters it has; holds the result afterwards, however the run ends.
    x : array-like (n, d_in), n ≥ 1, finite
        Standardised columns train best.
    y : array-like (n, d_out), or (n,) for one output or integer classes
    loss : str or loss object, optional
        As for `Network.loss`; None follows the output unit.
    optimizer : AdamW, Adam, SGD or LBFGS, optional
        None is ``AdamW()``.
    batch_size : int ≥ 1, default 256
        Rows a step; the last batch of an epoch may be shorter. Larger is faster a row, smaller
        learns more from a row. LBFGS takes all rows at once.
    max_epochs : int ≥ 1, default 100
        Passes over the rows, those before a resumption included.
    max_seconds : float > 0, optional
        No epoch begins once so many seconds of this call have passed. The one under way is
        finished, so that `epochs` of the history repeats the run: it may take an epoch longer.
    validation : float in (0, 1) or pair (x, y), optional
        Rows to score after each epoch: a share of the rows, held out at random, or others. The
        parameters of the epoch with the lowest validation loss are the result.
    patience : int ≥ 1, optional
        Stop after so many epochs without a lower validation loss.
    sample_weight : array-like (n,), not negative, optional
        A row of weight 0 counts for nothing, as if it were not there.
    precision : {None, "float32", "float64", "bfloat16"}, optional
        None follows the network's dtype, and so must the first two names. "bfloat16", for networks
        of float32: products take factors of 8 bits and add up in float32 (AMX, else
        AVX-512-BF16); parameters, moments, losses and scores stay in float32.
    callbacks : callable or iterable of callables
        Each is called with an `EpochReport` after every epoch; one that returns True stops the
        run. The network then holds that epoch's parameters.
    rng : int or numpy.random.Generator, optional
        The seed of held-out rows, row order and dropout; None draws one.
    n_threads : int ≥ 1, optional
        None: LAMINA_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs this process may use.
    resume : History, optional
        What an earlier call returned: go on from its end (its last epoch, not its best), with the
        same data and arguments, bit for bit as if it had never stopped. Network parameters and
        `rng` are then taken from it, and max_epochs still counts from the beginning.

    Returns
    -------
    History

    Raises
    ------
    ShapeError, DataError, SpecError
        Data or arguments are not as described; the network is unchanged.
    DivergenceError
        The loss became NaN or infinite; the network holds the parameters of the last epoch that
        left finite ones.
    KeyboardInterrupt
        Ctrl-C: the network holds the parameters of the last whole step, and the exception has
        the history, up to the last snapshot between epochs, as its attribute ``history``.

    Notes
    -----
    6 n n_params floating-point operations an epoch. Same seed, data, n_threads and instruction
    set give the same bits. Without validation and callbacks the engine runs on its own.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = lamina.Network(1, (32,), 1, activation="tanh", rng=0)
    >>> adam = lamina.Adam(0.01)
    >>> history = lamina.train(net, x, x**2, optimizer=adam, batch_size=16, rng=0)
    >>> history.train_loss[-1] < 0.01
    True
    """
    if not isinstance(net, Network | BatchEnsemble):
        raise SpecError(
            f"train: expected net to be a Network or BatchEnsemble, got {type(net).__name__}. "
            "Make one with lamina.Network(d_in, widths, d_out)."
        )
    chosen = resolve_optimizer(optimizer, "train")
    if precision == "bfloat16" and isinstance(net, BatchEnsemble):
        raise SpecError(
            "train: expected precision None with a BatchEnsemble, got 'bfloat16'. "
            "Pass precision=None."
        )
    precision = resolve_precision(precision, net.spec.dtype, "train")
    plan = Plan(
        loss=resolve_loss(loss, net.spec.output, "train"),
        batch_size=check_count(batch_size, "batch_size", "train"),
        max_epochs=check_count(max_epochs, "max_epochs", "train"),
        max_seconds=math.inf
        if max_seconds is None
        else check_number(max_seconds, "max_seconds", "train", 0.0, closed="right"),
        patience=check_patience(patience, validation, "train"),
        callbacks=as_callbacks(callbacks, "train"),
        seed=int(resolve_rng(rng).integers(0, 2**64, dtype=np.uint64)),
        n_threads=default_n_threads(n_threads),
        precision=precision,
    )
    if isinstance(net, BatchEnsemble):
        plain_loss(plan.loss, "train")
    if isinstance(plan.loss, DerivativeLoss):
        plan.loss.check_training(net.spec.dropout, precision)
    rows = as_rows(net.spec, plan.loss, x, y, sample_weight)
    if isinstance(chosen, LBFGS):
        return _train_lbfgs(net, rows, validation, chosen, plan, resume)
    return _train_descent(net, rows, validation, chosen, plan, resume)


def _train_descent(
    net: Network | BatchEnsemble,
    rows: Rows,
    validation: float | tuple[npt.ArrayLike, npt.ArrayLike] | None,
    optimizer: AdamW | SGD,
    plan: Plan,
    resume: History | None,
) -> History:
    if resume is not None:
        plan = replace(plan, seed=state_of(resume)["seed"])
    rows, held = _split(net, rows, validation, plan)
    history, state = begin(net, rows, held is not None, optimizer, plan, resume)
    Descent(net, rows, held, optimizer, plan, history, state).go()
    return history


def begin(
    net: Network | BatchEnsemble,
    rows: Rows,
    has_validation: bool,
    optimizer: AdamW | SGD,
    plan: Plan,
    resume: History | None,
) -> tuple[History, dict[str, Any] | None]:
    """Return the history to write to and, of a run to be continued, the checked state."""
    history, state = History(seed=plan.seed), None
    if resume is not None:
        expected: dict[str, Any] = {
            "optimizer": native_hyper(optimizer)[0],
            "batch_size": plan.batch_size,
            "n_rows": len(rows),
            "dtype": net.spec.dtype,
            "precision": plan.precision,
            "n_params": net.n_params,
        }
        if isinstance(optimizer.lr, Schedule):
            expected["max_epochs"] = plan.max_epochs  # the schedule depends on it
        state = check_resume(resume, expected, has_validation)
        history = resume.continued()
    history.n_threads, history.isa, history.precision = plan.n_threads, isa(), plan.precision
    return history, state


def _train_lbfgs(
    net: Network | BatchEnsemble,
    rows: Rows,
    validation: float | tuple[npt.ArrayLike, npt.ArrayLike] | None,
    optimizer: LBFGS,
    plan: Plan,
    resume: History | None,
) -> History:
    if resume is not None:
        raise SpecError(
            "train: expected no resume with LBFGS, whose memory is not kept, got a history. "
            "Call train again without it: the network keeps its parameters."
        )
    if net.spec.dropout:
        raise SpecError(
            f"train: expected dropout 0 with LBFGS, which needs a loss that does not change, "
            f"got {net.spec.dropout}. Use AdamW, or a network without dropout."
        )
    if plan.precision == "bfloat16":
        raise SpecError(
            "train: expected precision None with LBFGS, whose line search needs exact losses, "
            "got 'bfloat16'. Use AdamW or SGD, or pass precision=None."
        )
    if optimizer.max_iter is not None:
        plan = replace(plan, max_epochs=optimizer.max_iter)
    rows, held = _split(net, rows, validation, plan)
    history = History(seed=plan.seed, n_threads=plan.n_threads, isa=isa())
    history.precision = plan.precision
    minimise(net, rows, held, optimizer, plan, history)
    return history


def as_rows(
    spec: NetworkSpec,
    loss: Loss,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None,
    where: str = "train",
) -> Rows:
    """Return checked rows, without those of weight 0 (a batch of them would have no mean)."""
    rows_x = as_matrix(x, "x", where, spec.d_in, spec.dtype, min_rows=1)
    rows_y = loss.check_data(rows_x, y, spec, where)
    weight = as_weights(sample_weight, len(rows_x), where, spec.dtype)
    rows = Rows(rows_x, rows_y, weight)
    if weight is not None and not weight.all():
        rows = rows.take(np.flatnonzero(weight))
    return rows


def _split(
    net: Network | BatchEnsemble,
    rows: Rows,
    validation: object,
    plan: Plan,
) -> tuple[Rows, Rows | None]:
    """Return the rows to train on and those to score, if any."""
    if validation is None:
        return rows, None
    if isinstance(validation, tuple | list) and len(validation) == 2:
        x, y = validation
        return rows, as_rows(net.spec, plan.loss, x, y, None, "train, validation")
    if isinstance(validation, float | int | np.number) and not isinstance(validation, bool):
        fraction = check_number(validation, "validation", "train", 0.0, 1.0, "neither")
        return hold_out(rows, fraction, plan.seed)
    raise SpecError(
        f"train: expected validation to be a share of the rows, such as 0.1, or a pair (x, y), "
        f"got {type(validation).__name__}. Pass one of these, or None."
    )


def check_patience(patience: int | None, validation: object, where: str) -> int | None:
    """Return `patience`, which needs rows to score."""
    if patience is None:
        return None
    if validation is None:
        raise SpecError(
            f"{where}: expected validation with patience={patience!r}, got None. "
            "Pass validation=0.1, or no patience."
        )
    return check_count(patience, "patience", where)


def as_callbacks(callbacks: Callback | Iterable[Callback], where: str) -> tuple[Callback, ...]:
    """Return one callback or several as a tuple, each a function."""
    several: tuple[object, ...]
    if isinstance(callbacks, Callable):  # type: ignore[arg-type]
        several = (callbacks,)
    else:
        several = tuple(callbacks) if isinstance(callbacks, Iterable) else (None,)
    for callback in several:
        if not callable(callback):
            raise SpecError(
                f"{where}: expected callbacks to be functions of an EpochReport, "
                f"got {callbacks!r}. Pass one or a list of them."
            )
    return several  # type: ignore[return-value]
