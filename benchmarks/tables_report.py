"""Write the comparison on raw tables into README, from the JSON of tables.py and nothing else.

::

    python benchmarks/tables_report.py README.md

What stands between ``<!-- tables:start -->`` and ``<!-- tables:end -->`` becomes one table: each
method's score and costs, then its error over HistGradientBoosting's on every table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import click
from report import markdown_table

RESULTS = Path(__file__).resolve().parent / "results" / "tables.json"
REFERENCE = "hgb"


def render(document: dict[str, Any]) -> str:
    """Return the two tables and a line on what was compared."""
    summary, results = document["summary"], document["results"]
    methods = [row["method"] for row in summary]
    errors: dict[str, dict[str, list[float]]] = {}
    for r in results:
        errors.setdefault(r["table"], {}).setdefault(r["method"], []).append(r["error"])
    means = {t: {m: sum(v) / len(v) for m, v in of.items()} for t, of in errors.items()}
    ratios = {t: {m: of[m] / max(of[REFERENCE], 1e-12) for m in methods} for t, of in means.items()}
    middle = {m: median(of[m] for of in ratios.values()) for m in methods}
    rows = [
        ["error over HistGradientBoosting's, mean", *(f"{r['score']:.3f}" for r in summary)],
        ["the same, median", *(f"{middle[m]:.3f}" for m in methods)],
        ["mean rank", *(f"{r['mean_rank']:.2f}" for r in summary)],
        ["fit, s", *(f"{r['fit_seconds']:.2f}" for r in summary)],
        ["predict, µs a row", *(f"{r['predict_us_a_row']:.0f}" for r in summary)],
    ]
    each = [[table, *(f"{of[m]:.3f}" for m in methods)] for table, of in ratios.items()]
    versions = {r["method"]: r["version"] for r in results}
    seeds, threads = {r["seed"] for r in results}, {r["threads"] for r in results}
    used = ", ".join(f"{m}: {versions[m]}" for m in methods)
    note = (
        f"Log-loss or 1 - R², lower is better; geometric means over {len(means)} tables (nursery, "
        "on which HistGradientBoosting fails, pulls them all down; the median does not mind); "
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)}, {max(threads)} "
        f"thread{'s' * (max(threads) > 1)}, at most 10,000 training rows, every method at its "
        f"defaults ({used}). Times were taken on a machine with other work to do: compare, do not "
        "quote."
    )
    return "\n\n".join(
        [
            markdown_table(["over all tables", *methods], rows),
            markdown_table(["table", *methods], each),
            note,
        ]
    )


def fill(text: str, document: dict[str, Any]) -> str:
    """Return the text with its block filled in."""
    block = re.compile(r"(<!-- tables:start -->\n).*?(<!-- tables:end -->)", re.DOTALL)
    body = render(document)
    return block.sub(lambda m: f"{m[1]}{body}\n{m[2]}", text)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    if "<!-- tables:start -->" not in text:
        raise click.ClickException(f"expected <!-- tables:start --> in {file}, found none.")
    file.write_text(fill(text, json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
