"""JAX: one jitted scan over the steps of all epochs of a call, its state donated.

Rows are shuffled by NumPy, whose permutation is faster on the CPU than jax.random's; the indices
are known to be in bounds, which spares a clamp in every gather. The number of threads is that of
the CPUs the process may use, which ``engine.py`` has set.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lamina.bench.clock import Ready
from lamina.bench.workloads import LEARNING_RATE, SEED, Workload

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def train(workload: Workload, engine: str, n_threads: int) -> Ready:  # noqa: ARG001
    """Time the scan, the shuffle included."""
    jax.config.update("jax_enable_x64", workload.dtype == "float64")
    rows, target = workload.rows()
    x = jnp.asarray(rows)
    y = jnp.asarray(target.astype(np.int32) if workload.classes else target)
    rng = np.random.default_rng(SEED)
    loss = partial(_loss, classes=workload.classes)

    @partial(jax.jit, donate_argnums=0)
    def run(state: Any, x: jax.Array, y: jax.Array, order: jax.Array) -> Any:
        def step(state: Any, index: jax.Array) -> Any:
            params, m, v, t = state
            xb = x.at[index].get(mode="promise_in_bounds")
            yb = y.at[index].get(mode="promise_in_bounds")
            value, grad = jax.value_and_grad(loss)(params, xb, yb)
            return (*_adam(params, grad, m, v, t + 1), t + 1), value

        return jax.lax.scan(step, state, order)

    params = _params(workload)
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = [(params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), x.dtype))]

    def call() -> jax.Array:
        order = np.stack([rng.permutation(workload.n) for _ in range(workload.epochs)])
        order = order.astype(np.int32).reshape(-1, workload.batch_size)
        state[0], losses = jax.block_until_ready(run(state[0], x, y, order))
        return losses

    n_steps = workload.epochs * workload.n_steps
    return Ready(call, lambda losses: losses[: workload.n_steps].mean(), n_steps)


def infer(workload: Workload, engine: str, n_threads: int) -> Ready:  # noqa: ARG001
    """Time the jitted network on an array of JAX's own."""
    rows, _ = workload.rows()
    x, params = jnp.asarray(rows), _params(workload)
    forward = jax.jit(lambda params, x: jax.nn.softmax(_scores(params, x)))
    return Ready(
        lambda: forward(params, x).block_until_ready(),
        lambda y_pred: workload.error(rows, np.asarray(y_pred)),
    )


def _params(workload: Workload) -> Any:
    return [(jnp.asarray(weight.T), jnp.asarray(bias)) for weight, bias in workload.layers()]


def _scores(params: Any, x: jax.Array) -> jax.Array:
    *hidden, (weight, bias) = params
    for hidden_weight, hidden_bias in hidden:
        x = jax.nn.relu(x @ hidden_weight + hidden_bias)
    return x @ weight + bias


def _loss(params: Any, x: jax.Array, y: jax.Array, classes: bool) -> jax.Array:
    z = _scores(params, x)
    if not classes:
        return jnp.mean((z - y) ** 2)
    # One-hot: the gradient of an indexed read would be a scatter, which is slow here.
    one_hot = jax.nn.one_hot(y, z.shape[1], dtype=z.dtype)
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(z) * one_hot, axis=1))


def _adam(params: Any, grad: Any, m: Any, v: Any, t: jax.Array) -> tuple[Any, Any, Any]:
    m = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, m, grad)
    v = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, v, grad)
    rate, root = LEARNING_RATE / (1 - BETA_1**t), 1 / jnp.sqrt(1 - BETA_2**t)
    params = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) * root + EPSILON), params, m, v
    )
    return params, m, v
