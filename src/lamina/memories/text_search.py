"""Full-text search of triggers: the neurons that fire on some words, or shortly after them.

An index of SQLite's FTS5 lies beside the bank, ``PATH.search``: a document for each place that is a
trigger of some neuron, holding its last tokens. It is made at the first search, and made anew where
it belongs to another bank; where it cannot be written it is kept in memory.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError
from lamina.memories.bank_file import BankFile

Array = npt.NDArray[Any]

FEW: Final = 5_000  # places that the database looks up; more are looked up in memory
WINDOW: Final = 8  # tokens of a document, the trigger last


class TextSearch:
    """The index of one bank, open for reading.

    Parameters
    ----------
    bank : BankFile
    """

    def __init__(self, bank: BankFile) -> None:
        self.bank = bank
        self._identity = f"{bank.identity()} {WINDOW}"
        self._kept: tuple[Array, Array, Array] | None = None
        path = Path(bank.path + ".search")
        found = _open_if_of(path, self._identity)
        if found is None:
            made = self._make(path)
            found = (
                made if isinstance(made, sqlite3.Connection) else _open_if_of(made, self._identity)
            )
        assert found is not None  # noqa: S101
        self.index = found

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def neurons(self, words: str, k: int) -> list[tuple[int, int, float]]:
        """Return (layer, neuron, share of its triggers) of the neurons that fire on the words most.

        Raises
        ------
        DataError
            There is no word in it.
        """
        if not any(c.isalnum() for c in words):
            raise DataError(
                f"Bank.neurons_triggered_by: expected a word, got {words!r}. Write letters "
                "or digits."
            )
        phrase = '"' + words.replace('"', " ").replace("\0", " ") + '"'
        # One text of all numbers: a row each would take longer than the search.
        places = self.index.execute(
            "SELECT group_concat(rowid) FROM places WHERE places MATCH ?", [phrase]
        ).fetchone()[0]
        if places is None:
            return []
        hits = np.fromstring(places, dtype=np.int64, sep=",")
        neuron, coefficient = self._join(hits) if len(hits) <= FEW else self._pick(hits)
        bank = self.bank
        n = np.bincount(neuron, minlength=bank.n_neurons)
        strongest = np.full(bank.n_neurons, -np.inf, np.float32)
        np.maximum.at(strongest, neuron, coefficient)
        found = np.flatnonzero(n)
        if 0 < k < len(found):  # sort no more than those that may be among the first k
            found = found[n[found] >= np.partition(n[found], len(found) - k)[-k]]
        order = np.lexsort((found, -strongest[found], -n[found]))[:k]
        top_k = int(bank.facts["top_k"])
        return [(*bank.place(int(i)), float(n[i] / top_k)) for i in found[order]]

    def _join(self, hits: Array) -> tuple[Array, Array]:
        """Return neuron and coefficient of the triggers at some places, found by the database."""
        import pyarrow as pa

        database = self.bank.database
        database.register("hits", pa.table({"place": hits}))
        try:
            columns = database.execute(
                "SELECT layer, neuron, coefficient FROM triggers JOIN hits "
                "ON sequence * ? + token = place",
                [self.bank.facts["max_length"]],
            ).fetchnumpy()
        finally:
            database.unregister("hits")
        layer, neuron, coefficient = (np.asarray(column) for column in columns.values())
        return self.bank.indices(layer) + neuron, coefficient

    def _pick(self, hits: Array) -> tuple[Array, Array]:
        """Return the same, for many places: from all triggers, which are kept once read."""
        if self._kept is None:
            columns = self.bank.database.execute(
                "SELECT layer, neuron, sequence * ? + token AS place, coefficient FROM triggers",
                [self.bank.facts["max_length"]],
            ).fetchnumpy()
            layer, neuron, place, coefficient = (np.asarray(x) for x in columns.values())
            self._kept = self.bank.indices(layer) + neuron, place, coefficient
        neuron, place, coefficient = self._kept
        fires = np.zeros(int(place.max()) + 1, dtype=bool)
        fires[hits] = True
        chosen = np.flatnonzero(fires[place])
        return neuron[chosen], coefficient[chosen]

    def _make(self, path: Path) -> Path | sqlite3.Connection:
        """Write the index, all or nothing, or keep it in memory where that cannot be done."""
        try:
            handle, name = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)
            os.close(handle)
        except OSError:
            return self._fill(sqlite3.connect(":memory:", check_same_thread=False))
        try:
            self._fill(sqlite3.connect(name)).close()
            Path(name).replace(path)
        except (sqlite3.Error, OSError):  # a full disk
            with contextlib.suppress(OSError):
                Path(name).unlink()
            return self._fill(sqlite3.connect(":memory:", check_same_thread=False))
        return path

    def _fill(self, index: sqlite3.Connection) -> sqlite3.Connection:
        index.execute("PRAGMA journal_mode = OFF")
        index.execute("CREATE TABLE identity (text)")
        index.execute("CREATE VIRTUAL TABLE places USING fts5(words, content='', detail='full')")
        rows = self.bank.rows(
            "SELECT p.sequence * ? + p.token, s.starts[greatest(p.token + 2 - ?, 1)], "
            "s.ends[p.token + 1], s.text "
            "FROM (SELECT DISTINCT sequence, token FROM triggers) p "
            "JOIN sequences s USING (sequence)",
            [self.bank.facts["max_length"], WINDOW],
        )
        documents = ((place, text[start:end]) for place, start, end, text in rows)
        index.executemany("INSERT INTO places (rowid, words) VALUES (?, ?)", documents)
        index.execute("INSERT INTO identity VALUES (?)", [self._identity])
        index.commit()
        return index


def _open_if_of(path: Path, wanted: str) -> sqlite3.Connection | None:
    """Return the index if there is one of this bank; whatever else lies there is not trusted."""
    if not path.is_file():
        return None
    index = None
    try:
        index = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
        )
        index.execute("PRAGMA trusted_schema = OFF")
        if index.execute("SELECT text FROM identity").fetchall() == [(wanted,)]:
            return index
    except sqlite3.Error:
        pass
    if index is not None:
        index.close()
    return None
