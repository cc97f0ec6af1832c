"""A bank's tables made up at random, quickly: for measuring searches at a real model's size."""

from __future__ import annotations

import json

import numpy as np

from lamina.memories.bank_file import connect
from lamina.memories.finish import TABLES
from lamina.memories.running import QUANTILES


def fabricate(
    path,
    *,
    layers=30,
    d_ff=1536,
    d_model=576,
    n_vocabulary=49_152,
    n_sequences=2_400,
    length=128,
    top_k=20,
    seed=0,
):
    """Write a finished bank; of SmolLM2-135M's size on a megabyte of text by default.

    Words are drawn by Zipf's law: some tokens stand everywhere, most hardly anywhere.
    """
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    database = connect(path, "fabricate", read_only=False)
    database.execute(
        "CREATE TABLE sequences "
        "(sequence BIGINT, text VARCHAR, ids INTEGER[], starts INTEGER[], ends INTEGER[])"
    )
    for table, columns in TABLES.items():
        database.execute(f"CREATE TABLE {table} ({columns})")

    def insert(table, **columns):
        database.register("rows", pa.table(columns))
        database.execute(f"INSERT INTO {table} SELECT * FROM rows")
        database.unregister("rows")

    pieces = [f" word{i}" for i in range(n_vocabulary)]
    insert("vocabulary", token=np.arange(n_vocabulary, dtype=np.int32), text=pieces)
    ids = (rng.zipf(1.3, (n_sequences, length)) % n_vocabulary).astype(np.int32)
    lengths = np.array([len(piece) for piece in pieces])[ids]
    ends = np.cumsum(lengths, axis=1).astype(np.int32)
    insert(
        "sequences",
        sequence=np.arange(n_sequences),
        text=["".join(pieces[i] for i in row) for row in ids],
        ids=list(ids),
        starts=list((ends - lengths).astype(np.int32)),
        ends=list(ends),
    )
    n = layers * d_ff
    each = {
        "layer": np.repeat(np.arange(layers, dtype=np.int32), d_ff),
        "neuron": np.tile(np.arange(d_ff, dtype=np.int32), layers),
    }
    insert(
        "neurons",
        **each,
        rate=rng.random(n),
        mean=rng.standard_normal(n),
        quantiles=list(
            np.sort(rng.standard_normal((n, len(QUANTILES))).astype(np.float32), axis=1)
        ),
    )
    ranked = {name: np.repeat(column, top_k) for name, column in each.items()}
    ranked["rank"] = np.tile(np.arange(top_k, dtype=np.int32), n)
    strength = -np.sort(-rng.exponential(1, (n, top_k)), axis=1).astype(np.float32).reshape(-1)
    insert(
        "triggers",
        **ranked,
        coefficient=strength,
        sequence=rng.integers(0, n_sequences, n * top_k),
        token=rng.integers(0, length, n * top_k).astype(np.int32),
    )
    ranked["token"] = rng.integers(0, n_vocabulary, n * top_k).astype(np.int32)
    insert("promoted", **ranked, logit=strength)
    for layer in range(layers):
        unit = rng.standard_normal((d_ff, d_model), dtype=np.float32)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        database.execute(
            "INSERT INTO directions VALUES (?, ?)", [layer, unit.astype(np.float16).tobytes()]
        )
    facts = {
        "model": "made up",
        "top_k": top_k,
        "max_length": length,
        "n_tokens": n_sequences * length,
        "layers": list(range(layers)),
        "has_head": True,
    }
    database.execute("INSERT INTO facts VALUES (?)", [json.dumps(facts)])
    database.execute("CHECKPOINT")
    database.close()
