"""PyTorch: eager float32 or float64, bfloat16, or compiled.

Its best fair setting: one thread or all, whichever is faster; fused Adam, gradients set to None,
index_select to gather, denormals flushed as lamina does, tensors converted beforehand,
inference_mode. bfloat16 trains under autocast; for inference the weights are converted once, which
autocast would do in every call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lamina.bench.clock import Ready, each_thread_count
from lamina.bench.workloads import LEARNING_RATE, SEED, Workload

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def train(workload: Workload, engine: str, n_threads: int) -> list[Ready]:
    """Time epochs of shuffled steps."""
    _set_up()
    x, y = map(torch.from_numpy, workload.rows())
    model = _model(workload)
    score = nn.CrossEntropyLoss() if workload.classes else nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)

    def forward(xb: torch.Tensor, yb: torch.Tensor) -> torch.Tensor:
        return score(model(xb), yb)

    loss_of: Any = torch.compile(forward) if engine == "torch.compile" else forward
    bf16 = engine == "torch bf16"

    def epoch() -> list[torch.Tensor]:
        losses = []
        for rows in torch.randperm(workload.n).split(workload.batch_size):
            xb, yb = x.index_select(0, rows), y.index_select(0, rows)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = loss_of(xb, yb)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses

    ready = Ready(
        lambda: [epoch() for _ in range(workload.epochs)],
        lambda epochs: torch.stack(epochs[0]).double().mean().item(),
        workload.epochs * workload.n_steps,
    )
    return each_thread_count(ready, n_threads, torch.set_num_threads)


def infer(workload: Workload, engine: str, n_threads: int) -> list[Ready]:
    """Time the module, in inference mode, on a tensor."""
    _set_up()
    rows, _ = workload.rows()
    x = torch.from_numpy(rows)
    model: Any = nn.Sequential(*_model(workload), nn.Softmax(1)).eval()
    if engine == "torch bf16":
        x, model = x.bfloat16(), model.bfloat16()
    elif engine == "torch.compile":
        model = torch.compile(model)

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return model(x)

    ready = Ready(call, lambda y_pred: workload.error(rows, y_pred.double().numpy()))
    return each_thread_count(ready, n_threads, torch.set_num_threads)


def _set_up() -> None:
    torch.set_flush_denormal(True)
    torch.manual_seed(SEED)


def _model(workload: Workload) -> nn.Sequential:
    modules: list[nn.Module] = []
    for weight, bias in workload.layers():
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data = torch.from_numpy(weight)
        linear.bias.data = torch.from_numpy(bias)
        modules += [linear, _ACTIVATIONS[workload.activation]()]
    return nn.Sequential(*modules[:-1])
