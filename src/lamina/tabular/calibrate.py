"""Calibration: the temperature that makes out-of-fold probabilities fit what happened.

Reference: Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599,
section 4.2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from lamina.tabular.head import tempered

LEAST_ROWS = 50  # from fewer, a temperature would be chance
MOST = 8.0  # temperatures lie between its inverse and it


def find_temperature(
    probability: NDArray[np.float64],
    y: NDArray[np.integer],
    weight: NDArray[np.float64] | None = None,
    *,
    multilabel: bool = False,
) -> float:
    """Return the temperature of the lowest log-loss on rows that were not learnt from.

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
    p, target = probability[kept], y[kept]
    w = np.ones(len(p)) if weight is None else weight[kept]
    tiny = np.finfo(np.float32).tiny

    def loss(log_temperature: float) -> float:
        q = tempered(p, math.exp(log_temperature), multilabel)
        if multilabel:
            each = -np.log(np.clip(np.where(target > 0, q, 1 - q), tiny, None)).sum(axis=1)
        else:
            each = -np.log(np.clip(q[np.arange(len(q)), target], tiny, None))
        return float(np.average(each, weights=w))

    bound = math.log(MOST)
    found = minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4})
    return math.exp(float(found.x)) if found.fun < loss(0.0) else 1.0
