"""Calibration: the temperature that makes probabilities fit what happens.

Out-of-fold probabilities are single members'; those of the ensemble, their mean, are less sure. So
the temperature that members need is divided by the one that makes members like their mean.

Reference: Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599,
section 4.2; that ensembles need less: Rahaman and Thiery 2021, "Uncertainty quantification and
deep ensembles", arXiv:2007.08792.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from lamina.tabular.head import tempered

LEAST_ROWS = 50  # from fewer, a temperature would be chance
PRIOR = 0.15  # deviation of log T before any row is seen; found on seven tables of 75 to 10,000
MOST_ROWS = 4096  # more tell a temperature of members no better
MOST = 8.0  # temperatures lie between its inverse and it


def find_temperature(
    probability: NDArray[np.float64],
    y: NDArray[np.integer],
    weight: NDArray[np.float64] | None = None,
    *,
    multilabel: bool = False,
) -> float:
    """Return the temperature of the lowest log-loss on rows that were not learnt from.

    ::

        argmin over T of  n log-loss(T) + log(T)^2 / (2 PRIOR^2)

    Few rows say little, and flatter themselves as their folds chose epochs: the second term, a
    prior around 1, holds against both, and is nothing beside 10,000 rows.

    Parameters
    ----------
    probability : (n, K) float64
        Out-of-fold probabilities; rows of NaN are left out.
    y : (n,) int classes, or (n, K) of 0 and 1 with ``multilabel``
    weight : (n,) float64, optional

    Returns
    -------
    temperature : float
        1 where there are fewer than `LEAST_ROWS` rows.
    """
    kept = ~np.isnan(probability[:, 0])
    if weight is not None:
        kept &= weight > 0
    if np.count_nonzero(kept) < LEAST_ROWS:
        return 1.0
    one_hot = y[kept] if multilabel else np.eye(probability.shape[1])[y[kept]]
    target = np.asarray(one_hot, np.float64)
    w = np.ones(len(target)) if weight is None else weight[kept]
    prior = 0.5 / PRIOR**2 / len(target)
    return _best_temperature(probability[kept], target, w, multilabel, prior)


def member_temperature(
    members: NDArray[np.floating], n_held: int, *, multilabel: bool = False
) -> float:
    """Return the temperature at which `n_held` members are most like the mean of all.

    ::

        argmin over T of the mean over rows of  -sum_k q_k log p_k^(1/T) / sum_j p_j^(1/T)

    with q the mean of all members and p that of `n_held` of them.

    Parameters
    ----------
    members : (n_members, n, K)
        Their probabilities.
    n_held : int
        How many members an out-of-fold probability is the mean of.
    """
    probability = np.asarray(members, np.float64)
    n_groups = len(probability) // n_held
    if n_groups < 2 or probability.shape[1] < LEAST_ROWS:
        return 1.0
    mean = probability.mean(axis=0)  # (n, K)
    groups = probability[: n_groups * n_held].reshape(n_groups, n_held, *mean.shape).mean(axis=1)
    several, target = np.concatenate(groups), np.tile(mean, (n_groups, 1))
    return _best_temperature(several, target, np.ones(len(several)), multilabel)


def _best_temperature(
    p: NDArray[np.float64],
    target: NDArray[np.float64],
    w: NDArray[np.float64],
    multilabel: bool,
    prior: float = 0.0,
) -> float:
    """Return the temperature of p (n, K) of the lowest cross-entropy with target (n, K).

    ``prior`` times log(T)^2 is added to the mean cross-entropy.
    """
    tiny = np.finfo(np.float32).tiny

    def loss(log_temperature: float) -> float:
        q = tempered(p, math.exp(log_temperature), multilabel)
        each = -(target * np.log(np.clip(q, tiny, None))).sum(axis=1)
        if multilabel:
            each -= ((1.0 - target) * np.log(np.clip(1.0 - q, tiny, None))).sum(axis=1)
        return float(np.average(each, weights=w)) + prior * log_temperature**2

    bound = math.log(MOST)
    found = minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4})
    return math.exp(float(found.x)) if found.fun < loss(0.0) else 1.0
