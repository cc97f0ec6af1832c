"""How many threads to use: the caller's wish, the environment's, or what the machine grants."""

from __future__ import annotations

import math
import operator
import os
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from lamina.core.errors import SpecError

MAX_THREADS = 4096


def default_n_threads(n_threads: int | None = None) -> int:
    """Return the argument, else LAMINA_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs we may use.

    The last is the smaller of the affinity mask and the control group's quota (version 1 or 2),
    rounded up. joblib's workers set OMP_NUM_THREADS, so nested parallelism stays within bounds.

    Raises
    ------
    SpecError
        The argument or a variable is not a whole number of at least 1.
    """
    if n_threads is not None:
        return _thread_count(n_threads, "n_threads", "Pass a whole number, or None to choose.")
    for name in ("LAMINA_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name)
        if text:
            first = text.split(",")[0]  # OpenMP allows one number a nesting level
            return _thread_count(first, name, "Correct the environment variable or unset it.")
    return min(_affinity(), _cgroup_cpus())


def recent_n_threads() -> int:
    """Return `default_n_threads()`, asked again once the last answer is 50 ms old.

    For calls of microseconds, whose results the number does not change: asking takes 2.4 us.
    """
    global _recent
    now = time.monotonic()
    until, n_threads = _recent
    if now > until:
        n_threads = default_n_threads()
        _recent = (now + 0.05, n_threads)
    return n_threads


_recent = (0.0, 1)


def _thread_count(value: object, name: str, advice: str) -> int:
    try:
        count = int(value) if isinstance(value, str) else _as_index(value)
    except (TypeError, ValueError):
        count = 0
    if not 1 <= count <= MAX_THREADS:
        raise SpecError(
            f"{name}: expected a whole number from 1 to {MAX_THREADS}, got {value!r}. {advice}"
        )
    return count


def _as_index(value: object) -> int:
    if isinstance(value, bool | np.bool_):
        raise TypeError
    return operator.index(value)  # type: ignore[arg-type]


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _cgroup_cpus(process: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """Return the CPUs the control group's quota allows, at least 1; a large number without one."""
    quotas: list[float] = []
    for line in _read(Path(process)).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            mount, files = Path(root), _VERSION_2_FILES
        elif "cpu" in controllers.split(","):
            mount, files = _version_1_mount(Path(root), controllers), _VERSION_1_FILES
        else:
            continue
        # A container may see the host's path here and only its own group mounted: a directory
        # that is absent has no quota, and the walk upwards ends at the mount.
        below = mount / path.lstrip("/")
        for group in (below, *below.parents):
            quotas.extend(_quota([_read(group / file) for file in files]))
            if group == mount:
                break
    return max(1, math.ceil(min(quotas, default=MAX_THREADS)))


_VERSION_2_FILES: tuple[str, ...] = ("cpu.max",)
_VERSION_1_FILES: tuple[str, ...] = ("cpu.cfs_quota_us", "cpu.cfs_period_us")


def _version_1_mount(root: Path, controllers: str) -> Path:
    named = root / controllers
    return named if named.is_dir() else root / "cpu"


def _quota(texts: Iterable[str]) -> list[float]:
    """Return [quota / period], or [] where the files are absent or set no limit."""
    numbers = " ".join(texts).split()
    try:
        quota, period = (float(number) for number in numbers)
    except ValueError:  # "max 100000", or no such file
        return []
    return [quota / period] if quota > 0 and period > 0 else []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
