"""Writes what a recording found into the bank's tables."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

from lamina.memories.live_model import LiveModel
from lamina.memories.running import Running

PROMOTED: Final = 20  # tokens kept of each value
ROWS: Final = 512  # values that are projected at a time: 512 * vocabulary float32


def finish(
    database: Any,
    live: LiveModel,
    tokenizer: Any,
    running: dict[int, Running],
    facts: dict[str, Any],
    n_tokens: int,
) -> None:
    """Write triggers, statistics, promoted tokens and directions of values, all or none."""
    import pyarrow as pa

    database.execute("BEGIN")
    for table, columns in TABLES.items():
        database.execute(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns})")
    pieces = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    _insert(database, "vocabulary", pa.table({"token": range(len(pieces)), "text": pieces}))
    facts = {**facts, "n_tokens": n_tokens, "has_head": live.head is not None}
    database.execute("INSERT INTO facts VALUES (?)", [json.dumps(facts)])
    for layer, kept in running.items():
        block = live.blocks[layer]
        _insert(database, "triggers", _triggers(layer, kept, facts["max_length"]))
        neurons = {
            "layer": np.full(block.d_ff, layer, np.int32),
            "neuron": np.arange(block.d_ff, dtype=np.int32),
            "rate": (kept.n_active / n_tokens).numpy(),
            "mean": (kept.total / n_tokens).numpy(),
            "quantiles": list(kept.quantiles()),
        }
        _insert(database, "neurons", pa.table(neurons))
        values = block.array("w_down" if block.gated else "w_out").T  # (d_ff, d_model)
        length = np.linalg.norm(values, axis=1, keepdims=True)
        unit = (values / np.where(length > 0, length, 1)).astype(np.float16)
        database.execute("INSERT INTO directions VALUES (?, ?)", [layer, unit.tobytes()])
        if live.head is not None:
            _insert(database, "promoted", _promoted(layer, live, values, len(pieces)))
    database.execute("COMMIT")
    database.execute("CHECKPOINT")


TABLES: Final = {
    "facts": "json VARCHAR",
    "vocabulary": "token INTEGER, text VARCHAR",
    "triggers": "layer INTEGER, neuron INTEGER, rank INTEGER, coefficient FLOAT, "
    "sequence BIGINT, token INTEGER",
    "neurons": "layer INTEGER, neuron INTEGER, rate DOUBLE, mean DOUBLE, quantiles FLOAT[]",
    "promoted": "layer INTEGER, neuron INTEGER, rank INTEGER, token INTEGER, logit FLOAT",
    "directions": "layer INTEGER, value BLOB",
}


def _insert(database: Any, table: str, rows: Any) -> None:
    database.register("rows", rows)
    database.execute(f"INSERT INTO {table} SELECT * FROM rows")
    database.unregister("rows")


def _triggers(layer: int, kept: Running, max_length: int) -> Any:
    import pyarrow as pa

    d_ff, top_k = kept.top.shape
    place = kept.place.numpy().reshape(-1)
    found = place >= 0
    columns = {
        "layer": np.full(d_ff * top_k, layer, np.int32),
        "neuron": np.repeat(np.arange(d_ff, dtype=np.int32), top_k),
        "rank": np.tile(np.arange(top_k, dtype=np.int32), d_ff),
        "coefficient": kept.top.numpy().reshape(-1),
        "sequence": place // max_length,
        "token": (place % max_length).astype(np.int32),
    }
    return pa.table({name: column[found] for name, column in columns.items()})


def _promoted(layer: int, live: LiveModel, values: Any, n_pieces: int) -> Any:
    """Return the tokens with the largest logits of each value, from its own projection."""
    import pyarrow as pa
    import torch

    k = min(PROMOTED, n_pieces)
    dtype = live.head.weight.dtype
    tokens, logits = [], []
    for start in range(0, len(values), ROWS):
        rows = torch.from_numpy(np.ascontiguousarray(values[start : start + ROWS]))
        with torch.no_grad():
            # rows of the matrix beyond the tokenizer's vocabulary are padding
            best = torch.topk(live.unembed(rows.to(dtype))[:, :n_pieces].float(), k, dim=1)
        tokens.append(best.indices.numpy().astype(np.int32).reshape(-1))
        logits.append(best.values.numpy().reshape(-1))
    return pa.table(
        {
            "layer": np.full(len(values) * k, layer, np.int32),
            "neuron": np.repeat(np.arange(len(values), dtype=np.int32), k),
            "rank": np.tile(np.arange(k, dtype=np.int32), len(values)),
            "token": np.concatenate(tokens),
            "logit": np.concatenate(logits),
        }
    )
