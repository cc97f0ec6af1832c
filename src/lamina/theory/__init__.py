"""What a linear unit cannot do, what a network can, as proofs that run.

Public names are looked up when first used: each proof imports only what it needs.
"""

from __future__ import annotations

import importlib
from typing import Any

# The public names and the modules that hold them, in the order of docs/theory.md.
_HOME: dict[str, str] = {}

__all__ = [*_HOME]  # noqa: PLE0604 (all are strings)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lamina.theory' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
