"""The result as tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lamina.bench import text
from lamina.bench.engines import ENGINES, OURS


def show(console: Console, result: dict[str, Any]) -> None:
    """Print a table for each workload, then the conditions."""
    if any(w["kind"] == "train" for w in result["workloads"]):
        console.print(_overview(result["workloads"]))
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


def _overview(workloads: list[dict[str, Any]]) -> Table:
    """Return a line a training workload: lamina, its share of the peak, and the best peers."""
    table = Table(title="lamina and the best peer, one step", title_justify="left", box=None)
    table.add_column("", no_wrap=True)
    columns = ("lamina", "GFLOP/s", "of peak", "best float32 peer", "lamina bf16", "of peak")
    for column in (*columns, "best peer of all"):
        table.add_column(column, justify="right", no_wrap=True)
    for workload in workloads:
        if workload["kind"] == "train":
            table.add_row(workload["name"], *_overview_cells(workload["engines"]))
    return table


def _overview_cells(engines: dict[str, dict[str, Any]]) -> list[str]:
    measured = {name: e for name, e in engines.items() if e["status"] == "ok"}
    peers = {name: e for name, e in measured.items() if not ENGINES[name].ours and "ratio" in e}
    alike = {n: e for n, e in peers.items() if ENGINES[n].precision == "float32"}
    ours, half = measured.get(OURS), measured.get("lamina bf16")
    cells = [text.duration(ours["median"]), f"{ours['flops'] / 1e9:,.0f}"] if ours else ["–", "–"]
    cells += [_share(ours), _best(alike, 1.0)]
    cells += [text.duration(half["median"]) if half else "–", _share(half)]
    fastest = min(1.0, half["ratio"]) if half and "ratio" in half else 1.0
    return [*cells, _best(peers, fastest)]


def _share(engine: dict[str, Any] | None) -> str:
    if engine is None or not engine.get("of_peak"):
        return "–"
    return f"{engine['of_peak']:.0%}"


def _best(peers: dict[str, dict[str, Any]], ours: float) -> str:
    """Return the fastest peer, and its time over ours: `ours` is our own ratio to float32."""
    if not peers:
        return "–"
    name = min(peers, key=lambda n: peers[n]["ratio"])
    return f"[bold]{text.ratio(peers[name]['ratio'] / ours)}[/] {name}"


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
    ours = workload["engines"].get(OURS, {})
    if ours.get("memory"):
        reasons.append(f"lamina takes {ours['memory'] / 1e6:,.1f} MB beyond the rows")
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
