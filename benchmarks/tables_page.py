"""Write the results of benchmarks/tables.py as one HTML page with plots and all numbers.

::

    python benchmarks/tables_page.py tables.json tables.html
    python benchmarks/tables_page.py benchmarks/results/local/tables.jsonl peers.jsonl tables.html

SOURCE is the JSON of ``tables.py --out`` or a cache; of several, the later counts where both have a
result. Methods are compared on the tables and seeds that all of them finished, so that --methods
and --tables, which leave some out, may let others have more. The page loads nothing from elsewhere.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

import click
import jinja2
import numpy as np
from markupsafe import Markup
from tables_figures import plot_costs, plot_scores
from tables_suite import TABLES
from tables_summary import (
    LEAST_ERROR,
    REFERENCE,
    Cells,
    Result,
    by_method,
    coverage_sentence,
    read_results,
    shared_seeds,
    summarise,
    table_means,
)

from lamina.plots.style import to_svg

TEMPLATE = Path(__file__).with_name("tables_page.html.j2")
MORE_CSS = """
main { max-width: 1080px; }
tr.ours td { background: #eef5fa; }
tr.group td { padding-top: 18px; font-weight: 650; border-bottom: 1px solid #5b6670; }
tr.group .hint { font-weight: 400; }
td.best { font-weight: 650; }
td:first-child, th:first-child { padding-left: 8px; }
td:last-child:not(.n) { min-width: 0; }
"""


def page(results: list[Result], command: str = "") -> str:
    """Return the page of results, of which at least one is of the reference.

    Parameters
    ----------
    results : list of dict
        See `tables_summary`.
    command : str
        What repeats the page.
    """
    cells = by_method(results)
    rows = summarise(results)
    if not rows:
        finished = ", ".join(f"{m} {len(of)} tables" for m, of in cells.items()) or "none"
        raise click.ClickException(
            f"expected results of {REFERENCE} and one table and seed that all methods finished, "
            f"got: {finished}. Choose other --methods or --tables."
        )
    seeds = shared_seeds(cells)
    methods = [row["method"] for row in rows]
    error = np.maximum(table_means(cells, seeds, "error"), LEAST_ERROR)
    error = error[[list(cells).index(m) for m in methods]]
    ratio = error / error[methods.index(REFERENCE)]
    css = (resources.files("lamina.tabular") / "report.css").read_text("utf-8") + MORE_CSS
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        css=Markup(css),
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d"),
        lead=coverage_sentence(results),
        reference=REFERENCE,
        ordered_by="lamina" if "lamina" in methods else methods[0],
        summary=[_summary_cells(row) for row in rows],
        scores=_figure(plot_scores(list(seeds), methods, ratio), "Score of each method by table"),
        fit=_figure(plot_costs(rows, "fit_seconds", "fit time, s"), "Score against fit time"),
        predict=_figure(
            plot_costs(rows, "predict_us_a_row", "predict time, µs a row"),
            "Score against predict time",
        ),
        tables=[_table(name, cells, methods, own) for name, own in _all_seeds(cells, methods)],
        failures=[
            {k: str(r[k]) for k in ("method", "table", "seed", "failed")}
            for r in results
            if "failed" in r
        ],
        setting=_setting(results, methods),
        command=command,
    )


def _figure(figure: Any, alt: str) -> dict[str, Any]:
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    data = base64.b64encode(to_svg(figure)).decode()
    return {"data": data, "width": width, "height": height, "alt": alt}


def _summary_cells(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["interval"]
    return {
        "method": row["method"],
        "ours": row["method"].startswith("lamina"),
        "score": f"{row['score']:.3f}",
        "interval": f"{low:.3f} – {high:.3f}",
        "rank": f"{row['mean_rank']:.2f}",
        **_costs(row),
        "own": row["n_tables_own"],
    }


def _costs(row: dict[str, Any]) -> dict[str, str]:
    return {
        "fit": _digits(row["fit_seconds"]),
        "predict": _digits(row["predict_us_a_row"]),
        "memory": f"{row['memory_mib']:,.0f}",
    }  # fmt: skip


def _digits(value: float) -> str:
    """Return three digits, or a whole number where that is more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _all_seeds(cells: Cells, methods: list[str]) -> list[tuple[str, dict[str, list[int]]]]:
    """Return each table that anybody finished, the suite's first, and the seeds of its methods."""
    every = {table for of in cells.values() for table in of}
    order = [t for t in TABLES if t in every] + sorted(every - set(TABLES))
    return [(t, {m: sorted(cells[m][t]) for m in methods if t in cells[m]}) for t in order]


def _table(
    name: str, cells: Cells, methods: list[str], seeds: dict[str, list[int]]
) -> dict[str, Any]:
    """Return a table's numbers for people: a row a method, the best first.

    Each method's are of all its seeds; the ratio is of those it shares with the reference.
    """
    rows = []
    own_best = min(np.mean([cells[m][name][s]["error"] for s in own]) for m, own in seeds.items())
    for method, own in seeds.items():
        of = [cells[method][name][s] for s in own]
        error = np.array([r["error"] for r in of])
        both = [s for s in own if s in cells.get(REFERENCE, {}).get(name, {})]
        ratio = [
            max(np.mean([cells[m][name][s]["error"] for s in both]), LEAST_ERROR)
            for m in (method, REFERENCE)
        ] if both else []  # fmt: skip
        rows.append(
            {
                "method": method,
                "ours": method.startswith("lamina"),
                "mean": float(error.mean()),
                "best": bool(error.mean() == own_best),
                "error": f"{error.mean():.4f}",
                "spread": f"± {error.std(ddof=1):.4f}" if len(error) > 1 else "–",
                "ratio": f"{ratio[0] / ratio[1]:.3f}" if ratio else "–",
                "seeds": len(own),
                **_costs({k: float(np.mean([r[k] for r in of])) for k in (
                    "fit_seconds", "predict_us_a_row", "memory_mib"
                )}),
            }
        )  # fmt: skip
    one = next(iter(cells[next(iter(seeds))][name].values()))
    missing = [m for m in methods if m not in seeds]
    text = f"{one['n_train']:,} rows fitted, {one['n_test']:,} judged"
    return {
        "name": name,
        "about": text + (f"; not finished by {', '.join(missing)}" if missing else ""),
        "rows": sorted(rows, key=lambda row: row["mean"]),
    }


def _setting(results: list[Result], methods: list[str]) -> list[tuple[str, str]]:
    """Return each method's versions and threads."""
    found = []
    for method in methods:
        own = [r for r in results if r["method"] == method]
        versions = sorted({str(r["version"]) for r in own})
        threads = sorted({int(r["threads"]) for r in own})
        noun = "thread" if threads == [1] else "threads"
        found.append((method, f"{' and '.join(versions)}, {' or '.join(map(str, threads))} {noun}"))
    return found


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.argument(
    "sources",
    metavar="SOURCE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.argument("out", metavar="PAGE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--methods", help="Names, with commas between [default: all there are].")
@click.option("--tables", help="Names, with commas between [default: all there are].")
def main(sources: tuple[Path, ...], out: Path, methods: str | None, tables: str | None) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"expected a PAGE that ends in .html, got {str(out)!r}.")
    last: dict[tuple[str, str, int], Result] = {}
    for source in sources:
        try:
            found = read_results(source)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        last |= {(r["method"], r["table"], r["seed"]): r for r in found}
    results = list(last.values())
    for key, names in (("method", methods), ("table", tables)):
        if names is None:
            continue
        wanted, known = names.split(","), {r[key] for r in results}
        if unknown := [name for name in wanted if name not in known]:
            raise click.BadParameter(
                f"expected {key}s among {', '.join(sorted(known))}, got {unknown[0]!r}."
            )
        kept = {*wanted, REFERENCE} if key == "method" else set(wanted)
        results = [r for r in results if r[key] in kept]
    options = "".join(f" --{k} {v}" for k, v in (("methods", methods), ("tables", tables)) if v)
    names = " ".join(path.name for path in (*sources, out))
    text = page(results, f"python benchmarks/tables_page.py {names}{options}")
    out.write_text(text, encoding="utf-8")
    click.echo(coverage_sentence(results))
    click.echo(f"written to {out}")


if __name__ == "__main__":
    main()
