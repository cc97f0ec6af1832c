"""Compare intervals with conformalised quantiles of HistGradientBoosting, on the same rows.

::

    python benchmarks/intervals.py                          california, diamonds, CASP
    python benchmarks/intervals.py --rows 2000 --seeds 1 --tables CASP

Of each table up to so many rows are fitted and up to 10,000 others judged. The peer is split
conformalised quantile regression (Romano et al. 2019, arXiv:1905.03222): two
HistGradientBoostingRegressor, loss="quantile", on 80 % of the rows and calibrated on the rest.
Coverage, mean width and pinball loss are of fresh rows; ``extra`` is the share of CPU time that
the quantiles take on top of the plain fit. Prints means over seeds, and writes JSON with --out.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import sklearn
from sklearn.ensemble import HistGradientBoostingRegressor

import lamina
from lamina.tabular import uncertain

TARGETS = {
    "california": ("california_housing.parquet", "MedHouseVal"),
    "diamonds": ("diamonds.parquet", "price"),
    "CASP": ("CASP.csv", "RMSD"),
}
MOST_TEST_ROWS = 10_000
Split = tuple[pd.DataFrame, np.ndarray, pd.DataFrame, np.ndarray]


def split(folder: Path, name: str, n_rows: int, seed: int) -> Split:
    """Return X, y of the rows to fit, and of the rows to judge."""
    file, target = TARGETS[name]
    read = pd.read_csv if file.endswith("csv") else pd.read_parquet
    table = read(folder / file)
    order = np.random.default_rng(seed).permutation(len(table))
    y = table.pop(target).to_numpy(float)
    own, fresh = order[:n_rows], order[n_rows : n_rows + MOST_TEST_ROWS]
    return table.iloc[own], y[own], table.iloc[fresh], y[fresh]


def ours(data: Split, coverage: float, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """Return lamina's intervals, and what they cost."""
    X, y, fresh, _ = data
    spent = [0.0]
    learn = uncertain.learn_quantiles

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        result = learn(*arguments, **options)
        spent[0] = time.process_time() - began
        return result

    uncertain.learn_quantiles = timed
    try:
        began = time.process_time()
        model = lamina.TabularRegressor(random_state=seed).fit(X, y)
        whole = time.process_time() - began
    finally:
        uncertain.learn_quantiles = learn
    return model.predict_interval(fresh, coverage), {"extra": spent[0] / (whole - spent[0])}


def peer(data: Split, coverage: float, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """Return HistGradientBoosting's conformalised quantiles."""
    X, y, fresh, _ = data
    X, fresh = X.copy(), fresh.copy()
    for name in X:
        if X[name].dtype.kind not in "iufb":
            X[name] = X[name].astype("category")
            fresh[name] = fresh[name].astype(X[name].dtype)
    order = np.random.default_rng(seed).permutation(len(y))
    n_held = len(y) // 5
    held, own = order[:n_held], order[n_held:]
    ends, scores = [], np.full(n_held, -np.inf)
    for level, sign in (((1 - coverage) / 2, -1.0), ((1 + coverage) / 2, 1.0)):
        model = HistGradientBoostingRegressor(
            loss="quantile", quantile=level, categorical_features="from_dtype", random_state=seed
        ).fit(X.iloc[own], y[own])
        scores = np.maximum(scores, sign * (y[held] - model.predict(X.iloc[held])))
        ends.append((model.predict(fresh), sign))
    rank = min(int(np.ceil(coverage * (n_held + 1))), n_held)
    shift = np.sort(scores)[rank - 1]
    return np.stack([end + sign * shift for end, sign in ends], axis=1), {}


def judge(interval: np.ndarray, y: np.ndarray, coverage: float) -> dict[str, float]:
    """Return the scores of intervals (n, 2)."""
    levels = np.array([(1 - coverage) / 2, (1 + coverage) / 2])
    off = y[:, np.newaxis] - interval
    return {
        "coverage": float(np.mean((off[:, 0] >= 0) & (off[:, 1] <= 0))),
        "width": float(np.diff(interval, axis=1).mean()),
        "pinball": float(np.maximum(levels * off, (levels - 1) * off).mean()),
    }


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("data"))
@click.option("--tables", default=",".join(TARGETS), help="Names, with commas.")
@click.option("--rows", type=click.IntRange(100), default=10_000, help="Fitted.")
@click.option("--seeds", type=click.IntRange(1), default=3)
@click.option("--coverage", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.9)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="JSON.")
def main(data: Path, tables: str, rows: int, seeds: int, coverage: float, out: Path | None) -> None:
    results = []
    for name in tables.split(","):
        for method, fit in (("lamina", ours), ("HistGradientBoosting", peer)):
            each = []
            for seed in range(seeds):
                rows_ = split(data, name, rows, seed)
                interval, cost = fit(rows_, coverage, seed)
                each.append(judge(interval, rows_[3], coverage) | cost)
            results.append({"table": name, "method": method, "seeds": each})
            means = {key: np.mean([one[key] for one in each]) for key in each[0]}
            text = "  ".join(f"{key} {value:.4g}" for key, value in means.items())
            click.echo(f"{name:<12}{method:<22}{text}")
    if out is not None:
        versions = {"lamina": lamina.__version__, "scikit-learn": sklearn.__version__}
        about = {"rows": rows, "coverage": coverage, "cpu": platform.machine(), **versions}
        out.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
