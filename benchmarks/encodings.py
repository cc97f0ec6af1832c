"""Time a hash grid's forward and backward pass against PyTorch, in one interleaved run.

::

    python benchmarks/encodings.py
    python benchmarks/encodings.py --cases 2d-2^15 --rounds 3

The peer is the multiresolution grid as users write it in PyTorch: for each level the corners'
indices and weights by tensor operations, the features by indexing, autograd on the way back. Both
compute h_0 for n random points and the gradient of the table for a random d loss / d h_0; results
are compared before anything is timed. Times are medians over the rounds, ratios within a round.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from lamina.bench import host
from lamina.core.encodings import HashGrid
from lamina.core.engine import make_engine
from lamina.core.spec import NetworkSpec
from lamina.core.threads import default_n_threads

CASES = {
    "2d-2^15": (2, HashGrid(log2_table_size=15, finest_resolution=2048)),
    "3d-2^15": (3, HashGrid(log2_table_size=15, finest_resolution=512)),
    "3d-2^19": (3, HashGrid(log2_table_size=19, finest_resolution=2048)),
}


class TorchGrid(torch.nn.Module):
    """The peer: every level by index arithmetic, indexing and a weighted sum."""

    def __init__(self, grid: HashGrid, d_in: int, table: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.low, self.high = grid.bounds
        self.levels = grid.levels(d_in)
        sizes = [level.entries for level in self.levels]
        self.tables = torch.nn.ParameterList(torch.from_numpy(table).split(sizes))
        self.corners = torch.tensor([[c >> j & 1 for j in range(d_in)] for c in range(2**d_in)])
        self.primes = (1, 2654435761, 805459861)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = ((x - self.low) / (self.high - self.low)).clamp(0, 1)
        features = []
        for level, table in zip(self.levels, self.tables, strict=True):
            position = u * level.resolution
            cell = position.floor().clamp(max=level.resolution - 1)
            f = (position - cell).unsqueeze(1)  # (n, 1, d)
            at = cell.long().unsqueeze(1) + self.corners  # (n, corners, d)
            index = at[..., 0]
            for j in range(1, x.shape[1]):
                if level.hashed:
                    index = index ^ (at[..., j] * self.primes[j])
                else:
                    index = index + at[..., j] * (level.resolution + 1) ** j
            weight = torch.where(self.corners == 1, f, 1 - f).prod(2, keepdim=True)
            features.append((weight * table[index % level.entries]).sum(1))
        return torch.cat(features, 1)


class Pair:
    """One case in both libraries, and the calls that are timed."""

    def __init__(self, name: str, n: int, n_threads: int) -> None:
        d_in, grid = CASES[name]
        rng = np.random.default_rng(0)
        spec = NetworkSpec.create(d_in, (), 1, encoding=grid)
        theta = rng.uniform(-1, 1, spec.n_params).astype(np.float32)
        self.x = rng.uniform(-1, 1, (n, d_in)).astype(np.float32)
        self.g = rng.standard_normal((n, spec.layer_dims[0])).astype(np.float32)
        self.engine, self.n_threads = make_engine(spec, theta), n_threads
        table = theta[spec.table_slice].reshape(spec.table_shape).copy()
        self.grad = np.zeros_like(table)
        self.peer = TorchGrid(grid, d_in, table)
        self.t_x, self.t_g = torch.from_numpy(self.x), torch.from_numpy(self.g)

    def lamina(self) -> tuple[Any, Any]:
        h = self.engine.encode(self.x, n_threads=self.n_threads)
        grad = self.engine.encode_backward(self.x, self.g, out=self.grad, n_threads=self.n_threads)
        return h, grad

    def lamina_forward(self) -> Any:
        return self.engine.encode(self.x, n_threads=self.n_threads)

    def torch(self) -> tuple[Any, Any]:
        for table in self.peer.tables:  # memory that is there already, as for lamina
            if table.grad is not None:
                table.grad.zero_()
        h = self.peer(self.t_x)
        h.backward(self.t_g)
        return h.detach().numpy(), torch.cat([t.grad for t in self.peer.tables]).numpy()

    def torch_forward(self) -> Any:
        with torch.inference_mode():
            return self.peer(self.t_x)

    def difference(self) -> float:
        """Of h_0 and the table's gradient, relative to the largest of torch's."""
        pairs = zip(self.lamina(), self.torch(), strict=True)
        return max(float(np.abs(a - e).max() / np.abs(e).max()) for a, e in pairs)


def seconds(call: Callable[[], Any], least: float = 0.05) -> float:
    """Of one call, the mean over at least `least` seconds."""
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < least or count == 0:
        call()
        count += 1
    return passed / count


def measure(name: str, n: int, n_rounds: int, n_threads: int) -> dict[str, Any]:
    """Return one case's medians; the engines take turns."""
    pair = Pair(name, n, n_threads)
    difference = pair.difference()
    # Positions inside a cell are exact to eps times the resolution, for both.
    tolerance = 16 * float(np.finfo(np.float32).eps) * CASES[name][1].finest_resolution
    if not difference <= tolerance:
        raise click.ClickException(f"{name}: results differ by {difference:g}; nothing is timed.")
    result: dict[str, Any] = {"name": name, "n": n, "difference": difference}
    calls = {
        "forward": (pair.torch_forward, pair.lamina_forward),
        "forward + backward": (pair.torch, pair.lamina),
    }
    for what, (peer, ours) in calls.items():
        times = [(seconds(peer), seconds(ours)) for _ in range(n_rounds)]
        result[what] = {
            "torch": median(t for t, _ in times),
            "lamina": median(o for _, o in times),
            "ratio": median(t / o for t, o in times),
        }
    return result


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--cases", default=",".join(CASES), help="Names, with commas between.")
@click.option("--rows", type=click.IntRange(1), default=65536)
@click.option("--rounds", type=click.IntRange(1), default=5)
@click.option("--threads", type=click.IntRange(1), default=None)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A JSON file.")
def main(cases: str, rows: int, rounds: int, threads: int | None, out: Path | None) -> None:
    names = cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise click.BadParameter(f"expected some of {', '.join(CASES)}, got {unknown[0]!r}.")
    n_threads = default_n_threads(threads)
    torch.set_num_threads(n_threads)
    results = [measure(name, rows, rounds, n_threads) for name in names]
    table = Table("grid", "pass", "PyTorch ms", "lamina ms", "ratio")
    for result in results:
        for what in ("forward", "forward + backward"):
            t = result[what]
            row = (f"{t['torch'] * 1e3:.1f}", f"{t['lamina'] * 1e3:.2f}", f"{t['ratio']:.0f}")
            table.add_row(result["name"], what, *row)
    Console().print(f"float32, {rows} rows, {n_threads} threads, {rounds} rounds", table)
    if out is not None:
        head = {**host.describe(host.n_cpus()), "torch": torch.__version__}
        settings = {"n_rounds": rounds, "n_threads": n_threads, "load": host.load()}
        text = json.dumps({**head, **settings, "cases": results}, indent=1)
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
