"""Where and on what the run was made: commit, CPU, instruction set, versions, load."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lamina
from lamina.bench.engines import ENGINES
from lamina.bench.process import ROOT, Workers


def describe(n_available: int) -> dict[str, Any]:
    """Return the commit and the machine; no names of hosts, people or folders."""
    info = lamina.info()
    return {
        **_commit(),
        "cpu": {
            "model": _cpu_model(),
            "machine": platform.machine(),
            "n_available": n_available,
            "isa": info["isa"],
            "isas": info["isas"],
            "features": {name: bool(has) for name, has in info["features"].items()},
        },
        "system": platform.system(),
    }


def n_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> list[float]:
    """Return the load averages of 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def versions(workers: Workers) -> dict[str, str | None]:
    """Return the versions of Python, NumPy and every engine's packages; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for own_python in (False, True):
        wanted = [p for e in ENGINES.values() if e.own_python == own_python for p in e.packages]
        packages = list(dict.fromkeys(wanted if own_python else ["numpy", *wanted]))
        answer = workers.run({"packages": packages}, own_python)
        failed = answer.get("status") == "failed"
        found |= dict.fromkeys(packages) if failed else answer
    return found


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _commit() -> dict[str, Any]:
    """Return the commit, and whether tracked files differ from it; None without git."""
    git = shutil.which("git")
    if git is None or not (ROOT / "native").is_dir():  # an installed lamina
        return {"commit": None, "changed": None}

    def ask(*arguments: str) -> str | None:
        done = subprocess.run(  # noqa: S603  # git, and words of our own
            [git, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    status = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD"), "changed": None if status is None else bool(status)}
