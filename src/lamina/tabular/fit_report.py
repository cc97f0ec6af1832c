"""FitReport: how a fit went, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lamina.core.errors import ModelFileError


@dataclass(frozen=True)
class FitReport:
    """How a fit went, as plain numbers that go into the model file.

    Parameters
    ----------
    n_rows, n_members : int
    epochs, best_epochs : tuple of int
        Of each member; the first is 1.
    stopped : tuple of str
        Why each member stopped, as in `lamina.History`.
    seed : int
    n_threads : int
    isa : str
    notes : tuple of str
        Sentences on columns left out and values taken as missing.
    scores : dict of str to float
        Of the training rows, each predicted by members that did not see it: accuracy, log_loss and
        auc, or r2, rmse and mae. Empty for several labels.
    seconds : float
        Of the whole fit; not stored, so that equal fits make equal files.
    """

    n_rows: int
    n_members: int
    epochs: tuple[int, ...]
    best_epochs: tuple[int, ...]
    stopped: tuple[str, ...]
    seed: int
    n_threads: int
    isa: str
    notes: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes: all but `seconds`."""
        state = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "seconds"}
        state = {k: list(v) if isinstance(v, tuple) else v for k, v in state.items()}
        return state | {"scores": dict(self.scores)}

    @classmethod
    def from_json(cls, state: Any) -> FitReport:
        """Rebuild from `to_json`; `ModelFileError` if it makes no sense."""
        stored = [f for f in fields(cls) if f.name != "seconds"]
        good = isinstance(state, Mapping) and set(state) == {f.name for f in stored}
        if not good or not all(_IS[str(f.type)](state[f.name]) for f in stored):
            raise ModelFileError(
                "load: expected the report of a fit, got other fields. "
                "The file is damaged; fit the model again."
            )
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in state.items()
        }
        return cls(**plain)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_scores(value: Any) -> bool:
    """Whether these are numbers by name; JSON writes 1.0 as it is, and as a float."""
    return isinstance(value, Mapping) and all(
        type(v) is float and math.isfinite(v) for v in value.values()
    )


# The type of a field, as it is written above, and what JSON's values of it are
_IS: dict[str, Callable[[Any], bool]] = {
    "int": _is_count,
    "str": _is_text,
    "tuple[int, ...]": lambda value: isinstance(value, list) and all(map(_is_count, value)),
    "tuple[str, ...]": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "Mapping[str, float]": _is_scores,
}
