"""Shapley values of a row's columns: what each adds to the prediction, so that the sum is exact.

::

    v(S)  = mean over background rows b of f(x with the columns outside S from b)
    phi_j = mean over orders of the columns of v(those up to j) - v(those before j)

so that sum_j phi_j = f(x) - mean_b f(b). Up to `MOST_EXACT` columns every S is evaluated; beyond,
orders are drawn: for each background row pairs of an order and its reverse, whose errors cancel in
part. Every order alone telescopes to f(x) - f(b), so the sum holds however few there are.

References: Shapley 1953, "A value for n-person games"; Štrumbelj and Kononenko 2014, "Explaining
prediction models and individual predictions with feature contributions", algorithm 1; Mitchell et
al. 2022, "Sampling permutations for Shapley value estimation", arXiv:2104.12199, section 4.1
(antithetic pairs).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lamina.tabular.mixing import BATCH_ROWS, Floats, Function, predict_mixed

# Every set costs 2^5 - 2 = 30 predictions a row and background row, a pair of orders
# 2 · (5 - 1) = 8; of 6 columns it would be 62 to 10, and of 8 columns 254 to 14
MOST_EXACT = 5


def shapley_values(
    f: Function,
    x: NDArray[np.float32],
    background: NDArray[np.float32],
    groups: NDArray[np.intp],
    *,
    n_pairs: int | None = None,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Return each group's share of each prediction, and the standard error of the shares.

    Parameters
    ----------
    f : callable
        x (n, d_in) float32 to predictions (n, n_outputs) float64.
    x : (n, d_in) float32
        The rows to explain.
    background : (n_background, d_in) float32
        What a column's value is compared with.
    groups : (d_in,) int
        The group of each column of x, 0 … n_groups - 1; a group moves as one.
    n_pairs : int ≥ 1, optional
        Pairs of orders drawn for each background row. None is exact for up to `MOST_EXACT` groups
        and 1 beyond.
    rng : numpy.random.Generator

    Returns
    -------
    values : (n, n_groups, n_outputs) float64
    error : (n, n_groups, n_outputs) float64
        Standard error of drawing orders, 0 where every set was evaluated. It is that of pairs drawn
        with their background rows, while each background row has its turn: so it is on the safe
        side. NaN for a single pair.

    Notes
    -----
    Predictions a row: n_background · (2^n_groups - 2) where exact, else 2 · n_pairs ·
    n_background · (n_groups - 1). None is exact where that costs at most four times one pair.
    """
    n_groups = int(groups.max()) + 1
    at_background, at_x = f(background), f(x)
    exact = n_groups == 1 or (n_pairs is None and n_groups <= MOST_EXACT)
    if exact:
        sets = _all_sets(n_groups)
        n_each = len(background) * len(sets)
    else:
        ranks = _orders(len(background) * (n_pairs or 1), n_groups, rng)  # (n_pairs, 2, n_groups)
        n_each = ranks.shape[0] * 2 * (n_groups - 1)
    block = max(1, 8 * BATCH_ROWS // n_each)
    values = np.empty((len(x), n_groups, at_x.shape[1]))
    error = np.zeros_like(values)
    for start in range(0, len(x), block):
        rows = slice(start, start + block)
        if exact:
            v = _set_means(f, x[rows], background, groups, sets)
            v[:, 0], v[:, -1] = at_background.mean(axis=0), at_x[rows]
            values[rows] = np.einsum("js,nso->njo", _set_weights(sets), v)
        else:
            along = _along_orders(f, x[rows], background, groups, ranks)
            along[:, :, :, 0] = at_background[np.arange(len(ranks)) % len(background)][:, None]
            along[:, :, :, -1] = at_x[rows, None, None]
            values[rows], error[rows] = _shares(along, ranks)
    return values, error


# --- every set ------------------------------------------------------------------------------------


def _all_sets(n_groups: int) -> NDArray[np.bool_]:
    """Return all sets of groups, (2^n_groups, n_groups); the first is empty, the last full."""
    bits = np.arange(1 << n_groups)[:, np.newaxis] >> np.arange(n_groups)
    return np.asarray(bits & 1, bool)


def _set_weights(sets: NDArray[np.bool_]) -> Floats:
    """Return W (n_groups, n_sets) with phi = W v: |S|! (M - |S| - 1)! / M! by presence."""
    n = sets.shape[1]
    size = sets.sum(axis=1)
    f = np.array([math.factorial(k) for k in range(n + 1)], np.float64)
    joined = f[np.maximum(size - 1, 0)] * f[np.minimum(n - size, n)] / f[n]
    absent = f[size] * f[np.maximum(n - size - 1, 0)] / f[n]
    return np.asarray(np.where(sets.T, joined, -absent))


def _set_means(
    f: Function,
    x: NDArray[np.float32],
    background: NDArray[np.float32],
    groups: NDArray[np.intp],
    sets: NDArray[np.bool_],
) -> Floats:
    """Return v of every set, (n, n_sets, n_outputs), the first and last of them left open."""
    inner = np.arange(1, len(sets) - 1)[np.newaxis, :, np.newaxis]
    rows = np.arange(len(x))[:, np.newaxis, np.newaxis]
    if not inner.size:
        return np.empty((len(x), len(sets), f(x[:1]).shape[1]))
    found = predict_mixed(
        f, sets[:, groups], x, background, (inner, rows, np.arange(len(background)))
    )
    means = found.mean(axis=2)  # (n, n_sets - 2, n_outputs)
    return np.pad(means, ((0, 0), (1, 1), (0, 0)))


# --- drawn orders ---------------------------------------------------------------------------------


def _orders(n_pairs: int, n_groups: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the place of each group in n_pairs orders and their reverses, (n_pairs, 2, .)."""
    place = rng.permuted(np.tile(np.arange(n_groups), (n_pairs, 1)), axis=1)
    return np.stack([place, n_groups - 1 - place], axis=1)


def _along_orders(
    f: Function,
    x: NDArray[np.float32],
    background: NDArray[np.float32],
    groups: NDArray[np.intp],
    ranks: NDArray[np.intp],
) -> Floats:
    """Return f along each order, (n, n_pairs, 2, n_groups + 1, n_outputs), both ends left open."""
    n_pairs, _, n_groups = ranks.shape
    steps = np.arange(1, n_groups)
    taken = ranks[:, :, np.newaxis, :] < steps[:, np.newaxis]  # (n_pairs, 2, steps, n_groups)
    masks = taken.reshape(-1, n_groups)[:, groups]
    which = np.arange(len(masks)).reshape(1, n_pairs, 2, n_groups - 1)
    rows = np.arange(len(x))[:, None, None, None]
    others = (np.arange(n_pairs) % len(background))[:, None, None]
    found = predict_mixed(f, masks, x, background, (which, rows, others))
    return np.pad(found, ((0, 0), (0, 0), (0, 0), (1, 1), (0, 0)))


def _shares(along: Floats, ranks: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Return the groups' mean steps along the orders, and the standard error over pairs."""
    steps = np.diff(along, axis=3)  # (n, n_pairs, 2, n_groups by place, n_outputs)
    own = np.take_along_axis(steps, ranks[np.newaxis, ..., np.newaxis], axis=3)
    pairs = own.mean(axis=2)  # (n, n_pairs, n_groups, n_outputs)
    n_pairs = pairs.shape[1]
    spread = pairs.std(axis=1, ddof=1) if n_pairs > 1 else np.full_like(pairs[:, 0], np.nan)
    return pairs.mean(axis=1), spread / math.sqrt(n_pairs)
