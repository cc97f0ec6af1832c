"""What the results of benchmarks/tables.py say together: scores, ranks and costs over tables.

A result is a dict with table, seed, method, version and threads, and either error, fit_seconds,
predict_us_a_row, memory_mib, n_train and n_test, or why it failed. Methods are compared on the
tables, and on each table by the seeds, that all of them finished.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = "hgb"
N_BOOTSTRAP = 10_000
LEAST_ERROR = 1e-12  # a table solved without error must not have a ratio of 0 / 0
COSTS = ("fit_seconds", "predict_us_a_row", "memory_mib")

Result = dict[str, Any]
Cells = dict[str, dict[str, dict[int, Result]]]  # method -> table -> seed -> result


def read_results(path: Path) -> list[Result]:
    """Return the results of a JSON file of --out, or of a cache of one JSON text a line.

    Of the same table, seed and method, the last line counts.
    """
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".jsonl":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            found = json.loads(text)["results"]
        last = {(r["method"], r["table"], r["seed"]): r for r in found}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected the JSON of benchmarks/tables.py --out, or its cache .jsonl, got "
            "something else. Run benchmarks/tables.py first."
        ) from error
    return list(last.values())


def by_method(results: Iterable[Result]) -> Cells:
    """Return the results that are no failures, by method, table and seed."""
    cells: Cells = defaultdict(lambda: defaultdict(dict))
    for r in results:
        if "error" in r:
            cells[r["method"]][r["table"]][r["seed"]] = r
    return {method: dict(tables) for method, tables in cells.items()}


def shared_seeds(cells: Cells) -> dict[str, list[int]]:
    """Return the tables that all methods finished, in order, and the seeds they share on each."""
    if not cells:
        return {}
    tables = sorted(set.intersection(*(set(of) for of in cells.values())))
    seeds = {t: sorted(set.intersection(*(set(of[t]) for of in cells.values()))) for t in tables}
    return {table: own for table, own in seeds.items() if own}


def table_means(cells: Cells, seeds: dict[str, list[int]], key: str) -> np.ndarray:
    """Return a number's mean over seeds (n_methods, n_tables)."""
    return np.array(
        [
            [np.mean([of[t][s][key] for s in own]) for t, own in seeds.items()]
            for of in cells.values()
        ]
    )


def summarise(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return a row a method, the best first; empty without the reference or a shared table.

    ``score`` is the geometric mean over tables of the error over the reference's, ``interval`` its
    95 % bootstrap interval over tables, ``mean_rank`` among the methods given. Fit and predict
    time are geometric means over tables, memory is a median (small fits need next to none).
    ``n_tables`` is what all this is over, ``n_tables_own`` what the method finished.
    """
    cells = by_method(results)
    seeds = shared_seeds(cells)
    if REFERENCE not in cells or not seeds:
        return []
    methods = list(cells)
    error = np.maximum(table_means(cells, seeds, "error"), LEAST_ERROR)
    score = np.log(error / error[methods.index(REFERENCE)])
    below = (error[:, None] > error[None]).sum(axis=1)
    ranks = below + ((error[:, None] == error[None]).sum(axis=1) + 1) / 2
    draws = np.random.default_rng(0).integers(len(seeds), size=(N_BOOTSTRAP, len(seeds)))
    cost = {key: table_means(cells, seeds, key) for key in COSTS}
    rows = []
    for i, method in enumerate(methods):
        low, high = np.quantile(np.exp(score[i][draws].mean(axis=1)), [0.025, 0.975])
        rows.append(
            {
                "method": method,
                "score": float(np.exp(score[i].mean())),
                "interval": [float(low), float(high)],
                "mean_rank": float(ranks[i].mean()),
                "fit_seconds": float(np.exp(np.log(cost["fit_seconds"][i]).mean())),
                "predict_us_a_row": float(np.exp(np.log(cost["predict_us_a_row"][i]).mean())),
                "memory_mib": float(np.median(cost["memory_mib"][i])),
                "n_tables": len(seeds),
                "n_tables_own": len(cells[method]),
            }
        )
    return sorted(rows, key=lambda row: row["score"])


def coverage_sentence(results: Iterable[Result]) -> str:
    """Return over which tables and seeds methods are compared, and who lacks others."""
    cells = by_method(results)
    seeds = shared_seeds(cells)
    every = {table for of in cells.values() for table in of}
    counts = sorted({len(own) for own in seeds.values()})
    each = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "no"
    noun = "seed" if each == "1" else "seeds"
    text = (
        f"Compared on the {len(seeds)} of {len(every)} tables that all methods finished, "
        f"{each} {noun} each."
    )
    lacking = {method: len(every) - len(of) for method, of in cells.items() if len(of) < len(every)}
    if lacking:
        text += " Tables not finished: " + ", ".join(f"{m} {n}" for m, n in lacking.items()) + "."
    return text
