"""Memories: a Transformer's feed-forward layer read as a key-value memory.

Public names are looked up when first used: only what reads a live model imports torch.
"""

from __future__ import annotations

from typing import Any

from lamina.late import look_up

# The public names and the modules that hold them, in the order of docs/memories.md.
_HOME: dict[str, str] = {
    "KeyValueMemory": "lamina.memories.key_value",
    "Capacity": "lamina.memories.capacity",
    "keys_from_text": "lamina.memories.text_keys",
    "measure_capacity": "lamina.memories.capacity",
    "measure_recall": "lamina.memories.capacity",
    "plot_capacity": "lamina.memories.capacity",
    "record": "lamina.memories.recording",
    "RecordProgress": "lamina.memories.recording",
    "open": "lamina.memories.bank",
    "Bank": "lamina.memories.bank",
    "Trigger": "lamina.memories.bank",
    "Promoted": "lamina.memories.bank",
    "Neuron": "lamina.memories.bank",
    "Agreement": "lamina.memories.bank",
    "write_card": "lamina.memories.cards",
    "write_overview": "lamina.memories.cards",
    "Editor": "lamina.memories.editor",
    "Edit": "lamina.memories.edits",
    "Fact": "lamina.memories.edit_report",
    "EditReport": "lamina.memories.edit_report",
    "RomeSettings": "lamina.memories.rome",
    "key_covariance": "lamina.memories.rome",
    "apply_patch": "lamina.memories.editor",
    "explain": "lamina.memories.prompt",
    "Explanation": "lamina.memories.explanation",
    "Refinement": "lamina.memories.refinement",
    "measure_refinement": "lamina.memories.refinement",
    "Pattern": "lamina.memories.patterns",
    "PatternCoverage": "lamina.memories.patterns",
}

__all__ = [*_HOME]  # noqa: PLE0604 (all are strings)


def __getattr__(name: str) -> Any:
    return look_up(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
