"""lamina: a training run in the engine, lamina.train, the estimator, a network called."""

from __future__ import annotations

import numpy as np

import lamina
from lamina.core.engine import Run, make_engine
from lamina.core.losses import resolve_loss
from lamina.core.spec import NetworkSpec
from timing import estimator
from timing.clock import Ready
from timing.workloads import LEARNING_RATE, SEED, Workload


def train(workload: Workload, engine: str, n_threads: int) -> Ready:
    """Time one native call for all epochs, or `lamina.train` from end to end."""
    x, y = workload.rows()
    if workload.classes:
        y = y.astype(np.int32)
    if engine == "lamina.train":
        return _train_end_to_end(workload, x, y, n_threads)
    spec, theta = _network(workload)
    run = Run(
        make_engine(spec, theta),
        resolve_loss(None, spec.output),
        "adam",
        {},
        batch_size=workload.batch_size,
        seed=SEED,
        n_threads=n_threads,
    )
    n_steps = workload.epochs * workload.n_steps
    lr = np.full(n_steps, LEARNING_RATE)

    def call() -> np.ndarray:
        epoch = run.step // workload.n_steps
        losses, diverged = run.epochs(x, y, lr, first_epoch=epoch, n_epochs=workload.epochs)
        if diverged:
            raise FloatingPointError("the loss is not finite")
        return losses

    return Ready(call, lambda losses: losses[0], n_steps)


def _train_end_to_end(workload: Workload, x: np.ndarray, y: np.ndarray, n_threads: int) -> Ready:
    net = lamina.Network.from_spec(*_network(workload))

    def call() -> lamina.History:
        return lamina.train(
            net,
            x,
            y,
            optimizer=lamina.Adam(LEARNING_RATE),
            batch_size=workload.batch_size,
            max_epochs=workload.epochs,
            rng=SEED,
            n_threads=n_threads,
        )

    return Ready(call, lambda history: history.train_loss[0], workload.epochs * workload.n_steps)


def fit(workload: Workload, engine: str, n_threads: int) -> Ready:  # noqa: ARG001
    """Time `lamina.MLPClassifier.fit`."""
    return estimator.fit(lamina.MLPClassifier, workload, n_threads=n_threads)


def infer(workload: Workload, engine: str, n_threads: int) -> Ready:  # noqa: ARG001
    """Time a network called on NumPy rows; the threads come from LAMINA_NUM_THREADS."""
    net = lamina.Network.from_spec(*_network(workload))
    x, _ = workload.rows()
    return Ready(lambda: net(x), lambda y_pred: workload.error(x, y_pred))


def _network(workload: Workload) -> tuple[NetworkSpec, np.ndarray]:
    spec = NetworkSpec.create(
        workload.d_in,
        workload.widths,
        workload.d_out,
        output="softmax" if workload.classes else "identity",
        dtype=workload.dtype,
    )
    return spec, np.concatenate([a.ravel() for layer in workload.layers() for a in layer])
