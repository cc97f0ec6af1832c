"""Measure how far probabilities can be trusted: calibration error and log-loss beside peers'.

::

    python benchmarks/calibration.py --data FOLDER                  adult: lamina and CatBoost
    python benchmarks/calibration.py --data FOLDER --rows 10000 --methods lamina,catboost,hgb

Four fifths of a table are fitted (with --rows so many of them) and the last fifth is judged: the
same rows for each method. ``ECE`` is the expected calibration error over 15 bins of equal mass
(Guo et al. 2017, arXiv:1706.04599), ``chance`` what it would be by luck alone, had each row's class
been drawn with the very probabilities that were predicted. Prints means over seeds, and writes
every number as JSON with --out.
"""

from __future__ import annotations

import json
import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import click
import numpy as np
from tables_peers import METHODS, installed
from tables_suite import TABLES, Split

from lamina.bench.host import describe, n_cpus
from lamina.core.metrics import expected_calibration_error

N_DRAWS = 200


def split(data: Path, name: str, n_rows: int | None, seed: int) -> Split:
    """Return the table's last fifth, in an order drawn by the seed, as test rows."""
    frame, target, is_classes = TABLES[name](data)
    if not is_classes:
        raise click.BadParameter(f"expected tables of classes, {name!r} is one of numbers.")
    order = np.random.default_rng([seed, 17]).permutation(len(frame))
    n_train = int(0.8 * len(frame))
    train, test = order[:n_train][:n_rows], order[n_train:]
    codes = np.unique(frame.pop(target).astype(str), return_inverse=True)[1]
    seen = np.unique(codes[train])
    test = test[np.isin(codes[test], seen)]
    values = np.searchsorted(seen, codes)
    rows = [frame.iloc[i].reset_index(drop=True) for i in (train, test)]
    return Split(name, True, rows[0], values[train], rows[1], values[test])


def judge(rows: Split, probabilities: np.ndarray, seed: int) -> dict[str, float]:
    """Return the scores of probabilities (n, K) for the test rows."""
    p = np.asarray(probabilities, np.float64)
    rng = np.random.default_rng(seed)
    ends = np.cumsum(p, axis=1)[:, :-1]  # (n, K - 1)
    drawn = (
        (rng.random((len(p), 1)) * p.sum(axis=1, keepdims=True) > ends).sum(axis=1)
        for _ in range(N_DRAWS)
    )
    return {
        "ece": expected_calibration_error(rows.y_test, p),
        "chance": float(np.mean([expected_calibration_error(y, p) for y in drawn])),
        "log_loss": rows.error(p),
        "accuracy": float(np.mean(np.argmax(p, axis=1) == rows.y_test)),
    }


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path("data")
)
@click.option("--tables", default="adult", help="Names, with commas between.")
@click.option("--methods", default="lamina,catboost", help="Names, with commas between.")
@click.option("--rows", type=click.IntRange(100), help="Fitted, at most [default: four fifths].")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A JSON file.")
def main(
    data: Path,
    tables: str,
    methods: str,
    rows: int | None,
    seeds: int,
    threads: int,
    out: Path | None,
) -> None:
    warnings.filterwarnings("ignore")
    for kind, names, known in (("table", tables, TABLES), ("method", methods, METHODS)):
        if unknown := [name for name in names.split(",") if name not in known]:
            raise click.BadParameter(
                f"expected {kind}s among {', '.join(known)}, got {unknown[0]!r}."
            )
    results: list[dict[str, Any]] = []
    machine = describe(n_cpus())
    for method in methods.split(","):
        try:
            version = installed(method)
        except PackageNotFoundError:
            click.echo(f"{method} is left out: its library is not installed.")
            continue
        for name in tables.split(","):
            each = []
            for seed in range(seeds):
                own = split(data, name, rows, seed)
                fitted = METHODS[method][0](own, seed, threads)
                scores = judge(own, fitted.prediction, seed)
                each.append(scores | {"fit_seconds": fitted.fit_seconds})
            n = {"n_train": len(own.y_train), "n_test": len(own.y_test)}
            about = {"table": name, "method": method, "version": version, "threads": threads}
            about |= {key: machine[key] for key in ("commit", "changed")}  # runs can be joined
            results.append({**about, **n, "seeds": each})
            means = {key: np.mean([one[key] for one in each]) for key in each[0]}
            text = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
            click.echo(f"{name:<12}{n['n_train']:>7,} rows  {method:<12}{text}")
    if out is not None:
        document = {"cpu": machine["cpu"], "system": machine["system"], "results": results}
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
