"""Time lamina against scikit-learn, PyTorch, JAX and onnxruntime in one interleaved run.

::

    python benchmarks/engine.py                      everything, some minutes a round
    python benchmarks/engine.py --quick              a try with tiny sizes
    python benchmarks/engine.py --workloads A,fit-A  some of it

Prints ratios and writes JSON, from which ``report.py`` makes the tables of README and docs.
``benchmarks/README.md`` says what is timed and how.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from timing import host, summary, terminal
from timing.engines import ENGINES
from timing.process import FOLDER, ROOT, Workers
from timing.workloads import QUICK, WORKLOADS, Workload, find

from lamina.core.threads import default_n_threads

FORMAT = 1


def chosen(table: dict[str, Any], standard: list[str]) -> Any:
    """Return a click callback that turns "A,infer" into names; "infer" names all infer-…."""

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:  # noqa: ARG001
        if value is None:
            return standard
        names: list[str] = []
        for word in filter(None, (part.strip() for part in value.split(","))):
            group = [n for n in table if n.startswith(f"{word}-")]
            if word not in table and not group:
                raise click.BadParameter(f"expected some of {', '.join(table)}, got {word!r}.")
            names += [word] if word in table else group
        return list(dict.fromkeys(names))

    return parse


def interpreter(context: click.Context, parameter: click.Parameter, value: str) -> str:  # noqa: ARG001
    """Return the path of an interpreter, or say that there is none."""
    found = shutil.which(value)
    if found is None:
        raise click.BadParameter(f"expected a Python interpreter, got {value!r}.")
    return found


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--workloads", callback=chosen(WORKLOADS, []), help="Names, with commas between.")
@click.option(
    "--engines",
    callback=chosen(ENGINES, [name for name, engine in ENGINES.items() if not engine.optional]),
    help="Names, with commas between; torch.compile runs only when named.",
)
@click.option("--rounds", type=click.IntRange(1), help="Default 5; 1 with --quick.")
@click.option("--threads", type=click.IntRange(1), help="Default: as lamina chooses.")
@click.option("--seconds", type=click.FloatRange(0), help="A measurement; default 1.")
@click.option("--quick", is_flag=True, help="Tiny sizes: to try the benchmark, not to measure.")
@click.option(
    "--jax-python",
    default=sys.executable,
    callback=interpreter,
    help="The interpreter of an environment that has JAX; default: this one.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=FOLDER / "results" / "local" / "engine.json",
    help="Default: benchmarks/results/local/engine.json.",
)
def main(
    workloads: list[str],
    engines: list[str],
    rounds: int | None,
    threads: int | None,
    seconds: float | None,
    quick: bool,
    jax_python: str,
    out: Path,
) -> None:
    names = workloads or (list(QUICK) if quick else list(WORKLOADS))
    n_available = host.n_cpus()
    settings: dict[str, Any] = {
        "n_rounds": rounds or (1 if quick else 5),
        "n_threads": use_cpus(threads),
        "seconds": seconds if seconds is not None else (0.05 if quick else 1.0),
        "quick": quick,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 120)
    workers = Workers(settings["n_threads"], jax_python)
    head = {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **settings,
        **host.describe(n_available),
        "versions": host.versions(workers),
    }
    head["engines"] = availability(engines, head["versions"])
    before = host.load()
    measured = measure([find(name, quick) for name in names], head, workers, console)
    result = {
        **head,
        "load_average": {"before": before, "after": host.load()},
        "workloads": [summary.of_workload(workload, of_one) for workload, of_one in measured],
    }
    write(out, result)
    terminal.show(console, result)
    console.print(f"written: {out.relative_to(ROOT) if out.is_relative_to(ROOT) else out}")


def use_cpus(threads: int | None) -> int:
    """Keep this process, and so every worker, to as many CPUs as threads; return the number.

    It is the only way to tell JAX, and gives all engines the same terms.
    """
    available = host.n_cpus()
    n_threads = min(default_n_threads(), available) if threads is None else threads
    if n_threads > available:
        raise click.UsageError(
            f"--threads: expected at most the {available} CPUs there are, got {n_threads}."
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])
    return n_threads


def availability(engines: list[str], versions: dict[str, str | None]) -> dict[str, dict[str, Any]]:
    """Tell of each engine whether all that it needs is installed, and what is not."""
    absent = {name: [p for p in ENGINES[name].packages if not versions[p]] for name in engines}
    return {
        name: {"available": True}
        if not packages
        else {"available": False, "reason": f"{', '.join(packages)} not installed"}
        for name, packages in absent.items()
    }


def measure(
    workloads: list[Workload], head: dict[str, Any], workers: Workers, console: Console
) -> Iterator[tuple[Workload, dict[str, list[dict[str, Any]]]]]:
    """Return each workload with every engine's rounds; round r is measured together."""
    engines = head["engines"]
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {
        w.name: {name: [] for name in engines if ENGINES[name].runs(w)} for w in workloads
    }
    with console.status("") as status:
        for r in range(head["n_rounds"]):
            for workload in workloads:
                of_one = rounds[workload.name]
                # Forwards, then backwards: no engine always runs after the same neighbour.
                for name in list(of_one)[:: 1 if r % 2 == 0 else -1]:
                    status.update(f"round {r + 1} of {head['n_rounds']}: {workload.name}, {name}")
                    of_one[name].append(one_round(workload, name, of_one[name], head, workers))
    return ((workload, rounds[workload.name]) for workload in workloads)


def one_round(
    workload: Workload,
    name: str,
    before: list[dict[str, Any]],
    head: dict[str, Any],
    workers: Workers,
) -> dict[str, Any]:
    """Return an engine's times in one round, or why there are none; a failure is not repeated."""
    if not head["engines"][name]["available"]:
        return {"status": "missing", "reason": head["engines"][name]["reason"]}
    if before and before[-1]["status"] != "ok":
        return before[-1]
    task = {
        "workload": workload.name,
        "engine": name,
        "n_threads": head["n_threads"],
        "seconds": head["seconds"],
        "quick": head["quick"],
    }
    load = host.load()[0]
    answer = workers.run(task, ENGINES[name].own_python)
    if answer["status"] != "ok":
        return answer
    return {
        "status": "ok",
        **summary.of_samples(answer["samples"]),
        "check": answer["check"],
        "setting": answer["setting"],
        "load": load,
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the JSON, all or nothing."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    main()
