"""The result as tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from timing import text


def show(console: Console, result: dict[str, Any]) -> None:
    """Print a table for each workload, then the conditions."""
    for kind, heading in text.KINDS.items():
        workloads = [w for w in result["workloads"] if w["kind"] == kind]
        if workloads:
            console.rule(f"[bold]{heading}", align="left")
        for workload in workloads:
            console.print(_table(workload))
    console.print("Ratio: the engine's time over lamina's, the median over the rounds.")
    console.print(text.conditions(result), text.missing(result), highlight=False)
    if result["quick"]:
        console.print("[bold]--quick: tiny sizes, to try the benchmark; these are no results.[/]")


def _table(workload: dict[str, Any]) -> Table:
    title = f"[bold]{workload['name']}[/]  {workload['title']}"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("engine", no_wrap=True)
    for column in ("median", "quartiles", "min", "ratio", "of mins", text.CHECKS[workload["kind"]]):
        table.add_column(column, justify="right", no_wrap=True)
    reasons = []
    for name, engine in workload["engines"].items():
        if engine["status"] == "ok":
            table.add_row(f"{name}[dim] {engine['setting']}[/]", *_cells(engine))
        else:
            table.add_row(name, f"[red]{engine['status']}[/]")
            if engine["status"] == "failed":
                reasons.append(f"{name}: {engine['reason']}")
    table.caption = escape("\n".join(reasons))
    return table


def _cells(engine: dict[str, Any]) -> list[str]:
    ratios = ["–", "–"]
    if "ratio" in engine:
        ratios = [f"[bold]{text.ratio(engine['ratio'])}[/]", text.ratio(engine["ratio_of_mins"])]
    check = f"{engine['check']:.4g}"
    if not engine.get("same_work", True):
        check = f"[red]{check} differs[/]"
    return [
        text.duration(engine["median"]),
        f"{text.duration(engine['q1'])}–{text.duration(engine['q3'])}",
        text.duration(engine["min"]),
        *ratios,
        check,
    ]
