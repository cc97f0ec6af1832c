"""Checkpoints of a fit that goes on for long: a model file of its own role, never pickle.

It holds what the fit was asked for (the signature), what was found in the table, and each member's
`History` with the state that `lamina.train_many(…, resume=…)` continues from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core import modelfile
from lamina.core.errors import DataError, ModelFileError
from lamina.core.history import STOPPED, History
from lamina.tabular.chunks import Layout
from lamina.tabular.head import ClassHead, NumberHead
from lamina.tabular.inputs import Inputs
from lamina.tabular.streamed_target import StreamedTarget, as_classes
from lamina.tabular.uses import ColumnUses

Array = NDArray[Any]
ROLE: Final = "unfinished_table_fit"
NAME: Final = "checkpoint"  # of the file, in the work folder
_CURVES: Final = ("train_loss", "validation_loss", "validation_score", "times")
_ARRAYS: Final = ("theta", "m", "v", "best_theta")


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the passes over a table found: all that training needs besides the encoded rows.

    Parameters
    ----------
    inputs : Inputs
    target : StreamedTarget
    layout : Layout
    notes : tuple of str
        Sentences for people.
    """

    inputs: Inputs
    target: StreamedTarget
    layout: Layout
    notes: tuple[str, ...]


@dataclass
class Checkpoint:
    """Where a fit is.

    Parameters
    ----------
    signature : dict
        The table and the arguments, of what JSON holds.
    seed : int
    prepared : Prepared, optional
        None before all rows are encoded.
    histories : list of History
        One a member; empty before the first round.
    """

    signature: dict[str, Any]
    seed: int
    prepared: Prepared | None = None
    histories: list[History] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write it, in one step; `ModelFileError` if that cannot be, the last one then stays."""
        spec: dict[str, Any] = {"signature": self.signature, "seed": self.seed}
        arrays: dict[str, Array] = {}
        if self.prepared is not None:
            spec["prepared"] = _prepared_to_json(self.prepared)
            arrays |= _prepared_arrays(self.prepared)
        spec["members"] = [_history_to_json(history) for history in self.histories]
        for i, history in enumerate(self.histories):
            arrays |= {f"member{i}.{k}": v for k, v in _history_arrays(history).items()}
        modelfile.write(folder / NAME, ROLE, spec, arrays)

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Read it back.

        Raises
        ------
        ModelFileError
            It is damaged, or of another format.
        """
        path = folder / NAME
        role, spec, arrays = modelfile.read(path)
        try:
            if role != ROLE:
                raise ValueError(f"the role {role!r}")
            prepared = _prepared_of(spec["prepared"], arrays) if "prepared" in spec else None
            histories = [
                _history_of(state, arrays, f"member{i}.") for i, state in enumerate(spec["members"])
            ]
            return cls(dict(spec["signature"]), int(spec["seed"]), prepared, histories)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"fit: expected the checkpoint of an unfinished fit in {str(path)!r}, got: "
                f"{error!s:.200}. Remove the folder and begin again."
            ) from error

    def check_signature(self, now: Mapping[str, Any]) -> None:
        """Refuse to go on with another table, other arguments or another version."""
        for name in sorted({*self.signature, *now}):
            before, after = self.signature.get(name), now.get(name)
            if before == after:
                continue
            if name == "files":
                raise DataError(
                    f"fit: expected the table of the unfinished fit, {_files(before)}, got "
                    f"{_files(after)}. Give the same files unchanged, or begin again without "
                    "resuming."
                )
            raise DataError(
                f"fit: expected {name} = {before!r:.80}, as when the unfinished fit began, got "
                f"{after!r:.80}. Pass the same, or begin again without resuming."
            )


def _files(files: Any) -> str:
    """Describe files by name, size and time."""
    return ", ".join(f"{n} of {size:,} bytes, changed at {t / 1e9:.3f}" for n, size, t in files[:3])


def _history_to_json(history: History) -> dict[str, Any]:
    state = {k: v for k, v in (history.state or {}).items() if k not in _ARRAYS}
    return {
        "state": state,
        "best_epoch": history.best_epoch,
        "seed": history.seed,
        "n_threads": history.n_threads,
        "isa": history.isa,
        "precision": history.precision,
        "stopped": history.stopped,
    }


def _history_arrays(history: History) -> dict[str, Array]:
    arrays: dict[str, Array] = {k: np.array(getattr(history, k), np.float64) for k in _CURVES}
    state = history.state or {}
    return arrays | {k: state[k] for k in _ARRAYS if state.get(k) is not None}


def _history_of(state: Mapping[str, Any], arrays: Mapping[str, Array], prefix: str) -> History:
    found = {name: arrays.get(prefix + name) for name in _ARRAYS}
    if state["stopped"] not in STOPPED or found["theta"] is None:
        raise ValueError("a member without parameters")
    curves = {name: arrays[prefix + name].tolist() for name in _CURVES}
    return History(
        **curves,
        **{k: v for k, v in state.items() if k != "state"},
        state={**state["state"], **found},
    )


def _prepared_to_json(prepared: Prepared) -> dict[str, Any]:
    target = prepared.target
    return {
        "inputs": prepared.inputs.to_json(),
        "layout": prepared.layout.to_json(),
        "notes": list(prepared.notes),
        "target": {
            "name": target.name,
            "uses": target.uses.to_json(),
            "head": target.head.to_json(),
            "n_rows": target.n_rows,
            "n_missing": target.n_missing,
            "classes": None if target.classes is None else target.classes.tolist(),
        },
    }


def _prepared_arrays(prepared: Prepared) -> dict[str, Array]:
    arrays = dict(prepared.inputs.arrays())
    if prepared.target.counts is not None:
        arrays["counts"] = prepared.target.counts
    if isinstance(prepared.target.head, NumberHead):
        arrays |= prepared.target.head.arrays()
    return arrays


def _prepared_of(state: Mapping[str, Any], arrays: Mapping[str, Array]) -> Prepared:
    target: Mapping[str, Any] = state["target"]
    name, head = str(target["name"]), target["head"]
    uses = ColumnUses.from_json(target["uses"])
    labels: list[Any] | None = target["classes"]
    return Prepared(
        Inputs.from_json(state["inputs"], arrays),
        StreamedTarget(
            name,
            uses,
            NumberHead.from_json(head, arrays) if labels is None else ClassHead.from_json(head),
            int(target["n_rows"]),
            int(target["n_missing"]),
            None if labels is None else as_classes(labels, uses[name].kind),
            arrays.get("counts"),
        ),
        Layout(**state["layout"]),
        tuple(state["notes"]),
    )
