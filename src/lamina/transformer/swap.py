"""`accelerate` and `restore`: a Hugging Face model's feed-forward blocks run by the engine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from lamina.bridges.huggingface import find_blocks, find_head
from lamina.core.checks import check_choice, check_number
from lamina.core.engine import check_bfloat16
from lamina.core.errors import DataError, SpecError
from lamina.transformer.acceleration import Acceleration, BlockReport
from lamina.transformer.experts_interface import register_experts
from lamina.transformer.native_block import NativeBlock, PassedOn
from lamina.transformer.native_head import NativeHead
from lamina.transformer.role_times import evaluating

Run = Callable[..., Tensor]

DTYPES: Final = ("float32", "bfloat16", "int8")
# Relative errors over all rows. bfloat16 keeps 8 bits, so that both sides are off by some 0.5 %;
# bytes with a scale for every 128 weights by 1 %.
TOLERANCE: Final = {"float32": 1e-5, "bfloat16": 2e-2, "int8": 5e-2}
N_ROWS: Final = 128
_NOT_MEASURED: Final = (math.nan, math.nan)


def accelerate(
    model: Any,
    dtype: str = "bfloat16",
    *,
    sample_inputs: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    measure: bool = True,
    head: bool = True,
) -> Acceleration:
    """Have the engine run every feed-forward and expert block of a model, where it does so right.

    The model is changed in place and keeps its modules, parameters and state_dict; `restore` undoes
    it. Each block is tried on sample rows first and left as it was if it does not match.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers model on the CPU, in float32 or bfloat16; or a part of one.
    dtype : {"bfloat16", "float32", "int8"}, default "bfloat16"
        Of the products' factors; sums are float32. "bfloat16" needs AMX or AVX-512-BF16. "int8"
        runs passes without gradients; with gradients the original runs.
    sample_inputs : mapping, optional
        Arguments of the model: each block is tried on what reaches it in one forward pass. None:
        on rows of normal numbers, as large as a LayerNorm's output.
    tolerance : float, optional
        The largest relative error that a block may have; None: 1e-5 in float32, 0.02 in bfloat16
        (also where the model is in bfloat16), 0.05 in int8.
    measure : bool, default True
        Whether to time both, on all sample rows and on one: some milliseconds a block.
    head : bool, default True
        Whether to run the output head too, where the model has one that is a plain linear layer:
        one matrix, but all of it is read for every token. Passes with gradients run the original.

    Returns
    -------
    Acceleration
        Error and speed block by block; print it.

    Raises
    ------
    SpecError
        If no block is recognised, layers are quantised or wrapped by LoRA, or this processor
        multiplies no bfloat16.
    DataError
        If `model` is on the meta device or `sample_inputs` do not suit it.

    Notes
    -----
    In evaluation mode without gradients each block's weights are packed once, beside the model's
    own: its bytes in `dtype` again. A write to ``parameter.data`` leaves no trace: accelerate
    again after one.

    The engine is registered with transformers' experts interface too, as "lamina", see
    `register_experts`.

    Examples
    --------
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> from lamina import transformer
    >>> config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=99)
    >>> gpt2 = GPT2LMHeadModel(config).eval()
    >>> report = transformer.accelerate(gpt2, "float32", measure=False)
    >>> report.n_swapped, report.error < 1e-5
    (2, True)
    >>> transformer.restore(gpt2)
    2
    """
    where = "accelerate"
    dtype = check_choice(dtype, DTYPES, "dtype", where)
    if tolerance is not None:
        tolerance = check_number(tolerance, "tolerance", where, 0.0)
    if dtype == "bfloat16":
        check_bfloat16(where)
    blocks = find_blocks(model, where)
    restore(model)
    found = find_head(model) if head else None
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        raise DataError(f"{where}: expected a model with weights, got one on the meta device. "
                        "Load the weights first.")  # fmt: skip
    register_experts()
    with evaluating(model):
        firsts = {b.path: NativeBlock(b, "float32").patches()[0][0] for b in blocks}
        if found is not None:
            firsts[found[0]] = found[1]
        samples = {} if sample_inputs is None else _capture(model, firsts, sample_inputs, where)
        trials = [
            _try(NativeBlock(block, dtype), samples.get(block.path), tolerance, measure)
            for block in blocks
        ]
        of_head = None
        if found is not None:
            of_head = _try_head(*found, dtype, samples.get(found[0]), tolerance, measure)
    reports, allowed, rows = zip(*trials, strict=True)
    return Acceleration(dtype, max(allowed), max(rows), tuple(reports), of_head)


def _try(
    native: NativeBlock, inputs: tuple[Tensor, ...] | None, tolerance: float | None, measure: bool
) -> tuple[BlockReport, float, int]:
    """Swap a block if it matches; return what became of it, its tolerance and its sample rows."""
    block = native.block
    allowed = _allowed(native.precision, native.weights().w_up) if tolerance is None else tolerance
    inputs = inputs or _random_inputs(native)
    trial = _Trial(native, native.whole_original, native.why_not(), inputs, allowed, measure)
    if not trial.reason:
        for module, forward in native.patches():
            module.__dict__["forward"] = forward
    return (
        trial.report(block.path, block.layer, block.kind, block.n_params),
        allowed,
        len(inputs[0]),
    )


def _try_head(
    path: str,
    module: Any,
    dtype: str,
    inputs: tuple[Tensor, ...] | None,
    tolerance: float | None,
    measure: bool,
) -> BlockReport:
    """Swap the head if it matches; return what became of it."""
    native = NativeHead(module, dtype)
    allowed = _allowed(dtype, module.weight) if tolerance is None else tolerance
    inputs = inputs or (_rows(module.in_features, module.weight.dtype),)
    reason = native.why_not()
    trial = _Trial(native, native.original, reason, inputs, allowed, measure, native.by_engine)
    if not trial.reason:
        module.__dict__["forward"] = native
    return trial.report(path, -1, "head", sum(p.numel() for p in module.parameters()))


class _Trial:
    """What the engine and the original make of sample rows, and how long they take.

    Parameters
    ----------
    native, original : callable
        From sample rows to y.
    reason : str
        Why the engine cannot run it; nothing is tried then.
    inputs : tuple of Tensor
    allowed : float
        The largest relative error.
    measure : bool
    checked : callable, optional
        What is compared, where `native` leaves some rows to the original.
    """

    def __init__(
        self,
        native: Run,
        original: Run,
        reason: str,
        inputs: tuple[Tensor, ...],
        allowed: float,
        measure: bool,
        checked: Run | None = None,
    ) -> None:
        self.reason, self.error = reason, math.nan
        self.prefill = self.decode = _NOT_MEASURED
        if reason:
            return
        self.error = _error(checked or native, original, inputs)
        if self.error != self.error:
            self.reason = "it gives no finite numbers on the sample rows"
        elif self.error > allowed:
            self.reason = f"its error is {self.error:.1e}, above the tolerance of {allowed:.1e}"
        elif measure:
            self.prefill = _race(native, original, inputs)
            self.decode = _race(native, original, tuple(x[:1] for x in inputs))

    def report(self, path: str, layer: int, kind: str, n_params: int) -> BlockReport:
        """Return what became of it."""
        return BlockReport(
            path=path,
            layer=layer,
            kind=kind,
            n_params=n_params,
            swapped=not self.reason,
            reason=self.reason,
            error=self.error,
            prefill=self.prefill,
            decode=self.decode,
        )


def restore(model: Any) -> int:
    """Give every block and the head their own forward back, and let go of packed weights.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    int
        The number of blocks that `accelerate` had changed, the head not counted; 0 is no error.
    """
    if not callable(getattr(model, "modules", None)):
        raise SpecError(
            f"restore: expected a model of PyTorch modules, got {type(model).__name__}. "
            "Pass the one that was accelerated."
        )
    n = 0
    for module in model.modules():
        forward = module.__dict__.get("forward")
        if isinstance(forward, NativeBlock | NativeHead | PassedOn):
            del module.__dict__["forward"]
            n += isinstance(forward, NativeBlock)
    return n


# ----------------------------------------------------------------------------------- does it match?


def _allowed(precision: str, weight: Tensor) -> float:
    """Return the tolerance: that of the products, or of the model's own dtype if it is coarser."""
    own = str(weight.dtype).removeprefix("torch.")
    return max(TOLERANCE[precision], TOLERANCE.get(own, 0.0))


def _rows(width: int, dtype: torch.dtype) -> Tensor:
    """Return rows of a LayerNorm's size."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N_ROWS, width, generator=generator).to(dtype)


def _random_inputs(native: NativeBlock) -> tuple[Tensor, ...]:
    """Return rows of a LayerNorm's size, and for experts a random route."""
    block = native.block
    rows = _rows(block.d_model, native.weights().w_up.dtype)
    if block.kind != "experts":
        return (rows,)
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(N_ROWS, block.n_experts, generator=generator)
    share, ids = scores.softmax(-1).topk(block.top_k)
    return rows, ids, (share / share.sum(-1, keepdim=True)).to(rows.dtype)


def _capture(
    model: Any, firsts: dict[str, Any], inputs: Mapping[str, Any], where: str
) -> dict[str, tuple[Tensor, ...]]:
    """Return what reaches each block's first module in a forward pass, as rows."""
    found: dict[str, tuple[Tensor, ...]] = {}
    handles = []
    for path, first in firsts.items():

        def keep(_: Any, args: Any, named: Any, path: str = path) -> None:
            tensors = [*args, *named.values()]
            found[path] = tuple(t.detach().reshape(-1, t.shape[-1]) for t in tensors)

        handles.append(first.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        with torch.no_grad():
            model(**inputs)
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{where}: expected sample_inputs that the model takes, got an error from it: {text}. "
            "Pass what you pass to the model."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return found


def _error(native: Run, original: Run, inputs: tuple[Tensor, ...]) -> float:
    """Return the relative error of the engine's y, NaN if either is not finite."""
    with torch.no_grad():
        want = original(*inputs).double()
        got = native(*inputs).double()
    if not (want.isfinite().all() and got.isfinite().all()):
        return math.nan
    size = float(want.norm())
    return float((got - want).norm()) / size if size else float(got.norm())


def _race(native: Run, original: Run, inputs: tuple[Tensor, ...]) -> tuple[float, float]:
    """Return the median seconds of the original and of the engine, run in turns."""
    before: list[float] = []
    after: list[float] = []
    end = time.perf_counter() + 0.02
    with torch.no_grad():
        for turn in range(50):
            start = time.perf_counter()
            original(*inputs)
            middle = time.perf_counter()
            native(*inputs)
            before.append(middle - start)
            after.append(time.perf_counter() - middle)
            if turn >= 3 and time.perf_counter() > end:
                break
    return statistics.median(before[1:]), statistics.median(after[1:])
