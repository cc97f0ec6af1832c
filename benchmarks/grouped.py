"""Time the experts of a mixture against a loop over experts in PyTorch, in one interleaved run.

::

    python benchmarks/grouped.py
    python benchmarks/grouped.py --cases large,large-gated --rounds 9

The peer is its best fair form: one index per expert, made beforehand, ``F.linear`` on the rows it
names, ``index_add`` on the way out; ``inference_mode`` for the forward pass alone; in bfloat16 all
of its tensors are of that type, without autocast's conversions. Results and
gradients are compared before anything is timed. Times are medians over the rounds; ratios are
taken within a round.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from lamina.bench import host
from lamina.core.grouped import ExpertFeedForward, ExpertWeights
from lamina.core.threads import default_n_threads


@dataclass(frozen=True)
class Case:
    """One mixture: n_experts networks d_model -> d_ff -> d_model, n tokens, each to top_k."""

    n_experts: int
    top_k: int
    d_model: int
    d_ff: int
    n: int
    gated: bool

    @property
    def flops(self) -> float:
        """Of the forward pass."""
        return 2.0 * self.n * self.top_k * self.d_model * self.d_ff * (3 if self.gated else 2)


CASES = {
    "large": Case(8, 2, 512, 2048, 2048, gated=False),
    "large-gated": Case(8, 2, 512, 2048, 2048, gated=True),
    "few-tokens": Case(8, 2, 512, 2048, 32, gated=False),
    "few-tokens-gated": Case(8, 2, 512, 2048, 32, gated=True),
    "many-experts": Case(64, 2, 128, 128, 2048, gated=False),
    "many-experts-few-tokens": Case(64, 2, 128, 128, 32, gated=False),
    "one-token": Case(8, 2, 512, 2048, 1, gated=True),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class Mixture:
    """One case's arrays, and the calls that are timed: GELU, or SiLU where it is gated."""

    def __init__(self, case: Case, dtype: str, n_threads: int) -> None:
        rng = np.random.default_rng(0)
        precision, peer = ("bfloat16" if dtype == "bfloat16" else None), DTYPES[dtype]
        dtype = "float32" if precision else dtype
        self.case, self.n_threads = case, n_threads

        def draw(*shape: int, fan_in: int = 1) -> np.ndarray[Any, Any]:
            return (rng.standard_normal(shape) / fan_in**0.5).astype(dtype)

        e, d, f = case.n_experts, case.d_model, case.d_ff
        self.x, self.grad_y = draw(case.n, d), draw(case.n, d)
        logits = rng.standard_normal((case.n, e))
        self.ids = np.argsort(-logits, axis=1)[:, : case.top_k].astype(np.int32)
        raw = np.exp(np.take_along_axis(logits, self.ids, 1))
        self.share = (raw / raw.sum(1, keepdims=True)).astype(dtype)
        up, gate = draw(2, e, f, d, fan_in=d)
        self.weights = [
            ExpertWeights(up, gate=gate if case.gated else None),
            ExpertWeights(draw(e, d, f, fan_in=f)),
        ]
        activation = "silu" if case.gated else "gelu"
        self.ffn = ExpertFeedForward(
            e, d, f, activation=activation, gated=case.gated, dtype=dtype, precision=precision
        )
        self.pack = self.ffn.pack(self.weights)
        self.out = np.empty_like(self.x)
        self.into = [
            ExpertWeights(*(None if a is None else np.zeros_like(a) for a in layer))
            for layer in self.weights
        ]

        # A parameter an expert: the gradient of one slice of a fused parameter is as large as all.
        def leaf(a: np.ndarray[Any, Any]) -> torch.Tensor:
            return torch.from_numpy(a).to(peer, copy=True).requires_grad_()

        self.t_x, self.t_share = leaf(self.x), leaf(self.share)
        self.t_up, self.t_gate, self.t_down = (
            [leaf(w) for w in matrix] for matrix in (up, gate, self.weights[1].weight)
        )
        self.grad = torch.from_numpy(self.grad_y).to(peer)
        ids = torch.from_numpy(self.ids.astype(np.int64))
        self.index = [torch.where(ids == k) for k in range(e)]

    def torch_forward(self) -> torch.Tensor:
        y = torch.zeros_like(self.t_x)
        for e, (rows, k) in enumerate(self.index):
            if len(rows) == 0:
                continue
            x = self.t_x.index_select(0, rows)
            h = functional.linear(x, self.t_up[e])
            if self.case.gated:
                h = functional.silu(functional.linear(x, self.t_gate[e])) * h
            else:
                h = functional.gelu(h)
            made = functional.linear(h, self.t_down[e])
            y = y.index_add(0, rows, made * self.t_share[rows, k].unsqueeze(1))
        return y

    def torch_inference(self) -> None:
        with torch.inference_mode():
            self.torch_forward()

    def torch_both(self) -> torch.Tensor:
        for leaf in (self.t_x, self.t_share, *self.t_up, *self.t_gate, *self.t_down):
            leaf.grad = None
        y = self.torch_forward()
        y.backward(self.grad)
        return y

    def lamina_inference(self) -> None:
        self.ffn(
            self.pack,
            self.x,
            experts=self.ids,
            share=self.share,
            out=self.out,
            n_threads=self.n_threads,
        )

    def lamina_both(self) -> Any:
        _, passed = self.ffn.forward(
            self.weights,
            self.x,
            experts=self.ids,
            share=self.share,
            out=self.out,
            n_threads=self.n_threads,
        )
        # Idle experts are left alone, as in torch, where their parameters' gradients are None.
        return self.ffn.backward(
            passed, self.grad_y, weights=self.into, keep_idle=True, n_threads=self.n_threads
        )

    def largest_difference(self) -> float:
        """Of y and all gradients, each relative to the largest of torch's."""
        y = self.torch_both().detach()

        def stacked(leaves: list[torch.Tensor]) -> torch.Tensor:
            zero = torch.zeros_like(leaves[0])  # of an expert that saw no row
            return torch.stack([zero if a.grad is None else a.grad for a in leaves])

        g = self.lamina_both()
        pairs = [
            (self.out, y),
            (g.x, self.t_x.grad),
            (g.share, self.t_share.grad),
            (g.weights[0].weight, stacked(self.t_up)),
            (g.weights[1].weight, stacked(self.t_down)),
        ]
        if self.case.gated:
            pairs.append((g.weights[0].gate, stacked(self.t_gate)))
        errors = [
            float(np.abs(a - e.float().numpy()).max() / e.float().abs().max()) for a, e in pairs
        ]
        self.lamina_inference()
        errors.append(float(np.abs(self.out - y.float().numpy()).max()))
        return max(errors)


def seconds(call: Callable[[], Any], least: float = 0.03) -> float:
    """Of one call, the mean over at least `least` seconds after one that is not counted."""
    call()
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < least or count == 0:
        call()
        count += 1
    return passed / count


def measure(name: str, case: Case, dtype: str, n_rounds: int, n_threads: int) -> dict[str, Any]:
    """Return one case's medians; engines take turns, forwards and then backwards."""
    mixture = Mixture(case, dtype, n_threads)
    difference = mixture.largest_difference()
    tolerance = 0.1 if dtype == "bfloat16" else 1e4 * float(np.finfo(dtype).eps)
    if not difference <= tolerance:
        raise click.ClickException(f"{name}: results differ by {difference:g}; nothing is timed.")
    calls = {
        ("forward", "torch"): mixture.torch_inference,
        ("forward", "lamina"): mixture.lamina_inference,
        ("forward + backward", "torch"): mixture.torch_both,
        ("forward + backward", "lamina"): mixture.lamina_both,
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for r in range(n_rounds):
        for key in list(calls)[:: 1 if r % 2 == 0 else -1]:
            times[key].append(seconds(calls[key]))
    passes = {}
    for what, work in (("forward", 1), ("forward + backward", 3)):
        peer, ours = times[what, "torch"], times[what, "lamina"]
        passes[what] = {
            "torch": median(peer),
            "lamina": median(ours),
            "ratio": median(p / o for p, o in zip(peer, ours, strict=True)),
            "gflops": work * case.flops / median(ours) / 1e9,
        }
    return {"name": name, **asdict(case), "dtype": dtype, "difference": difference, **passes}


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--cases", default=",".join(CASES), help="Names, with commas between.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32")
@click.option("--rounds", type=click.IntRange(1), default=7)
@click.option("--threads", type=click.IntRange(1), default=None)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A JSON file.")
def main(cases: str, dtype: str, rounds: int, threads: int | None, out: Path | None) -> None:
    names = cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise click.BadParameter(f"expected some of {', '.join(CASES)}, got {unknown[0]!r}.")
    n_threads = default_n_threads(threads)
    torch.set_num_threads(n_threads)
    results = [measure(name, CASES[name], dtype, rounds, n_threads) for name in names]
    table = Table("case", "pass", "torch loop", "lamina", "ratio", "GFLOP/s")
    for result in results:
        for what in ("forward", "forward + backward"):
            p = result[what]
            table.add_row(
                result["name"],
                what,
                f"{p['torch'] * 1e3:.3f} ms",
                f"{p['lamina'] * 1e3:.3f} ms",
                f"{p['ratio']:.2f}",
                f"{p['gflops']:.0f}",
            )
    Console(width=100).print(f"{dtype}, {n_threads} threads, {rounds} rounds", table)
    if out is not None:
        head = {**host.describe(host.n_cpus()), "torch": torch.__version__}
        settings = {"n_rounds": rounds, "n_threads": n_threads, "load": host.load()}
        text = json.dumps({**head, **settings, "cases": results}, indent=1)
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
