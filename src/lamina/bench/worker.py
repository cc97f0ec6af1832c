"""One measurement, in a process of its own: a task in JSON as argument, its result on stdout.

Every engine's thread pool then has the machine to itself, and a crash is one missing number. Used
by ``process.py``, as a script: in another environment, which has JAX but not lamina, NumPy and the
engine it times are all that it needs.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Return the times of one engine on one workload, or why there are none."""
    from lamina.bench.clock import Ready, sample
    from lamina.bench.engines import ENGINES
    from lamina.bench.workloads import find

    workload, engine = find(task["workload"], task["quick"]), task["engine"]
    try:
        prepare = getattr(import_module(ENGINES[engine].module), workload.kind)
        n_threads = workload.n_threads or task["n_threads"]
        ready: Ready | list[Ready] = prepare(workload, engine, n_threads)
        alternatives = [ready] if isinstance(ready, Ready) else ready
        return {"status": "ok", **sample(alternatives, task["seconds"])}
    except ModuleNotFoundError as error:
        return {"status": "missing", "reason": f"{error.name} is not installed"}
    except Exception as error:  # whatever a peer raises is its result
        first_line = (str(error).strip() or "no message").splitlines()[0]
        return {"status": "failed", "reason": f"{type(error).__name__}: {first_line}"}


def installed(packages: list[str]) -> dict[str, str | None]:
    """Return the version of each package, None where it is not installed."""
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            try:  # a source tree on the path has no metadata
                versions[package] = getattr(import_module(package), "__version__", "unknown")
            except ImportError:
                versions[package] = None
    return versions


def find_lamina() -> None:
    """Make `lamina.bench` importable, and nothing beside this script by its bare name."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]
    if find_spec("lamina") is None:
        package = ModuleType("lamina")
        package.__path__ = [str(here.parent)]
        sys.modules["lamina"] = package


if __name__ == "__main__":
    find_lamina()
    task = json.loads(sys.argv[1])
    result = installed(task["packages"]) if "packages" in task else measure(task)
    # A peer may print too: the result is the last line.
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)  # some pools are slow to take leave; nothing is left to be written
