"""The time of a forward pass, by role: a stopwatch at the door of every module."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

N_RUNS: Final = 5


class Stopwatch:
    """Hooks that give each moment to the role of the innermost module that is running."""

    def __init__(self, model: Any, roles: dict[str, str]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.running: list[str] = []
        self.last = 0.0
        self.handles: list[Any] = []
        for path, module in model.named_modules():
            role, parent = roles[path], roles.get(path.rpartition(".")[0])
            if role == parent and path:
                continue  # its parent's hooks have it, at half the overhead
            self.handles.append(module.register_forward_pre_hook(self._enter(role)))
            self.handles.append(module.register_forward_hook(self._leave, always_call=True))

    def _enter(self, role: str) -> Any:
        def enter(*_: Any) -> None:
            self._turn()
            self.running.append(role)

        return enter

    def _leave(self, *_: Any) -> None:
        self._turn()
        self.running.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self.running:
            self.seconds[self.running[-1]] += now - self.last
        self.last = now

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self.handles:
            handle.remove()


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Have all modules in evaluation mode, and afterwards each in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def time_by_role(
    model: Any, roles: dict[str, str], n_tokens: int, *, n_threads: int | None = None
) -> dict[str, float]:
    """Return the median seconds of each role in a forward pass over `n_tokens` random tokens.

    The model is left as it was, in training mode or not; dropout is off meanwhile.
    """
    import torch

    inputs = sample_inputs(model, n_tokens)
    threads = torch.get_num_threads()
    runs: list[dict[str, float]] = []
    try:
        if n_threads is not None:
            torch.set_num_threads(n_threads)
        with evaluating(model), torch.no_grad():
            model(**inputs)  # the first pass allocates and chooses kernels
            for _ in range(N_RUNS):
                watch = Stopwatch(model, roles)
                try:
                    model(**inputs)
                finally:
                    watch.remove()
                runs.append(dict(watch.seconds))
    finally:
        torch.set_num_threads(threads)
    names = {role for run in runs for role in run}
    return {role: statistics.median(run.get(role, 0.0) for run in runs) for role in names}


def sample_inputs(model: Any, n_tokens: int) -> dict[str, Any]:
    """Return one row of random tokens, no more of them than the model has positions for."""
    import torch

    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    for name in ("max_position_embeddings", "n_positions", "max_target_positions"):
        n_tokens = min(n_tokens, int(getattr(config, name, None) or n_tokens))
    ids = torch.randint(0, config.vocab_size, (1, n_tokens), generator=generator).to(device)
    if config.model_type == "whisper":
        length = 2 * config.max_source_positions
        sound = torch.randn(1, config.num_mel_bins, length, generator=generator)
        return {"input_features": sound.to(next(model.parameters())), "decoder_input_ids": ids}
    if getattr(config, "is_encoder_decoder", False):
        return {"input_ids": ids, "decoder_input_ids": ids}
    return {"input_ids": ids}
