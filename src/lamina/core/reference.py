"""The slow twin: what the native engine computes, as equations in float64 NumPy.

Layers run over l = 1 … L with h_0 = x, or encode(x) (core/encode.py)::

    u_l = concat(h_{l-1}, h_j for j in skips[l])              (n, fan_in_l)
    z_l = u_l W_l^T + b_l                                     (n, d_l)
    h_l = phi_l(z_l) * mask_l / (1 - p)  [+ h_{l-1}]          (n, d_l), hidden layers
    y_pred = output(z_L)                                      (n, d_out)

    loss = sum_i w_i loss_i / sum_i w_i                       over the rows i of a batch
    objective = loss + l2/2 sum_l |W_l|^2                     biases are never penalised

Everything here is a plain function of its arguments; nothing is modified in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core import encode
from lamina.core.functions import ACTIVATIONS, OUTPUTS, Float64
from lamina.core.losses import Loss, Target
from lamina.core.spec import NetworkSpec

Masks = Sequence[NDArray[Any]]
"""An array (n, d_l) of zeros and ones for each hidden layer: the units dropout keeps."""


@dataclass(frozen=True)
class Data:
    """Rows to learn from: x (n, d_in), y, and optional weights (n,) and (d_out,)."""

    x: Float64
    y: Target
    sample_weight: Float64 | None = None
    output_weight: Float64 | None = None

    def rows(self, index: NDArray[np.intp]) -> Data:
        """The rows of ``index``, in its order."""
        w = None if self.sample_weight is None else self.sample_weight[index]
        return Data(self.x[index], self.y[index], w, self.output_weight)


@dataclass(frozen=True)
class Trace:
    """What a forward pass saw of layer l: z[l - 1] and h[l - 1], (n, d_l); h[-1] is y_pred."""

    z: list[Float64]
    h: list[Float64]


# --- the network: forward, and backward in its mirror image -----------------------------------


def unpack(spec: NetworkSpec, theta: NDArray[Any]) -> list[tuple[Float64, Float64]]:
    """Split theta into W_l (d_l, fan_in_l) and b_l (d_l,), one pair a layer."""
    theta = np.asarray(theta, dtype=np.float64)
    return [
        (theta[weight].reshape(shape), theta[bias])
        for (weight, bias), (shape, _) in zip(spec.slices(), spec.parameter_shapes(), strict=True)
    ]


def unpack_table(spec: NetworkSpec, theta: NDArray[Any]) -> Float64:
    """The encoding's table (entries, features); no entries where there is none."""
    return np.asarray(theta[spec.table_slice], np.float64).reshape(spec.table_shape)


def input_layer(spec: NetworkSpec, theta: NDArray[Any], x: Float64) -> Float64:
    """h_0, shape (n, d_0)."""
    x = np.asarray(x, dtype=np.float64)
    if spec.encoding is None:
        return x
    return encode.encode(spec.encoding, unpack_table(spec, theta), x)


def forward(
    spec: NetworkSpec, theta: NDArray[Any], x: Float64, masks: Masks | None = None
) -> Trace:
    """Compute z_l and h_l of every layer.

    Parameters
    ----------
    spec : NetworkSpec
    theta : ndarray, shape (n_params,)
    x : ndarray, shape (n, d_in)
    masks : sequence of ndarray (n, d_l), optional
        One for each hidden layer; None switches dropout off.

    Returns
    -------
    Trace
    """
    z: list[Float64] = []
    h: list[Float64] = [input_layer(spec, theta, x)]  # h[l] is h_l
    for layer, (weight, bias) in enumerate(unpack(spec, theta), start=1):
        u_l = np.concatenate([h[j] for j in spec.sources(layer)], axis=1)  # (n, fan_in_l)
        z_l = u_l @ weight.T + bias  # (n, d_l)
        if layer < spec.n_layers:
            h_l = ACTIVATIONS[spec.activation_at(layer)].value(z_l)
            if masks is not None:
                h_l = h_l * masks[layer - 1] / (1.0 - spec.dropout)
        else:
            h_l = OUTPUTS[spec.output].value(z_l)
        if spec.residual_at(layer):
            h_l = h_l + h[layer - 1]
        z.append(z_l)
        h.append(h_l)
    return Trace(z, h[1:])


def backward(
    spec: NetworkSpec,
    theta: NDArray[Any],
    x: Float64,
    trace: Trace,
    grad_z: Float64,
    masks: Masks | None = None,
) -> tuple[Float64, Float64]:
    """Carry a gradient from z_L back to theta and x.

    Parameters
    ----------
    spec, theta, x, masks
        As given to ``forward``.
    trace : Trace
        What ``forward`` returned.
    grad_z : ndarray, shape (n, d_out)
        d loss / d z_L.

    Returns
    -------
    grad_theta : ndarray, shape (n_params,)
    grad_x : ndarray, shape (n, d_in)
    """
    h = [input_layer(spec, theta, x), *trace.h]
    grad_h = [np.zeros_like(h_l) for h_l in h]  # d loss / d h_l, summed over its readers
    grad_theta = np.empty(spec.n_params)
    for layer in range(spec.n_layers, 0, -1):
        weight, _ = unpack(spec, theta)[layer - 1]
        weight_slice, bias_slice = spec.slices()[layer - 1]
        if spec.residual_at(layer):
            grad_h[layer - 1] += grad_h[layer]
        if layer < spec.n_layers:
            phi = ACTIVATIONS[spec.activation_at(layer)]
            grad_z = grad_h[layer] * phi.derivative(trace.z[layer - 1])  # (n, d_l)
            if masks is not None:
                grad_z = grad_z * masks[layer - 1] / (1.0 - spec.dropout)
        u_l = np.concatenate([h[j] for j in spec.sources(layer)], axis=1)  # (n, fan_in_l)
        grad_theta[weight_slice] = (grad_z.T @ u_l).ravel()  # (d_l, fan_in_l) -> flat
        grad_theta[bias_slice] = grad_z.sum(axis=0)  # (d_l,)
        grad_u = grad_z @ weight  # (n, fan_in_l)
        start = 0
        for j in spec.sources(layer):
            grad_h[j] += grad_u[:, start : start + h[j].shape[1]]
            start += h[j].shape[1]
    if spec.encoding is None:
        return grad_theta, grad_h[0]
    table, x = unpack_table(spec, theta), np.asarray(x, dtype=np.float64)
    grad_table, grad_x = encode.backward(spec.encoding, table, x, grad_h[0])
    grad_theta[spec.table_slice] = grad_table.ravel()
    return grad_theta, grad_x


# --- the objective ----------------------------------------------------------------------------


def loss_value(spec: NetworkSpec, z: Float64, data: Data, loss: Loss) -> tuple[float, Float64]:
    """The mean loss of the rows, and its gradient with respect to z.

    Parameters
    ----------
    spec : NetworkSpec
    z : ndarray, shape (n, d_out)
        z_L.
    data : Data
    loss : Loss

    Returns
    -------
    value : float
    grad_z : ndarray, shape (n, d_out)

    Notes
    -----
    Rows whose weights are all zero have loss 0 and gradient 0.
    """
    n, d_out = z.shape
    w = np.ones(n) if data.sample_weight is None else np.asarray(data.sample_weight, np.float64)
    v = np.ones(d_out) if data.output_weight is None else np.asarray(data.output_weight, np.float64)
    y = data.y if data.y.dtype.kind in "iu" else data.y.astype(np.float64)
    total = w.sum()
    share = w / total if total > 0 else np.zeros(n)  # (n,)
    output = OUTPUTS[spec.output]
    value = float(share @ loss.value(z, y, v, output))
    return value, share[:, np.newaxis] * loss.gradient(z, y, v, output)


def evaluate(
    spec: NetworkSpec, theta: NDArray[Any], data: Data, loss: Loss, masks: Masks | None = None
) -> tuple[float, Float64, Float64]:
    """The loss and its gradients: forward, loss, backward.

    Parameters
    ----------
    spec : NetworkSpec
    theta : ndarray, shape (n_params,)
    data : Data
    loss : Loss
    masks : sequence of ndarray (n, d_l), optional
        As in ``forward``.

    Returns
    -------
    value : float
    grad_theta : ndarray, shape (n_params,)
    grad_x : ndarray, shape (n, d_in)
    """
    trace = forward(spec, theta, data.x, masks)
    value, grad_z = loss_value(spec, trace.z[-1], data, loss)
    return value, *backward(spec, theta, data.x, trace, grad_z, masks)


def weight_mask(spec: NetworkSpec) -> Float64:
    """1 where theta holds a weight, 0 where it holds a bias, shape (n_params,)."""
    mask = np.zeros(spec.n_params)
    for weight, _ in spec.slices():
        mask[weight] = 1.0
    return mask


# --- the optimisers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Hyper:
    """The numbers of an optimiser, named as the native engine's ``hyper``.

    ``epsilon_hat`` adds epsilon to sqrt(v) before v's bias is corrected; ``l2_per_row`` divides
    the l2 term by the weight of the batch, as scikit-learn's alpha.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    epsilon_hat: bool = False
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    l2: float = 0.0
    l2_per_row: bool = False


@dataclass(frozen=True)
class State:
    """Parameters and the optimiser's memory: m and v of Adam, or the velocity m of SGD."""

    theta: Float64
    m: Float64
    v: Float64
    step: int = 0

    @classmethod
    def start(cls, theta: NDArray[Any]) -> State:
        """The state before the first step."""
        zeros = np.zeros(len(theta))
        return cls(np.asarray(theta, dtype=np.float64), zeros, zeros)


Step = Callable[[State, Float64, float, Float64, Hyper], State]
"""A step function: (state, gradient, lr, decay, hyper) -> state."""


def adam_step(state: State, g: Float64, lr: float, decay: Float64, hyper: Hyper) -> State:
    """One step of Adam, with decoupled weight decay as in AdamW.

    Parameters
    ----------
    state : State
    g : ndarray, shape (n_params,)
        The gradient of the objective.
    lr : float
        The learning rate of this step.
    decay : ndarray, shape (n_params,)
        The share of lr * theta to take off first: weight_decay on weights, 0 on biases.
    hyper : Hyper

    References
    ----------
    Kingma and Ba (2015), arXiv:1412.6980, algorithm 1; with ``epsilon_hat``, the efficient form
    at the end of section 2. Loshchilov and Hutter (2019), arXiv:1711.05101, algorithm 2.
    """
    t = state.step + 1
    m = hyper.beta_1 * state.m + (1.0 - hyper.beta_1) * g
    v = hyper.beta_2 * state.v + (1.0 - hyper.beta_2) * g * g
    m_hat = m / (1.0 - hyper.beta_1**t)
    correction = np.sqrt(1.0 - hyper.beta_2**t)
    if hyper.epsilon_hat:
        direction = m_hat * correction / (np.sqrt(v) + hyper.epsilon)
    else:
        direction = m_hat / (np.sqrt(v) / correction + hyper.epsilon)
    # DIFF(Loshchilov 2019, algorithm 2): decay is scaled by lr too, as in PyTorch and optax.
    theta = state.theta - lr * decay * state.theta
    return State(theta - lr * direction, m, v, t)


def sgd_step(state: State, g: Float64, lr: float, decay: Float64, hyper: Hyper) -> State:
    """One step of gradient descent with momentum, plain or Nesterov's.

    Parameters
    ----------
    state, g, lr, decay, hyper
        As in ``adam_step``.

    References
    ----------
    Sutskever et al. (2013), "On the importance of initialization and momentum in deep learning",
    eq. 1 to 4; Nesterov's in the form that keeps theta at the point of look-ahead.
    """
    velocity = hyper.momentum * state.m - lr * g
    move = hyper.momentum * velocity - lr * g if hyper.nesterov else velocity
    theta = state.theta - lr * decay * state.theta
    return State(theta + move, velocity, state.v, state.step + 1)


def penalised(
    spec: NetworkSpec, theta: Float64, data: Data, loss: Loss, hyper: Hyper, masks: Masks | None
) -> tuple[float, Float64]:
    """The objective of a training step, loss + l2/2 sum_l |W_l|^2, and its gradient."""
    value, grad, _ = evaluate(spec, theta, data, loss, masks)
    l2 = hyper.l2
    if hyper.l2_per_row:
        total = len(data.x) if data.sample_weight is None else float(data.sample_weight.sum())
        l2 = l2 / total if total > 0 else 0.0
    weights = theta * weight_mask(spec)
    return value + 0.5 * l2 * float(weights @ weights), grad + l2 * weights


def train_epoch(
    spec: NetworkSpec,
    state: State,
    data: Data,
    loss: Loss,
    step: Step,
    hyper: Hyper,
    batches: Sequence[NDArray[np.intp]],
    lr: Sequence[float] | Float64,
    masks: Sequence[Masks] | None = None,
) -> tuple[State, float]:
    """Visit the rows once, a step a batch.

    Parameters
    ----------
    spec, state, data, loss, hyper
    step : function
        ``adam_step`` or ``sgd_step``.
    batches : sequence of integer arrays
        The rows of each batch; see ``split``.
    lr : sequence of float
        The learning rate of each batch's step.
    masks : sequence of Masks, optional
        The dropout masks of each batch.

    Returns
    -------
    state : State
    value : float
        The mean of the batches' objectives, each taken before its update, weighted by their rows.
    """
    decay = hyper.weight_decay * weight_mask(spec)
    total, n = 0.0, sum(map(len, batches))
    for b, index in enumerate(batches):
        mask = None if masks is None else masks[b]
        value, g = penalised(spec, state.theta, data.rows(index), loss, hyper, mask)
        before, state = state, step(state, g, float(lr[b]), decay, hyper)
        if step is adam_step:
            state = _keep_untouched(spec, before, state, g)
        total += value * len(index)
    return state, total / n


def _keep_untouched(spec: NetworkSpec, before: State, after: State, g: Float64) -> State:
    """Table entries whose gradient is exactly zero keep value and moments under Adam.

    References
    ----------
    Müller et al. (2022), arXiv:2201.05989, section 4.
    """
    keep = np.zeros(len(g), bool)
    keep[spec.table_slice] = g[spec.table_slice] == 0.0
    return State(
        np.where(keep, before.theta, after.theta),
        np.where(keep, before.m, after.m),
        np.where(keep, before.v, after.v),
        after.step,
    )


def split(order: NDArray[np.integer[Any]], batch_size: int) -> list[NDArray[np.intp]]:
    """Cut the order of the rows into batches; the last may be short."""
    index = order.astype(np.intp)
    return [index[start : start + batch_size] for start in range(0, len(index), batch_size)]


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Return the order (n,) in which an epoch visits the rows, as the engine draws it.

    Fisher-Yates up to 2^20 rows. Beyond, each row draws one of some buckets, the buckets follow
    one another, and each is shuffled by itself: as uniform, and what is swapped stays in cache.

    References
    ----------
    Sandelius (1962), "A simple randomization procedure"; Vigna (2015), splitmix64.
    """
    seeds, epochs = np.array([seed], np.uint64), np.array([epoch], np.uint64)
    key = _splitmix(seeds ^ _splitmix(epochs))  # (1,)
    if n <= 1 << 20:
        return _fisher_yates(np.arange(n, dtype=np.int32), key)
    n_buckets = 2
    while n_buckets < 1 << 10 and n > n_buckets << 15:
        n_buckets *= 2
    counter = np.arange(-(-n // 4)).astype(np.uint64)
    words = _splitmix(key + counter)
    draws = words[:, np.newaxis] >> np.arange(0, 64, 16, dtype=np.uint64)  # (n / 4, 4)
    bucket = (draws & np.uint64(n_buckets - 1)).ravel()[:n]
    order = np.argsort(bucket, kind="stable").astype(np.int32)
    ends = np.bincount(bucket.astype(np.intp), minlength=n_buckets).cumsum()[:-1]
    states = [_splitmix(~key + np.uint64(k)) for k in range(n_buckets)]
    parts = zip(np.split(order, ends), states, strict=True)
    return np.concatenate([_fisher_yates(*part) for part in parts])


def _splitmix(counter: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 bits that look random for each counter."""
    x = counter + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _fisher_yates(rows: NDArray[np.int32], key: NDArray[np.uint64]) -> NDArray[np.int32]:
    shuffled, state = rows.tolist(), int(key[0])
    for i in range(len(shuffled), 1, -1):
        state ^= state << 13 & 2**64 - 1  # xorshift64
        state ^= state >> 7
        state ^= state << 17 & 2**64 - 1
        j = (state >> 32) * i >> 32
        shuffled[i - 1], shuffled[j] = shuffled[j], shuffled[i - 1]
    return np.array(shuffled, np.int32)
