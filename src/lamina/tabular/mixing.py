"""Predictions of mixed rows: some columns of x from one row, all others from another.

Permutation importance, partial dependence and Shapley values all ask for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Function = Callable[[NDArray[np.float32]], Floats]  # x (n, d_in) -> predictions (n, n_outputs)

BATCH_ROWS = 1 << 14  # mixed rows predicted at a time: bounds the memory, feeds the threads


def predict_mixed(
    f: Function,
    masks: NDArray[np.bool_],
    inside: NDArray[np.float32],
    outside: NDArray[np.float32],
    rows: tuple[Any, Any, Any],
) -> Floats:
    """Return f of rows whose columns come from ``inside`` where a mask says so, else ``outside``.

    ::

        result[i] = f(where(masks[m[i]], inside[a[i]], outside[b[i]])),   (m, a, b) = rows

    Parameters
    ----------
    f : callable
        x (n, d_in) float32 to predictions (n, n_outputs), each row by itself.
    masks : (n_masks, d_in) bool
    inside, outside : (., d_in) float32
    rows : three int arrays that broadcast to one shape
        m, a and b.

    Returns
    -------
    (*shape, n_outputs) float64

    Notes
    -----
    `BATCH_ROWS` rows at a time are made and predicted, whatever asks for them.
    """
    which, a, b = np.broadcast_arrays(*rows)
    shape = which.shape
    which, a, b = which.ravel(), a.ravel(), b.ravel()
    parts = [
        f(np.where(masks[which[part]], inside[a[part]], outside[b[part]]))
        for part in (
            slice(start, start + BATCH_ROWS) for start in range(0, max(which.size, 1), BATCH_ROWS)
        )
    ]
    return np.concatenate(parts).reshape(*shape, -1)
