"""The learner: x and y to an ensemble whose members were trained on folds of the rows.

Each member learns from all rows but those of its fold, which choose its best epoch. So every row
has a prediction by members that never saw it; calibration and intervals learn from those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.ensemble import Ensemble
from lamina.core.history import EpochReport, History
from lamina.core.losses import Loss
from lamina.core.many import train_many
from lamina.core.network import Network
from lamina.core.optim import AdamW
from lamina.core.schedules import cosine
from lamina.tabular.recipe import Recipe

Array = NDArray[Any]

LEAST_FOLD = 2  # rows of the smallest fold
# More rows to score after each epoch would take longer and choose no better: the R2 or accuracy of
# so many is known to about 0.003.
MOST_HELD = 20_000


@dataclass(frozen=True)
class Objective:
    """What the network's outputs are, and what is minimised.

    Parameters
    ----------
    d_out : int
    output : {"identity", "sigmoid", "softmax", "exp"}
    loss : Loss or str
    """

    d_out: int
    output: str
    loss: str | Loss


@dataclass(frozen=True, eq=False)
class Learned:
    """Trained members, and what they say of the rows that they did not see.

    Parameters
    ----------
    ensemble : Ensemble
        Its call is the members' mean.
    out_of_fold : (n, d_out) float64
        For each row the mean output of the members that did not learn from it; NaN for a row that
        all learnt from.
    histories : list of History
        One a member.
    """

    ensemble: Ensemble
    out_of_fold: NDArray[np.float64]
    histories: list[History]


def learn(
    x: Array,
    y: Array,
    encoding: ColumnEmbeddings,
    objective: Objective,
    recipe: Recipe,
    *,
    strata: NDArray[np.int64] | None = None,
    trained_on: list[NDArray[np.bool_]] | None = None,
    sample_weight: Array | None = None,
    rng: np.random.Generator,
    n_threads: int | None = None,
    max_seconds: float | None = None,
    on_epoch: Callable[[EpochReport], Any] | None = None,
) -> Learned:
    """Train an ensemble on folds of the rows.

    Parameters
    ----------
    x : (n, d_in) float32
    y : (n,) int32 classes, or (n, d_out) float32
    strata : (n,) int, optional
        Rows of one stratum are spread over the folds evenly; a row alone in its stratum is held
        out by nobody.
    trained_on : list of masks (n,), optional
        The rows that each member learns from, in place of folds.
    sample_weight : (n,) float32, optional
        Rows of weight 0 are neither learnt from nor scored.
    on_epoch : callable, optional
        Told after each epoch of each member.
    """
    n = len(x)
    if trained_on is None:
        trained_on = make_folds(n, recipe, strata, sample_weight, rng)
    k = len(trained_on)
    networks = [
        Network(
            x.shape[1],
            recipe.widths,
            objective.d_out,
            activation=recipe.activation,
            output=objective.output,
            dropout=recipe.dropout,
            encoding=encoding,
            rng=rng,
        )
        for _ in range(k)
    ]
    histories = train_many(
        networks,
        x,
        y,
        loss=objective.loss,
        optimizer=AdamW(lr=cosine(recipe.lr, warmup=0.05), weight_decay=recipe.weight_decay),
        batch_size=recipe.batch_size(n),
        max_epochs=recipe.epochs(n),
        max_seconds=max_seconds,
        rows=trained_on,
        validation="rest",
        patience=recipe.patience,
        sample_weight=sample_weight,
        rng=rng,
        n_threads=n_threads,
        callbacks=() if on_epoch is None else (on_epoch,),
    )
    out = out_of_fold(networks, x, trained_on)
    return Learned(Ensemble(networks), out, histories)


def make_folds(
    n: int,
    recipe: Recipe,
    strata: NDArray[np.int64] | None,
    sample_weight: Array | None,
    rng: np.random.Generator,
) -> list[NDArray[np.bool_]]:
    """Return for each member a mask (n,) of the rows that it learns from.

    Folds have at most `MOST_HELD` rows, drawn from all strata alike; every member learns from the
    rows that are then in no fold.
    """
    of_weight = np.ones(n, bool) if sample_weight is None else np.asarray(sample_weight) > 0
    n_held = int(of_weight.sum())
    n_folds = int(np.clip(n_held // LEAST_FOLD, 2, recipe.n_folds))
    strata = np.zeros(n, np.int64) if strata is None else strata
    alone = np.bincount(strata[of_weight], minlength=int(strata.max()) + 1) < 2
    masks = []
    for _ in range(recipe.n_repeats(n)):
        shuffled = rng.permutation(n)
        shuffled = shuffled[of_weight[shuffled] & ~alone[strata[shuffled]]]
        order = shuffled[np.argsort(strata[shuffled], kind="stable")]  # strata together
        held = order[:: max(-(-len(order) // (n_folds * MOST_HELD)), 1)]
        fold = np.full(n, -1)
        fold[held] = np.arange(len(held)) % n_folds
        masks += [fold != i for i in range(n_folds)]
    return masks


def out_of_fold(
    networks: list[Network], x: Array, trained_on: list[NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Return each row's mean output of the networks that were not trained on it."""
    d_out = networks[0].spec.d_out
    total = np.zeros((len(x), d_out))
    count = np.zeros(len(x))
    for network, mask in zip(networks, trained_on, strict=True):
        held = np.flatnonzero(~mask)
        total[held] += network(x[held])
        count[held] += 1
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = total / count[:, np.newaxis]
    return result
