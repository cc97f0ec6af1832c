"""A whole `MLPClassifier.fit`, the same way for lamina's and scikit-learn's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lamina.bench.clock import Ready
from lamina.bench.workloads import SEED, Workload


def fit(classifier: Any, workload: Workload, **own: Any) -> Ready:
    """Return a fit of exactly `workload.epochs` epochs; the check is its final loss.

    Both draw the same first weights and row orders from random_state, so the final losses must
    agree to rounding; early stopping is off and tol never met.
    """
    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)  # so few epochs are the point
    x, y = workload.rows()

    def call() -> Any:
        model = classifier(
            hidden_layer_sizes=workload.widths,
            batch_size=workload.batch_size,
            max_iter=workload.epochs,
            n_iter_no_change=np.inf,
            random_state=SEED,
            **own,
        )
        return model.fit(x, y)

    return Ready(call, lambda model: model.loss_)
