"""The engine's feed-forward networks as PyTorch operators: the only door from tensors to arrays.

``lamina::experts``
    y, without gradients; with packed weights where a slot keeps them.
``lamina::experts_to_learn``
    y, and the key to what the engine keeps for the backward pass.
``lamina::experts_backward``
    The gradients that are wanted. It has none of its own: a second derivative is refused.

A dense layer is one expert that sees every row. Tensors are float32 or bfloat16; float32 ones are
read and written where they lie. The engine takes and gives float32, so that tensors in bfloat16 are
converted on the way: rows cost little, but weights 6 bytes a parameter and pass, unless packed.
"""

from __future__ import annotations

import atexit
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from lamina.core.errors import DataError, SpecError
from lamina.core.grouped import ExpertFeedForward, ExpertPass, ExpertWeights
from lamina.transformer.packs import find_slot
from lamina.transformer.tensors import (
    FLOAT32,
    INT8,
    as_array,
    as_result,
    is_watched,
    memory,
    threads,
)


class Weights(NamedTuple):
    """Tensors of a layer: (d_ff, d_model) up and gate, (d_model, d_ff) down, biases or None.

    A mixture's have n_experts in front of each shape. A layer without gate has None there.
    """

    w_up: Tensor
    b_up: Tensor | None
    w_gate: Tensor | None
    b_gate: Tensor | None
    w_down: Tensor
    b_down: Tensor | None


def run(
    x: Tensor,
    weights: Weights,
    activation: str,
    precision: str,
    *,
    experts: Tensor | None = None,
    share: Tensor | None = None,
    slot: int = 0,
) -> Tensor:
    """Return y of the shape of x, by the operator that fits: to learn, or without gradients.

    Parameters
    ----------
    x : Tensor (..., d_model)
    weights : Weights
    activation, precision : str
        `precision` as from `native_precision`.
    experts : int32 Tensor (n, top_k), optional
        Which experts see each row; needed where the weights are those of several.
    share : Tensor (n, top_k), optional
        The weight of each; None: 1.
    slot : int
        Number of the `PackSlot` that may keep packed weights.

    Returns
    -------
    Tensor (..., d_model)
        Of x's dtype; under autocast in bfloat16.
    """
    half = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    rows = x.reshape(-1, x.shape[-1])  # (n, d_model)
    tensors = (rows, *weights, experts, share)
    y: Tensor
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        y, _ = experts_to_learn(*tensors, activation, precision, half)
    elif torch.compiler.is_compiling() or is_watched(rows):
        y = experts_alone(*tensors, activation, precision, half, slot)
    else:  # an operator's call costs 10 us, which is much beside one token
        y = _alone(*tensors, activation, precision, half, slot)
    return y.view(x.shape)


# --- between tensors and arrays ---------------------------------------------------------------


@lru_cache(maxsize=64)
def _engine(
    n_experts: int, d_model: int, d_ff: int, activation: str, gated: bool, precision: str
) -> ExpertFeedForward:
    lower = None if precision == FLOAT32 else precision
    return ExpertFeedForward(
        n_experts, d_model, d_ff, activation=activation, gated=gated, precision=lower, on_host=True
    )


def _engine_of(weights: Weights, activation: str, precision: str) -> ExpertFeedForward:
    shape = weights.w_up.shape
    n_experts = shape[0] if len(shape) == 3 else 1
    return _engine(
        n_experts, shape[-1], shape[-2], activation, weights.w_gate is not None, precision
    )


def _arrays(weights: Weights) -> list[ExpertWeights]:
    dense = weights.w_up.dim() == 2
    arrays: Any = [
        None if t is None else as_array(t)[np.newaxis] if dense else as_array(t) for t in weights
    ]
    up, b_up, gate, b_gate, down, b_down = arrays
    return [ExpertWeights(up, b_up, gate, b_gate), ExpertWeights(down, b_down)]


def _route(n: int, experts: Tensor | None, share: Tensor | None) -> dict[str, Any]:
    if experts is None:
        return {"offsets": np.array([0, n])}
    weight = None if share is None else as_array(share)
    if weight is not None and (bad := np.isnan(weight)).any():
        raise DataError(say_nan(int(bad.any(axis=1).sum()), n))
    return {"experts": experts.detach().to(torch.int32).contiguous().numpy(), "share": weight}


def say_nan(n_bad: int, n: int) -> str:
    """Return the sentence about tokens that no router can place."""
    return (
        f"MixtureOfExperts: expected finite activations, got NaN among the router's scores of "
        f"{n_bad} of {n} tokens. Look for NaN or infinity in x, and in the router's weights."
    )


# --- without gradients ------------------------------------------------------------------------


def _alone(
    x: Tensor,
    w_up: Tensor,
    b_up: Tensor | None,
    w_gate: Tensor | None,
    b_gate: Tensor | None,
    w_down: Tensor,
    b_down: Tensor | None,
    experts: Tensor | None,
    share: Tensor | None,
    activation: str,
    precision: str,
    half: bool,
    slot: int,
) -> Tensor:
    weights = Weights(w_up, b_up, w_gate, b_gate, w_down, b_down)
    engine = _engine_of(weights, activation, precision)
    y = memory(x.shape)
    rows, out, route, n_threads = as_array(x), y.numpy(), _route(len(x), experts, share), threads()
    tensors = [t for t in weights if t is not None]
    keeper = find_slot(slot, tensors)
    if keeper is None and precision == INT8:  # bytes have no other form than the pack
        pack = engine.pack(_arrays(weights), n_threads=n_threads)
        engine.run(pack, rows, out, **route, n_threads=n_threads)
    elif keeper is None:
        engine.forward(_arrays(weights), rows, **route, out=out, n_threads=n_threads)
    else:
        pack = keeper.get(
            tensors, engine, lambda: engine.pack(_arrays(weights), n_threads=n_threads)
        )
        engine.run(pack, rows, out, **route, n_threads=n_threads)
    return as_result(y, half)


experts_alone = torch.library.custom_op("lamina::experts", _alone, mutates_args=())


@experts_alone.register_fake
def _(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.bfloat16 if rest[10] else torch.float32)


# --- forward, for learning --------------------------------------------------------------------


class _Key(np.ndarray[Any, Any]):
    """A number, the memory of a tensor that autograd keeps; what it stands for lives as long."""

    passed: ExpertPass


_keys: WeakValueDictionary[int, _Key] = WeakValueDictionary()
_numbers = itertools.count()


def _keep(passed: ExpertPass) -> Tensor:
    key = np.array([next(_numbers)]).view(_Key)
    key.passed = replace(passed, weights=())  # converted weights are not kept
    _keys[int(key[0])] = key
    return torch.from_numpy(key)


def _to_learn(
    x: Tensor,
    w_up: Tensor,
    b_up: Tensor | None,
    w_gate: Tensor | None,
    b_gate: Tensor | None,
    w_down: Tensor,
    b_down: Tensor | None,
    experts: Tensor | None,
    share: Tensor | None,
    activation: str,
    precision: str,
    half: bool,
) -> tuple[Tensor, Tensor]:
    weights = Weights(w_up, b_up, w_gate, b_gate, w_down, b_down)
    y = memory(x.shape)
    _, passed = _engine_of(weights, activation, precision).forward(
        _arrays(weights),
        as_array(x),
        **_route(len(x), experts, share),
        out=y.numpy(),
        n_threads=threads(),
    )
    return as_result(y, half), _keep(passed)


@atexit.register
def _let_go() -> None:
    """Free what is the engine's while it still can be: graphs may outlive the interpreter."""
    for key in list(_keys.values()):
        del key.passed
    _engine.cache_clear()


experts_to_learn = torch.library.custom_op("lamina::experts_to_learn", _to_learn, mutates_args=())


@experts_to_learn.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    y = x.new_empty(x.shape, dtype=torch.bfloat16 if rest[10] else torch.float32)
    return y, torch.empty(1, dtype=torch.int64)


# --- backward ---------------------------------------------------------------------------------


def _backward(
    grad_y: Tensor,
    key: Tensor,
    x: Tensor,
    w_up: Tensor,
    b_up: Tensor | None,
    w_gate: Tensor | None,
    b_gate: Tensor | None,
    w_down: Tensor,
    b_down: Tensor | None,
    experts: Tensor | None,
    share: Tensor | None,
    activation: str,
    precision: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Return the gradients of those of x, the weights and share that are `wanted`, in order."""
    weights = Weights(w_up, b_up, w_gate, b_gate, w_down, b_down)
    engine, arrays = _engine_of(weights, activation, precision), _arrays(weights)
    kept = _keys.get(int(key))
    if kept is None:  # the key is a copy (offloaded, or cloned by a compiler): once more
        route = _route(len(x), experts, share)
        _, passed = engine.forward(arrays, as_array(x), **route, n_threads=threads())
    else:
        passed = replace(kept.passed, weights=tuple(arrays))
    inputs = (x, *weights, share)
    # Where most experts are idle, their zeros cost most: pages that stay untouched are free.
    idle = experts is not None and experts.numel() < w_up.shape[0]
    grads = [
        memory(t.shape, idle) if t is not None and want else None
        for t, want in zip(inputs, wanted, strict=True)
    ]
    dense = w_up.dim() == 2
    into = [
        None if g is None else g.numpy()[np.newaxis] if dense else g.numpy() for g in grads[1:7]
    ]
    done = engine.backward(
        passed,
        as_array(grad_y),
        x=grads[0] is not None,
        share=grads[7] is not None,
        weights=[ExpertWeights(*into[:4]), ExpertWeights(*into[4:])]  # type: ignore[arg-type]
        if any(a is not None for a in into)
        else False,
        keep_idle=idle,
        n_threads=threads(),
    )
    grads[0] = None if done.x is None else torch.from_numpy(done.x)
    grads[7] = None if done.share is None else torch.from_numpy(done.share)
    return [
        g.to(t.dtype) for g, t in zip(grads, inputs, strict=True) if g is not None and t is not None
    ]


experts_backward = torch.library.custom_op("lamina::experts_backward", _backward, mutates_args=())


@experts_backward.register_fake
def _(grad_y: Tensor, key: Tensor, *rest: Any) -> list[Tensor]:  # noqa: ARG001 (its signature)
    inputs = (*rest[:7], rest[8])
    return [
        t.new_empty(t.shape)
        for t, want in zip(inputs, rest[-1], strict=True)
        if t is not None and want
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.activation, ctx.precision, _ = inputs
    ctx.save_for_backward(*tensors, output[1])


def _pull_back(ctx: Any, grad_y: Tensor, _: Any) -> tuple[Any, ...]:
    *tensors, key = ctx.saved_tensors
    wanted = [*ctx.needs_input_grad[:7], ctx.needs_input_grad[8]]
    wanted = [w and t is not None for w, t in zip(wanted, (*tensors[:7], tensors[8]), strict=True)]
    found = iter(experts_backward(grad_y, key, *tensors, ctx.activation, ctx.precision, wanted))
    grads = [next(found) if want else None for want in wanted]
    return (*grads[:7], None, grads[7], None, None, None)


experts_to_learn.register_autograd(_pull_back, setup_context=_save)


def _refuse(ctx: Any, *grads: Any) -> Any:  # noqa: ARG001 (its signature)
    raise SpecError(
        "lamina.transformer: expected one derivative, got a backward pass through a backward pass, "
        "which the engine does not compute. Make the module with native=False for second "
        "derivatives."
    )


experts_backward.register_autograd(_refuse)
