"""What a kind of signal tells encode, decode and render; `field_files.kinds` lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lamina.fields import FitProgress

Watcher = Callable[["FitProgress"], None]


@dataclass(frozen=True)
class Loaded:
    """A signal from a file.

    Attributes
    ----------
    signal : object
        What the field's `fit` takes, with `options` beside it.
    text : str
        What it is, in words: 512 x 512, RGB, uint8.
    facts : mapping
        The same for machines.
    """

    signal: Any
    text: str
    facts: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendered:
    """What a field rendered; `write` puts it into a file."""

    text: str
    facts: Mapping[str, Any]
    write: Callable[[str], None]


class Kind(Protocol):
    """What a kind of signal has to say."""

    name: str
    noun: str
    """With its article: "a picture"."""
    field: str
    """The class in `lamina.fields`."""
    reads: tuple[str, ...]
    """Endings of files that hold such a signal."""
    encodes: tuple[str, ...]
    """Options of encode that only some kinds have, such as "signs"."""
    renders: tuple[str, ...]
    """Options of render that it has, such as "size"."""

    def read(self, source: str | bytes, suffix: str, asked: Mapping[str, Any]) -> Loaded:
        """Read a file, or its content with the ending it would have."""

    def preview(self, path: str, loaded: Loaded) -> Watcher:
        """Return what writes the field so far to a picture; raise `DataError` if it cannot."""

    def check_out(self, path: str, verb: str) -> None:
        """Raise `DataError` unless the kind can be written to a file of this name."""

    def render(self, field: Any, out: str, asked: Mapping[str, Any], verb: str) -> Rendered:
        """Render a field for a file of this name; without options, as what it was fitted to."""

    def scores(self, field: Any, loaded: Loaded) -> dict[str, tuple[float, str]]:
        """Return further figures of a fitted field: name to value and its text."""


def check_asked(allowed: tuple[str, ...], asked: Mapping[str, Any], noun: str, verb: str) -> None:
    """Raise `DataError` where an option is given that a kind does not have."""
    from lamina.core.errors import DataError

    for name, value in asked.items():
        if value is not None and name not in allowed:
            own = ", ".join(f"--{each.replace('_', '-')}" for each in allowed) or "no such option"
            raise DataError(
                f"{verb}: expected {own} with {noun}, got --{name.replace('_', '-')}. Leave it out."
            )


def suffix_of(path: str) -> str:
    """Return a name's ending, in small letters."""
    return Path(path).suffix.lower()
