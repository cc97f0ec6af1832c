"""Compare lamina on raw tables with gradient boosting and other networks, all at their defaults.

::

    python benchmarks/tables.py --data FOLDER
    python benchmarks/tables.py --tables iris,wine,digits --methods lamina,hgb --seeds 1
    python benchmarks/tables_page.py tables.json tables.html      what --out wrote, as a page

Each method fits at most 10,000 rows of each table and predicts as many others. A method's score on
a table is its error (log-loss, or 1 - R²) over HistGradientBoosting's on the same rows; over
tables the geometric mean, with a bootstrap interval over tables, and the mean rank. Fit and predict
times are geometric means over tables, memory the median of what a fit added. Every result goes
into a cache by table, seed, method, version and threads, and is not computed again. Peers:
``pip install lightgbm xgboost-cpu catboost pytabkit`` beside the CPU build of torch; a method whose
library is absent is left out, and said so.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table
from tables_peers import METHODS, installed
from tables_suite import SHIPPED, TABLES, split
from tables_summary import REFERENCE, coverage_sentence, summarise


def run(table: str, seed: int, method: str, data: Path, n_threads: int) -> dict[str, Any]:
    """Return one result, computed in a process of its own: its memory is then its own."""
    arguments = [table, str(seed), method, str(data), str(n_threads)]
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": last[:300]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def peak_memory() -> int:
    """Return the most memory this process has held, in KiB.

    Linux counts into ru_maxrss what the parent held when it made the process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def one(table: str, seed: str, method: str, data: str, n_threads: str) -> None:
    """Compute one result and print it as the last line."""
    warnings.filterwarnings("ignore")
    rows = split(table, int(seed), Path(data))
    before = peak_memory()
    fitted = METHODS[method][0](rows, int(seed), int(n_threads))
    peak = peak_memory() - before
    result = {
        "error": rows.error(fitted.prediction),
        "fit_seconds": fitted.fit_seconds,
        "predict_us_a_row": 1e6 * fitted.predict_seconds / len(rows.y_test),
        "memory_mib": peak / 1024,
        "n_train": len(rows.y_train),
        "n_test": len(rows.y_test),
    }
    print(json.dumps(result))


def show(results: list[dict[str, Any]], console: Console) -> None:
    """Print the summary of what all methods finished."""
    rows = summarise(results)
    if not rows:
        console.print(f"no summary: it needs {REFERENCE} and one table that all methods finished.")
        return
    costs = "fit, s", "predict, µs a row", "memory, MiB"
    method = Column("method", no_wrap=True)
    table = Table(method, "error / hgb", "95 %", "mean rank", *costs)
    for row in rows:
        low, high = row["interval"]
        numbers = f"{row['score']:.3f}", f"{low:.3f} – {high:.3f}", f"{row['mean_rank']:.2f}"
        times = f"{row['fit_seconds']:.2f}", f"{row['predict_us_a_row']:.3g}"
        table.add_row(row["method"], *numbers, *times, f"{row['memory_mib']:.0f}")
    console.print(coverage_sentence(results), highlight=False)
    console.print(table)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the public tables [default: only those that scikit-learn ships].",
)
@click.option("--tables", help="Names, with commas between [default: all there are].")
@click.option("--methods", default=",".join(METHODS), help="Names, with commas between.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--cache",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("benchmarks/results/local/tables.jsonl"),
    show_default=True,
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A JSON file.")
@click.option("--one", hidden=True)
def main(
    data: Path | None,
    tables: str | None,
    methods: str,
    seeds: int,
    threads: int,
    cache: Path,
    out: Path | None,
    one: str | None,
) -> None:
    if one is not None:
        globals()["one"](*json.loads(one))
        return
    chosen = tables.split(",") if tables else list(TABLES if data else SHIPPED)
    wanted = methods.split(",")
    for kind, names, known in (("table", chosen, TABLES), ("method", wanted, METHODS)):
        if unknown := [name for name in names if name not in known]:
            raise click.BadParameter(
                f"expected {kind}s among {', '.join(known)}, got {unknown[0]!r}."
            )
    if data is None and (far := [name for name in chosen if name not in SHIPPED]):
        raise click.BadParameter(f"expected --data FOLDER for table {far[0]!r}, got none.")
    console, results = Console(), []
    cache.parent.mkdir(parents=True, exist_ok=True)
    known_results = {}
    if cache.exists():
        for line in cache.read_text(encoding="utf-8").splitlines():
            r = json.loads(line)
            known_results[r["table"], r["seed"], r["method"], r["version"], r["threads"]] = r
    for method in wanted:
        try:
            own_version = installed(method)
        except PackageNotFoundError:
            console.print(f"{method} is left out: its library is not installed.")
            continue
        for name in chosen:
            for seed in range(seeds):
                key = (name, seed, method, own_version, threads)
                if key not in known_results:
                    labels = dict(
                        zip(("table", "seed", "method", "version", "threads"), key, strict=True)
                    )
                    result = {**labels, **run(name, seed, method, data or Path(), threads)}
                    known_results[key] = result
                    with cache.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(result) + "\n")
                    console.print(f"{method} {name} {seed}: {result.get('failed', '')}", end="")
                    console.print(f"{result.get('error', float('nan')):.4f}")
                results.append(known_results[key])
    show(results, console)
    if out is not None:
        text = json.dumps({"summary": summarise(results), "results": results}, indent=1)
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
