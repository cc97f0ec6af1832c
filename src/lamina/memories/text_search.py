"""Full-text search of triggers: the neurons that fire on some words, or shortly after them.

An index of SQLite's FTS5 lies beside the bank, ``PATH.search``: a document for each place that is a
trigger of some neuron, holding its last tokens. It is made at the first search, and made anew where
it belongs to another bank; where it cannot be written it is kept in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

from lamina.core.errors import DataError
from lamina.memories.bank_file import BankFile

WINDOW: Final = 8  # tokens of a document, the trigger last
MOST_PLACES: Final = 50_000  # that one search follows up


class TextSearch:
    """The index of one bank, open for reading.

    Parameters
    ----------
    bank : BankFile
    """

    def __init__(self, bank: BankFile) -> None:
        self.bank = bank
        self._identity = identity(bank)
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
        places = self.index.execute(
            "SELECT rowid FROM places WHERE places MATCH ? LIMIT ?", [phrase, MOST_PLACES]
        ).fetchall()
        if not places:
            return []
        import numpy as np
        import pyarrow as pa

        database = self.bank.database
        database.register("hits", pa.table({"place": np.array(places, dtype=np.int64)[:, 0]}))
        try:
            rows = self.bank.rows(
                "SELECT layer, neuron, count(*) / ? AS score FROM triggers JOIN hits "
                "ON sequence * ? + token = place GROUP BY layer, neuron "
                "ORDER BY score DESC, max(coefficient) DESC, layer, neuron LIMIT ?",
                [float(self.bank.facts["top_k"]), self.bank.facts["max_length"], k],
            )
        finally:
            database.unregister("hits")
        return [(int(layer), int(neuron), float(score)) for layer, neuron, score in rows]

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


def identity(bank: BankFile) -> str:
    """Return a hash of what a bank was recorded from, and of how its file is now."""
    stat = Path(bank.path).stat()
    facts = json.dumps([bank.facts, stat.st_size, stat.st_mtime_ns, WINDOW], sort_keys=True)
    return hashlib.blake2b(facts.encode(), digest_size=12).hexdigest()


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
