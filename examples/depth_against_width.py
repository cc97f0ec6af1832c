"""Depth against width at equal parameters, on two real data sets, with seeds and spread.

    python examples/depth_against_width.py                 # both, some ten seconds
    python examples/depth_against_width.py --data digits --seeds 10 --residual

Theory says that depth can save exponentially many units (``lamina prove depth``). Whether it helps
on data is another question: this trains networks of 1 to 8 hidden layers whose widths are chosen so
that all have the same number of parameters, and prints the accuracy on held-out rows, its mean and
standard deviation over the seeds. Each seed draws the split, the weights and the batches anew.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import lamina

ADULT = Path(__file__).parent / "data" / "adult.parquet"
DEPTHS = (1, 2, 4, 8)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 images of 8 x 8 pixels (n, 64) in [0, 1], and their digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.data / 16.0, found.target


def adult(n: int = 12_000) -> tuple[np.ndarray, np.ndarray]:
    """Return n rows of the census table, one column a category or standardised number."""
    import pyarrow.parquet as pq

    table = pq.read_table(ADULT)
    keep = np.sort(np.random.default_rng(0).permutation(table.num_rows)[:n])
    columns = []
    for name in table.column_names[:-1]:
        values = np.array(table[name].to_pylist(), dtype=object)[keep]
        if isinstance(values[0], int):
            numbers = values.astype(np.float64)
            columns.append(((numbers - numbers.mean()) / numbers.std())[:, np.newaxis])
        else:
            text = values.astype(str)
            columns.append((text[:, np.newaxis] == np.unique(text)).astype(np.float64))
    y = np.array(table["income"].to_pylist(), dtype=object)[keep]
    return np.hstack(columns), (y == ">50K").astype(np.int64)


def width_for(budget: int, depth: int, d_in: int, d_out: int) -> int:
    """Return the width whose network comes closest to a number of parameters."""

    def n_params(width: int) -> int:
        return (d_in + 1) * width + (depth - 1) * (width + 1) * width + (width + 1) * d_out

    return min(range(2, 4096), key=lambda width: abs(n_params(width) - budget))


def accuracy(
    x: np.ndarray, y: np.ndarray, depth: int, budget: int, seed: int, residual: bool
) -> tuple[float, int, int]:
    """Train one network; return its accuracy on a held-out fifth, its width and parameters."""
    order = np.random.default_rng(seed).permutation(len(x))
    test, rest = order[: len(x) // 5], order[len(x) // 5 :]
    n_classes = int(y.max()) + 1
    width = width_for(budget, depth, x.shape[1], n_classes)
    net = lamina.Network(
        x.shape[1], (width,) * depth, n_classes, output="softmax", residual=residual, rng=seed
    )
    lamina.train(
        net,
        x[rest],
        y[rest],
        optimizer=lamina.AdamW(lr=2e-3),
        batch_size=128,
        max_epochs=60,
        validation=0.2,
        patience=10,
        rng=seed,
    )
    return float((net(x[test]).argmax(axis=1) == y[test]).mean()), width, net.n_params


def say(line: str) -> None:
    """Print a line as soon as it is known."""
    print(line, flush=True)  # noqa: T201


def main() -> None:
    """Run the experiment and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("digits", "adult", "both"), default="both")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--params", type=int, default=8000, help="parameters of each network")
    parser.add_argument("--residual", action="store_true", help="add h of the layer before")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    args = parser.parse_args()
    rows = []
    for name in ("digits", "adult") if args.data == "both" else (args.data,):
        x, y = {"digits": digits, "adult": adult}[name]()
        say(f"{name}: {len(x):,} rows, {x.shape[1]} columns, {args.seeds} seeds")
        say("depth  width  parameters  accuracy          seconds")
        for depth in DEPTHS:
            start = time.perf_counter()
            runs = [
                accuracy(x, y, depth, args.params, seed, args.residual)
                for seed in range(args.seeds)
            ]
            scores = np.array([r[0] for r in runs])
            seconds = time.perf_counter() - start
            spread = scores.std(ddof=1) if args.seeds > 1 else 0.0
            say(
                f"{depth:>5}  {runs[0][1]:>5}  {runs[0][2]:>10,}  {scores.mean():.4f} ± "
                f"{spread:.4f}   {seconds:>7.1f}"
            )
            rows.append(
                {"data": name, "depth": depth, "width": runs[0][1], "n_params": runs[0][2],
                 "accuracies": scores.tolist()}
            )  # fmt: skip
        say("")
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
