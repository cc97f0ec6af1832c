"""From samples to what is reported: min, median, quartiles, and ratios round by round."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import numpy as np

from lamina.bench.engines import ENGINES, OURS
from lamina.bench.workloads import Workload

# Engines do the same work if they reach the same loss. In a first epoch they differ by the order
# of the rows (which no two draw alike); a fit has the same orders and differs by rounding only.
LOSS_TOLERANCE = {"train": 0.1, "fit": 1e-3}


def of_samples(samples: list[float]) -> dict[str, float]:
    """Return min, quartiles, median and number of one process's samples."""
    q1, middle, q3 = np.percentile(samples, (25, 50, 75))
    return {
        "min": min(samples),
        "q1": float(q1),
        "median": float(middle),
        "q3": float(q3),
        "n_samples": len(samples),
    }


def of_engine(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of an engine's rounds, or why there is none.

    The median and the quartiles are those of the rounds' medians: processes differ more than the
    samples within one.
    """
    bad = next((r for r in rounds if r["status"] != "ok"), None)
    if bad is not None:
        return {"status": bad["status"], "reason": bad["reason"]}
    q1, middle, q3 = np.percentile([r["median"] for r in rounds], (25, 50, 75))
    return {
        "status": "ok",
        "min": min(r["min"] for r in rounds),
        "q1": float(q1),
        "median": float(middle),
        "q3": float(q3),
        "check": median(r["check"] for r in rounds),
        "setting": " / ".join(dict.fromkeys(r["setting"] for r in rounds)),
        "memory": max(r.get("memory", 0) for r in rounds),
        "rounds": rounds,
    }


def of_workload(workload: Workload, rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the summary of a workload: every engine's, with its ratio to lamina's.

    Parameters
    ----------
    workload : Workload
    rounds : dict of engine name to list of rounds
        Round r of each engine was measured next to round r of the others.
    """
    engines = {name: of_engine(of_one) for name, of_one in rounds.items()}
    ours = engines.get(OURS, {"status": "absent"})
    for engine in engines.values():
        if engine["status"] == "ok" and workload.kind == "train":
            engine["flops"] = workload.flops / engine["median"]
            of_peak = [
                workload.flops / r["median"] / r["peak"] for r in engine["rounds"] if r.get("peak")
            ]
            engine["of_peak"] = median(of_peak) if of_peak else None
    for name, engine in engines.items():
        if engine["status"] == ours["status"] == "ok":
            pairs = list(zip(engine["rounds"], ours["rounds"], strict=True))
            engine["ratio"] = median(peer["median"] / own["median"] for peer, own in pairs)
            engine["ratio_of_mins"] = median(peer["min"] / own["min"] for peer, own in pairs)
            engine["same_work"] = same_work(workload, name, engine["check"], ours["check"])
    return {
        "name": workload.name,
        "kind": workload.kind,
        "title": workload.title,
        "unit": workload.unit,
        "sizes": workload.sizes(),
        "engines": engines,
    }


def same_work(workload: Workload, name: str, check: float, ours: float) -> bool:
    """Tell whether an engine's loss agrees with lamina's, or its error, for infer, is rounding."""
    if not (math.isfinite(check) and math.isfinite(ours)):
        return False
    if workload.kind == "infer":
        return check <= ENGINES[name].tolerance
    return abs(check - ours) <= LOSS_TOLERANCE[workload.kind] * abs(ours)
