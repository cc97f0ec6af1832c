"""scikit-learn: MLPClassifier or MLPRegressor, whose threads are those of NumPy's BLAS.

One thread or all, whichever is faster.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

from lamina.bench import estimator
from lamina.bench.clock import Ready, each_thread_count
from lamina.bench.workloads import LEARNING_RATE, SEED, Workload


def train(workload: Workload, engine: str, n_threads: int) -> list[Ready]:  # noqa: ARG001
    """Time warm-started fits, so that what surrounds the steps is shared by all epochs."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    x, y = workload.rows()
    model = _model(workload, x, y)
    # Its squared error carries a factor 1/2.
    scale = 1 if workload.classes else 2
    before = len(model.loss_curve_)
    ready = Ready(
        lambda: model.fit(x, y),
        lambda fitted: scale * fitted.loss_curve_[before],
        workload.epochs * workload.n_steps,
    )
    return each_thread_count(ready, n_threads, threadpool_limits)


def fit(workload: Workload, engine: str, n_threads: int) -> list[Ready]:  # noqa: ARG001
    """Time `sklearn.neural_network.MLPClassifier.fit`."""
    ready = estimator.fit(MLPClassifier, workload)
    return each_thread_count(ready, n_threads, threadpool_limits)


def infer(workload: Workload, engine: str, n_threads: int) -> list[Ready]:  # noqa: ARG001
    """Time predict_proba."""
    x, _ = workload.rows()
    model = _model(workload, *_every_class(workload))
    ready = Ready(lambda: model.predict_proba(x), lambda y_pred: workload.error(x, y_pred))
    return each_thread_count(ready, n_threads, threadpool_limits)


def _model(workload: Workload, x: np.ndarray, y: np.ndarray) -> Any:
    """Return an estimator that holds the workload's first weights."""
    settings: dict[str, Any] = {
        "hidden_layer_sizes": workload.widths,
        "alpha": 0.0,
        "learning_rate_init": LEARNING_RATE,
        "max_iter": workload.epochs,
        "tol": 0.0,
        "n_iter_no_change": np.inf,
        "warm_start": True,
        "random_state": SEED,
    }
    if workload.batch_size:
        settings["batch_size"] = workload.batch_size
    first = slice(workload.batch_size or len(x))
    if workload.classes:
        model = MLPClassifier(**settings)
        model.partial_fit(x[first], y[first], classes=np.arange(workload.d_out))
    else:
        model = MLPRegressor(**settings).partial_fit(x[first], y[first])
    layers = [(weight.T.copy(), bias) for weight, bias in workload.layers()]
    if workload.classes and workload.d_out == 2:
        # For two classes it has one sigmoid: the same function of the difference of the scores.
        weight, bias = layers[-1]
        layers[-1] = weight[:, 1:] - weight[:, :1], bias[1:] - bias[:1]
    model.coefs_ = [weight for weight, _ in layers]
    model.intercepts_ = [bias for _, bias in layers]
    return model


def _every_class(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((workload.d_out, workload.d_in), workload.dtype), np.arange(workload.d_out)
