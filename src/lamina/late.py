"""Public names that are looked up when first used, so that importing a room costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any


def look_up(room: str, home: Mapping[str, str], name: str) -> Any:
    """Return a room's public name from the module that holds it, and keep it in the room.

    Parameters
    ----------
    room : str
        The package's full name.
    home : mapping of str to str
        The modules that hold its public names.
    name : str

    Raises
    ------
    AttributeError
        The room has no such public name.
    """
    if name not in home:
        raise AttributeError(f"module {room!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home[name]), name)
    setattr(sys.modules[room], name, value)  # the next look-up does not come here
    return value
