"""One interleaved run: every workload, every engine, round by round, to one JSON document."""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lamina.bench import host, summary
from lamina.bench.engines import ENGINES
from lamina.bench.process import Workers
from lamina.bench.workloads import ALL, QUICK, WORKLOADS, Workload, find
from lamina.core.engine import info
from lamina.core.errors import SpecError
from lamina.core.threads import default_n_threads

FORMAT = 2
STANDARD = [name for name, engine in ENGINES.items() if not engine.optional]


def run(
    workloads: list[str],
    engines: list[str],
    *,
    n_rounds: int | None = None,
    n_threads: int | None = None,
    seconds: float | None = None,
    quick: bool = False,
    jax_python: str = sys.executable,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the document of a run: machine, versions, and every engine's times by workload.

    Parameters
    ----------
    workloads, engines : list of str
        Names in `WORKLOADS` or `EXTRAS`, none for the standard ones; and in `ENGINES`.
    n_rounds : int, optional
        5, or 1 with `quick`.
    n_threads : int, optional
        For every engine; None as lamina chooses.
    seconds : float, optional
        A measurement: 1, or 0.05 with `quick`.
    quick : bool
        Tiny sizes: to try the benchmark, not to measure.
    jax_python : str
        The interpreter of an environment that has JAX.
    say : callable
        Told what is being measured.

    Raises
    ------
    SpecError
        There are not so many CPUs.
    """
    names = workloads or (list(QUICK) if quick else list(WORKLOADS))
    n_available = host.n_cpus()
    settings: dict[str, Any] = {
        "n_rounds": n_rounds or (1 if quick else 5),
        "n_threads": _use_cpus(n_threads),
        "seconds": seconds if seconds is not None else (0.05 if quick else 1.0),
        "quick": quick,
    }
    workers = Workers(settings["n_threads"], jax_python)
    head: dict[str, Any] = {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **settings,
        **host.describe(n_available),
        "versions": host.versions(workers),
    }
    head["engines"] = availability(engines, head["versions"])
    before = host.load()
    measured = _measure([find(name, quick) for name in names], head, workers, say)
    return {
        **head,
        "load_average": {"before": before, "after": host.load()},
        "workloads": [summary.of_workload(workload, of_one) for workload, of_one in measured],
    }


def choose(words: str, names: list[str]) -> list[str]:
    """Turn "A,infer" into names; "infer" names all infer-….

    Raises
    ------
    SpecError
        A word is none of them.
    """
    chosen: list[str] = []
    for word in filter(None, (part.strip() for part in words.split(","))):
        group = [name for name in names if name.startswith(f"{word}-")]
        if word not in names and not group:
            groups = dict.fromkeys(name.partition("-")[0] for name in names)
            raise SpecError(
                f"bench: expected some of {', '.join(groups)}, got {word!r}. "
                "Use these names, with commas between."
            )
        chosen += [word] if word in names else group
    return list(dict.fromkeys(chosen))


ALL_WORKLOADS = list(ALL)


def _use_cpus(threads: int | None) -> int:
    """Keep this process, and so every worker, to as many CPUs as threads; return the number.

    It is the only way to tell JAX, and gives all engines the same terms.
    """
    available = host.n_cpus()
    n_threads = min(default_n_threads(), available) if threads is None else threads
    if n_threads > available:
        raise SpecError(
            f"bench: expected at most the {available} CPUs there are as threads, got {n_threads}. "
            "Ask for fewer."
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])
    return n_threads


def availability(engines: list[str], versions: dict[str, str | None]) -> dict[str, dict[str, Any]]:
    """Tell of each engine whether all that it needs is installed, and what is not."""
    found: dict[str, dict[str, Any]] = {}
    for name in engines:
        absent = [package for package in ENGINES[name].packages if not versions[package]]
        reason = f"{', '.join(absent)} not installed" if absent else None
        if ENGINES[name].ours and ENGINES[name].precision == "bfloat16":
            reason = None if info()["precisions"]["bfloat16"] else "no bfloat16 unit here"
        found[name] = {"available": True} if reason is None else _missing(reason)
    return found


def _missing(reason: str) -> dict[str, Any]:
    return {"available": False, "reason": reason}


def _measure(
    workloads: list[Workload], head: dict[str, Any], workers: Workers, say: Callable[[str], None]
) -> Iterator[tuple[Workload, dict[str, list[dict[str, Any]]]]]:
    """Return each workload with every engine's rounds; round r is measured together."""
    engines = head["engines"]
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {
        w.name: {name: [] for name in engines if ENGINES[name].runs(w)} for w in workloads
    }
    for r in range(head["n_rounds"]):
        for workload in workloads:
            of_one = rounds[workload.name]
            # Forwards, then backwards: no engine always runs after the same neighbour.
            for name in list(of_one)[:: 1 if r % 2 == 0 else -1]:
                say(f"round {r + 1} of {head['n_rounds']}: {workload.name}, {name}")
                of_one[name].append(_one_round(workload, name, of_one[name], head, workers))
    return ((workload, rounds[workload.name]) for workload in workloads)


def _one_round(
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
        "peak": answer["peak"],
        "memory": answer["memory"],
        "load": load,
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the JSON, all or nothing."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
