"""The clock: one warm call, then samples until the time is up."""

from __future__ import annotations

import gc
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

# A sample shorter than this is mostly the clock itself (two readings cost some 0.1 us).
SAMPLE_SECONDS = 2e-3
MIN_SAMPLES = 3
# So often, between samples, the peak is measured beside the work.
BESIDE_SECONDS = 0.05
# A call longer than this gains from all threads: the alternatives, with fewer, are not tried.
LONG_SECONDS = 1.0


@dataclass(frozen=True)
class Ready:
    """Something to time, prepared: data converted, weights set, nothing compiled yet.

    Attributes
    ----------
    call : callable
        What is timed; its result must be computed when it returns.
    check : callable
        Takes what the first call returned and gives the number by which engines are compared:
        the mean loss of the first epoch (train), the final loss (fit), or the largest error of
        y_pred (infer).
    units : int
        Steps, fits or calls in one call.
    setting : str
        What sets it apart from its alternatives, for the report.
    begin : callable
        Puts the setting in force; called before it is timed.
    beside : callable, optional
        Measures what the machine can do at best, in operations a second: called between samples,
        since clocks change.
    memory : callable
        Tells, after the first call, how many bytes were taken beyond the data; 0: not measured.
    """

    call: Callable[[], Any]
    check: Callable[[Any], float]
    units: int = 1
    setting: str = ""
    begin: Callable[[], Any] = lambda: None
    beside: Callable[[], float | None] | None = None
    memory: Callable[[], int] = lambda: 0


def sample(alternatives: list[Ready], seconds: float) -> dict[str, Any]:
    """Return the check and the time of one unit, in seconds, sample by sample.

    Parameters
    ----------
    alternatives : list of Ready
        Fair settings of one engine, all threads last; the fastest is timed. They may share their
        state, so that the check is that of the very first call.
    seconds : float
        How long to go on; at least `MIN_SAMPLES` samples are taken.
    """
    alternatives[-1].begin()
    first = alternatives[-1].call()  # the warm-up: compiles, fills caches, starts threads
    check = float(alternatives[-1].check(first))
    del first
    memory = alternatives[-1].memory()
    ready = fastest(alternatives)
    ready.begin()
    timer = timeit.Timer(ready.call)  # its loop costs some 10 ns a call and pauses the collector
    number = _calls_a_sample(timer)
    gc.collect()
    samples: list[float] = []
    peaks: list[float] = []
    looked = -BESIDE_SECONDS
    end = time.perf_counter() + seconds
    while len(samples) < MIN_SAMPLES or time.perf_counter() < end:
        samples.append(timer.timeit(number) / (number * ready.units))
        if ready.beside and time.perf_counter() - looked > BESIDE_SECONDS:
            peaks.append(ready.beside() or 0.0)
            looked = time.perf_counter()
    return {
        "check": check,
        "samples": samples,
        "setting": ready.setting,
        "peak": max(peaks) if peaks else None,
        "memory": memory,
    }


def fastest(alternatives: list[Ready]) -> Ready:
    """Return the quickest of several settings, each tried for a moment."""
    if len(alternatives) == 1 or timeit.timeit(alternatives[-1].call, number=1) > LONG_SECONDS:
        return alternatives[-1]

    def moment(ready: Ready) -> float:
        ready.begin()
        timer = timeit.Timer(ready.call)
        timer.timeit(1)
        number = _calls_a_sample(timer)
        return min(timer.repeat(3, number)) / number

    return min(alternatives, key=moment)


def each_thread_count(
    ready: Ready, n_threads: int, set_threads: Callable[[int], Any]
) -> list[Ready]:
    """Return `ready` on one thread and on all: small work is often faster on one."""
    return [
        replace(
            ready,
            setting=f"{count} thread{'s' * (count > 1)}",
            begin=partial(set_threads, count),
        )
        for count in sorted({1, n_threads})
    ]


def _calls_a_sample(timer: timeit.Timer) -> int:
    number = 1
    while (took := timer.timeit(number)) < SAMPLE_SECONDS:
        number *= 2 if took > SAMPLE_SECONDS / 16 else 8  # at most twice what is needed
    return number
