"""Between PyTorch's tensors and the engine's arrays: which are taken, and how they change hands."""

from __future__ import annotations

import ctypes
import math
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lamina.core.engine import bfloat16_unit, check_bfloat16, set_host
from lamina.core.threads import recent_n_threads

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
_SMALL: Final = 1 << 20  # elements: NumPy's huge pages begin at 4 MiB


def _lend_threads() -> None:
    """Let the engine's products run on PyTorch's OpenMP threads, where these are libgomp's.

    They spin for milliseconds after each of PyTorch's own products, so that they are awake, and
    threads of the engine's own would have to share processors with them: a token through a model
    took a third longer.
    """
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return
    try:  # the one that PyTorch's calls go to: the process's first
        parallel = ctypes.CDLL(None).GOMP_parallel
    except (OSError, TypeError, AttributeError):  # another runtime, another system
        return
    set_host(ctypes.cast(parallel, ctypes.c_void_p).value or 0)


_lend_threads()


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


def is_watched(x: Tensor) -> bool:
    """Tell whether someone looks on at the level of operators: a mode, a tracer, a subclass."""
    return (
        type(x) not in (Tensor, torch.nn.Parameter)
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None  # torch.jit.trace
    )


def memory(shape: torch.Size, zeros: bool = False) -> Tensor:
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


def as_array(t: Tensor) -> Any:
    """Return a tensor's float32 values, without a copy where they are contiguous float32."""
    t = t.detach()
    if t.dtype != torch.float32:
        return memory(t.shape).copy_(t).numpy()
    return t.contiguous().numpy()


def threads() -> int:
    """Return how many threads the engine should use: no more than PyTorch does."""
    return min(recent_n_threads(), torch.get_num_threads())


def as_result(y: Tensor, half: bool) -> Tensor:
    """Return y in bfloat16 where that is wanted."""
    return y.to(torch.bfloat16) if half else y
