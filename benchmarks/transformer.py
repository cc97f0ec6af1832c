"""Time feed-forward layers and mixtures of experts against PyTorch's and transformers' own.

::

    python benchmarks/transformer.py
    python benchmarks/transformer.py --cases ffn,moe-one-token --rounds 3

Engines take turns within a round, in changing order, with a pause before each: PyTorch's threads
spin for milliseconds after its operators. Ratios are taken within a round; times are medians of
wall time and of all threads' processor time, which other processes disturb less, least with one.
Results and gradients are compared before anything is timed. Peers are given their best: parameters
of the products' own dtype, ``inference_mode`` where nothing is learned, gradients set to None.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.mixtral import modeling_mixtral as mixtral

from lamina.bench import host
from lamina.core.engine import bfloat16_unit, peak_flops
from lamina.core.threads import default_n_threads
from lamina.transformer import FeedForward, MixtureOfExperts

BF16 = torch.bfloat16


class TorchFeedForward(nn.Module):
    """The layer as everyone writes it."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))


class Autocast(nn.Module):
    """A module under autocast to bfloat16."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", BF16):
            return self.module(x)


@dataclass(frozen=True)
class Case:
    """One layer, plain (n_experts 0) or a mixture; n tokens, with a backward pass or without."""

    d_model: int
    d_ff: int
    n: int
    learns: bool
    n_experts: int = 0
    top_k: int = 1

    @property
    def flops(self) -> float:
        matrices = 3 if self.n_experts else 2
        passes = 3 if self.learns else 1
        return 2.0 * matrices * passes * self.n * self.top_k * self.d_model * self.d_ff


CASES = {
    "ffn": Case(768, 3072, 2048, learns=True),
    "ffn-one-token": Case(768, 3072, 1, learns=False),
    "moe": Case(512, 2048, 2048, learns=True, n_experts=8, top_k=2),
    "moe-one-token": Case(512, 2048, 1, learns=False, n_experts=8, top_k=2),
}


def feed_forwards(case: Case) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    plain = TorchFeedForward(case.d_model, case.d_ff)

    def ours(**options: Any) -> nn.Module:
        layer = FeedForward(case.d_model, case.d_ff, **options)
        names = {"w_in": plain.up.weight, "b_in": plain.up.bias}
        names |= {"w_out": plain.down.weight, "b_out": plain.down.bias}
        layer.load_state_dict({name: p.detach() for name, p in names.items()})
        return layer

    def theirs() -> TorchFeedForward:
        layer = TorchFeedForward(case.d_model, case.d_ff)
        layer.load_state_dict(plain.state_dict())
        return layer

    return {
        "torch float32": theirs(),
        "torch bfloat16": theirs().to(BF16),
        "torch autocast": Autocast(theirs()),
        "lamina float32": ours(),
        "lamina bfloat16": ours(precision="bfloat16"),
        "lamina bfloat16 parameters": ours().to(BF16),
    }


def mixtures(case: Case) -> dict[str, nn.Module]:
    torch.manual_seed(0)

    def theirs(kind: str) -> Any:
        config = mixtral.MixtralConfig(
            hidden_size=case.d_model,
            intermediate_size=case.d_ff,
            num_local_experts=case.n_experts,
            num_experts_per_tok=case.top_k,
        )
        config._experts_implementation = kind
        return mixtral.MixtralSparseMoeBlock(config)

    first = theirs("eager")
    for p in first.parameters():
        nn.init.normal_(p, std=0.03)

    def copy(kind: str) -> nn.Module:
        block = theirs(kind)
        block.load_state_dict(first.state_dict())
        return block.to(BF16)

    def ours(**options: Any) -> nn.Module:
        moe = MixtureOfExperts(
            case.d_model, case.d_ff, case.n_experts, case.top_k, balance=None, **options
        )
        with torch.no_grad():
            gate, up = first.experts.gate_up_proj.chunk(2, dim=1)
            moe.w_gate.copy_(gate)
            moe.w_up.copy_(up)
            moe.w_down.copy_(first.experts.down_proj)
            moe.router.weight.copy_(first.gate.weight)
        return moe

    return {
        "transformers eager": copy("eager"),
        "transformers grouped_mm": copy("grouped_mm"),
        "lamina bfloat16": ours(precision="bfloat16"),
        "lamina bfloat16 parameters": ours().to(BF16),
    }


def prepared(module: nn.Module, case: Case) -> Callable[[], Tensor]:
    """Return the call that is timed: one step of learning, or one of inference."""
    dtype = next(module.parameters()).dtype
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(1, case.n, case.d_model, generator=rng).to(dtype)
    grad = torch.randn(1, case.n, case.d_model, generator=rng)
    module.train(case.learns)

    def learn() -> Tensor:
        for p in module.parameters():
            p.grad = None
        rows = x.detach().requires_grad_()
        y = module(rows)
        y.backward(grad.to(y.dtype))
        return torch.cat([y.detach().flatten().float(), rows.grad.flatten().float()])

    def infer() -> Tensor:
        with torch.inference_mode():
            return module(x)

    return learn if case.learns else infer


def seconds(call: Callable[[], Any], least: float) -> tuple[float, float]:
    """Return wall and processor seconds of one call, the mean over at least `least` seconds."""
    time.sleep(0.02)
    call()
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < least or count == 0:
        call()
        count += 1
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def measure(case: Case, n_rounds: int, least: float) -> dict[str, Any]:
    modules = mixtures(case) if case.n_experts else feed_forwards(case)
    calls = {name: prepared(module, case) for name, module in modules.items()}
    found = {name: call().float() for name, call in calls.items()}
    expected = found[next(iter(found))]
    differences = {n: float((y - expected).norm() / expected.norm()) for n, y in found.items()}
    # A mixture's choice may hang on a rounding, for some tokens.
    if not max(differences.values()) < (0.2 if case.n_experts else 0.03):
        raise click.ClickException(f"results differ: {differences}; nothing is timed.")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for r in range(n_rounds):
        for name in list(calls)[:: 1 if r % 2 == 0 else -1]:
            times[name].append(seconds(calls[name], least))
    wall = {name: [w for w, _ in t] for name, t in times.items()}
    cpu = {name: [c for _, c in t] for name, t in times.items()}

    def over(name: str, all_times: dict[str, list[float]]) -> dict[str, float]:
        own = all_times[name]
        return {
            other: median(t / o for t, o in zip(all_times[other], own, strict=True))
            for other in calls
            if not other.startswith("lamina")
        }

    return {
        name: {
            "difference": differences[name],
            "wall": median(wall[name]),
            "least_wall": min(wall[name]),
            "cpu": median(cpu[name]),
            "least_cpu": min(cpu[name]),
            "gflops": case.flops / min(wall[name]) / 1e9,
            "cpu_gflops": case.flops / min(cpu[name]) / 1e9,  # a second of one processor
            **(
                {"ratio": over(name, wall), "cpu_ratio": over(name, cpu)}
                if name.startswith("lamina")
                else {}
            ),
        }
        for name in calls
    }


def peak(kind: str, n_threads: int) -> float:
    """Return GFLOP/s of multiply-adds in registers, the best of many short tries."""
    return max(peak_flops(kind, n_threads, 0.01) for _ in range(30)) / 1e9


def show(name: str, found: dict[str, Any]) -> None:
    table = Table(name, "ms", "least", "CPU ms", "GFLOP/s", "times as fast as")
    for engine, r in found.items():
        ratios = r.get("ratio", {}).items()
        row = [engine, *(f"{1e3 * r[key]:.3f}" for key in ("wall", "least_wall", "cpu"))]
        table.add_row(*row, f"{r['gflops']:.0f}", ", ".join(f"{n} {v:.2f}" for n, v in ratios))
    Console(width=140).print(table)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--cases", default=",".join(CASES), help="Names, with commas between.")
@click.option("--rounds", type=click.IntRange(1), default=5)
@click.option("--seconds", "least", type=float, default=0.1, help="Of one engine in one round.")
@click.option("--tokens", type=click.IntRange(1), default=None, help="Fewer, for a try.")
@click.option("--threads", type=click.IntRange(1), multiple=True, help="May be repeated.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A JSON file.")
def main(
    cases: str,
    rounds: int,
    least: float,
    tokens: int | None,
    threads: tuple[int, ...],
    out: Path | None,
) -> None:
    names = cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise click.BadParameter(f"expected some of {', '.join(CASES)}, got {unknown[0]!r}.")
    if bfloat16_unit() is None:
        raise click.ClickException("this processor multiplies no bfloat16; nothing is timed.")
    runs = []
    for n_threads in threads or (default_n_threads(),):
        torch.set_num_threads(n_threads)
        run: dict[str, Any] = {"threads": n_threads, "load": [host.load()], "cases": {}}
        for name in names:
            case = CASES[name]
            if tokens is not None:
                case = replace(case, n=min(tokens, case.n))
            run["cases"][name] = found = measure(case, rounds, least)
            show(f"{name}, {n_threads} threads", found)
        run["load"].append(host.load())
        run["peak"] = {kind: peak(kind, n_threads) for kind in ("float32", "bfloat16")}
        runs.append(run)
    if out is not None:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        head = {"host": host.describe(host.n_cpus()), **versions, "n_rounds": rounds}
        out.write_text(json.dumps({**head, "runs": runs}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
