"""The whole model's speed, as it was and accelerated, in turns."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import torch

from lamina.transformer.native_block import NativeBlock, PassedOn
from lamina.transformer.native_head import NativeHead
from lamina.transformer.role_times import evaluating, sample_inputs

N_TURNS: Final = 5
N_STEPS: Final = 8  # tokens a turn


class ModelSpeed(NamedTuple):
    """Median seconds of a forward pass over a prompt, and of one token after it.

    Each a pair: as the model was, and accelerated. `decode` is None of a model that keeps no cache
    from one token to the next, such as BERT.
    """

    n_tokens: int
    prefill: tuple[float, float]
    decode: tuple[float, float] | None


@contextmanager
def as_it_was(model: Any) -> Iterator[None]:
    """Have an accelerated model run its own blocks for a while; packed weights are kept."""
    taken = [
        (module, module.__dict__.pop("forward"))
        for module in model.modules()
        if isinstance(module.__dict__.get("forward"), NativeBlock | NativeHead | PassedOn)
    ]
    try:
        yield
    finally:
        for module, forward in taken:
            module.__dict__["forward"] = forward


def model_speed(model: Any, n_tokens: int = 128) -> ModelSpeed:
    """Time an accelerated model against what it was, on one row of random tokens.

    Parameters
    ----------
    model : torch.nn.Module
        One that `accelerate` changed.
    n_tokens : int
        Length of the prompt, at most what the model has positions for.
    """
    inputs = sample_inputs(model, n_tokens)
    prefill: tuple[list[float], list[float]] = ([], [])
    decode: tuple[list[float], list[float]] = ([], [])
    with evaluating(model), torch.no_grad():
        for turn in range(N_TURNS + 1):
            with as_it_was(model):
                _turn(model, inputs, turn > 0, prefill[0], decode[0])
            _turn(model, inputs, turn > 0, prefill[1], decode[1])
    before, after = (statistics.median(times) for times in prefill)
    steps = None
    if decode[0] and decode[1]:
        steps = (statistics.median(decode[0]), statistics.median(decode[1]))
    length = next(t for name, t in inputs.items() if name.endswith("input_ids")).shape[1]
    return ModelSpeed(int(length), (before, after), steps)


def _turn(
    model: Any, inputs: dict[str, Any], counts: bool, prefill: list[float], decode: list[float]
) -> None:
    """Time a prompt and some tokens after it; the first turn warms up."""
    start = time.perf_counter()
    out = model(**inputs)
    if counts:
        prefill.append(time.perf_counter() - start)
    takes = inspect.signature(model.forward).parameters
    name = "cache" if "cache" in takes else "past_key_values"  # its name before transformers 5.2x
    cache = getattr(out, "cache", None) or getattr(out, "past_key_values", None)
    if cache is None or name not in takes or "input_ids" not in inputs:
        return
    token = inputs["input_ids"][:, -1:]
    for _ in range(N_STEPS):
        start = time.perf_counter()
        model(input_ids=token, **{name: cache}, use_cache=True)
        if counts:
            decode.append(time.perf_counter() - start)
