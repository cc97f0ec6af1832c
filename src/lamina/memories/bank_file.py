"""The file of a bank: one DuckDB database, opened, checked and asked."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError, ModelFileError, SpecError, require_extra


def connect(path: Path, where: str, *, read_only: bool) -> Any:
    """Connect to a database; one sentence if it is locked, damaged or cannot be made."""
    duckdb = require_extra("duckdb", "memories")
    settings = {"memory_limit": "256MB", "threads": "1"}
    try:
        return duckdb.connect(str(path), read_only=read_only, config=settings)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        if "lock" in reason.lower():
            raise ModelFileError(
                f"{where}: expected a bank that is free, got {str(path)!r}, which another process "
                "is recording. Wait until it is finished."
            ) from None
        raise ModelFileError(
            f"{where}: expected a bank of memories in {str(path)!r}, got: {reason}. Give the path "
            "of one that memories.record wrote, in a folder that can be used."
        ) from None


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers, ascending, as text: 0 to 4, 7."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)


class BankFile:
    """A finished bank's database, read-only."""

    def __init__(self, database: Any, path: str) -> None:
        self.database, self.path = database, path
        duckdb = require_extra("duckdb", "memories")
        try:
            self.facts: dict[str, Any] = json.loads(self.rows("SELECT json FROM facts")[0][0])
            sizes = self.rows("SELECT layer, count(*) FROM neurons GROUP BY layer ORDER BY layer")
        except (duckdb.Error, IndexError, TypeError, ValueError):
            database.close()
            raise ModelFileError(
                f"memories.open: expected a bank of memories, got another file {path!r}. Give one "
                "that memories.record wrote."
            ) from None
        self.d_ff = {int(layer): int(n) for layer, n in sizes}  # by layer, of those recorded
        self.random_places: dict[int, Any] = {}  # kept for patterns, by their number
        self.n_neurons = sum(self.d_ff.values())
        self._first = dict(zip(self.d_ff, np.cumsum([0, *self.d_ff.values()]), strict=False))

    def index(self, layer: int, neuron: int) -> int:
        """Return a neuron's number among those of all layers."""
        return int(self._first[layer]) + neuron

    def indices(self, layers: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the number of each layer's first neuron among those of all."""
        first = np.zeros(max(self.d_ff) + 1, dtype=np.int64)
        first[list(self._first)] = list(self._first.values())
        found: npt.NDArray[np.int64] = first[layers]
        return found

    def place(self, index: int) -> tuple[int, int]:
        """Return layer and neuron of a number among all."""
        at = bisect_right(list(self._first.values()), index) - 1
        layer = list(self._first)[at]
        return layer, int(index - self._first[layer])

    def identity(self) -> str:
        """Return a hash of what the bank was recorded from, and of how its file is now.

        What is derived from a bank, and kept beside it, holds this to tell whose it is.
        """
        stat = Path(self.path).stat()
        facts = json.dumps([self.facts, stat.st_size, stat.st_mtime_ns], sort_keys=True)
        return hashlib.blake2b(facts.encode(), digest_size=12).hexdigest()

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def check_model(self, model: Any) -> None:
        """Refuse a model that this bank was not recorded from, showing both fingerprints."""
        from lamina.memories.live_model import LiveModel

        found = LiveModel.find(model, "Bank.check_model").fingerprint()
        if found != self.facts["model"]:
            raise DataError(
                f"Bank.check_model: expected the model with fingerprint {self.facts['model']}, of "
                f"which {self.path!r} was recorded, got {found}. Record a bank of this model."
            )

    def check(self, layer: int, neuron: int, name: str) -> None:
        """Refuse a layer or neuron that is not there."""
        width = self.d_ff.get(layer)
        if width is None:
            raise SpecError(
                f"Bank.{name}: expected a layer that was recorded, {ranges(self.d_ff)}, got "
                f"{layer}. Count from 0."
            )
        if not 0 <= neuron < width:
            raise SpecError(
                f"Bank.{name}: expected a neuron below {width}, got {neuron} in layer {layer}. "
                "Count from 0."
            )

    def rows(self, query: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        rows: list[tuple[Any, ...]] = self.database.execute(query, values or []).fetchall()
        return rows
