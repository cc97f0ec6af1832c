"""Write the benchmark's tables into README and docs, from its JSON and nothing else.

::

    python benchmarks/report.py README.md docs/benchmarks.md

In each file, what stands between ``<!-- bench:start -->`` and ``<!-- bench:end -->`` becomes the
short tables, and between ``<!-- bench-detail:start -->`` and ``<!-- bench-detail:end -->`` the long
ones. Without files both are printed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from lamina.bench import text
from lamina.bench.engines import ENGINES, OURS

FOLDER = Path(__file__).resolve().parent

Result = dict[str, Any]


def short(result: Result) -> str:
    """Return one table for each kind: lamina's median, every peer's ratio and median."""
    parts = []
    for kind, heading in text.KINDS.items():
        workloads = [w for w in result["workloads"] if w["kind"] == kind]
        shown = {name for w in workloads for name in w["engines"]}
        names = [name for name in ENGINES if name in shown]
        rows = [
            [_label(w), *(_short_cell(name, w["engines"].get(name)) for name in names)]
            for w in workloads
        ]
        if rows:
            parts.append(markdown_table([heading, *names], rows))
    return "\n\n".join([*parts, _notes(result)])


def detail(result: Result) -> str:
    """Return a table for each workload: median, quartiles, minimum, ratios, check, setting."""
    parts = []
    for kind, heading in text.KINDS.items():
        workloads = [w for w in result["workloads"] if w["kind"] == kind]
        if workloads:
            parts.append(f"### {heading}")
        for w in workloads:
            head = ["engine", "median", "quartiles", "min", "ratio", "ratio of mins"]
            rows = [_detail_row(name, engine) for name, engine in w["engines"].items()]
            parts.append(f"**{w['name']}** {w['title']}")
            parts.append(markdown_table([*head, text.CHECKS[kind], "setting"], rows))
    return "\n\n".join([*parts, _notes(result)])


def _label(workload: dict[str, Any]) -> str:
    if workload["kind"] == "infer":
        return str(workload["title"])
    return f"**{workload['name']}** {workload['title']}"


def _short_cell(name: str, engine: dict[str, Any] | None) -> str:
    if engine is None:
        return "–"
    if engine["status"] != "ok":
        return str(engine["status"])
    if name == OURS or "ratio" not in engine:
        return text.duration(engine["median"])
    differs = "" if engine["same_work"] else ", result differs"
    return f"{text.ratio(engine['ratio'])} ({text.duration(engine['median'])}{differs})"


def _detail_row(name: str, engine: dict[str, Any]) -> list[str]:
    if engine["status"] != "ok":
        return [name, engine["status"], "", "", "", "", "", engine["reason"].replace("|", "\\|")]
    ratios = ["–", "–"]
    if "ratio" in engine:
        ratios = [text.ratio(engine["ratio"]), text.ratio(engine["ratio_of_mins"])]
    return [
        name,
        text.duration(engine["median"]),
        f"{text.duration(engine['q1'])}–{text.duration(engine['q3'])}",
        text.duration(engine["min"]),
        *ratios,
        f"{engine['check']:.4g}" + ("" if engine.get("same_work", True) else " (differs)"),
        engine["setting"],
    ]


def _notes(result: Result) -> str:
    return " ".join(
        filter(
            None,
            (
                "A ratio is the engine's time over lamina's in the same round, the median over the "
                "rounds; times are medians.",
                text.conditions(result),
                text.missing(result),
            ),
        )
    )


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *("--:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fill(document: str, result: Result) -> str:
    """Return the document with the blocks it has filled in."""
    for name, render in (("bench", short), ("bench-detail", detail)):
        block = re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if block.search(document):
            body = render(result)
            document = block.sub(lambda m, body=body: f"{m[1]}{body}\n{m[2]}", document)
    return document


def check_published(result: Result) -> None:
    """Refuse a result that says nothing about speed."""
    if result["quick"]:
        raise click.ClickException(
            "report: expected the JSON of a full run, got one made with --quick. "
            "Run benchmarks/engine.py without it."
        )


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--results",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=FOLDER / "results" / "engine.json",
    help="Default: benchmarks/results/engine.json.",
)
def main(files: tuple[Path, ...], results: Path) -> None:
    result = json.loads(results.read_text(encoding="utf-8"))
    if not files:
        click.echo(f"{short(result)}\n\n{detail(result)}")
        return
    check_published(result)
    for path in files:
        before = path.read_text(encoding="utf-8")
        after = fill(before, result)
        if "<!-- bench" not in before:
            raise click.ClickException(
                f"report: expected <!-- bench:start --> and <!-- bench:end --> in {path}, "
                "got neither. Add them where the tables belong."
            )
        path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
