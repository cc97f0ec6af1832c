"""The solver lbfgs: SciPy's L-BFGS-B over the engine's loss and gradient of all rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
from sklearn.utils.optimize import _check_optimize_result

from lamina.core.engine import make_engine
from lamina.tabular.coefficients import Array, network_spec
from lamina.tabular.objective import Objective
from lamina.tabular.rows import Rows

CLIPPED_LOSS = -np.log(np.finfo(np.float64).eps)
"""The largest log loss of an output in scikit-learn, whose probabilities are at least eps."""


def fit_lbfgs(est: Any, rows: Rows, theta: Array, dims: tuple[int, ...]) -> Array:
    """Minimise the loss over all rows at once; return theta and set ``n_iter_`` and ``loss_``.

    Parameters
    ----------
    est : BaseMLP
    rows : Rows
    theta : array (n_params,)
        Where to start.
    dims : tuple of int

    Notes
    -----
    The arithmetic is float64 whatever the dtype of X: a line search needs differences of losses
    that float32 rounds away. Float32 rows are therefore copied once. The weights are float64 too,
    as in scikit-learn.
    """
    spec = network_spec(dims, est._activations(len(dims) - 2), est._output_unit(), np.float64)
    objective = Objective.of(est.loss, est.out_activation_, dims[-1], np.dtype(np.float64))
    engine = make_engine(spec)
    rows = rows.astype(np.float64)
    constants = objective.row_constants(rows.target)
    offset = 0.0
    if constants is not None:
        offset = float(np.average(constants, weights=rows.sample_weight))
    total = rows.total_weight
    penalised = [where for where, _ in spec.slices()]
    blocks = [(block, block.total_weight) for block in rows.blocks()]
    clips_from = CLIPPED_LOSS * rows.least_weight

    def value_and_gradient(theta: Array) -> tuple[float, Array]:
        engine.set_parameters(theta)
        value, gradient, part = 0.0, np.zeros(engine.n_params), np.empty(engine.n_params)
        for block, weight in blocks:
            loss = engine.evaluate(
                block.dense(),
                block.target,
                objective.loss,
                sample_weight=block.sample_weight,
                output_weight=objective.output_weight,
                grad=part,
                n_threads=est.n_threads,
            )
            if loss * weight >= clips_from:  # else no row can be clipped
                y_pred = engine.forward(block.dense(), est.n_threads)
                clipped = objective.clipped(y_pred, block.target, block.sample_weight)
                loss = loss if clipped is None else clipped
            value += loss * weight / total
            gradient += part * (weight / total)
        value = value * objective.value_scale + offset
        for where in penalised:
            w = theta[where]
            value += 0.5 * est.alpha / total * float(w @ w)
            gradient[where] += est.alpha / total * w
        return value, gradient

    result = scipy.optimize.minimize(
        value_and_gradient,
        np.asarray(theta, np.float64),
        method="L-BFGS-B",
        jac=True,
        options={"maxfun": est.max_fun, "maxiter": est.max_iter, "gtol": est.tol},
    )
    est.n_iter_ = _check_optimize_result("lbfgs", result, est.max_iter)
    est.loss_ = float(result.fun)
    return np.asarray(result.x)
