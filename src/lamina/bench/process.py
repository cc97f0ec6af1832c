"""Start a worker and bring back its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKER = Path(__file__).resolve().with_name("worker.py")
ROOT = WORKER.parents[3]  # of a checkout
TIMEOUT_SECONDS = 600.0  # the slowest peer takes a tenth of it; whoever hangs is a failed peer
_THREADS = (
    "LAMINA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NPROC",  # XLA's
)


@dataclass(frozen=True)
class Workers:
    """How workers are started.

    Attributes
    ----------
    n_threads : int
        For every thread pool that reads it from the environment.
    jax_python : str
        The interpreter of the environment that has JAX.
    """

    n_threads: int
    jax_python: str = sys.executable

    def run(self, task: dict[str, Any], own_python: bool = False) -> dict[str, Any]:
        """Return what the worker says, or that it failed and why."""
        python = self.jax_python if own_python else sys.executable
        command = [python, str(WORKER), json.dumps(task)]
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(self.n_threads))}
        if own_python and python != sys.executable:
            environment.pop("PYTHONPATH", None)  # it was meant for this environment
        try:
            done = subprocess.run(  # noqa: S603  # an interpreter, and our worker
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _failed(f"it took longer than {TIMEOUT_SECONDS:g} s")
        except OSError as error:
            return _failed(f"the interpreter did not start: {error.strerror}")
        if done.returncode != 0:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            return _failed(f"the process ended with {done.returncode}: {last}")
        try:
            result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            return _failed("the process gave no result")
        if "reason" in result:
            result["reason"] = _without_places(result["reason"])
        return result


def _failed(reason: str) -> dict[str, Any]:
    return {"status": "failed", "reason": _without_places(reason)}


def _without_places(text: str) -> str:
    """Results are published: no folder of this machine belongs into them."""
    places = ((str(ROOT), "."), (sys.prefix, "<venv>"), (str(Path.home()), "~"))
    for place, name in places:
        if len(place) > 1:
            text = text.replace(place, name)
    return text[:300]
