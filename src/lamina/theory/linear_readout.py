"""How much a linear unit can read out of features: rank, separation with margin, a linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.functions import Float64
from lamina.core.metrics import r2
from lamina.core.network import Network
from lamina.core.optim import LBFGS
from lamina.core.trainer import train
from lamina.theory.linear_separability import separability
from lamina.theory.min_norm import Corner, nearest_float

MOST_EXACT: Final = 4096
"""Features (rows times columns) up to which separation is decided exactly: well under a second."""
LEAST_HELD: Final = 30  # rows from which on a probe is scored on rows that it did not see
_DECAY: Final = 1e-3  # of the probe: separable classes have no best weights without


@dataclass(frozen=True)
class Rank:
    """How many directions features really take.

    Attributes
    ----------
    numerical : int
        Singular values of the centred features above rounding: the dimension of the rows' span.
    effective : float
        exp of the entropy of the singular values' shares (Roy and Vetterli 2007).
    stable : float
        Their sum of squares over the largest square.
    """

    numerical: int
    effective: float
    stable: float


def rank_of(h: Float64, eps: float) -> Rank:
    """Return the ranks of features h (n, d), which were computed with the rounding `eps`.

    References
    ----------
    Roy and Vetterli (2007), "The effective rank: a measure of effective dimensionality".
    """
    centred = h - h.mean(axis=0)
    s = np.linalg.svd(centred, compute_uv=False)
    # Rounding is relative to the features themselves, which may be large and nearly constant
    size = max(float(s[0]), float(np.linalg.norm(h, 2))) if s.size else 0.0
    numerical = int(np.count_nonzero(s > max(h.shape) * eps * size))
    if not numerical:
        return Rank(0, 0.0, 0.0)
    s = s[:numerical]
    share = s / s.sum()
    entropy = -float((share * np.log(share)).sum())
    return Rank(numerical, float(np.exp(entropy)), float((s**2).sum() / s[0] ** 2))


@dataclass(frozen=True)
class Separation:
    """Whether hyperplanes tell classes apart, each from the rest.

    Attributes
    ----------
    separable : bool
        All classes are; for two, that is one hyperplane.
    n_separable : int
        How many are.
    margin : float or None
        Of the narrowest hyperplane found, in units of the features: the distance of the nearest
        row. Near the largest there is, and never above it. None where a class is not separable.
    exact : bool
        Proved in rational arithmetic; else by floats, of which a "no" may be wrong where the
        largest margin is close to rounding.
    """

    separable: bool
    n_separable: int
    margin: float | None
    exact: bool


def separate(h: Float64, codes: NDArray[np.int64], n_classes: int) -> Separation:
    """Try to separate each class from the rest, by features h (n, d) and codes (n,)."""
    exact = h.size <= MOST_EXACT
    decide = _exact_margin if exact else _float_margin
    of_interest = [1] if n_classes == 2 else range(n_classes)
    margins = [decide(h, codes == k) for k in of_interest]
    found = [m for m in margins if m is not None]
    separable = len(found) == len(margins)
    n_separable = 2 * len(found) if n_classes == 2 else len(found)
    return Separation(separable, n_separable, min(found) if separable else None, exact)


def _exact_margin(h: Float64, positive: NDArray[np.bool_]) -> float | None:
    return separability(h, positive).margin


def _float_margin(h: Float64, positive: NDArray[np.bool_]) -> float | None:
    """Return the margin of a plane across the shortest line between the hulls; None if it fails.

    A margin is only returned where it exceeds the rounding of its own computation.
    """
    middle = h.mean(axis=0)
    size = float(np.abs(h - middle).max())
    if size == 0.0:
        return None
    x = (h - middle) / size
    up, down = np.flatnonzero(positive), np.flatnonzero(~positive)

    def lowest(direction: Float64) -> tuple[Corner, Float64]:
        along = x @ direction
        i, j = int(up[np.argmin(along[up])]), int(down[np.argmax(along[down])])
        return (i, j), x[i] - x[j]

    w = np.asarray(nearest_float(lowest, h.shape[1]).point)
    length = float(np.linalg.norm(w))
    if length == 0.0:
        return None
    along = x @ (w / length)
    gap = float(along[up].min() - along[down].max())
    rounding = 4.0 * h.shape[1] * np.finfo(np.float64).eps * np.sqrt(h.shape[1])
    return 0.5 * gap * size if gap > rounding else None


@dataclass(frozen=True)
class Probe:
    """What a linear model reads out of features.

    Attributes
    ----------
    score : float
        Accuracy for classes, R² for numbers.
    held_out : bool
        On a third of the rows, which it did not see; else, where rows are few, on those it did.
    """

    score: float
    held_out: bool


def probe_classes(h: Float64, codes: NDArray[np.int64], n_classes: int, seed: int) -> Probe:
    """Fit a softmax regression and score it.

    References
    ----------
    Alain and Bengio (2016), "Understanding intermediate layers using linear classifier probes",
    arXiv:1610.01644.
    """
    fit, score, held_out = _parts(len(h), seed)
    x = _standardised(h, fit)
    model = Network(h.shape[1], (), n_classes, output="softmax", dtype="float64", rng=0)
    train(model, x[fit], codes[fit], optimizer=LBFGS(max_iter=200, tol=1e-4, l2=_DECAY), rng=0)
    right = model(x[score]).argmax(axis=1) == codes[score]
    return Probe(float(right.mean()), held_out)


def probe_numbers(h: Float64, y: Float64, seed: int) -> Probe:
    """Fit a linear regression with a little decay to y (n, k), and score it."""
    fit, score, held_out = _parts(len(h), seed)
    x = np.column_stack([_standardised(h, fit), np.ones(len(h))])
    decay = _DECAY * len(fit) * np.eye(x.shape[1])
    decay[-1, -1] = 0.0
    gram = x[fit].T @ x[fit] + decay
    weights = np.linalg.lstsq(gram, x[fit].T @ y[fit], rcond=None)[0]
    return Probe(r2(y[score], x[score] @ weights), held_out)


def _parts(n: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp], bool]:
    """Return the rows to fit and those to score, and whether they differ."""
    if n < LEAST_HELD:
        every = np.arange(n)
        return every, every, False
    order = np.random.default_rng(seed).permutation(n)
    return order[n // 3 :], order[: n // 3], True


def _standardised(h: Float64, fit: NDArray[np.intp]) -> Float64:
    mean, std = h[fit].mean(axis=0), h[fit].std(axis=0)
    still = std <= 1e-9 * np.maximum(np.abs(mean), 1e-300)
    return np.asarray((h - mean) / np.where(still, 1.0, std) * ~still)
