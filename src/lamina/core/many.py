"""train_many: networks of one shape trained together, each exactly as it would be alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.checks import as_weights, check_count, check_number, is_whole_number, resolve_rng
from lamina.core.derivative_losses import DerivativeLoss
from lamina.core.descent import MAX_STEPS_A_CALL, Descent
from lamina.core.engine import default_n_threads, resolve_precision, train_together
from lamina.core.ensemble import Ensemble, check_networks
from lamina.core.errors import DataError, DivergenceError, ShapeError, SpecError
from lamina.core.history import History, state_of
from lamina.core.jet_loss import JetLoss
from lamina.core.losses import Loss, resolve_loss
from lamina.core.network import Network
from lamina.core.optim import LBFGS, SGD, AdamW, resolve_optimizer
from lamina.core.trainer import as_callbacks, as_rows, begin, check_patience
from lamina.core.watch import Callback, Plan, Rows, hold_out

Array = npt.NDArray[Any]
Seed = int | np.random.Generator | None
Validation = float | str | tuple[npt.ArrayLike, npt.ArrayLike] | None

_WHERE = "train_many"
# Operations a step above which its barriers cost little (3 us of 170), so that a member may as
# well be cut into parts that several threads can share.
BIG_STEP = 2e7


def train_many(
    networks: Ensemble | Iterable[Network],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    loss: str | Loss | None = None,
    optimizer: AdamW | SGD | Sequence[AdamW | SGD] | None = None,
    batch_size: int = 256,
    max_epochs: int = 100,
    max_seconds: float | None = None,
    validation: Validation = None,
    patience: int | None = None,
    rows: Sequence[npt.ArrayLike] | None = None,
    sample_weight: npt.ArrayLike | None = None,
    precision: str | None = None,
    rng: Seed | Sequence[Seed] = None,
    n_threads: int | None = None,
    callbacks: Callback | Iterable[Callback] = (),
    resume: Sequence[History] | None = None,
) -> list[History]:
    """Train networks of one shape together, in place, and return a history of each.

    A network that is small spends much of a step waiting for its threads to meet; here a thread
    has a network to itself. Each comes out bit for bit as `train` alone would have left it, with
    its own seed and ``n_threads=history.n_threads``.

    Parameters
    ----------
    networks : Ensemble or iterable of Network
        k networks of one `spec`.
    x, y, loss, batch_size, max_epochs, patience, precision
        As for `train`, for all members.
    optimizer : AdamW, Adam or SGD, or a sequence of k
        One for all, or one each: learning rates can be compared in one call. None is ``AdamW()``.
    max_seconds : float > 0, optional
        Of the call; every member gets an equal share of it.
    validation : float in (0, 1), pair (x, y) or "rest", optional
        Rows to score after each epoch: a share of each member's own rows, held out by its seed;
        others, the same for all; or those of x that are not among the member's `rows`. Each
        member keeps the parameters of its best epoch.
    rows : sequence of k arrays, optional
        Which rows of x a member learns from: indices (folds; repeated ones, as a bootstrap
        draws, count repeatedly) or a mask (n,). None is all. They are not copied.
    sample_weight : array-like (n,) or (k, n), optional
        One a row of x, for all members or each its own.
    rng : int, numpy.random.Generator, or a sequence of k of them, optional
        The seed of held-out rows, row order and dropout. Of a sequence, member i gets what
        ``train(…, rng=rng[i])`` would use; else one seed is drawn for each.
    n_threads : int ≥ 1, optional
        Of all together; None as for `train`.
    callbacks : callable or iterable of callables
        As for `train`; ``report.member`` says which network, and True stops that one only.
    resume : sequence of k History, optional
        What an earlier call returned for these networks: each goes on from its own end, as for
        `train`. Leave out networks that are done: one that ran out of patience would train on.

    Returns
    -------
    list of History
        One a member. ``stopped == "diverged"``: its loss became NaN or infinite; it holds the
        parameters of its last finite epoch, as `train` would leave them, and the others trained
        on.

    Raises
    ------
    ShapeError, DataError, SpecError
        Data or arguments are not as described; no network is changed.
    DivergenceError
        Every member diverged.
    KeyboardInterrupt
        Ctrl-C: as for `train`; the exception's attribute ``history`` is the list.

    Warns
    -----
    RuntimeWarning
        Some members diverged, and which.

    Notes
    -----
    Members are trained one a thread, from one copy of x and y, where there are as many of them
    as threads; fewer of them, and those of a few but big networks, share the threads within.
    Memory beyond x, y and the networks: about 8 n_params numbers a member, and n row numbers
    a thread; with a share held out, or "rest", the held-out rows.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> x = np.linspace(-1, 1, 60)[:, None]
    >>> nets = [lamina.Network(1, (16,), 1, activation="tanh", rng=i) for i in range(3)]
    >>> folds = [np.flatnonzero(np.arange(60) % 3 != i) for i in range(3)]
    >>> histories = lamina.train_many(
    ...     nets, x, x**2, rows=folds, validation="rest", max_epochs=20, rng=[0, 1, 2]
    ... )
    >>> [history.epochs for history in histories]
    [20, 20, 20]
    """
    members = check_networks(networks, _WHERE)
    spec, k = members[0].spec, len(members)
    optimizers = _optimizers(optimizer, k)
    plan = Plan(
        loss=resolve_loss(loss, spec.output, _WHERE),
        batch_size=check_count(batch_size, "batch_size", _WHERE),
        max_epochs=check_count(max_epochs, "max_epochs", _WHERE),
        max_seconds=math.inf
        if max_seconds is None
        else check_number(max_seconds, "max_seconds", _WHERE, 0.0, closed="right"),
        patience=check_patience(patience, validation, _WHERE),
        callbacks=as_callbacks(callbacks, _WHERE),
        seed=0,
        n_threads=default_n_threads(n_threads),
        precision=resolve_precision(precision, spec.dtype, _WHERE),
    )
    earlier = _earlier(resume, k)
    seeds = _seeds(rng, k) if resume is None else [state_of(one)["seed"] for one in earlier]
    if isinstance(plan.loss, DerivativeLoss):
        plan.loss.check_training(spec.dropout, plan.precision)
    if isinstance(plan.loss, JetLoss):
        raise SpecError(
            f"{_WHERE}: expected a loss that the engine knows, got {plan.loss.label}, which is "
            "computed in Python. Call lamina.train for each network."
        )
    shared = as_rows(spec, plan.loss, x, y, None, _WHERE)
    of_members = _member_rows(shared, rows, sample_weight, k)
    pairs = _hold_out(of_members, validation, seeds, members[0], plan.loss)
    threads = _threads_a_member(members[0].n_params, plan, k)
    descents = []
    for i, (net, (own, held)) in enumerate(zip(members, pairs, strict=True)):
        own_plan = replace(plan, seed=seeds[i], n_threads=threads, member=i)
        history, state = begin(
            net, own, held is not None, optimizers[i], own_plan, earlier[i] if earlier else None
        )
        descents.append(Descent(net, own, held, optimizers[i], own_plan, history, state))
    _Together(descents, shared, plan).go()
    return [descent.history for descent in descents]


class _Together:
    """Runs under way: each round, the engine takes all that are not over yet one call further."""

    def __init__(self, descents: list[Descent], shared: Rows, plan: Plan) -> None:
        self.descents, self.shared, self.plan = descents, shared, plan
        self.errors: dict[int, DivergenceError] = {}

    def go(self) -> None:
        live = self.descents
        try:
            while live:
                self._round(live)
                live = [descent for descent in live if not descent.is_over]
        except BaseException as error:
            for descent in live:
                if not descent.is_over:
                    descent.abandon(error)
            if isinstance(error, KeyboardInterrupt):
                error.history = [d.history for d in self.descents]  # type: ignore[attr-defined]
            raise
        self._report()

    def _round(self, live: list[Descent]) -> None:
        n_threads = self.plan.n_threads
        share = min(1.0, n_threads / len(live))
        members = []
        for descent in live:
            seconds = descent.watch.seconds_left() * share
            todo = descent.next_epochs(seconds, MAX_STEPS_A_CALL // len(live))
            # Runs of one part are scored where they are; the others with all threads, later.
            members.append(descent.member(*todo, is_scored=descent.run.n_parts == 1))
        outcomes = train_together(members, self.shared.x, self.shared.y, n_threads)
        for descent, outcome in zip(live, outcomes, strict=True):
            try:
                descent.take(outcome.losses, outcome.diverged, outcome.scored)
            except DivergenceError as error:
                self.errors[descent.plan.member] = error
                descent.fail()
            else:
                if descent.is_over:
                    descent.finish()

    def _report(self) -> None:
        if not self.errors:
            return
        if len(self.errors) == len(self.descents):
            raise next(iter(self.errors.values()))
        which = ", ".join(map(str, sorted(self.errors)))
        warnings.warn(
            f"{_WHERE}: the loss of member {which} became NaN or infinite; these keep their last "
            "finite parameters, and history.stopped is 'diverged'. Lower their lr.",
            RuntimeWarning,
            stacklevel=4,
        )


def _threads_a_member(n_params: int, plan: Plan, k: int) -> int:
    """Return in how many threads' parts each member's steps are cut; it decides their bits."""
    n_threads = plan.n_threads
    is_big = 6.0 * n_params * plan.batch_size > BIG_STEP
    # With few members a thread, the last ones would leave the others idle.
    return n_threads if k < n_threads or (is_big and k < 4 * n_threads) else 1


def _earlier(resume: object, k: int) -> list[History]:
    """Return the histories to continue, one a network; none where `resume` is None."""
    if resume is None:
        return []
    several: list[Any] = list(resume) if isinstance(resume, list | tuple) else [resume]
    if len(several) != k:
        raise SpecError(
            f"{_WHERE}: expected resume as a list of one History for each of the {k} networks, "
            f"got {len(several)}. Pass what train_many returned for them."
        )
    return several


def _optimizers(optimizer: object, k: int) -> list[AdamW | SGD]:
    several = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer] * k
    if len(several) != k:
        raise SpecError(
            f"{_WHERE}: expected one optimizer, or one for each of the {k} networks, "
            f"got {len(several)}. Pass as many."
        )
    resolved = [resolve_optimizer(one, _WHERE) for one in several]
    checked = [one for one in resolved if not isinstance(one, LBFGS)]
    if len(checked) != k:
        raise SpecError(
            f"{_WHERE}: expected AdamW, Adam or SGD, got LBFGS, which takes all rows at once. "
            "Call lamina.train for each network."
        )
    return checked


def _seeds(rng: object, k: int) -> list[int]:
    def draw(generator: np.random.Generator) -> int:
        return int(generator.integers(0, 2**64, dtype=np.uint64))

    if isinstance(rng, list | tuple | np.ndarray):
        if len(rng) != k:
            raise SpecError(
                f"{_WHERE}: expected one rng, or one for each of the {k} networks, "
                f"got {len(rng)}. Pass as many."
            )
        return [draw(resolve_rng(int(one) if is_whole_number(one) else one)) for one in rng]
    generator = resolve_rng(rng)
    return [draw(generator) for _ in range(k)]


def _member_rows(
    shared: Rows, rows: Sequence[npt.ArrayLike] | None, sample_weight: object, k: int
) -> list[Rows]:
    """Return each member's rows by name, without those of weight 0."""
    n = len(shared)
    indices = _indices(rows, n, k)
    result = []
    weights = _weights(sample_weight, n, k, shared.x.dtype)
    for index, weight in zip(indices, weights, strict=True):
        kept = index
        if weight is not None:
            every = np.arange(n, dtype=np.int32) if index is None else index
            kept = every[weight[every] != 0]
            if not len(kept):
                raise DataError(
                    f"{_WHERE}: expected a positive sample_weight among each member's rows, got "
                    "only zeros. Pass other rows or weights."
                )
        result.append(replace(shared, index=kept, sample_weight=weight))
    return result


def _weights(sample_weight: object, n: int, k: int, dtype: npt.DTypeLike) -> list[Array | None]:
    if sample_weight is None or np.ndim(sample_weight) != 2:  # type: ignore[arg-type]
        return [as_weights(sample_weight, n, _WHERE, dtype)] * k
    several = np.asarray(sample_weight)
    if len(several) != k:
        raise ShapeError(
            f"{_WHERE}: expected sample_weight of shape ({n},) or ({k}, {n}), "
            f"got {several.shape}. Pass one weight a row of x."
        )
    return [as_weights(one, n, _WHERE, dtype) for one in several]


def _indices(rows: object, n: int, k: int) -> list[Array | None]:
    if rows is None:
        return [None] * k
    if not isinstance(rows, Sequence | np.ndarray) or len(rows) != k:
        got = len(rows) if isinstance(rows, Sequence | np.ndarray) else type(rows).__name__
        raise SpecError(
            f"{_WHERE}: expected rows as a list of one array for each of the {k} networks, "
            f"got {got}. Pass as many, or None for all rows."
        )
    return [_index(one, n, i) for i, one in enumerate(rows)]


def _index(one: object, n: int, i: int) -> Array:
    try:
        array = np.asarray(one)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype == bool and array.shape == (n,):
        array = np.flatnonzero(array)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
        raise DataError(
            f"{_WHERE}: expected rows[{i}] as the numbers of at least one row of x, or a mask of "
            f"shape ({n},), got an array of {array.dtype} and shape {array.shape}. "
            "Pass integers."
        )
    if array.min() < 0 or array.max() >= n:
        raise DataError(
            f"{_WHERE}: expected rows[{i}] within 0 to {n - 1}, the rows of x, "
            f"got {array.min()} to {array.max()}. Pass row numbers of x."
        )
    return np.ascontiguousarray(array, np.int32)


def _hold_out(
    of_members: list[Rows], validation: object, seeds: list[int], net: Network, loss: Loss
) -> list[tuple[Rows, Rows | None]]:
    """Return for each member the rows to train on and those to score, if any."""
    if validation is None:
        return [(rows, None) for rows in of_members]
    if isinstance(validation, str) and validation == "rest":
        return [(rows, _rest(rows, i)) for i, rows in enumerate(of_members)]
    if isinstance(validation, tuple | list) and len(validation) == 2:
        x, y = validation
        held = as_rows(net.spec, loss, x, y, None, f"{_WHERE}, validation")
        return [(rows, held) for rows in of_members]
    if isinstance(validation, float | int | np.number) and not isinstance(validation, bool):
        share = check_number(validation, "validation", _WHERE, 0.0, 1.0, "neither")
        return [
            hold_out(_named(rows), share, seed)
            for rows, seed in zip(of_members, seeds, strict=True)
        ]
    raise SpecError(
        f"{_WHERE}: expected validation to be a share of the rows, such as 0.1, a pair (x, y) or "
        f"'rest', got {validation!r:.80}. Pass one of these, or None."
    )


def _named(rows: Rows) -> Rows:
    if rows.index is not None:
        return rows
    return replace(rows, index=np.arange(len(rows), dtype=np.int32))


def _rest(rows: Rows, i: int) -> Rows:
    """Return the rows of x that are not among a member's, copied, without those of weight 0."""
    is_left = np.ones(len(rows.x), bool)
    is_left[rows.index if rows.index is not None else slice(None)] = False
    if rows.sample_weight is not None:
        is_left &= rows.sample_weight != 0
    if not is_left.any():
        raise DataError(
            f"{_WHERE}: expected rows of x outside rows[{i}] with validation='rest', got none. "
            "Pass rows that leave some out, or another validation."
        )
    return replace(rows, index=np.flatnonzero(is_left)).copied()
