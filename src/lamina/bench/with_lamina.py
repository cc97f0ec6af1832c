"""lamina: a training run in the engine, lamina.train, the estimator, a network called."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

import lamina
from lamina.bench import estimator
from lamina.bench.clock import Ready
from lamina.bench.engines import ENGINES
from lamina.bench.workloads import LEARNING_RATE, SEED, Workload
from lamina.core.engine import Run, make_engine, peak_flops
from lamina.core.losses import resolve_loss
from lamina.core.spec import NetworkSpec


def train(workload: Workload, engine: str, n_threads: int) -> Ready:
    """Time one native call for all epochs, or `lamina.train` from end to end."""
    x, y = workload.rows()
    if workload.classes:
        y = y.astype(np.int32)
    if engine == "lamina.train":
        return _train_end_to_end(workload, x, y, n_threads)
    precision = ENGINES[engine].precision
    spec, theta = _network(workload)
    before = _resident()
    run = Run(
        make_engine(spec, theta),
        resolve_loss(None, spec.output),
        "adam",
        {"bfloat16": precision == "bfloat16"},
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

    kind = precision if workload.dtype == "float32" else workload.dtype
    return Ready(
        call,
        lambda losses: losses[0],
        n_steps,
        beside=lambda: peak_flops(kind, n_threads, 0.005),
        memory=lambda: _resident() - before,
    )


def _resident() -> int:
    """Return the bytes of this process that are in memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


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
        activation=workload.activation,
        dtype=workload.dtype,
    )
    return spec, np.concatenate([a.ravel() for layer in workload.layers() for a in layer])
