"""Time many networks at once, and steps on many rows, in one interleaved run.

::

    python benchmarks/many.py
    python benchmarks/many.py --cases together,shared-16 --rounds 3 --out many.json

together: 16 networks 20->100->2, batches of 200, by `lamina.train_many`; against `lamina.train` for
one after the other, PyTorch modules one after the other, and PyTorch's best form, one ensemble of
stacked weights by `baddbmm`, each member in an order of its own. shared-B: a `lamina.BatchEnsemble`
of 32 members in batches of B; against 32 separate networks in the same three ways. rows:
microseconds a step of the same network on 10^3 to 10^7 rows, over whole epochs.

Calls are whole: from the check of the arrays to the trained networks. Times are medians over the
rounds, ratios within a round. Members that train together must equal those alone bit for bit, and
PyTorch, from the same weights, must reach about the same loss, before anything is timed.
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

import lamina
from lamina.bench import host
from lamina.core.threads import default_n_threads

D_IN, WIDTH, D_OUT, N_ROWS, LR = 20, 100, 2, 4000, 1e-3
# case: networks, batch size, whether their weights are shared
CASES = {
    "together": (16, 200, False),
    "shared-16": (32, 16, True),
    "shared-64": (32, 64, True),
    "shared-200": (32, 200, True),
}
ROWS = [10**e for e in range(3, 8)]


def make_data(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return n rows, float32, and the class of each by a noisy plane."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, D_IN), dtype=np.float32)
    y = x[:, :4].sum(1) + rng.standard_normal(n, dtype=np.float32) > 0
    return x, y.astype(np.int32)


def make_network(seed: int) -> lamina.Network:
    return lamina.Network(D_IN, (WIDTH,), D_OUT, output="softmax", rng=seed)


class Stacked(torch.nn.Module):
    """Members' weights side by side, so that a layer is one batched product."""

    def __init__(self, networks: list[lamina.Network]) -> None:
        super().__init__()
        self.weights, self.biases = torch.nn.ParameterList(), torch.nn.ParameterList()
        for layer in range(2):
            w = np.stack([net.weights[layer].T for net in networks])  # (k, d_in, d_out)
            b = np.stack([net.biases[layer] for net in networks])  # (k, d_out)
            self.weights.append(torch.from_numpy(w.copy()))
            self.biases.append(torch.from_numpy(b[:, np.newaxis].copy()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.baddbmm(self.biases[0], x, self.weights[0]).relu()  # (k, batch, width)
        return torch.baddbmm(self.biases[1], h, self.weights[1])


class Case:
    """One case's calls; each trains its networks for some epochs more."""

    def __init__(self, name: str, epochs: int, n_threads: int) -> None:
        self.k, self.batch, self.is_shared = CASES[name]
        self.epochs = epochs
        self.x, self.y = make_data(N_ROWS)
        self.options: dict[str, Any] = {
            "batch_size": self.batch,
            "max_epochs": epochs,
            "optimizer": lamina.AdamW(LR, weight_decay=0.0),
            "n_threads": n_threads,
        }
        self.apart = [make_network(i) for i in range(self.k)]
        self.together = [make_network(i) for i in range(self.k)]
        self.ensemble = lamina.BatchEnsemble(
            D_IN, (WIDTH,), D_OUT, n_members=self.k, output="softmax", rng=0
        )
        self.t_x, self.t_y = torch.from_numpy(self.x), torch.from_numpy(self.y).long()
        self.modules: list[torch.nn.Module] = []
        for net in self.apart:
            first, last = (torch.nn.Linear(*d) for d in ((D_IN, WIDTH), (WIDTH, D_OUT)))
            for layer, linear in enumerate((first, last)):
                linear.weight.data = torch.from_numpy(net.weights[layer].copy())
                linear.bias.data = torch.from_numpy(net.biases[layer].copy())
            self.modules.append(torch.nn.Sequential(first, torch.nn.ReLU(), last))
        self.optimizers = [self._adam(module) for module in self.modules]
        self.stacked = Stacked(self.apart)
        self.stacked_optimizer = self._adam(self.stacked)

    @staticmethod
    def _adam(module: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=LR, fused=True)

    def in_turn(self) -> float:
        """`lamina.train`, one network after the other; return the mean of their last losses."""
        histories = [
            lamina.train(net, self.x, self.y, rng=i, **self.options)
            for i, net in enumerate(self.apart)
        ]
        return float(np.mean([history.train_loss[-1] for history in histories]))

    def at_once(self) -> float:
        if self.is_shared:
            history = lamina.train(self.ensemble, self.x, self.y, rng=0, **self.options)
            return float(history.train_loss[-1])
        histories = lamina.train_many(
            self.together, self.x, self.y, rng=list(range(self.k)), **self.options
        )
        return float(np.mean([history.train_loss[-1] for history in histories]))

    def torch_in_turn(self) -> float:
        losses = []
        for module, optimizer in zip(self.modules, self.optimizers, strict=True):
            for _ in range(self.epochs):
                total = 0.0
                for rows in torch.randperm(N_ROWS).split(self.batch):
                    loss = torch.nn.functional.cross_entropy(
                        module(self.t_x.index_select(0, rows)), self.t_y.index_select(0, rows)
                    )
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    total += float(loss.detach()) * len(rows)
            losses.append(total / N_ROWS)
        return float(np.mean(losses))

    def torch_stacked(self) -> float:
        for _ in range(self.epochs):
            total = 0.0
            orders = torch.stack([torch.randperm(N_ROWS) for _ in range(self.k)])
            for rows in orders.split(self.batch, 1):  # (k, batch)
                y_pred = self.stacked(self.t_x[rows]).flatten(0, 1)
                loss = torch.nn.functional.cross_entropy(y_pred, self.t_y[rows].flatten())
                self.stacked_optimizer.zero_grad(set_to_none=True)
                (loss * self.k).backward()
                self.stacked_optimizer.step()
                total += float(loss.detach()) * rows.shape[1]
        return total / N_ROWS

    def check(self) -> dict[str, float]:
        """Train once with each; return the losses, or refuse to time what does not agree."""
        calls = (self.in_turn, self.at_once, self.torch_in_turn, self.torch_stacked)
        losses = {call.__name__: call() for call in calls}
        for i, net in enumerate([] if self.is_shared else self.together):
            alone = make_network(i)
            lamina.train(alone, self.x, self.y, rng=i, **{**self.options, "n_threads": 1})
            if not np.array_equal(alone.theta, net.theta):
                raise click.ClickException(f"member {i} differs from train; nothing is timed.")
        for name in ("torch_in_turn", "torch_stacked"):
            if not abs(losses[name] / losses["in_turn"] - 1) < 0.1:
                raise click.ClickException(f"{name}: losses {losses} differ; nothing is timed.")
        return losses


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name: str, epochs: int, n_rounds: int, n_threads: int) -> dict[str, Any]:
    """Return one case's medians; the engines take turns."""
    case = Case(name, epochs, n_threads)
    losses = case.check()
    calls = {
        "at once": case.at_once,
        "in turn": case.in_turn,
        "torch in turn": case.torch_in_turn,
        "torch stacked": case.torch_stacked,
    }
    rounds = [{what: seconds(call) for what, call in calls.items()} for _ in range(n_rounds)]
    steps = case.k * epochs * -(-N_ROWS // case.batch)
    result: dict[str, Any] = {"name": name, "losses": losses, "rounds": rounds}
    for what in calls:
        result[what] = {
            "us_a_step": median(r[what] for r in rounds) / steps * 1e6,
            "ratio": median(r[what] / r["at once"] for r in rounds),
        }
    return result


def measure_rows(most: int, n_rounds: int, n_threads: int) -> list[dict[str, Any]]:
    """Return microseconds a step for each number of rows; they take turns."""
    counts = [n for n in ROWS if n <= most]
    data = {n: make_data(n) for n in counts}
    network = make_network(0)
    times: dict[int, list[float]] = {n: [] for n in counts}
    for _ in range(n_rounds):
        for n, (x, y) in data.items():
            epochs = max(1, 1_000_000 // n)

            def call(x: Any = x, y: Any = y, epochs: int = epochs) -> None:
                lamina.train(
                    network, x, y, batch_size=200, max_epochs=epochs, rng=0, n_threads=n_threads
                )

            times[n].append(seconds(call) / (epochs * n / 200) * 1e6)
    first = times[counts[0]]
    return [
        {
            "n": n,
            "us_a_step": median(t),
            "ns_a_row": median(t) * 5,
            "ratio": median(a / b for a, b in zip(t, first, strict=True)),
        }
        for n, t in times.items()
    ]


def show(results: list[dict[str, Any]], rows: list[dict[str, Any]], title: str) -> None:
    table = Table("case", "engine", "us a member's step", "times at once")
    for result in results:
        for what in ("at once", "in turn", "torch in turn", "torch stacked"):
            t = result[what]
            table.add_row(result["name"], what, f"{t['us_a_step']:.1f}", f"{t['ratio']:.2f}")
    for row in rows:
        table.add_row("rows", f"{row['n']:,}", f"{row['us_a_step']:.1f}", f"{row['ratio']:.2f}")
    Console().print(title, table)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--cases", default=",".join([*CASES, "rows"]), help="Names, with commas between.")
@click.option("--epochs", type=click.IntRange(1), default=10, help="Of each call.")
@click.option("--most-rows", type=click.IntRange(1000), default=10**7, help="Of the case rows.")
@click.option("--rounds", type=click.IntRange(1), default=5)
@click.option("--threads", type=click.IntRange(1), default=None)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A JSON file.")
def main(
    cases: str, epochs: int, most_rows: int, rounds: int, threads: int | None, out: Path | None
) -> None:
    names = cases.split(",")
    if unknown := [name for name in names if name not in [*CASES, "rows"]]:
        raise click.BadParameter(f"expected some of {', '.join(CASES)}, rows, got {unknown[0]!r}.")
    n_threads = default_n_threads(threads)
    torch.set_num_threads(n_threads)
    torch.manual_seed(0)
    results = [measure(name, epochs, rounds, n_threads) for name in names if name != "rows"]
    by_rows = measure_rows(most_rows, rounds, n_threads) if "rows" in names else []
    show(results, by_rows, f"float32, {n_threads} threads, {rounds} rounds")
    if out is not None:
        head = {**host.describe(host.n_cpus()), "torch": torch.__version__}
        settings = {"n_rounds": rounds, "n_threads": n_threads, "load": host.load()}
        text = json.dumps({**head, **settings, "cases": results, "rows": by_rows}, indent=1)
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
