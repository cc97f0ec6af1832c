"""How times and ratios are written, on the terminal and in documents alike."""

from __future__ import annotations

from typing import Any

CHECKS = {"train": "loss, epoch 1", "fit": "final loss", "infer": "largest error"}
KINDS = {
    "train": "Training, one step (row gather, forward, backward, Adam)",
    "fit": "MLPClassifier.fit, whole",
    "infer": "Inference, one call from Python",
}


def duration(seconds: float) -> str:
    """Return a time to three digits, in the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{_three_digits(seconds / scale)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns"


def ratio(value: float) -> str:
    """Return a ratio such as 18.3×."""
    return f"{_three_digits(value)}×"


def conditions(result: dict[str, Any]) -> str:
    """Return machine, threads, versions, commit and load in one paragraph."""
    cpu, found = result["cpu"], result["versions"]
    shown = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    commit = (result["commit"] or "unknown")[:12] + (" with changes" if result["changed"] else "")
    before, after = (result["load_average"][when][0] for when in ("before", "after"))
    threads = f"{result['n_threads']} thread{'s' * (result['n_threads'] > 1)}"
    return (
        f"{cpu['model']}, {cpu['isa']}, {threads} each; "
        f"{result['n_rounds']} interleaved round{'s' * (result['n_rounds'] > 1)} on "
        f"{result['created'][:10]}, load {before:g} before and {after:g} after; "
        f"commit {commit}; {shown}."
    )


def missing(result: dict[str, Any]) -> str:
    """Return a sentence on the engines that are not installed, "" if there are none."""
    names = [name for name, engine in result["engines"].items() if not engine["available"]]
    return f"Missing, because not installed: {', '.join(names)}." if names else ""


def _three_digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
