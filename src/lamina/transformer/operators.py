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
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from lamina.core.engine import bfloat16_unit, check_bfloat16
from lamina.core.errors import DataError, SpecError
from lamina.core.grouped import ExpertFeedForward, ExpertPass, ExpertWeights
from lamina.core.threads import recent_n_threads
from lamina.transformer.packs import find_slot

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"


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


def native_precision(x: Tensor, weight: Tensor, precision: str | None, where: str) -> str | None:
    """Return which engine path suits: "float32", "bfloat16", or None for plain torch.

    Parameters
    ----------
    x, weight : Tensor
        Rows, and one of the layer's matrices.
    precision : None or "bfloat16"
        The module's wish for float32 tensors.
    where : str
        Who asks, for the error.

    Raises
    ------
    SpecError
        If bfloat16 was wished for and this processor multiplies none.
    """
    if x.device.type != "cpu" or weight.device.type != "cpu" or x.layout != torch.strided:
        return None
    # vmap, jvp and torch.func.grad transform torch's operators, not the engine.
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        return None
    kinds = {x.dtype, weight.dtype}
    if not kinds <= {torch.float32, torch.bfloat16}:
        return None
    if torch.is_autocast_enabled("cpu"):
        wanted = torch.get_autocast_dtype("cpu") == torch.bfloat16
        return BFLOAT16 if wanted and _has_bfloat16() else None
    if kinds == {torch.bfloat16}:
        return BFLOAT16 if _has_bfloat16() else None
    if kinds != {torch.float32}:
        return None  # torch refuses to mix them
    if precision == BFLOAT16 and not _has_bfloat16():
        check_bfloat16(where)
    return precision or FLOAT32


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_bfloat16() -> bool:
    return bfloat16_unit() is not None


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
    elif torch.compiler.is_compiling() or _watched(rows):
        y = experts_alone(*tensors, activation, precision, half, slot)
    else:  # an operator's call costs 10 us, which is much beside one token
        y = _alone(*tensors, activation, precision, half, slot)
    return y.view(x.shape)


def _watched(x: Tensor) -> bool:
    """Tell whether someone looks on at the level of operators: a mode, a tracer, a subclass."""
    return (
        type(x) not in (Tensor, torch.nn.Parameter)
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None  # torch.jit.trace
    )


# --- between tensors and arrays ---------------------------------------------------------------


@lru_cache(maxsize=64)
def _engine(
    n_experts: int, d_model: int, d_ff: int, activation: str, gated: bool, precision: str
) -> ExpertFeedForward:
    lower = None if precision == FLOAT32 else precision
    return ExpertFeedForward(
        n_experts, d_model, d_ff, activation=activation, gated=gated, precision=lower
    )


def _engine_of(weights: Weights, activation: str, precision: str) -> ExpertFeedForward:
    shape = weights.w_up.shape
    n_experts = shape[0] if len(shape) == 3 else 1
    return _engine(
        n_experts, shape[-1], shape[-2], activation, weights.w_gate is not None, precision
    )


def _memory(shape: torch.Size, zeros: bool = False) -> Tensor:
    """Return a float32 tensor to write to.

    NumPy takes large memory in huge pages, and zeros that are not written cost nothing: a mixture's
    gradients are 100 MB a step, and their small pages took a tenth of it.
    """
    n = math.prod(shape)
    if n < _SMALL and not zeros:
        return torch.empty(shape, dtype=torch.float32)
    raw = (np.zeros if zeros else np.empty)(n + 16, np.float32)
    skip = -raw.ctypes.data % 64 // 4  # to a cache line's begin
    return torch.from_numpy(raw[skip : skip + n].reshape(shape))


_SMALL = 1 << 20  # elements: NumPy's huge pages begin at 4 MiB


def _array(t: Tensor) -> Any:
    """Return a tensor's float32 values, without a copy where they are contiguous float32."""
    t = t.detach()
    if t.dtype != torch.float32:
        return _memory(t.shape).copy_(t).numpy()
    return t.contiguous().numpy()


def _arrays(weights: Weights) -> list[ExpertWeights]:
    dense = weights.w_up.dim() == 2
    arrays: Any = [
        None if t is None else _array(t)[np.newaxis] if dense else _array(t) for t in weights
    ]
    up, b_up, gate, b_gate, down, b_down = arrays
    return [ExpertWeights(up, b_up, gate, b_gate), ExpertWeights(down, b_down)]


def _route(n: int, experts: Tensor | None, share: Tensor | None) -> dict[str, Any]:
    if experts is None:
        return {"offsets": np.array([0, n])}
    weight = None if share is None else _array(share)
    if weight is not None and (bad := np.isnan(weight)).any():
        raise DataError(say_nan(int(bad.any(axis=1).sum()), n))
    return {"experts": experts.detach().to(torch.int32).contiguous().numpy(), "share": weight}


def say_nan(n_bad: int, n: int) -> str:
    """Return the sentence about tokens that no router can place."""
    return (
        f"MixtureOfExperts: expected finite activations, got NaN among the router's scores of "
        f"{n_bad} of {n} tokens. Look for NaN or infinity in x, and in the router's weights."
    )


def _threads() -> int:
    return min(recent_n_threads(), torch.get_num_threads())


def _result(y: Tensor, half: bool) -> Tensor:
    return y.to(torch.bfloat16) if half else y


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
    y = _memory(x.shape)
    rows, out, route, n_threads = _array(x), y.numpy(), _route(len(x), experts, share), _threads()
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
    return _result(y, half)


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
    y = _memory(x.shape)
    _, passed = _engine_of(weights, activation, precision).forward(
        _arrays(weights),
        _array(x),
        **_route(len(x), experts, share),
        out=y.numpy(),
        n_threads=_threads(),
    )
    return _result(y, half), _keep(passed)


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
        _, passed = engine.forward(arrays, _array(x), **route, n_threads=_threads())
    else:
        passed = replace(kept.passed, weights=tuple(arrays))
    inputs = (x, *weights, share)
    # Where most experts are idle, their zeros cost most: pages that stay untouched are free.
    idle = experts is not None and experts.numel() < w_up.shape[0]
    grads = [
        _memory(t.shape, idle) if t is not None and want else None
        for t, want in zip(inputs, wanted, strict=True)
    ]
    dense = w_up.dim() == 2
    into = [
        None if g is None else g.numpy()[np.newaxis] if dense else g.numpy() for g in grads[1:7]
    ]
    done = engine.backward(
        passed,
        _array(grad_y),
        x=grads[0] is not None,
        share=grads[7] is not None,
        weights=[ExpertWeights(*into[:4]), ExpertWeights(*into[4:])]  # type: ignore[arg-type]
        if any(a is not None for a in into)
        else False,
        keep_idle=idle,
        n_threads=_threads(),
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
