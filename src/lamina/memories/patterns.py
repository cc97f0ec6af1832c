"""N-grams that the triggers of a neuron share: what a machine can say of the pattern of a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import SpecError
from lamina.memories.bank_file import BankFile

Gram = tuple[int, ...]

WINDOW: Final = 8  # tokens up to the trigger and with it, in which n-grams are looked for
SHARED: Final = 3  # triggers that an n-gram must stand before: the paper's rule for a pattern


@dataclass(frozen=True)
class Pattern:
    """An n-gram that several of a neuron's triggers share.

    Attributes
    ----------
    text : str
    n_tokens : int
    n_triggers : int
        Triggers within whose last tokens it stands.
    at_end : int
        Those of which it ends with the trigger itself.
    lift : float
        How many times as often as among random places of the corpus; infinite if it stands at none
        of those looked at.
    """

    text: str
    n_tokens: int
    n_triggers: int
    at_end: int
    lift: float


@dataclass(frozen=True)
class PatternCoverage:
    """How many of a layer's triggers an n-gram explains that other triggers of the neuron share.

    Attributes
    ----------
    layer : int
    n_neurons : int
        Looked at.
    share : float
        Of triggers that hold an n-gram which `SHARED` of their neuron's triggers hold.
    at_end : float
        Of triggers whose own token, or n-gram that ends with it, is shared so.
    chance, chance_at_end : float
        The same of random places of the corpus, in groups of as many.
    """

    layer: int
    n_neurons: int
    share: float
    at_end: float
    chance: float
    chance_at_end: float


# The last tokens up to a trigger or place t, which DuckDB counts from 1
_SLICE: Final = f"greatest(t.token + 2 - {WINDOW}, 1):t.token + 1"


def grams(ids: Sequence[int], n_max: int) -> set[Gram]:
    """Return all n-grams of 1 to n_max tokens."""
    return {tuple(ids[i : i + n]) for n in range(1, n_max + 1) for i in range(len(ids) - n + 1)}


def endings(ids: Sequence[int], n_max: int) -> set[Gram]:
    """Return the n-grams of 1 to n_max tokens that end with the last."""
    return {tuple(ids[-n:]) for n in range(1, min(n_max, len(ids)) + 1)}


def covered(group: list[list[int]], n_max: int) -> tuple[int, int]:
    """Return how many places of a group share an n-gram with enough others; at all, at the end."""
    found = []
    for of in (grams, endings):
        sets = [of(ids, n_max) for ids in group]
        counts = Counter(gram for each in sets for gram in each)
        found.append(sum(any(counts[gram] >= SHARED for gram in each) for each in sets))
    return found[0], found[1]


def trigger_ids(bank: BankFile, layer: int, neurons: Sequence[int]) -> dict[int, list[list[int]]]:
    """Return for each neuron its triggers' last tokens, themselves included."""
    rows = bank.rows(
        f"SELECT t.neuron, s.ids[{_SLICE}] FROM triggers t JOIN sequences s USING (sequence) "
        "WHERE t.layer = ? AND t.neuron IN (SELECT unnest(?)) ORDER BY t.neuron, t.rank",
        [layer, list(neurons)],
    )
    found: dict[int, list[list[int]]] = {}
    for neuron, ids in rows:
        found.setdefault(neuron, []).append(ids)
    return found


def random_ids(bank: BankFile, n: int) -> list[list[int]]:
    """Return the last tokens of n random places of the corpus, always the same."""
    rows = bank.rows(
        f"SELECT s.ids[{_SLICE}] FROM "
        "(SELECT sequence, unnest(range(len(ids))) AS token FROM sequences) t "
        "JOIN sequences s USING (sequence) "
        "ORDER BY hash(sequence * 1000003 + t.token), sequence, t.token LIMIT ?",
        [n],
    )
    return [ids for (ids,) in rows]


def _random_places(bank: BankFile, n: int) -> npt.NDArray[np.int32]:
    """Return `random_ids` as rows of `WINDOW` tokens, -1 before a sequence; kept once read."""
    rows: npt.NDArray[np.int32] | None = bank.random_places.get(n)
    if rows is None:
        ids = random_ids(bank, n)
        rows = np.full((len(ids), WINDOW), -1, dtype=np.int32)
        for row, last in zip(rows, ids, strict=True):
            row[WINDOW - len(last) :] = last
        bank.random_places[n] = rows
    return rows


def _count(places: npt.NDArray[np.int32], gram: Gram) -> int:
    """Return how many rows hold an n-gram."""
    n = places.shape[1] - len(gram) + 1
    there = np.ones((len(places), n), dtype=bool)
    for i, token in enumerate(gram):
        there &= places[:, i : i + n] == token
    return int(there.any(axis=1).sum())


def shared_patterns(
    bank: BankFile, layer: int, neuron: int, n_max: int, n_random: int
) -> list[Pattern]:
    """Return the n-grams that at least `SHARED` of a neuron's triggers hold, telling ones first.

    An n-gram within a longer one that as many triggers hold is left out. They are ordered by
    triggers times the logarithm of the lift.
    """
    _check_n_max(n_max, "patterns")
    group = trigger_ids(bank, layer, [neuron]).get(neuron, [])
    inside = Counter(gram for ids in group for gram in grams(ids, n_max))
    at_end = Counter(gram for ids in group for gram in endings(ids, n_max))
    chosen = {gram: n for gram, n in inside.items() if n >= SHARED}
    whole = {
        gram: n
        for gram, n in chosen.items()
        if not any(
            n == m and len(other) > len(gram) and _holds(other, gram) for other, m in chosen.items()
        )
    }
    places = _random_places(bank, n_random)
    texts = _texts(bank, layer, neuron, n_max)
    found = []
    for gram, n in whole.items():
        often = _count(places, gram) / max(len(places), 1)
        lift = n / len(group) / often if often else float("inf")
        found.append(Pattern(texts[gram], len(gram), n, at_end[gram], lift))
    ceiling = float(max(n_random, 1))
    return sorted(found, key=lambda p: (-p.n_triggers * np.log(min(p.lift, ceiling)), p.text))


def layer_coverage(
    bank: BankFile, n_neurons: int, n_max: int, rng: np.random.Generator
) -> list[PatternCoverage]:
    """Return each layer's coverage, of a sample of its neurons, beside chance."""
    _check_n_max(n_max, "pattern_coverage")
    if n_neurons < 1:
        raise SpecError(
            f"Bank.pattern_coverage: expected n_neurons >= 1, got {n_neurons}. Raise it."
        )
    top_k = int(bank.facts["top_k"])
    places = random_ids(bank, n_neurons * top_k)
    luck = _share([places[i : i + top_k] for i in range(0, len(places), top_k)], n_max)
    found = []
    for layer, d_ff in bank.d_ff.items():
        chosen = np.sort(rng.choice(d_ff, min(n_neurons, d_ff), replace=False)).tolist()
        groups = trigger_ids(bank, layer, chosen)
        found.append(
            PatternCoverage(layer, len(chosen), *_share(list(groups.values()), n_max), *luck)
        )
    return found


def _check_n_max(n_max: int, name: str) -> None:
    if not 1 <= n_max <= 8:
        raise SpecError(f"Bank.{name}: expected n_max of 1 to 8, got {n_max}. Choose another.")


def _share(groups: list[list[list[int]]], n_max: int) -> tuple[float, float]:
    n = sum(map(len, groups))
    hits = [covered(group, n_max) for group in groups]
    return sum(a for a, _ in hits) / max(n, 1), sum(b for _, b in hits) / max(n, 1)


def _texts(bank: BankFile, layer: int, neuron: int, n_max: int) -> dict[Gram, str]:
    """Return the n-grams before a neuron's triggers as they stand in the corpus, verbatim."""
    found: dict[Gram, str] = {}
    parts = ", ".join(f"s.{name}[{_SLICE}]" for name in ("ids", "starts", "ends"))
    rows = bank.rows(
        f"SELECT {parts}, s.text FROM triggers t JOIN sequences s USING (sequence) "
        "WHERE t.layer = ? AND t.neuron = ?",
        [layer, neuron],
    )
    for ids, starts, ends, text in rows:
        for n in range(1, n_max + 1):
            for i in range(len(ids) - n + 1):
                found.setdefault(tuple(ids[i : i + n]), text[starts[i] : ends[i + n - 1]])
    return found


def _holds(long: Gram, short: Gram) -> bool:
    n = len(short)
    return any(long[i : i + n] == short for i in range(len(long) - n + 1))
