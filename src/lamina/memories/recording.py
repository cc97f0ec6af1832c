"""Streams a corpus through a model once, and keeps what makes each neuron fire.

While it records, a bank lies beside its target: ``PATH.recording``, a database that receives the
sequences, and ``PATH.recording.state``, written anew at each checkpoint. The state counts the
sequences that it stands for, so that later ones are dropped when recording goes on. The target
appears by one rename, when all is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from lamina.core.errors import DataError, ModelFileError, SpecError, require_extra
from lamina.core.modelfile import write_atomically
from lamina.memories.bank import Bank
from lamina.memories.bank import open as open_bank
from lamina.memories.bank_file import connect
from lamina.memories.finish import finish
from lamina.memories.live_model import LiveModel, check_tokenizer, fingerprint_tokenizer
from lamina.memories.running import Running
from lamina.memories.sequences import cut
from lamina.memories.watch import watch_coefficients

WHERE: Final = "memories.record"
BATCH: Final = 32  # sequences between two looks at the clock
TOGETHER: Final = 1024  # tokens, padding included, that run together


@dataclass(frozen=True)
class RecordProgress:
    """How far a recording is: sequences and tokens read so far."""

    n_sequences: int
    n_tokens: int


def record(
    model: Any,
    tokenizer: Any,
    texts: Iterable[str],
    path: str | os.PathLike[str],
    *,
    layers: Sequence[int] | None = None,
    top_k: int = 20,
    max_length: int = 128,
    checkpoint_every: int = 12,
    progress: Callable[[RecordProgress], None] | None = None,
) -> Bank:
    """Record, for each neuron of each feed-forward layer, the tokens on which it fires most.

    The coefficient of a neuron is what the layer's second matrix multiplies its value by: f(z) of
    a plain layer, f(gate) * up of a gated one. It is active where z > 0, in a gated layer where
    gate > 0; in a layer of another activation than ReLU, GELU or SiLU read that with care.

    Parameters
    ----------
    model : transformers model
        Plain or gated feed-forward layers, on the CPU; run in evaluation mode.
    tokenizer : fast tokenizer
        The model's own.
    texts : iterable of str
        Read once, cut into sequences of at most max_length tokens.
    path : path-like
        The bank to write. If recording into it was interrupted, it goes on after the last
        checkpoint, given the same model, tokenizer, settings and texts.
    layers : sequence of int, optional
        Which feed-forward layers, counted from 0; all by default.
    top_k : int
        Triggers kept of each neuron.
    max_length : int
        Tokens of a sequence, special ones included.
    checkpoint_every : int
        Batches of 32 sequences between checkpoints.
    progress : callable, optional
        Called with a `RecordProgress` after each batch. What it raises ends the recording, after
        a checkpoint.

    Returns
    -------
    Bank

    Raises
    ------
    DataError
        No text, a tokenizer that does not match, an interrupted recording of another model or
        corpus, or a bank that is there already.
    SpecError
        A model without feed-forward layers that can be read, or a setting out of range.
    ModelFileError
        The path cannot be written, or another process is recording into it.

    Notes
    -----
    Memory: the model, a layer's coefficients of a batch, about 12 top_k + 1100 bytes a neuron.
    """
    duckdb = require_extra("duckdb", "memories")
    require_extra("transformers", "torch")
    for name, value in {"top_k": top_k, "checkpoint_every": checkpoint_every}.items():
        if value < 1:
            raise SpecError(f"{WHERE}: expected {name} of at least 1, got {value}. Raise it.")
    if max_length < 4:
        raise SpecError(f"{WHERE}: expected max_length >= 4, got {max_length}. Raise it.")
    target = Path(path)
    if target.exists():
        raise DataError(
            f"{WHERE}: expected a new path, got {str(target)!r}, which exists. Read it with "
            "memories.open, or choose another path."
        )
    live = LiveModel.find(model, WHERE)
    check_tokenizer(model, tokenizer, WHERE)
    chosen = _check_layers(layers, len(live.blocks))
    facts = {
        "model": live.fingerprint(),
        "tokenizer": fingerprint_tokenizer(tokenizer),
        "layers": chosen,
        "top_k": top_k,
        "max_length": max_length,
    }
    recording = Recording(live, tokenizer, target, facts)  # opens the database
    try:
        recording.resume()
        recording.run(texts, checkpoint_every, progress)
        finish(recording.database, live, tokenizer, recording.running, facts, recording.n_tokens)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(
            f"{WHERE}: expected room to write {str(target)!r}, got: {reason}. Make room, and call "
            "again to go on after the last checkpoint."
        ) from error
    finally:
        recording.close()
        if recording.n_sequences == 0 and not recording.state_path.exists():
            recording.partial.unlink()  # nothing to go on with
    recording.partial.replace(target)
    recording.state_path.unlink(missing_ok=True)
    return open_bank(target)


def _check_layers(layers: Sequence[int] | None, n_layers: int) -> list[int]:
    """Return which layers to record, in order."""
    chosen = sorted(set(range(n_layers) if layers is None else map(int, layers)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= n_layers:
        raise SpecError(
            f"{WHERE}: expected layers from 0 to {n_layers - 1}, got {list(layers or [])}. Count "
            "from 0, or leave them out to record all."
        )
    return chosen


class Recording:
    """A recording under way: the database, the running records, and how far it is."""

    def __init__(
        self, live: LiveModel, tokenizer: Any, target: Path, facts: dict[str, Any]
    ) -> None:
        self.live, self.tokenizer, self.facts = live, tokenizer, facts
        self.partial = target.with_name(target.name + ".recording")
        self.state_path = target.with_name(target.name + ".recording.state")
        self.database = connect(self.partial, WHERE, read_only=False)
        self.running = {
            layer: Running(live.blocks[layer].d_ff, facts["top_k"]) for layer in facts["layers"]
        }
        self.n_sequences = self.n_tokens = 0
        self.chain = b""  # a hash of the sequences so far: the corpus must be the same on resuming

    def close(self) -> None:
        """Close the database, so that another process may go on."""
        self.database.close()

    def resume(self) -> None:
        """Make the tables, or take up what an interrupted recording left."""
        import torch
        from safetensors import SafetensorError, safe_open

        self.database.execute(
            "CREATE TABLE IF NOT EXISTS sequences "
            "(sequence BIGINT, text VARCHAR, ids INTEGER[], starts INTEGER[], ends INTEGER[])"
        )
        if not self.state_path.exists():
            self.database.execute("DELETE FROM sequences")
            return
        try:
            with safe_open(self.state_path, framework="pt") as file:
                facts = json.loads(file.metadata()["facts"])
                for layer, running in self.running.items():
                    for name in Running.NAMES if facts["settings"] == self.facts else ():
                        setattr(
                            running,
                            name,
                            file.get_tensor(f"{layer}.{name}").to(torch.device("cpu")),
                        )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"{WHERE}: expected the state of a recording in {str(self.state_path)!r}, got: "
                f"{error}. Delete it to record anew."
            ) from error
        if facts["settings"] != self.facts:
            raise DataError(
                f"{WHERE}: expected to go on with {facts['settings']}, got {self.facts}. Pass the "
                f"same model and settings, or delete {str(self.state_path)!r} to record anew."
            )
        self.n_sequences, self.n_tokens = facts["n_sequences"], facts["n_tokens"]
        self.chain = bytes.fromhex(facts["chain"])
        self.database.execute("DELETE FROM sequences WHERE sequence >= ?", [self.n_sequences])
        n_there = self.database.execute("SELECT count(*) FROM sequences").fetchone()[0]
        if n_there != self.n_sequences:
            raise ModelFileError(
                f"{WHERE}: expected {self.n_sequences} sequences in {str(self.partial)!r}, got "
                f"{n_there}. Delete {str(self.state_path)!r} to record anew."
            )

    def run(
        self,
        texts: Iterable[str],
        checkpoint_every: int,
        progress: Callable[[RecordProgress], None] | None,
    ) -> None:
        """Read the texts to their end."""
        import torch

        sequences = cut(texts, self.tokenizer, self.facts["max_length"], WHERE)
        chain = b""
        for sequence in islice(sequences, self.n_sequences):
            chain = _extend(chain, sequence)
        if chain != self.chain:
            raise DataError(
                f"{WHERE}: expected the texts of the interrupted recording, got others. Pass the "
                f"same, or delete {str(self.state_path)!r} to record anew."
            )
        was_training = self.live.model.training
        self.live.model.eval()
        try:
            with torch.no_grad():
                n_batches = 0
                while batch := list(islice(sequences, BATCH)):
                    self._add(batch)
                    n_batches += 1
                    if n_batches % checkpoint_every == 0:
                        self.checkpoint()
                    if progress is not None:
                        self._tell(progress)
        finally:
            self.live.model.train(was_training)
        if self.n_tokens == 0:
            raise DataError(
                f"{WHERE}: expected texts with at least one token, got none. Pass some."
            )
        self.checkpoint()  # what follows takes a while, and needs room

    def _tell(self, progress: Callable[[RecordProgress], None]) -> None:
        """Tell how far it is; whoever stops it there loses nothing."""
        try:
            progress(RecordProgress(self.n_sequences, self.n_tokens))
        except BaseException:
            self.checkpoint()
            raise

    def _add(self, batch: list[dict[str, Any]]) -> None:
        """Run a batch, those of like length together, and keep its texts."""
        numbered = [(self.n_sequences + row, sequence) for row, sequence in enumerate(batch)]
        for part in _alike(numbered):
            self._run(part)
        self.database.execute("BEGIN")
        for number, sequence in numbered:
            self.chain = _extend(self.chain, sequence)
            columns = [sequence[name] for name in ("text", "ids", "starts", "ends")]
            self.database.execute(
                "INSERT INTO sequences VALUES (?, ?, ?, ?, ?)", [number, *columns]
            )
        self.database.execute("COMMIT")
        self.n_sequences += len(batch)

    def _run(self, part: list[tuple[int, dict[str, Any]]]) -> None:
        """Run sequences together, and take in what every layer's neurons did."""
        import torch

        max_length = self.facts["max_length"]
        width = max(len(sequence["ids"]) for _, sequence in part)
        ids = torch.zeros(len(part), width, dtype=torch.int64)
        real = torch.zeros(len(part), width, dtype=torch.bool)
        kept = torch.zeros(len(part), width, dtype=torch.bool)  # not special
        place = torch.zeros(len(part), width, dtype=torch.int64)
        priority = torch.zeros(len(part), width, dtype=torch.float64)
        for row, (number, sequence) in enumerate(part):
            n = len(sequence["ids"])
            ids[row, :n] = torch.tensor(sequence["ids"])
            real[row, :n] = True
            kept[row, :n] = ~torch.tensor(sequence["special"], dtype=torch.bool)
            place[row, :n] = number * max_length + torch.arange(n)
            priority[row, :n] = torch.from_numpy(np.random.default_rng(number).random(n))
        flat = kept.reshape(-1)
        where = (place.reshape(-1)[flat], priority.reshape(-1)[flat])
        with ExitStack() as hooks:
            for layer, running in self.running.items():

                def take(h: Any, active: Any, running: Running = running) -> None:
                    running.add(h[flat].float(), active[flat], *where)

                watch_coefficients(self.live.blocks[layer], take, hooks)
            base = getattr(self.live.model, "base_model", self.live.model)
            base(input_ids=ids, attention_mask=real.long())
        self.n_tokens += int(flat.sum())

    def checkpoint(self) -> None:
        """Write the state, after the sequences that it stands for."""
        from safetensors.torch import save

        self.database.execute("CHECKPOINT")
        tensors = {
            f"{layer}.{name}": tensor
            for layer, running in self.running.items()
            for name, tensor in running.state().items()
        }
        facts = {
            "settings": self.facts,
            "n_sequences": self.n_sequences,
            "n_tokens": self.n_tokens,
            "chain": self.chain.hex(),
        }
        data = save(tensors, metadata={"facts": json.dumps(facts)})
        write_atomically(self.state_path, [data], WHERE)


def _alike(
    numbered: list[tuple[int, dict[str, Any]]],
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Yield sequences in parts of like length, so that little is padding."""
    part: list[tuple[int, dict[str, Any]]] = []
    for each in sorted(numbered, key=lambda pair: len(pair[1]["ids"])):
        if part and (len(part) + 1) * len(each[1]["ids"]) > TOGETHER:
            yield part
            part = []
        part.append(each)
    yield part


def _extend(chain: bytes, sequence: dict[str, Any]) -> bytes:
    return hashlib.blake2b(chain + repr(sequence["ids"]).encode(), digest_size=12).digest()
