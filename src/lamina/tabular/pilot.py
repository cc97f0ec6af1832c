"""A pilot: do neighbours' targets help on this table? Asked of rows that nothing was fitted on.

Two members learn from four fifths of some rows as they are, two with the columns of `neighbours`,
whose metric and targets are of the same four fifths. The other fifth decides.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.errors import SpecError
from lamina.core.losses import AbsoluteError
from lamina.tabular.learner import Learned, Objective, learn
from lamina.tabular.metric import Metric
from lamina.tabular.neighbours import LEVELS, MOST_ADDED, MOST_ROWS, Neighbours, local_targets
from lamina.tabular.recipe import Recipe

Array = NDArray[Any]
Floats = NDArray[np.float64]

LEAST_ROWS: Final = 500  # fewer have too few neighbours, and too few to hold out
MOST_PILOT: Final = 20_000  # rows of the pilot: as sure as from all
N_MEMBERS: Final = 2
LEAST_GAIN: Final = 0.01  # of the loss: less is not worth rows in the model
LEAST_SURENESS: Final = 2.0  # standard errors of the gain
SHARE_OF_TIME: Final = 0.2  # of what `max_seconds` leaves, at most


@dataclass(frozen=True)
class Verdict:
    """What the pilot found.

    Parameters
    ----------
    gain : float
        By how much of itself the held-out loss is lower with neighbours.
    sureness : float
        The gain in its standard errors.
    """

    gain: float
    sureness: float

    @property
    def is_better(self) -> bool:
        """Whether the gain is one, and no accident."""
        return self.gain > LEAST_GAIN and self.sureness > LEAST_SURENESS


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a fit, as `learn` takes them.

    Parameters
    ----------
    x : (n, d_in) float32
    y : (n,) int32 classes, or (n, d_out) float32
    cells : tuple of int
        Of x, as `ColumnEmbeddings` takes them.
    weight : (n,) float32, optional
    """

    x: Array
    y: Array
    cells: tuple[int, ...]
    weight: Array | None

    @property
    def weighty(self) -> NDArray[np.intp]:
        """The rows of positive weight."""
        return np.arange(len(self.x)) if self.weight is None else np.flatnonzero(self.weight > 0)

    def can_be_near(self, n_targets: int) -> bool:
        """Return whether there are numbers to be near by, and few enough targets."""
        return any(c > 0 for c in self.cells) and n_targets <= MOST_ADDED


def run_pilot(
    rows: Rows,
    objective: Objective,
    recipe: Recipe,
    rng: np.random.Generator,
    n_threads: int | None = None,
    max_seconds: float | None = None,
) -> tuple[Metric, Verdict] | None:
    """Compare members with and without neighbours.

    Returns
    -------
    (Metric, Verdict), or None where it was not run to its end: few rows, no numbers, no time

    Notes
    -----
    Cost: about an eighth of the members' training, and a second for metric and look-ups.
    """
    chosen = rng.permutation(rows.weighty)[:MOST_PILOT]
    targets = local_targets(rows.y, objective.d_out)
    if len(chosen) < LEAST_ROWS or not rows.can_be_near(targets.shape[1]):
        return None
    began = time.perf_counter()
    x, y, targets = rows.x[chosen], rows.y[chosen], targets[chosen]
    n = len(chosen)
    kept = np.arange(n // 5, n)  # the others are held out; the order is random
    of_all = np.where(np.arange(n) < n // 5, False, True)
    n_fit = recipe.n_folds * recipe.n_repeats(len(rows.x))
    brief = replace(recipe, n_seen=recipe.n_seen * n_fit // (16 * N_MEMBERS))
    seed = int(rng.integers(2**31))

    def held_losses(x: Array, cells: tuple[int, ...]) -> Floats | None:
        left = None
        if max_seconds is not None:
            left = SHARE_OF_TIME * max_seconds - (time.perf_counter() - began)
            if left <= 0:
                return None
        learned = learn(
            x,
            y,
            ColumnEmbeddings(cells, recipe.n_features),
            objective,
            brief,
            trained_on=[of_all] * N_MEMBERS,
            sample_weight=None if rows.weight is None else rows.weight[chosen],
            rng=np.random.default_rng(seed),
            n_threads=n_threads,
            max_seconds=left,
        )
        if _ran_out_of_time(learned):
            return None
        return losses_of(learned.out_of_fold[: n // 5], y[: n // 5], objective)

    plain = held_losses(x, rows.cells)
    if plain is None:
        return None
    metric = Metric.fit(x[kept], rows.cells, targets[kept], np.random.default_rng(seed))
    if metric is None:
        return None
    neighbours, wider = Neighbours.fit(metric, x, targets, kept, n_threads)
    wide = held_losses(wider, (*rows.cells, *neighbours.cells))
    if wide is None:
        return None
    weight = None if rows.weight is None else rows.weight[chosen[: n // 5]]
    return metric, compare(plain, wide, weight)


def find_neighbours(
    rows: Rows,
    objective: Objective,
    recipe: Recipe,
    *,
    wanted: bool | None,
    seed: int,
    n_threads: int | None = None,
    max_seconds: float | None = None,
) -> tuple[Neighbours | None, Array, list[str]]:
    """Return the neighbours of a fit if they are wanted, x as it is then read, and a note on it.

    Parameters
    ----------
    wanted : bool, optional
        None lets a pilot decide where the recipe has one.
    """
    none: tuple[None, Array, list[str]] = (None, rows.x, [])
    if wanted is False or (wanted is None and not recipe.tries_neighbours):
        return none
    rng = np.random.default_rng([seed, 3])
    targets = local_targets(rows.y, objective.d_out)
    why = ""
    if wanted:
        kept = rows.weighty
        if not rows.can_be_near(targets.shape[1]) or len(kept) <= LEVELS[-1]:
            raise SpecError(
                "fit: expected neighbours=True with numeric columns, more than "
                f"{LEVELS[-1]} rows and at most {MOST_ADDED} classes or targets, got "
                f"{sum(c > 0 for c in rows.cells)} columns, {len(kept)} rows and "
                f"{targets.shape[1]}. Leave neighbours out."
            )
        sample = rng.permutation(kept)[:MOST_PILOT]
        metric = Metric.fit(rows.x[sample], rows.cells, targets[sample], rng)
    else:
        found = run_pilot(rows, objective, recipe, rng, n_threads, max_seconds)
        if found is None or not found[1].is_better:
            return none
        metric = found[0]
        why = f": on held-out rows they lowered a pilot's loss by {found[1].gain:.1%}"
    assert metric is not None  # noqa: S101 (there are numeric columns)
    kept = np.sort(rng.permutation(rows.weighty)[:MOST_ROWS])
    neighbours, wider = Neighbours.fit(metric, rows.x, targets, kept, n_threads)
    note = (
        f"predictions also read the targets of the nearest of {len(kept):,} training rows that the "
        f"model keeps{why}. Pass neighbours=False to keep none."
    )
    return neighbours, wider, [note]


def compare(plain: Floats, wide: Floats, weight: Array | None = None) -> Verdict:
    """Return the gain from the losses (n,) of the same rows without and with neighbours."""
    saved = plain - wide
    gain = float(np.average(saved, weights=weight))
    spread = float(np.sqrt(np.average((saved - gain) ** 2, weights=weight) / len(saved)))
    return Verdict(
        gain / max(float(np.average(plain, weights=weight)), 1e-12), gain / max(spread, 1e-12)
    )


def losses_of(output: Floats, y: Array, objective: Objective) -> Floats:
    """Return the loss (n,) of each row's outputs (n, d_out), as the members minimise it."""
    tiny = float(np.finfo(np.float32).tiny)
    if objective.output == "softmax":
        return -np.log(np.maximum(output[np.arange(len(y)), y], tiny))
    if objective.output == "sigmoid":
        right = np.where(y > 0, output, 1.0 - output)
        return np.asarray(-np.log(np.maximum(right, tiny)).mean(axis=1))
    if objective.output == "exp":
        return np.asarray((output - y * np.log(np.maximum(output, tiny))).mean(axis=1))
    off = np.abs(output - y)
    power = 1 if isinstance(objective.loss, AbsoluteError) else 2
    return np.asarray((off**power).mean(axis=1))


def _ran_out_of_time(learned: Learned) -> bool:
    return any(history.stopped == "max_seconds" for history in learned.histories)
